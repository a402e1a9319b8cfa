//! Which instructions the scanners use: chosen when rules are compiled, by processor or by the user.
//!
//! Every kernel gives the same answers; tests hold each against the naive evaluator.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

/// A family of scanners, by the instructions that they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kernel {
    /// Nothing but what the compiler and `memchr` find: text is narrowed, then searched.
    Portable,
    /// SSE2, which every x86-64 processor has.
    Sse2,
    /// AVX2, BMI1 and BMI2.
    Avx2,
    /// AVX-512 F, BW, VL and VBMI, and what [`Avx2`](Self::Avx2) needs. The first processors with AVX-512 lack VBMI; on
    /// them it slows the clock, so AVX2 is the better choice anyway.
    Avx512,
}

/// The environment variable that forces a kernel.
pub const KERNEL_VARIABLE: &str = "ETWSIEVE_KERNEL";

/// A kernel that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// No kernel has this name.
    #[error("no kernel is called {name:?}; there are portable, sse2, avx2 and avx512")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// The processor lacks the instructions.
    #[error("this processor cannot run the kernel {kernel}")]
    Unsupported {
        /// The kernel asked for.
        kernel: Kernel,
    },
}

impl Kernel {
    /// All kernels, from the plainest to the widest.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Sse2, Self::Avx2, Self::Avx512];

    /// The name, as [`KERNEL_VARIABLE`] takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Sse2 => "sse2",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether this processor can run it.
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

    /// The kernels that this processor can run, from the plainest to the widest.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|kernel| kernel.is_available()).collect()
    }

    /// The widest kernel that this processor can run.
    pub fn best() -> Self {
        Isa::new(Self::Avx512).0
    }

    /// Returns the kernel of this name, as the user gave it in [`KERNEL_VARIABLE`]; the [best](Self::best) one if it is
    /// empty.
    ///
    /// # Errors
    ///
    /// [`KernelError`] if no kernel has this name, or if the processor cannot run it.
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

/// A kernel that this processor can run. Its existence is what calls into vector code rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Isa(Kernel);

impl Isa {
    /// `kernel`, or the widest below it that can run here.
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
    fn what_is_used_can_run() {
        assert!(Kernel::available().contains(&Kernel::Portable));
        for kernel in Kernel::ALL {
            let isa = Isa::new(kernel).kernel();
            assert!(isa.is_available() && isa <= kernel);
            assert_eq!(isa == kernel, kernel.is_available());
        }
    }
}
