//! Elasticsearch's bulk API: documents have derived ids, and their results are handled separately.

use crate::feed::{MemoryFeed, config, dead_letters, drain, start};
use crate::http::{Reply, Request, serve};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The simulated cluster, with its documents by id.
#[derive(Default)]
struct Cluster {
    documents: BTreeMap<String, Value>,
    requests: u64,
    repeated: u64,
    /// Close the connection without an answer after every nth request.
    cut_every: u64,
    /// Refuse every nth document temporarily.
    busy_every: u64,
    seen: u64,
    /// Statuses of the first answers.
    fail_first: Vec<u16>,
    len_max: usize,
    poison: Option<&'static str>,
    /// A firewall in front of the cluster refuses requests that contain this.
    wall: Option<&'static str>,
    /// The cluster cannot parse requests that contain this.
    unreadable: Option<&'static str>,
    /// The error of every document.
    refuse_all: Option<&'static str>,
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
    assert_eq!(request.body.last(), Some(&b'\n'), "the last line ends with a line feed");
    let text = std::str::from_utf8(&request.body).unwrap();
    if cluster.wall.is_some_and(|word| text.contains(word)) {
        return Reply::Body(403, "<html>Request blocked</html>".into());
    }
    if cluster.unreadable.is_some_and(|word| text.contains(word)) {
        let error = json!({ "type": "x_content_parse_exception", "reason": "as the test wants it" });
        return Reply::Body(400, json!({ "error": error, "status": 400 }).to_string());
    }
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (mut items, mut errors) = (Vec::new(), false);
    for pair in lines.chunks(2) {
        let [action, document] = pair else { panic!("an action without its document") };
        let create = &action["create"];
        assert_eq!(create["_index"], "logs-etwsieve.detection-default");
        let id = create["_id"].as_str().unwrap().to_owned();
        cluster.seen += 1;
        let script = document["powershell"]["file"]["script_block_text"].as_str().unwrap();
        let (status, error) = if let Some(error) = cluster.refuse_all {
            (400, Some(error))
        } else if cluster.documents.contains_key(&id) {
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

fn sink(address: std::net::SocketAddr) -> etwsieve_collector::sink::config::SinkConfig {
    config(&format!(
        "type = \"elastic\"\nurl = \"http://{address}\"\nuser = \"user\"\npassword = \"secret\"\nbatch_hits = 50\nrequest_kb = 64"
    ))
}

#[test]
fn every_document_is_stored_once_whatever_fails() {
    let rows: [(&str, Cluster); 8] = [
        ("in order", Cluster::default()),
        ("connections cut", Cluster { cut_every: 2, ..Cluster::default() }),
        ("documents refused temporarily", Cluster { busy_every: 7, ..Cluster::default() }),
        (
            "requests refused temporarily",
            Cluster { fail_first: vec![429, 503, 401, 404], ..Cluster::default() },
        ),
        ("short requests", Cluster { len_max: 6000, ..Cluster::default() }),
        ("one refused", Cluster { poison: Some("poison"), busy_every: 9, ..Cluster::default() }),
        ("one refused by a firewall", Cluster { wall: Some("poison"), ..Cluster::default() }),
        ("one makes a request unreadable", Cluster { unreadable: Some("poison"), ..Cluster::default() }),
    ];
    for (row, cluster) in rows {
        let poisoned = cluster.poison.or(cluster.wall).or(cluster.unreadable).is_some();
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
fn a_proxy_that_refuses_everything_loses_no_hits() {
    let folder = tempfile::tempdir().unwrap();
    let (address, cluster) = serve(Cluster { wall: Some("script"), ..Cluster::default() }, answer);
    let feed = MemoryFeed::new(10, |n| format!("script {n}"));
    let (stop, thread, stats) = start(&sink(address), folder.path(), &feed);
    while stats.counts().retries < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    // The cause is not known yet.
    assert_eq!((feed.acknowledged(), stats.counts().refused), (0, 0));
    cluster.lock().unwrap().wall = None;
    thread.join().unwrap();
    drop(stop);
    assert_eq!(
        (feed.acknowledged(), stats.counts().refused, cluster.lock().unwrap().documents.len()),
        (10, 0, 10)
    );
}

#[test]
fn a_batch_of_only_refused_hits_does_not_stop_the_sink() {
    let folder = tempfile::tempdir().unwrap();
    let (address, state) = serve(Cluster { wall: Some("poison"), ..Cluster::default() }, answer);
    // Two whole batches of 50 are refused, but the first batch has shown that the path works.
    let text = |n: u64| if (51..=150).contains(&n) { format!("poison {n}") } else { n.to_string() };
    let feed = MemoryFeed::new(160, text);
    let counts = drain(&sink(address), folder.path(), &feed);
    assert_eq!((feed.acknowledged(), counts.delivered, counts.refused, counts.retries), (160, 60, 100, 0));
    assert_eq!(state.lock().unwrap().documents.len(), 60);
}

#[test]
fn documents_are_kept_while_the_index_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let error = Some("invalid_index_name_exception");
    let (address, cluster) = serve(Cluster { refuse_all: error, ..Cluster::default() }, answer);
    let feed = MemoryFeed::new(10, |n| n.to_string());
    let (stop, thread, stats) = start(&sink(address), folder.path(), &feed);
    while stats.counts().retries < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((feed.acknowledged(), stats.counts().refused), (0, 0));
    cluster.lock().unwrap().refuse_all = None;
    thread.join().unwrap();
    drop(stop);
    assert_eq!((feed.acknowledged(), stats.counts().refused), (10, 0));
}
