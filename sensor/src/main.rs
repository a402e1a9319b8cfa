//! The program `etwsieve`, a thin wrapper around the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    etwsieve::cli::main()
}
