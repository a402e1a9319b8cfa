//! One sentence for each table that says what its numbers mean.

use super::aims::Aim;
use super::{Row, short};

/// Returns the sentence for a race; `None` if the part has no sentence or a contestant is missing.
pub(super) fn of(rows: &[Row]) -> Option<String> {
    let first = rows.first()?;
    let row = |name: &str| rows.iter().find(|row| row.contestant == name);
    match first.part.as_str() {
        "programs" => {
            let others: Vec<String> = rows[1..]
                .iter()
                .map(|row| format!("`{}` takes {} times as long", row.contestant, short(row.ratio)))
                .collect();
            let micros = short(first.ns_per_event / 1e3);
            let own = format!("{} with default settings takes {micros} µs an event", first.contestant);
            Some(if others.is_empty() { format!("{own}.") } else { format!("{own}; {}.", others.join(", ")) })
        }
        "views" => Some(format!(
            "Searching all views, as the sensor does by default, takes {} times as long as the raw search; their prefilter \
             alone brings it to {} times.",
            short(row("raw, views")?.ratio),
            short(row("raw, prefilter")?.ratio)
        )),
        "replay" => {
            let last = rows.last().filter(|_| rows.len() > 1)?;
            Some(format!(
                "{} takes {} times as long as {}.",
                last.contestant,
                short(last.ratio),
                first.contestant
            ))
        }
        "payloads" => Some(payloads(rows, first)),
        "reader" => Some(format!(
            "Reading the trace without searching it takes {} ns an event.",
            short(first.ns_per_event)
        )),
        "callback" => Some(format!(
            "The callback takes {} ns an event, of which a bare copy of the payload would take {} ns.",
            short(first.ns_per_event),
            short(row("memcpy")?.ns_per_event)
        )),
        _ => None,
    }
}

/// The contestant that only shows how fast a text can be read.
const BOUND: &str = "memchr-absent";

fn payloads(rows: &[Row], first: &Row) -> String {
    let bound = rows.iter().find(|row| row.contestant == BOUND);
    let bound = bound.map_or(String::new(), |bound| {
        format!(", {:.0} % of the speed of memchr on the same bytes", 100.0 * bound.ratio)
    });
    let fastest = |question: fn(&str) -> bool, what| {
        let is_peer = |row: &&Row| {
            let is_own = row.contestant.starts_with("etwsieve") || row.contestant == BOUND;
            question(&row.question) && !is_own
        };
        let peer = rows.iter().filter(is_peer).min_by(|a, b| a.ratio.total_cmp(&b.ratio));
        peer.map_or(String::new(), |peer| {
            format!("; {}, which {what}, takes {} times as long", peer.contestant, short(peer.ratio))
        })
    };
    let verdicts = fastest(|question| question == "verdicts", "gives verdicts too");
    let literals = fastest(|question| question.contains("literals"), "only finds literals");
    format!("{} searches {} GB/s{bound}{verdicts}{literals}.", first.contestant, short(first.gb_per_s))
}

/// Returns a sentence about the number of aims that are met; `None` if none was measured.
pub(super) fn of_aims(aims: &[Aim]) -> Option<String> {
    let measured = aims.iter().filter(|aim| aim.measured.is_some()).count();
    let met = aims.iter().filter(|aim| aim.is_met() == Some(true)).count();
    (measured > 0).then(|| format!("{met} of {measured} aims are met."))
}

#[cfg(test)]
mod tests {
    use super::of;
    use crate::report::tests::row;

    #[test]
    fn each_part_has_its_sentence() {
        let programs = |name, ratio| row("programs", "stream", "sigma", name, ratio);
        let views = |name, ratio| row("views", "stream", "sigma", name, ratio);
        let rows = [
            (
                vec![programs("etwsieve replay", 1.0), programs("rsigma", 2.0)],
                "etwsieve replay with default settings takes 0.100 µs an event; `rsigma` takes 2.00 times as long.",
            ),
            (
                vec![views("raw", 1.0), views("raw, prefilter", 1.5), views("raw, views", 3.0)],
                "Searching all views, as the sensor does by default, takes 3.00 times as long as the raw search; \
                 their prefilter alone brings it to 1.50 times.",
            ),
            (
                vec![row("reader", "stream", "none", "etwsieve-etl", 1.0)],
                "Reading the trace without searching it takes 100 ns an event.",
            ),
        ];
        for (rows, expected) in rows {
            assert_eq!(of(&rows).as_deref(), Some(expected));
        }
        assert_eq!(of(&[views("raw", 1.0)]), None, "without the other views there is nothing to say");
        assert_eq!(of(&[]), None);
    }
}
