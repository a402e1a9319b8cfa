//! A collector that can never store a frame: the sensor counts the hit as lost and does not send it again.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use etwsieve_transport::protocol::sensor::{CloseReason, Introduction, SensorConnection, SpoolAt};
use etwsieve_transport::spool::Spool;
use etwsieve_transport::wire::codec::encode_hit;
use etwsieve_transport::wire::encode_message;
use etwsieve_transport::wire::message::{AckV1, GapReason, Message, RefusalReason, RefusedV1, WelcomeV1};
use std::time::Instant;
use support::{hit, open};
use tempfile::TempDir;

struct Conversation {
    spool: Spool,
    connection: SensorConnection,
    epoch: [u8; 16],
    _folder: TempDir,
}

impl Conversation {
    /// Creates a sensor with `hits` hits, none of which has been sent.
    fn start(hits: u64) -> Self {
        let folder = TempDir::new().unwrap();
        let mut spool = open(folder.path());
        for number in 1..=hits {
            spool.push(&encode_hit(&hit(number, 10)).unwrap(), 1000);
        }
        spool.flush(1000).unwrap();
        let epoch = spool.front().epoch;
        let backlog = SpoolAt { spool: &mut spool, now_ms: 1000 };
        let connection = SensorConnection::new(Introduction::default(), &backlog, Instant::now()).unwrap();
        Self { spool, connection, epoch, _folder: folder }
    }

    fn reconnect(&mut self) {
        self.spool.rewind();
        let backlog = SpoolAt { spool: &mut self.spool, now_ms: 1000 };
        self.connection = SensorConnection::new(Introduction::default(), &backlog, Instant::now()).unwrap();
    }

    fn deliver<M: Message>(&mut self, message: &M) -> Result<(), CloseReason> {
        let mut bytes = Vec::new();
        encode_message(message, &mut bytes).unwrap();
        let mut backlog = SpoolAt { spool: &mut self.spool, now_ms: 1000 };
        self.connection.receive(&bytes, &mut backlog, Instant::now())
    }

    /// Delivers a WELCOME, after which everything is sent.
    fn welcome(&mut self) {
        let (version, epoch) = (1, self.epoch);
        self.deliver(&WelcomeV1 { version, epoch, durable: 0, window: 512, quiet_ms: 60_000 }).unwrap();
        let mut backlog = SpoolAt { spool: &mut self.spool, now_ms: 1000 };
        self.connection.fill_output(&mut backlog, None, Instant::now()).unwrap();
    }

    fn refused(&self, from: u64, to: u64) -> RefusedV1 {
        let detail = "poison\u{1b}[2J".into();
        RefusedV1 { epoch: self.epoch, from, to, reason: RefusalReason::NotStorable, detail }
    }

    fn lost(&self) -> u64 {
        self.spool.counts().dropped[GapReason::Refused as usize]
    }
}

#[test]
fn a_refused_hit_is_counted_once_and_deleted_when_acknowledged() {
    let mut conversation = Conversation::start(5);
    conversation.welcome();
    let epoch = conversation.epoch;
    conversation.deliver(&AckV1 { epoch, sequence: 1 }).unwrap();
    for _ in 0..2 {
        conversation.deliver(&conversation.refused(2, 2)).unwrap();
    }
    conversation.deliver(&conversation.refused(4, 4)).unwrap();
    assert_eq!(
        (conversation.lost(), conversation.spool.front().first_unacknowledged),
        (2, 2),
        "it is kept until the ACK"
    );
    // Late messages: acknowledged before, or of another epoch.
    conversation.deliver(&conversation.refused(1, 1)).unwrap();
    conversation.deliver(&RefusedV1 { epoch: [0xEE; 16], ..conversation.refused(3, 3) }).unwrap();
    assert_eq!(conversation.lost(), 2);
    conversation.deliver(&AckV1 { epoch, sequence: 5 }).unwrap();
    conversation.spool.flush(1000).unwrap();
    assert!(conversation.spool.is_empty());
    let counts = conversation.spool.counts();
    assert_eq!((counts.hits, counts.acknowledged, conversation.lost()), (0, 5, 2));
}

#[test]
fn a_hit_refused_on_two_connections_is_counted_once() {
    let mut conversation = Conversation::start(3);
    conversation.welcome();
    conversation.deliver(&conversation.refused(2, 2)).unwrap();
    // The connection is lost before the ACK.
    conversation.reconnect();
    conversation.welcome();
    conversation.deliver(&conversation.refused(2, 2)).unwrap();
    conversation.deliver(&conversation.refused(3, 3)).unwrap();
    assert_eq!(conversation.lost(), 2);
}

#[test]
fn refusing_an_unsent_hit_is_a_violation() {
    let mut early = Conversation::start(3);
    assert!(
        matches!(early.deliver(&early.refused(1, 1)), Err(CloseReason::Violation(_))),
        "before the WELCOME"
    );
    let mut conversation = Conversation::start(3);
    conversation.welcome();
    assert!(
        matches!(conversation.deliver(&conversation.refused(3, 4)), Err(CloseReason::Violation(_))),
        "only 3 were sent"
    );
    assert_eq!((early.lost(), conversation.lost()), (0, 0));
}
