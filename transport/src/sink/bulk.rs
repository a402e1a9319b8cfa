//! Requests of many records, divided where the other side refuses them, so that no record refuses its neighbours.
//!
//! The other side may blame a record; then it is refused. A proxy or a firewall on the way (which may object to the text of
//! a script) blames nobody: then the record is suspect, and refused only if the same way is open for others.

use super::{Outcome, Progress, SinkError, join};
use std::time::Duration;

/// Deliveries of nothing but suspects after which they are refused: minutes, with the pauses between them.
const SUSPECT_ROUNDS_MAX: u32 = 10;
/// Longest record that is kept to try whether the way is open.
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

/// What the other side made of some records.
pub(super) enum Verdict {
    /// What became of each.
    Judged(Vec<Outcome>),
    /// It has them all.
    Accepted,
    /// It will never take one of them: the one with this number, if it says so. Nothing of the request counts as taken.
    Refused(Option<usize>, String),
    /// It does not take the request, and does not say that a record is to blame.
    Suspect(SinkError),
}

/// What survives a delivery.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// A record that was taken: by sending it again one sees whether the way is open.
    probe: Vec<u8>,
    /// Deliveries in a row of nothing but suspects.
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
    /// Of a batch with so many hits.
    pub(super) fn new(way: &'a mut Way, hits: usize) -> Self {
        Self {
            way,
            outcomes: vec![Outcome::Delivered; hits],
            suspects: Vec::new(),
            is_open: false,
            is_begun: false,
        }
    }

    /// Sends a request, in halves where it is refused. `post` is given a body and its number of records.
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

    /// What became of the hits, in the order of the batch.
    ///
    /// # Errors
    ///
    /// No record was taken, and the way is not open either: it is not the records' fault.
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
