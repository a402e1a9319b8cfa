//! The seam to the operating system: everything that only Windows can do.
//!
//! Commands that need Windows exist everywhere; elsewhere they say so in one sentence.

#[cfg(windows)]
pub mod windows;

/// What a command says where there is no ETW.
#[cfg(not(windows))]
pub fn needs_windows(command: &str) -> String {
    format!(
        "`etwsieve {command}` needs Windows, whose event tracing it talks to; here `etwsieve replay` searches \
         recorded traces (.etl, .evtx, .jsonl)"
    )
}
