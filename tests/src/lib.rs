//! What the end-to-end suites share: a writer of traces, scripts in obfuscation, access to the corpus, bodies of the fuzz targets.

pub mod corpus;
pub mod demo;
#[cfg(feature = "product")]
pub mod faults;
#[cfg(feature = "product")]
pub mod fuzz;
#[cfg(feature = "product")]
pub mod obfuscation;
pub mod program;
pub mod standin;
pub mod writer;
