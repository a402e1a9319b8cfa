//! Requirements of tests beyond the repository. Tests whose requirement is not met report that on standard error, and pass.
//!
//! The test program `tests/skipped` reports all of them after the last test.

use crate::corpus;
use crate::standin::Host;
use std::path::Path;

/// Something that some tests need and that a machine may lack.
#[derive(Clone, Copy, Debug)]
pub struct Requirement {
    /// The tests that are skipped without it.
    pub tests: &'static str,
    /// The way to make them run.
    pub enable: &'static str,
    /// Returns why the requirement is not met; `None` if it is met.
    pub missing: fn() -> Option<String>,
}

/// All requirements.
pub const ALL: [Requirement; 6] = [
    Requirement {
        tests: "most of etl, sources, rules, views and cli: recordings and verdicts of other engines",
        enable: "put the recordings, rules and verdicts beside the repository, as ../shared/data",
        missing: || corpus::folder().is_none().then(|| "../shared/data does not exist".to_owned()),
    },
    Requirement {
        tests: "live: the Windows program on a stand-in of the ETW API",
        enable: "install Wine, mingw and the Rust target as .ci/run does",
        missing: Host::missing,
    },
    Requirement {
        tests: "nats of the collector, and cluster of faults",
        enable: "apt-get install nats-server",
        missing: || not_installed("nats-server"),
    },
    Requirement {
        tests: "sinks of the collector: syslog",
        enable: "apt-get install rsyslog rsyslog-gnutls",
        missing: || {
            not_installed("rsyslogd").or_else(|| {
                let is_there = RSYSLOG_TLS.iter().any(|path| Path::new(path).exists());
                (!is_there).then(|| "the TLS driver of rsyslogd is not installed".to_owned())
            })
        },
    },
    Requirement {
        tests: "faults: a full file system",
        enable: "run the tests as root on Linux",
        missing: || (!is_root()).then(|| "only root can mount a small file system".to_owned()),
    },
    Requirement {
        tests: "etwsieve-bench: literals found by Vectorscan and Hyperscan",
        enable: "bench/peers.sh",
        missing: || {
            let peers = std::env::var_os("ETWSIEVE_BENCH_PEERS")
                .map_or_else(|| corpus::repository().join("bench/.peers"), Into::into);
            (!peers.is_dir()).then(|| format!("{} does not exist", peers.display()))
        },
    },
];

/// Folders of servers that a package installs; they need not be in `PATH`.
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/bin"];
const RSYSLOG_TLS: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_ossl.so", "/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so"];

fn not_installed(program: &str) -> Option<String> {
    let is_there = PROGRAM_FOLDERS.iter().any(|folder| Path::new(folder).join(program).exists());
    (!is_there).then(|| format!("{program} is not installed"))
}

#[cfg(target_os = "linux")]
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // The entry of a process belongs to its effective user.
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

#[cfg(not(target_os = "linux"))]
fn is_root() -> bool {
    false
}
