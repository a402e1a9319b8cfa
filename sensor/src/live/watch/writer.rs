//! Writes the hits of a live run as they arrive: to the output, the database and the collector.

use crate::live::counters::SessionCounters;
use crate::live::notice::Notice;
use crate::live::report::{self, EtwLosses, HitCounts};
use crate::output::Format;
use crate::pipeline::{Gap, Observer, Progress};
use crate::source::SourceError;
use crate::stop::Stop;
use crossbeam_channel::Receiver;
use etwsieve_transport::hit::HitV1;
use etwsieve_transport::sender::HitSender;
use etwsieve_transport::store::Store;
use std::io::{self, BufWriter, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Maximum number of hits that are pending for the database; beyond it the oldest are dropped.
const STORE_PENDING_MAX: usize = 4096;
/// Hits stored in one transaction.
const STORE_BATCH: usize = 256;
/// Pause after a failed write to the database.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// Writes hits and notices as they arrive.
pub(super) struct HitWriter<'a> {
    pub(super) name: String,
    pub(super) computer: String,
    pub(super) format: Format,
    pub(super) out: BufWriter<Box<dyn Write + Send>>,
    pub(super) unflushed: bool,
    pub(super) store: Option<Store>,
    pub(super) sender: Option<HitSender>,
    /// Hits that are not in the database yet.
    pub(super) pending: Vec<HitV1>,
    /// When the database last failed.
    pub(super) store_failed: Option<Instant>,
    pub(super) notices: Receiver<Notice>,
    pub(super) counts: &'a HitCounts,
    pub(super) counters: &'a SessionCounters,
    pub(super) stop: &'a Stop,
    /// Events dropped in the gaps since the last report.
    pub(super) gaps: u64,
    pub(super) reported: Instant,
    pub(super) report_every: Duration,
}

impl HitWriter<'_> {
    fn write(&mut self, mut hit: HitV1) {
        if hit.computer.is_none() && !self.computer.is_empty() {
            hit.computer = Some(self.computer.clone());
        }
        match self.format.write(&hit, &mut self.out) {
            Ok(()) => {
                self.unflushed = true;
                self.counts.written.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => self.output_failed(&error),
        }
        if let Some(sender) = &self.sender {
            sender.offer(&hit);
        }
        if self.store.is_some() {
            self.pending.push(hit);
            if self.pending.len() >= STORE_BATCH {
                self.flush_store();
            }
        }
    }

    fn output_failed(&mut self, error: &io::Error) {
        if self.store.is_none() && self.sender.is_none() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            // No other output would receive the hits.
            if !self.stop.requested() {
                tracing::error!("cannot write the output, stopping the sensor: {error}");
            }
            self.stop.request();
        }
    }

    pub(super) fn take_notices(&mut self) {
        while let Ok(notice) = self.notices.try_recv() {
            let number = self.counts.notices.fetch_add(1, Ordering::Relaxed);
            let hit = notice.into_hit(&self.name, &self.computer, number);
            self.write(hit);
        }
    }

    fn flush_store(&mut self) {
        let Some(store) = &mut self.store else { return };
        if self.pending.is_empty() || self.store_failed.is_some_and(|at| at.elapsed() < STORE_RETRY) {
            self.limit_pending();
            return;
        }
        match store.insert_batch(&self.pending) {
            Ok(_) => {
                self.counts.stored.fetch_add(self.pending.len() as u64, Ordering::Relaxed);
                self.pending.clear();
                self.store_failed = None;
            }
            Err(error) => {
                tracing::error!(pending = self.pending.len(), "cannot store hits, will retry: {error}");
                self.store_failed = Some(Instant::now());
                self.limit_pending();
            }
        }
    }

    fn limit_pending(&mut self) {
        let over = self.pending.len().saturating_sub(STORE_PENDING_MAX);
        if over > 0 {
            self.counts.lost.fetch_add(over as u64, Ordering::Relaxed);
            self.pending.drain(..over);
        }
    }

    fn flush(&mut self) {
        if std::mem::take(&mut self.unflushed)
            && let Err(error) = self.out.flush()
        {
            self.output_failed(&error);
        }
        self.flush_store();
    }

    pub(super) fn finish(&mut self) {
        self.store_failed = None;
        self.flush();
        if !self.pending.is_empty() {
            self.counts.lost.fetch_add(self.pending.len() as u64, Ordering::Relaxed);
        }
    }
}

impl Observer for HitWriter<'_> {
    fn hit(&mut self, _source: u32, hit: HitV1) {
        self.write(hit);
    }

    fn gap(&mut self, _source: u32, gap: Gap) {
        self.gaps += gap.events;
        tracing::debug!(until = %gap.until, before = gap.before_sequence, events = gap.events, "events were dropped");
    }

    fn tick(&mut self, progress: &Progress) {
        self.take_notices();
        self.flush();
        if self.reported.elapsed() >= self.report_every {
            self.reported = Instant::now();
            let line = report::summary_line(&report::ledger(progress), &EtwLosses::read(self.counters));
            if std::mem::take(&mut self.gaps) > 0 {
                tracing::warn!("{line}");
            } else {
                tracing::info!("{line}");
            }
        }
    }

    fn failed(&mut self, _source: u32, error: &SourceError) {
        tracing::error!("{error}");
    }
}
