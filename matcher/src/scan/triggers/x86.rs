//! Scanning for triggers with AVX2.

#![expect(unsafe_code, reason = "vector instructions")]

use crate::scan::kernel::{Isa, Kernel};
use crate::scan::triggers::{BACKTICK, NOT_ASCII_MIN, PADDING, PLACES, Trigger, TriggerScanner};
use crate::scan::x86::broadcast_avx2;
use std::arch::x86_64::{
    __m256i, _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_max_epu8, _mm256_movemask_epi8,
    _mm256_or_si256, _mm256_packus_epi16, _mm256_permute4x64_epi64, _mm256_set1_epi8, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_srli_epi16, _mm256_sub_epi8, _mm256_xor_si256,
};

/// Units per vector.
const STEP: usize = 32;
/// Vectors that are examined between two tests of the result.
const STEPS: usize = 2;
/// Units that these vectors cover.
const SEEN: usize = STEPS * STEP + PLACES - 1;

/// Vector version of [`TriggerScanner::scan`].
#[inline]
pub(super) fn scan(
    scanner: &TriggerScanner,
    units: &[[u8; 2]],
    narrow: Option<&[u8]>,
    isa: Isa,
    mut report: impl FnMut(usize, Trigger) -> bool,
) -> bool {
    if !matches!(isa.kernel(), Kernel::Avx512 | Kernel::Avx2) {
        return scanner.scan_plain(units, &mut report);
    }
    let narrow = narrow.filter(|narrow| narrow.len() == units.len());
    // SAFETY: `Isa` guarantees that the processor has AVX2, which every processor with AVX-512 has.
    unsafe {
        match (narrow, scanner.blanks) {
            (Some(narrow), true) => scan_avx2::<true, true>(scanner, units, narrow, report),
            (Some(narrow), false) => scan_avx2::<true, false>(scanner, units, narrow, report),
            (None, true) => scan_avx2::<false, true>(scanner, units, units.as_flattened(), report),
            (None, false) => scan_avx2::<false, false>(scanner, units, units.as_flattened(), report),
        }
    }
}

/// Scans `bytes`, which are the units as they are, or narrowed to one byte each. `BLANKS`: whether runs of blanks are
/// triggers.
#[target_feature(enable = "avx2")]
fn scan_avx2<const NARROWED: bool, const BLANKS: bool>(
    scanner: &TriggerScanner,
    units: &[[u8; 2]],
    bytes: &[u8],
    mut report: impl FnMut(usize, Trigger) -> bool,
) -> bool {
    let size = if NARROWED { 1 } else { 2 };
    let tables = scanner.halves.map(|place| place.map(|table| broadcast_avx2(&table)));
    let mut at = 0;
    loop {
        // This loop calls nothing, so that the tables stay in registers.
        let found = loop {
            let Some(seen) = bytes.get(size * at..size * at + size * SEEN) else { break None };
            let found = [0, 1].map(|step| step_at::<NARROWED, BLANKS>(&tables, seen, step * STEP));
            if is_any(&found) {
                break Some(found);
            }
            at += STEPS * STEP;
        };
        let Some(found) = found else { break };
        if report_vectors::<NARROWED>(scanner, units, at, &found, &mut report) {
            return true;
        }
        at += STEPS * STEP;
    }
    // The rest, followed by padding that is not a trigger.
    while at < units.len() {
        let own = &bytes[size * at..(size * (at + SEEN)).min(bytes.len())];
        let mut rest = [if NARROWED { [PADDING; 2] } else { [PADDING, 0] }; SEEN];
        let rest = rest.as_flattened_mut();
        rest[..own.len()].copy_from_slice(own);
        let found = [0, 1].map(|step| step_at::<NARROWED, BLANKS>(&tables, rest, step * STEP));
        if is_any(&found) && report_vectors::<NARROWED>(scanner, units, at, &found, &mut report) {
            return true;
        }
        at += STEPS * STEP;
    }
    false
}

/// Triggers at the positions of a vector, in the highest bit of each byte.
struct Step {
    /// Four units match a sequence.
    in_sequence: __m256i,
    /// A single unit is a trigger.
    other: __m256i,
    /// A run of blanks begins.
    blanks: __m256i,
}

/// Examines the positions from `from` on.
#[inline]
#[target_feature(enable = "avx2")]
fn step_at<const NARROWED: bool, const BLANKS: bool>(
    tables: &[[__m256i; 2]; PLACES],
    seen: &[u8],
    from: usize,
) -> Step {
    let [here, next, third, fourth] = [0, 1, 2, 3].map(|place| pack::<NARROWED>(seen, from + place));
    let half = _mm256_set1_epi8(15);
    let buckets = _mm256_and_si256(look_up(here, &tables[0]), look_up(next, &tables[1]));
    let buckets = _mm256_and_si256(buckets, look_up(third, &tables[2]));
    let last = _mm256_shuffle_epi8(tables[3][0], _mm256_and_si256(fourth, half));
    let in_none = _mm256_cmpeq_epi8(_mm256_and_si256(buckets, last), _mm256_setzero_si256());
    let backtick = _mm256_cmpeq_epi8(here, _mm256_set1_epi8(BACKTICK.cast_signed()));
    Step {
        in_sequence: _mm256_xor_si256(in_none, _mm256_set1_epi8(-1)),
        other: _mm256_or_si256(here, backtick),
        blanks: if BLANKS { begin_of_blanks(here, next, third) } else { _mm256_setzero_si256() },
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn is_any(found: &[Step; STEPS]) -> bool {
    let of_step = |step: &Step| _mm256_or_si256(_mm256_or_si256(step.in_sequence, step.other), step.blanks);
    let [first, second] = found;
    _mm256_movemask_epi8(_mm256_or_si256(of_step(first), of_step(second))) != 0
}

/// Reports the triggers from `at` on.
#[inline]
#[target_feature(enable = "avx2")]
fn report_vectors<const NARROWED: bool>(
    scanner: &TriggerScanner,
    units: &[[u8; 2]],
    at: usize,
    found: &[Step; STEPS],
    report: &mut impl FnMut(usize, Trigger) -> bool,
) -> bool {
    (0..STEPS).any(|step| {
        let Step { in_sequence, other, blanks } = &found[step];
        let places = [in_sequence, other, blanks].map(|packed| bits::<NARROWED>(*packed));
        // The padding has none.
        places != [0; 3] && report_places(scanner, units, at + step * STEP, places, report)
    })
}

/// Returns the units before a run of blanks within a line, or before a tab: see [`Trigger::Blanks`].
#[inline]
#[target_feature(enable = "avx2")]
fn begin_of_blanks(here: __m256i, next: __m256i, third: __m256i) -> __m256i {
    let all = |byte: u8| _mm256_set1_epi8(byte.cast_signed());
    let (blank, tab) = (all(b' '), all(b'\t'));
    let tab_next = _mm256_cmpeq_epi8(next, tab);
    let blank_next = _mm256_or_si256(_mm256_cmpeq_epi8(next, blank), tab_next);
    let blank_third = _mm256_or_si256(_mm256_cmpeq_epi8(third, blank), _mm256_cmpeq_epi8(third, tab));
    // Above the blank, or 0, which becomes the highest value.
    let less = _mm256_sub_epi8(here, all(1));
    let inner = _mm256_cmpeq_epi8(_mm256_max_epu8(less, blank), less);
    _mm256_and_si256(inner, _mm256_or_si256(tab_next, _mm256_and_si256(blank_next, blank_third)))
}

/// Reports the triggers of a vector.
#[inline(never)]
fn report_places(
    scanner: &TriggerScanner,
    units: &[[u8; 2]],
    at: usize,
    [in_sequence, other, blanks]: [u32; 3],
    report: &mut impl FnMut(usize, Trigger) -> bool,
) -> bool {
    let bucket = |place| {
        let buckets = scanner.buckets(units, place);
        buckets != 0 && report(place, Trigger::Sequence(buckets))
    };
    each(at, in_sequence, bucket)
        // In narrowed form, units from U+8000 on look the same.
        || each(at, other, |at| units[at][1] < NOT_ASCII_MIN && report(at, Trigger::Other))
        || each(at, blanks, |at| report(at, Trigger::Blanks))
}

/// Calls `report` with the position of each bit until it returns true.
#[inline]
fn each(at: usize, mut places: u32, mut report: impl FnMut(usize) -> bool) -> bool {
    while places != 0 {
        if report(at + places.trailing_zeros() as usize) {
            return true;
        }
        places &= places - 1;
    }
    false
}

/// Returns the sequences that accept each byte.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up(bytes: __m256i, [low, high]: &[__m256i; 2]) -> __m256i {
    let half = _mm256_set1_epi8(15);
    let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), half);
    // Only the lowest four bits matter, and bytes beyond ASCII give no result.
    _mm256_and_si256(_mm256_shuffle_epi8(*low, bytes), _mm256_shuffle_epi8(*high, upper))
}

/// Returns one bit per unit, in order.
#[inline]
#[target_feature(enable = "avx2")]
fn bits<const NARROWED: bool>(packed: __m256i) -> u32 {
    // Restores the order of the quarters after packing.
    let packed = if NARROWED { packed } else { _mm256_permute4x64_epi64::<0b11_01_10_00>(packed) };
    _mm256_movemask_epi8(packed).cast_unsigned()
}

/// Returns one byte for each of the units from `from` on. If they are not narrowed, the quarters are in the order
/// first, third, second, fourth.
#[inline]
#[target_feature(enable = "avx2")]
fn pack<const NARROWED: bool>(seen: &[u8], from: usize) -> __m256i {
    if NARROWED {
        return load(seen, from);
    }
    _mm256_packus_epi16(load(seen, 2 * from), load(seen, 2 * from + STEP))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8], from: usize) -> __m256i {
    let bytes = &bytes[from..from + STEP];
    // SAFETY: the slice has 32 readable bytes, and the load requires no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}
