//! The program under a name of this package, so that its tests can start it.

fn main() -> std::process::ExitCode {
    etwsieve::cli::main()
}
