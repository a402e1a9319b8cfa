//! Delivers to Elasticsearch's bulk API, with documents in the Elastic Common Schema.
//!
//! Every document is created under an id that is derived from event, rule and sensor, so sending it again changes
//! nothing: the answer is 409, which counts as delivered. The result of each document in an answer is considered
//! separately.

use super::bulk::{BulkRequest, Delivery, ReceiverPath, Verdict};
use super::http::{Answer, Client, Credentials, REQUEST_LEN_MIN};
use super::{DeliveryContext, Outcome, Record, RecordFormat, Sink, SinkError, SinkItem};
use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;

/// Settings of the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElasticSettings {
    /// `https://host:9200`.
    pub url: String,
    /// `ApiKey …` or `Basic …`; `None` if the cluster needs no authentication.
    pub credentials: Option<Credentials>,
    /// CA certificates for the server; `None`: the public ones.
    pub ca_file: Option<PathBuf>,
    /// Index or data stream.
    pub index: String,
    /// Length in bytes at which a request is sent.
    pub request_bytes: usize,
}

/// A sink for Elasticsearch.
#[derive(Debug)]
pub struct Elastic {
    settings: ElasticSettings,
    client: Client,
    path: ReceiverPath,
}

/// Errors of a document that are caused by the configuration of the index or cluster, so the document is retried.
const CONFIGURATION_ERRORS: [&str; 5] = [
    "invalid_index_name_exception",
    "index_closed_exception",
    "pipeline with id [",
    "no write index is defined for alias",
    "security_exception",
];

#[derive(Deserialize)]
struct BulkReply {
    items: Vec<BulkReplyItem>,
}

#[derive(Deserialize)]
struct BulkReplyItem {
    create: Created,
}

#[derive(Deserialize)]
struct Created {
    status: u16,
    error: Option<serde_json::Value>,
}

impl Elastic {
    /// Creates a sink, which connects with its first batch.
    ///
    /// # Errors
    ///
    /// The URL or a file cannot be used.
    pub fn new(settings: ElasticSettings) -> Result<Self, String> {
        let client = Client::new(&settings.url, settings.ca_file.as_deref(), settings.credentials.clone())?;
        Ok(Self { settings, client, path: ReceiverPath::default() })
    }

    fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let action = json!({ "create": { "_index": self.settings.index, "_id": record.identity() } });
        out.extend(action.to_string().as_bytes());
        out.push(b'\n');
        record.append(RecordFormat::Ecs, out);
        out.push(b'\n');
    }

    fn post(&self, body: &[u8], documents: usize) -> Result<Verdict, SinkError> {
        let headers = [("Content-Type", "application/x-ndjson")];
        let answer = self.client.post("/_bulk", &headers, body)?;
        match answer.status {
            200 => Ok(Verdict::Judged(self.read(&answer, documents)?)),
            413 => Ok(Verdict::Refused(None, format!("Elasticsearch: status 413: {}", answer.quote()))),
            // The bulk API reports errors per document. It refuses a request as a whole only if it cannot parse it.
            400 => Ok(Verdict::Suspect(answer.as_error(&self.settings.url))),
            _ => answer.judge(&self.settings.url, is_own(&answer)),
        }
    }

    /// Returns the outcomes of the `expected` documents.
    fn read(&self, answer: &Answer, expected: usize) -> Result<Vec<Outcome>, SinkError> {
        let reply: BulkReply = serde_json::from_slice(&answer.body).map_err(|error| {
            SinkError::new(format!("{}: unexpected answer from the bulk API: {error}", self.settings.url))
        })?;
        if reply.items.len() != expected {
            return Err(SinkError::new(format!(
                "{}: {} results for {expected} documents",
                self.settings.url,
                reply.items.len()
            )));
        }
        Ok(reply.items.into_iter().map(|item| judge(&item.create)).collect())
    }
}

/// Returns whether the answer is from Elasticsearch, not from a proxy in front of it.
fn is_own(answer: &Answer) -> bool {
    let body: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    body.is_some_and(|body| body["error"].is_object() || body["status"].is_number())
}

/// Returns the outcome of a document. 409: it already exists. 400 and 413: the document is at fault, unless its error
/// says otherwise. Everything else is transient: overload (429), a full cluster or a missing permission (403), a
/// missing index (404), failures (5xx).
fn judge(created: &Created) -> Outcome {
    let error = created.error.as_ref().map(ToString::to_string).unwrap_or_default();
    let reason = || {
        format!("Elasticsearch: status {}: {}", created.status, error.chars().take(500).collect::<String>())
    };
    match created.status {
        200 | 201 | 409 => Outcome::Delivered,
        400 if CONFIGURATION_ERRORS.iter().any(|known| error.contains(known)) => Outcome::Later(reason()),
        400 | 413 => Outcome::Refused(reason()),
        _ => Outcome::Later(reason()),
    }
}

impl Sink for Elastic {
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

impl Elastic {
    fn deliver_on(
        &self,
        path: &mut ReceiverPath,
        batch: &[SinkItem],
        context: &mut dyn DeliveryContext,
    ) -> Result<Vec<Outcome>, SinkError> {
        let post = |body: &[u8], documents: usize| self.post(body, documents);
        let mut delivery = Delivery::new(path, batch.len());
        let mut request = BulkRequest::default();
        for (index, item) in batch.iter().enumerate() {
            for record in Record::of(item) {
                self.append(&record, &mut request.body);
                request.end_record(index);
                if request.body.len() >= self.settings.request_bytes.max(REQUEST_LEN_MIN) {
                    delivery.send(&request, context, post)?;
                    request = BulkRequest::default();
                }
            }
        }
        delivery.send(&request, context, post)?;
        delivery.finish(post)
    }
}
