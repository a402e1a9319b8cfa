//! The common part of the end-to-end suites: the trace writer, obfuscated scripts, access to the corpus, the fault harness,
//! the stand-in of the ETW API, and the bodies of the fuzz targets.

pub mod corpus;
pub mod demo;
#[cfg(feature = "product")]
pub mod faults;
#[cfg(feature = "product")]
pub mod fuzz;
#[cfg(feature = "product")]
pub mod obfuscation;
pub mod program;
#[cfg(feature = "product")]
pub mod requirements;
#[cfg(feature = "product")]
pub mod samples;
pub mod standin;
pub mod writer;
