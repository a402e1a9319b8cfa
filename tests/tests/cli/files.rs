//! Files on the command line: missing, endless and silent inputs, outputs that would overwrite other files, file names with
//! terminal escape sequences, stores that cannot be written.

mod inputs;
mod outputs;
#[cfg(unix)]
mod pipes;
mod stores;
mod support;
mod terminal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_etwsieve-under-test");
const COLLECTOR: &str = env!("CARGO_BIN_EXE_etwsieve-collector-under-test");
