//! The view `detections`, compared with the results of a Splunk search over the same events.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod common;

use common::hit;
use etwsieve_transport::hit::{EventContent, HitV1, RuleRefV1, Utf16Text};
use etwsieve_transport::store::{Detection, Store};
use rusqlite::Connection;
use std::ops::ControlFlow;
use tempfile::TempDir;

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("hits.db")).unwrap();
    (folder, store)
}

fn sql(store: &Store) -> Connection {
    Connection::open(store.path()).unwrap()
}

fn detections(store: &Store) -> Vec<Detection> {
    let mut rows = Vec::new();
    let row = |row| {
        rows.push(row);
        ControlFlow::Continue(())
    };
    store.detections(row).unwrap();
    rows
}

#[test]
fn the_view_has_the_columns_of_the_search_in_its_order() {
    let (_folder, store) = store();
    let connection = sql(&store);
    let statement = connection.prepare("SELECT * FROM detections").unwrap();
    let wanted = "count firstTime lastTime dest signature signature_id user_id vendor_product EventID Guid Opcode \
        Name Path ProcessID ScriptBlockId ScriptBlockText rule_id rule_title";
    assert!(statement.column_names().eq(wanted.split_whitespace()));
}

fn script(number: Option<i32>, total: Option<i32>, id: Option<&str>, path: Option<&str>) -> EventContent {
    EventContent::ScriptBlock {
        message_number: number,
        message_total: total,
        text: "Enter-PSSession -ComputerName srv2".into(),
        script_block_id: id.map(Utf16Text::from),
        path: path.map(Utf16Text::from),
    }
}

/// Returns the only row of the view over `hits`, its columns in order, separated by ` | `.
fn view_row(hits: &[HitV1]) -> String {
    let (_folder, mut store) = store();
    store.insert_batch(hits).unwrap();
    let connection = sql(&store);
    let mut statement = connection.prepare("SELECT * FROM detections").unwrap();
    let mut rows = statement.query([]).unwrap();
    let row = rows.next().unwrap().unwrap();
    let value = |index| match row.get_unwrap(index) {
        rusqlite::types::Value::Integer(number) => number.to_string(),
        rusqlite::types::Value::Text(text) => text,
        other => panic!("column {index} is {other:?}"),
    };
    let values: Vec<_> = (0..18).map(value).collect();
    assert!(rows.next().unwrap().is_none(), "one row");
    values.join(" | ")
}

/// Returns a hit with a value for every column of the view.
fn full() -> HitV1 {
    HitV1 { content: script(Some(2), Some(3), Some("sb-1"), Some(r"C:\a.ps1")), ..hit(0) }
}

#[test]
fn missing_values_are_zero() {
    let nameless = RuleRefV1::default();
    let empty = HitV1 {
        computer: None,
        user_sid: None,
        process_id: None,
        provider: uuid::uuid!("f90714a8-5509-434a-bf6d-b1624c8a19a2").to_bytes_le(),
        opcode: 0,
        content: script(None, None, None, None),
        rules: vec![nameless],
        ..hit(0)
    };
    let blank = HitV1 {
        computer: Some(String::new()),
        user_sid: Some(String::new()),
        process_id: Some(0),
        content: script(None, None, Some(""), Some("")),
        ..empty.clone()
    };
    let unknown = HitV1 { provider: [0x11; 16], event_id: 7, ..full() };
    let content = EventContent::Module {
        context_info: "context".into(),
        user_data: Utf16Text::default(),
        payload: "payload".into(),
    };
    let module = HitV1 { event_id: 4103, opcode: 20, content, ..hit(0) };
    let time = "1 | 2024-05-14T09:12:00 | 2024-05-14T09:12:00";
    let dest = "srv1.example.test";
    let (user, vendor) = ("S-1-5-21-1-2-3-1104", "Microsoft Windows");
    let text = "Enter-PSSession -ComputerName srv2";
    let rule = "a4e8f3a4-48b2-11ec-bcfc-3e22fbd008af | Remote session";
    let windows = "{a0c1853b-5c40-4b15-8766-3cf1c58f985a}";
    let core = "{f90714a8-5509-434a-bf6d-b1624c8a19a2}";
    let nothing = format!(
        "{time} | 0 | Creating Scriptblock text (0 of 0) | 4104 | 0 | {vendor} | 4104 | {core} | 0 \
        | PowerShellCore | 0 | 0 | 0 | {text} | 0 | 0"
    );
    let rows = [
        (
            "everything known",
            full(),
            format!(
                "{time} | {dest} | Creating Scriptblock text (2 of 3) | 4104 | {user} | {vendor} | 4104 \
                | {windows} | 15 | Microsoft-Windows-PowerShell | C:\\a.ps1 | 4242 | sb-1 | {text} | {rule}"
            ),
        ),
        ("nothing known", empty, nothing.clone()),
        ("empty is missing", blank, nothing),
        (
            "module logging",
            module,
            format!(
                "{time} | {dest} | Executing Pipeline | 4103 | {user} | {vendor} | 4103 | {windows} | 20 \
                | Microsoft-Windows-PowerShell | 0 | 4242 | 0 | 0 | {rule}"
            ),
        ),
        (
            "unknown provider and event",
            unknown,
            format!(
                "{time} | {dest} | 0 | 7 | {user} | {vendor} | 7 | {{11111111-1111-1111-1111-111111111111}} | 15 \
                | 0 | C:\\a.ps1 | 4242 | sb-1 | {text} | {rule}"
            ),
        ),
    ];
    for (name, hit, wanted) in rows {
        assert_eq!(view_row(&[hit]), wanted, "{name}");
    }
}

#[test]
fn times_are_first_and_last_in_utc() {
    const DAY: u64 = 86_400 * 10_000_000;
    let start = full().time;
    let rows: [(&str, Vec<u64>, &str); 5] = [
        ("one", vec![start + 9_999_999], "1 | 2024-05-14T09:12:00 | 2024-05-14T09:12:00"),
        (
            "five, latest first",
            (0..5).rev().map(|day| start + day * DAY).collect(),
            "5 | 2024-05-14T09:12:00 | 2024-05-18T09:12:00",
        ),
        ("the first FILETIME", vec![0], "1 | 1601-01-01T00:00:00 | 1601-01-01T00:00:00"),
        (
            "the last tick of year 9999",
            vec![2_650_467_743_999_999_999],
            "1 | 9999-12-31T23:59:59 | 9999-12-31T23:59:59",
        ),
        ("beyond", vec![u64::MAX], "1 | 9223372036854775807 | 9223372036854775807"),
    ];
    for (name, times, wanted) in rows {
        let hits: Vec<_> = times.into_iter().map(|time| HitV1 { time, ..full() }).collect();
        let row = view_row(&hits);
        assert!(row.starts_with(&format!("{wanted} | srv1")), "{name}: {row}");
    }
}

#[test]
fn filled_values_are_found_as_number_and_as_text() {
    let (_folder, mut store) = store();
    let mut unknown = hit(0);
    (unknown.computer, unknown.process_id) = (None, None);
    store.insert_batch([&unknown]).unwrap();
    let connection = sql(&store);
    for condition in ["Path = 0", "Path = '0'", "dest = 0", "dest = '0'", "ProcessID = 0", "ProcessID = '0'"]
    {
        let count: i64 = connection
            .query_row(&format!("SELECT count(*) FROM detections WHERE {condition}"), [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 1, "{condition}");
    }
}

#[test]
fn rows_are_typed_and_the_callback_can_stop() {
    let (_folder, mut store) = store();
    let mut hits: Vec<_> = (0..3).map(hit).collect();
    hits[1].computer = Some("zz".into());
    store.insert_batch(&hits).unwrap();
    let rows = detections(&store);
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (rows[0].count, rows[0].first_time.as_str(), rows[0].last_time.as_str()),
        (2, "2024-05-14T09:12:00", "2024-05-14T09:12:02")
    );
    assert_eq!((rows[1].count, rows[1].dest.as_str(), rows[1].signature_id), (1, "zz", 4104));
    assert_eq!(rows[1].rule_title, "Remote session");
    let mut seen = 0;
    let stop = |_| {
        seen += 1;
        ControlFlow::Break(())
    };
    store.detections(stop).unwrap();
    assert_eq!(seen, 1);
}
