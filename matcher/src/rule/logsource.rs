//! Log sources of rules and filters: those that this sensor reads, and others.
//!
//! Sources: Sigma specification 2.1, "LogSource", and its taxonomy appendix, section "Windows Folder".

use crate::error::Problem;
use crate::field::{EventKind, EventKinds};
use crate::rule::report::Report;
use crate::yaml::{Node, Value};

/// Keys of a log source that have a meaning.
const KEYS: [&str; 4] = ["product", "category", "service", "definition"];
/// Categories of the classic PowerShell log, to which no ETW provider writes.
const CLASSIC: [&str; 3] = ["ps_classic_start", "ps_classic_provider_start", "ps_classic_script"];
/// The service of the classic log.
const CLASSIC_SERVICE: &str = "powershell-classic";

/// The events of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Events that this sensor reads.
    Ours(EventKinds),
    /// Other events.
    Other,
}

#[derive(Clone, Copy, Default, PartialEq)]
struct Attributes<'a> {
    product: Option<&'a str>,
    category: Option<&'a str>,
    service: Option<&'a str>,
}

impl Attributes<'_> {
    fn events(self) -> Option<EventKinds> {
        if !matches!(self.product, None | Some("windows")) {
            return None;
        }
        match (self.category, self.service) {
            (Some("ps_script"), None | Some("powershell")) => Some(EventKinds::only(EventKind::ScriptBlock)),
            (Some("ps_module"), None | Some("powershell")) => Some(EventKinds::only(EventKind::Module)),
            (None, Some("powershell")) => Some(EventKinds::ALL),
            _ => None,
        }
    }

    fn shown(self, separator: &str) -> String {
        let all = [("product", self.product), ("category", self.category), ("service", self.service)];
        let shown: Vec<_> =
            all.iter().filter_map(|(key, value)| Some(format!("{key}{separator}{}", (*value)?))).collect();
        shown.join(", ")
    }
}

/// Reads a `logsource`. Returns `None` if it is invalid; the error has been reported.
pub(crate) fn read(node: &Node, report: &mut Report<'_>) -> Option<Source> {
    let mark = report.mark();
    if !matches!(node.value, Value::Map(_)) {
        let (at, problem) = node.form("logsource", "a map");
        report.error(at, problem);
        return None;
    }
    let mut texts = [None, None, None];
    for (key, value) in node.entries() {
        if let Some(place) = KEYS[..3].iter().position(|known| known == key) {
            match value.text() {
                Some(text) => texts[place] = Some(text.trim().to_ascii_lowercase()),
                None if value.is_null() => {}
                None => {
                    let (at, problem) = value.form(key, "a string");
                    report.error(at, problem);
                }
            }
        } else if key != "definition" {
            // The specification allows other keys, which are ignored. A misspelled key would make the rule broader.
            if let Some(meant) = report.nearest(key, KEYS) {
                report.error(value.at, Problem::Key { key: key.clone(), suggestion: Some(meant.into()) });
            }
        }
    }
    if report.failed_since(mark) {
        return None;
    }
    let [product, category, service] = texts.each_ref().map(Option::as_deref);
    let own = Attributes { product, category, service };
    if own == Attributes::default() {
        let (at, problem) = node.form("logsource", "a map with product, category or service");
        report.error(at, problem);
        return None;
    }
    if let Some(events) = own.events() {
        return Some(Source::Ours(events));
    }
    if let Some(suggestion) = meant(own, report) {
        let suggestion = (!suggestion.is_empty()).then_some(suggestion);
        report.error(node.at, Problem::LogSource { found: own.shown("="), suggestion });
        return None;
    }
    Some(Source::Other)
}

/// Returns what the author of an unknown log source probably intended; empty if that is not clear, `None` if it is
/// another log source.
fn meant(own: Attributes<'_>, report: &mut Report<'_>) -> Option<String> {
    let mut near = |value: Option<&str>, known: &[&'static str]| match value {
        Some(text) if known.contains(&text) => known.iter().find(|known| **known == text).copied(),
        Some(text) => report.nearest(text, known.iter().copied()),
        None => None,
    };
    let product = near(own.product, &["windows"]);
    if own.product.is_some() && product.is_none() {
        return None;
    }
    let category = near(own.category, &["ps_script", "ps_module"]);
    let service = near(own.service, &["powershell"]);
    let shown = |category, service| Attributes { product: None, category, service }.shown(": ");
    // Values under the right key, possibly misspelled.
    let corrected = Attributes { product, category, service };
    let is_whole = corrected.category.is_some() == own.category.is_some()
        && corrected.service.is_some() == own.service.is_some();
    if is_whole && corrected.events().is_some() {
        let product = product.filter(|product| own.product != Some(product));
        return Some(Attributes { product, category, service }.shown(": "));
    }
    // Values under the wrong key.
    let swapped = (near(own.service, &["ps_script", "ps_module"]), near(own.category, &["powershell"]));
    match (own.category, own.service, swapped) {
        (None, Some(_), (Some(category), _)) => return Some(shown(Some(category), None)),
        (Some(_), None, (_, Some(service))) => return Some(shown(None, Some(service))),
        _ => {}
    }
    // Names that refer to PowerShell but not to the classic log.
    let says = |text: &str| text.contains("powershell") || text.starts_with("ps_");
    let is_known = |text: &str| CLASSIC.contains(&text) || text == CLASSIC_SERVICE;
    match (own.category, own.service) {
        (Some(category), None) if says(category) && !is_known(category) => Some(String::new()),
        (None, Some(service)) if says(service) && !is_known(service) => Some(shown(None, Some("powershell"))),
        // Events of these categories are never written by another service.
        (Some("ps_script" | "ps_module"), Some(_)) => Some(shown(own.category, Some("powershell"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, read};
    use crate::rule::report::Report;
    use crate::yaml;
    use etwsieve_budget::Budget;

    fn source(text: &str) -> Result<Source, String> {
        let parsed = yaml::parse(text);
        let mut report = Report::new(Budget::new(1 << 20, 1 << 20));
        let found = read(&parsed.documents[0].root, &mut report);
        found.ok_or_else(|| report.errors.iter().map(|(_, problem)| problem.to_string()).collect())
    }

    #[test]
    fn misspelled_log_sources_are_distinguished_from_other_ones() {
        let ours = [
            "{product: windows, category: ps_script}",
            "{category: PS_Module, definition: x}",
            "{product: Windows, service: powershell, category: ~}",
            "{product: windows, category: ps_script, service: powershell, remark: x}",
        ];
        let others = [
            "{product: windows, category: process_creation}",
            "{product: windows, category: ps_classic_start}",
            "{product: windows, category: ps_classic_provider_start}",
            "{product: windows, service: powershell-classic}",
            "{product: windows}",
            "{product: linux, category: ps_script}",
            "{category: webserver}",
            "{product: macos, category: process_creation}",
            "{product: windows, service: sysmon}",
            "{product: okta, service: okta}",
            "{product: gcp, service: gcp.audit}",
        ];
        let misspelt = [
            ("{product: windows, category: ps_scrpt}", "did you mean `category: ps_script`"),
            ("{product: windows, category: ps-script}", "did you mean `category: ps_script`"),
            ("{product: windows, category: psmodule}", "did you mean `category: ps_module`"),
            (
                "{product: window, category: ps_script}",
                "did you mean `product: windows, category: ps_script`",
            ),
            ("{product: windows, service: powershel}", "did you mean `service: powershell`"),
            ("{product: windows, service: powershell-operational}", "did you mean `service: powershell`"),
            ("{product: windows, category: powershell}", "did you mean `service: powershell`"),
            ("{product: windows, service: ps_script}", "did you mean `category: ps_script`"),
            ("{product: windows, category: ps_classic}", "unknown log source"),
            ("{product: windows, category: ps_script, service: sysmon}", "did you mean"),
            ("{product: windows, categroy: ps_script}", "unknown key `categroy` (did you mean `category`?)"),
            ("{definition: x}", "product, category or service"),
            ("{category: [ps_script]}", "`category` should be a string"),
            ("ps_script", "`logsource` should be a map"),
        ];
        for text in ours {
            assert!(matches!(source(text), Ok(Source::Ours(_))), "{text}: {:?}", source(text));
        }
        for text in others {
            assert_eq!(source(text), Ok(Source::Other), "{text}");
        }
        for (text, word) in misspelt {
            let error = source(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
