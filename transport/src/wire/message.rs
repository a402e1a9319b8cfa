//! The messages that sensor and collector exchange, except DATA.
//!
//! `docs/wire.md` has the byte tables, and says when each message is sent and what it means. Like
//! [`HitV1`](crate::hit::HitV1) the structs are frozen, and golden files pin their bytes. No message carries the
//! sensor's identity: that is the name in its certificate.

use super::frame::{FrameType, VERSION};
use crate::hit::{STRING_LEN_MAX, bounded};
use serde::{Deserialize, Serialize};

/// Versions of the payload structs that this release supports, in ascending order of preference.
pub const SUPPORTED_VERSIONS: [u8; 1] = [VERSION];
/// Maximum number of versions in a HELLO.
pub const VERSIONS_MAX: usize = 16;
/// Maximum number of counts in a STATUS.
pub const COUNTS_MAX: usize = 256;
/// Maximum length of the payload of any message except DATA, in bytes. A receiver rejects a longer one when it has the
/// header.
pub const MESSAGE_LEN_MAX: usize = 64 * 1024;
/// Maximum length of a string in a message, in bytes of UTF-8. Strings of hits may be longer.
pub const NAME_LEN_MAX: usize = 128;
/// Maximum number of lost hits in one GAP that a collector accepts. No sensor numbers that many hits in one epoch, and
/// sums of such counts stay far from the limits of 64 bits.
pub const GAP_COUNT_MAX: u64 = 1 << 40;

/// Introduces the sensor. Sent first on a connection, and again for each further epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloV1 {
    /// Versions of the payload structs that the sensor can send, 1 to [`VERSIONS_MAX`] of them.
    #[serde(deserialize_with = "bounded::vec::<VERSIONS_MAX, _, _>")]
    pub versions: Vec<u8>,
    /// Random number of the sensor's spool. It is not an identity: a copied spool has the same number.
    pub instance: [u8; 16],
    /// The epoch of the sequence numbers that follow. Each process of a sensor draws a random one when it starts.
    pub epoch: [u8; 16],
    /// The lowest sequence number of this epoch that is not acknowledged; at least 1.
    pub first_unacknowledged: u64,
    /// Program and version; informational.
    #[serde(deserialize_with = "bounded::string")]
    pub software: String,
    /// The machine's own name; informational, may be empty.
    #[serde(deserialize_with = "bounded::string")]
    pub computer: String,
}

impl HelloV1 {
    /// Returns the best version that both sides support.
    pub fn choose_version(&self) -> Option<u8> {
        SUPPORTED_VERSIONS.into_iter().rev().find(|version| self.versions.contains(version))
    }
}

/// Answers a HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomeV1 {
    /// Version of all frames that follow, one of those offered.
    pub version: u8,
    /// Epoch of the HELLO.
    pub epoch: [u8; 16],
    /// The highest sequence number of this epoch that is durable at the collector; 0: none, or unknown. It helps people
    /// to diagnose problems and to notice cloned sensors. Only an ACK allows the sensor to delete hits.
    pub durable: u64,
    /// Maximum number of unacknowledged frames of the sensor; at least 1.
    pub window: u32,
    /// Milliseconds of silence after which the collector closes the connection. The sensor sends a STATUS at least
    /// three times as often.
    pub quiet_ms: u32,
}

/// Acknowledges hits up to a sequence number: each is durable, or its loss is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckV1 {
    /// The epoch.
    pub epoch: [u8; 16],
    /// Everything that this connection has carried up to and including this number is acknowledged. 0: nothing yet.
    pub sequence: u64,
}

/// The reason for a BUSY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BusyReason {
    /// The collector's disk is full. Wire value 0.
    DiskFull,
    /// The collector cannot write its store. Wire value 1.
    StoreFailed,
    /// Too many frames are waiting for the store. Wire value 2.
    Overload,
    /// The collector or the sensor has too many connections. Wire value 3.
    Connections,
    /// The collector is stopping. Wire value 4.
    Stopping,
    /// The sensor is not registered, or its certificate was revoked. Wire value 5.
    NotAllowed,
    /// The collector supports none of the offered versions. Wire value 6.
    Version,
}

impl BusyReason {
    /// All reasons in the order of their wire values.
    pub const ALL: [Self; 7] = [
        Self::DiskFull,
        Self::StoreFailed,
        Self::Overload,
        Self::Connections,
        Self::Stopping,
        Self::NotAllowed,
        Self::Version,
    ];

    /// Returns the word that metrics use.
    pub const fn as_word(self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::StoreFailed => "store_failed",
            Self::Overload => "overload",
            Self::Connections => "connections",
            Self::Stopping => "stopping",
            Self::NotAllowed => "not_allowed",
            Self::Version => "version",
        }
    }

    /// Returns a description for log lines; the collector is its subject.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DiskFull => "its disk is full",
            Self::StoreFailed => "its store cannot be written",
            Self::Overload => "it is overloaded",
            Self::Connections => "it has too many connections",
            Self::Stopping => "it is stopping",
            Self::NotAllowed => "the sensor is not registered, or its certificate was revoked",
            Self::Version => "it supports no protocol version of this sensor",
        }
    }
}

/// The last message on a connection that the collector closes. Frames without an acknowledgement were not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusyV1 {
    /// Milliseconds after which the sensor may try this collector again.
    pub retry_after_ms: u32,
    /// The reason.
    pub reason: BusyReason,
}

/// The reason why hits were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GapReason {
    /// Hits came faster than the spool could write them. Wire value 0.
    QueueFull,
    /// The spool was full. Wire value 1.
    SpoolFull,
    /// The spool was damaged. Wire value 2.
    SpoolDamaged,
    /// They did not fit in a frame. Wire value 3.
    TooLong,
    /// A collector could not store them and answered with a REFUSED. Wire value 4.
    Refused,
}

impl GapReason {
    /// All reasons in the order of their wire values.
    pub const ALL: [Self; 5] =
        [Self::QueueFull, Self::SpoolFull, Self::SpoolDamaged, Self::TooLong, Self::Refused];

    /// Returns the word that stores and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::SpoolFull => "spool_full",
            Self::SpoolDamaged => "spool_damaged",
            Self::TooLong => "too_long",
            Self::Refused => "refused",
        }
    }

    /// Returns the reason with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

/// Declares hits lost. Every sequence number of an epoch is sent as DATA or is covered by a GAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapV1 {
    /// The first sequence number, at least 1.
    pub from: u64,
    /// The last one; at least `from`.
    pub to: u64,
    /// Number of dropped hits: at least 1, at most `to - from + 1`. A collector accepts at most [`GAP_COUNT_MAX`].
    pub count: u64,
    /// The reason.
    pub reason: GapReason,
}

/// The reason why a collector cannot store a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalReason {
    /// The frame is larger than the store accepts. Wire value 0.
    TooLarge,
    /// The store does not accept the contents. Wire value 1.
    NotStorable,
}

impl RefusalReason {
    /// All reasons in the order of their wire values.
    pub const ALL: [Self; 2] = [Self::TooLarge, Self::NotStorable];

    /// Returns the word that metrics use.
    pub const fn as_word(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotStorable => "not_storable",
        }
    }
}

/// A frame that the collector can never store. The sensor counts its hits as lost and does not send them again. An ACK
/// that covers them follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedV1 {
    /// The epoch.
    pub epoch: [u8; 16],
    /// The first sequence number of the frame, at least 1.
    pub from: u64,
    /// The last one; at least `from`, and equal to it for a DATA frame.
    pub to: u64,
    /// The reason.
    pub reason: RefusalReason,
    /// The cause in words; informational, may be empty.
    #[serde(deserialize_with = "bounded::string")]
    pub detail: String,
}

/// A named count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountV1 {
    /// Lower-case words with underscores. `docs/wire.md` lists the names in use.
    #[serde(deserialize_with = "bounded::string")]
    pub name: String,
    /// The value.
    pub value: u64,
}

/// The sensor's loss counters and health. It is also the heartbeat of an idle connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusV1 {
    /// The sensor's clock, as a FILETIME.
    pub time: u64,
    /// Seconds since the sensor's process started.
    pub uptime_seconds: u64,
    /// The counts, at most [`COUNTS_MAX`], each name once.
    #[serde(deserialize_with = "bounded::vec::<COUNTS_MAX, _, _>")]
    pub counts: Vec<CountV1>,
}

/// A field of a message has a value that the protocol does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}, expected {expected}")]
pub struct MessageError {
    /// Message and field, such as `gap.to`.
    pub field: &'static str,
    /// The value found.
    pub found: String,
    /// The values allowed.
    pub expected: &'static str,
}

/// The payload of a frame type. The trait is sealed: the messages of the protocol are those of this module.
pub trait Message: Serialize + serde::de::DeserializeOwned + sealed::Sealed {
    /// Type of the frame.
    const TYPE: FrameType;

    /// Checks the rules that the byte layout cannot express. Called before encoding and after decoding.
    ///
    /// # Errors
    ///
    /// Returns the first violation.
    fn check(&self) -> Result<(), MessageError>;
}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for HelloV1 {}
impl sealed::Sealed for WelcomeV1 {}
impl sealed::Sealed for AckV1 {}
impl sealed::Sealed for BusyV1 {}
impl sealed::Sealed for GapV1 {}
impl sealed::Sealed for StatusV1 {}
impl sealed::Sealed for RefusedV1 {}

impl Message for HelloV1 {
    const TYPE: FrameType = FrameType::Hello;

    fn check(&self) -> Result<(), MessageError> {
        list("hello.versions", self.versions.len(), 1, VERSIONS_MAX, "1 to 16 entries")?;
        if self.first_unacknowledged == 0 {
            return refuse("hello.first_unacknowledged", 0, "at least 1");
        }
        name("hello.software", &self.software)?;
        name("hello.computer", &self.computer)
    }
}

impl Message for WelcomeV1 {
    const TYPE: FrameType = FrameType::Welcome;

    fn check(&self) -> Result<(), MessageError> {
        if self.window == 0 { refuse("welcome.window", 0, "at least 1") } else { Ok(()) }
    }
}

impl Message for AckV1 {
    const TYPE: FrameType = FrameType::Ack;

    fn check(&self) -> Result<(), MessageError> {
        Ok(())
    }
}

impl Message for BusyV1 {
    const TYPE: FrameType = FrameType::Busy;

    fn check(&self) -> Result<(), MessageError> {
        Ok(())
    }
}

impl Message for GapV1 {
    const TYPE: FrameType = FrameType::Gap;

    fn check(&self) -> Result<(), MessageError> {
        if self.from == 0 {
            return refuse("gap.from", 0, "at least 1");
        }
        let Some(span) = self.to.checked_sub(self.from) else {
            return refuse("gap.to", self.to, "at least gap.from");
        };
        // Subtracts one first: the length of a gap over all numbers would overflow.
        if self.count == 0 || self.count - 1 > span {
            return refuse("gap.count", self.count, "1 to the length of the gap");
        }
        Ok(())
    }
}

impl Message for RefusedV1 {
    const TYPE: FrameType = FrameType::Refused;

    fn check(&self) -> Result<(), MessageError> {
        if self.from == 0 {
            return refuse("refused.from", 0, "at least 1");
        }
        if self.to < self.from {
            return refuse("refused.to", self.to, "at least refused.from");
        }
        name("refused.detail", &self.detail)
    }
}

impl Message for StatusV1 {
    const TYPE: FrameType = FrameType::Status;

    fn check(&self) -> Result<(), MessageError> {
        list("status.counts", self.counts.len(), 0, COUNTS_MAX, "at most 256 entries")?;
        let mut names = std::collections::HashSet::with_capacity(self.counts.len());
        for count in &self.counts {
            name("status.counts.name", &count.name)?;
            if !names.insert(count.name.as_str()) {
                return refuse(
                    "status.counts.name",
                    format_args!("{:?} twice", count.name),
                    "each name once",
                );
            }
        }
        Ok(())
    }
}

fn name(field: &'static str, value: &str) -> Result<(), MessageError> {
    const { assert!(NAME_LEN_MAX <= STRING_LEN_MAX, "the decoder accepts every valid name") };
    list(field, value.len(), 0, NAME_LEN_MAX, "at most 128 bytes")
}

fn list(
    field: &'static str,
    found: usize,
    min: usize,
    max: usize,
    expected: &'static str,
) -> Result<(), MessageError> {
    if (min..=max).contains(&found) { Ok(()) } else { refuse(field, format_args!("{found} long"), expected) }
}

fn refuse(
    field: &'static str,
    found: impl std::fmt::Display,
    expected: &'static str,
) -> Result<(), MessageError> {
    Err(MessageError { field, found: found.to_string(), expected })
}
