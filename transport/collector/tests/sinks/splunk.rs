//! Splunk's HTTP Event Collector: the documented requirements, errors and acknowledgements.

use crate::feed::{MemoryFeed, config, dead_letters, drain, start};
use crate::http::{Reply, Request, serve};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The simulated collector, with the events of each ackId and the indexed events.
#[derive(Default)]
struct Hec {
    received: BTreeMap<u64, Vec<Value>>,
    indexed: Vec<Value>,
    requests: u64,
    questions: u64,
    /// Close the connection without an answer after every nth request.
    cut_every: u64,
    /// Statuses and codes of the first answers.
    fail_first: Vec<(u16, i64)>,
    /// Maximum length of a request in bytes; 0: no limit.
    len_max: usize,
    /// Refuse events whose script contains this, and say which one if `numbered`.
    poison: Option<&'static str>,
    numbered: bool,
    /// A firewall refuses them with an HTML page.
    is_wall: bool,
    /// No event is ever indexed.
    stuck: bool,
}

const TOKEN: &str = "11111111-2222-4333-8444-555555555555";

fn answer(hec: &mut Hec, request: &Request) -> Reply {
    let code = |status, code: i64| Reply::Body(status, json!({ "text": "x", "code": code }).to_string());
    if request.header("authorization") != Some(&format!("Splunk {TOKEN}")) {
        return code(403, 4);
    }
    if let Some(channel) = request.target.strip_prefix("/services/collector/ack?channel=") {
        assert_eq!(channel.len(), 36, "a channel is a GUID");
        hec.questions += 1;
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let mut acks = serde_json::Map::new();
        for id in asked["acks"].as_array().unwrap() {
            // Events are indexed at the second poll, and an acknowledgement is returned only once.
            let id = id.as_u64().unwrap();
            let done = !hec.stuck && hec.questions.is_multiple_of(2);
            let events = if done { hec.received.remove(&id) } else { None };
            acks.insert(id.to_string(), json!(events.is_some()));
            hec.indexed.extend(events.into_iter().flatten());
        }
        return Reply::Body(200, json!({ "acks": acks }).to_string());
    }
    assert_eq!(request.target, "/services/collector/event");
    hec.requests += 1;
    if request.header("x-splunk-request-channel").is_none_or(|channel| channel.len() != 36) {
        return code(400, 10);
    }
    if !hec.fail_first.is_empty() {
        let (status, number) = hec.fail_first.remove(0);
        return code(status, number);
    }
    if hec.len_max > 0 && request.body.len() > hec.len_max {
        return Reply::Body(413, "Request entity too large".into());
    }
    let mut events = Vec::new();
    for event in serde_json::Deserializer::from_slice(&request.body).into_iter::<Value>() {
        let Ok(event) = event else { return code(400, 6) };
        assert!(
            event["event"].is_object()
                && event["time"].is_string()
                && event["sourcetype"] == "etwsieve:detection"
        );
        events.push(event);
    }
    if events.is_empty() {
        return code(400, 5);
    }
    let bad = |event: &Value| {
        let text = event["event"]["ScriptBlockText"].as_str().unwrap();
        hec.poison.is_some_and(|poison| text.contains(poison))
    };
    if let Some(number) = events.iter().position(bad) {
        if hec.is_wall {
            return Reply::Body(403, "<html>Invalid data format</html>".into());
        }
        let mut body = json!({ "text": "Invalid data format", "code": 6 });
        if hec.numbered {
            body["invalid-event-number"] = json!(number);
        }
        return Reply::Body(400, body.to_string());
    }
    let id = hec.requests;
    hec.received.insert(id, events);
    if hec.cut_every > 0 && hec.requests.is_multiple_of(hec.cut_every) {
        return Reply::Cut;
    }
    Reply::Body(200, json!({ "text": "Success", "code": 0, "ackId": id }).to_string())
}

fn sink(address: std::net::SocketAddr, more: &str) -> etwsieve_collector::sink::config::SinkConfig {
    config(&format!(
        "type = \"splunk\"\nurl = \"http://{address}\"\ntoken = \"{TOKEN}\"\nbatch_hits = 50\nrequest_kb = 64\n{more}"
    ))
}

/// Returns the sequence numbers of the indexed events.
fn numbers(events: &[Value]) -> std::collections::BTreeSet<u64> {
    events.iter().map(|event| event["event"]["sensor_sequence"].as_u64().unwrap()).collect()
}

#[test]
fn everything_is_indexed_whatever_fails() {
    let rows: [(&str, Hec); 7] = [
        ("in order", Hec::default()),
        ("connections cut", Hec { cut_every: 3, ..Hec::default() }),
        (
            "busy, failing, a wrong index",
            Hec { fail_first: vec![(503, 9), (500, 8), (400, 7)], ..Hec::default() },
        ),
        ("short requests", Hec { len_max: 5000, ..Hec::default() }),
        ("one refused, by number", Hec { poison: Some("poison"), numbered: true, ..Hec::default() }),
        ("one refused, without a number", Hec { poison: Some("poison"), ..Hec::default() }),
        ("one refused by a firewall", Hec { poison: Some("poison"), is_wall: true, ..Hec::default() }),
    ];
    for (row, hec) in rows {
        let poisoned = hec.poison.is_some();
        let folder = tempfile::tempdir().unwrap();
        let (address, splunk) = serve(hec, answer);
        let feed =
            MemoryFeed::new(120, |n| if n == 77 { "a poison b".into() } else { format!("script {n}") });
        let counts = drain(&sink(address, "index = \"main\""), folder.path(), &feed);
        assert_eq!(feed.acknowledged(), 120, "{row}");
        let splunk = splunk.lock().unwrap();
        let mut expected: std::collections::BTreeSet<u64> = (1..=120).collect();
        let dead = dead_letters(&folder.path().join("splunk.dead.jsonl"));
        if poisoned {
            expected.remove(&77);
            assert_eq!(dead.len(), 1, "{row}");
            assert!(dead[0].0 == 77 && dead[0].1.contains("Invalid data format"), "{row}: {dead:?}");
        } else {
            assert_eq!(dead, [], "{row}");
        }
        assert_eq!(numbers(&splunk.indexed), expected, "{row}");
        assert_eq!((counts.delivered, counts.refused), (expected.len() as u64, u64::from(poisoned)), "{row}");
        assert!(
            splunk
                .indexed
                .iter()
                .all(|event| event["index"] == "main" && event["event"]["sensor"] == "srv1.example.test")
        );
    }
}

#[test]
fn events_are_delivered_only_when_they_are_indexed() {
    let folder = tempfile::tempdir().unwrap();
    let (address, splunk) = serve(Hec { stuck: true, ..Hec::default() }, answer);
    let feed = MemoryFeed::new(10, |n| n.to_string());
    let (stop, thread, stats) = start(&sink(address, "ack_timeout_seconds = 1"), folder.path(), &feed);
    // Received more than once: the sink timed out and sent it again.
    while splunk.lock().unwrap().received.len() < 2 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((feed.acknowledged(), stats.counts().delivered), (0, 0));
    assert!(stats.counts().retries > 0);
    splunk.lock().unwrap().stuck = false;
    thread.join().unwrap();
    drop(stop);
    assert_eq!(feed.acknowledged(), 10);
    assert_eq!(numbers(&splunk.lock().unwrap().indexed), (1..=10).collect());
}

#[test]
fn a_stop_in_the_middle_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (address, splunk) = serve(Hec { stuck: true, ..Hec::default() }, answer);
    let feed = MemoryFeed::new(200, |n| n.to_string());
    let sink = sink(address, "");
    let (stop, thread, _) = start(&sink, folder.path(), &feed);
    while splunk.lock().unwrap().received.is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    stop.request();
    thread.join().unwrap();
    assert_eq!(feed.acknowledged(), 0);
    splunk.lock().unwrap().stuck = false;
    drain(&sink, folder.path(), &feed);
    assert_eq!(feed.acknowledged(), 200);
    assert_eq!(numbers(&splunk.lock().unwrap().indexed), (1..=200).collect());
}

#[test]
fn a_token_without_acknowledgement_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _) =
        serve((), |(), _| Reply::Body(200, json!({ "text": "Success", "code": 0 }).to_string()));
    let feed = MemoryFeed::new(3, |n| n.to_string());
    let (stop, thread, stats) = start(&sink(address, ""), folder.path(), &feed);
    let error = loop {
        if let Some(error) = stats.counts().error {
            break error;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(error.contains("acknowledge = false"), "{error}");
    stop.request();
    thread.join().unwrap();
    assert_eq!(feed.acknowledged(), 0);
    // Without acknowledgement, received events are delivered.
    drain(&sink(address, "acknowledge = false"), folder.path(), &feed);
    assert_eq!(feed.acknowledged(), 3);
}
