//! A folder for traces and other files of a test.

use etwsieve_tests::writer::{EventSpec, TraceWriter, script_block};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(super) const ID: &str = "5d0c3a1e-7a55-4a0e-9d0e-0f5a3c2b1a00";
pub(super) const HIT: &str = "Enter-PSSession -ComputerName srv01";

/// A temporary folder.
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().expect("there is a temporary folder"))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn at(&self, name: &str) -> String {
        self.path().join(name).into_os_string().into_string().expect("temporary folders have plain names")
    }

    pub(super) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.at(name);
        fs::write(&path, bytes).expect("the file is written");
        path
    }

    pub(super) fn make(&self, name: &str) -> String {
        let path = self.at(name);
        fs::create_dir_all(&path).expect("the folder is made");
        path
    }

    /// Returns the names of its files, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).expect("the folder is there");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[cfg(unix)]
    pub(super) fn pipe(&self, name: &str) -> String {
        let path = self.at(name);
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo starts");
        assert!(made.success());
        path
    }
}

pub(super) fn read_json(path: impl Into<PathBuf>) -> Value {
    let text = fs::read_to_string(path.into()).expect("the file was written");
    serde_json::from_str(&text).expect("it holds JSON")
}

/// Returns a line of JSON Lines with a script block.
pub(super) fn line(text: &str, computer: &str) -> String {
    let line = json!({
        "time_created": "2026-03-02T21:09:33.0043210Z", "event_id": 4104, "message_number": 1, "message_total": 1,
        "provider_guid": "a0c1853b-5c40-4b15-8766-3cf1c58f985a", "script_block_text": text,
        "script_block_id": ID, "computer": computer, "process_id": 4812,
    });
    format!("{line}\n")
}

/// Returns an .etl trace with one hit.
pub(super) fn trace() -> Vec<u8> {
    let mut writer = TraceWriter::new();
    for text in ["Get-Date", HIT] {
        writer.push(EventSpec::powershell(4104, script_block(1, 1, text, ID, None)).at(1000).by(8, 12));
    }
    writer.build()
}
