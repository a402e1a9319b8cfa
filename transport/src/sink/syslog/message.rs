//! The message (RFC 5424): who and what in structured data, the record in JSON as its text.
//!
//! Receivers need to take no more than 2,048 bytes (RFC 5425, section 4.3.1) and often cut at 8,192 (rsyslog's default), in
//! the middle of the JSON. So a record that is too long is sent with a shortened script; `shortened="1"` in the structured
//! data and `…` at the end of the text say so. The store has the whole.

use crate::hit::{EventContent, RuleRefV1, Utf16Text};
use crate::sink::record::hex;
use crate::sink::{Item, Record, RecordFormat};
use crate::time::{TICKS_PER_SECOND, filetime_text};
use std::borrow::Cow;

/// Longest HOSTNAME and longest value of the structured data, in characters (RFC 5424, section 6).
const HOSTNAME_LEN_MAX: usize = 255;
/// Longest value of a parameter of ours, in bytes.
const PARAM_LEN_MAX: usize = 512;

/// What all messages have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) facility: u8,
    pub(super) enterprise: u32,
    pub(super) len_max: usize,
}

impl Layout {
    /// The message of a record.
    pub(super) fn message(&self, record: &Record<'_>) -> Vec<u8> {
        let whole = self.render(record, false);
        if whole.len() <= self.len_max {
            return whole;
        }
        // The longest beginning of the texts that fits, by halving; without any text it is as short as it gets.
        let attempt = |units| {
            let item = shortened(record.item, units);
            self.render(&Record { item: &item, rule: record.rule }, true)
        };
        let (mut fits, mut too_long) = (0, longest(&record.item.hit.content));
        let mut best = attempt(0);
        while too_long - fits > 1 {
            let units = fits + (too_long - fits) / 2;
            let message = attempt(units);
            if message.len() <= self.len_max {
                (fits, best) = (units, message);
            } else {
                too_long = units;
            }
        }
        best
    }

    fn render(&self, record: &Record<'_>, shortened: bool) -> Vec<u8> {
        let (item, rule) = (record.item, record.rule);
        let priority = 8 * u32::from(self.facility) + severity(rule);
        let hit = &item.hit;
        let host = hit.computer.as_deref().map(hostname).filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| hostname(&item.sensor));
        let mut text = format!(
            "<{priority}>1 {} {} etwsieve - detection [etwsieve@{} sensor=\"{}\" epoch=\"{}\" sequence=\"{}\" rule_id=\"{}\" level=\"{}\"",
            timestamp(hit.time),
            if host.is_empty() { "-" } else { &host },
            self.enterprise,
            param(&item.sensor),
            hex(&item.epoch),
            item.sequence,
            param(&rule.id),
            param(&rule.level),
        );
        text.push_str(if shortened { " shortened=\"1\"] " } else { "] " });
        let mut bytes = text.into_bytes();
        record.append(RecordFormat::Jsonl, &mut bytes);
        bytes
    }
}

/// RFC 5424, section 6.2.1, from Sigma's words.
fn severity(rule: &RuleRefV1) -> u32 {
    match rule.level.as_str() {
        "critical" => 2,
        "high" => 3,
        "medium" => 4,
        "low" => 5,
        _ => 6,
    }
}

/// A FILETIME with six decimals, the most that RFC 5424 allows. Years above 9999, which it cannot express, are absent.
fn timestamp(time: u64) -> Cow<'static, str> {
    // 9999-12-31T23:59:59 as seconds since 1601.
    if time / TICKS_PER_SECOND > 265_046_774_399 {
        return "-".into();
    }
    let text = filetime_text(time);
    format!("{}Z", &text[..text.len() - 2]).into()
}

/// Printable ASCII without blanks.
fn hostname(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(HOSTNAME_LEN_MAX).collect()
}

/// RFC 5424, section 6.3.3: a backslash before `"`, `\` and `]`.
fn param(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(PARAM_LEN_MAX)];
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\' | ']') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// UTF-16 units of the longest text.
fn longest(content: &EventContent) -> usize {
    match content {
        EventContent::Notice { detail } => detail.len(),
        _ => content.texts().into_iter().flatten().map(|(_, text)| text.0.len()).max().unwrap_or_default(),
    }
}

/// The hit with at most `units` of each text.
fn shortened(item: &Item, units: usize) -> Item {
    let mut item = item.clone();
    let cut = |text: &mut Utf16Text| {
        if text.0.len() > units {
            let mut kept = text.0[..units].to_vec();
            kept.push(0x2026);
            *text = Utf16Text(kept);
        }
    };
    item.hit.content.texts_mut().into_iter().flatten().for_each(cut);
    if let EventContent::Notice { detail } = &mut item.hit.content
        && detail.len() > units
    {
        detail.truncate(detail.floor_char_boundary(units));
        detail.push('…');
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hit::{HitV1, Scope, View};

    fn item(text: &str) -> Item {
        let rule = RuleRefV1 {
            id: "a\"b]c\\".into(),
            title: "t".into(),
            level: "high".into(),
            ..RuleRefV1::default()
        };
        Item {
            sensor: "srv1".into(),
            epoch: [0xAB; 16],
            sequence: 7,
            hit: HitV1 {
                time: 133_245_763_580_175_449,
                source: "live".into(),
                source_sequence: 1,
                provider: [0; 16],
                event_id: 4104,
                version: 1,
                channel: 16,
                level: 5,
                opcode: 15,
                task: 2,
                keywords: 0,
                computer: Some("a host.test".into()),
                user_sid: None,
                process_id: None,
                thread_id: None,
                activity_id: None,
                event_record_id: None,
                scope: Scope::Event,
                view: View::Raw,
                partial: false,
                content: EventContent::ScriptBlock {
                    message_number: Some(1),
                    message_total: Some(1),
                    text: text.into(),
                    script_block_id: None,
                    path: None,
                },
                cut: None,
                rules: vec![rule],
            },
        }
    }

    fn message(item: &Item, len_max: usize) -> String {
        let layout = Layout { facility: 16, enterprise: 32473, len_max };
        let record = Record { item, rule: &item.hit.rules[0] };
        String::from_utf8(layout.message(&record)).unwrap()
    }

    #[test]
    fn header_and_structured_data_are_those_of_the_rfc() {
        let message = message(&item("x"), 8192);
        let expected = concat!(
            "<131>1 2023-03-29T15:12:38.017544Z ahost.test etwsieve - detection [etwsieve@32473 sensor=\"srv1\" ",
            "epoch=\"abababababababababababababababab\" sequence=\"7\" rule_id=\"a\\\"b\\]c\\\\\" level=\"high\"] {\"sensor\":\"srv1\","
        );
        assert!(message.starts_with(expected), "{message}");
        assert!(message.ends_with('}'));
    }

    #[test]
    fn a_long_script_is_shortened_to_what_fits_and_stays_json() {
        // Each unit of the second becomes six bytes of JSON.
        for text in ["abcdefgh".repeat(2000), "\u{1}".repeat(4000), "\u{20AC}".repeat(9000), "y".repeat(8192)]
        {
            let item = item(&text);
            for len_max in [2048, 8192] {
                let message = message(&item, len_max);
                assert!(
                    message.len() <= len_max && message.len() > len_max - 16,
                    "{} of {len_max}",
                    message.len()
                );
                assert!(message.contains(" shortened=\"1\"] "));
                let json = &message[message.find("] {").unwrap() + 2..];
                let line: serde_json::Value = serde_json::from_str(json).unwrap();
                let shown = line["script_block_text"].as_str().unwrap();
                assert!(text.starts_with(shown.strip_suffix('…').unwrap()));
            }
        }
    }

    #[test]
    fn a_message_that_cannot_fit_is_as_short_as_it_gets() {
        let message = message(&item("abcdefgh"), 10);
        assert!(message.contains("\"script_block_text\":\"…\""), "{message}");
    }

    #[test]
    fn times_beyond_the_rfc_are_absent() {
        assert_eq!(timestamp(u64::MAX), "-");
        assert_eq!(timestamp(0), "1601-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(265_046_774_399 * TICKS_PER_SECOND), "9999-12-31T23:59:59.000000Z");
    }
}
