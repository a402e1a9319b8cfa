//! Suggestions: the known word that an author probably intended.

/// Maximum length of a word that is compared, in characters.
const WORD_LEN_MAX: usize = 64;
/// Words up to this length may differ in one letter, longer ones in two.
const SHORT_LEN: usize = 4;
/// Minimum length of a prefix for which the whole word is suggested.
const PREFIX_LEN_MIN: usize = 3;

/// Returns the known word most similar to `word`, ignoring case; `None` if none is similar enough.
///
/// # Complexity
///
/// The product of the lengths of both words, for each known word.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let folded: Vec<char> = word.chars().take(WORD_LEN_MAX + 1).map(|c| c.to_ascii_lowercase()).collect();
    if folded.len() < 2 || folded.len() > WORD_LEN_MAX {
        return None;
    }
    let near_max = if folded.len() <= SHORT_LEN { 1 } else { 2 };
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        let other: Vec<char> = candidate.chars().map(|c| c.to_ascii_lowercase()).collect();
        let is_prefix = folded.len() >= PREFIX_LEN_MIN && other.starts_with(&folded);
        let distance = match distance(&folded, &other) {
            far if far > near_max => {
                if !is_prefix {
                    continue;
                }
                near_max
            }
            near => near,
        };
        if distance < other.len() && best.is_none_or(|(best, _)| distance < best) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Returns the number of insertions, deletions, replacements and transpositions of neighbours that turn one word into
/// the other (optimal string alignment distance).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut own = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let replaced = previous[column] + usize::from(a != b);
            let mut least = replaced.min(previous[column + 1] + 1).min(own[column] + 1);
            if row > 0 && column > 0 && *a == right[column - 1] && left[row - 1] == *b {
                least = least.min(before[column - 1] + 1);
            }
            own.push(least);
        }
        before = std::mem::replace(&mut previous, own);
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn misspelled_words_are_corrected() {
        let known = ["contains", "startswith", "endswith", "re", "base64", "base64offset", "ScriptBlockText"];
        let rows = [
            ("contain", Some("contains")),
            ("conatins", Some("contains")),
            ("startwith", Some("startswith")),
            ("starts", Some("startswith")),
            ("scriptblocktext", Some("ScriptBlockText")),
            ("ScriptBlock", Some("ScriptBlockText")),
            ("base46", Some("base64")),
            ("base64off", Some("base64offset")),
            ("er", Some("re")),
            ("x", None),
            ("re2", Some("re")),
            ("windash", None),
            ("", None),
        ];
        for (word, expected) in rows {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest(&"a".repeat(100_000), known), None);
    }
}
