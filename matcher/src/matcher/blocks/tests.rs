//! Compares the assembly with the naive implementation, and tests its limits.

use crate::block::{Assembly, BLOCK_FRAGMENTS_MAX, Fragment, GAP, Joined, Limits};
use crate::naive::{self, NaiveBlock};
use crate::testing::compile;
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

/// Rules with every kind of test.
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

/// The blocks that an assembly made.
#[derive(Default)]
struct Run {
    blocks: Vec<(u64, bool, Vec<u16>, Vec<u32>)>,
}

impl Run {
    fn close(&mut self, assembly: &mut Assembly<u64>, matcher: &Matcher, scratch: &mut Scratch) {
        let mut joined = Joined::default();
        while let Some(closed) = assembly.next_closed() {
            let found = matcher.find_joined(&closed, scratch, &mut joined).to_vec();
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

/// Feeds payloads to an assembly, one per tick, then closes all open blocks.
fn assemble(matcher: &Matcher, fragments: &[(Option<u32>, Vec<u8>)], limits: Limits) -> (Run, Assembly<u64>) {
    let mut assembly = Assembly::<u64>::new(limits);
    let (mut scratch, mut run) = (Scratch::default(), Run::default());
    for (at, (process_id, bytes)) in (0u64..).zip(fragments) {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: *process_id, bytes };
        let reported = matcher.find_fragment(&payload, &mut scratch).to_vec();
        let fragment = Fragment {
            source: 0,
            process_id: *process_id,
            time: at,
            views_could_differ: false,
            found_needles: scratch.found_needles(),
        };
        let mut buffer = bytes.clone();
        matcher.take_fragment(&mut assembly, fragment, &mut buffer, &reported, &mut scratch, || at);
        run.close(&mut assembly, matcher, &mut scratch);
    }
    while assembly.close_oldest() {
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
    let (run, assembly) = assemble(&compile(rules), fragments, Limits::default());
    assert_eq!(run.blocks, expected);
    assert_eq!((assembly.open(), assembly.counts().evicted), (0, 0));
    assert!(assembly.bytes() <= Limits::default().bytes);
}

/// Generates fragments with wrong numbers and totals, and more often with right ones.
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

/// Generates a script that is split anywhere, its fragments in some order and some of them repeated.
fn script() -> impl Strategy<Value = Vec<(Option<u32>, Vec<u8>)>> {
    let piece = proptest::sample::select(
        &["abc", "bca", "-b", "cab", "\r\n", "\u{1F600}", "a", "--", "aBc", " ", "x", "-c"][..],
    );
    let cuts = proptest::collection::vec(0..40usize, 1..5);
    (proptest::collection::vec(piece, 0..12), cuts, any::<u64>()).prop_map(|(pieces, mut cuts, order)| {
        let units: Vec<u16> = pieces.concat().encode_utf16().collect();
        for cut in &mut cuts {
            *cut = (*cut).min(units.len());
        }
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
        // With few rules, the gate uses another method.
        assert_equal(rules(&DETECTIONS[..2]), &fragments);
    }
}

/// Returns rules that need only the ends of a fragment without a literal.
fn trimmable_rules() -> Vec<Rule> {
    let trimmable = [0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13].map(|at| DETECTIONS[at]);
    let rules = rules(&trimmable);
    let matcher = compile(rules.clone());
    assert!(matcher.blocks().trim_plan().is_some());
    rules
}

/// Feeds payloads to an assembly and trims it after each.
fn assemble_trimmed(matcher: &Matcher, fragments: &[(Option<u32>, Vec<u8>)]) -> (Run, u64) {
    let mut assembly = Assembly::<u64>::new(Limits::default());
    let (mut scratch, mut run) = (Scratch::default(), Run::default());
    for (at, (process_id, bytes)) in (0u64..).zip(fragments) {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: *process_id, bytes };
        let reported = matcher.find_fragment(&payload, &mut scratch).to_vec();
        let fragment = Fragment {
            source: 0,
            process_id: *process_id,
            time: at,
            views_could_differ: false,
            found_needles: scratch.found_needles(),
        };
        matcher.take_fragment(&mut assembly, fragment, &mut bytes.clone(), &reported, &mut scratch, || at);
        assembly.trim_all(matcher.blocks(), &mut scratch.block);
        run.close(&mut assembly, matcher, &mut scratch);
    }
    while assembly.close_oldest() {
        run.close(&mut assembly, matcher, &mut scratch);
    }
    run.blocks.sort();
    (run, assembly.counts().trimmed)
}

/// Generates a script with long stretches in which no rule finds anything.
fn long_script() -> impl Strategy<Value = Vec<Vec<u16>>> {
    let text = proptest::collection::vec(
        proptest::sample::select(&["abc", "bca", "-b", "cab", "\u{1F600}", "a", "--", "aBc", "-c"][..]),
        0..4,
    );
    let filler = proptest::sample::select(&["", "x", "\u{e9} ", "zy\n"][..]);
    let part = (text.clone(), filler, text).prop_map(|(before, filler, behind)| {
        [before.concat(), filler.repeat(400), behind.concat()].concat().encode_utf16().collect()
    });
    proptest::collection::vec(part, 2..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn trimming_changes_no_verdict(parts in long_script(), backwards: bool, leaves_out: bool) {
        let total = parts.len() as i32;
        let mut fragments: Vec<_> = (1..)
            .zip(&parts)
            .map(|(number, text)| (Some(4), payload(number, total, text, ID, Some(""))))
            .collect();
        if leaves_out {
            fragments.remove(parts.len() / 2);
        }
        if backwards {
            fragments.reverse();
        }
        let rules = trimmable_rules();
        let verdicts = |(first, is_partial, _, rules): (u64, bool, Vec<u16>, Vec<u32>)| (first, is_partial, rules);
        let expected: Vec<_> = naive(&rules, &fragments)
            .into_iter()
            .map(|block| (block.first as u64, block.is_partial, block.rules))
            .collect();
        let (run, _) = assemble_trimmed(&compile(rules), &fragments);
        prop_assert_eq!(run.blocks.into_iter().map(verdicts).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_fragment_without_a_literal_is_trimmed() {
    let filler: Vec<u16> = "x y ".repeat(5_000).encode_utf16().collect();
    let needle = |text: &str| text.encode_utf16().collect::<Vec<_>>();
    let texts = [needle("abcab"), filler.clone(), needle("-b")];
    let fragments: Vec<_> =
        (1..).zip(&texts).map(|(n, text)| (Some(4), payload(n, 3, text, ID, None))).collect();
    let matcher = compile(rules(&DETECTIONS[..1]));
    let (run, trimmed) = assemble_trimmed(&matcher, &fragments);
    assert_eq!(trimmed, 1, "the filler");
    let [(0, false, text, found)] = &run.blocks[..] else { panic!("one block: {:?}", run.blocks.len()) };
    assert_eq!(found, &[0]);
    assert!(text.len() < 100, "{} units are left", text.len());
    // A rule that may need any text prevents trimming.
    let (run, trimmed) = assemble_trimmed(&compile(rules(&DETECTIONS[4..5])), &fragments);
    assert_eq!((trimmed, run.blocks[0].2.len()), (0, filler.len() + 7));
}

/// The rules change while a block is open: the block is searched with the new ones, and reported rules stay reported.
#[test]
fn rules_can_change_within_a_block() {
    let text = |text: &str| text.encode_utf16().collect::<Vec<_>>();
    let old = rules(&["  s:\n    ScriptBlockText|contains: reported\n  condition: s"]);
    let mut new = rules(&[
        "  s:\n    ScriptBlockText|contains|all: [early, late]\n  condition: s",
        "  s:\n    Path|endswith: abc\n    ScriptBlockText|contains: bord\n  condition: s",
        "  s:\n    ScriptBlockText|contains: never\n  condition: s",
    ]);
    new.extend(old.clone());
    let (old, new) = (compile(old), compile(new));
    let mut assembly = Assembly::<u64>::new(Limits::default());
    let (mut scratch, mut run) = (Scratch::default(), Run::default());
    let mut take = |matcher: &Matcher, number, words: &str, assembly: &mut Assembly<u64>| {
        let mut bytes = payload(number, 2, &text(words), ID, Some("xabc"));
        let reported = {
            let payload = Payload { kind: EventKind::ScriptBlock, process_id: Some(4), bytes: &bytes };
            matcher.find_fragment(&payload, &mut scratch).to_vec()
        };
        let found_needles = scratch.found_needles();
        let fragment =
            Fragment { source: 0, process_id: Some(4), time: 0, views_could_differ: false, found_needles };
        matcher.take_fragment(assembly, fragment, &mut bytes, &reported, &mut scratch, || 7);
        reported
    };
    assert_eq!(take(&old, 1, "reported early bo", &mut assembly), [0]);
    new.adopt(&mut assembly, old.rules());
    assert!(take(&new, 2, "rd late", &mut assembly).is_empty());
    run.close(&mut assembly, &new, &mut Scratch::default());
    let [(7, false, _, found)] = &run.blocks[..] else { panic!("one block") };
    assert_eq!(found, &[0, 1], "the rule that was reported for the first fragment is not repeated");
}

/// Two rules without ids share a title: one being reported does not affect the other.
#[test]
fn rules_with_the_same_title_are_distinguished_when_rules_change() {
    let document = |words: &str| {
        format!(
            "title: same\nlogsource:\n  category: ps_script\ndetection:\n  s:\n    ScriptBlockText|contains|all: {words}\n  condition: s\n"
        )
    };
    let of = |documents: &[String]| {
        let loaded = load([("test.yml", documents.join("---\n").as_str())]);
        assert_eq!(loaded.errors, []);
        compile(loaded.rules)
    };
    let (reported, across) = (document("[reported]"), document("[early, late]"));
    let old = of(&[reported.clone(), across.clone()]);
    let new = of(&[document("[new]"), reported, across]);
    let mut assembly = Assembly::<u64>::new(Limits::default());
    let (mut scratch, mut run) = (Scratch::default(), Run::default());
    let mut take = |matcher: &Matcher, number, words: &str, assembly: &mut Assembly<u64>| {
        let text: Vec<u16> = words.encode_utf16().collect();
        let mut bytes = payload(number, 2, &text, ID, None);
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: Some(4), bytes: &bytes };
        let reported = matcher.find_fragment(&payload, &mut scratch).to_vec();
        let found_needles = scratch.found_needles();
        let fragment =
            Fragment { source: 0, process_id: Some(4), time: 0, views_could_differ: false, found_needles };
        matcher.take_fragment(assembly, fragment, &mut bytes, &reported, &mut scratch, || 7);
        reported
    };
    assert_eq!(take(&old, 1, "reported early", &mut assembly), [0]);
    new.adopt(&mut assembly, old.rules());
    assert!(take(&new, 2, " late", &mut assembly).is_empty());
    run.close(&mut assembly, &new, &mut Scratch::default());
    let [(7, false, _, found)] = &run.blocks[..] else { panic!("one block") };
    assert_eq!(found, &[2]);
}

/// A process floods the assembly with blocks that never complete: memory stays bounded, and the blocks of others
/// complete.
#[test]
fn a_flood_evicts_its_own_blocks() {
    let limits = Limits { bytes: 1 << 20, blocks: 2_000, ..Limits::default() };
    let rules = rules(&DETECTIONS[..1]);
    let matcher = compile(rules);
    let filler: Vec<u16> = "Get-Date | Format-List; ".repeat(200).encode_utf16().collect();
    let text = |text: &str| text.encode_utf16().collect::<Vec<_>>();
    for (name, flood_text, needs_room) in [("large", &filler, true), ("empty", &Vec::new(), false)] {
        let mut assembly = Assembly::<u64>::new(limits);
        let (mut scratch, mut run) = (Scratch::default(), Run::default());
        let (mut most_open, mut most_bytes, mut honest) = (0, 0, 0);
        for n in 0..6_000u64 {
            let mut take = |process_id, bytes: &mut Vec<u8>| {
                let payload = Payload { kind: EventKind::ScriptBlock, process_id, bytes };
                let reported = matcher.find_fragment(&payload, &mut scratch).to_vec();
                let fragment = Fragment {
                    source: 0,
                    process_id,
                    time: n,
                    views_could_differ: false,
                    found_needles: scratch.found_needles(),
                };
                matcher.take_fragment(&mut assembly, fragment, bytes, &reported, &mut scratch, || n);
                run.close(&mut assembly, &matcher, &mut Scratch::default());
                most_open = most_open.max(assembly.open());
                most_bytes = most_bytes.max(assembly.bytes());
            };
            let id = format!("{n:08x}-d4cc-4a10-b04e-417ef95bc8b6");
            take(Some(666), &mut payload(1, 2, flood_text, &id, None));
            // A regular block whose three fragments arrive far apart.
            let id = format!("{:08x}-aaaa-4a10-b04e-417ef95bc8b6", n / 3_000);
            match n % 3_000 {
                0 => take(Some(4), &mut payload(1, 3, &text("abc"), &id, None)),
                1_400 => take(Some(4), &mut payload(2, 3, &filler, &id, None)),
                2_900 => {
                    take(Some(4), &mut payload(3, 3, &text("abcab -b"), &id, None));
                    honest += 1;
                }
                _ => {}
            }
        }
        assert!(
            most_bytes <= limits.bytes && most_open <= limits.blocks,
            "{name}: {most_bytes}, {most_open}"
        );
        let counts = assembly.counts();
        assert_eq!((counts.joined, honest), (2, 2), "{name}: {counts:?}");
        assert!(counts.evicted > 1_000, "{name}: {counts:?}");
        assert_eq!(counts.trimmed > 0, needs_room, "{name}: {counts:?}");
        let placed = counts.fragments - counts.duplicates - counts.unplaced;
        let open = assembly.open() as u64;
        assert_eq!(placed, 6_006, "{name}: {counts:?}");
        assert_eq!(counts.evicted + counts.partial + open, 6_000, "{name}: {counts:?}");
    }
}

#[test]
fn limits_of_one_block() {
    let matcher = compile(rules(&DETECTIONS[..1]));
    let text: Vec<u16> = vec![0x78; 100];
    let fragments: Vec<_> = (1..=BLOCK_FRAGMENTS_MAX as i32 + 5)
        .map(|number| (None, payload(number, i32::MAX, &text, ID, None)))
        .collect();
    let (run, assembly) = assemble(&matcher, &fragments, Limits::default());
    let lengths: Vec<usize> = run.blocks.iter().map(|(_, _, text, _)| text.len()).collect();
    let gap = GAP.len();
    assert_eq!(lengths, [100 * BLOCK_FRAGMENTS_MAX + gap, 500 + 2 * gap]);
    assert_eq!((assembly.counts().evicted, assembly.counts().partial), (1, 1));
    let limits = Limits { block_bytes: 2_000, ..Limits::default() };
    let (run, assembly) = assemble(&matcher, &fragments[..40], limits);
    assert!(assembly.counts().evicted > 3 && run.blocks.iter().all(|(_, is_partial, _, _)| *is_partial));
}
