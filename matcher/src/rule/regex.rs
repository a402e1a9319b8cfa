//! Regular expressions of rules, in the syntax of the crate `regex`.

/// Maximum size of a compiled regular expression, and of the cache of its lazy automaton, in bytes.
pub(crate) const REGEX_SIZE_MAX: usize = 1 << 20;

/// Builds the regular expression of a rule, within [`REGEX_SIZE_MAX`].
pub(crate) fn build_regex(source: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(source).size_limit(REGEX_SIZE_MAX).dfa_size_limit(REGEX_SIZE_MAX).build()
}
