//! The rule sets that contestants search for.

mod ten;
mod tenfold;

use crate::error::BenchError;
use etwsieve_matcher::{Calls, KERNEL_VARIABLE, Kernel, KernelError, Matcher, Rule, builtin, load};
use etwsieve_tests::corpus;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

/// Number of copies of Sigma's rules in the tenfold set, including the originals.
const COPIES: u32 = 10;

/// Returns the kernel that the environment names, by default the best one.
///
/// # Errors
///
/// [`KernelError`] if there is no such kernel, or if this processor cannot run it.
pub fn kernel() -> Result<Kernel, KernelError> {
    Kernel::select(&std::env::var_os(KERNEL_VARIABLE).unwrap_or_default())
}

/// Compiles rules for the [`kernel`] that the environment names.
///
/// # Panics
///
/// If it names a kernel that this processor cannot run.
pub fn compile(rules: Vec<Rule>) -> Matcher {
    Matcher::with_kernel(rules, kernel().expect("the environment names a kernel"))
}

/// A rule set in the forms that contestants need.
#[derive(Debug)]
pub struct RuleSet {
    /// `builtin`, `ten`, `sigma` or `sigma10`.
    pub name: &'static str,
    /// The rules as loaded by the sensor. Answers refer to them by index.
    pub rules: Vec<Rule>,
    /// The texts of the rule files.
    pub texts: Vec<String>,
    /// Number of rules, from the first on, for which the corpus has verdicts.
    pub of_corpus: usize,
    /// If all rules consist of plain needles: the needles of each rule in lower case, all of which must occur in the text.
    pub needles: Option<Vec<Vec<String>>>,
}

impl RuleSet {
    /// Returns the built-in rules of the sensor.
    pub fn builtin() -> Self {
        let needles = vec![vec!["enter-pssession".to_owned(), "-computername".to_owned()]];
        Self {
            name: "builtin",
            rules: builtin::rules().into_iter().filter(|rule| rule.calls != Calls::Only).collect(),
            texts: vec![builtin::TEXT.to_owned()],
            of_corpus: 0,
            needles: Some(needles),
        }
    }

    /// Returns ten rules of one needle each.
    ///
    /// # Panics
    ///
    /// Never: a test loads them.
    pub fn ten() -> Self {
        let texts: Vec<String> =
            (0..).zip(ten::NEEDLES).map(|(number, needle)| ten::rule(number, needle)).collect();
        let loaded = load(texts.iter().map(|text| ("ten.yml", text.as_str())));
        assert!(loaded.errors.is_empty(), "the ten rules load: {:?}", loaded.errors);
        let needles = ten::NEEDLES.iter().map(|needle| vec![needle.to_lowercase()]).collect();
        Self { name: "ten", rules: loaded.rules, texts, of_corpus: 0, needles: Some(needles) }
    }

    /// Returns Sigma's rules about script blocks from the corpus; `None`, with a message, without a corpus.
    ///
    /// # Errors
    ///
    /// [`BenchError`] if any of them cannot be read or is rejected.
    pub fn sigma() -> Result<Option<Self>, BenchError> {
        Self::of_copies("sigma", 1)
    }

    /// Returns the same rules and nine copies of them with other words in their literals.
    ///
    /// # Errors
    ///
    /// Same as [`sigma`](Self::sigma).
    pub fn sigma10() -> Result<Option<Self>, BenchError> {
        Self::of_copies("sigma10", COPIES)
    }

    fn of_copies(name: &'static str, copies: u32) -> Result<Option<Self>, BenchError> {
        let Some(files) = Self::sigma_files() else { return Ok(None) };
        let read =
            |path: PathBuf| fs::read_to_string(&path).map_err(|source| BenchError::Io { path, source });
        let originals = files.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut texts = Vec::new();
        for copy in 0..copies {
            texts.extend(originals.iter().map(|text| tenfold::varied(text, copy)));
        }
        let loaded = load(texts.iter().map(|text| (name, text.as_str())));
        if let Some(error) = loaded.errors.first() {
            return Err(BenchError::Rules(error.to_string()));
        }
        Ok(Some(Self { name, rules: loaded.rules, texts, of_corpus: originals.len(), needles: None }))
    }

    /// Returns the files of Sigma's rules about script blocks; `None` without a corpus.
    pub fn sigma_files() -> Option<Vec<PathBuf>> {
        let folders = corpus::rules(&corpus::data()?, &["sigma/ps_script"]);
        Some(etwsieve::input::expand(&folders, &["yml"]).0)
    }

    /// Returns all available sets.
    ///
    /// # Errors
    ///
    /// Same as [`sigma`](Self::sigma).
    pub fn all() -> Result<Vec<Self>, BenchError> {
        let sets = [Some(Self::builtin()), Some(Self::ten()), Self::sigma()?, Self::sigma10()?];
        Ok(sets.into_iter().flatten().collect())
    }

    /// Returns the index of each rule by its id.
    pub fn by_id(&self) -> HashMap<&str, u32> {
        self.rules.iter().map(|rule| rule.id.as_str()).zip(0..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::RuleSet;
    use crate::literals::Literals;

    #[test]
    fn sets_are_of_their_size() {
        let sets = RuleSet::all().unwrap();
        assert_eq!((sets[0].rules.len(), sets[1].rules.len()), (1, 10));
        for set in &sets {
            assert_eq!(set.rules.len(), set.texts.len(), "{}: one rule a text", set.name);
            assert_eq!(set.by_id().len(), set.rules.len(), "{}: ids differ", set.name);
        }
        let [_, _, sigma, tenfold] = sets.as_slice() else { return };
        assert_eq!(10 * sigma.rules.len(), tenfold.rules.len());
        let numbers = [sigma, tenfold].map(|set| Literals::all(&set.rules).len());
        // Short literals such as `-e ` have no word to vary and are the same in all copies.
        assert!(numbers[1] > 8 * numbers[0], "{numbers:?} literals");
    }
}
