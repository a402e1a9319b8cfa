//! Elasticsearch's bulk API, with documents of the Elastic Common Schema.
//!
//! Every document is created under an id that follows from event, rule and sensor, so sending it again changes nothing:
//! the answer is then 409, which counts as delivered. What the answer says is judged document by document.

use super::http::{Answer, Client, Credentials, REQUEST_LEN_MIN};
use super::{Item, Outcome, Progress, Record, RecordFormat, Sink, SinkError, join};
use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

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
}

/// The documents of a request: where each ends in the body, and the hit that it belongs to.
#[derive(Default)]
struct Request {
    body: Vec<u8>,
    documents: Vec<(usize, usize)>,
}

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
        Ok(Self { settings, client })
    }

    fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let action = json!({ "create": { "_index": self.settings.index, "_id": record.identity() } });
        out.extend(action.to_string().as_bytes());
        out.push(b'\n');
        record.append(RecordFormat::Ecs, out);
        out.push(b'\n');
    }

    /// Sends a request, in halves where it is too long.
    fn send(&self, request: &Request, outcomes: &mut [Outcome]) -> Result<(), SinkError> {
        // Parts of the request still to be sent, as ranges of documents, the first one last.
        let mut parts = vec![(0, request.documents.len())];
        while let Some((start, end)) = parts.pop() {
            if start == end {
                continue;
            }
            let offset = |document: usize| if document == 0 { 0 } else { request.documents[document - 1].0 };
            let body = &request.body[offset(start)..offset(end)];
            let headers = [("Content-Type", "application/x-ndjson")];
            let answer = self.client.post("/_bulk", &headers, body)?;
            match answer.status {
                200 => {
                    let verdicts = self.read(&answer, end - start)?;
                    for (verdict, (_, item)) in verdicts.into_iter().zip(&request.documents[start..end]) {
                        join(&mut outcomes[*item], verdict);
                    }
                }
                413 if end - start > 1 => {
                    let middle = start + (end - start) / 2;
                    parts.extend([(middle, end), (start, middle)]);
                }
                413 => {
                    let reason = format!("Elasticsearch: status 413: {}", answer.quote());
                    join(&mut outcomes[request.documents[start].1], Outcome::Refused(reason));
                }
                _ => return Err(answer.as_error(&self.settings.url)),
            }
        }
        Ok(())
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

/// 409: it is there already. 400 and 413: the document itself. Everything else may pass: overload (429), a cluster that
/// has no room or a missing permission (403), an index that is not there yet (404), failures (5xx).
fn judge(created: &Created) -> Outcome {
    let reason = || {
        let error = created.error.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("Elasticsearch: status {}: {}", created.status, error.chars().take(500).collect::<String>())
    };
    match created.status {
        200 | 201 | 409 => Outcome::Delivered,
        400 | 413 => Outcome::Refused(reason()),
        _ => Outcome::Later(reason()),
    }
}

impl Sink for Elastic {
    fn deliver(&mut self, batch: &[Item], progress: &mut dyn Progress) -> Result<Vec<Outcome>, SinkError> {
        let mut outcomes = vec![Outcome::Delivered; batch.len()];
        let mut request = Request::default();
        for (index, item) in batch.iter().enumerate() {
            for record in Record::of(item) {
                self.append(&record, &mut request.body);
                request.documents.push((request.body.len(), index));
                if request.body.len() >= self.settings.request_bytes.max(REQUEST_LEN_MIN) {
                    self.send(&request, &mut outcomes)?;
                    request = Request::default();
                    if !progress.wait(Duration::ZERO) {
                        return Err(SinkError::new("stopped in the middle of a batch"));
                    }
                }
            }
        }
        self.send(&request, &mut outcomes)?;
        Ok(outcomes)
    }
}
