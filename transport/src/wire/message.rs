//! What the two ends of a connection tell each other, besides the hits themselves.
//!
//! `docs/wire.md` has the byte tables and says when each is sent and what it means. The structs are frozen once
//! released, like [`HitV1`](crate::hit::HitV1); golden files hold their bytes. The sensor's identity is none of their
//! fields: it is the name in its certificate.

use super::frame::{FrameType, VERSION};
use crate::hit::{STRING_LEN_MAX, bounded};
use serde::{Deserialize, Serialize};

/// Versions of the payload structs that this release speaks, the best one last.
pub const SUPPORTED_VERSIONS: [u8; 1] = [VERSION];
/// Most versions that a HELLO offers.
pub const VERSIONS_MAX: usize = 16;
/// Most counts of a STATUS.
pub const COUNTS_MAX: usize = 256;
/// Longest payload of any message but DATA, in bytes. A receiver refuses more before it has read it.
pub const MESSAGE_LEN_MAX: usize = 64 * 1024;
/// Longest string in a message, in bytes of UTF-8. Strings of hits may be longer.
pub const NAME_LEN_MAX: usize = 128;
/// Most hits that a collector lets one GAP declare lost: more than a sensor numbers in one epoch, and few enough that sums
/// of them stay far from the limits of 64 bits.
pub const GAP_COUNT_MAX: u64 = 1 << 40;

/// The sensor's first word, and again whenever it goes on to another epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloV1 {
    /// Versions of the payload structs that the sensor can send, 1 to [`VERSIONS_MAX`] of them.
    #[serde(deserialize_with = "bounded::vec::<VERSIONS_MAX, _, _>")]
    pub versions: Vec<u8>,
    /// Random number of the sensor's spool. Not its identity: a copied spool has it too.
    pub instance: [u8; 16],
    /// The epoch to which the sequence numbers that follow belong: random, one for each start of a sensor's process.
    pub epoch: [u8; 16],
    /// The lowest sequence number of this epoch for which the sensor has no acknowledgement; from 1.
    pub first_unacknowledged: u64,
    /// Program and version, for people.
    #[serde(deserialize_with = "bounded::string")]
    pub software: String,
    /// The name that the machine gives itself, for people; may be empty.
    #[serde(deserialize_with = "bounded::string")]
    pub computer: String,
}

impl HelloV1 {
    /// The best version that both ends speak.
    pub fn choose_version(&self) -> Option<u8> {
        SUPPORTED_VERSIONS.into_iter().rev().find(|version| self.versions.contains(version))
    }
}

/// The collector's answer to a HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomeV1 {
    /// The version of all frames that follow, one of those offered.
    pub version: u8,
    /// The epoch of the HELLO.
    pub epoch: [u8; 16],
    /// The highest sequence number of this epoch that is durable here; 0: none, or not known. For people and for
    /// noticing a cloned sensor; only an ACK lets the sensor forget.
    pub durable: u64,
    /// Most frames that the sensor may have unacknowledged, at least 1.
    pub window: u32,
    /// Milliseconds of silence after which the collector closes the connection. The sensor sends a STATUS at least
    /// three times as often.
    pub quiet_ms: u32,
}

/// Everything up to a sequence number is durable, or its loss is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckV1 {
    /// The epoch.
    pub epoch: [u8; 16],
    /// Of what this connection has carried, everything up to this number and with it. 0: nothing yet.
    pub sequence: u64,
}

/// Why a collector does not take more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BusyReason {
    /// Its disk is full. Wire value 0.
    DiskFull,
    /// Its store cannot be written. Wire value 1.
    StoreFailed,
    /// Too much waits for the store. Wire value 2.
    Overload,
    /// It has, or the sensor has, too many connections. Wire value 3.
    Connections,
    /// It stops. Wire value 4.
    Stopping,
    /// The sensor is not on its list, or its certificate was revoked. Wire value 5.
    NotAllowed,
    /// It knows none of the versions offered. Wire value 6.
    Version,
}

impl BusyReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::DiskFull,
        Self::StoreFailed,
        Self::Overload,
        Self::Connections,
        Self::Stopping,
        Self::NotAllowed,
        Self::Version,
    ];

    /// The word that metrics use.
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

    /// What it means, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DiskFull => "its disk is full",
            Self::StoreFailed => "its store cannot be written",
            Self::Overload => "it is overloaded",
            Self::Connections => "it has too many connections",
            Self::Stopping => "it stops",
            Self::NotAllowed => "the sensor is not allowed, or was revoked",
            Self::Version => "it knows no version of the protocol that this sensor speaks",
        }
    }
}

/// The collector's last word on a connection that it closes: what was not acknowledged was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusyV1 {
    /// Milliseconds after which to try this collector again.
    pub retry_after_ms: u32,
    /// Why.
    pub reason: BusyReason,
}

/// Why hits were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GapReason {
    /// They came faster than the spool could write. Wire value 0.
    QueueFull,
    /// The spool was full. Wire value 1.
    SpoolFull,
    /// The spool was damaged. Wire value 2.
    SpoolDamaged,
    /// They do not fit a frame. Wire value 3.
    TooLong,
    /// A collector could not store them and said so with a REFUSED frame. Wire value 4.
    Refused,
}

impl GapReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::QueueFull, Self::SpoolFull, Self::SpoolDamaged, Self::TooLong, Self::Refused];

    /// The word that stores and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::SpoolFull => "spool_full",
            Self::SpoolDamaged => "spool_damaged",
            Self::TooLong => "too_long",
            Self::Refused => "refused",
        }
    }

    /// The reason of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

/// Hits that will never come. Every sequence number of an epoch is that of a DATA frame or lies in a GAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapV1 {
    /// The first sequence number, at least 1.
    pub from: u64,
    /// The last one, not below `from`.
    pub to: u64,
    /// How many hits were given up: at least 1, at most `to - from + 1`; a collector takes at most [`GAP_COUNT_MAX`].
    pub count: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why a collector cannot store a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalReason {
    /// It is larger than its store takes. Wire value 0.
    TooLarge,
    /// Its store does not accept the contents. Wire value 1.
    NotStorable,
}

impl RefusalReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::TooLarge, Self::NotStorable];

    /// The word that metrics use.
    pub const fn as_word(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotStorable => "not_storable",
        }
    }
}

/// A frame that the collector cannot store, now or later. The ACK that covers these numbers follows: the sensor counts
/// the hits as lost and does not send them again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedV1 {
    /// The epoch.
    pub epoch: [u8; 16],
    /// The first sequence number of the frame, at least 1.
    pub from: u64,
    /// The last one, not below `from`; equal to it for a DATA frame.
    pub to: u64,
    /// Why.
    pub reason: RefusalReason,
    /// The cause, for people; may be empty.
    #[serde(deserialize_with = "bounded::string")]
    pub detail: String,
}

/// A count with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountV1 {
    /// Lower-case words with underscores; `docs/wire.md` lists those in use.
    #[serde(deserialize_with = "bounded::string")]
    pub name: String,
    /// The count.
    pub value: u64,
}

/// How the sensor is: its loss ledger and its health. Also the sign of life of a quiet connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusV1 {
    /// The sensor's clock: FILETIME.
    pub time: u64,
    /// Since the start of its process, in seconds.
    pub uptime_seconds: u64,
    /// Counts, at most [`COUNTS_MAX`], no name twice.
    #[serde(deserialize_with = "bounded::vec::<COUNTS_MAX, _, _>")]
    pub counts: Vec<CountV1>,
}

/// A message breaks a rule that the byte layout cannot express.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}, expected {expected}")]
pub struct MessageError {
    /// Message and field, such as `gap.to`.
    pub field: &'static str,
    /// What there is.
    pub found: String,
    /// What there should be.
    pub expected: &'static str,
}

/// The payload of one type of frame. Sealed: the types of the protocol are those of this module.
pub trait Message: Serialize + serde::de::DeserializeOwned + sealed::Sealed {
    /// The type of its frame.
    const TYPE: FrameType;

    /// Checks what the layout cannot express. Done when encoding and when decoding.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
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
            return refuse("gap.to", self.to, "not below gap.from");
        };
        // In this order, since a span of all numbers would overflow.
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
            return refuse("refused.to", self.to, "not below refused.from");
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
    const { assert!(NAME_LEN_MAX <= STRING_LEN_MAX, "the decoder's bound is the wider one") };
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
