//! A feed in memory whose cursor outlives the runner, and helpers that run sinks.

use crate::common;
use etwsieve_collector::sink::config::SinkConfig;
use etwsieve_collector::sink::{BatchLimits, Feed, FeedError, Lag, SinkCounts, SinkItem};
use etwsieve_transport::stop::Stop;
use serde::Deserialize;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Hits and the number of acknowledged ones. Clones share the state.
#[derive(Clone)]
pub(crate) struct MemoryFeed {
    items: Arc<Vec<SinkItem>>,
    cursor: Arc<Mutex<usize>>,
    out: usize,
}

impl MemoryFeed {
    /// Creates a feed of `count` hits of one sensor; hit n has the text `texts(n)`.
    pub(crate) fn new(count: u64, texts: impl Fn(u64) -> String) -> Self {
        let item = |sequence| {
            let mut hit = common::hit(sequence);
            if let etwsieve_transport::hit::EventContent::ScriptBlock { text, .. } = &mut hit.content {
                *text = texts(sequence).as_str().into();
            }
            SinkItem { sensor: "srv1.example.test".into(), epoch: [7; 16], sequence, hit, rules_before: 0 }
        };
        Self::of((1..=count).map(item).collect())
    }

    /// Creates a feed of these hits.
    pub(crate) fn of(items: Vec<SinkItem>) -> Self {
        Self { items: Arc::new(items), cursor: Arc::default(), out: 0 }
    }

    /// Concatenates feeds.
    pub(crate) fn join(feeds: &[&Self]) -> Self {
        Self::of(feeds.iter().flat_map(|feed| feed.items.iter().cloned()).collect())
    }

    /// Returns the same hits from another sensor.
    pub(crate) fn of_sensor(&self, sensor: &str) -> Self {
        let item = |item: &SinkItem| SinkItem { sensor: sensor.to_owned(), ..item.clone() };
        Self::of(self.items.iter().map(item).collect())
    }

    pub(crate) fn acknowledged(&self) -> usize {
        *self.cursor.lock().unwrap()
    }
}

impl Feed for MemoryFeed {
    fn next(&mut self, limits: BatchLimits, _: Duration) -> Result<Vec<SinkItem>, FeedError> {
        let cursor = *self.cursor.lock().unwrap();
        let batch: Vec<SinkItem> = self.items[cursor..].iter().take(limits.hits).cloned().collect();
        self.out = batch.len();
        Ok(batch)
    }

    fn acknowledge(&mut self) -> Result<(), FeedError> {
        *self.cursor.lock().unwrap() += self.out;
        Ok(())
    }

    fn lag(&mut self) -> Result<Lag, FeedError> {
        Ok(Lag { hits: (self.items.len() - self.acknowledged()) as u64, oldest: None })
    }
}

/// Parses the configuration of one sink.
pub(crate) fn config(text: &str) -> SinkConfig {
    #[derive(Deserialize)]
    struct Document {
        sink: [SinkConfig; 1],
    }
    let Document { sink: [sink] } = toml::from_str(&format!("[[sink]]\n{text}")).unwrap();
    sink
}

/// Delivers everything with short pauses between attempts.
pub(crate) fn drain(sink: &SinkConfig, folder: &Path, feed: &MemoryFeed) -> SinkCounts {
    let (stop, thread, stats) = start(sink, folder, feed);
    thread.join().unwrap();
    drop(stop);
    stats.counts()
}

/// Delivers in the background until stopped.
pub(crate) fn start(
    sink: &SinkConfig,
    folder: &Path,
    feed: &MemoryFeed,
) -> (Stop, JoinHandle<()>, Arc<etwsieve_collector::sink::SinkStats>) {
    let mut runner = sink.runner(folder, Box::new(feed.clone())).unwrap();
    runner.backoff =
        etwsieve_collector::sink::Backoff::new(Duration::from_millis(1), Duration::from_millis(20));
    let (stop, stats) = (Stop::default(), runner.stats.clone());
    let asked = stop.clone();
    (stop, std::thread::spawn(move || runner.run(&asked, true)), stats)
}

/// Reads the sequence numbers and reasons in a dead-letter file.
pub(crate) fn dead_letters(path: &Path) -> Vec<(u64, String)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["hit"]["sequence"].as_u64().unwrap(), line["reason"].as_str().unwrap().to_owned())
    };
    text.lines().map(line).collect()
}
