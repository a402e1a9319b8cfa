//! Options that several commands share.

use crate::delivery::{CollectorOrder, CollectorSettings, SpoolKeep};
use clap::Args;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// Options that select rules.
#[derive(Debug, Default, Args)]
pub(super) struct RuleArgs {
    /// Sigma rules and filters: files, or folders that are searched for .yml and .yaml files [default: the built-in
    /// rule].
    #[arg(long, value_name = "FILE|DIR")]
    pub(super) rules: Vec<PathBuf>,
    /// Continue without invalid rules, and list them.
    #[arg(long)]
    pub(super) allow_bad_rules: bool,
}

/// Options that send hits to a collector.
#[derive(Debug, Args)]
pub(super) struct CollectorArgs {
    /// Send hits to this collector; repeat the option or separate addresses by commas to add fallbacks.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub(super) collector: Vec<String>,
    /// Certificate, key and authority of this sensor, from `etwsieve-collector pki issue`.
    #[arg(long, value_name = "FILE")]
    pub(super) bundle: Option<PathBuf>,
    /// Spool for hits that no collector has acknowledged yet [default: next to --store, otherwise in the data folder].
    #[arg(long, value_name = "FILE|DIR")]
    pub(super) spool: Option<PathBuf>,
    /// Maximum size of the spool in MB; excess hits are dropped, counted and reported [default: 256].
    #[arg(long, value_name = "MB")]
    pub(super) spool_max: Option<u64>,
    /// Hits that a full spool keeps [default: oldest].
    #[arg(long, value_enum)]
    pub(super) spool_keep: Option<SpoolKeep>,
    /// Order in which collectors are tried [default: shuffled].
    #[arg(long, value_enum)]
    pub(super) collector_order: Option<CollectorOrder>,
    /// Send without TLS, to a collector on this machine only.
    #[arg(long)]
    pub(super) insecure_loopback: bool,
}

impl CollectorArgs {
    /// Overrides `settings` with the options that were given.
    pub(super) fn apply(&self, settings: &mut CollectorSettings) {
        if !self.collector.is_empty() {
            settings.addresses.clone_from(&self.collector);
        }
        if self.bundle.is_some() {
            settings.bundle.clone_from(&self.bundle);
        }
        if self.spool.is_some() {
            settings.spool.clone_from(&self.spool);
        }
        settings.spool_max_mb = self.spool_max.unwrap_or(settings.spool_max_mb);
        settings.spool_keep = self.spool_keep.unwrap_or(settings.spool_keep);
        settings.order = self.collector_order.unwrap_or(settings.order);
        settings.insecure_loopback |= self.insecure_loopback;
    }
}

/// Output formats of the commands that print facts rather than hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum FactFormat {
    /// Aligned columns for people.
    Table,
    /// JSON Lines.
    Jsonl,
}

impl FactFormat {
    /// Returns a table for a terminal and JSON Lines otherwise.
    pub(super) fn for_stdout() -> Self {
        if io::stdout().is_terminal() { Self::Table } else { Self::Jsonl }
    }
}
