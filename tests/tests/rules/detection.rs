//! Measures the detections of the views on obfuscated scripts, hand-made cases and harmless scripts. The tables of
//! `docs/detection.md` must equal the results; with `ETWSIEVE_WRITE_TABLES` in the environment the test writes them.

use etwsieve_etl::TraceFile;
use etwsieve_matcher::{
    EventKind, Matcher, Payload, Repeats, Scratch, View, ViewBudget, ViewMatch, Views, builtin, load,
};
use etwsieve_tests::corpus;
use etwsieve_tests::obfuscation::{self, Obfuscation};
use etwsieve_tests::writer::script_block;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

const ID: &str = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";
/// Variants of each obfuscation that are tried for each rule.
const VARIANTS: u32 = 4;

/// The needles of ten rules, each with a script that matches. The first is the built-in rule.
const SCRIPTS: [(&[&str], &str); 10] = [
    (&["Enter-PSSession", "-ComputerName"], "Enter-PSSession -ComputerName srv01"),
    (&["New-PSSession", "-ComputerName"], "New-PSSession -ComputerName srv01"),
    (&["Invoke-Command", "-ComputerName"], "Invoke-Command -ComputerName srv01 -ScriptBlock { hostname }"),
    (&["Invoke-WebRequest", "-OutFile"], "Invoke-WebRequest -Uri https://example.org/a -OutFile C:\\a.bin"),
    (&["Set-MpPreference", "-DisableRealtimeMonitoring"], "Set-MpPreference -DisableRealtimeMonitoring 1"),
    (&["Add-MpPreference", "-ExclusionPath"], "Add-MpPreference -ExclusionPath C:\\Users"),
    (&["Get-WmiObject", "Win32_ShadowCopy"], "Get-WmiObject -Class Win32_ShadowCopy -ComputerName srv01"),
    (
        &["Start-BitsTransfer", "-Source"],
        "Start-BitsTransfer -Source https://example.org/a -Destination C:\\a.bin",
    ),
    (&["Register-ScheduledTask", "-TaskName"], "Register-ScheduledTask -TaskName upd -Action $a"),
    (&["Stop-Service", "-Force"], "Stop-Service -Name wscsvc -Force"),
];

/// Compiles the rules. Those about a known cmdlet also use the call-aware view.
fn rules() -> Matcher {
    let mut rules = builtin::rules();
    for (number, (needles, _)) in SCRIPTS.iter().enumerate().skip(1) {
        let list: Vec<String> = needles.iter().map(|needle| format!("      - '{needle}'\n")).collect();
        let list = list.concat();
        let text = |own: &str| {
            format!(
                "title: r{number}\nid: r{number}\nlogsource: {{product: windows, category: ps_script}}\ndetection:\n  s:\n    ScriptBlockText|contains|all:\n{list}  condition: s\n{own}"
            )
        };
        let also = load([("r.yml", text("etwsieve: {calls: also}\n").as_str())]);
        let loaded = if also.errors.is_empty() { also } else { load([("r.yml", text("").as_str())]) };
        assert_eq!(loaded.errors, []);
        rules.extend(loaded.rules);
    }
    Matcher::new(rules)
}

/// Returns the view in which the rule with this index matches; for the first, also its call-aware variant.
#[expect(clippy::option_option, reason = "not at all, as recorded, or in a view")]
fn seen(matcher: &Matcher, number: usize, text: &str, scratch: &mut Scratch) -> Option<Option<View>> {
    let bytes = script_block(1, 1, text, ID, Some(""));
    let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes: &bytes };
    let own: &[u32] = if number == 0 { &[0, 1] } else { &[number as u32 + 1] };
    let raw = matcher.find(&payload, scratch).to_vec();
    if raw.iter().any(|rule| own.contains(rule)) {
        return Some(None);
    }
    let mut budget = ViewBudget::new(bytes.len());
    let could = matcher.views_could_differ_from_raw(&payload, Views::ALL, scratch, &mut budget);
    let found = matcher.find_views(&payload, Views::ALL, &raw, scratch, &mut budget);
    assert!(!budget.is_cut(), "{text:?}");
    assert!(could || found.is_empty(), "the prefilter skips {text:?}");
    found.iter().find(|found| own.contains(&found.rule)).map(|found| Some(found.view))
}

fn techniques() -> (String, usize, usize) {
    let matcher = rules();
    let mut scratch = Scratch::default();
    let mut table = "| family | technique | variants | raw | normalised | call-aware | found |\n|---|---|---|---|---|---|---|\n".to_owned();
    let (mut all, mut found) = (0, 0);
    for Obfuscation { family, name, apply } in obfuscation::ALL {
        let mut by_view = BTreeMap::new();
        let mut count = 0;
        for (number, (_, script)) in SCRIPTS.iter().enumerate() {
            for variant in 0..VARIANTS {
                let Some(text) = apply(script, variant) else { continue };
                count += 1;
                if let Some(view) = seen(&matcher, number, &text, &mut scratch) {
                    *by_view.entry(view).or_insert(0) += 1;
                } else if std::env::var_os("ETWSIEVE_SHOW_MISSES").is_some() {
                    eprintln!("{name}: {text}");
                }
            }
        }
        let of = |view| by_view.get(&view).copied().unwrap_or(0);
        let (raw, normalized, call) = (of(None), of(Some(View::Normalized)), of(Some(View::Call)));
        let sum: usize = raw + normalized + call;
        all += count;
        found += sum;
        let percent = 100 * sum / count.max(1);
        writeln!(table, "| {family} | {name} | {count} | {raw} | {normalized} | {call} | {percent} % |")
            .unwrap();
    }
    writeln!(table, "| all | | {all} | | | | {:.1} % |", 100.0 * found as f64 / all as f64).unwrap();
    (table, all, found)
}

#[test]
fn nine_in_ten_obfuscated_scripts_are_found() {
    let (table, all, found) = techniques();
    assert!(10 * found >= 9 * all, "{table}");
    in_the_docs("techniques", &table);
}

/// Checks that the page contains the measured table.
fn in_the_docs(name: &str, table: &str) {
    let path = corpus::repository().join("docs/detection.md");
    let page = fs::read_to_string(&path).expect("the page is there");
    let (start, end) = (format!("<!-- measured: {name} -->\n"), "<!-- end -->");
    let at = page.find(&start).expect("the page has the table") + start.len();
    let behind = at + page[at..].find(end).expect("the table ends");
    if std::env::var_os("ETWSIEVE_WRITE_TABLES").is_some() {
        fs::write(&path, format!("{}{table}{}", &page[..at], &page[behind..]))
            .expect("the page can be written");
        return;
    }
    assert_eq!(&page[at..behind], table, "set ETWSIEVE_WRITE_TABLES to write the table {name}");
}

/// Calls `each` for every script block event of a trace.
fn for_events(data: &Path, name: &str, mut each: impl FnMut(&[u8])) {
    let file = TraceFile::open(corpus::trace(data, name)).unwrap();
    let trace = file.trace().unwrap();
    let mut cursor = trace.events();
    while let Some(event) = cursor.next() {
        if event.event_id == Some(4104) {
            each(event.payload);
        }
    }
}

/// Returns the number of events of a trace, of events that match as recorded, of events with an additional match in a view,
/// and of events that pass the prefilter.
fn added(matcher: &Matcher, data: &Path, trace: &str) -> [usize; 4] {
    let mut scratch = Scratch::default();
    let mut counts = [0; 4];
    for_events(data, trace, |bytes| {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
        let raw = matcher.find(&payload, &mut scratch).to_vec();
        let mut budget = ViewBudget::new(bytes.len());
        let could = matcher.views_could_differ_from_raw(&payload, Views::ALL, &scratch, &mut budget);
        let found = matcher.find_views(&payload, Views::ALL, &raw, &mut scratch, &mut budget);
        assert!(!budget.is_cut(), "recorded scripts are viewed to the end");
        assert!(could || found.is_empty(), "the prefilter skips no event that matches in a view");
        counts[0] += 1;
        counts[1] += usize::from(!raw.is_empty());
        counts[2] += usize::from(!found.is_empty());
        let text = bytes.get(8..).unwrap_or_default().as_chunks().0;
        counts[3] += usize::from(could);
        if !found.is_empty() && std::env::var_os("ETWSIEVE_SHOW_MISSES").is_some() {
            for found in &found {
                let span = found.spans.first().map_or(0..0, |span| span.units.clone());
                let part = span.start..span.end.min(span.start + 200);
                let units: Vec<u16> = text[part].iter().map(|unit| u16::from_le_bytes(*unit)).collect();
                let rule = &matcher.rules()[found.rule as usize];
                eprintln!(
                    "{trace}: {} {:?} {:?}",
                    rule.title,
                    found.transformations,
                    String::from_utf16_lossy(&units)
                );
            }
        }
    });
    counts
}

#[test]
fn harmless_scripts_stay_harmless() {
    let Some(data) = corpus::data() else { return };
    let (sigma, unreadable) = etwsieve::rules::from_paths(&corpus::rules(&data, &["sigma/ps_script"]));
    assert!(unreadable.is_empty() && sigma.errors.is_empty());
    let mut table = "| trace | rules | events | raw hits | looked at closer | events with added hits |\n|---|---|---|---|---|---|\n".to_owned();
    for trace in ["bench-benign.etl", "powershell-4104.etl"] {
        for (name, rules, most) in
            [("built-in", builtin::rules(), 0.0), ("178 of Sigma", sigma.rules.clone(), 0.001)]
        {
            // Remembered texts depend on a random seed and skip the prefilter, so they would change the counts.
            let matcher = Matcher::new(rules).with_repeats(Repeats::Never);
            let [events, raw, hits, closer] = added(&matcher, &data, trace);
            let percent = |count: usize| 100.0 * count as f64 / events as f64;
            writeln!(
                table,
                "| {trace} | {name} | {events} | {raw} | {closer} ({:.1} %) | {hits} ({:.2} %) |",
                percent(closer),
                percent(hits)
            )
            .unwrap();
            if trace == "bench-benign.etl" {
                assert!(hits as f64 <= most * events as f64, "{table}");
            }
        }
    }
    in_the_docs("harmless", &table);
}

/// For blocks of one event, the raw and the normalised view together give the column `normalized` of the hand-made cases.
#[test]
fn hand_made_cases() {
    let Some(data) = corpus::data() else { return };
    let matcher = Matcher::new(builtin::rules());
    let mut scratch = Scratch::default();
    let (mut found, mut fragments) = (BTreeSet::new(), BTreeSet::new());
    for_events(&data, "seed.etl", |bytes| {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
        let Some(place) = payload.place() else { return };
        let units: Vec<u16> =
            place.script_block_id.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        let id = String::from_utf16_lossy(&units);
        if place.message_total != 1 {
            fragments.insert(id.clone());
        }
        let raw = matcher.find(&payload, &mut scratch).to_vec();
        let views = Views { normalized: true, call: false };
        let mut budget = ViewBudget::new(bytes.len());
        let found_view = matcher.find_views(&payload, views, &raw, &mut scratch, &mut budget);
        if !raw.is_empty() || !found_view.is_empty() {
            found.insert(id);
        }
    });
    let rows =
        corpus::csv_rows(&data.join("traces/seed.expected.csv"), &["script_block_id", "normalized", "case"]);
    let mut compared = 0;
    for row in &rows {
        let [id, expected, case] = &row[..] else { panic!("three columns") };
        let owed = expected == "yes";
        // Blocks of several fragments are not tested here, since they have to be joined.
        if fragments.contains(id) && owed {
            continue;
        }
        compared += 1;
        assert_eq!(found.contains(id), owed, "{case} {id}");
    }
    assert!(compared > 160, "{compared}");
}

/// Text after a NUL, where tools that decode by the manifest stop, is searched in every view.
#[test]
fn text_after_a_nul() {
    let matcher = Matcher::new(builtin::rules());
    let mut scratch = Scratch::default();
    let rows = [
        ("a\0Enter-PSSession -ComputerName b", None),
        ("a\0Enter\u{2013}PSSession -ComputerName b", Some(View::Normalized)),
        ("a\0iex ('Enter-'+'PSSession -ComputerName b')", Some(View::Normalized)),
        ("a;\0;etsn b", Some(View::Call)),
    ];
    for (text, view) in rows {
        assert_eq!(seen(&matcher, 0, text, &mut scratch), Some(view), "{text:?}");
    }
}

/// Returns the matches in the views of events that pass the prefilter, and in the views of all events.
fn both_ways(matcher: &Matcher, bytes: &[u8], scratch: &mut Scratch) -> [Vec<(View, u32)>; 2] {
    let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
    let raw = matcher.find(&payload, scratch).to_vec();
    let mut budgets = [ViewBudget::new(bytes.len()), ViewBudget::new(bytes.len())];
    let [fast, slow] = &mut budgets;
    let could = matcher.views_could_differ_from_raw(&payload, Views::ALL, scratch, fast);
    let rules = |found: &[ViewMatch]| found.iter().map(|found| (found.view, found.rule)).collect();
    let quickly =
        if could { matcher.find_views(&payload, Views::ALL, &raw, scratch, fast) } else { Vec::new() };
    [rules(&quickly), rules(&matcher.find_views_unfiltered(&payload, Views::ALL, &raw, scratch, slow))]
}

/// Checked on every obfuscation and on recordings, of which the harmless one is only sampled.
#[test]
fn the_prefilter_loses_nothing() {
    let mut scratch = Scratch::default();
    let own = rules();
    for Obfuscation { name, apply, .. } in obfuscation::ALL {
        let texts =
            SCRIPTS.iter().flat_map(|(_, script)| (0..VARIANTS).map(move |variant| apply(script, variant)));
        for text in texts.flatten() {
            let [fast, slow] = both_ways(&own, &script_block(1, 1, &*text, ID, Some("")), &mut scratch);
            assert_eq!(fast, slow, "{name}: {text:?}");
        }
    }
    let Some(data) = corpus::data() else { return };
    let (sigma, _) = etwsieve::rules::from_paths(&corpus::rules(&data, &["sigma/ps_script"]));
    let sigma = Matcher::new(sigma.rules);
    for (trace, stride) in
        [("seed.etl", 1), ("synth.etl", 1), ("powershell-4104.etl", 1), ("bench-benign.etl", 16)]
    {
        let mut number = 0;
        for_events(&data, trace, |bytes| {
            number += 1;
            if number % stride == 0 {
                for matcher in [&own, &sigma] {
                    let [fast, slow] = both_ways(matcher, bytes, &mut scratch);
                    assert_eq!(fast, slow, "{trace}, event {number}");
                }
            }
        });
        assert!(number > 100, "{trace}: {number} events");
    }
}
