//! Looking for marks with AVX2.

use crate::scan::kernel::{Kernel, Usable};
use crate::scan::marks::{Mark, Marks};
use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8,
    _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_packus_epi16, _mm256_permute4x64_epi64,
    _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16, _mm256_testz_si256,
};
use std::hint::cold_path;

/// Units of one step.
const STEP: usize = 32;

/// As [`Marks::scan`]; the vectors are those of `usable`.
#[inline]
pub(crate) fn scan(
    marks: &Marks,
    units: &[[u8; 2]],
    usable: Usable,
    mut report: impl FnMut(usize, Mark) -> bool,
) -> bool {
    match usable.kernel() {
        // SAFETY: `Usable` vouches for the processor's AVX2, which every processor with AVX-512 has.
        Kernel::Avx512 | Kernel::Avx2 => unsafe { scan_avx2(marks, units, report) },
        Kernel::Sse2 | Kernel::Portable => (0..units.len()).any(|at| marks.at(units, at, &mut report)),
    }
}

#[target_feature(enable = "avx2")]
fn scan_avx2(marks: &Marks, units: &[[u8; 2]], mut report: impl FnMut(usize, Mark) -> bool) -> bool {
    let tables = marks.halves.map(|place| place.map(|table| broadcast(&table)));
    let mut at = 0;
    // Places of the step before that a run of blanks may continue: its last blank, and its last unit that begins none.
    let mut state = Blanks::default();
    while let Some(step) = units.get(at..).and_then(<[_]>::first_chunk::<{ STEP + 1 }>) {
        let (Some(here), Some(next)) = (step.first_chunk(), step.last_chunk()) else { break };
        let here = pack(here);
        let buckets = _mm256_and_si256(look_up(here, &tables[0]), look_up(pack(next), &tables[1]));
        // Packing goes by quarters; the order matters only where something is.
        if _mm256_testz_si256(buckets, buckets) == 0 {
            cold_path();
            let none = _mm256_cmpeq_epi8(buckets, _mm256_setzero_si256());
            let mut places = !bits(none);
            while places != 0 {
                let place = at + places.trailing_zeros() as usize;
                let mut pair = |at, mark| mark != Mark::Blanks && report(at, mark);
                if marks.at(units, place, &mut pair) {
                    return true;
                }
                places &= places - 1;
            }
        }
        if marks.blanks {
            let mut places = state.next(here);
            while places != 0 {
                if report(at + places.trailing_zeros() as usize, Mark::Blanks) {
                    return true;
                }
                places &= places - 1;
            }
        }
        at += STEP;
    }
    (at..units.len()).any(|at| marks.at(units, at, &mut report))
}

/// What the step before left for runs of blanks, a bit for each unit, the last one's highest.
#[derive(Clone, Copy)]
struct Blanks {
    blank: u32,
    /// Blanks and line ends; before the text one stands.
    border: u32,
}

impl Default for Blanks {
    fn default() -> Self {
        Self { blank: 0, border: u32::MAX }
    }
}

impl Blanks {
    /// The places of a step at which a run inside a line has its second blank, or a tab that begins it.
    #[target_feature(enable = "avx2")]
    fn next(&mut self, here: __m256i) -> u32 {
        let is = |byte: u8| _mm256_cmpeq_epi8(here, _mm256_set1_epi8(byte.cast_signed()));
        let tab = bits(is(b'\t'));
        let blank = bits(is(b' ')) | tab;
        let border = blank | bits(_mm256_or_si256(is(b'\n'), is(b'\r')));
        let before = |own: u32, last: u32, count: u32| own << count | last >> (u32::BITS - count);
        let second = blank & before(blank, self.blank, 1) & !before(border, self.border, 2);
        let first = tab & !before(border, self.border, 1);
        *self = Self { blank, border };
        second | first
    }
}

/// The buckets of each byte.
#[target_feature(enable = "avx2")]
fn look_up(bytes: __m256i, [low, high]: &[__m256i; 2]) -> __m256i {
    let half = _mm256_set1_epi8(15);
    let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), half);
    let lower = _mm256_and_si256(bytes, half);
    _mm256_and_si256(_mm256_shuffle_epi8(*low, lower), _mm256_shuffle_epi8(*high, upper))
}

/// One bit for each unit, in their order.
#[target_feature(enable = "avx2")]
fn bits(packed: __m256i) -> u32 {
    _mm256_movemask_epi8(_mm256_permute4x64_epi64::<0b11_01_10_00>(packed)).cast_unsigned()
}

/// One byte a unit, quarters of the units in the order first, third, second, fourth.
#[target_feature(enable = "avx2")]
fn pack(units: &[[u8; 2]; STEP]) -> __m256i {
    let (halves, _) = units.as_chunks::<{ STEP / 2 }>();
    // SAFETY: each half is a reference to 32 readable bytes, and the loads ask for no alignment.
    let [low, high] = [0, 1].map(|half| unsafe { _mm256_loadu_si256(halves[half].as_ptr().cast()) });
    _mm256_packus_epi16(low, high)
}

#[target_feature(enable = "avx2")]
fn broadcast(table: &[u8; 16]) -> __m256i {
    // SAFETY: the reference is to 16 readable bytes, and the load asks for no alignment.
    let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
    _mm256_broadcastsi128_si256(table)
}
