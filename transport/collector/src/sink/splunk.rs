//! Delivers to Splunk's HTTP Event Collector, with indexer acknowledgement.
//!
//! Events are sent to `/services/collector/event` on a separate channel. Each answer contains an `ackId`, and
//! `/services/collector/ack` is polled until it confirms that its events are indexed. Only then are they delivered. If
//! there is no confirmation in time, for example because an indexer has restarted, the batch is sent again.
//!
//! Statuses and codes: Splunk's manual, "Troubleshoot HTTP Event Collector", possible error codes.

use super::bulk::{BulkRequest, Delivery, ReceiverPath, Verdict};
use super::http::{Answer, Client, Credentials, REQUEST_LEN_MIN};
use super::{DeliveryContext, Outcome, Record, Sink, SinkError, SinkItem};
use serde::Deserialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// First and longest pause between two polls for acknowledgements.
const ACK_POLL_MIN: Duration = Duration::from_millis(100);
const ACK_POLL_MAX: Duration = Duration::from_secs(5);

/// Settings of the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplunkSettings {
    /// `https://host:8088`.
    pub url: String,
    /// `Splunk TOKEN`.
    pub credentials: Credentials,
    /// CA certificates for the server; `None`: the public ones.
    pub ca_file: Option<PathBuf>,
    /// The index; `None`: the default of the token.
    pub index: Option<String>,
    /// The source type.
    pub sourcetype: String,
    /// Whether to wait for indexer acknowledgement. Without it, events are delivered when they are received.
    pub acknowledge: bool,
    /// Time limit for the acknowledgement.
    pub ack_timeout: Duration,
    /// Length in bytes at which a request is sent.
    pub request_bytes: usize,
}

/// A sink for Splunk.
#[derive(Debug)]
pub struct Splunk {
    settings: SplunkSettings,
    client: Client,
    /// The channel, a random GUID.
    channel: String,
    path: ReceiverPath,
}

#[derive(Deserialize)]
struct HecReply {
    code: Option<i64>,
    #[serde(rename = "ackId")]
    ack_id: Option<u64>,
    #[serde(rename = "invalid-event-number")]
    invalid_event_number: Option<usize>,
}

#[derive(Deserialize)]
struct Acks {
    acks: BTreeMap<String, bool>,
}

impl Splunk {
    /// Creates a sink, which connects with its first batch.
    ///
    /// # Errors
    ///
    /// The URL or a file cannot be used.
    pub fn new(settings: SplunkSettings) -> Result<Self, String> {
        let client =
            Client::new(&settings.url, settings.ca_file.as_deref(), Some(settings.credentials.clone()))?;
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| format!("cannot get random numbers from the system: {error}"))?;
        Ok(Self {
            settings,
            client,
            channel: uuid::Builder::from_random_bytes(random).into_uuid().to_string(),
            path: ReceiverPath::default(),
        })
    }

    fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let mut event = record.splunk();
        event["sourcetype"] = json!(self.settings.sourcetype);
        if let Some(index) = &self.settings.index {
            event["index"] = json!(index);
        }
        out.extend(event.to_string().as_bytes());
    }

    /// Sends events and returns the `ackId` to wait for, if any.
    fn post(&self, body: &[u8]) -> Result<(Verdict, Option<u64>), SinkError> {
        let headers =
            [("Content-Type", "application/json"), ("X-Splunk-Request-Channel", self.channel.as_str())];
        let answer = self.client.post("/services/collector/event", &headers, body)?;
        let reply: Option<HecReply> = serde_json::from_slice(&answer.body).ok();
        let code = reply.as_ref().and_then(|reply| reply.code);
        let verdict = match (answer.status, code) {
            (200, Some(0)) => {
                return Ok((Verdict::Accepted, self.accepted(reply.and_then(|reply| reply.ack_id))?));
            }
            // No data, invalid format, missing event, blank event, invalid indexed fields: the events are at fault.
            (400, Some(5 | 6 | 12 | 13 | 15)) => {
                Verdict::Refused(reply.and_then(|reply| reply.invalid_event_number), Self::quote(&answer))
            }
            (413, _) => Verdict::Refused(None, Self::quote(&answer)),
            // Index, token, channel, overload: the events are not at fault.
            _ => answer.judge(&self.settings.url, code.is_some())?,
        };
        Ok((verdict, None))
    }

    fn accepted(&self, ack_id: Option<u64>) -> Result<Option<u64>, SinkError> {
        if self.settings.acknowledge && ack_id.is_none() {
            return Err(SinkError::new(format!(
                "{}: the answer has no ackId; enable indexer acknowledgement for the token, or set acknowledge = false",
                self.settings.url
            )));
        }
        Ok(ack_id.filter(|_| self.settings.acknowledge))
    }

    fn quote(answer: &Answer) -> String {
        format!("Splunk: status {}: {}", answer.status, answer.quote())
    }

    /// Waits until all events are indexed.
    fn wait(&self, mut acks: BTreeSet<u64>, context: &mut dyn DeliveryContext) -> Result<(), SinkError> {
        let (begun, mut pause) = (Instant::now(), ACK_POLL_MIN);
        let path = format!("/services/collector/ack?channel={}", self.channel);
        while !acks.is_empty() {
            let body = json!({ "acks": acks }).to_string();
            let answer = self.client.post(&path, &[("Content-Type", "application/json")], body.as_bytes())?;
            let known: Acks = match (answer.status, serde_json::from_slice(&answer.body)) {
                (200, Ok(known)) => known,
                _ => return Err(answer.as_error(&format!("{}{path}", self.settings.url))),
            };
            acks.retain(|id| known.acks.get(&id.to_string()) != Some(&true));
            if acks.is_empty() {
                break;
            }
            if begun.elapsed() >= self.settings.ack_timeout {
                return Err(SinkError::new(format!(
                    "{}: {} requests not indexed within {} s, sending them again",
                    self.settings.url,
                    acks.len(),
                    self.settings.ack_timeout.as_secs()
                )));
            }
            if !context.wait(pause) {
                return Err(SinkError::new("stopped while waiting for the indexers"));
            }
            pause = (pause * 2).min(ACK_POLL_MAX);
        }
        Ok(())
    }
}

impl Sink for Splunk {
    fn deliver(
        &mut self,
        batch: &[SinkItem],
        context: &mut dyn DeliveryContext,
    ) -> Result<Vec<Outcome>, SinkError> {
        let mut path = std::mem::take(&mut self.path);
        let delivered = self.deliver_on(&mut path, batch, context);
        self.path = path;
        delivered
    }
}

impl Splunk {
    fn deliver_on(
        &self,
        path: &mut ReceiverPath,
        batch: &[SinkItem],
        context: &mut dyn DeliveryContext,
    ) -> Result<Vec<Outcome>, SinkError> {
        let mut acks = BTreeSet::new();
        let mut post = |body: &[u8], _: usize| {
            let (verdict, ack_id) = self.post(body)?;
            acks.extend(ack_id);
            Ok(verdict)
        };
        let mut delivery = Delivery::new(path, batch.len());
        let mut request = BulkRequest::default();
        for (index, item) in batch.iter().enumerate() {
            for record in Record::of(item) {
                self.append(&record, &mut request.body);
                request.end_record(index);
                if request.body.len() >= self.settings.request_bytes.max(REQUEST_LEN_MIN) {
                    delivery.send(&request, context, &mut post)?;
                    request = BulkRequest::default();
                }
            }
        }
        delivery.send(&request, context, &mut post)?;
        let outcomes = delivery.finish(&mut post)?;
        self.wait(acks, context)?;
        Ok(outcomes)
    }
}
