//! Attributes that describe a rule: title, id, level, status, dates and tags.
//!
//! Values that the specification forbids are errors; values that are doubtful, or would be ignored silently, are
//! warnings. Sources: Sigma specification 2.1 with its JSON schema and its appendix on tags; pySigma for ignoring case
//! and for dates with slashes, which older rules have.

use crate::error::{Position, Problem};
use crate::rule::report::Report;
use crate::rule::tags;
use crate::yaml::Node;

/// Maximum length of an id or name, in bytes.
pub(crate) const NAME_LEN_MAX: usize = 1024;
/// Maximum length of a title, in characters.
pub(crate) const TITLE_LEN_MAX: usize = 256;

const LEVELS: [&str; 5] = ["informational", "low", "medium", "high", "critical"];
const STATUSES: [&str; 5] = ["stable", "test", "experimental", "deprecated", "unsupported"];
/// Keys of rules and filters that the specification or this program reads.
const KEYS: [&str; 24] = [
    "title",
    "id",
    "name",
    "related",
    "taxonomy",
    "status",
    "description",
    "license",
    "references",
    "reference",
    "author",
    "date",
    "modified",
    "logsource",
    "detection",
    "fields",
    "falsepositives",
    "level",
    "tags",
    "scope",
    "filter",
    "correlation",
    "action",
    "etwsieve",
];

/// The attributes of a rule or filter that are used.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    pub(crate) title: String,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) level: String,
    pub(crate) attack: Vec<String>,
}

/// Reads and checks the attributes of a document.
pub(crate) fn read(node: &Node, report: &mut Report<'_>) -> Metadata {
    let title = text(node, "title", report);
    if title.is_empty() {
        missing(node, "title", report);
    } else if title.chars().count() > TITLE_LEN_MAX {
        let at = node.get("title").unwrap_or(node).at;
        report.error(at, Problem::TooLarge { what: "length of the title in characters", max: TITLE_LEN_MAX });
    }
    let id = text(node, "id", report);
    if !id.is_empty() && !is_uuid(&id) {
        let suggestion = None;
        let expected = "expected a UUID";
        report.warn(
            position(node, "id"),
            Problem::Attribute { what: "id", value: id.clone(), expected, suggestion },
        );
    }
    let level =
        choice(node, "level", &LEVELS, "expected informational, low, medium, high or critical", report);
    let expected = "expected stable, test, experimental, deprecated or unsupported";
    let status = choice(node, "status", &STATUSES, expected, report);
    if matches!(status.as_str(), "deprecated" | "unsupported") {
        report.warn(position(node, "status"), Problem::Status(status));
    }
    let created = date(node, "date", report);
    let modified = date(node, "modified", report);
    if let (Some(created), Some(modified)) = (created, modified)
        && modified < created
    {
        let value = text(node, "modified", report);
        let expected = "it is before the rule's date";
        let problem = Problem::Attribute { what: "modified", value, expected, suggestion: None };
        report.warn(position(node, "modified"), problem);
    }
    for (key, value) in node.entries() {
        if !KEYS.contains(&key.as_str())
            && let Some(meant) = report.nearest(key, KEYS)
            && node.get(meant).is_none()
        {
            report.warn(value.at, Problem::Key { key: key.clone(), suggestion: Some(meant.into()) });
        }
    }
    let name = text(node, "name", report);
    Metadata { title, id, name, level, attack: tags::techniques(node, report) }
}

/// Reports a missing key, with a key that may be a misspelling of it.
pub(crate) fn missing(node: &Node, key: &'static str, report: &mut Report<'_>) {
    let mut found = None;
    for (own, _) in node.entries() {
        if !KEYS.contains(&own.as_str()) && report.nearest(own, [key]).is_some() {
            found = Some(own.chars().take(NAME_LEN_MAX).collect());
        }
    }
    report.error(node.at, Problem::Missing { key, found });
}

fn position(node: &Node, key: &str) -> Position {
    node.get(key).unwrap_or(node).at
}

/// Returns the trimmed text of an attribute; empty if it is absent, null or invalid.
pub(crate) fn text(node: &Node, key: &'static str, report: &mut Report<'_>) -> String {
    let Some(value) = node.get(key).filter(|value| !value.is_null()) else { return String::new() };
    match value.text() {
        Some(text) if text.len() <= NAME_LEN_MAX => return text.trim().to_owned(),
        Some(_) => report.error(value.at, Problem::TooLarge { what: key, max: NAME_LEN_MAX }),
        None => {
            let (at, problem) = value.form(key, "a string");
            report.error(at, problem);
        }
    }
    String::new()
}

/// Returns an attribute that has one of a few values, in lower case.
fn choice(
    node: &Node,
    key: &'static str,
    known: &[&'static str],
    expected: &'static str,
    report: &mut Report<'_>,
) -> String {
    let value = text(node, key, report);
    let folded = value.to_ascii_lowercase();
    if folded.is_empty() || known.contains(&folded.as_str()) {
        return folded;
    }
    let suggestion = report.nearest(&folded, known.iter().copied()).map(str::to_owned);
    report.error(position(node, key), Problem::Attribute { what: key, value, expected, suggestion });
    String::new()
}

/// Returns a date as year, month and day.
fn date(node: &Node, key: &'static str, report: &mut Report<'_>) -> Option<(u32, u32, u32)> {
    let value = text(node, key, report);
    if value.is_empty() {
        return None;
    }
    let found = parse_date(&value);
    if found.is_none() {
        let expected = "expected a date as YYYY-MM-DD";
        report
            .error(position(node, key), Problem::Attribute { what: key, value, expected, suggestion: None });
    }
    found
}

fn parse_date(text: &str) -> Option<(u32, u32, u32)> {
    let has_slashes = text.contains('/');
    let parts: Vec<&str> = text.split(if has_slashes { '/' } else { '-' }).collect();
    let [year, month, day] = parts[..] else { return None };
    let number = |digits: &str, len_min: usize, len_max: usize| {
        let is_number =
            (len_min..=len_max).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        if is_number { digits.parse::<u32>().ok() } else { None }
    };
    let shortest = if has_slashes { 1 } else { 2 };
    let (year, month, day) = (number(year, 4, 4)?, number(month, shortest, 2)?, number(day, shortest, 2)?);
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 => 28 + u32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (1..=days).contains(&day).then_some((year, month, day))
}

/// Returns true if the text is a UUID in its usual form.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| {
            if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { byte.is_ascii_hexdigit() }
        })
}

#[cfg(test)]
mod tests {
    use super::{is_uuid, parse_date};

    #[test]
    fn dates_exist_in_the_calendar() {
        let rows = [
            ("2024-02-29", true),
            ("2023-02-29", false),
            ("1900-02-29", false),
            ("2000-02-29", true),
            ("2021/10/14", true),
            ("2021/1/4", true),
            ("2021-1-4", false),
            ("2021-13-01", false),
            ("2021-04-31", false),
            ("2021-00-10", false),
            ("21-01-01", false),
            ("2021-01-01-01", false),
            ("2021-01", false),
            ("2021-+1-01", false),
            ("yesterday", false),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_date(text).is_some(), expected, "{text}");
        }
    }

    #[test]
    fn uuids_are_hyphenated() {
        assert!(
            is_uuid("a4e8f3a4-48b2-11ec-bcfc-3e22fbd008af")
                && is_uuid("A4E8F3A4-48B2-11EC-BCFC-3E22FBD008AF")
        );
        for text in ["", "r1", "a4e8f3a448b211ecbcfc3e22fbd008af", "a4e8f3a4-48b2-11ec-bcfc-3e22fbd008ag"] {
            assert!(!is_uuid(text), "{text}");
        }
    }
}
