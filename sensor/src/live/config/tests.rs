//! The documented configuration, the errors, and the reference in docs/config.md.

use super::{CONFIG_LEN_MAX, Config, ConfigError, LineFormat, keys};
use crate::search::{ScopeChoice, ViewChoice};
use std::fs;
use std::path::{Path, PathBuf};

fn full() -> Config {
    let mut config = Config {
        rules: vec![r"C:\rules\a".into(), "quote'\"d".into()],
        allow_bad_rules: true,
        ..Config::default()
    };
    config.session.name = "line\nbreak".into();
    config.pipeline.threads = 3;
    config.search.scopes = vec![ScopeChoice::Block];
    config.search.views = vec![ViewChoice::Call, ViewChoice::Raw];
    config.output.format = LineFormat::Splunk;
    config.output.file = Some(r"D:\hits.jsonl".into());
    config.output.store = Some("hits.db".into());
    config.collector.addresses = vec!["a.example:6514".into(), "[::1]:6514".into()];
    config.collector.bundle = Some("ws01.pem".into());
    config.collector.spool = Some(r"D:\spool.db".into());
    config.collector.spool_keep = crate::delivery::SpoolKeep::Newest;
    config.metrics.listen = Some("[::1]:9477".parse().unwrap());
    config.log.level = "info,etwsieve=debug".into();
    config
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("test.toml"))
}

#[test]
fn the_documented_text_parses_as_the_same_configuration() {
    for config in [Config::default(), full()] {
        let text = config.documented();
        assert_eq!(parse(&text).unwrap(), config, "{text}");
    }
}

#[test]
fn every_key_is_documented_exactly_once() {
    let mut known: Vec<(String, String)> = Vec::new();
    for (key, value) in toml::Table::try_from(full()).unwrap() {
        match value.as_table() {
            Some(section) => known.extend(section.keys().map(|name| (key.clone(), name.clone()))),
            None => known.push((String::new(), key)),
        }
    }
    let mut documented: Vec<_> =
        keys::KEYS.iter().map(|key| (key.section.to_owned(), key.name.to_owned())).collect();
    known.sort();
    documented.sort();
    assert_eq!(documented, known);
    for key in keys::KEYS {
        assert!(key.comment.len() > 20, "{} is explained", key.name);
        assert!(key.comment.lines().all(|line| line.len() < 118), "{} fits the page", key.name);
    }
}

#[test]
fn examples_are_valid_values() {
    let text = Config::default().documented();
    let lines: Vec<&str> = text
        .lines()
        .map(|line| {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            let is_example = keys::KEYS
                .iter()
                .any(|key| !key.example.is_empty() && bare == format!("{} = {}", key.name, key.example));
            if is_example { bare } else { line }
        })
        .collect();
    let config = parse(&lines.join("\n")).unwrap();
    assert!(config.output.file.is_some() && config.output.store.is_some() && config.metrics.listen.is_some());
}

#[test]
fn missing_keys_have_their_defaults() {
    assert_eq!(parse("").unwrap(), Config::default());
    let config = parse("\u{FEFF}[session]\r\nbuffer_kb = 256\r\n").unwrap();
    assert_eq!(config.session.buffer_kb, 256);
    assert_eq!(Config { session: Config::default().session, ..config }, Config::default());
}

#[test]
fn errors_name_the_place_the_value_and_the_fix() {
    let rows: [(&str, &str, &[&str]); 17] = [
        ("unknown key", "[session]\nbufer_kb = 128", &["test.toml:2:1", "bufer_kb", "expected", "buffer_kb"]),
        ("unknown section", "\n\n[sesion]", &["test.toml:3:2", "sesion", "session"]),
        ("type", "[session]\nbuffer_kb = \"128\"", &["test.toml:2:13", "session.buffer_kb", "64 to 16384"]),
        ("negative", "[pipeline]\nthreads = -1", &["test.toml:2:11", "pipeline.threads", "-1", "1 to 64"]),
        ("range", "[session]\n\nbuffer_kb = 4", &["test.toml:3:", "session.buffer_kb = 4", "64 to 16384"]),
        ("dotted", "# é\nsession.buffer_kb = 4", &["test.toml:2:", "session.buffer_kb = 4"]),
        ("twice", "allow_bad_rules = true\nallow_bad_rules = true", &["test.toml:2:1", "duplicate"]),
        ("no TOML", "rules = [", &["test.toml:1:"]),
        ("escape", "rules = [\"C:\\ProgramData\\x\"]", &["test.toml:1:", "single quotes"]),
        ("format", "[output]\nformat = \"table\"", &["test.toml:2:", "output.format", "table", "jsonl"]),
        ("address", "[metrics]\nlisten = \"here\"", &["test.toml:2:", "metrics.listen", "loopback"]),
        (
            "every interface",
            "[metrics]\nlisten = \"0.0.0.0:9477\"",
            &["test.toml:2:", "0.0.0.0:9477", "loopback"],
        ),
        ("no port", "[metrics]\nlisten = \"127.0.0.1:0\"", &["test.toml:2:", "127.0.0.1:0"]),
        ("filter", "[log]\nlevel = \"info,=,\"", &["test.toml:2:", "log.level", "warn"]),
        (
            "guardian",
            "[guardian]\ncheck_seconds = 301",
            &["test.toml:2:", "guardian.check_seconds", "1 to 300"],
        ),
        ("reload", "[reload]\ncheck_seconds = 3601", &["test.toml:2:", "reload.check_seconds", "0 to 3600"]),
        ("empty path", "[output]\nstore = \"\"", &["test.toml:2:", "output.store"]),
    ];
    for (name, text, wanted) in rows {
        let error = parse(text).unwrap_err().to_string();
        for part in wanted {
            assert!(error.contains(part), "{name}: {part} in {error}");
        }
        assert!(!error.contains('\n'), "{name}: {error}");
    }
}

#[test]
fn deep_nesting_is_rejected() {
    let text = format!("rules = {}", "[".repeat(CONFIG_LEN_MAX - 100));
    assert!(matches!(parse(&text), Err(ConfigError::Syntax { .. })));
    let text = "a.".repeat(CONFIG_LEN_MAX / 2 - 100) + "b = 1";
    assert!(matches!(parse(&text), Err(ConfigError::Syntax { .. })));
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("etwsieve.toml");
    let absolute = folder.path().join("elsewhere").join("hits.db");
    fs::write(
        &path,
        format!("rules = ['rules']\n[output]\nfile = 'hits.jsonl'\nstore = '{}'", absolute.display()),
    )
    .unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.rules, [folder.path().join("rules")]);
    assert_eq!(config.output.file, Some(folder.path().join("hits.jsonl")));
    assert_eq!(config.output.store, Some(absolute));
}

#[test]
fn files_that_are_not_configurations_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let load = |path: &Path| Config::load(path).unwrap_err().to_string();
    assert!(Config::load(&write("longest", &vec![b'\n'; CONFIG_LEN_MAX])).is_ok());
    assert!(load(&write("longer", &vec![b'\n'; CONFIG_LEN_MAX + 1])).contains("longer than"));
    assert!(load(&write("utf16", b"\xFF\xFE#\0")).contains("invalid UTF-8 at byte 0"));
    assert!(load(&folder.path().join("gone")).contains("config print"));
    assert!(load(folder.path()).contains("cannot read"));
}

#[test]
fn the_reference_contains_the_documented_text() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    let page = fs::read_to_string(path).unwrap().replace("\r\n", "\n");
    let (_, rest) = page.split_once("<!-- config print: begin -->\n```toml\n").expect("the first mark");
    let (shown, _) = rest.split_once("```\n<!-- config print: end -->").expect("the second mark");
    assert_eq!(
        shown,
        Config::default().documented(),
        "docs/config.md contains the output of `etwsieve config print`"
    );
}
