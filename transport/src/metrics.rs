//! Metrics for Prometheus: the [`Text`] of a scrape, and a [`Server`] that serves it on the loopback interface.

mod server;

pub use server::{HEAD_LEN_MAX, Render, Server};

use std::fmt::{Display, Write as _};

/// Metrics in the text exposition format, version 0.0.4.
///
/// Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>. A family is a block of lines:
///
/// ```text
/// # HELP etwsieve_events_total Events seen.
/// # TYPE etwsieve_events_total counter
/// etwsieve_events_total{source="live"} 7
/// ```
///
/// Samples may be added in any order; those of a family end up in one block. The caller adds each combination of name
/// and labels once.
#[derive(Clone, Debug, Default)]
pub struct Text {
    families: Vec<Family>,
}

#[derive(Clone, Debug)]
struct Family {
    name: &'static str,
    /// HELP, TYPE and the samples added so far.
    lines: String,
}

impl Text {
    /// Creates an empty text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sample of a counter, which never decreases during the life of the process.
    ///
    /// # Panics
    ///
    /// If `name` does not end in `_total`, or if the name or a label is invalid in the format. All names are constants
    /// of the program.
    pub fn counter(&mut self, name: &'static str, help: &str, labels: &[(&'static str, &str)], value: u64) {
        assert!(name.ends_with("_total"), "the name of the counter {name} ends in _total");
        self.sample("counter", name, help, labels, value);
    }

    /// Adds a sample of a gauge, whose name ends with its unit.
    ///
    /// # Panics
    ///
    /// If `name` ends in `_total`, which is for counters, or if the name or a label is invalid in the format.
    pub fn gauge(&mut self, name: &'static str, help: &str, labels: &[(&'static str, &str)], value: f64) {
        assert!(!name.ends_with("_total"), "the name of the gauge {name} does not end in _total");
        match value {
            f64::INFINITY => self.sample("gauge", name, help, labels, "+Inf"),
            f64::NEG_INFINITY => self.sample("gauge", name, help, labels, "-Inf"),
            _ => self.sample("gauge", name, help, labels, value),
        }
    }

    /// Returns the whole text, family by family.
    pub fn finish(self) -> String {
        self.families.into_iter().map(|family| family.lines).collect()
    }

    fn sample(
        &mut self,
        kind: &str,
        name: &'static str,
        help: &str,
        labels: &[(&'static str, &str)],
        value: impl Display,
    ) {
        let at = self.families.iter().position(|family| family.name == name).unwrap_or_else(|| {
            assert!(is_name(name, true), "{name:?} is a metric's name");
            let lines = format!("# HELP {name} {}\n# TYPE {name} {kind}\n", escape(help, false));
            self.families.push(Family { name, lines });
            self.families.len() - 1
        });
        let lines = &mut self.families[at].lines;
        lines.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            assert!(is_name(label, false), "{label:?} is a label's name");
            lines.push(if number == 0 { '{' } else { ',' });
            // Writing to a string cannot fail.
            let _ = write!(lines, "{label}=\"{}\"", escape(text, true));
        }
        if !labels.is_empty() {
            lines.push('}');
        }
        let _ = writeln!(lines, " {value}");
    }
}

/// Returns true for letters, digits and underscores that do not start with a digit. Names of metrics may also contain
/// colons.
fn is_name(name: &str, is_metric: bool) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || is_metric && byte == b':')
}

/// Escapes backslashes and line feeds, and in labels also quotes.
fn escape(text: &str, is_label: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if is_label => escaped.push_str("\\\""),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::Text;

    #[test]
    fn samples_are_grouped_by_family_under_one_header() {
        let mut text = Text::new();
        text.counter("etwsieve_events_total", "Events seen.", &[("source", "live")], 7);
        text.gauge("etwsieve_queue_bytes", "Queued payload bytes.", &[], 1.5);
        text.counter("etwsieve_events_total", "Events seen.", &[("source", "b"), ("kind", "4104")], u64::MAX);
        assert_eq!(
            text.finish(),
            "# HELP etwsieve_events_total Events seen.\n\
             # TYPE etwsieve_events_total counter\n\
             etwsieve_events_total{source=\"live\"} 7\n\
             etwsieve_events_total{source=\"b\",kind=\"4104\"} 18446744073709551615\n\
             # HELP etwsieve_queue_bytes Queued payload bytes.\n\
             # TYPE etwsieve_queue_bytes gauge\n\
             etwsieve_queue_bytes 1.5\n"
        );
        assert_eq!(Text::new().finish(), "");
    }

    #[test]
    fn values_and_labels_are_escaped() {
        let mut text = Text::new();
        text.gauge("a", "C:\\x \"quoted\"\nsecond", &[("path", "C:\\x \"quoted\"\nsecond é")], f64::INFINITY);
        text.gauge("a", "", &[("path", "")], f64::NEG_INFINITY);
        text.gauge("a", "", &[], f64::NAN);
        text.gauge("b", "", &[], 3.0);
        assert_eq!(
            text.finish(),
            "# HELP a C:\\\\x \"quoted\"\\nsecond\n# TYPE a gauge\n\
             a{path=\"C:\\\\x \\\"quoted\\\"\\nsecond é\"} +Inf\na{path=\"\"} -Inf\na NaN\n\
             # HELP b \n# TYPE b gauge\nb 3\n"
        );
    }

    #[test]
    #[should_panic(expected = "ends in _total")]
    fn counters_end_in_total() {
        Text::new().counter("etwsieve_events", "", &[], 1);
    }

    #[test]
    #[should_panic(expected = "is a label's name")]
    fn labels_have_no_dash() {
        Text::new().counter("events_total", "", &[("a-b", "")], 1);
    }
}
