use super::*;
use crate::sink::{Record, RecordFormat, SinkItem};
use etwsieve_transport::hit::{Scope, View};
use etwsieve_transport::wire::codec::{HIT_LEN_MAX, encode_hit};

const FORMATS: [RecordFormat; 3] = [RecordFormat::Jsonl, RecordFormat::Ecs, RecordFormat::Splunk];

fn script(text: Utf16Text) -> EventContent {
    EventContent::ScriptBlock {
        message_number: Some(1),
        message_total: Some(1),
        text,
        script_block_id: Some("5f0c1d2e-0000-4000-8000-000000000001".into()),
        path: Some(Utf16Text::default()),
    }
}

fn item(content: EventContent, rules: usize) -> SinkItem {
    let hit = HitV1 {
        time: 133_245_763_580_175_449,
        source: "live".into(),
        source_sequence: 1,
        provider: [0; 16],
        event_id: 4104,
        version: 1,
        channel: 16,
        level: 5,
        opcode: 15,
        task: 2,
        keywords: 0,
        computer: Some("srv1".into()),
        user_sid: None,
        process_id: None,
        thread_id: None,
        activity_id: None,
        event_record_id: None,
        scope: Scope::Event,
        view: View::Raw,
        partial: false,
        content,
        cut: None,
        rules: vec![RuleRefV1::default(); rules],
    };
    SinkItem { sensor: "srv1".into(), epoch: [7; 16], sequence: 7, hit, rules_before: 0 }
}

/// Returns the records of a hit.
fn lines(item: &SinkItem, format: RecordFormat) -> Vec<Vec<u8>> {
    let line = |record: Record<'_>| {
        let mut line = Vec::new();
        record.append(format, &mut line);
        line
    };
    Record::of(item).map(line).collect()
}

fn json(item: &SinkItem, format: RecordFormat) -> Vec<serde_json::Value> {
    lines(item, format).iter().map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn control(units: usize) -> Utf16Text {
    Utf16Text(vec![1; units])
}

#[test]
fn ordinary_hits_are_written_as_they_are() {
    let item = item(script("Enter-PSSession".into()), 40);
    let (shown, clamped) = whole(&item.hit);
    assert!(matches!(shown, Cow::Borrowed(_)) && clamped.is_empty());
    for format in FORMATS {
        let lines = lines(&item, format);
        assert!(lines.len() == 40 && lines.iter().all(|line| *line == lines[0]));
        assert!(!String::from_utf8_lossy(&lines[0]).contains("clamped"));
    }
}

#[test]
fn the_records_of_a_hit_are_bounded_by_its_length() {
    let long = "\u{1}".repeat(4096);
    let mut strings = item(script(control(100)), 4096);
    strings.hit.source.clone_from(&long);
    strings.hit.computer = Some(long.clone());
    strings.hit.user_sid = Some(long.clone());
    let mut pieces = item(script(control(1024)), 4096);
    let piece = |at: u32| PieceV1 { start: 1000 * at, len: 1 };
    pieces.hit.cut = Some(CutV1 {
        text: 0,
        units: u32::MAX,
        sha256: Some([1; 32]),
        pieces: (0..1024).map(piece).collect(),
    });
    let module = EventContent::Module {
        context_info: control(100_000),
        user_data: control(100_000),
        payload: control(100_000),
    };
    let rows = [
        ("61 KB", item(script(control(16_000)), 600)),
        ("a text as long as a text can be", item(script(control(128 * 1024)), 4096)),
        ("a text as long as a short one", item(script(control(16)), 4096)),
        ("three texts", item(module, 4096)),
        ("a notice", item(EventContent::Notice { detail: long.clone() }, 4096)),
        ("strings", strings),
        ("pieces", pieces),
    ];
    for (row, item) in rows {
        let encoded = encode_hit(&item.hit).unwrap().len();
        assert!(encoded <= HIT_LEN_MAX);
        for format in FORMATS {
            let written: usize = lines(&item, format).iter().map(Vec::len).sum();
            println!("{row}: {encoded} bytes, {written} as {format:?}");
            // An empty rule takes 49 bytes of a hit, but its record contains the names of all fields.
            assert!(
                written <= 48 * encoded + COPIES_LEN_MIN,
                "{row}: {encoded} bytes, {written} as {format:?}"
            );
        }
        // The same holds if the rules are delivered in many batches.
        let rules = item.hit.rules.len();
        let whole: usize = lines(&item, RecordFormat::Jsonl).iter().map(Vec::len).sum();
        let mut apart = 0;
        for rules_before in 0..rules {
            let mut one = SinkItem { rules_before, ..item.clone() };
            one.hit.rules.truncate(1);
            apart += lines(&one, RecordFormat::Jsonl)[0].len();
            if rules > 1000 && rules_before == 20 {
                apart += (rules - 21) * lines(&one, RecordFormat::Jsonl)[0].len();
                break;
            }
        }
        assert!(apart <= whole + rules * 64, "{row}: {whole} together, {apart} apart");
    }
}

#[test]
fn an_excerpt_shows_the_match_and_its_position() {
    let text: String = (0..20_000).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    let mut item = item(script(text.as_str().into()), 400);
    item.hit.rules[300].spans = vec![SpanV1 { text: 0, start: 12_345, len: 10 }];
    let lines = json(&item, RecordFormat::Jsonl);
    assert_eq!(lines.iter().filter(|line| line["script_block_text"] == text).count(), 1 + COPIES_MIN);
    let line = &lines[300];
    assert_eq!(line["clamped"], serde_json::json!(["script_block_text"]));
    let [start, len] = [0, 1].map(|n| line["cut"]["pieces"][0][n].as_u64().unwrap() as usize);
    let shown = line["script_block_text"].as_str().unwrap();
    assert_eq!((line["cut"]["units"].as_u64(), shown), (Some(20_000), &text[start..start + len]));
    assert!(start < 12_345 && 12_355 < start + len && len == EXCERPT_LEN_MAX, "{start}, {len}");
    assert_eq!(line["spans"][0]["start"], 12_345);
    // All records of a hit have its identity.
    assert!(lines.iter().all(|line| line["sequence"] == 7 && line["epoch"] == lines[0]["epoch"]));
}

#[test]
fn an_excerpt_of_a_cut_text_refers_to_the_original() {
    let mut item = item(script("x".repeat(3000).as_str().into()), 2000);
    let pieces = [PieceV1 { start: 0, len: 1000 }, PieceV1 { start: 50_000, len: 2000 }];
    item.hit.cut = Some(CutV1 { text: 0, units: 90_000, sha256: Some([1; 32]), pieces: pieces.to_vec() });
    item.hit.rules[1999].spans = vec![SpanV1 { text: 0, start: 50_010, len: 4 }];
    let lines = json(&item, RecordFormat::Jsonl);
    let cut = &lines[1999]["cut"];
    assert_eq!(cut["pieces"], serde_json::json!([[756, 244], [50_000, 268]]));
    assert_eq!((cut["units"].as_u64(), cut["sha256"].as_str().unwrap().len()), (Some(90_000), 64));
}

#[test]
fn values_that_receivers_refuse_are_clamped_and_listed() {
    type Row = (&'static str, fn(&mut HitV1), &'static str, &'static str, &'static str);
    let rows: [Row; 3] = [
        ("a year of five digits", |hit| hit.time = u64::MAX, "time", "/time", "9999-12-31T23:59:59.9999999Z"),
        (
            "a path longer than a term",
            |hit| {
                if let EventContent::ScriptBlock { path: Some(path), .. } = &mut hit.content {
                    path.0 = vec![0x20AC; 100_000];
                }
            },
            "path",
            "/path",
            "",
        ),
        (
            "half a surrogate pair",
            |hit| hit.content = script(Utf16Text(vec![0x61, 0xD800, 0x62])),
            "script_block_text",
            "/script_block_text",
            "a\u{FFFD}b",
        ),
    ];
    for (row, change, name, pointer, expected) in rows {
        let mut item = item(script("x".into()), 1);
        change(&mut item.hit);
        let places = [
            (RecordFormat::Jsonl, "/clamped"),
            (RecordFormat::Ecs, "/etwsieve/clamped"),
            (RecordFormat::Splunk, "/event/clamped"),
        ];
        for (format, place) in places {
            let line = &json(&item, format)[0];
            assert_eq!(line.pointer(place), Some(&serde_json::json!([name])), "{row}: {line}");
        }
        let line = &json(&item, RecordFormat::Jsonl)[0];
        let shown = line.pointer(pointer).unwrap().as_str().unwrap();
        assert!(shown.len() <= TERM_LEN_MAX && (expected.is_empty() || shown == expected), "{row}: {shown}");
        let time = json(&item, RecordFormat::Splunk)[0]["time"].as_str().unwrap().to_owned();
        assert!(time.starts_with("253402300799.") || row != "a year of five digits", "{time}");
    }
}

#[test]
fn a_hit_without_rules_has_a_record() {
    let item = item(script("x".into()), 0);
    for format in FORMATS {
        assert_eq!(lines(&item, format).len(), 1, "{format:?}");
    }
    let line = &json(&item, RecordFormat::Jsonl)[0];
    assert!(line["rule_id"].is_null() && line["rule_title"] == "", "{line}");
}

#[test]
fn cuts_do_not_split_surrogate_pairs() {
    let pairs: Vec<u16> = "\u{1F600}".repeat(50).encode_utf16().collect();
    for len_max in 0..60 {
        let range = around(&pairs, &(31..32), len_max);
        let head = 0..fitting(&pairs, len_max);
        for range in [range, head] {
            assert!(range.start <= range.end && !splits_pair(&pairs, range.start));
            assert!(!splits_pair(&pairs, range.end), "{len_max}: {range:?}");
            assert!(units_len(&pairs[range.clone()]) <= len_max.max(6), "{len_max}: {range:?}");
        }
    }
    // A hostile hit may contain a span beyond its text.
    assert_eq!(around(&pairs, &(5000..6000), 10), 5000..5000);
}
