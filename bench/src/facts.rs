//! The circumstances of a measurement: machine, toolchain, versions.

use etwsieve_tests::corpus;
use std::fs;
use std::process::Command;

/// The lock file of this build.
const LOCK: &str = include_str!("../../Cargo.lock");
/// Peers whose versions are reported.
const PEERS: [&str; 4] = ["memchr", "aho-corasick", "regex", "rsigma-eval"];
/// Assumed size of the second-level cache in bytes where the system does not report it.
const CACHE_LEN: usize = 512 << 10;
/// Upper limit in bytes: a workload of half a larger cache would not be hot.
const CACHE_LEN_MAX: usize = 2 << 20;

/// Returns the circumstances of a run as names and values.
pub fn facts() -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("processor", processor()),
        ("processors", std::thread::available_parallelism().map_or(0, usize::from).to_string()),
        ("system", system()),
        ("second-level cache", format!("{} KiB", cache_len() >> 10)),
        ("toolchain", env!("ETWSIEVE_BENCH_RUSTC").to_owned()),
        (
            "profile",
            if cfg!(debug_assertions) { "debug: the numbers mean nothing" } else { "release" }.to_owned(),
        ),
        ("commit", commit()),
        ("peers", PEERS.map(|name| format!("{name} {}", locked(name))).join(", ")),
    ];
    if let Ok(load) = fs::read_to_string("/proc/loadavg") {
        facts.push(("load average", load.split(' ').take(3).collect::<Vec<_>>().join(" ")));
    }
    facts
}

fn processor() -> String {
    let from_proc = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    // Windows reports it in the environment.
    from_proc.or_else(|| std::env::var("PROCESSOR_IDENTIFIER").ok()).unwrap_or_else(|| "unknown".to_owned())
}

/// Size of one processor's second-level cache in bytes.
pub fn cache_len() -> usize {
    let text = fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").unwrap_or_default();
    let kib = text.trim().strip_suffix('K').and_then(|kib| kib.parse::<usize>().ok());
    kib.map_or(CACHE_LEN, |kib| (kib << 10).min(CACHE_LEN_MAX))
}

fn system() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {} {}", std::env::consts::OS, std::env::consts::ARCH, release.trim()).trim().to_owned()
}

fn commit() -> String {
    let git = Command::new("git")
        .current_dir(corpus::repository())
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .output();
    let text =
        git.ok().filter(|output| output.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    text.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Returns the version, in the lock file, of a dependency of this crate.
fn locked(name: &str) -> &'static str {
    let unquoted = |text: &'static str| text.trim().trim_matches([',', '"']);
    let package = |wanted: &str| {
        let is_wanted =
            |line: &'static str| line.strip_prefix("name = ").is_some_and(|own| unquoted(own) == wanted);
        LOCK.split("[[package]]").find(|package| package.lines().any(is_wanted)).unwrap_or_default()
    };
    // If there are several versions, the list of dependencies names the one in use.
    let named = package(env!("CARGO_PKG_NAME")).lines().find_map(|line| {
        let (own, version) = unquoted(line).split_once(' ')?;
        (own == name).then_some(version)
    });
    let only = || package(name).lines().find_map(|line| line.strip_prefix("version = "));
    named.or_else(only).map_or("unknown", unquoted)
}

#[cfg(test)]
mod tests {
    use super::{PEERS, facts, locked};

    #[test]
    fn circumstances_are_known() {
        for name in PEERS {
            assert!(
                locked(name).split('.').all(|part| part.parse::<u32>().is_ok()),
                "{name} {}",
                locked(name)
            );
        }
        for (name, value) in facts() {
            assert!(!value.is_empty(), "{name}");
        }
    }
}
