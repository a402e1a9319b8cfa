//! The names of streams and subjects.

use super::NatsError;
use super::id::subject_token;
use super::settings::PARTITIONS_MAX;
use async_nats::jetstream::context::Context;
use futures_util::stream::StreamExt;
use sha2::{Digest, Sha256};

/// Prefixes of subjects, before the sensor's token.
pub(super) const GAPS: &str = "etwsieve.gaps";
pub(super) const CONFLICTS: &str = "etwsieve.conflicts";
pub(super) const SINKS: &str = "etwsieve.sinks";
pub(super) const STATUS: &str = "etwsieve.status";
const HITS: &str = "etwsieve.hits";

/// The stream of hits if there is one partition.
const STREAM: &str = "ETWSIEVE";
/// Gaps, conflicts and the names of sinks.
pub(super) const LEDGER_STREAM: &str = "ETWSIEVE-LEDGER";
/// The last status of each sensor.
pub(super) const STATUS_STREAM: &str = "ETWSIEVE-STATUS";
/// Maximum number of streams of the cluster that are examined.
const STREAMS_MAX: usize = 10_000;

/// The partitioning of sensors among streams of hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamLayout {
    partitions: usize,
}

impl StreamLayout {
    pub(super) fn new(partitions: usize) -> Self {
        Self { partitions: partitions.clamp(1, PARTITIONS_MAX) }
    }

    pub(super) fn partitions(self) -> usize {
        self.partitions
    }

    /// Returns the partition of a sensor: the first 8 bytes of the SHA-256 of its name, big-endian, modulo the number
    /// of partitions. All hits of a sensor are in one stream, which keeps their order.
    pub(super) fn partition(self, sensor: &str) -> usize {
        if self.partitions == 1 {
            return 0;
        }
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&Sha256::digest(sensor)[..8]);
        (u64::from_be_bytes(prefix) % self.partitions as u64) as usize
    }

    /// Returns the name of the stream of a partition.
    pub(super) fn stream(self, partition: usize) -> String {
        match self.partitions {
            1 => STREAM.into(),
            count => format!("{STREAM}-P{partition}-OF-{count}"),
        }
    }

    /// Returns the names of all streams of hits.
    pub(super) fn streams(self) -> Vec<String> {
        (0..self.partitions).map(|partition| self.stream(partition)).collect()
    }

    /// Returns the prefix of the subjects of a partition, before the sensor's token.
    pub(super) fn prefix(self, partition: usize) -> String {
        match self.partitions {
            1 => HITS.into(),
            _ => format!("{HITS}.{partition}"),
        }
    }

    /// Returns the subject of a sensor's hits.
    pub(super) fn subject(self, sensor: &str) -> String {
        format!("{}.{}", self.prefix(self.partition(sensor)), subject_token(sensor))
    }

    /// Returns the layout and partition to which a stream of hits belongs.
    fn of_stream(name: &str) -> Option<(Self, usize)> {
        if name == STREAM {
            return Some((Self::new(1), 0));
        }
        let (partition, count) = name.strip_prefix(STREAM)?.strip_prefix("-P")?.split_once("-OF-")?;
        let (partition, partitions) = (partition.parse().ok()?, count.parse().ok()?);
        let layout = Self { partitions };
        let is_ours = (2..=PARTITIONS_MAX).contains(&partitions) && layout.stream(partition) == name;
        (is_ours && partition < partitions).then_some((layout, partition))
    }

    /// Returns the layouts whose streams exist in the cluster, usually one.
    pub(super) async fn existing(context: &Context) -> Result<Vec<Self>, NatsError> {
        let mut names = context.stream_names().take(STREAMS_MAX);
        let mut found = Vec::new();
        while let Some(name) = names.next().await {
            let name = name.map_err(|error| NatsError::jetstream("the list of streams", error))?;
            found.extend(Self::of_stream(&name).map(|(layout, _)| layout));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_names_identify_their_layout() {
        for count in [1, 2, 7, PARTITIONS_MAX] {
            let layout = StreamLayout::new(count);
            for (partition, stream) in layout.streams().iter().enumerate() {
                assert_eq!(StreamLayout::of_stream(stream), Some((layout, partition)), "{stream}");
            }
        }
        for other in
            ["ETWSIEVE-STATUS", "ETWSIEVE-P0-OF-1", "ETWSIEVE-P2-OF-2", "ETWSIEVE-P01-OF-4", "EVENTS"]
        {
            assert_eq!(StreamLayout::of_stream(other), None, "{other}");
        }
    }

    #[test]
    fn sensors_are_divided_evenly_and_permanently() {
        let layout = StreamLayout::new(4);
        assert_eq!(layout.subject("srv-1.example.test"), "etwsieve.hits.0.srv-1_example_test");
        assert_eq!(StreamLayout::new(1).subject("srv-1.example.test"), "etwsieve.hits.srv-1_example_test");
        let mut counts = [0; 4];
        for number in 0..4000 {
            counts[layout.partition(&format!("srv{number}.example.test"))] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}
