//! Explanations of all configuration keys, in the order in which [`super::Config::documented`] writes them.

use super::Config;
use std::fmt::Write;

/// A key and its explanation.
pub(super) struct Key {
    /// Section; empty for the keys before the first section.
    pub(super) section: &'static str,
    /// Name within the section.
    pub(super) name: &'static str,
    /// Meaning, range and unit, with the line breaks of the file.
    pub(super) comment: &'static str,
    /// Example to show if no value is set; empty for keys that always have one.
    pub(super) example: &'static str,
}

const fn key(section: &'static str, name: &'static str, comment: &'static str) -> Key {
    Key { section, name, comment, example: "" }
}

const fn optional(
    section: &'static str,
    name: &'static str,
    example: &'static str,
    comment: &'static str,
) -> Key {
    Key { section, name, comment, example }
}

const HEAD: &str = "\
# Configuration of `etwsieve watch` in TOML. Every key is optional; an unknown key is an error.
# Write paths in single quotes: 'C:\\folder'. Relative paths are relative to the folder of this file.
";

/// All keys.
pub(super) const KEYS: &[Key] = &[
    key(
        "",
        "rules",
        "Sigma rules and filters: files, or folders that are searched for .yml and .yaml files, for example\n\
         ['C:\\ProgramData\\etwsieve\\rules']. If the list is empty, the built-in rule is used.",
    ),
    key(
        "",
        "allow_bad_rules",
        "true: continue without invalid rules. false: do not start with invalid rules, and do not reload them.",
    ),
    key(
        "session",
        "name",
        "Name of the ETW session, unique on the machine: 1 to 128 characters, no backslash.\n\
         A session of this name that a crashed sensor left behind is stopped first.",
    ),
    key(
        "session",
        "buffer_kb",
        "Size of one buffer in KB: 64 to 16384. An event has up to 64 KB and never spans two buffers.",
    ),
    key("session", "min_buffers", "Minimum number of buffers: 0 to 4096; 0 for two per processor."),
    key(
        "session",
        "max_buffers",
        "Maximum number of buffers: 0 to 4096; 0 lets ETW decide. All buffers together must not exceed 1 GB.\n\
         If all buffers are full, ETW drops events and counts them.",
    ),
    key(
        "session",
        "flush_seconds",
        "Seconds after which a partly filled buffer is delivered: 1 to 60. This is the maximum delay of a hit.",
    ),
    key(
        "session",
        "per_processor",
        "true: each processor has its own buffers, so that writers do not wait for each other.",
    ),
    key(
        "session",
        "independent",
        "true: the session keeps receiving events if another session on the same provider fails.",
    ),
    key("session", "user_sid", "true: Windows adds the user's SID to each event."),
    key(
        "session",
        "amsi",
        "true: also search the content that PowerShell passes to the antimalware scanner (AMSI, event 1101), with the\n\
         same rules. It includes code that a script unpacks and runs, even if script block logging is off.",
    ),
    key(
        "pipeline",
        "threads",
        "Number of matcher threads: 1 to 64; 0 for a quarter of the processors, at least 1 and at most 4.",
    ),
    key(
        "pipeline",
        "queue_events",
        "Maximum number of events queued for the matchers: 16 to 8192. Each may permanently use a buffer of 64 KB.",
    ),
    key(
        "pipeline",
        "queue_bytes",
        "Maximum number of payload bytes queued for the matchers: 65536 to 1073741824. Excess events are dropped\n\
         and counted.",
    ),
    key(
        "pipeline",
        "warning_reserve_percent",
        "Percentage of the queue that is reserved for events that PowerShell marks as warnings: 0 to 90.",
    ),
    key(
        "search",
        "scopes",
        "Units that rules are matched against: \"event\" for single events, \"block\" for whole script blocks, which\n\
         PowerShell splits into several events if they are long. A hit of an event is not repeated for its block.",
    ),
    key(
        "search",
        "views",
        "Forms of the text to search: \"raw\" as recorded, \"normalized\" with obfuscation removed, \"call\" by cmdlet and\n\
         parameter. Each rule is reported for the first of these views that it matches.",
    ),
    key(
        "output",
        "format",
        "Format of hits: \"jsonl\" (field names of etwsieve), \"ecs\" (Elastic Common Schema) or \"splunk\" (HEC).",
    ),
    optional(
        "output",
        "file",
        r"'C:\ProgramData\etwsieve\hits.jsonl'",
        "File to which hits are appended. Without it hits are written to standard output.",
    ),
    optional(
        "output",
        "store",
        r"'C:\ProgramData\etwsieve\hits.db'",
        "SQLite database in which hits are stored as well; it is created if it does not exist.",
    ),
    key(
        "collector",
        "addresses",
        "HOST:PORT of collectors, at most 16: [\"collector.example:6514\"]. If the list is empty, hits are not sent.",
    ),
    key(
        "collector",
        "order",
        "Order in which collectors are tried: \"shuffled\", a different order on each sensor, which distributes sensors\n\
         evenly, or \"listed\", the preferred collector first.",
    ),
    optional(
        "collector",
        "bundle",
        r"'C:\ProgramData\etwsieve\ws01.pem'",
        "Bundle of the sensor from `etwsieve-collector pki issue NAME`: certificate, private key, authority.\n\
         It is read again before each connection.",
    ),
    optional(
        "collector",
        "spool",
        r"'C:\ProgramData\etwsieve\spool.db'",
        "Spool file for hits that no collector has acknowledged yet, or a folder for it. Default: next to output.store\n\
         if that is set, otherwise the path shown here.",
    ),
    key(
        "collector",
        "spool_max_mb",
        "Maximum size of the spool in MB: 4 to 1048576. Excess hits are dropped, counted, and reported to the collector.",
    ),
    key(
        "collector",
        "spool_keep",
        "Hits that a full spool keeps: \"oldest\", the first evidence of an intrusion, or \"newest\".",
    ),
    key(
        "collector",
        "insecure_loopback",
        "true: send without TLS, for a first test; only to 127.0.0.1, [::1] or localhost, and without a bundle.",
    ),
    optional(
        "metrics",
        "listen",
        "\"127.0.0.1:9477\"",
        "Address and port of the metrics server for Prometheus (GET /metrics), on the loopback interface only.\n\
         Without it there is no metrics server.",
    ),
    key("guardian", "check_seconds", "Seconds between two checks of the session: 1 to 300."),
    key("guardian", "report_every_seconds", "Seconds between two log entries with the counts: 1 to 86400."),
    key(
        "guardian",
        "restart_delay_max_seconds",
        "Maximum seconds before a stopped session is restarted; the pause doubles up to this value: 1 to 3600.",
    ),
    key(
        "reload",
        "check_seconds",
        "Seconds between two checks of the rule files: 1 to 3600; 0 for never. Changed rules are loaded while the sensor\n\
         runs; if they are invalid, the previous rules stay active.",
    ),
    key(
        "log",
        "level",
        "Log level: error, warn, info, debug, trace, or a filter such as \"info,etwsieve=debug\".",
    ),
];

/// Returns the explanation of `section.name`.
pub(super) fn comment(key: &str) -> Option<&'static str> {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    KEYS.iter().find(|known| known.section == section && known.name == name).map(|known| known.comment)
}

/// Writes all keys with the values of `config`.
pub(super) fn document(config: &Config) -> String {
    let mut text = String::from(HEAD);
    // Fails only for paths that are not Unicode, which a TOML file cannot contain.
    let values = toml::Table::try_from(config).unwrap_or_default();
    let mut section = "";
    for key in KEYS {
        if key.section == section {
            text.push('\n');
        } else {
            section = key.section;
            // Writing to a String cannot fail.
            let _ = write!(text, "\n[{section}]\n");
        }
        for line in key.comment.lines() {
            let _ = writeln!(text, "# {line}");
        }
        let value = if section.is_empty() {
            values.get(key.name)
        } else {
            values.get(section).and_then(|section| section.get(key.name))
        };
        let _ = match value {
            Some(value) => writeln!(text, "{} = {value}", key.name),
            None => writeln!(text, "# {} = {}", key.name, key.example),
        };
    }
    text
}
