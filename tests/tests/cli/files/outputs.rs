//! Outputs that would overwrite an input, another output, or an unrelated file.

use super::support::{Folder, HIT, line, read_json};
use super::{COLLECTOR, PROGRAM};
use etwsieve_tests::program::{command, run};
use std::fs;
use std::process::Stdio;

#[test]
fn no_output_overwrites_an_input() {
    let folder = Folder::new();
    let trace = folder.write("a.jsonl", line(HIT, "srv01"));
    let empty = folder.write("empty.jsonl", "");
    let rule = folder.write("rule.yml", etwsieve_matcher::builtin::TEXT);
    fs::hard_link(&trace, folder.at("hard.jsonl")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&trace, folder.at("link.jsonl")).unwrap();
    let other_spelling =
        format!("{}/../{}/a.jsonl", folder.path().display(), folder.path().file_name().unwrap().display());
    let before = folder.names();
    let mut outputs =
        vec![trace.clone(), rule.clone(), empty.clone(), folder.at("hard.jsonl"), other_spelling];
    if cfg!(unix) {
        outputs.push(folder.at("link.jsonl"));
    }
    for option in ["--summary", "--store"] {
        for output in &outputs {
            let run = run(PROGRAM, ["replay", "--rules", &rule, option, output, &trace, &empty]);
            assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{option} {output}: {}", run.stderr);
            assert!(run.stderr.contains("an input of this command"), "{option} {output}: {}", run.stderr);
        }
    }
    let spool = ["replay", "--collector", "localhost:1", "--insecure-loopback", "--spool", &empty, &empty];
    assert_eq!(run(PROGRAM, spool).code, Some(2));
    assert_eq!(fs::read_to_string(&trace).unwrap(), line(HIT, "srv01"));
    assert_eq!(fs::read_to_string(&rule).unwrap(), etwsieve_matcher::builtin::TEXT);
    assert_eq!(fs::metadata(&empty).unwrap().len(), 0);
    assert_eq!(folder.names(), before, "nothing is left beside them");
}

#[test]
fn a_summary_replaces_only_a_summary() {
    let folder = Folder::new();
    let trace = folder.write("a.jsonl", line(HIT, "srv01"));
    let notes = folder.write("notes.json", "{\"my\": \"notes\"}");
    let refused = run(PROGRAM, ["replay", "--summary", &notes, &trace]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    assert!(refused.stderr.contains("is not a summary of etwsieve"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(&notes).unwrap(), "{\"my\": \"notes\"}");
    let nowhere = run(PROGRAM, ["replay", "--summary", &folder.at("none/s.json"), &trace]);
    assert_eq!((nowhere.code, nowhere.stdout.as_str()), (Some(2), ""), "before the work");
    let summary = folder.write("s.json", "");
    for _ in 0..2 {
        assert_eq!(run(PROGRAM, ["replay", "--summary", &summary, &trace]).code, Some(0));
        assert_eq!(read_json(&summary)["detections"], 1);
    }
    assert_eq!(folder.names(), ["a.jsonl", "notes.json", "s.json"]);
}

#[test]
fn a_summary_goes_to_standard_output() {
    let folder = Folder::new();
    let trace = folder.write("a.jsonl", line(HIT, "srv01"));
    let names = if cfg!(unix) { ["-", "/dev/stdout"].as_slice() } else { &["-"] };
    for name in names {
        let run = run(PROGRAM, ["replay", "--summary", name, &trace]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let (hit, summary) = run.stdout.split_once('\n').unwrap();
        assert!(hit.contains(HIT), "{hit}");
        let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
        assert_eq!(summary["detections"], 1);
        // Standard output is a file, which the summary does not replace.
        let out = fs::File::create(folder.at("out")).unwrap();
        assert!(
            command(PROGRAM, ["replay", "--summary", name, &trace]).stdout(out).status().unwrap().success()
        );
        assert_eq!(fs::read_to_string(folder.at("out")).unwrap().lines().next(), Some(hit));
    }
    assert_eq!(folder.names(), ["a.jsonl", "out"]);
}

#[test]
fn two_outputs_are_two_files() {
    let folder = Folder::new();
    let trace = folder.write("a.jsonl", line(HIT, "srv01"));
    let at = |name: &str| folder.at(name);
    let (x, store, log) = (at("x"), at("hits.db"), at("hits.db-wal"));
    let rows: [&[&str]; 3] = [
        &["--summary", &x, "--store", &x],
        &["--summary", &log, "--store", &store],
        &["--store", &x, "--collector", "localhost:1", "--insecure-loopback", "--spool", &x],
    ];
    for args in rows {
        let args: Vec<&str> = ["replay"].iter().chain(args).copied().chain([trace.as_str()]).collect();
        let run = run(PROGRAM, &args);
        assert_eq!(run.code, Some(2), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains("both name"), "{args:?}: {}", run.stderr);
    }
    // Hits go to a file that the summary or the database would replace.
    for option in ["--summary", "--store"] {
        let out = fs::File::create(at("hits.jsonl")).unwrap();
        let output = command(PROGRAM, ["replay", option, &at("hits.jsonl"), &trace])
            .stdout(out)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("standard output"), "{stderr}");
    }
    // A file that the shell has created in the searched folder is not an input.
    fs::remove_file(at("hits.jsonl")).unwrap();
    let out = fs::File::create(at("new.jsonl")).unwrap();
    let args = ["replay", folder.path().to_str().unwrap()];
    assert!(command(PROGRAM, args).stdout(out).status().unwrap().success());
    assert_eq!(fs::read_to_string(at("new.jsonl")).unwrap().lines().count(), 1);
    fs::remove_file(at("new.jsonl")).unwrap();
    // Hits that are appended to their own input would never end.
    let out = fs::OpenOptions::new().append(true).open(&trace).unwrap();
    let status = command(PROGRAM, ["replay", &trace]).stdout(out).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(2));
    assert_eq!(fs::read_to_string(&trace).unwrap(), line(HIT, "srv01"));
}

/// The check precedes the check for Windows, so it works on every system.
#[test]
fn watch_refuses_to_write_into_its_rules_and_its_configuration() {
    let folder = Folder::new();
    let rule = folder.write("rule.yml", etwsieve_matcher::builtin::TEXT);
    let config = folder.write("c.toml", "rules = [\"rule.yml\"]\n");
    for option in ["--output", "--store", "--summary"] {
        for output in [&rule, &config] {
            let run = run(PROGRAM, ["watch", "--config", &config, option, output]);
            assert_eq!(run.code, Some(2));
            assert!(run.stderr.contains("an input of this command"), "{option} {output}: {}", run.stderr);
        }
    }
    assert_eq!(fs::read_to_string(&config).unwrap(), "rules = [\"rule.yml\"]\n");
}

#[test]
fn a_bundle_does_not_replace_another_file_and_then_registers_nothing() {
    let folder = Folder::new();
    let pki = folder.at("pki");
    let run = |args: &[&str]| {
        let args: Vec<&str> = ["pki", "--pki", &pki].iter().chain(args).copied().collect();
        run(COLLECTOR, &args)
    };
    let made = run(&["init", "--host", "localhost"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let notes = folder.write("notes.pem", "mine");
    folder.make("folder");
    let read = |name: &str| fs::read(folder.path().join("pki").join(name)).unwrap();
    let names = ["ca.key", "ca.pem", "collector.pem", "sensors.toml"];
    let before = names.map(read);
    let mut outs: Vec<String> = names.iter().map(|name| folder.at(&format!("pki/{name}"))).collect();
    outs.extend([notes.clone(), folder.at("none/x.pem"), folder.at("folder"), folder.at("pki/.lock")]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.at("pki/ca.key"), folder.at("link.pem")).unwrap();
        outs.push(folder.at("link.pem"));
    }
    for out in &outs {
        let refused = run(&["issue", "ws01", "--out", out]);
        assert_eq!(refused.code, Some(2), "{out}: {}", refused.stderr);
        assert!(refused.stderr.contains("error:"), "{out}: {}", refused.stderr);
        assert_eq!(run(&["collector", "--out", out]).code, Some(2), "{out}");
    }
    assert_eq!(names.map(read), before);
    assert_eq!(fs::read_to_string(&notes).unwrap(), "mine");
    assert!(!run(&["list"]).stdout.contains("ws01"), "nothing was registered");

    // The name of the collector's bundle is reserved, even if that bundle is elsewhere.
    fs::rename(folder.at("pki/collector.pem"), folder.at("elsewhere.pem")).unwrap();
    let refused = run(&["issue", "ws01", "--out", &folder.at("pki/COLLECTOR.pem")]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    fs::rename(folder.at("elsewhere.pem"), folder.at("pki/collector.pem")).unwrap();

    // A sensor's own earlier bundle may be replaced, but not that of another sensor.
    let own = folder.at("ws01.pem");
    assert_eq!(run(&["issue", "ws01", "--out", &own]).code, Some(0));
    let first = fs::read(&own).unwrap();
    assert_eq!(run(&["issue", "ws02", "--out", &own]).code, Some(2));
    assert_eq!(fs::read(&own).unwrap(), first);
    assert_eq!(run(&["issue", "ws01", "--renew", "--out", &own]).code, Some(0));
    assert_ne!(fs::read(&own).unwrap(), first);
    let list = run(&["list"]).stdout;
    assert_eq!((list.matches("ws01").count(), list.matches("ws02").count()), (2, 0), "{list}");
}
