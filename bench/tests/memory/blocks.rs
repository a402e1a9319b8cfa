//! The assembly of script blocks stays within its memory bound, by its own count and the allocator's, while a million
//! incomplete blocks arrive; complete blocks among them are joined and detected.

use etwsieve_bench::alloc::most_held;
use etwsieve_matcher::block::{Assembly, BlockCounts, Fragment, Joined, Limits};
use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch, builtin};
use etwsieve_tests::writer::script_block;

const FLOOD: u64 = 1_000_000;
/// Number of fragments of the flood between two fragments of a complete block.
const APART: u64 = 5_000;
const FLOOD_PROCESS: u32 = 666;
/// Memory that the assembly does not count: growing tables and the joined text, in bytes.
const SLACK_BYTES: usize = 16 << 20;

struct Flooded {
    counts: BlockCounts,
    most_bytes: usize,
    most_open: usize,
    honest: u64,
    detected: u64,
}

/// Returns a fragment of a complete block, which has its needles in the first and the last of three fragments.
fn honest(part: u64, number: u64) -> Vec<u8> {
    let id = format!("{number:08x}-aaaa-4a10-b04e-417ef95bc8b6");
    let texts = ["Enter-PSSess", "ion # and what follows", " -ComputerName srv01"];
    script_block(part as i32 + 1, 3, texts[part as usize], &id, None)
}

fn flood(matcher: &Matcher, text: &str, limits: Limits) -> Flooded {
    let mut assembly = Assembly::<u64>::new(limits);
    let (mut scratch, mut joined) = (Scratch::default(), Joined::default());
    let mut flooded =
        Flooded { counts: BlockCounts::default(), most_bytes: 0, most_open: 0, honest: 0, detected: 0 };
    let mut buffer = Vec::new();
    let template = script_block(1, 2, text, "00000000-d4cc-4a10-b04e-417ef95bc8b6", None);
    // Offset of the first eight digits of the id, of two bytes each, after the numbers, the text and its NUL.
    let id = 8 + 2 * (text.len() + 1);
    for n in 0..FLOOD {
        let mut take = |process_id, bytes: &[u8]| {
            buffer.clear();
            buffer.extend_from_slice(bytes);
            let payload = Payload { kind: EventKind::ScriptBlock, process_id: Some(process_id), bytes };
            let given = matcher.find_fragment(&payload, &mut scratch).to_vec();
            // The times are close together, so no block is evicted by age.
            let fragment = Fragment {
                source: 0,
                process_id: Some(process_id),
                time: n,
                views_could_differ: false,
                found_needles: scratch.found_needles(),
            };
            matcher.take_fragment(&mut assembly, fragment, &mut buffer, &given, &mut scratch, || n);
            while let Some(closed) = assembly.next_closed() {
                let is_found = !matcher.find_joined(&closed, &mut scratch, &mut joined).is_empty();
                flooded.detected += u64::from(is_found);
                assert_eq!(closed.is_partial(), !is_found, "only honest blocks are whole, and all are found");
                assembly.recycle(closed);
            }
            flooded.most_bytes = flooded.most_bytes.max(assembly.bytes());
            flooded.most_open = flooded.most_open.max(assembly.open());
        };
        let mut bytes = template.clone();
        for (digit, at) in format!("{n:08x}").bytes().zip((id..).step_by(2)) {
            bytes[at] = digit;
        }
        take(FLOOD_PROCESS, &bytes);
        if n % APART == 0 {
            let (number, part) = (n / APART / 3, n / APART % 3);
            take(4, &honest(part, number));
            flooded.honest += u64::from(part == 2);
        }
    }
    flooded.counts = assembly.counts();
    flooded
}

#[test]
fn a_million_open_blocks() {
    let _guard = super::alone();
    let matcher = Matcher::new(builtin::rules());
    let limits = Limits::default();
    let long = "Get-ChildItem | Select-Object Name; ".repeat(60);
    for (name, text) in [("short", "x"), ("long", long.as_str())] {
        let (held, flooded) = most_held(|| flood(&matcher, text, limits));
        let counts = flooded.counts;
        assert!(flooded.most_bytes <= limits.bytes, "{name}: {} bytes", flooded.most_bytes);
        assert!(flooded.most_open <= limits.blocks, "{name}: {} blocks", flooded.most_open);
        assert!(held <= limits.bytes + SLACK_BYTES, "{name}: {held} bytes held, {counts:?}");
        assert!(flooded.most_open > 1_000, "{name}: {} blocks", flooded.most_open);
        assert!(flooded.honest > 60, "{name}: {} honest blocks", flooded.honest);
        assert_eq!((counts.joined, flooded.detected), (flooded.honest, flooded.honest), "{name}");
        assert!(counts.evicted > FLOOD / 2, "{name}: {counts:?}");
        eprintln!("{name}: counted {} bytes, held {held}, open {}", flooded.most_bytes, flooded.most_open);
    }
}
