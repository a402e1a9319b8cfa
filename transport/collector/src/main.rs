//! The program `etwsieve-collector`.

fn main() -> std::process::ExitCode {
    etwsieve_collector::cli::main()
}
