//! Elasticsearch's bulk API, with documents of the Elastic Common Schema.
//!
//! Every document is created under an id that follows from event, rule and sensor, so sending it again changes nothing:
//! the answer is then 409, which counts as delivered. What the answer says is judged document by document.

use super::bulk::{Delivery, Request, Verdict, Way};
use super::http::{Answer, Client, Credentials, REQUEST_LEN_MIN};
use super::{Item, Outcome, Progress, Record, RecordFormat, Sink, SinkError};
use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;

/// What can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElasticSettings {
    /// `https://host:9200`.
    pub url: String,
    /// `ApiKey …` or `Basic …`; `None` where the cluster asks for nothing.
    pub credentials: Option<Credentials>,
    /// Certificates that vouch for the server; `None`: the public ones.
    pub ca_file: Option<PathBuf>,
    /// Index or data stream.
    pub index: String,
    /// Bytes after which a request is sent.
    pub request_bytes: usize,
}

/// The sink.
#[derive(Debug)]
pub struct Elastic {
    settings: ElasticSettings,
    client: Client,
    way: Way,
}

/// Errors of a document that are the index's or the cluster's: they pass when somebody has mended the configuration.
const CONFIGURATION_ERRORS: [&str; 5] = [
    "invalid_index_name_exception",
    "index_closed_exception",
    "pipeline with id [",
    "no write index is defined for alias",
    "security_exception",
];

#[derive(Deserialize)]
struct Reply {
    items: Vec<ReplyItem>,
}

#[derive(Deserialize)]
struct ReplyItem {
    create: Created,
}

#[derive(Deserialize)]
struct Created {
    status: u16,
    error: Option<serde_json::Value>,
}

impl Elastic {
    /// A sink; it connects with its first batch.
    ///
    /// # Errors
    ///
    /// An address or a file that cannot be used, in words.
    pub fn new(settings: ElasticSettings) -> Result<Self, String> {
        let client = Client::new(&settings.url, settings.ca_file.as_deref(), settings.credentials.clone())?;
        Ok(Self { settings, client, way: Way::default() })
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
            // The bulk API judges documents one by one; what it refuses as a whole it could not read.
            400 => Ok(Verdict::Suspect(answer.as_error(&self.settings.url))),
            _ => answer.judge(&self.settings.url, is_own(&answer)),
        }
    }

    /// What became of each of `expected` documents.
    fn read(&self, answer: &Answer, expected: usize) -> Result<Vec<Outcome>, SinkError> {
        let reply: Reply = serde_json::from_slice(&answer.body).map_err(|error| {
            SinkError::new(format!("{}: the answer is none of the bulk API: {error}", self.settings.url))
        })?;
        if reply.items.len() != expected {
            return Err(SinkError::new(format!(
                "{}: {} answers to {expected} documents",
                self.settings.url,
                reply.items.len()
            )));
        }
        Ok(reply.items.into_iter().map(|item| judge(&item.create)).collect())
    }
}

/// Whether the answer is Elasticsearch's, not that of a proxy before it.
fn is_own(answer: &Answer) -> bool {
    let body: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    body.is_some_and(|body| body["error"].is_object() || body["status"].is_number())
}

/// 409: it is there already. 400 and 413: the document itself, unless its error says otherwise. Everything else may pass:
/// overload (429), a cluster that has no room or a missing permission (403), an index that is not there yet (404),
/// failures (5xx).
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
    fn deliver(&mut self, batch: &[Item], progress: &mut dyn Progress) -> Result<Vec<Outcome>, SinkError> {
        let mut way = std::mem::take(&mut self.way);
        let delivered = self.deliver_over(&mut way, batch, progress);
        self.way = way;
        delivered
    }
}

impl Elastic {
    fn deliver_over(
        &self,
        way: &mut Way,
        batch: &[Item],
        progress: &mut dyn Progress,
    ) -> Result<Vec<Outcome>, SinkError> {
        let post = |body: &[u8], documents: usize| self.post(body, documents);
        let mut delivery = Delivery::new(way, batch.len());
        let mut request = Request::default();
        for (index, item) in batch.iter().enumerate() {
            for record in Record::of(item) {
                self.append(&record, &mut request.body);
                request.end_record(index);
                if request.body.len() >= self.settings.request_bytes.max(REQUEST_LEN_MIN) {
                    delivery.send(&request, progress, post)?;
                    request = Request::default();
                }
            }
        }
        delivery.send(&request, progress, post)?;
        delivery.finish(post)
    }
}
