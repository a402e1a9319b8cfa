//! The spool: exact counts when it is full, damage, several processes, and SIGKILL at any moment.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use etwsieve_transport::spool::{
    BYTES_MAX_LEAST, DAMAGED_KEPT_MAX, Keep, ReadLimits, Spool, SpoolError, SpoolSettings,
};
use etwsieve_transport::wire::codec::encode_hit;
use etwsieve_transport::wire::frame::{FrameType, split_frame};
use etwsieve_transport::wire::message::{GapReason, GapV1};
use etwsieve_transport::wire::{decode_data, decode_message};
use proptest::prelude::*;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{hit, open, spool_settings};
use tempfile::TempDir;

const ALL: ReadLimits = ReadLimits { frames: usize::MAX, bytes: usize::MAX };

/// The contents of an epoch: first and last number, and the number of the hit or the reason of the gap.
type Read = Vec<(u64, u64, Result<u64, GapReason>)>;

fn decode(mut bytes: &[u8]) -> Read {
    let mut read = Vec::new();
    while let Some(split) = split_frame(bytes).unwrap() {
        read.push(if split.frame_type == FrameType::Data {
            let data = decode_data(split.payload).unwrap();
            (data.sequence, data.sequence, Ok(data.hit.source_sequence))
        } else {
            let gap: GapV1 = decode_message(split.payload).unwrap();
            assert_eq!(gap.count, gap.to - gap.from + 1);
            (gap.from, gap.to, Err(gap.reason))
        });
        bytes = split.rest;
    }
    read
}

fn read_front(spool: &mut Spool) -> Read {
    let front = spool.front();
    let (mut out, mut lasts) = (Vec::new(), Vec::new());
    spool.read(&front.epoch, front.first_unacknowledged, ALL, 2000, &mut out, &mut lasts).unwrap();
    let read = decode(&out);
    assert_eq!(read.iter().map(|row| row.1).collect::<Vec<_>>(), lasts);
    let mut next = front.first_unacknowledged;
    for (first, last, _) in &read {
        assert_eq!(*first, next, "numbers are consecutive: {read:?}");
        next = last + 1;
    }
    read
}

/// Reads and acknowledges everything, epoch by epoch.
fn drain(spool: &mut Spool) -> Vec<Read> {
    let mut epochs = Vec::new();
    while !spool.is_empty() {
        spool.rewind();
        let front = spool.front();
        let read = read_front(spool);
        let last = read.last().expect("something is unacknowledged").1;
        spool.acknowledge(&front.epoch, last);
        epochs.push(read);
        spool.flush(3000).unwrap();
    }
    epochs
}

fn push(spool: &mut Spool, numbers: std::ops::RangeInclusive<u64>, len: usize) {
    for number in numbers {
        spool.push(&encode_hit(&hit(number, len)).unwrap(), 1000 + number);
    }
}

/// Links to the file or its folder lead to the same spool.
#[cfg(unix)]
#[test]
fn a_spool_has_one_process_under_all_its_names() {
    use std::os::unix::fs::symlink;
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("data")).unwrap();
    symlink(at("data"), at("folder")).unwrap();
    symlink("data/spool.db", at("link.db")).unwrap();
    let open = |name: &str| {
        let settings = SpoolSettings { path: at(name), bytes_max: BYTES_MAX_LEAST, keep: Keep::Oldest };
        Spool::open(settings, 1000)
    };
    let first = open("link.db").unwrap();
    for name in ["data/spool.db", "folder/spool.db", "link.db"] {
        assert!(matches!(open(name), Err(SpoolError::InUse { .. })), "{name}");
    }
    drop(first);
    open("folder/spool.db").unwrap();
}

#[test]
fn flushed_hits_survive_a_restart() {
    let folder = TempDir::new().unwrap();
    let mut spool = open(folder.path());
    let instance = spool.instance();
    push(&mut spool, 1..=5, 100);
    spool.push_gap(3, GapReason::QueueFull, 1000);
    push(&mut spool, 6..=6, 100);
    spool.flush(1000).unwrap();
    let front = spool.front();
    spool.acknowledge(&front.epoch, 7);
    spool.flush(1000).unwrap();
    push(&mut spool, 99..=99, 100);
    drop(spool);

    let mut spool = open(folder.path());
    assert_eq!(spool.instance(), instance);
    assert_eq!((spool.front().epoch, spool.front().first_unacknowledged), (front.epoch, 8));
    push(&mut spool, 7..=7, 100);
    spool.flush(1000).unwrap();
    let epochs = drain(&mut spool);
    assert_eq!(epochs, [vec![(8, 8, Err(GapReason::QueueFull)), (9, 9, Ok(6))], vec![(1, 1, Ok(7))]]);
    let counts = spool.counts();
    assert_eq!(
        (counts.offered, counts.acknowledged, counts.hits, counts.bytes, counts.oldest_ms),
        (1, 3, 0, 0, None)
    );
}

#[test]
fn a_spool_belongs_to_one_process_and_foreign_files_stay_unchanged() {
    let folder = TempDir::new().unwrap();
    let spool = open(folder.path());
    assert!(matches!(Spool::open(spool_settings(folder.path()), 1), Err(SpoolError::InUse { .. })));
    drop(spool);
    open(folder.path());
    let at = |name: &str| SpoolSettings { path: folder.path().join(name), ..spool_settings(folder.path()) };
    fs::write(folder.path().join("letter.txt"), "Dear Sir or Madam, this is not a spool.").unwrap();
    assert!(matches!(Spool::open(at("letter.txt"), 1), Err(SpoolError::NotASpool { .. })));
    drop(etwsieve_transport::store::Store::open(folder.path().join("hits.db")).unwrap());
    assert!(matches!(Spool::open(at("hits.db"), 1), Err(SpoolError::NotASpool { .. })));
    assert!(fs::read_to_string(folder.path().join("letter.txt")).unwrap().starts_with("Dear"));
}

#[test]
fn a_full_spool_keeps_the_configured_hits_with_exact_counts() {
    for keep in [Keep::Oldest, Keep::Newest] {
        let folder = TempDir::new().unwrap();
        let mut spool = Spool::open(SpoolSettings { keep, ..spool_settings(folder.path()) }, 1).unwrap();
        let total = 4000;
        for batch in 0..total / 100 {
            push(&mut spool, batch * 100 + 1..=batch * 100 + 100, 3000);
            spool.flush(1000).unwrap();
            assert!(spool.counts().bytes <= BYTES_MAX_LEAST + 4096, "{keep:?}: {:?}", spool.counts());
        }
        let counts = spool.counts();
        let dropped = counts.dropped[GapReason::SpoolFull as usize];
        assert_eq!((counts.offered, counts.hits + dropped), (total, total));
        assert!(dropped > 1000 && counts.hits > 1000, "{counts:?}");
        let read = read_front(&mut spool);
        assert_eq!(read.iter().filter_map(|row| row.2.ok()).count() as u64, counts.hits);
        let gap = read.iter().find(|row| row.2.is_err()).unwrap();
        match keep {
            Keep::Oldest => assert_eq!(*gap, (total - dropped + 1, total, Err(GapReason::SpoolFull))),
            Keep::Newest => assert_eq!(*gap, (1, dropped, Err(GapReason::SpoolFull))),
        }
        assert_eq!(read.iter().filter(|row| row.2.is_err()).count(), 1, "one run");
        drain(&mut spool);
        let len = |spool: &Spool| fs::metadata(spool.path()).unwrap().len();
        push(&mut spool, 1..=1, 10);
        spool.flush(1).unwrap();
        assert!(len(&spool) <= 3 * BYTES_MAX_LEAST, "free space is reused");
    }
}

#[test]
fn hits_in_flight_are_not_evicted() {
    let folder = TempDir::new().unwrap();
    let settings = SpoolSettings { keep: Keep::Newest, ..spool_settings(folder.path()) };
    let mut spool = Spool::open(settings, 1).unwrap();
    push(&mut spool, 1..=100, 3000);
    spool.flush(1).unwrap();
    let front = spool.front();
    let (mut out, mut lasts) = (Vec::new(), Vec::new());
    let limits = ReadLimits { frames: 10, bytes: usize::MAX };
    spool.read(&front.epoch, 1, limits, 1, &mut out, &mut lasts).unwrap();
    push(&mut spool, 101..=3000, 3000);
    spool.flush(1).unwrap();
    let read = read_front(&mut spool);
    let numbers: Vec<_> = read.iter().take(11).map(|row| row.2).collect();
    assert_eq!(numbers[..10], (1..=10).map(Ok).collect::<Vec<_>>());
    assert_eq!(numbers[10], Err(GapReason::SpoolFull));
    // An acknowledgement inside a gap leaves the rest of the gap.
    spool.acknowledge(&front.epoch, 15);
    spool.flush(1).unwrap();
    let rest = read_front(&mut spool);
    assert_eq!((rest[0].0, rest[0].2), (16, Err(GapReason::SpoolFull)));
}

#[test]
fn damage_is_reported_and_never_stops_the_sensor() {
    let folder = TempDir::new().unwrap();
    let mut spool = open(folder.path());
    push(&mut spool, 1..=400, 2000);
    spool.flush(1).unwrap();
    drop(spool);
    let path = folder.path().join("spool.db");
    let whole = fs::read(&path).unwrap();
    let log = fs::read(folder.path().join("spool.db-wal")).unwrap_or_default();
    assert!(whole.len() > 400 * 2000 && log.is_empty(), "closing moves the log into the file");
    let mut rows: Vec<(String, Vec<u8>)> = Vec::new();
    for part in 0..12 {
        rows.push((format!("cut at {part}/12"), whole[..whole.len() * part / 12].to_vec()));
        let mut garbled = whole.clone();
        let at = whole.len() * part / 12;
        garbled[at..at + 3000].fill(0xA5);
        rows.push((format!("garbled at {part}/12"), garbled));
        let mut zeroed = whole.clone();
        zeroed[at..].fill(0);
        rows.push((format!("zeroed from {part}/12"), zeroed));
    }
    let mut saved = 0;
    for (name, bytes) in rows {
        for entry in fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap().path();
            if !entry.ends_with("spool.db-lock") {
                fs::remove_file(entry).unwrap();
            }
        }
        fs::write(&path, &bytes).unwrap();
        let mut spool = open(folder.path());
        push(&mut spool, 1000..=1000, 10);
        spool.flush(1).unwrap();
        let epochs = drain(&mut spool);
        assert_eq!(epochs.last().unwrap(), &vec![(1, 1, Ok(1000))], "{name}: the new hit is there");
        let counts = spool.counts();
        if let [old, _] = &epochs[..] {
            let hits: Vec<u64> = old.iter().filter_map(|row| row.2.ok()).collect();
            assert!(hits.iter().all(|hit| (1..=400).contains(hit)), "{name}");
            let lost: u64 = old.iter().filter(|row| row.2.is_err()).map(|row| row.1 - row.0 + 1).sum();
            assert_eq!(
                lost,
                counts.dropped[GapReason::SpoolDamaged as usize],
                "{name}: reported and counted"
            );
            assert!(counts.repairs == 1 || lost > 0 || hits.len() == 400, "{name}: {counts:?}");
            saved += hits.len();
        }
    }
    assert!(saved > 5 * 400, "much of it is recovered: {saved}");
    let aside = fs::read_dir(folder.path()).unwrap().flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains(".damaged-")).count();
    assert!(aside <= 2 * DAMAGED_KEPT_MAX);
}

#[test]
fn a_copied_spool_uses_a_new_epoch() {
    let folder = TempDir::new().unwrap();
    let mut spool = open(folder.path());
    push(&mut spool, 1..=3, 10);
    spool.flush(1).unwrap();
    drop(spool);
    let copy = TempDir::new().unwrap();
    fs::copy(folder.path().join("spool.db"), copy.path().join("spool.db")).unwrap();
    let mut spools = [open(folder.path()), open(copy.path())];
    assert_eq!(spools[0].instance(), spools[1].instance());
    assert_eq!(spools[0].front(), spools[1].front(), "the old hits are the same");
    let mut present = Vec::new();
    for spool in &mut spools {
        drain(spool);
        present.push(spool.front().epoch);
    }
    assert_ne!(present[0], present[1], "new ones differ");
}

/// Not a test: the process that the next test kills. It prints the number of each hit once that is durable.
#[test]
#[ignore = "the child of the next test"]
fn child() {
    let folder = std::env::var("SPOOL_FOLDER").unwrap();
    let mut spool = open(Path::new(&folder));
    // Acknowledges a part of the hits of the previous process, like a sender.
    for number in 1u64.. {
        push(&mut spool, number..=number, 500);
        spool.flush(1).unwrap();
        println!("durable {number}");
        if number % 3 == 0 {
            let front = spool.front();
            println!("forget {}", front.first_unacknowledged);
            spool.acknowledge(&front.epoch, front.first_unacknowledged);
        }
    }
}

#[test]
fn hits_survive_a_kill() {
    let kills: u32 = std::env::var("SPOOL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let folder = TempDir::new().unwrap();
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
            .env("SPOOL_FOLDER", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut durable, mut forgotten, wanted) = (0u64, 0usize, 1 + u64::from(kill * 7 % 40));
        let mut note = |line: &str, durable: &mut u64| {
            if let Some((_, number)) = line.split_once("durable ") {
                *durable = number.trim().parse().unwrap_or(*durable);
            }
            forgotten += usize::from(line.contains("forget "));
        };
        while durable < wanted {
            let line = lines.next().expect("the child continues").unwrap();
            note(&line, &mut durable);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Lines that the child wrote before it was killed.
        lines.map_while(Result::ok).for_each(|line| note(&line, &mut durable));
        let mut spool = open(folder.path());
        let epochs = drain(&mut spool);
        assert_eq!(spool.counts().repairs, 0, "kill {kill}");
        let hits: Vec<u64> = epochs.last().unwrap().iter().filter_map(|row| row.2.ok()).collect();
        assert!(*hits.last().unwrap() >= durable, "kill {kill}: {durable} was durable, {hits:?}");
        let first = *hits.first().unwrap();
        assert!(first <= forgotten as u64 + 1, "kill {kill}: only acknowledged hits are deleted");
        assert_eq!(hits, (first..=*hits.last().unwrap()).collect::<Vec<_>>(), "kill {kill}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Gap(u64),
    Flush,
    Read(usize),
    Acknowledge(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..4000).prop_map(Step::Push),
        1 => (1u64..5).prop_map(Step::Gap),
        3 => Just(Step::Flush),
        2 => (1usize..8).prop_map(Step::Read),
        2 => (0u64..12).prop_map(Step::Acknowledge),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Every number of every epoch is read as a hit or as part of a gap until it is acknowledged.
    #[test]
    fn every_number_is_accounted_for(steps in proptest::collection::vec(step(), 1..80), newest in any::<bool>()) {
        let folder = TempDir::new().unwrap();
        let keep = if newest { Keep::Newest } else { Keep::Oldest };
        let start = || Spool::open(SpoolSettings { keep, ..spool_settings(folder.path()) }, 1).unwrap();
        let mut spool = start();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Push(len) => {
                    next += 1;
                    push(&mut spool, next..=next, len);
                }
                Step::Gap(count) => spool.push_gap(count, GapReason::QueueFull, 1),
                Step::Flush => spool.flush(1).unwrap(),
                Step::Read(frames) => {
                    let front = spool.front();
                    let limits = ReadLimits { frames, bytes: usize::MAX };
                    let (mut out, mut lasts) = (Vec::new(), Vec::new());
                    spool.read(&front.epoch, front.first_unacknowledged, limits, 1, &mut out, &mut lasts).unwrap();
                    prop_assert!(lasts.len() <= frames);
                }
                Step::Acknowledge(count) => {
                    let front = spool.front();
                    spool.acknowledge(&front.epoch, front.first_unacknowledged - 1 + count);
                }
                Step::Restart => {
                    drop(spool);
                    spool = start();
                }
            }
        }
        spool.flush(1).unwrap();
        let before = spool.counts();
        let epochs = drain(&mut spool);
        let hits: Vec<u64> = epochs.iter().flatten().filter_map(|row| row.2.ok()).collect();
        prop_assert_eq!(hits.len() as u64, before.hits);
        prop_assert!(hits.is_sorted(), "the order is preserved");
        prop_assert_eq!(spool.counts().dropped[GapReason::SpoolDamaged as usize], 0);
    }
}
