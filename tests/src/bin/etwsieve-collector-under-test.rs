//! The collector as the tests start it: the same code behind another name, built with the tests.

fn main() -> std::process::ExitCode {
    etwsieve_transport::collector::cli::main()
}
