//! Reports of sinks: the last state of each sink is a message in the stream of statuses.

use super::layout::STATUS;
use super::{ACK_TIMEOUT, VERSION_HEADER};
use crate::sink::SinkCounts;
use async_nats::HeaderMap;
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::Stream;

/// Maximum length of a report in bytes.
const REPORT_LEN_MAX: usize = 64 * 1024;
/// Prefix of a sink's name. No sensor's token contains a colon.
const PREFIX: &str = "sink:";

/// Returns whether the last token of a status subject belongs to a sink, not a sensor.
pub(super) fn is_sink(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// Publishes the report of a sink. A lost report does no harm, because others follow.
pub(super) async fn publish(context: &Context, sink: &str, counts: &SinkCounts) {
    let Ok(text) = serde_json::to_vec(counts) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(VERSION_HEADER, "1");
    let subject = format!("{STATUS}.{PREFIX}{sink}");
    let published = tokio::time::timeout(ACK_TIMEOUT, async {
        context.publish_with_headers(subject, headers, text.into()).await?.await
    });
    if let Ok(Err(error)) = published.await {
        tracing::debug!(sink, %error, "cannot store the state of the sink");
    }
}

/// Returns the last report of a sink and when it was stored, in seconds since 1970.
pub(super) async fn read(statuses: &Stream, sink: &str) -> Option<(SinkCounts, i64)> {
    let message = statuses.get_last_raw_message_by_subject(&format!("{STATUS}.{PREFIX}{sink}")).await.ok()?;
    if message.payload.len() > REPORT_LEN_MAX {
        return None;
    }
    Some((serde_json::from_slice(&message.payload).ok()?, message.time.unix_timestamp()))
}
