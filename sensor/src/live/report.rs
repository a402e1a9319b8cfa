//! The counts of a live session as a log line, as metrics for Prometheus, and as the summary of a run.

use super::counters::{LossCounts, SessionCounters};
use crate::delivery;
use crate::ledger::{BlockLedger, Ledger, Summary};
use crate::pipeline::Progress;
use etwsieve_transport::metrics::Text;
use etwsieve_transport::sender::SenderCounts;
use etwsieve_transport::wire::message::{CountV1, GapReason};
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of hits, updated by the thread that writes them.
#[derive(Debug, Default)]
pub struct HitCounts {
    /// Hits written to the output.
    pub written: AtomicU64,
    /// Hits stored in the database.
    pub stored: AtomicU64,
    /// Hits that were written to neither the output nor the database.
    pub lost: AtomicU64,
    /// Notices of the sensor, which are written like hits.
    pub notices: AtomicU64,
}

/// The summary of a live run: the ledger of its events, and the counts of ETW and of the session.
#[derive(Clone, Debug, Serialize)]
pub struct LiveSummary {
    /// Counts of the events.
    #[serde(flatten)]
    pub run: Summary,
    /// Losses before the events reached the sensor.
    pub etw: EtwLosses,
    /// Number of restarts of the session.
    pub restarts: u64,
    /// Number of times that a disabled provider was enabled again.
    pub reenabled: u64,
    /// Number of rule sets loaded during the run.
    pub reloads: u64,
    /// Number of rule sets that were rejected.
    pub reload_failures: u64,
    /// Hits written to the output.
    pub hits_written: u64,
    /// Hits stored in the database.
    pub hits_stored: u64,
    /// Hits that were written to neither.
    pub hits_lost: u64,
    /// Notices of the sensor.
    pub notices: u64,
    /// Counts of the hits sent to the collector, if one is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collector: Option<Map<String, Value>>,
}

/// Losses that ETW reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EtwLosses {
    /// Events for which no buffer was free.
    pub events_lost: u64,
    /// Buffers that could not be delivered in real time.
    pub real_time_buffers_lost: u64,
    /// Buffers that could not be written to a file.
    pub log_buffers_lost: u64,
    /// Records of losses within the stream.
    pub lost_event_records: u64,
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

impl EtwLosses {
    /// Returns the losses at this moment.
    pub fn read(counters: &SessionCounters) -> Self {
        let LossCounts { events, real_time_buffers, log_buffers, .. } = counters.losses();
        Self {
            events_lost: events,
            real_time_buffers_lost: real_time_buffers,
            log_buffers_lost: log_buffers,
            lost_event_records: load(&counters.lost_event_records),
        }
    }
}

impl LiveSummary {
    /// Creates the summary of a run that has ended.
    pub fn new(
        run: Summary,
        counters: &SessionCounters,
        hits: &HitCounts,
        collector: Option<&SenderCounts>,
    ) -> Self {
        Self {
            run,
            etw: EtwLosses::read(counters),
            restarts: load(&counters.restarts),
            reenabled: load(&counters.reenabled),
            reloads: load(&counters.reloads),
            reload_failures: load(&counters.reload_failures),
            hits_written: load(&hits.written),
            hits_stored: load(&hits.stored),
            hits_lost: load(&hits.lost),
            notices: load(&hits.notices),
            collector: collector.map(delivery::named_counts),
        }
    }
}

/// Returns the ledger of all sources at this moment.
pub fn ledger(progress: &Progress) -> Ledger {
    let mut total = Ledger::default();
    progress.tallies.iter().for_each(|tally| total.add(&tally.read()));
    total
}

/// Formats the counts as one line for people.
pub fn summary_line(ledger: &Ledger, losses: &EtwLosses) -> String {
    let dropped: u64 = ledger.dropped.values().sum();
    let by_reason: Vec<String> =
        ledger.dropped.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let amsi = ledger.amsi.map_or_else(String::new, |amsi| {
        format!(
            " (AMSI: {} seen, {} from PowerShell, {} with hits, {} dropped)",
            amsi.events_seen, amsi.events_selected, amsi.events_matched, amsi.events_dropped
        )
    });
    let by_reason = if by_reason.is_empty() { String::new() } else { format!(" ({})", by_reason.join(", ")) };
    format!(
        "{} events seen = {} with hits + {} without hits + {} queued + {dropped} dropped{by_reason} + {} not \
         selected{amsi}; {} detections in the raw text, {} in other views ({} views cut short), {} in joined blocks ({} joined, \
         {} partial, {} evicted, {} open); lost by ETW: {} events, {} real-time buffers",
        ledger.events_seen,
        ledger.events_matched,
        ledger.events_not_matched,
        ledger.events_waiting,
        ledger.events_other,
        ledger.detections,
        ledger.view_detections,
        ledger.views_cut,
        ledger.blocks.detections,
        ledger.blocks.joined,
        ledger.blocks.partial,
        ledger.blocks.evicted,
        ledger.blocks.open,
        losses.events_lost,
        losses.real_time_buffers_lost,
    )
}

/// Writes the metrics of script blocks that consist of several events.
fn blocks(text: &mut Text, blocks: &BlockLedger) {
    let name = "etwsieve_block_fragments_total";
    text.counter(name, "Events that are fragments of a script block.", &[], blocks.fragments);
    let name = "etwsieve_block_fragments_odd_total";
    let help = "Fragments that PowerShell does not write like this, by what is odd.";
    text.counter(name, help, &[("oddity", "duplicate")], blocks.duplicates);
    text.counter(name, help, &[("oddity", "lying")], blocks.lying);
    text.counter(name, help, &[("oddity", "unplaced")], blocks.unplaced);
    let name = "etwsieve_block_fragments_reduced_total";
    let help = "Fragments of which only both ends were kept to save memory, because no rule needs the rest.";
    text.counter(name, help, &[], blocks.reduced);
    let name = "etwsieve_blocks_total";
    let help = "Script blocks of several events, by what happened to them.";
    text.counter(name, help, &[("fate", "joined")], blocks.joined);
    text.counter(name, help, &[("fate", "partial")], blocks.partial);
    text.counter(name, help, &[("fate", "evicted")], blocks.evicted);
    let name = "etwsieve_block_detections_total";
    let help = "Pairs of a rule and a joined block that no single event of the block matched.";
    text.counter(name, help, &[], blocks.detections);
    let name = "etwsieve_blocks_open";
    text.gauge(name, "Script blocks that are still missing fragments.", &[], blocks.open as f64);
    text.gauge(
        "etwsieve_blocks_bytes",
        "Memory of the open script blocks in bytes.",
        &[],
        blocks.bytes as f64,
    );
}

/// Returns all metrics in the text format of Prometheus.
pub fn metrics(
    progress: &Progress,
    counters: &SessionCounters,
    hits: &HitCounts,
    rules: usize,
    collector: Option<&SenderCounts>,
) -> String {
    let ledger = ledger(progress);
    let losses = EtwLosses::read(counters);
    let mut text = Text::new();
    text.counter("etwsieve_events_seen_total", "Events delivered by the session.", &[], ledger.events_seen);
    let fate = "etwsieve_events_total";
    let help = "Delivered events by what happened to them; the sum is etwsieve_events_seen_total minus \
                etwsieve_events_waiting.";
    text.counter(fate, help, &[("fate", "matched")], ledger.events_matched);
    text.counter(fate, help, &[("fate", "not_matched")], ledger.events_not_matched);
    text.counter(fate, help, &[("fate", "other")], ledger.events_other);
    for reason in [crate::pipeline::DROPPED_CHANNEL_FULL, crate::pipeline::DROPPED_OVERSIZE] {
        let count = ledger.dropped.get(reason).copied().unwrap_or(0);
        text.counter(fate, help, &[("fate", &format!("dropped_{reason}"))], count);
    }
    for (reason, count) in &ledger.dropped {
        if ![crate::pipeline::DROPPED_CHANNEL_FULL, crate::pipeline::DROPPED_OVERSIZE].contains(reason) {
            text.counter(fate, help, &[("fate", &format!("dropped_{reason}"))], *count);
        }
    }
    text.gauge(
        "etwsieve_events_waiting",
        "Events queued between the session and the matchers.",
        &[],
        ledger.events_waiting as f64,
    );
    text.counter(
        "etwsieve_undecodable_payloads_total",
        "Payloads that do not have the layout of their template; they are searched nevertheless.",
        &[],
        ledger.undecodable,
    );
    if let Some(amsi) = &ledger.amsi {
        let name = "etwsieve_amsi_events_seen_total";
        text.counter(
            name,
            "Scans of the antimalware scanner, requested by any program.",
            &[],
            amsi.events_seen,
        );
        let fate = "etwsieve_amsi_events_total";
        let help =
            "Scans requested by PowerShell, by what happened to them; etwsieve_events_total includes them.";
        text.counter(fate, help, &[("fate", "matched")], amsi.events_matched);
        text.counter(fate, help, &[("fate", "not_matched")], amsi.events_not_matched);
        text.counter(fate, help, &[("fate", "dropped")], amsi.events_dropped);
        let name = "etwsieve_amsi_detections_total";
        text.counter(name, "Pairs of a rule and a scan that it matched.", &[], amsi.detections);
    }
    text.counter("etwsieve_payload_bytes_total", "Bytes of all payloads.", &[], ledger.payload_bytes);
    text.counter(
        "etwsieve_detections_total",
        "Pairs of a rule and an event that it matched in the raw text.",
        &[],
        ledger.detections,
    );
    text.counter(
        "etwsieve_view_detections_total",
        "Pairs of a rule and an event that it matched only in a view other than the raw text.",
        &[],
        ledger.view_detections,
    );
    text.counter(
        "etwsieve_views_cut_total",
        "Events and joined blocks whose views were cut short because they exceeded the work limit.",
        &[],
        ledger.views_cut,
    );
    blocks(&mut text, &ledger.blocks);
    let name = "etwsieve_etw_lost_total";
    let help = "Losses reported by ETW, by kind.";
    text.counter(name, help, &[("kind", "events")], losses.events_lost);
    text.counter(name, help, &[("kind", "real_time_buffers")], losses.real_time_buffers_lost);
    text.counter(name, help, &[("kind", "log_buffers")], losses.log_buffers_lost);
    text.counter(name, help, &[("kind", "records")], losses.lost_event_records);
    let name = "etwsieve_hits_total";
    let help = "Hits by what happened to them.";
    text.counter(name, help, &[("fate", "written")], load(&hits.written));
    text.counter(name, help, &[("fate", "stored")], load(&hits.stored));
    text.counter(name, help, &[("fate", "lost")], load(&hits.lost));
    text.counter("etwsieve_notices_total", "Notices of the sensor.", &[], load(&hits.notices));
    let up = f64::from(u8::from(counters.up.load(Ordering::Relaxed)));
    text.gauge("etwsieve_session_up", "1 while the session is running.", &[], up);
    text.counter(
        "etwsieve_session_restarts_total",
        "Restarts of the session.",
        &[],
        load(&counters.restarts),
    );
    text.counter("etwsieve_rule_reloads_total", "Rule sets reloaded.", &[], load(&counters.reloads));
    text.counter(
        "etwsieve_rule_reload_failures_total",
        "Rule sets that were rejected.",
        &[],
        load(&counters.reload_failures),
    );
    text.gauge("etwsieve_rules", "Active rules.", &[], rules as f64);
    if let Some(counts) = collector {
        collector_metrics(counts, &mut text);
    }
    text.finish()
}

/// Writes the metrics of the hits that are sent to the collector.
fn collector_metrics(counts: &SenderCounts, text: &mut Text) {
    let spool = &counts.spool;
    text.counter("etwsieve_hits_offered_total", "Hits passed to the spool.", &[], spool.offered);
    let name = "etwsieve_hits_dropped_total";
    let help =
        "Hits dropped before a collector acknowledged them, by reason; each is reported to the collector.";
    for reason in GapReason::ALL {
        text.counter(name, help, &[("reason", reason.as_str())], spool.dropped[reason as usize]);
    }
    text.counter(
        "etwsieve_hits_acknowledged_total",
        "Hits, including dropped ones, that a collector has acknowledged, including those of earlier processes.",
        &[],
        spool.acknowledged,
    );
    text.gauge("etwsieve_spool_hits", "Hits in the spool.", &[], spool.hits as f64);
    text.gauge("etwsieve_spool_bytes", "Bytes of the hits in the spool.", &[], spool.bytes as f64);
    text.counter("etwsieve_spool_repairs_total", "Damaged spools that were quarantined.", &[], spool.repairs);
    let name = "etwsieve_spool_write_failures_total";
    text.counter(name, "Failed writes to the spool that were retried.", &[], spool.write_failures);
    text.counter("etwsieve_collector_connects_total", "Connections to a collector.", &[], counts.connects);
    let name = "etwsieve_collector_connect_failures_total";
    text.counter(name, "Failed attempts to connect to a collector.", &[], counts.connect_failures);
    let up = f64::from(u8::from(counts.is_connected));
    text.gauge("etwsieve_collector_connected", "1 while a collector accepts hits.", &[], up);
    text.gauge(
        "etwsieve_certificate_expires_timestamp_seconds",
        "Expiry of the sensor's certificate in seconds since 1970; 0 without TLS.",
        &[],
        counts.certificate_expires_unix as f64,
    );
}

/// Returns the counts of a live sensor that are sent to the collector, under the names of `docs/wire.md`.
pub fn status_counts(progress: &Progress, counters: &SessionCounters, rules: usize) -> Vec<CountV1> {
    let ledger = ledger(progress);
    let losses = EtwLosses::read(counters);
    let dropped = ledger.dropped.iter().map(|(reason, count)| (format!("events_dropped_{reason}"), *count));
    [
        ("events_seen", ledger.events_seen),
        ("events_matched", ledger.events_matched),
        ("events_not_matched", ledger.events_not_matched),
        ("etw_events_lost", losses.events_lost),
        ("etw_buffers_lost", losses.real_time_buffers_lost + losses.log_buffers_lost),
        ("session_restarts", load(&counters.restarts)),
        ("rules", rules as u64),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .chain(dropped)
    .map(|(name, value)| CountV1 { name, value })
    .collect()
}
