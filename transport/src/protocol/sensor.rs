//! The sensor's side of a connection.
//!
//! The connection holds only the sequence numbers of the frames in flight. The hits stay in the [`Backlog`] until they
//! are acknowledged.

use super::{FrameBuffer, ProtocolViolation};
use crate::spool::{Front, ReadLimits, Spool, SpoolError};
use crate::wire::codec::CodecError;
use crate::wire::frame::FrameType;
use crate::wire::message::{
    AckV1, BusyV1, HelloV1, MESSAGE_LEN_MAX, Message, RefusedV1, SUPPORTED_VERSIONS, StatusV1, WelcomeV1,
};
use crate::wire::{decode_message, encode_message};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Maximum time to wait for a WELCOME.
pub const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time to wait for an ACK.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of frames in flight, even if a collector allows more.
pub const WINDOW_MAX: u32 = 4096;
/// No frame is added to the output once it has this length, in bytes.
pub const OUTPUT_LEN_MAX: usize = 256 << 10;
/// Number of frames read from the backlog at a time.
const READ_FRAMES: usize = 256;
/// Minimum interval between two STATUS.
const STATUS_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Maximum interval between two STATUS.
const STATUS_INTERVAL_MAX: Duration = Duration::from_secs(15);

/// The unacknowledged hits and gaps, by epoch and sequence number.
pub trait Backlog {
    /// See [`Spool::front`].
    fn front(&self) -> Front;

    /// See [`Spool::read`].
    ///
    /// # Errors
    ///
    /// See [`Spool::read`].
    fn read(
        &mut self,
        epoch: &[u8; 16],
        first: u64,
        limits: ReadLimits,
        out: &mut Vec<u8>,
        lasts: &mut Vec<u64>,
    ) -> Result<(), SpoolError>;

    /// See [`Spool::acknowledge`].
    fn acknowledge(&mut self, epoch: &[u8; 16], through: u64);

    /// See [`Spool::count_refused`].
    fn count_refused(&mut self, epoch: &[u8; 16], from: u64, to: u64) -> u64;
}

/// A spool and the time.
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

    fn count_refused(&mut self, epoch: &[u8; 16], from: u64, to: u64) -> u64 {
        self.spool.count_refused(epoch, from, to)
    }
}

/// The parts of a HELLO that are the same for all epochs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// Random number of the spool.
    pub instance: [u8; 16],
    /// Program and version.
    pub software: String,
    /// The machine's own name.
    pub computer: String,
}

/// The reason why the sensor must close a connection.
#[derive(Debug, thiserror::Error)]
pub enum CloseReason {
    /// The collector answered with BUSY.
    #[error("the collector is busy: {}", .0.reason.as_str())]
    Busy(BusyV1),
    /// The collector violated the protocol.
    #[error("the collector violated the protocol: {0}")]
    Violation(#[from] ProtocolViolation),
    /// The collector did not answer in time.
    #[error("timeout waiting for {0}")]
    TimedOut(&'static str),
    /// A HELLO or STATUS of this sensor exceeds a limit.
    #[error("cannot encode a message: {0}")]
    Encode(#[from] CodecError),
    /// The spool cannot be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// A message of the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SensorEvent {
    /// The collector accepted an epoch.
    Welcomed,
    /// The collector sent an ACK for the current epoch.
    Acknowledged,
    /// The collector can never store a frame. Its hits are counted as lost, but not deleted before the ACK. Not reported
    /// again if the frame is refused again.
    Refused(RefusedV1),
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Waiting for a WELCOME since the given time.
    Greeting(Instant),
    Sending(Sending),
}

#[derive(Clone, Copy, Debug)]
struct Sending {
    window: usize,
    status_interval: Duration,
    status_due: Instant,
    /// When the oldest unanswered STATUS was sent.
    status_sent: Option<Instant>,
    /// Since when the oldest frame in flight has been the oldest.
    frame_sent: Option<Instant>,
}

/// The sensor's side of a connection.
#[derive(Debug)]
pub struct SensorConnection {
    introduction: Introduction,
    state: State,
    epoch: [u8; 16],
    /// The next number to send.
    next: u64,
    /// Everything up to this number is acknowledged.
    acked: u64,
    /// The last numbers of the frames in flight.
    in_flight: VecDeque<u64>,
    received: FrameBuffer,
    output: Vec<u8>,
    /// Reused by `fill_output`.
    lasts: Vec<u64>,
    events: VecDeque<SensorEvent>,
    was_welcomed: bool,
}

impl SensorConnection {
    /// Opens a connection and puts a HELLO for the front of the backlog into the output.
    ///
    /// # Errors
    ///
    /// [`CloseReason::Encode`] if the introduction exceeds a limit.
    pub fn new(
        introduction: Introduction,
        backlog: &impl Backlog,
        now: Instant,
    ) -> Result<Self, CloseReason> {
        let mut connection = Self {
            introduction,
            state: State::Greeting(now),
            epoch: [0; 16],
            next: 1,
            acked: 0,
            in_flight: VecDeque::new(),
            received: FrameBuffer::new(MESSAGE_LEN_MAX),
            output: Vec::new(),
            lasts: Vec::new(),
            events: VecDeque::new(),
            was_welcomed: false,
        };
        connection.greet(backlog.front(), now)?;
        Ok(connection)
    }

    /// Takes the bytes to send.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Returns the next event, if any.
    pub fn poll_event(&mut self) -> Option<SensorEvent> {
        self.events.pop_front()
    }

    /// Processes received bytes.
    ///
    /// # Errors
    ///
    /// [`CloseReason`]; close the connection. Events before the error are valid.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        backlog: &mut impl Backlog,
        now: Instant,
    ) -> Result<(), CloseReason> {
        for piece in bytes.chunks(MESSAGE_LEN_MAX) {
            self.received.extend(piece);
            while let Some((frame_type, payload)) =
                self.received.next_frame().map_err(ProtocolViolation::from)?
            {
                match CollectorMessage::decode(frame_type, payload)? {
                    CollectorMessage::Welcome(welcome) => self.welcome(&welcome, now)?,
                    CollectorMessage::Ack(ack) => self.acknowledge(&ack, backlog, now)?,
                    CollectorMessage::Refused(refused) => self.refuse(refused, backlog)?,
                    CollectorMessage::Busy(busy) => return Err(CloseReason::Busy(busy)),
                }
            }
        }
        Ok(())
    }

    /// Checks whether an answer is overdue. Call it after [`receive`](Self::receive).
    ///
    /// # Errors
    ///
    /// [`CloseReason::TimedOut`]; close the connection.
    pub fn check_timeouts(&self, now: Instant) -> Result<(), CloseReason> {
        match self.state {
            State::Greeting(since) if now >= since + WELCOME_TIMEOUT => {
                Err(CloseReason::TimedOut("a WELCOME"))
            }
            State::Greeting(_) => Ok(()),
            State::Sending(Sending { frame_sent, status_sent, .. }) => {
                let is_overdue =
                    |since: Option<Instant>| since.is_some_and(|since| now >= since + ANSWER_TIMEOUT);
                if is_overdue(frame_sent) || is_overdue(status_sent) {
                    Err(CloseReason::TimedOut("an ACK"))
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Returns the time at which [`check_timeouts`](Self::check_timeouts) and [`fill_output`](Self::fill_output) must be
    /// called at the latest.
    pub fn deadline(&self) -> Instant {
        match self.state {
            State::Greeting(since) => since + WELCOME_TIMEOUT,
            State::Sending(Sending { status_due, frame_sent, status_sent, .. }) => {
                let timeouts =
                    [frame_sent, status_sent].into_iter().flatten().map(|since| since + ANSWER_TIMEOUT);
                timeouts.fold(status_due, Instant::min)
            }
        }
    }

    /// Returns true if it is time to send a STATUS.
    pub fn is_status_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Sending(Sending { status_due, .. }) if now >= status_due)
    }

    /// Adds frames of the backlog to the output, as far as the window and [`OUTPUT_LEN_MAX`] allow, and `status` if one
    /// [is due](Self::is_status_due). Returns true if more frames may be ready as soon as the output is sent.
    ///
    /// # Errors
    ///
    /// [`CloseReason::Spool`], and [`CloseReason::Encode`] for a status that exceeds a limit.
    pub fn fill_output(
        &mut self,
        backlog: &mut impl Backlog,
        status: Option<StatusV1>,
        now: Instant,
    ) -> Result<bool, CloseReason> {
        let State::Sending(sending) = &mut self.state else { return Ok(false) };
        if now >= sending.status_due
            && let Some(status) = status
        {
            sending.status_due = now + sending.status_interval;
            sending.status_sent.get_or_insert(now);
            encode_message(&status, &mut self.output)?;
        }
        while self.output.len() < OUTPUT_LEN_MAX {
            let frames = sending.window.saturating_sub(self.in_flight.len()).min(READ_FRAMES);
            if frames == 0 {
                return Ok(false);
            }
            let limits = ReadLimits { frames, bytes: OUTPUT_LEN_MAX - self.output.len() };
            self.lasts.clear();
            backlog.read(&self.epoch, self.next, limits, &mut self.output, &mut self.lasts)?;
            let Some(last) = self.lasts.last() else { return Ok(false) };
            self.next = last + 1;
            self.in_flight.extend(&self.lasts);
            sending.frame_sent.get_or_insert(now);
        }
        Ok(true)
    }

    /// Starts to send an epoch.
    fn greet(&mut self, front: Front, now: Instant) -> Result<(), CloseReason> {
        self.state = State::Greeting(now);
        self.epoch = front.epoch;
        self.next = front.first_unacknowledged;
        self.acked = front.first_unacknowledged - 1;
        self.in_flight.clear();
        let hello = HelloV1 {
            versions: SUPPORTED_VERSIONS.to_vec(),
            instance: self.introduction.instance,
            epoch: front.epoch,
            first_unacknowledged: front.first_unacknowledged,
            software: self.introduction.software.clone(),
            computer: self.introduction.computer.clone(),
        };
        Ok(encode_message(&hello, &mut self.output)?)
    }

    fn welcome(&mut self, welcome: &WelcomeV1, now: Instant) -> Result<(), ProtocolViolation> {
        let State::Greeting(_) = self.state else {
            return Err(ProtocolViolation::UnexpectedFrame(FrameType::Welcome));
        };
        if welcome.epoch != self.epoch {
            return Err(ProtocolViolation::WrongEpoch);
        }
        if !SUPPORTED_VERSIONS.contains(&welcome.version) {
            return Err(ProtocolViolation::VersionNotOffered(welcome.version));
        }
        let quarter = Duration::from_millis(u64::from(welcome.quiet_ms)) / 4;
        self.was_welcomed = true;
        self.state = State::Sending(Sending {
            window: welcome.window.min(WINDOW_MAX) as usize,
            status_interval: quarter.clamp(STATUS_INTERVAL_MIN, STATUS_INTERVAL_MAX),
            status_due: now,
            status_sent: None,
            frame_sent: None,
        });
        self.events.push_back(SensorEvent::Welcomed);
        Ok(())
    }

    /// Counts the hits of a refused frame. The frame stays in the backlog until the ACK that follows.
    fn refuse(&mut self, refused: RefusedV1, backlog: &mut impl Backlog) -> Result<(), ProtocolViolation> {
        if !self.was_welcomed {
            return Err(ProtocolViolation::UnexpectedFrame(FrameType::Refused));
        }
        if refused.epoch != self.epoch || !matches!(self.state, State::Sending(_)) {
            return Ok(());
        }
        self.check_sent(FrameType::Refused, refused.to)?;
        if backlog.count_refused(&self.epoch, refused.from, refused.to) > 0 {
            self.events.push_back(SensorEvent::Refused(refused));
        }
        Ok(())
    }

    fn acknowledge(
        &mut self,
        ack: &AckV1,
        backlog: &mut impl Backlog,
        now: Instant,
    ) -> Result<(), CloseReason> {
        if !self.was_welcomed {
            return Err(ProtocolViolation::UnexpectedFrame(FrameType::Ack).into());
        }
        // A late ACK of the previous epoch is ignored.
        let State::Sending(sending) = &mut self.state else { return Ok(()) };
        if ack.epoch != self.epoch {
            return Ok(());
        }
        sending.status_sent = None;
        self.check_sent(FrameType::Ack, ack.sequence)?;
        self.events.push_back(SensorEvent::Acknowledged);
        if ack.sequence <= self.acked {
            return Ok(());
        }
        self.acked = ack.sequence;
        while self.in_flight.front().is_some_and(|last| *last <= ack.sequence) {
            self.in_flight.pop_front();
        }
        if let State::Sending(sending) = &mut self.state {
            sending.frame_sent = (!self.in_flight.is_empty()).then_some(now);
        }
        backlog.acknowledge(&self.epoch, ack.sequence);
        let front = backlog.front();
        if front.epoch == self.epoch { Ok(()) } else { self.greet(front, now) }
    }

    fn check_sent(&self, frame_type: FrameType, number: u64) -> Result<(), ProtocolViolation> {
        if number < self.next {
            return Ok(());
        }
        Err(ProtocolViolation::NotSent { frame_type, number, sent: self.next - 1 })
    }
}

/// A frame of the collector.
enum CollectorMessage {
    Welcome(WelcomeV1),
    Ack(AckV1),
    Refused(RefusedV1),
    Busy(BusyV1),
}

impl CollectorMessage {
    fn decode(frame_type: FrameType, payload: &[u8]) -> Result<Self, ProtocolViolation> {
        fn message<M: Message>(payload: &[u8]) -> Result<M, ProtocolViolation> {
            decode_message(payload).map_err(|error| ProtocolViolation::Codec(M::TYPE, error))
        }
        match frame_type {
            FrameType::Welcome => message(payload).map(Self::Welcome),
            FrameType::Ack => message(payload).map(Self::Ack),
            FrameType::Refused => message(payload).map(Self::Refused),
            FrameType::Busy => message(payload).map(Self::Busy),
            FrameType::Hello | FrameType::Data | FrameType::Gap | FrameType::Status => {
                Err(ProtocolViolation::UnexpectedFrame(frame_type))
            }
        }
    }
}
