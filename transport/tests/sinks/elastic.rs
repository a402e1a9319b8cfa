//! Elasticsearch's bulk API: documents under ids of their own, judged one by one.

use crate::feed::{MemoryFeed, config, dead_letters, drain, start};
use crate::http::{Reply, Request, serve};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The stand-in: documents by id.
#[derive(Default)]
struct Cluster {
    documents: BTreeMap<String, Value>,
    requests: u64,
    repeated: u64,
    /// Cut the connection at every nth request, after it was carried out.
    cut_every: u64,
    /// Every nth document is turned away for the moment.
    busy_every: u64,
    seen: u64,
    /// Status of the first requests.
    fail_first: Vec<u16>,
    len_max: usize,
    poison: Option<&'static str>,
}

fn answer(cluster: &mut Cluster, request: &Request) -> Reply {
    assert_eq!(request.target, "/_bulk");
    assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
    // user:secret
    assert_eq!(request.header("authorization"), Some("Basic dXNlcjpzZWNyZXQ="));
    cluster.requests += 1;
    if !cluster.fail_first.is_empty() {
        return Reply::Body(cluster.fail_first.remove(0), "{}".into());
    }
    if cluster.len_max > 0 && request.body.len() > cluster.len_max {
        return Reply::Body(413, "{}".into());
    }
    assert_eq!(request.body.last(), Some(&b'\n'), "the last line has its end");
    let text = std::str::from_utf8(&request.body).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (mut items, mut errors) = (Vec::new(), false);
    for pair in lines.chunks(2) {
        let [action, document] = pair else { panic!("an action without its document") };
        let create = &action["create"];
        assert_eq!(create["_index"], "logs-etwsieve.detection-default");
        let id = create["_id"].as_str().unwrap().to_owned();
        cluster.seen += 1;
        let script = document["powershell"]["file"]["script_block_text"].as_str().unwrap();
        let (status, error) = if cluster.documents.contains_key(&id) {
            cluster.repeated += 1;
            (409, Some("version_conflict_engine_exception"))
        } else if cluster.poison.is_some_and(|poison| script.contains(poison)) {
            (400, Some("document_parsing_exception"))
        } else if cluster.busy_every > 0 && cluster.seen.is_multiple_of(cluster.busy_every) {
            (429, Some("es_rejected_execution_exception"))
        } else {
            cluster.documents.insert(id.clone(), document.clone());
            (201, None)
        };
        let mut item = json!({ "_index": create["_index"], "_id": id, "status": status });
        if let Some(error) = error {
            item["error"] = json!({ "type": error, "reason": "as the test wants it" });
            errors = true;
        }
        items.push(json!({ "create": item }));
    }
    if cluster.cut_every > 0 && cluster.requests.is_multiple_of(cluster.cut_every) {
        return Reply::Cut;
    }
    Reply::Body(200, json!({ "took": 1, "errors": errors, "items": items }).to_string())
}

fn sink(address: std::net::SocketAddr) -> etwsieve_transport::sink::config::SinkConfig {
    config(&format!(
        "type = \"elastic\"\nurl = \"http://{address}\"\nuser = \"user\"\npassword = \"secret\"\nbatch_hits = 50\nrequest_kb = 64"
    ))
}

#[test]
fn every_document_is_there_once_whatever_fails() {
    let rows: [(&str, Cluster); 6] = [
        ("in order", Cluster::default()),
        ("connections cut", Cluster { cut_every: 2, ..Cluster::default() }),
        ("documents turned away", Cluster { busy_every: 7, ..Cluster::default() }),
        ("requests turned away", Cluster { fail_first: vec![429, 503, 401, 404], ..Cluster::default() }),
        ("short requests", Cluster { len_max: 6000, ..Cluster::default() }),
        ("one refused", Cluster { poison: Some("poison"), busy_every: 9, ..Cluster::default() }),
    ];
    for (row, cluster) in rows {
        let poisoned = cluster.poison.is_some();
        let cuts = cluster.cut_every > 0;
        let folder = tempfile::tempdir().unwrap();
        let (address, state) = serve(cluster, answer);
        let feed =
            MemoryFeed::new(120, |n| if n == 77 { "a poison b".into() } else { format!("script {n}") });
        let counts = drain(&sink(address), folder.path(), &feed);
        assert_eq!(feed.acknowledged(), 120, "{row}");
        let state = state.lock().unwrap();
        let mut numbers: Vec<u64> = state
            .documents
            .values()
            .map(|document| document["event"]["sequence"].as_u64().unwrap())
            .collect();
        numbers.sort_unstable();
        let expected: Vec<u64> = (1..=120).filter(|n| !(poisoned && *n == 77)).collect();
        assert_eq!(numbers, expected, "{row}");
        assert_eq!(state.repeated > 0, cuts, "{row}: repetitions only after cuts");
        let dead = dead_letters(&folder.path().join("elastic.dead.jsonl"));
        assert_eq!(
            dead.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
            if poisoned { vec![77] } else { vec![] },
            "{row}"
        );
        assert_eq!((counts.delivered, counts.refused), (expected.len() as u64, u64::from(poisoned)), "{row}");
    }
}

#[test]
fn a_full_dead_letter_file_stops_the_sink_instead_of_losing_a_hit() {
    let folder = tempfile::tempdir().unwrap();
    let dead = folder.path().join("elastic.dead.jsonl");
    // As long as the limit of 1 MB allows.
    std::fs::write(&dead, vec![b'\n'; 1024 * 1024]).unwrap();
    let (address, _) = serve(Cluster { poison: Some("poison"), ..Cluster::default() }, answer);
    let feed = MemoryFeed::new(10, |n| if n == 3 { "poison".into() } else { n.to_string() });
    let sink = config(&format!(
        "type = \"elastic\"\nurl = \"http://{address}\"\nuser = \"user\"\npassword = \"secret\"\ndead_letter_mb = 1"
    ));
    let (stop, thread, stats) = start(&sink, folder.path(), &feed);
    while !stats.counts().error.is_some_and(|error| error.contains("dead-letter file")) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((feed.acknowledged(), stats.counts().delivered), (0, 9));
    // Somebody looks into it and moves it away.
    std::fs::rename(&dead, folder.path().join("seen")).unwrap();
    thread.join().unwrap();
    drop(stop);
    assert_eq!(feed.acknowledged(), 10);
    assert_eq!(dead_letters(&dead).iter().map(|(n, _)| *n).collect::<Vec<_>>(), [3]);
}
