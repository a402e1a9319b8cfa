//! Spans of the rules that match an event.

use super::Matcher;
use crate::engine::spans::{Span, SpanFinder};
use crate::field::Fields;
use etwsieve_budget::Budget;

impl Matcher {
    /// Returns the spans where rules match an event or a joined block: for each of `rules`, what made it true,
    /// ascending, at most [`SPANS_MAX`](crate::SPANS_MAX). The list is empty for a rule that does not match.
    ///
    /// # Complexity
    ///
    /// Each test of the rules searches the text once more.
    pub fn spans(&self, fields: &Fields<'_>, rules: &[u32]) -> Vec<Vec<Span>> {
        // The spans of hits are never cut short.
        let mut budget = Budget::new(u64::MAX, u64::MAX);
        match SpanFinder::new(self.plan(fields.kind()), fields, &mut budget) {
            Ok(mut finder) => finder.of_rules(&self.rules, rules),
            Err(_) => vec![Vec::new(); rules.len()],
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::spans::{SPANS_MAX, Span};
    use crate::field::{EventKind, Fields};
    use crate::load;
    use crate::testing::compile;

    const ID: &str = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";

    fn spans(detection: &str, text: &str) -> Vec<String> {
        let rule = format!(
            "title: t\nlogsource:\n  product: windows\n  category: ps_script\ndetection:\n{detection}\n"
        );
        let loaded = load([("test.yml", rule.as_str())]);
        assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
        let mut payload = vec![1, 0, 0, 0, 1, 0, 0, 0];
        payload.extend(format!("{text}\0{ID}\0C:\\p.ps1\0").encode_utf16().flat_map(u16::to_le_bytes));
        let fields = Fields::split(EventKind::ScriptBlock, &payload);
        let matcher = compile(loaded.rules);
        let shown = |Span { field, units }: &Span| {
            let bytes = &fields.text(*field).unwrap()[2 * units.start..2 * units.end];
            let units: Vec<u16> = bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
            format!(
                "{field:?} {} {}",
                bytes.as_ptr() as usize - payload.as_ptr() as usize,
                String::from_utf16(&units).unwrap()
            )
        };
        matcher.spans(&fields, &[0])[0].iter().map(shown).collect()
    }

    #[test]
    fn spans_are_what_made_the_rule_true() {
        let rows: [(&str, &str, &str, &[&str]); 9] = [
            (
                "both",
                "  s:\n    ScriptBlockText|contains|all: [foo, bar]\n  condition: s",
                "BAR foo bar",
                &["ScriptBlockText 8 BAR", "ScriptBlockText 16 foo", "ScriptBlockText 24 bar"],
            ),
            (
                "one of two",
                "  s:\n    ScriptBlockText|contains: [foo, bar]\n  condition: s",
                "x bar",
                &["ScriptBlockText 12 bar"],
            ),
            (
                "half of an alternative is none",
                "  a:\n    ScriptBlockText|contains|all: [foo, baz]\n  b:\n    ScriptBlockText|contains: bar\n  condition: a or b",
                "foo bar",
                &["ScriptBlockText 16 bar"],
            ),
            (
                "excluded text has no span",
                "  a:\n    ScriptBlockText|contains: foo\n  b:\n    ScriptBlockText|contains: bar\n  condition: a and not b",
                "foo",
                &["ScriptBlockText 8 foo"],
            ),
            (
                "expression",
                "  s:\n    ScriptBlockText|re: 'b.r'\n  condition: s",
                "\u{1F600}\u{e9}b\u{1F600}r bar",
                &["ScriptBlockText 14 b\u{1F600}r", "ScriptBlockText 24 bar"],
            ),
            (
                "pattern",
                "  s:\n    ScriptBlockText: 'a*b?'\n  condition: s",
                "axxxbc",
                &["ScriptBlockText 8 a", "ScriptBlockText 16 bc"],
            ),
            ("keyword in the path", "  s:\n    - p.ps\n  condition: s", "x", &["Path 92 p.ps"]),
            ("number", "  s:\n    MessageTotal: 1\n  condition: s", "x", &[]),
            ("no match", "  s:\n    ScriptBlockText|contains: foo\n  condition: s", "x", &[]),
        ];
        for (name, detection, text, expected) in rows {
            assert_eq!(spans(detection, text), expected, "{name}");
        }
    }

    #[test]
    fn the_first_span_of_every_test_comes_first() {
        let text = format!("{}bar", "foo ".repeat(100));
        let spans = spans("  s:\n    ScriptBlockText|contains|all: [foo, bar]\n  condition: s", &text);
        assert_eq!(spans.len(), SPANS_MAX);
        assert!(spans[SPANS_MAX - 1].ends_with("bar"), "{spans:?}");
    }
}
