//! Decoding must not trust a length. The test measures the whole process and therefore has its own test binary.

#![cfg(target_os = "linux")]

mod common;

use common::hit;
use etwsieve_transport::hit::{CutV1, RULES_MAX};
use etwsieve_transport::wire::codec::{decode_hit, encode_event, encode_hit};
use etwsieve_transport::wire::frame::{HEADER_LEN, split_frame};

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).position(|window| window == needle).expect("it is there")
}

/// Claims lengths of gigabytes for every string and list. The address space of the process shows the cost.
#[test]
fn claimed_gigabytes_allocate_nothing() {
    fn status_kib(name: &str) -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
    let good = encode_hit(&hit(1)).unwrap();
    let bare = encode_event(&hit(1)).unwrap().len() - 8;
    // The variable-length fields of this hit: source, script text, rules, and the ATT&CK ids, spans and transformations
    // of its rule. The pieces of a truncated text have the length that another hit claims.
    let (spans, transformations) = (good.len() - 16, good.len() - 8);
    let attack = spans - 1 - (8 + "T1021.006".len()) - 8;
    let cut = {
        let mut cut = hit(1);
        cut.cut = Some(CutV1 { text: 0, units: 9, sha256: None, pieces: Vec::new() });
        encode_event(&cut).unwrap()
    };
    let text = find(&good, &(2 * "Enter-PSSession -ComputerName srv2".len() as u64).to_le_bytes());
    let claims = [1u64 << 30, 1 << 40, u64::MAX / 2, u64::MAX];
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    for claim in claims {
        // Sixteen bytes: a time, and the length of a source.
        inputs.push([1u64.to_le_bytes(), claim.to_le_bytes()].concat());
        let mut bytes = cut.clone();
        bytes[cut.len() - 16..cut.len() - 8].copy_from_slice(&claim.to_le_bytes());
        inputs.push(bytes);
        for at in [8, text, bare, attack, spans, transformations] {
            let mut bytes = good.clone();
            bytes[at..at + 8].copy_from_slice(&claim.to_le_bytes());
            inputs.push(bytes);
        }
        // A list with a valid length but without entries.
        let mut bytes = good[..bare].to_vec();
        bytes.extend((RULES_MAX as u64).to_le_bytes());
        inputs.push(bytes);
    }
    // An earlier peak would hide a later one, so reserve the difference first.
    let slack = status_kib("VmPeak") - status_kib("VmSize");
    let ballast = std::hint::black_box(Vec::<u8>::with_capacity(slack as usize * 1024));
    let before = status_kib("VmPeak");
    for bytes in &inputs {
        decode_hit(bytes).unwrap_err();
        let mut frame = good[..HEADER_LEN].to_vec();
        frame[..4].copy_from_slice(b"ETWS");
        frame[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        split_frame(&frame).unwrap_err();
    }
    let grown = status_kib("VmPeak") - before;
    assert!(grown < 512, "address space grew by {grown} KiB");
    drop(ballast);
}
