//! Short, deterministic runs of the fuzz targets: the findings of long runs, and some thousand mutations of valid input.

use etwsieve_tests::writer::{AmsiScan, EventSpec, TraceWriter, script_block};
use etwsieve_tests::{corpus, fuzz, obfuscation};
use std::fs::{self, DirEntry};
use std::io;

/// Number of mutations of each seed.
const ROUNDS: u32 = 1_500;

/// Length of the seed in bytes: file header, chunk header and some records.
const EVTX_SEED_LEN: usize = 24 * 1024;

type Target = fn(&[u8]);

/// Returns the fuzz targets with valid input for them.
fn targets() -> Vec<(&'static str, Target, Vec<Vec<u8>>)> {
    let id = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";
    let block = script_block(1, 1, "ab a?b1c cd a12b", id, Some("x"));
    let mut writer = TraceWriter::new().buffer_len(4096).processors(2);
    for number in 0..6u16 {
        writer.push(
            EventSpec::powershell(4104, block.clone())
                .at(u64::from(number) * 100)
                .on(number % 2)
                .sid(&[1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0]),
        );
    }
    let golden = corpus::repository().join("transport/tests/golden");
    let read = |entry: io::Result<DirEntry>| fs::read(entry?.path());
    let frames =
        fs::read_dir(golden).and_then(|entries| entries.map(read).collect()).expect("golden files are there");
    let rule = etwsieve_matcher::builtin::TEXT.as_bytes().to_vec();
    let other = b"title: t\nlogsource: {product: windows, category: ps_script}\ndetection:\n  a:\n    - ScriptBlockText|re|i: 'x[0-9]+'\n      Path: null\n    - word\n  b: {ScriptBlockText|wide|base64offset|contains: [IEX]}\n  condition: (a or not b) and 1 of them\n".to_vec();
    // The tests cannot write .evtx chunks with templates, so the seed is the start of a recorded file, if available.
    let evtx = corpus::data().map(|data| {
        let path = data.join("recorded/evtx/danielbohannon+Revoke-Obfuscation/Demo/demo.evtx");
        fs::read(path).expect("the recording is there")[..EVTX_SEED_LEN].to_vec()
    });
    let scan = AmsiScan { content_name: "x".into(), ..AmsiScan::powershell("ab cd") };
    let scans = vec![scan.payload(), AmsiScan { pointer_len: 4, version: 1, ..scan }.payload()];
    let mut laid_out = Vec::new();
    etwsieve::amsi::decode(&scans[0]).expect("a scan").lay_out(&mut laid_out);
    let lines = [
        r#"{"time":"2020-07-22T00:02:31Z","level":"high","event_level":3,"event_id":4104,"keywords":"0x8000000000000000","script_block_text":"a\ud83d\u0000b","path":null,"label":{"other":[1,2.5]}}"#,
        r#"{"time_created":"2020-07-22 00:02:31","level":[[[]]],"payload":"p","context_info":"c","user_sid":"S-1-5-18"}"#,
    ];
    let script = "New-PSSession -ComputerName ab";
    let obfuscated: Vec<Vec<u8>> = obfuscation::ALL
        .iter()
        .filter_map(|obfuscation| (obfuscation.apply)(script, 1))
        .map(String::into_bytes)
        .collect();
    vec![
        ("amsi", fuzz::amsi::amsi as Target, scans),
        ("evtx", fuzz::evtx::evtx, evtx.into_iter().collect()),
        ("etl", fuzz::etl::etl as Target, vec![writer.build()]),
        ("jsonl", fuzz::jsonl::jsonl, vec![lines.join("\n").into_bytes()]),
        ("payload", fuzz::payload::payload, vec![block, laid_out]),
        ("rule", fuzz::rule::rule, vec![rule, other]),
        ("frame", fuzz::frame::frame, frames),
        ("fold_cost", |data| _ = fuzz::fold_cost::fold_cost(data), obfuscated.clone()),
        ("views", fuzz::views::views, obfuscated),
    ]
}

#[test]
fn findings_stay_fixed() {
    let folder = corpus::repository().join("tests/data/fuzz");
    for (name, target, _) in targets() {
        let Ok(entries) = fs::read_dir(folder.join(name)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            eprintln!("{}", path.display());
            target(&fs::read(path).unwrap());
        }
    }
}

#[test]
fn mutations_of_valid_input() {
    for (name, target, seeds) in targets() {
        assert!(!seeds.is_empty() || name == "evtx", "{name} has seeds");
        for seed in &seeds {
            target(seed);
            let mut random = Random(0x5EED ^ seed.len() as u64);
            for _ in 0..ROUNDS {
                target(&mutate(seed, &mut random));
            }
        }
    }
}

/// Changes a few bytes, and cuts, duplicates and moves pieces.
fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(6) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        let piece = (at + 1 + random.below(16)).min(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at..piece].fill([0, 0xFF, 0x80, 0x7F][random.below(4)]),
            3 => bytes.truncate(at),
            4 => {
                let copy = bytes[at..piece].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => {
                bytes.drain(at..piece);
            }
        }
    }
    bytes
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
