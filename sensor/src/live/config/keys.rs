//! Every key of the configuration in words, in the order in which [`super::Config::documented`] writes them.

use super::Config;
use std::fmt::Write;

/// A key and its explanation.
pub(super) struct Key {
    /// Section; empty for the keys above all sections.
    pub(super) section: &'static str,
    /// Name in the section.
    pub(super) name: &'static str,
    /// What it is, its range and its unit. Lines are broken as in the file.
    pub(super) comment: &'static str,
    /// A value to show if none is set; empty for keys that always have one.
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
# Configuration of `etwsieve watch`, in TOML. Every key may be left out; an unknown key is an error.
# Paths: write them between single quotes, 'C:\\folder'. Relative ones start at the folder of this file.
";

/// All keys.
pub(super) const KEYS: &[Key] = &[
    key(
        "",
        "rules",
        "Sigma rules and filters: files, and folders that are searched for .yml and .yaml, for example\n\
         ['C:\\ProgramData\\etwsieve\\rules']. Without any, the built-in rule is used.",
    ),
    key(
        "",
        "allow_bad_rules",
        "true goes on without the rules that cannot be understood; false refuses to start, or to take changed rules.",
    ),
    key(
        "session",
        "name",
        "Name of the ETW session, unique on the machine: 1 to 128 characters, no backslash.\n\
         A session of this name that an earlier run has left behind is stopped first.",
    ),
    key(
        "session",
        "buffer_kb",
        "Size of one buffer in KB: 64 to 16384. One event fills up to 64 KB and never spans two buffers.",
    ),
    key("session", "min_buffers", "Least number of buffers: 0 to 4096; 0 takes two for each processor."),
    key(
        "session",
        "max_buffers",
        "Most buffers: 0 to 4096; 0 leaves it to ETW. Together they must not exceed 1 GB.\n\
         When all are full, ETW drops events and counts them.",
    ),
    key(
        "session",
        "flush_seconds",
        "Seconds after which a buffer that is not full is handed over: 1 to 60. Longest delay of a hit.",
    ),
    key(
        "session",
        "per_processor",
        "true gives each processor its own buffers, so that writers do not wait for each other.",
    ),
    key(
        "session",
        "independent",
        "true keeps the session going when another one that listens to PowerShell fails.",
    ),
    key("session", "user_sid", "true has Windows add the user's SID to each event."),
    key(
        "session",
        "amsi",
        "true also searches what PowerShell hands to the antimalware scanner (AMSI, event 1101), with the same rules:\n\
         what a script unpacks and runs shows there even where script block logging is off.",
    ),
    key(
        "pipeline",
        "threads",
        "Matcher threads: 1 to 64; 0 takes a quarter of the processors, at least 1 and at most 4.",
    ),
    key(
        "pipeline",
        "queue_events",
        "Most events that wait for the matchers: 16 to 8192. Each may take a buffer of 64 KB for good.",
    ),
    key(
        "pipeline",
        "queue_bytes",
        "Most payload bytes that wait for the matchers: 65536 to 1073741824. What exceeds the queue is dropped\n\
         and counted.",
    ),
    key(
        "pipeline",
        "warning_reserve_percent",
        "Per cent of the queue that only events may use which PowerShell itself marked as warnings: 0 to 90.",
    ),
    key(
        "search",
        "scopes",
        "What rules are held against: \"event\" for each event by itself, \"block\" for whole script blocks, joined from\n\
         the events into which PowerShell cuts long scripts. A hit of an event is not repeated for its block.",
    ),
    key(
        "search",
        "views",
        "In which forms: \"raw\" as recorded, \"normalized\" as PowerShell understands it, \"call\" by cmdlet and\n\
         parameter. Each rule is reported for the first of these that shows it.",
    ),
    key(
        "output",
        "format",
        "\"jsonl\" (own field names), \"ecs\" (Elastic Common Schema) or \"splunk\" (HEC).",
    ),
    optional(
        "output",
        "file",
        r"'C:\ProgramData\etwsieve\hits.jsonl'",
        "File that hits are appended to. Without it they go to standard output.",
    ),
    optional(
        "output",
        "store",
        r"'C:\ProgramData\etwsieve\hits.db'",
        "SQLite database that also keeps the hits; it is created if absent.",
    ),
    key(
        "collector",
        "addresses",
        "HOST:PORT of collectors, at most 16: [\"collector.example:6514\"]. Without any, hits are not sent.",
    ),
    key(
        "collector",
        "order",
        "Order in which collectors are tried: \"shuffled\", an order of its own for each sensor, which spreads sensors\n\
         evenly, or \"listed\", the preferred one first.",
    ),
    optional(
        "collector",
        "bundle",
        r"'C:\ProgramData\etwsieve\ws01.pem'",
        "The sensor's bundle, which `etwsieve-collector pki issue NAME` writes: certificate, private key, authority.\n\
         It is read again before each connection.",
    ),
    optional(
        "collector",
        "spool",
        r"'C:\ProgramData\etwsieve\spool.db'",
        "File in which hits wait until a collector has acknowledged them, or a folder for it. Without it: beside\n\
         output.store if that is set, else the one shown here.",
    ),
    key(
        "collector",
        "spool_max_mb",
        "Most megabytes of hits that wait: 4 to 1048576. What exceeds them is given up, counted, and told to the\n\
         collector.",
    ),
    key(
        "collector",
        "spool_keep",
        "What a full spool keeps: \"oldest\", the first evidence of an intrusion, or \"newest\".",
    ),
    key(
        "collector",
        "insecure_loopback",
        "true sends without TLS, for a first try: only to 127.0.0.1, [::1] or localhost, and without a bundle.",
    ),
    optional(
        "metrics",
        "listen",
        "\"127.0.0.1:9477\"",
        "Address and port on which GET /metrics is answered for Prometheus: of the loopback interface only.\n\
         Without it there is no server.",
    ),
    key("guardian", "check_seconds", "Seconds between two looks at the session: 1 to 300."),
    key(
        "guardian",
        "report_every_seconds",
        "Seconds between two reports of the counts in the log: 1 to 86400.",
    ),
    key(
        "guardian",
        "restart_delay_max_seconds",
        "A session that was stopped is started again, after a pause that doubles up to this many seconds: 1 to 3600.",
    ),
    key(
        "reload",
        "check_seconds",
        "Seconds between two looks at the rule files: 1 to 3600; 0 for never. Changed rules are taken while events\n\
         flow; if they are refused, the former ones stay.",
    ),
    key(
        "log",
        "level",
        "What is logged: error, warn, info, debug, trace, or a filter such as \"info,etwsieve=debug\".",
    ),
];

/// The explanation of `section.name`.
pub(super) fn comment(key: &str) -> Option<&'static str> {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    KEYS.iter().find(|known| known.section == section && known.name == name).map(|known| known.comment)
}

/// Writes all keys with the values of `config`.
pub(super) fn document(config: &Config) -> String {
    let mut text = String::from(HEAD);
    // Paths that are not Unicode cannot stand in TOML; the file they came from was TOML.
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
