//! Splunk's HTTP Event Collector, with indexer acknowledgement.
//!
//! Events go to `/services/collector/event` on a channel of our own; each answer carries an `ackId`, and
//! `/services/collector/ack` is asked until it says that the events behind it are indexed. Only then are they delivered.
//! If it does not say so in time (an indexer has restarted and forgotten), the batch is sent again.
//!
//! Statuses and codes: Splunk's manual, "Troubleshoot HTTP Event Collector", possible error codes.

use super::bulk::{Delivery, Request, Verdict, Way};
use super::http::{Answer, Client, Credentials, REQUEST_LEN_MIN};
use super::record::hex;
use super::{Item, Outcome, Progress, Record, Sink, SinkError};
use serde::Deserialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// First and longest pause between two questions for acknowledgements.
const ACK_POLL_MIN: Duration = Duration::from_millis(100);
const ACK_POLL_MAX: Duration = Duration::from_secs(5);

/// What can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplunkSettings {
    /// `https://host:8088`.
    pub url: String,
    /// `Splunk TOKEN`.
    pub credentials: Credentials,
    /// Certificates that vouch for the server; `None`: the public ones.
    pub ca_file: Option<PathBuf>,
    /// The index, unless the token's default.
    pub index: Option<String>,
    /// The source type.
    pub sourcetype: String,
    /// Whether to wait for the indexers. Without it, delivered means received.
    pub acknowledge: bool,
    /// How long to wait for them.
    pub ack_timeout: Duration,
    /// Bytes after which a request is sent.
    pub request_bytes: usize,
}

/// The sink.
#[derive(Debug)]
pub struct Splunk {
    settings: SplunkSettings,
    client: Client,
    /// The channel: a GUID of this process.
    channel: String,
    way: Way,
}

#[derive(Deserialize)]
struct Reply {
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
    /// A sink; it connects with its first batch.
    ///
    /// # Errors
    ///
    /// An address or a file that cannot be used, in words.
    pub fn new(settings: SplunkSettings) -> Result<Self, String> {
        let client =
            Client::new(&settings.url, settings.ca_file.as_deref(), Some(settings.credentials.clone()))?;
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| format!("the system gives no random numbers: {error}"))?;
        Ok(Self { settings, client, channel: guid(random), way: Way::default() })
    }

    fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let mut event = record.splunk();
        event["sourcetype"] = json!(self.settings.sourcetype);
        if let Some(index) = &self.settings.index {
            event["index"] = json!(index);
        }
        out.extend(event.to_string().as_bytes());
    }

    /// Sends some events; gives the number to wait for, too.
    fn post(&self, body: &[u8]) -> Result<(Verdict, Option<u64>), SinkError> {
        let headers =
            [("Content-Type", "application/json"), ("X-Splunk-Request-Channel", self.channel.as_str())];
        let answer = self.client.post("/services/collector/event", &headers, body)?;
        let reply: Option<Reply> = serde_json::from_slice(&answer.body).ok();
        let code = reply.as_ref().and_then(|reply| reply.code);
        let verdict = match (answer.status, code) {
            (200, Some(0)) => {
                return Ok((Verdict::Accepted, self.accepted(reply.and_then(|reply| reply.ack_id))?));
            }
            // No data, no such format, no event, a blank event, indexed fields: the events themselves.
            (400, Some(5 | 6 | 12 | 13 | 15)) => {
                Verdict::Refused(reply.and_then(|reply| reply.invalid_event_number), Self::quote(&answer))
            }
            (413, _) => Verdict::Refused(None, Self::quote(&answer)),
            // Index, token, channel, overload: not the events' fault.
            _ => answer.judge(&self.settings.url, code.is_some())?,
        };
        Ok((verdict, None))
    }

    fn accepted(&self, ack_id: Option<u64>) -> Result<Option<u64>, SinkError> {
        if self.settings.acknowledge && ack_id.is_none() {
            return Err(SinkError::new(format!(
                "{}: the answer has no ackId: turn on indexer acknowledgement for the token, or set acknowledge = false",
                self.settings.url
            )));
        }
        Ok(ack_id.filter(|_| self.settings.acknowledge))
    }

    fn quote(answer: &Answer) -> String {
        format!("Splunk: status {}: {}", answer.status, answer.quote())
    }

    /// Waits until the indexers have everything.
    fn wait(&self, mut acks: BTreeSet<u64>, progress: &mut dyn Progress) -> Result<(), SinkError> {
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
                    "{}: {} requests not indexed within {} s; they are sent again",
                    self.settings.url,
                    acks.len(),
                    self.settings.ack_timeout.as_secs()
                )));
            }
            if !progress.wait(pause) {
                return Err(SinkError::new("stopped while waiting for the indexers"));
            }
            pause = (pause * 2).min(ACK_POLL_MAX);
        }
        Ok(())
    }
}

impl Sink for Splunk {
    fn deliver(&mut self, batch: &[Item], progress: &mut dyn Progress) -> Result<Vec<Outcome>, SinkError> {
        let mut way = std::mem::take(&mut self.way);
        let delivered = self.deliver_over(&mut way, batch, progress);
        self.way = way;
        delivered
    }
}

impl Splunk {
    fn deliver_over(
        &self,
        way: &mut Way,
        batch: &[Item],
        progress: &mut dyn Progress,
    ) -> Result<Vec<Outcome>, SinkError> {
        let mut acks = BTreeSet::new();
        let mut post = |body: &[u8], _: usize| {
            let (verdict, ack_id) = self.post(body)?;
            acks.extend(ack_id);
            Ok(verdict)
        };
        let mut delivery = Delivery::new(way, batch.len());
        let mut request = Request::default();
        for (index, item) in batch.iter().enumerate() {
            for record in Record::of(item) {
                self.append(&record, &mut request.body);
                request.end_record(index);
                if request.body.len() >= self.settings.request_bytes.max(REQUEST_LEN_MIN) {
                    delivery.send(&request, progress, &mut post)?;
                    request = Request::default();
                }
            }
        }
        delivery.send(&request, progress, &mut post)?;
        let outcomes = delivery.finish(&mut post)?;
        self.wait(acks, progress)?;
        Ok(outcomes)
    }
}

/// Random bytes as a GUID of version 4.
fn guid(mut random: [u8; 16]) -> String {
    random[6] = random[6] & 0x0F | 0x40;
    random[8] = random[8] & 0x3F | 0x80;
    let text = hex(&random);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}
