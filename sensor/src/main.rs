//! The program `etwsieve`: everything is in the library, errors meet exit codes here.

use std::process::ExitCode;

fn main() -> ExitCode {
    etwsieve::cli::main()
}
