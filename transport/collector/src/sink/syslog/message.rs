//! Formats messages (RFC 5424) with sensor and rule as structured data and the record in JSON as the text.
//!
//! Receivers must only support 2,048 bytes (RFC 5425, section 4.3.1) and often truncate at 8,192 (rsyslog's default),
//! in the middle of the JSON. A record that is too long is therefore sent with a shortened script, marked by
//! `shortened="1"` in the structured data and `…` at the end of the script. If that is not enough, strings and lists
//! are shortened, too (`clamped` lists them), and a record that is still too long is refused. The store keeps the
//! complete hit.

use crate::sink::clamp::{EXCERPT_STRING_LEN_MAX, FieldLimits};
use crate::sink::{Record, RecordFormat};
use data_encoding::HEXLOWER;
use etwsieve_transport::hit::RuleRefV1;
use etwsieve_transport::time::filetime_text;

/// Maximum length of HOSTNAME, in characters (RFC 5424, section 6).
const HOSTNAME_LEN_MAX: usize = 255;
/// Maximum length of a parameter value, in bytes.
const PARAM_LEN_MAX: usize = 512;

/// The format of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageFormat {
    pub(super) facility: u8,
    pub(super) enterprise: u32,
    pub(super) len_max: usize,
}

impl MessageFormat {
    /// Returns the message of a record.
    ///
    /// # Errors
    ///
    /// The length of the shortest possible message in bytes, if it is too long.
    pub(super) fn message(&self, record: &Record<'_>) -> Result<Vec<u8>, usize> {
        let whole = self.render(record, false);
        if whole.len() <= self.len_max {
            return Ok(whole);
        }
        let attempt = |limits: FieldLimits| self.render(&record.within(limits), true);
        let texts = |len: usize| FieldLimits {
            text: len,
            term: len.max(EXCERPT_STRING_LEN_MAX),
            is_beginning: true,
            ..FieldLimits::WHOLE
        };
        let mut best = attempt(texts(0));
        if best.len() > self.len_max {
            return self.without_texts(record);
        }
        // Binary search for the longest prefix of the texts that fits.
        let (mut fits, mut too_long) = (0, self.len_max);
        while too_long - fits > 1 {
            let len = usize::midpoint(fits, too_long);
            let message = attempt(texts(len));
            if message.len() <= self.len_max {
                (fits, best) = (len, message);
            } else {
                too_long = len;
            }
        }
        Ok(best)
    }

    /// Returns the message of a record that is too long even without its texts, with shortened strings and lists.
    fn without_texts(&self, record: &Record<'_>) -> Result<Vec<u8>, usize> {
        let mut len = 0;
        for bound in [256, 64, 16, 4, 0] {
            let limits =
                FieldLimits { text: 0, term: bound, rule: bound, entries: bound / 8, is_beginning: true };
            let message = self.render(&record.within(limits), true);
            len = message.len();
            if len <= self.len_max {
                return Ok(message);
            }
        }
        Err(len)
    }

    fn render(&self, record: &Record<'_>, shortened: bool) -> Vec<u8> {
        let (item, rule) = (record.item(), record.rule());
        let priority = 8 * u32::from(self.facility) + severity(rule);
        let hit = record.hit();
        let host = hit.computer.as_deref().map(hostname).filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| hostname(&item.sensor));
        let mut text = format!(
            "<{priority}>1 {} {} etwsieve - detection [etwsieve@{} sensor=\"{}\" epoch=\"{}\" sequence=\"{}\" rule_id=\"{}\" level=\"{}\"",
            timestamp(hit.time),
            if host.is_empty() { "-" } else { &host },
            self.enterprise,
            param(&item.sensor),
            HEXLOWER.encode(&item.epoch),
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

/// Maps Sigma's level to a severity (RFC 5424, section 6.2.1).
fn severity(rule: &RuleRefV1) -> u32 {
    match rule.level.as_str() {
        "critical" => 2,
        "high" => 3,
        "medium" => 4,
        "low" => 5,
        _ => 6,
    }
}

/// Formats a FILETIME with six decimals, the maximum in RFC 5424. Records have no year above 9999.
fn timestamp(time: u64) -> String {
    let text = filetime_text(time);
    format!("{}Z", &text[..text.len() - 2])
}

/// Returns the printable ASCII characters without spaces.
fn hostname(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(HOSTNAME_LEN_MAX).collect()
}

/// Escapes `"`, `\` and `]` with a backslash (RFC 5424, section 6.3.3).
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::SinkItem;
    use crate::sink::clamp::TIME_MAX;
    use etwsieve_transport::hit::{EventContent, HitV1, Scope, View};

    fn item(text: &str) -> SinkItem {
        let rule = RuleRefV1 {
            id: "a\"b]c\\".into(),
            title: "t".into(),
            level: "high".into(),
            ..RuleRefV1::default()
        };
        SinkItem {
            sensor: "srv1".into(),
            epoch: [0xAB; 16],
            sequence: 7,
            rules_before: 0,
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

    fn message(item: &SinkItem, len_max: usize) -> String {
        let format = MessageFormat { facility: 16, enterprise: 32473, len_max };
        let record = Record::of(item).next().unwrap();
        String::from_utf8(format.message(&record).unwrap()).unwrap()
    }

    #[test]
    fn header_and_structured_data_follow_the_rfc() {
        let message = message(&item("x"), 8192);
        let expected = concat!(
            "<131>1 2023-03-29T15:12:38.017544Z ahost.test etwsieve - detection [etwsieve@32473 sensor=\"srv1\" ",
            "epoch=\"abababababababababababababababab\" sequence=\"7\" rule_id=\"a\\\"b\\]c\\\\\" level=\"high\"] {\"sensor\":\"srv1\","
        );
        assert!(message.starts_with(expected), "{message}");
        assert!(message.ends_with('}'));
    }

    #[test]
    fn a_long_script_is_shortened_to_fit_and_stays_valid_json() {
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
    fn strings_and_lists_are_shortened_until_the_message_fits() {
        let mut item = item("abcdefgh");
        item.hit.source = "\u{1}".repeat(4096);
        item.hit.rules[0].title = "\u{1}".repeat(4096);
        item.hit.rules[0].attack = vec!["\u{1}".repeat(4096); 64];
        for len_max in [2048, 8192] {
            let message = message(&item, len_max);
            assert!(message.len() <= len_max, "{}", message.len());
            let json = &message[message.find("] {").unwrap() + 2..];
            let line: serde_json::Value = serde_json::from_str(json).unwrap();
            let clamped = ["attack", "rule_title", "script_block_text", "source"];
            for name in clamped {
                assert!(line["clamped"].as_array().unwrap().iter().any(|it| it == name), "{name}: {message}");
            }
        }
    }

    #[test]
    fn a_message_that_cannot_fit_is_refused() {
        let item = item("abcdefgh");
        let format = MessageFormat { facility: 16, enterprise: 32473, len_max: 100 };
        let record = Record::of(&item).next().unwrap();
        assert!(format.message(&record).is_err_and(|len| len > 100));
    }

    #[test]
    fn years_have_four_digits() {
        assert_eq!(timestamp(0), "1601-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(TIME_MAX), "9999-12-31T23:59:59.999999Z");
        let mut item = item("x");
        item.hit.time = u64::MAX;
        let message = message(&item, 8192);
        assert!(message.starts_with("<131>1 9999-12-31T23:59:59.999999Z "), "{message}");
        assert!(message.ends_with(",\"clamped\":[\"time\"]}"), "{message}");
    }
}
