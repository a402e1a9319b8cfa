//! Files on the command line: missing, endless and silent inputs, outputs that would overwrite other files, file names with
//! terminal escape sequences, stores that cannot be written.

mod inputs;
mod outputs;
#[cfg(unix)]
mod pipes;
mod stores;
mod support;
mod terminal;

use etwsieve_tests::program::Program;

const PROGRAM: Program = Program::Etwsieve;
const COLLECTOR: Program = Program::Collector;
