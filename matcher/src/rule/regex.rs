//! Regular expressions of rules, in the syntax of the crate `regex`.

/// Largest compiled form of a regular expression, in bytes, and of its lazy automaton's cache.
pub(crate) const REGEX_SIZE_MAX: usize = 1 << 20;

/// Builds a rule's regular expression, which is in the syntax of the crate `regex`, within [`REGEX_SIZE_MAX`].
pub(crate) fn build_regex(source: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(source).size_limit(REGEX_SIZE_MAX).dfa_size_limit(REGEX_SIZE_MAX).build()
}
