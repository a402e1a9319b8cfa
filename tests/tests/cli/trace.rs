//! `etwsieve trace` on real recordings reports the same events as an independent reader, whose results are in `oracle/`.

use etwsieve_tests::corpus;
use etwsieve_tests::program::{Program, cell, run};
use flate2::read::GzDecoder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};

const PROGRAM: Program = Program::Etwsieve;

#[test]
fn events_and_hashes_equal_the_oracle() {
    let Some(data) = corpus::data() else { return };
    let mut files = 0;
    for entry in fs::read_dir(data.join("recorded/etl")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let oracle = File::open(data.join(format!("recorded/oracle/{name}.oracle.jsonl.gz"))).unwrap();
        let mut lines = BufReader::new(GzDecoder::new(oracle))
            .lines()
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let facts = lines.next().unwrap();

        let mut expected: BTreeMap<Vec<String>, i64> = BTreeMap::new();
        for line in lines {
            let provider = if line["provider"].is_null() { "guid" } else { "provider" };
            let row = [provider, "id", "pid", "tid", "hdr", "payload_len", "payload_sha256", "time"];
            *expected.entry(row.map(|key| cell(&line, key)).to_vec()).or_default() += 1;
        }
        let events = run(PROGRAM, ["trace".as_ref(), "--events".as_ref(), path.as_os_str()]);
        assert_eq!((events.code, events.stderr.as_str()), (Some(0), ""), "{name}");
        let mut last = String::new();
        let mut count = 0;
        for line in events.lines() {
            let row = [
                "provider",
                "event_id",
                "process_id",
                "thread_id",
                "header",
                "payload_length",
                "payload_sha256",
                "time",
            ];
            let row = row.map(|key| cell(&line, key)).to_vec();
            assert!(row[7] >= last, "{name}: {} after {last}", row[7]);
            last.clone_from(&row[7]);
            *expected.entry(row).or_default() -= 1;
            count += 1;
        }
        assert_eq!(facts["events"], count, "{name}");
        let different: Vec<_> = expected.iter().filter(|(_, count)| **count != 0).take(5).collect();
        assert!(different.is_empty(), "{name}: {different:?}");

        let summary = run(PROGRAM, ["trace".as_ref(), path.as_os_str()]).lines().remove(0);
        assert_eq!(summary["events"], facts["events"], "{name}");
        assert_eq!(summary["events_by_header"], facts["headers"], "{name}");
        assert_eq!(summary["buffers_found"], facts["buffers"], "{name}");
        assert_eq!(summary["start"], facts["logfile"]["start_time"], "{name}");
        assert_eq!(summary["end"], facts["logfile"]["end_time"], "{name}");
        files += 1;
    }
    assert!(files >= 10, "{files} recordings");
}
