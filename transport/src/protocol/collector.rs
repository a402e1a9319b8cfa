//! The collector's side of a connection.
//!
//! The owner stores the frames that [`CollectorConnection::poll`] returns, and reports the progress of the store with
//! [`CollectorConnection::settle`], which sends acknowledgements. How fast a sensor may send and how long a frame may
//! wait for room in a queue are decisions of the owner.

use super::{FRAME_TIMEOUT, FrameBuffer, ProtocolViolation, SEQUENCE_MAX, SequenceTracker, SettlementReport};
use crate::wire::codec::{CodecError, HIT_LEN_MAX};
use crate::wire::frame::{FrameType, PAYLOAD_LEN_MAX, VERSION};
use crate::wire::message::{
    AckV1, BusyReason, BusyV1, GAP_COUNT_MAX, GapV1, HelloV1, MESSAGE_LEN_MAX, Message, StatusV1, WelcomeV1,
};
use crate::wire::{decode_data, decode_message, encode_message};
use std::time::{Duration, Instant};

/// Parameters of the collector's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectorSettings {
    /// Maximum number of unacknowledged frames; at least 1.
    pub window: u32,
    /// Milliseconds of silence after which the connection is closed.
    pub quiet_ms: u32,
    /// Maximum time until the first HELLO.
    pub hello_timeout: Duration,
}

/// A frame of the sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start an epoch: call [`CollectorConnection::check_hello`], and then [`CollectorConnection::welcome`].
    Hello(HelloV1),
    /// Store a hit. Call [`CollectorConnection::passed_to_store`] when the store has it.
    Hit {
        /// Number of the hit: 1 to [`SEQUENCE_MAX`].
        sequence: u64,
        /// Version of the struct.
        version: u8,
        /// The encoded hit as it was received, without the number. It is valid.
        bytes: Vec<u8>,
        /// Number of rules of the hit.
        rules: usize,
        /// Number of the ACK that covers the frame.
        ack: u64,
    },
    /// Store a gap. Call [`CollectorConnection::passed_to_store`] when the store has it.
    Gap {
        /// The gap; its numbers are 1 to [`SEQUENCE_MAX`].
        gap: GapV1,
        /// Number of the ACK that covers the frame.
        ack: u64,
    },
    /// Keep the STATUS as the sensor's last one and call [`CollectorConnection::answer_status`].
    Status(StatusV1),
}

/// A sensor did not send in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SensorTimeout {
    /// The connection started without a HELLO.
    #[error("no HELLO in time")]
    Hello,
    /// A frame was not completed.
    #[error("incomplete frame")]
    Frame,
    /// No frame arrived.
    #[error("no frames received")]
    Silence,
}

/// A HELLO cannot be answered with a WELCOME.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The HELLO violates the protocol.
    #[error(transparent)]
    Violation(#[from] ProtocolViolation),
    /// No version is supported by both sides. Answer with [`BusyReason::Version`].
    #[error("no common version")]
    Version,
}

/// An epoch of the connection.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    id: [u8; 16],
    sequence: SequenceTracker,
    /// Number of frames passed to the store.
    passed: u64,
    /// Number of these frames whose outcome the sensor knows. The others fill the window.
    reported: u64,
}

/// The collector's side of a connection.
#[derive(Debug)]
pub struct CollectorConnection {
    settings: CollectorSettings,
    received: FrameBuffer,
    /// `None` before the first HELLO.
    epoch: Option<Epoch>,
    hello_due: Instant,
    /// When the last frame was processed.
    last_frame: Instant,
    /// When the first byte of an incomplete frame arrived.
    frame_start: Instant,
    /// A frame was taken since the last bytes arrived.
    took_frame: bool,
    output: Vec<u8>,
}

impl CollectorConnection {
    /// Opens a connection.
    pub fn new(settings: CollectorSettings, now: Instant) -> Self {
        let settings = CollectorSettings { window: settings.window.max(1), ..settings };
        Self {
            settings,
            received: FrameBuffer::new(MESSAGE_LEN_MAX),
            epoch: None,
            hello_due: now + settings.hello_timeout,
            last_frame: now,
            frame_start: now,
            took_frame: false,
            output: Vec::new(),
        }
    }

    /// Returns the epoch of the last WELCOME.
    pub fn epoch(&self) -> Option<[u8; 16]> {
        self.epoch.map(|epoch| epoch.id)
    }

    /// Takes the bytes to send.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Adds received bytes. Call [`poll`](Self::poll) until it returns `None` before adding more.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        if !self.received.has_partial_frame() {
            self.frame_start = now;
        }
        self.received.extend(bytes);
    }

    /// Frees the memory that an idle connection does not need.
    pub fn release_memory(&mut self) {
        self.received.release_memory();
    }

    /// Returns the next request, or `None` if more bytes are needed, together with the length of its payload in bytes.
    ///
    /// If [`is_window_full`](Self::is_window_full), call [`settle`](Self::settle) first: the sensor may know of
    /// acknowledgements that were not counted here yet.
    ///
    /// # Errors
    ///
    /// [`ProtocolViolation`]; close the connection.
    pub fn poll(&mut self, now: Instant) -> Result<Option<(Request, usize)>, ProtocolViolation> {
        // Before the first HELLO no frame is long.
        self.received.set_data_len_max(if self.epoch.is_some() { PAYLOAD_LEN_MAX } else { MESSAGE_LEN_MAX });
        let Some((frame_type, payload)) = self.received.next_frame()? else {
            self.last_frame = now;
            if std::mem::take(&mut self.took_frame) {
                self.frame_start = now;
            }
            return Ok(None);
        };
        self.took_frame = true;
        let len = payload.len();
        let request = decode(frame_type, payload, self.epoch.as_mut().map(|epoch| &mut epoch.sequence))?;
        if matches!(request, Request::Hit { .. } | Request::Gap { .. }) && self.is_window_full() {
            return Err(ProtocolViolation::WindowExceeded(self.settings.window));
        }
        Ok(Some((request, len)))
    }

    /// Returns the number of frames passed to the store whose outcome the sensor does not know yet.
    pub fn unacknowledged(&self) -> u64 {
        self.epoch.map_or(0, |epoch| epoch.passed - epoch.reported)
    }

    /// Returns true if the sensor must not send further frames of DATA and GAP.
    pub fn is_window_full(&self) -> bool {
        self.unacknowledged() >= u64::from(self.settings.window)
    }

    /// Records that the store will report a frame as settled.
    pub fn passed_to_store(&mut self) {
        if let Some(epoch) = &mut self.epoch {
            epoch.passed += 1;
        }
    }

    /// Sends what the store has settled since the last report: REFUSED frames, and an ACK if there is progress.
    ///
    /// # Errors
    ///
    /// The reason why nothing more can be acknowledged. Answer with [`busy`](Self::busy) and close the connection.
    pub fn settle(&mut self, report: SettlementReport) -> Result<(), BusyReason> {
        self.report(report, false)
    }

    /// Like [`settle`](Self::settle), but always sends an ACK, which answers a STATUS.
    ///
    /// # Errors
    ///
    /// See [`settle`](Self::settle).
    pub fn answer_status(&mut self, report: SettlementReport) -> Result<(), BusyReason> {
        self.report(report, true)
    }

    fn report(&mut self, report: SettlementReport, always: bool) -> Result<(), BusyReason> {
        let Some(epoch) = &mut self.epoch else { return Ok(()) };
        let is_new = report.settled > epoch.reported;
        epoch.reported = report.settled;
        let id = epoch.id;
        let SettlementReport { ack, refused, .. } = report;
        for refused in refused {
            self.send(&refused);
        }
        let sequence = ack?;
        if is_new || always {
            self.send(&AckV1 { epoch: id, sequence });
        }
        Ok(())
    }

    /// Checks whether an epoch can start. Returns the version to use. Call [`settle`](Self::settle) first.
    ///
    /// # Errors
    ///
    /// [`HelloError`]
    pub fn check_hello(&self, hello: &HelloV1) -> Result<u8, HelloError> {
        let unacknowledged = self.unacknowledged();
        if unacknowledged > 0 {
            return Err(ProtocolViolation::EarlyHello(unacknowledged).into());
        }
        hello.choose_version().ok_or(HelloError::Version)
    }

    /// Starts the epoch of a HELLO and sends a WELCOME. `durable` is the highest number of the epoch that is stored.
    ///
    /// The store must report the frames of the new epoch in a new [`Settlement`](super::Settlement): what the previous
    /// one still reports no longer matters to the sensor.
    pub fn welcome(&mut self, hello: &HelloV1, version: u8, durable: u64) {
        self.epoch = Some(Epoch {
            id: hello.epoch,
            sequence: SequenceTracker::new(hello.first_unacknowledged),
            passed: 0,
            reported: 0,
        });
        let CollectorSettings { window, quiet_ms, .. } = self.settings;
        self.send(&WelcomeV1 { version, epoch: hello.epoch, durable, window, quiet_ms });
    }

    /// Sends BUSY, after which the connection must be closed.
    pub fn busy(&mut self, reason: BusyReason, retry_after_ms: u32) {
        self.send(&BusyV1 { retry_after_ms, reason });
    }

    /// Returns the time at which [`check_timeouts`](Self::check_timeouts) must be called at the latest.
    pub fn deadline(&self) -> Instant {
        let frame_due = self.frame_start + FRAME_TIMEOUT;
        match (self.epoch.is_some(), self.received.has_partial_frame()) {
            (false, false) => self.hello_due,
            (false, true) => self.hello_due.min(frame_due),
            (true, true) => frame_due,
            (true, false) => self.last_frame + Duration::from_millis(u64::from(self.settings.quiet_ms)),
        }
    }

    /// Checks whether the sensor is too late.
    ///
    /// # Errors
    ///
    /// [`SensorTimeout`]; close the connection.
    pub fn check_timeouts(&self, now: Instant) -> Result<(), SensorTimeout> {
        if now < self.deadline() {
            Ok(())
        } else if self.epoch.is_none() {
            Err(SensorTimeout::Hello)
        } else if self.received.has_partial_frame() {
            Err(SensorTimeout::Frame)
        } else {
            Err(SensorTimeout::Silence)
        }
    }

    fn send<M: Message>(&mut self, message: &M) {
        encode_message(message, &mut self.output).expect("the collector's messages are valid");
    }
}

/// Decodes a frame of the sensor. `sequence` is `None` before the first HELLO.
fn decode(
    frame_type: FrameType,
    payload: &[u8],
    sequence: Option<&mut SequenceTracker>,
) -> Result<Request, ProtocolViolation> {
    let invalid = |error: CodecError| ProtocolViolation::Codec(frame_type, error);
    if frame_type == FrameType::Hello {
        let hello: HelloV1 = decode_message(payload).map_err(invalid)?;
        if hello.first_unacknowledged > SEQUENCE_MAX {
            return Err(ProtocolViolation::SequenceNumber(hello.first_unacknowledged));
        }
        return Ok(Request::Hello(hello));
    }
    let Some(sequence) = sequence else {
        return Err(ProtocolViolation::UnexpectedFrame(frame_type));
    };
    match frame_type {
        FrameType::Data => {
            let data = decode_data(payload).map_err(invalid)?;
            let ack = sequence.record(data.sequence, data.sequence)?;
            // A decoded payload starts with the eight bytes of the number.
            let bytes = payload.get(size_of::<u64>()..).unwrap_or_default().to_vec();
            debug_assert!(bytes.len() <= HIT_LEN_MAX, "the frame buffer limits the length");
            let rules = data.hit.rules.len();
            Ok(Request::Hit { sequence: data.sequence, version: VERSION, bytes, rules, ack })
        }
        FrameType::Gap => {
            let gap: GapV1 = decode_message(payload).map_err(invalid)?;
            if gap.count > GAP_COUNT_MAX {
                return Err(ProtocolViolation::GapCount(gap.count));
            }
            let ack = sequence.record(gap.from, gap.to)?;
            Ok(Request::Gap { gap, ack })
        }
        FrameType::Status => Ok(Request::Status(decode_message(payload).map_err(invalid)?)),
        FrameType::Hello | FrameType::Welcome | FrameType::Ack | FrameType::Busy | FrameType::Refused => {
            Err(ProtocolViolation::UnexpectedFrame(frame_type))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_must_be_a_hello() {
        for frame_type in FrameType::ALL {
            let violation = decode(frame_type, &[], None).unwrap_err();
            let is_unexpected = matches!(violation, ProtocolViolation::UnexpectedFrame(_));
            assert_eq!(is_unexpected, frame_type != FrameType::Hello, "{violation}");
        }
    }

    #[test]
    fn a_sensor_must_not_send_frames_of_a_collector() {
        for frame_type in [FrameType::Welcome, FrameType::Ack, FrameType::Busy, FrameType::Refused] {
            let violation = decode(frame_type, &[], Some(&mut SequenceTracker::new(1))).unwrap_err();
            assert_eq!(violation, ProtocolViolation::UnexpectedFrame(frame_type));
        }
    }
}
