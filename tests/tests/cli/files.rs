//! The files of the command line: inputs that are missing, endless or never come, outputs that would destroy something,
//! names that would command a terminal, stores that cannot be written.

mod inputs;
mod outputs;
#[cfg(unix)]
mod pipes;
mod stores;
mod support;
mod terminal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_etwsieve-under-test");
const COLLECTOR: &str = env!("CARGO_BIN_EXE_etwsieve-collector-under-test");
