//! Kernels for x86-64. The only unsafe code of this crate; each block says why it holds.

#![expect(unsafe_code, reason = "vector instructions that not every processor has")]

mod ahead;
pub(crate) mod bigram;
pub(crate) mod lanes;
pub(crate) mod marks;
pub(crate) mod narrow;
pub(crate) mod teddy;
pub(crate) mod words;
