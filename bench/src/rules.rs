//! What the contestants search for.

use crate::error::BenchError;
use etwsieve_matcher::{Rule, builtin};
use etwsieve_tests::corpus;
use std::collections::HashMap;
use std::fs;

/// Rules, in the form that each contestant wants.
#[derive(Debug)]
pub struct RuleSet {
    /// `builtin` or `sigma`.
    pub name: &'static str,
    /// Loaded by the sensor. Their places here are the indices of answers.
    pub rules: Vec<Rule>,
    /// The rule files' texts.
    pub texts: Vec<String>,
}

impl RuleSet {
    /// The rules that come with the sensor.
    pub fn builtin() -> Self {
        Self { name: "builtin", rules: builtin::rules(), texts: vec![builtin::TEXT.to_owned()] }
    }

    /// Sigma's rules about script blocks, from the corpus; `None`, with a word on standard error, without one.
    ///
    /// # Errors
    ///
    /// [`BenchError`] if any of them cannot be read or is refused.
    pub fn sigma() -> Result<Option<Self>, BenchError> {
        let Some(data) = corpus::data() else { return Ok(None) };
        let folders = corpus::rules(&data, &["sigma/ps_script"]);
        let (loaded, unreadable) = etwsieve::rules::from_paths(&folders);
        if let Some(error) = unreadable.first() {
            return Err(BenchError::Rules(error.to_string()));
        }
        if let Some(error) = loaded.errors.first() {
            return Err(BenchError::Rules(error.to_string()));
        }
        let (files, _) = etwsieve::input::expand(&folders, &["yml"]);
        let read = |path| fs::read_to_string(&path).map_err(|source| BenchError::Io { path, source });
        let texts = files.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Some(Self { name: "sigma", rules: loaded.rules, texts }))
    }

    /// All sets that are at hand.
    ///
    /// # Errors
    ///
    /// As [`sigma`](Self::sigma).
    pub fn all() -> Result<Vec<Self>, BenchError> {
        Ok([Some(Self::builtin()), Self::sigma()?].into_iter().flatten().collect())
    }

    /// The index of each rule by its id.
    pub fn by_id(&self) -> HashMap<&str, u32> {
        self.rules.iter().map(|rule| rule.id.as_str()).zip(0..).collect()
    }
}
