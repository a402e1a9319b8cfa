//! Looking up words with the bit instructions that came with AVX2: the plain loop, compiled for them.

use crate::scan::kernel::{Kernel, Usable};
use crate::scan::words::first_group_plain;

/// As [`first_group_plain`].
pub(crate) fn first_group<const L: usize, const M: usize>(
    words: &[[u8; 4]],
    long: &[u64; L],
    middle: &[u64; M],
    usable: Usable,
) -> Option<usize> {
    match usable.kernel() {
        // SAFETY: `Usable` vouches for the processor's BMI1 and BMI2, which both kernels ask for.
        Kernel::Avx512 | Kernel::Avx2 => unsafe { first_group_bmi2(words, long, middle) },
        Kernel::Sse2 | Kernel::Portable => first_group_plain(words, long, middle),
    }
}

#[target_feature(enable = "bmi1,bmi2")]
fn first_group_bmi2<const L: usize, const M: usize>(
    words: &[[u8; 4]],
    long: &[u64; L],
    middle: &[u64; M],
) -> Option<usize> {
    first_group_plain(words, long, middle)
}
