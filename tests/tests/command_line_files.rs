//! The files of the command line: inputs that are missing, endless or never come, outputs that would destroy something,
//! names that would command a terminal, stores that cannot be written.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its verdict")]

#[path = "command_line_files/inputs.rs"]
mod inputs;
#[path = "command_line_files/outputs.rs"]
mod outputs;
#[cfg(unix)]
#[path = "command_line_files/pipes.rs"]
mod pipes;
#[path = "command_line_files/stores.rs"]
mod stores;
#[path = "command_line_files/support.rs"]
mod support;
#[path = "command_line_files/terminal.rs"]
mod terminal;

use etwsieve_tests::program::Program;

const PROGRAM: Program = Program::Etwsieve;
const COLLECTOR: Program = Program::Collector;
