//! The assembly against the naive twin, and its bounds.

use super::{Assembly, Fragment, Joined, Limits};
use crate::naive::{self, NaiveBlock};
use crate::{EventKind, Matcher, Payload, Rule, Scratch, load};
use proptest::prelude::*;

const ID: &str = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";
const OTHER_ID: &str = "439311ba-d4cc-4a10-b04e-417ef95bc8b6";

fn rules(detections: &[&str]) -> Vec<Rule> {
    let of = |(number, detection): (usize, &&str)| {
        let text = format!(
            "title: t{number}\nlogsource:\n  product: windows\n  category: ps_script\ndetection:\n{detection}\n"
        );
        let loaded = load([("test.yml", text.as_str())]);
        assert!(loaded.errors.is_empty(), "{detection}: {:?}", loaded.errors);
        loaded.rules
    };
    detections.iter().enumerate().flat_map(of).collect()
}

/// Rules of every kind of test.
const DETECTIONS: [&str; 16] = [
    "  s:\n    ScriptBlockText|contains|all: [abcab, '-b']\n  condition: s",
    "  s:\n    ScriptBlockText|contains: bcabca\n  condition: s",
    "  s:\n    ScriptBlockText|startswith: abc\n  condition: s",
    "  s:\n    ScriptBlockText|endswith: cab\n  condition: s",
    "  s:\n    ScriptBlockText|re: 'ab.*-c'\n  condition: s",
    "  s:\n    ScriptBlockText|re: 'abc\\s+b'\n  condition: s",
    "  s:\n    ScriptBlockText|re: '(?i)^a[bc]{2,5}-$'\n  condition: s",
    "  s:\n    ScriptBlockText: '*abc*-*bca*'\n  condition: s",
    "  s:\n    ScriptBlockText: '*a?c\u{1F600}*'\n  condition: s",
    "  s:\n    ScriptBlockText|cased|contains: aBc\n  condition: s",
    "  a:\n    ScriptBlockText|contains: abca\n  b:\n    ScriptBlockText|contains: '--'\n  condition: a and not b",
    "  s:\n    Path|endswith: abc\n  t:\n    ScriptBlockText|contains: cabc\n  condition: s and t",
    "  s:\n    - 'bcab'\n  condition: s",
    "  s:\n    MessageTotal|gte: 3\n    ScriptBlockText|contains: ca\n  condition: s",
    "  s:\n    ScriptBlockText|contains: \"b\\r\\nc\"\n  condition: s",
    "  s:\n    ScriptBlockText|re: '[^a]{7}'\n  condition: s",
];

fn payload(number: i32, total: i32, text: &[u16], id: &str, path: Option<&str>) -> Vec<u8> {
    let mut bytes = [number.to_le_bytes(), total.to_le_bytes()].concat();
    let mut string = |units: &[u16]| {
        bytes.extend(units.iter().chain(&[0]).flat_map(|unit| unit.to_le_bytes()));
    };
    string(text);
    string(&id.encode_utf16().collect::<Vec<_>>());
    if let Some(path) = path {
        string(&path.encode_utf16().collect::<Vec<_>>());
    }
    bytes
}

/// What an assembly made of fragments.
#[derive(Default)]
struct Run {
    blocks: Vec<(u64, bool, Vec<u16>, Vec<u32>)>,
}

impl Run {
    fn close(&mut self, assembly: &mut Assembly<u64>, matcher: &Matcher, scratch: &mut Scratch) {
        let mut joined = Joined::default();
        while let Some(closed) = assembly.next_closed() {
            let found = closed.search(matcher, scratch, &mut joined).to_vec();
            closed.join(&mut joined);
            if closed.fragments() > 1 {
                self.blocks.push((*closed.facts(), closed.is_partial(), text(&joined), found));
            }
            assembly.recycle(closed);
        }
    }
}

fn text(joined: &Joined) -> Vec<u16> {
    let fields = joined.fields();
    let bytes = fields.text(crate::Field::ScriptBlockText).expect("a joined block has a text");
    bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect()
}

/// Takes payloads, each a tick later than the last; then closes what is open.
fn assemble(matcher: &Matcher, fragments: &[(Option<u32>, Vec<u8>)], limits: Limits) -> (Run, Assembly<u64>) {
    let mut assembly = Assembly::<u64>::new(limits);
    let (mut scratch, mut run) = (Scratch::default(), Run::default());
    for (at, (process_id, bytes)) in (0u64..).zip(fragments) {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: *process_id, bytes };
        let given = matcher.find_fragment(&payload, &mut scratch).to_vec();
        let fragment = Fragment { source: 0, process_id: *process_id, time: at, is_needed: false };
        let mut buffer = bytes.clone();
        assembly.take(fragment, &mut buffer, &given, matcher, &mut scratch, || at);
        run.close(&mut assembly, matcher, &mut scratch);
    }
    while assembly.give_up() {
        run.close(&mut assembly, matcher, &mut scratch);
    }
    run.blocks.sort();
    (run, assembly)
}

fn naive(rules: &[Rule], fragments: &[(Option<u32>, Vec<u8>)]) -> Vec<NaiveBlock> {
    let fragments: Vec<_> = fragments.iter().map(|(process, bytes)| (*process, &bytes[..])).collect();
    naive::blocks(rules, &fragments)
}

fn assert_equal(rules: Vec<Rule>, fragments: &[(Option<u32>, Vec<u8>)]) {
    let expected: Vec<_> = naive(&rules, fragments)
        .into_iter()
        .map(|block| (block.first as u64, block.is_partial, block.text, block.rules))
        .collect();
    let (run, assembly) = assemble(&Matcher::new(rules), fragments, Limits::default());
    assert_eq!(run.blocks, expected);
    assert_eq!((assembly.open(), assembly.counts().evicted), (0, 0));
    assert!(assembly.bytes() <= Limits::default().bytes);
}

/// Lies about numbers and totals, and honest ones more often.
fn fragment() -> impl Strategy<Value = (Option<u32>, Vec<u8>)> {
    let number = prop_oneof![6 => 1..4i32, 1 => -1..6i32, 1 => Just(i32::MAX), 1 => Just(i32::MIN)];
    let total = prop_oneof![8 => Just(3), 2 => 1..5i32, 1 => -1..1i32, 1 => Just(i32::MAX)];
    let units = prop_oneof![
        10 => proptest::sample::select(&[0x61u16, 0x62, 0x63, 0x2D, 0x41, 0x42][..]),
        1 => proptest::sample::select(&[0x20u16, 0x0D, 0x0A, 0xD83D, 0xDE00, 0][..]),
    ];
    let text = proptest::collection::vec(units, 0..14);
    let id = prop_oneof![8 => Just(ID), 2 => Just(OTHER_ID), 1 => Just("odd"), 1 => Just("")];
    let process = prop_oneof![6 => Just(Some(4)), 1 => Just(Some(8)), 1 => Just(None)];
    let path = prop_oneof![4 => Just(Some("")), 1 => Just(Some("xabc")), 1 => Just(None)];
    (number, total, text, id, process, path).prop_map(|(number, total, text, id, process, path)| {
        (process, payload(number, total, &text, id, path))
    })
}

/// A script cut anywhere, its fragments in some order, some of them twice.
fn script() -> impl Strategy<Value = Vec<(Option<u32>, Vec<u8>)>> {
    let piece = proptest::sample::select(
        &["abc", "bca", "-b", "cab", "\r\n", "\u{1F600}", "a", "--", "aBc", " ", "x", "-c"][..],
    );
    let cuts = proptest::collection::vec(0..40usize, 1..5);
    (proptest::collection::vec(piece, 0..12), cuts, any::<u64>()).prop_map(|(pieces, mut cuts, order)| {
        let units: Vec<u16> = pieces.concat().encode_utf16().collect();
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(units.len()));
        cuts.extend([0, units.len()]);
        cuts.sort_unstable();
        let total = (cuts.len() - 1) as i32;
        let parts = (1..).zip(cuts.windows(2));
        let of = |(number, cut): (i32, &[usize])| {
            (Some(4), payload(number, total, &units[cut[0]..cut[1]], ID, Some("")))
        };
        let mut all: Vec<_> = parts.map(of).collect();
        if order & 1 != 0 {
            all.extend_from_within(..1);
        }
        for at in 1..all.len() {
            all.swap(at, (order >> (3 * at)) as usize % (at + 1));
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_fragments_equal_the_naive_join(fragments in proptest::collection::vec(fragment(), 0..12)) {
        assert_equal(rules(&DETECTIONS), &fragments);
    }

    #[test]
    fn cut_scripts_equal_the_naive_join(fragments in script()) {
        assert_equal(rules(&DETECTIONS), &fragments);
        // With few rules the gate takes another way.
        assert_equal(rules(&DETECTIONS[..2]), &fragments);
    }
}
