//! Reading stores in folders without write permission, and counts as JSON Lines.

use super::PROGRAM;
use super::support::{Folder, HIT, line};
use etwsieve_tests::program::run;

#[test]
fn counts_are_available_as_json_lines() {
    let folder = Folder::new();
    let trace = folder.write("a.jsonl", line(HIT, "srv01"));
    let store = folder.at("hits.db");
    assert_eq!(run(PROGRAM, ["replay", "--store", &store, &trace]).code, Some(0));
    for filter in [["--since", "1970-01-01T00:00:00Z"].as_slice(), &[]] {
        let args = ["hits", "--stats", "--format", "jsonl", &store];
        let stats = run(PROGRAM, args.iter().chain(filter));
        let lines = stats.lines();
        assert_eq!((stats.code, lines.len()), (Some(0), 3), "{}", stats.stderr);
        assert_eq!(
            (&lines[0]["kind"], &lines[0]["events"], &lines[0]["detections"]),
            (&"total".into(), &1.into(), &1.into())
        );
        assert_eq!(
            (&lines[1]["kind"], &lines[1]["level"], &lines[1]["events"]),
            (&"rule".into(), &"medium".into(), &1.into())
        );
        assert_eq!(lines[1]["rule_id"], "a4e8f3a4-48b2-11ec-bcfc-3e22fbd008af");
        assert_eq!(lines[1]["first"], "2026-03-02T21:09:33.0043210Z");
        assert_eq!((&lines[2]["kind"], &lines[2]["computer"]), (&"computer".into(), &"srv01".into()));
    }
    let table = run(PROGRAM, ["hits", "--stats", "--format", "table", &store]);
    assert!(table.stdout.starts_with("1 events with hits"), "{}", table.stdout);
    let refused = run(PROGRAM, ["hits", "--stats", "--format", "ecs", &store]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("use table or jsonl"), "{}", refused.stderr);
}

/// Root may write anywhere, so the program runs as another user if the test runs as root.
#[cfg(unix)]
#[test]
fn a_store_is_read_without_write_permission() {
    use etwsieve_transport::store::Store;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    const NOBODY: u32 = 65_534;
    let folder = Folder::new();
    let trace = folder.write("a.jsonl", line(HIT, "srv01"));
    let case = folder.make("case?x=1 #");
    let path = |name: &str| format!("{case}/{name}");
    let stored = run(PROGRAM, ["replay", "--store", &path("closed.db"), &trace]);
    assert_eq!(stored.code, Some(0), "{}", stored.stderr);
    // As after a crash, the hit is only in the write-ahead log.
    let live = folder.at("live.db");
    drop(Store::open(&live).unwrap());
    let reader = Store::open_read_only(&live).unwrap();
    let id = reader.last_id().unwrap();
    assert_eq!(run(PROGRAM, ["replay", "--store", &live, &trace]).code, Some(0));
    fs::copy(&live, path("crashed.db")).unwrap();
    fs::copy(folder.at("live.db-wal"), path("crashed.db-wal")).unwrap();
    assert_eq!(id, 0);
    drop(reader);
    fs::write(path("empty.db"), "").unwrap();

    // The program itself may be in a folder that other users cannot access.
    let program = folder.at("etwsieve");
    fs::copy(PROGRAM.path(), &program).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(&case).unwrap() {
        fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o444)).unwrap();
    }
    fs::set_permissions(&case, Permissions::from_mode(0o555)).unwrap();
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let names = ["closed.db", "crashed.db", "empty.db"];
    let before: Vec<Vec<u8>> = names.map(|name| fs::read(path(name)).unwrap()).into();
    let hits = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("hits").args(args).env_remove("ETWSIEVE_LOG");
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let expected = run(PROGRAM, ["replay", &trace]).stdout;
    for name in ["closed.db", "crashed.db"] {
        let (code, stdout, stderr) = hits(&[&path(name)]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{name}");
        assert_eq!(stdout, expected, "{name}");
        let (code, stdout, _) = hits(&["--stats", &path(name)]);
        assert!(
            code == Some(0) && stdout.starts_with("1 events with hits, 1 detections"),
            "{name}: {stdout}"
        );
    }
    assert_eq!(hits(&[&path("empty.db")]).0, Some(2));
    let after: Vec<Vec<u8>> = names.map(|name| fs::read(path(name)).unwrap()).into();
    assert!(before == after);
    assert_eq!(fs::read_dir(&case).unwrap().count(), 4, "nothing was made beside them");
    fs::set_permissions(&case, Permissions::from_mode(0o755)).unwrap();
}
