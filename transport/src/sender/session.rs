//! One connection as the sensor sees it: the protocol of `docs/wire.md`, without a socket and without a clock.
//!
//! Its owner feeds it the bytes that arrive and the time, and sends what it puts out. What is on its way is not held
//! here: only the numbers are, and the [`Backlog`] keeps the hits until they are acknowledged.

use crate::spool::{Front, ReadLimits, Spool, SpoolError};
use crate::wire::frame::{FrameError, FrameType};
use crate::wire::message::{
    AckV1, BusyV1, HelloV1, MESSAGE_LEN_MAX, RefusedV1, SUPPORTED_VERSIONS, StatusV1, WelcomeV1,
};
use crate::wire::stream::FrameBuffer;
use crate::wire::{codec::CodecError, decode_message, encode_message};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long to wait for the WELCOME.
pub const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for any other frame that is expected.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Frames on their way, whatever a collector allows.
pub const WINDOW_MAX: u32 = 4096;
/// Bytes that wait to be sent, beyond which nothing is added; one more frame may come on top.
pub const OUT_LEN_MAX: usize = 256 << 10;
/// Frames read from the backlog at a time.
const READ_FRAMES: usize = 256;
/// Shortest and longest time between two STATUS.
const STATUS_EVERY_MIN: Duration = Duration::from_millis(100);
const STATUS_EVERY_MAX: Duration = Duration::from_secs(15);

/// What is to be sent, by epoch and number.
pub trait Backlog {
    /// As [`Spool::front`].
    fn front(&self) -> Front;

    /// As [`Spool::read`].
    ///
    /// # Errors
    ///
    /// As [`Spool::read`].
    fn read(
        &mut self,
        epoch: &[u8; 16],
        first: u64,
        limits: ReadLimits,
        out: &mut Vec<u8>,
        lasts: &mut Vec<u64>,
    ) -> Result<(), SpoolError>;

    /// As [`Spool::acknowledge`].
    fn acknowledge(&mut self, epoch: &[u8; 16], through: u64);

    /// As [`Spool::count_refused`].
    fn count_refused(&mut self, hits: u64);
}

/// A spool at a moment.
pub struct SpoolAt<'s> {
    /// The spool.
    pub spool: &'s mut Spool,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

impl Backlog for SpoolAt<'_> {
    fn front(&self) -> Front {
        self.spool.front()
    }

    fn read(
        &mut self,
        epoch: &[u8; 16],
        first: u64,
        limits: ReadLimits,
        out: &mut Vec<u8>,
        lasts: &mut Vec<u64>,
    ) -> Result<(), SpoolError> {
        self.spool.read(epoch, first, limits, self.now_ms, out, lasts)
    }

    fn acknowledge(&mut self, epoch: &[u8; 16], through: u64) {
        self.spool.acknowledge(epoch, through);
    }

    fn count_refused(&mut self, hits: u64) {
        self.spool.count_refused(hits);
    }
}

/// How a sensor introduces itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// Random number of the spool.
    pub instance: [u8; 16],
    /// Program and version.
    pub software: String,
    /// What the machine calls itself.
    pub computer: String,
}

/// Why a connection has to be closed.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The collector takes nothing more.
    #[error("the collector refuses: {}", .0.reason.as_str())]
    Busy(BusyV1),
    /// The collector broke the protocol.
    #[error("the collector breaks the protocol: {0}")]
    Breach(String),
    /// The collector did not answer in time.
    #[error("no {0} in time")]
    Silent(&'static str),
    /// The spool cannot be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Breach(error.to_string())
    }
}

impl From<CodecError> for End {
    fn from(error: CodecError) -> Self {
        Self::Breach(error.to_string())
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// HELLO was sent then.
    Greeting(Instant),
    Sending(Sending),
}

#[derive(Clone, Copy, Debug)]
struct Sending {
    window: usize,
    status_every: Duration,
    status_due: Instant,
    /// The oldest STATUS without an answer was sent then.
    status_since: Option<Instant>,
    /// The frame that is next to be acknowledged has been waited for since.
    data_since: Option<Instant>,
}

/// A connection.
#[derive(Debug)]
pub struct Session {
    introduction: Introduction,
    state: State,
    epoch: [u8; 16],
    /// The next number to send.
    next: u64,
    /// Acknowledged up to this number.
    acked: u64,
    /// The last numbers of the frames on their way.
    in_flight: VecDeque<u64>,
    /// The collector has refused frames up to this number.
    refused: u64,
    arrived: FrameBuffer,
    out: Vec<u8>,
    lasts: Vec<u64>,
    is_welcome: bool,
    is_acknowledged: bool,
}

impl Session {
    /// Begins with a HELLO for the front of the backlog.
    ///
    /// # Errors
    ///
    /// [`End::Breach`] if the introduction exceeds its limits.
    pub fn new(introduction: Introduction, backlog: &impl Backlog, now: Instant) -> Result<Self, End> {
        let mut session = Self {
            introduction,
            state: State::Greeting(now),
            epoch: [0; 16],
            next: 1,
            acked: 0,
            in_flight: VecDeque::new(),
            refused: 0,
            arrived: FrameBuffer::new(MESSAGE_LEN_MAX),
            out: Vec::new(),
            lasts: Vec::new(),
            is_welcome: false,
            is_acknowledged: false,
        };
        session.greet(backlog.front(), now)?;
        Ok(session)
    }

    /// Whether a WELCOME has come.
    pub fn is_welcome(&self) -> bool {
        self.is_welcome
    }

    /// Whether any ACK has come.
    pub fn is_acknowledged(&self) -> bool {
        self.is_acknowledged
    }

    /// Takes what is to be sent.
    pub fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Takes bytes that have arrived.
    ///
    /// # Errors
    ///
    /// [`End`]: close the connection.
    pub fn receive(&mut self, bytes: &[u8], backlog: &mut impl Backlog, now: Instant) -> Result<(), End> {
        for piece in bytes.chunks(MESSAGE_LEN_MAX) {
            self.arrived.extend(piece);
            while let Some((frame_type, payload)) = self.arrived.next_frame()? {
                match frame_type {
                    FrameType::Welcome => {
                        let welcome = decode_message::<WelcomeV1>(payload)?;
                        self.welcome(&welcome, now)?;
                    }
                    FrameType::Ack => {
                        let ack = decode_message::<AckV1>(payload)?;
                        self.ack(&ack, backlog, now)?;
                    }
                    FrameType::Refused => {
                        let refused = decode_message::<RefusedV1>(payload)?;
                        self.refuse(&refused, backlog)?;
                    }
                    FrameType::Busy => return Err(End::Busy(decode_message(payload)?)),
                    other => return Err(End::Breach(format!("a frame of type {other:?}"))),
                }
            }
        }
        Ok(())
    }

    /// Ends a connection on which something did not come in time. Ask after [`receive`](Self::receive).
    ///
    /// # Errors
    ///
    /// [`End::Silent`].
    pub fn check(&self, now: Instant) -> Result<(), End> {
        match self.state {
            State::Greeting(since) if now >= since + WELCOME_TIMEOUT => Err(End::Silent("WELCOME")),
            State::Sending(Sending { data_since, status_since, .. }) => {
                let is_over =
                    |since: Option<Instant>| since.is_some_and(|since| now >= since + ANSWER_TIMEOUT);
                if is_over(data_since) || is_over(status_since) {
                    Err(End::Silent("acknowledgement"))
                } else {
                    Ok(())
                }
            }
            State::Greeting(_) => Ok(()),
        }
    }

    /// When to call [`check`](Self::check) and [`fill`](Self::fill) at the latest.
    pub fn deadline(&self) -> Instant {
        match self.state {
            State::Greeting(since) => since + WELCOME_TIMEOUT,
            State::Sending(Sending { status_due, data_since, status_since, .. }) => {
                let ends =
                    [data_since, status_since].into_iter().flatten().map(|since| since + ANSWER_TIMEOUT);
                ends.fold(status_due, Instant::min)
            }
        }
    }

    /// Whether a STATUS is to be sent.
    pub fn is_status_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Sending(Sending { status_due, .. }) if now >= status_due)
    }

    /// Puts out what may be sent now, up to about [`OUT_LEN_MAX`] bytes, and says whether there may be more at once.
    /// `status` is sent if one [is due](Self::is_status_due).
    ///
    /// # Errors
    ///
    /// [`End::Spool`], and [`End::Breach`] for a status that exceeds its limits.
    pub fn fill(
        &mut self,
        backlog: &mut impl Backlog,
        status: Option<StatusV1>,
        now: Instant,
    ) -> Result<bool, End> {
        let State::Sending(sending) = &mut self.state else { return Ok(false) };
        if now >= sending.status_due
            && let Some(status) = status
        {
            sending.status_due = now + sending.status_every;
            sending.status_since.get_or_insert(now);
            encode_message(&status, &mut self.out)?;
        }
        while self.out.len() < OUT_LEN_MAX {
            let frames = sending.window.saturating_sub(self.in_flight.len()).min(READ_FRAMES);
            if frames == 0 {
                return Ok(false);
            }
            let limits = ReadLimits { frames, bytes: OUT_LEN_MAX - self.out.len() };
            self.lasts.clear();
            backlog.read(&self.epoch, self.next, limits, &mut self.out, &mut self.lasts)?;
            let Some(last) = self.lasts.last() else { return Ok(false) };
            self.next = last + 1;
            self.in_flight.extend(&self.lasts);
            sending.data_since.get_or_insert(now);
        }
        Ok(true)
    }

    fn greet(&mut self, front: Front, now: Instant) -> Result<(), End> {
        self.state = State::Greeting(now);
        self.epoch = front.epoch;
        self.next = front.first_unacknowledged;
        self.acked = front.first_unacknowledged - 1;
        self.refused = 0;
        self.in_flight.clear();
        let hello = HelloV1 {
            versions: SUPPORTED_VERSIONS.to_vec(),
            instance: self.introduction.instance,
            epoch: front.epoch,
            first_unacknowledged: front.first_unacknowledged,
            software: self.introduction.software.clone(),
            computer: self.introduction.computer.clone(),
        };
        Ok(encode_message(&hello, &mut self.out)?)
    }

    fn welcome(&mut self, welcome: &WelcomeV1, now: Instant) -> Result<(), End> {
        let State::Greeting(_) = self.state else {
            return Err(End::Breach("a WELCOME without a HELLO".into()));
        };
        if welcome.epoch != self.epoch {
            return Err(End::Breach("a WELCOME for another epoch".into()));
        }
        if !SUPPORTED_VERSIONS.contains(&welcome.version) {
            return Err(End::Breach(format!("version {}, which was not offered", welcome.version)));
        }
        let quarter = Duration::from_millis(u64::from(welcome.quiet_ms)) / 4;
        self.is_welcome = true;
        self.state = State::Sending(Sending {
            window: welcome.window.min(WINDOW_MAX) as usize,
            status_every: quarter.clamp(STATUS_EVERY_MIN, STATUS_EVERY_MAX),
            status_due: now,
            status_since: None,
            data_since: None,
        });
        Ok(())
    }

    /// The collector can never store a frame. It is not sent again: the ACK that follows covers it.
    fn refuse(&mut self, refused: &RefusedV1, backlog: &mut impl Backlog) -> Result<(), End> {
        if !self.is_welcome {
            return Err(End::Breach("a REFUSED before the WELCOME".into()));
        }
        if refused.epoch != self.epoch || !matches!(self.state, State::Sending(_)) {
            return Ok(());
        }
        if refused.to >= self.next {
            let sent = self.next - 1;
            return Err(End::Breach(format!("a REFUSED of {}, of {sent} sent", refused.to)));
        }
        // Frames are refused in the order in which they were sent; those of earlier connections were counted then.
        let first = refused.from.max(self.acked + 1).max(self.refused + 1);
        if first > refused.to {
            return Ok(());
        }
        self.refused = refused.to;
        backlog.count_refused(refused.to - first + 1);
        tracing::error!(
            "the collector cannot store hits {} to {} and they are lost: {}",
            refused.from,
            refused.to,
            // A foreign text: without what a terminal would act on.
            refused.detail.escape_debug()
        );
        Ok(())
    }

    fn ack(&mut self, ack: &AckV1, backlog: &mut impl Backlog, now: Instant) -> Result<(), End> {
        let State::Sending(sending) = &mut self.state else {
            // Late, of the epoch before; before the first WELCOME there is nothing to acknowledge.
            return if self.is_welcome {
                Ok(())
            } else {
                Err(End::Breach("an ACK before the WELCOME".into()))
            };
        };
        if ack.epoch != self.epoch {
            return Ok(());
        }
        if ack.sequence >= self.next {
            let sent = self.next - 1;
            return Err(End::Breach(format!("an ACK of {}, of {sent} sent", ack.sequence)));
        }
        self.is_acknowledged = true;
        sending.status_since = None;
        if ack.sequence <= self.acked {
            return Ok(());
        }
        self.acked = ack.sequence;
        while self.in_flight.front().is_some_and(|last| *last <= ack.sequence) {
            self.in_flight.pop_front();
        }
        sending.data_since = (!self.in_flight.is_empty()).then_some(now);
        backlog.acknowledge(&self.epoch, ack.sequence);
        let front = backlog.front();
        if front.epoch == self.epoch { Ok(()) } else { self.greet(front, now) }
    }
}
