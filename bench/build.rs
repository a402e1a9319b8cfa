//! Remembers which compiler built the benchmarks: results without it say little.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=RUSTC");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let version = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    println!("cargo::rustc-env=ETWSIEVE_BENCH_RUSTC={}", version.as_deref().unwrap_or("unknown").trim());
}
