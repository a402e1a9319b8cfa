//! Sends many records per request, and splits requests that are refused, so that a bad record does not affect others.
//!
//! If the receiver blames a record, that record is refused. A proxy or firewall in between, which may object to the
//! text of a script, does not say why it refuses a request. A record refused like this is a suspect, which is refused
//! permanently only if the path to the receiver works for other records.

use super::{DeliveryContext, Outcome, SinkError, join};
use std::time::Duration;

/// Number of consecutive deliveries of only suspects after which they are refused; this takes several minutes.
const SUSPECT_ROUNDS_MAX: u32 = 10;
/// Maximum length of a record that is kept as a probe, in bytes.
const PROBE_LEN_MAX: usize = 64 * 1024;

/// The records of a request: the end of each in the body, and the index of its hit.
#[derive(Default)]
pub(super) struct BulkRequest {
    pub(super) body: Vec<u8>,
    records: Vec<(usize, usize)>,
}

impl BulkRequest {
    /// Ends a record that was appended to the body and belongs to the hit with this index.
    pub(super) fn end_record(&mut self, hit: usize) {
        self.records.push((self.body.len(), hit));
    }

    fn offset(&self, record: usize) -> usize {
        record.checked_sub(1).map_or(0, |before| self.records[before].0)
    }
}

/// The answer to a request.
pub(super) enum Verdict {
    /// The outcome of each record.
    Judged(Vec<Outcome>),
    /// All records are accepted.
    Accepted,
    /// A record is refused permanently, with its number if the receiver names it, and no record of the request is
    /// accepted.
    Refused(Option<usize>, String),
    /// The request is refused without blaming a record.
    Suspect(SinkError),
}

/// The state of the path to the receiver, kept between deliveries.
#[derive(Debug, Default)]
pub(super) struct ReceiverPath {
    /// An accepted record. Sending it again shows whether the path works.
    probe: Vec<u8>,
    /// Number of consecutive deliveries of only suspects.
    suspect_rounds: u32,
}

/// One delivery of a batch.
pub(super) struct Delivery<'a> {
    path: &'a mut ReceiverPath,
    outcomes: Vec<Outcome>,
    suspects: Vec<(usize, SinkError)>,
    /// A record was accepted, so the path works.
    is_open: bool,
    /// A request was sent.
    is_begun: bool,
}

impl<'a> Delivery<'a> {
    /// Starts the delivery of a batch of `hits` hits.
    pub(super) fn new(path: &'a mut ReceiverPath, hits: usize) -> Self {
        Self {
            path,
            outcomes: vec![Outcome::Delivered; hits],
            suspects: Vec::new(),
            is_open: false,
            is_begun: false,
        }
    }

    /// Sends a request, and splits it in halves if it is refused. `post` receives a body and its number of records.
    ///
    /// # Errors
    ///
    /// Those of `post`, or the program stops.
    pub(super) fn send(
        &mut self,
        request: &BulkRequest,
        context: &mut dyn DeliveryContext,
        mut post: impl FnMut(&[u8], usize) -> Result<Verdict, SinkError>,
    ) -> Result<(), SinkError> {
        // The parts of the request still to be sent, as ranges of records in reverse order.
        let mut parts = vec![(0, request.records.len())];
        while let Some((start, end)) = parts.pop() {
            if start == end {
                continue;
            }
            // Not after the last request: a batch that is complete should be acknowledged, not sent again.
            if self.is_begun && !context.wait(Duration::ZERO) {
                return Err(SinkError::new("stopped in the middle of a batch"));
            }
            self.is_begun = true;
            let body = &request.body[request.offset(start)..request.offset(end)];
            match post(body, end - start)? {
                Verdict::Accepted => self.take(request, start),
                Verdict::Judged(verdicts) => {
                    if verdicts.first() == Some(&Outcome::Delivered) {
                        self.take(request, start);
                    }
                    for (verdict, (_, hit)) in verdicts.into_iter().zip(&request.records[start..end]) {
                        join(&mut self.outcomes[*hit], verdict);
                    }
                }
                Verdict::Refused(_, reason) if end - start == 1 => {
                    join(&mut self.outcomes[request.records[start].1], Outcome::Refused(reason));
                }
                Verdict::Suspect(error) if end - start == 1 => {
                    self.suspects.push((request.records[start].1, error));
                }
                Verdict::Refused(Some(number), reason) if number < end - start => {
                    let record = start + number;
                    join(&mut self.outcomes[request.records[record].1], Outcome::Refused(reason));
                    parts.extend([(record + 1, end), (start, record)]);
                }
                Verdict::Refused(..) | Verdict::Suspect(_) => {
                    let middle = usize::midpoint(start, end);
                    parts.extend([(middle, end), (start, middle)]);
                }
            }
        }
        Ok(())
    }

    /// Returns the outcomes of the hits, in the order of the batch.
    ///
    /// # Errors
    ///
    /// Only suspects are left and the path does not work for other records either.
    pub(super) fn finish(
        mut self,
        mut post: impl FnMut(&[u8], usize) -> Result<Verdict, SinkError>,
    ) -> Result<Vec<Outcome>, SinkError> {
        if let Some((_, error)) = self.suspects.first() {
            if !self.is_open && !self.path.probe.is_empty() {
                self.is_open = !matches!(post(&self.path.probe, 1)?, Verdict::Suspect(_));
            }
            self.path.suspect_rounds += 1;
            if !self.is_open && self.path.suspect_rounds < SUSPECT_ROUNDS_MAX {
                return Err(error.clone());
            }
        }
        self.path.suspect_rounds = 0;
        for (hit, error) in self.suspects {
            join(&mut self.outcomes[hit], Outcome::Refused(error.detail));
        }
        Ok(self.outcomes)
    }

    fn take(&mut self, request: &BulkRequest, record: usize) {
        self.is_open = true;
        let body = &request.body[request.offset(record)..request.offset(record + 1)];
        if body.len() <= PROBE_LEN_MAX {
            self.path.probe.clear();
            self.path.probe.extend(body);
        }
    }
}
