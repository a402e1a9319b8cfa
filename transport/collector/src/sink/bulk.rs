//! Requests of many records, divided when the receiver refuses them, so that a bad record does not affect its neighbours.
//!
//! A receiver may blame a record, which is then refused. A proxy or firewall in between (which may object to the text of a
//! script) does not say why it refuses a request. A record that is refused like this is suspect, and is refused for good
//! only if the path to the receiver works for other records.

use super::{Outcome, Progress, SinkError, join};
use std::time::Duration;

/// Consecutive deliveries of nothing but suspects after which the suspects are refused: several minutes, with the pauses.
const SUSPECT_ROUNDS_MAX: u32 = 10;
/// Longest record that is kept as a probe.
const PROBE_LEN_MAX: usize = 64 * 1024;

/// Records for one request: where each ends in the body, and the hit that it belongs to.
#[derive(Default)]
pub(super) struct Request {
    pub(super) body: Vec<u8>,
    records: Vec<(usize, usize)>,
}

impl Request {
    /// Notes that what was added to the body is a record of the hit with this index.
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
    /// One record, with this number if the receiver says which, is refused for good, and nothing of the request is accepted.
    Refused(Option<usize>, String),
    /// The request is refused without blaming a record.
    Suspect(SinkError),
}

/// State of the path to the receiver, kept between deliveries.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// A record that was accepted. Sending it again shows whether the path works.
    probe: Vec<u8>,
    /// Consecutive deliveries of nothing but suspects.
    suspect_rounds: u32,
}

/// One delivery of a batch.
pub(super) struct Delivery<'a> {
    way: &'a mut Way,
    outcomes: Vec<Outcome>,
    suspects: Vec<(usize, SinkError)>,
    /// A record was taken.
    is_open: bool,
    /// A request was sent.
    is_begun: bool,
}

impl<'a> Delivery<'a> {
    /// Starts the delivery of a batch of `hits` hits.
    pub(super) fn new(way: &'a mut Way, hits: usize) -> Self {
        Self {
            way,
            outcomes: vec![Outcome::Delivered; hits],
            suspects: Vec::new(),
            is_open: false,
            is_begun: false,
        }
    }

    /// Sends a request, in halves if it is refused. `post` receives a body and its number of records.
    ///
    /// # Errors
    ///
    /// Those of `post`, and the stop.
    pub(super) fn send(
        &mut self,
        request: &Request,
        progress: &mut dyn Progress,
        mut post: impl FnMut(&[u8], usize) -> Result<Verdict, SinkError>,
    ) -> Result<(), SinkError> {
        // Parts of the request still to be sent, as ranges of records, the first one last.
        let mut parts = vec![(0, request.records.len())];
        while let Some((start, end)) = parts.pop() {
            if start == end {
                continue;
            }
            // Not behind the last request: what has arrived should not come again.
            if self.is_begun && !progress.wait(Duration::ZERO) {
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
            if !self.is_open && !self.way.probe.is_empty() {
                self.is_open = !matches!(post(&self.way.probe, 1)?, Verdict::Suspect(_));
            }
            self.way.suspect_rounds += 1;
            if !self.is_open && self.way.suspect_rounds < SUSPECT_ROUNDS_MAX {
                return Err(error.clone());
            }
        }
        self.way.suspect_rounds = 0;
        for (hit, error) in self.suspects {
            join(&mut self.outcomes[hit], Outcome::Refused(error.detail));
        }
        Ok(self.outcomes)
    }

    fn take(&mut self, request: &Request, record: usize) {
        self.is_open = true;
        let body = &request.body[request.offset(record)..request.offset(record + 1)];
        if body.len() <= PROBE_LEN_MAX {
            self.way.probe.clear();
            self.way.probe.extend(body);
        }
    }
}
