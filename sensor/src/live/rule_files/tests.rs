//! Changes of rule files in a real file system.

use super::{ReloadError, RuleFiles, SETTLE_TIME, reload};
use etwsieve_matcher::builtin;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Writes a file and sets its modification time, so that no test depends on the clock of the file system.
fn write(path: &Path, text: &str, modified: SystemTime) {
    fs::write(path, text).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

fn long_ago() -> SystemTime {
    SystemTime::now() - Duration::from_hours(1)
}

#[test]
fn each_change_is_reported_once_when_it_is_complete() {
    type Row = (&'static str, fn(&Path));
    let rows: [Row; 8] = [
        ("added", |at| write(&at.join("c.yml"), "c", long_ago())),
        ("changed", |at| write(&at.join("a.yml"), "longer", SystemTime::now())),
        ("same length, other time", |at| write(&at.join("a.yml"), "A", SystemTime::now())),
        ("deleted", |at| fs::remove_file(at.join("a.yml")).unwrap()),
        ("renamed", |at| fs::rename(at.join("a.yml"), at.join("z.yml")).unwrap()),
        ("renamed to another ending", |at| fs::rename(at.join("a.yml"), at.join("a.off")).unwrap()),
        ("added below", |at| {
            fs::create_dir(at.join("deep")).unwrap();
            write(&at.join("deep/c.YAML"), "c", long_ago());
        }),
        ("folder deleted", |at| fs::remove_dir_all(at).unwrap()),
    ];
    for (name, change) in rows {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().join("rules");
        fs::create_dir(&at).unwrap();
        write(&at.join("a.yml"), "a", long_ago());
        write(&at.join("b.yml"), "b", long_ago());
        let mut folder = RuleFiles::new(vec![at.clone()]);
        let before = [folder.changed(), folder.changed()];
        change(&at);
        let after = [folder.changed(), folder.changed(), folder.changed(), folder.changed()];
        assert_eq!((before, after), ([false; 2], [false, true, false, false]), "{name}");
    }
}

#[test]
fn changes_that_the_loader_ignores_are_not_reported() {
    type Row = (&'static str, fn(&Path));
    let rows: [Row; 4] = [
        ("another ending", |at| fs::write(at.join("note.txt"), "x").unwrap()),
        ("touched", |at| write(&at.join("a.yml"), "a", SystemTime::now())),
        ("an empty folder", |at| fs::create_dir(at.join("deep")).unwrap()),
        ("changed and changed back", |at| {
            write(&at.join("a.yml"), "x", SystemTime::now());
            write(&at.join("a.yml"), "a", SystemTime::now());
        }),
    ];
    for (name, change) in rows {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("a.yml"), "a", long_ago());
        let mut folder = RuleFiles::new(vec![root.path().into()]);
        change(root.path());
        assert_eq!([folder.changed(), folder.changed(), folder.changed()], [false; 3], "{name}");
    }
}

#[test]
fn a_file_rewritten_within_one_clock_tick_is_reported() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.yml");
    let tick = SystemTime::now();
    write(&path, "selection: a", tick);
    let mut folder = RuleFiles::new(vec![path.clone()]);
    // The same length and the same modification time.
    write(&path, "selection: b", tick);
    assert_eq!([folder.changed(), folder.changed(), folder.changed()], [false, true, false]);
}

#[test]
fn a_settled_file_is_not_read_again() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.yml");
    let then = SystemTime::now();
    write(&path, "a", then);
    let mut folder = RuleFiles::new(vec![path.clone()]);
    assert!(!folder.changed_at(then + SETTLE_TIME));
    // Only reading the file would show the difference.
    write(&path, "b", then);
    assert_eq!([folder.changed_at(then + SETTLE_TIME), folder.changed_at(then + SETTLE_TIME)], [false; 2]);
    write(&path, "b", then + Duration::from_secs(1));
    assert_eq!([folder.changed_at(then + SETTLE_TIME), folder.changed_at(then + SETTLE_TIME)], [false, true]);
}

#[test]
fn a_file_that_is_being_written_is_not_loaded() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.yml");
    write(&path, "", long_ago());
    let mut folder = RuleFiles::new(vec![root.path().into()]);
    for len in 1..6 {
        fs::write(&path, "x".repeat(len)).unwrap();
        assert!(!folder.changed(), "{len} bytes");
    }
    assert!(folder.changed());
    assert!(!folder.changed());
}

#[test]
fn an_oversized_file_is_read_up_to_the_limit() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.yml");
    File::create(&path).unwrap().set_len(64 << 30).unwrap();
    let mut folder = RuleFiles::new(vec![path]);
    assert!(!folder.changed());
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_opened() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.yml");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut folder = RuleFiles::new(vec![root.path().into()]);
    assert!(!folder.changed());
    assert!(matches!(reload(folder.paths(), false), Err(ReloadError::Rejected { bad: 1, .. })));
}

#[test]
fn without_paths_nothing_changes() {
    let mut folder = RuleFiles::new(Vec::new());
    assert_eq!([folder.changed(), folder.changed()], [false; 2]);
    let built_in = builtin::rules().len();
    assert_eq!(reload(folder.paths(), false).unwrap().loaded.rules.len(), built_in);
}

#[test]
fn a_reload_fails_without_valid_rules_or_with_rejected_ones() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("mixed")).unwrap();
    fs::create_dir_all(at("bad")).unwrap();
    fs::create_dir_all(at("empty")).unwrap();
    fs::write(at("mixed/good.yml"), builtin::TEXT).unwrap();
    fs::write(at("mixed/bad.yml"), "title: [").unwrap();
    fs::write(at("bad/bad.yml"), "title: [").unwrap();
    let load = |name: &str, allow_bad| {
        reload(&[at(name)], allow_bad).map(|new| (new.loaded.rules.len(), new.loaded.errors.len()))
    };
    assert!(matches!(load("mixed", false), Err(ReloadError::Rejected { bad: 1, .. })));
    assert!(matches!(load("mixed", true), Ok((1, 1))));
    assert!(matches!(load("bad", true), Err(ReloadError::NoRule)));
    assert!(matches!(load("empty", false), Err(ReloadError::Rejected { bad: 1, .. })));
    assert!(matches!(load("gone", true), Err(ReloadError::NoRule)));
    let error = load("bad", false).unwrap_err().to_string();
    assert!(error.contains("1 rules or paths were rejected") && error.contains("bad.yml"), "{error}");
}
