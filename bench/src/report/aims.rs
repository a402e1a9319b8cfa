//! The aims, and whether the measurements meet them.

use super::{Report, Row, short};

/// An aim and its measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Aim {
    /// The quantity, in words.
    pub text: String,
    /// Workload and rules.
    pub place: String,
    /// The value to reach, or not to exceed.
    pub wanted: f64,
    /// Whether `wanted` is an upper limit.
    pub at_most: bool,
    /// The measured value; `None` if it was not measured.
    pub measured: Option<f64>,
}

impl Aim {
    fn at_least(text: &str, place: &str, wanted: f64, measured: Option<f64>) -> Self {
        Self { text: text.to_owned(), place: place.to_owned(), wanted, at_most: false, measured }
    }

    fn at_most(text: &str, place: &str, wanted: f64, measured: Option<f64>) -> Self {
        Self { at_most: true, ..Self::at_least(text, place, wanted, measured) }
    }

    /// Returns whether the aim is met; `None` if it was not measured.
    pub fn is_met(&self) -> Option<bool> {
        self.measured
            .map(|measured| if self.at_most { measured <= self.wanted } else { measured >= self.wanted })
    }

    /// Describes the result in words.
    pub fn outcome(&self) -> String {
        let Some(measured) = self.measured else { return "not measured".to_owned() };
        if self.is_met() == Some(true) {
            return "met".to_owned();
        }
        if self.wanted == 0.0 {
            return "not met".to_owned();
        }
        let share = measured / self.wanted;
        // Rounding would hide such a miss.
        if (share - 1.0).abs() < 0.01 {
            return "just missed".to_owned();
        }
        if self.at_most {
            format!("{} times the limit", short(share))
        } else {
            format!("{:.0} % of the aim", 100.0 * share)
        }
    }
}

/// The aims with the measurements of `report`.
pub fn of(report: &Report) -> Vec<Aim> {
    let ratio = |workload: &str, rules: &str, contestant: &str| {
        report.row("payloads", workload, rules, contestant).map(|row| row.ratio)
    };
    let best = |workload: &str, rules: &str, peer: &str| {
        let is_peer = |row: &&Row| {
            row.part == "payloads"
                && row.workload == workload
                && row.rules == rules
                && row.contestant.starts_with(peer)
        };
        report.rows.iter().filter(is_peer).map(|row| row.ratio).min_by(f64::total_cmp)
    };
    let mut aims = Vec::new();
    // Default settings come first.
    let reader = report.row("programs", "stream", "sigma", "dissect.etl").map(|row| row.ratio);
    aims.push(Aim::at_least(
        "speed of `etwsieve replay`, in times of dissect.etl merely reading",
        "stream, sigma",
        100.0,
        reader,
    ));
    for rules in crate::views::RULES {
        let test = |workload| report.row("views", workload, rules, "raw, prefilter");
        aims.push(Aim::at_most(
            "time of the views' prefilter, relative to the raw search",
            &format!("stream, {rules}"),
            0.05,
            test("stream").map(|row| row.ratio - 1.0),
        ));
        let raw = report.row("views", "small", rules, "raw").map(|row| row.ns_per_event);
        aims.push(Aim::at_most(
            "nanoseconds of the views' prefilter for an event",
            &format!("small, {rules}"),
            100.0,
            test("small").zip(raw).map(|(row, raw)| row.ns_per_event - raw),
        ));
    }
    for (workload, wanted) in [("stream", 0.95), ("hot", 0.90), ("small", 0.75)] {
        let measured = ratio(workload, "builtin", "memchr-absent");
        let place = format!("{workload}, builtin");
        aims.push(Aim::at_least(
            "speed, in times of memchr's scan for an absent byte",
            &place,
            wanted,
            measured,
        ));
    }
    let peers = [
        ("builtin", "vectorscan", 3.0, "speed, in times of the best Vectorscan"),
        ("ten", "vectorscan", 4.0, "speed, in times of the best Vectorscan"),
        (
            "sigma",
            "vectorscan-best",
            2.5,
            "speed, in times of Vectorscan searching gate literals on narrowed text",
        ),
        ("sigma", "rsigma-eval", 30.0, "speed, in times of rsigma-eval"),
    ];
    for (rules, peer, wanted, text) in peers {
        for workload in ["stream", "hot", "small", "evtx"] {
            let place = format!("{workload}, {rules}");
            aims.push(Aim::at_least(text, &place, wanted, best(workload, rules, peer)));
        }
    }
    for workload in ["stream", "small"] {
        let base = ratio(workload, "sigma10", "etwsieve, sigma only").map(|ratio| 1.0 / ratio);
        let place = format!("{workload}, sigma10");
        aims.push(Aim::at_most("time for an event, relative to a tenth of the rules", &place, 2.0, base));
    }
    let compiled = report.compiled.iter().find(|compiled| compiled.rules == "sigma");
    aims.push(Aim::at_most(
        "milliseconds to compile all rules of ps_script",
        "sigma",
        50.0,
        compiled.map(|compiled| compiled.compile_ms),
    ));
    for (name, _) in crate::callback::PAYLOADS {
        let workload = format!("callback {name}");
        let ns = |who| report.row("callback", &workload, "builtin", who).map(|row| row.ns_per_event);
        let beyond = ns("intake").zip(ns("memcpy")).map(|(intake, copy)| intake - 2.0 * copy);
        aims.push(Aim::at_most(
            "nanoseconds of the callback beyond twice a bare copy",
            &workload,
            60.0,
            beyond,
        ));
    }
    for rules in ["builtin", "ten", "sigma"] {
        let allocations =
            report.row("payloads", "hot", rules, "etwsieve").and_then(|row| row.allocations_per_event);
        aims.push(Aim::at_most(
            "allocations of the matcher for an event",
            &format!("hot, {rules}"),
            0.0,
            allocations,
        ));
    }
    aims
}

#[cfg(test)]
mod tests {
    use super::{Aim, of};
    use crate::report::tests::{report, row};

    #[test]
    fn outcomes_are_words_and_sensible_numbers() {
        let rows = [
            ("met", Aim::at_least("", "", 3.0, Some(3.0)), "met"),
            ("missed", Aim::at_least("", "", 4.0, Some(3.0)), "75 % of the aim"),
            ("just missed", Aim::at_least("", "", 4.0, Some(3.998)), "just missed"),
            ("at most, met", Aim::at_most("", "", 50.0, Some(49.0)), "met"),
            ("at most, missed", Aim::at_most("", "", 50.0, Some(75.0)), "1.50 times the limit"),
            ("at most, missed by far", Aim::at_most("", "", 0.05, Some(1.35)), "27.0 times the limit"),
            ("of nothing", Aim::at_most("", "", 0.0, Some(0.5)), "not met"),
            ("unknown", Aim::at_least("", "", 4.0, None), "not measured"),
        ];
        for (name, aim, expected) in rows {
            assert_eq!(aim.outcome(), expected, "{name}");
        }
    }

    #[test]
    fn aims_find_their_rows() {
        let mut report = report();
        report.rows.push(row("payloads", "stream", "sigma10", "etwsieve, sigma only", 0.8));
        report.rows.push(row("callback", "callback 6 KB", "builtin", "intake", 1.0));
        report.rows.push(row("callback", "callback 6 KB", "builtin", "memcpy", 0.3));
        report.rows.push(row("programs", "stream", "sigma", "dissect.etl", 140.0));
        report.rows.push(row("views", "stream", "sigma", "raw, prefilter", 1.25));
        report.rows.push(row("views", "small", "builtin", "raw", 1.0));
        report.rows.push(row("views", "small", "builtin", "raw, prefilter", 1.5));
        let aims = of(&report);
        let measured = |text: &str, place: &str| {
            let aim = aims.iter().find(|aim| aim.text.contains(text) && aim.place == place);
            aim.unwrap_or_else(|| panic!("no aim {text}, {place}")).measured
        };
        let rows = [
            ("absent byte", "stream, builtin", Some(0.93)),
            ("best Vectorscan", "hot, builtin", Some(2.0)),
            ("best Vectorscan", "hot, ten", None),
            ("gate literals on narrowed", "small, sigma", Some(2.0)),
            ("relative to a tenth", "stream, sigma10", Some(1.25)),
            ("relative to the raw search", "stream, sigma", Some(0.25)),
            ("prefilter for an event", "small, builtin", Some(50.0)),
            ("prefilter for an event", "small, sigma", None),
            ("milliseconds to compile", "sigma", Some(61.0)),
            ("merely reading", "stream, sigma", Some(140.0)),
            ("beyond twice", "callback 6 KB", Some(40.0)),
            ("beyond twice", "callback 40 KB", None),
        ];
        for (text, place, expected) in rows {
            match (measured(text, place), expected) {
                (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-9, "{text}: {found}"),
                (found, expected) => assert_eq!(found, expected, "{text}, {place}"),
            }
        }
    }
}
