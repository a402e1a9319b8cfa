//! A collector that can never store a frame: the sensor counts the hit as lost and does not send it again.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use etwsieve_transport::sender::session::{End, Introduction, Session, SpoolAt};
use etwsieve_transport::spool::Spool;
use etwsieve_transport::wire::codec::encode_hit;
use etwsieve_transport::wire::encode_message;
use etwsieve_transport::wire::message::{AckV1, GapReason, Message, RefusalReason, RefusedV1, WelcomeV1};
use std::time::Instant;
use support::{hit, open};
use tempfile::TempDir;

struct Talk {
    spool: Spool,
    session: Session,
    epoch: [u8; 16],
    _folder: TempDir,
}

impl Talk {
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
        let session = Session::new(Introduction::default(), &backlog, Instant::now()).unwrap();
        Self { spool, session, epoch, _folder: folder }
    }

    fn hear<M: Message>(&mut self, message: &M) -> Result<(), End> {
        let mut bytes = Vec::new();
        encode_message(message, &mut bytes).unwrap();
        let mut backlog = SpoolAt { spool: &mut self.spool, now_ms: 1000 };
        self.session.receive(&bytes, &mut backlog, Instant::now())
    }

    /// Delivers a WELCOME, after which everything is sent.
    fn welcome(&mut self) {
        let (version, epoch) = (1, self.epoch);
        self.hear(&WelcomeV1 { version, epoch, durable: 0, window: 512, quiet_ms: 60_000 }).unwrap();
        let mut backlog = SpoolAt { spool: &mut self.spool, now_ms: 1000 };
        self.session.fill(&mut backlog, None, Instant::now()).unwrap();
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
    let mut talk = Talk::start(5);
    talk.welcome();
    let epoch = talk.epoch;
    talk.hear(&AckV1 { epoch, sequence: 1 }).unwrap();
    for _ in 0..2 {
        talk.hear(&talk.refused(2, 2)).unwrap();
    }
    talk.hear(&talk.refused(4, 4)).unwrap();
    assert_eq!((talk.lost(), talk.spool.front().first_unacknowledged), (2, 2), "it is kept until the ACK");
    // Late messages: acknowledged before, or of another epoch.
    talk.hear(&talk.refused(1, 1)).unwrap();
    talk.hear(&RefusedV1 { epoch: [0xEE; 16], ..talk.refused(3, 3) }).unwrap();
    assert_eq!(talk.lost(), 2);
    talk.hear(&AckV1 { epoch, sequence: 5 }).unwrap();
    talk.spool.flush(1000).unwrap();
    assert!(talk.spool.is_empty());
    let counts = talk.spool.counts();
    assert_eq!((counts.hits, counts.acknowledged, talk.lost()), (0, 5, 2));
}

#[test]
fn refusing_an_unsent_hit_is_a_violation() {
    let mut early = Talk::start(3);
    assert!(matches!(early.hear(&early.refused(1, 1)), Err(End::Breach(_))), "before the WELCOME");
    let mut talk = Talk::start(3);
    talk.welcome();
    assert!(matches!(talk.hear(&talk.refused(3, 4)), Err(End::Breach(_))), "only 3 were sent");
    assert_eq!((early.lost(), talk.lost()), (0, 0));
}
