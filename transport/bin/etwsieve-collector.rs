//! The collector's program.

fn main() -> std::process::ExitCode {
    etwsieve_transport::collector::cli::main()
}
