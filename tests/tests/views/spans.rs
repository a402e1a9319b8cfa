//! The spans of a hit are the needles of the rule in the original text, and a match after an embedded NUL is marked.

use etwsieve_tests::corpus;
use etwsieve_tests::program::{self, Program};
use std::collections::HashMap;

const PROGRAM: Program = Program::Etwsieve;
/// The needles of the built-in rule.
const NEEDLES: [&str; 2] = ["-computername", "enter-pssession"];

#[test]
fn spans_are_the_needles_and_matches_after_a_nul_are_marked() {
    let Some(data) = corpus::data() else { return };
    let trace = corpus::trace(&data, "seed.etl").display().to_string();
    let cases = corpus::csv_rows(&data.join("traces/seed.events.csv"), &["time", "case"]);
    let cases: HashMap<String, String> =
        cases.into_iter().filter_map(|row| Some((row.first()?.clone(), row.get(1)?.clone()))).collect();
    let lines = program::run(PROGRAM, ["replay", "--view", "raw", "--format", "jsonl", &trace]).lines();
    let mut behind_nul = 0;
    for line in &lines {
        let text: Vec<u16> = line["script_block_text"].as_str().unwrap().encode_utf16().collect();
        let spans: Vec<String> = line["spans"]
            .as_array()
            .unwrap()
            .iter()
            .map(|span| {
                assert_eq!(span["field"], "script_block_text", "{line:#}");
                let place = |key: &str| usize::try_from(span[key].as_u64().unwrap()).unwrap();
                String::from_utf16_lossy(&text[place("start")..][..place("len")]).to_ascii_lowercase()
            })
            .collect();
        assert!(spans.iter().all(|span| NEEDLES.contains(&span.as_str())), "{spans:?}");
        assert!(NEEDLES.iter().all(|needle| spans.iter().any(|span| span == needle)), "{spans:?}");
        let case = &cases[line["time"].as_str().unwrap()];
        assert_eq!(line["beyond_nul"], case.starts_with("embedded_nul"), "{case}");
        behind_nul += usize::from(line["beyond_nul"] == true);
        assert_eq!((line["partial"].as_bool(), line["cut"].is_null()), (Some(false), true));
    }
    assert!(behind_nul > 0 && behind_nul < lines.len(), "{behind_nul} of {}", lines.len());
}
