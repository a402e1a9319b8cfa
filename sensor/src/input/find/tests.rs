//! The search for input files.

use super::{expand, find, traces};
use std::fs;
use std::path::{Path, PathBuf};

fn relative(folder: &Path, files: &[PathBuf]) -> Vec<String> {
    let name = |file: &PathBuf| file.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/");
    files.iter().map(name).collect()
}

#[test]
fn traces_in_folders_are_found_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("b/deep")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    for name in ["b/deep/x.EVTX", "b/2.etl", "a.jsonl", "c.etl.001", "note.txt", "odd", "d.001"] {
        fs::write(at(name), "").unwrap();
    }
    let (files, errors) =
        traces(&[folder.path().into(), at("b/2.etl"), at("odd"), at("empty"), at("missing")]);
    assert_eq!(relative(folder.path(), &files), ["a.jsonl", "b/2.etl", "b/deep/x.EVTX", "c.etl.001", "odd"]);
    let shown: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert!(shown[0].contains("empty contains no .etl or .evtx or .jsonl file"), "{shown:?}");
    assert!(shown[1].contains("cannot read") && shown[1].contains("missing"), "{shown:?}");
}

#[test]
fn patterns_are_expanded_unless_a_file_has_that_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("b/deep")).unwrap();
    // File names on Windows cannot contain `*`.
    for name in ["a1.evtx", "a2.evtx", "[a].evtx", "b/c.evtx", "b/deep/d.evtx", "b/deep/e.txt"] {
        fs::write(at(name), "").unwrap();
    }
    let rows: [(&str, &[&str]); 9] = [
        ("a?.evtx", &["a1.evtx", "a2.evtx"]),
        ("*.evtx", &["[a].evtx", "a1.evtx", "a2.evtx"]),
        ("a[2-9].evtx", &["a2.evtx"]),
        ("[a].evtx", &["[a].evtx"]),
        ("[[]*.evtx", &["[a].evtx"]),
        ("*/*.evtx", &["b/c.evtx"]),
        ("**/*.evtx", &["[a].evtx", "a1.evtx", "a2.evtx", "b/c.evtx", "b/deep/d.evtx"]),
        ("b/d*", &["b/deep/d.evtx"]),
        ("b/deep/e.*", &["b/deep/e.txt"]),
    ];
    for (pattern, expected) in rows {
        let (files, errors) = traces(&[at(pattern)]);
        assert_eq!(relative(folder.path(), &files), expected, "{pattern}");
        assert!(errors.is_empty(), "{pattern}: {errors:?}");
    }
    for pattern in ["*.etl", "none/*.evtx", "a1.evtx/*"] {
        let (files, errors) = traces(&[at(pattern)]);
        assert_eq!((files.len(), errors.len()), (0, 1), "{pattern}");
        assert!(errors[0].to_string().contains("no file matches"), "{}", errors[0]);
    }
    assert_eq!(expand(&[at("**/*.txt")], &["yml"]).0.len(), 1);
}

#[test]
fn skipped_files_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("logs")).unwrap();
    for name in ["a.jsonl", "Security.evtx.GZ", "logs/case.zip", "logs/b.etl.zst", "logs/c.7z", "notes.txt"] {
        fs::write(at(name), "").unwrap();
    }
    let found = find(&[folder.path().into()]);
    assert_eq!((found.files.len(), found.skipped.packed_files), (1, 4));
    assert_eq!(found.skipped.paths.len(), 4);
}

#[cfg(unix)]
#[test]
fn links_loops_pipes_and_devices_do_not_block_the_search() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("real/sub")).unwrap();
    fs::write(at("real/a.jsonl"), "").unwrap();
    symlink(at("real"), at("linked")).unwrap();
    symlink(at("real"), at("real/sub/loop")).unwrap();
    symlink("/dev/zero", at("zero.etl")).unwrap();
    symlink(at("missing"), at("dangling.evtx")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("pipe.evtx")).status().unwrap().success());
    let found = find(&[folder.path().into()]);
    assert_eq!(relative(folder.path(), &found.files), ["real/a.jsonl"]);
    assert_eq!(found.skipped.linked_folders, 2);
    let shown: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(shown[0].contains("dangling.evtx: No such file"), "{shown:?}");
    assert!(shown[1].contains("pipe.evtx: it is a pipe, expected a file"), "{shown:?}");
    assert!(shown[2].contains("zero.etl: it is a device, expected a file"), "{shown:?}");
    // Named directly, and by a pattern.
    for path in [at("zero.etl"), at("z*.etl")] {
        let (files, errors) = traces(&[path]);
        assert!(files.is_empty() && errors[0].to_string().contains("it is a device"), "{errors:?}");
    }
    assert_eq!(traces(&[at("pipe.evtx")]).0.len(), 1);
    assert_eq!(traces(&[at("**/*.jsonl")]).0.len(), 1);
}
