//! Instruction sets of the scanners, selected when rules are compiled.
//!
//! All kernels give the same results; tests compare each with the naive evaluator.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

/// A family of scanners, by the instructions that they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kernel {
    /// No vector instructions except those of the compiler and `memchr`. Text is narrowed, then searched.
    Portable,
    /// SSE2, which every x86-64 processor has.
    Sse2,
    /// AVX2, BMI1 and BMI2.
    Avx2,
    /// AVX-512 F, BW, VL and VBMI, and what [`Avx2`](Self::Avx2) needs. The first processors with AVX-512 lack VBMI; on
    /// them, AVX-512 lowers the clock rate, so AVX2 is the better choice anyway.
    Avx512,
}

/// The environment variable with which users select a kernel. The caller reads it and passes its value to
/// [`Kernel::select`].
pub const KERNEL_VARIABLE: &str = "ETWSIEVE_KERNEL";

/// A kernel that is not available.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// No kernel has this name.
    #[error("unknown kernel {name:?} (expected portable, sse2, avx2 or avx512)")]
    Unknown {
        /// The name as given.
        name: String,
    },
    /// The processor lacks the instructions.
    #[error("this processor does not support the kernel {kernel}")]
    Unsupported {
        /// The kernel as given.
        kernel: Kernel,
    },
}

impl Kernel {
    /// All kernels, in ascending order.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Sse2, Self::Avx2, Self::Avx512];

    /// Returns the name, as used in [`KERNEL_VARIABLE`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Sse2 => "sse2",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Returns true if this processor supports it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Portable | Self::Sse2 => true,
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
            }
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vbmi")
            }
        };
        #[cfg(not(target_arch = "x86_64"))]
        return self == Self::Portable;
    }

    /// Returns the kernels that this processor supports, in ascending order.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|kernel| kernel.is_available()).collect()
    }

    /// Returns the best kernel that this processor supports.
    pub fn best() -> Self {
        Isa::new(Self::Avx512).0
    }

    /// Returns the kernel of this name, for example the value of [`KERNEL_VARIABLE`]; the [best](Self::best) one if the
    /// name is empty.
    ///
    /// # Errors
    ///
    /// Returns [`KernelError`] if no kernel has this name, or if the processor does not support it.
    pub fn select(name: &OsStr) -> Result<Self, KernelError> {
        if name.is_empty() {
            return Ok(Self::best());
        }
        let kernel: Self = name.to_string_lossy().parse()?;
        if kernel.is_available() { Ok(kernel) } else { Err(KernelError::Unsupported { kernel }) }
    }
}

impl FromStr for Kernel {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        let named = |kernel: &Self| kernel.as_str().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(named).ok_or_else(|| KernelError::Unknown { name: name.to_owned() })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The instruction set in use: proves that this processor supports a kernel. Calls of vector code rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Isa(Kernel);

impl Isa {
    /// Returns `kernel`, or the best lower one that this processor supports.
    pub(crate) fn new(kernel: Kernel) -> Self {
        let isa = |other: &Kernel| *other <= kernel && other.is_available();
        Self(Kernel::ALL.into_iter().rev().find(isa).unwrap_or(Kernel::Portable))
    }

    pub(crate) fn kernel(self) -> Kernel {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Isa, Kernel, KernelError};

    #[test]
    fn names() {
        for kernel in Kernel::ALL {
            assert_eq!(kernel.as_str().parse(), Ok(kernel));
        }
        assert_eq!("AVX2".parse(), Ok(Kernel::Avx2));
        assert_eq!("mmx".parse::<Kernel>(), Err(KernelError::Unknown { name: "mmx".into() }));
    }

    #[test]
    fn selected_kernels_are_supported() {
        assert!(Kernel::available().contains(&Kernel::Portable));
        for kernel in Kernel::ALL {
            let isa = Isa::new(kernel).kernel();
            assert!(isa.is_available() && isa <= kernel);
            assert_eq!(isa == kernel, kernel.is_available());
        }
    }
}
