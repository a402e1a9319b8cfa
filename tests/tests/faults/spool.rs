//! The spool of the sensor: power losses, exact counts of hits dropped by a full spool, and cloned machines.

use etwsieve_tests::faults::{Account, Batch, Collector, Ledger, Rng, Sensor, free_address, tail};
use std::fs;
use std::path::Path;

/// Runs a sensor without a collector, which leaves its hits in the spool.
fn spooled(place: &Path, name: &str, arguments: &[&str], batch: &Batch, control: &str) -> Sensor {
    let arguments: Vec<&str> =
        ["--insecure-loopback", "--collector-wait", "1"].iter().chain(arguments).copied().collect();
    let mut sensor = Sensor::new(place, name, &arguments).expect("a sensor");
    sensor.disk.control(control).expect("the control file is written");
    let trace = batch.write(place).expect("a trace");
    sensor.start(&trace, &[free_address().expect("a port")]).expect("it starts");
    let status = sensor.wait().unwrap_or_else(|| panic!("it ends: {}", tail(&sensor.log)));
    assert_eq!(status.code(), Some(1), "hits are left in the spool: {}", tail(&sensor.log));
    sensor
}

/// Returns the number of hits that are lost if the power fails after the sensor has ended.
fn lost_by_power(seed: u64, control: &str) -> u64 {
    let place = tempfile::tempdir().expect("a folder");
    let mut rng = Rng::new(seed);
    let batch = Batch::new("spool", 120, 60..6000, &mut rng);
    let mut sensor = spooled(place.path(), "sensor", &[], &batch, control);
    sensor.disk.lose_power(&mut rng).expect("the loss is played");
    sensor.disk.control("").expect("the control file is written");
    let mut collector = Collector::new(place.path(), &["--insecure-loopback"]).expect("a collector");
    collector.start_and_wait().expect("it listens");
    sensor.drain(place.path(), &[collector.address]).expect("what is there arrives");
    collector.stop().expect("it stops");
    let mut account = Account::default();
    account.offer(&batch);
    account.due(&batch);
    let balance = account.compare_with_store(&collector.store(), 0).expect("a store");
    assert_eq!((balance.doubled, balance.corrupt), (0, 0), "{balance:?}");
    balance.lost
}

#[test]
fn spooled_hits_survive_a_power_loss() {
    for seed in 0..3 {
        assert_eq!(lost_by_power(seed, ""), 0, "seed {seed}");
    }
}

#[test]
fn a_spool_that_does_not_sync_is_detected() {
    let found = (0..4).any(|seed| lost_by_power(seed, "sync=ignored") > 0);
    assert!(found, "the test does not detect a spool that never syncs");
}

#[test]
fn hits_dropped_by_a_full_spool_are_counted_exactly() {
    const HITS: u64 = 900;
    for keep in ["oldest", "newest"] {
        let place = tempfile::tempdir().expect("a folder");
        let batch = Batch::new("full", HITS as usize, 12_000..12_001, &mut Rng::new(7));
        let mut sensor =
            spooled(place.path(), "sensor", &["--spool-max", "4", "--spool-keep", keep], &batch, "");
        let mut collector = Collector::new(place.path(), &["--insecure-loopback"]).expect("a collector");
        collector.start_and_wait().expect("it listens");
        sensor.drain(place.path(), &[collector.address]).expect("what is there arrives");
        collector.stop().expect("it stops");
        let ledger = Ledger::read(&collector.store()).expect("the ledger");
        let mut account = Account::default();
        account.offer(&batch);
        account.due(&batch);
        let balance = account.compare_with_store(&collector.store(), ledger.lost_by_gaps).expect("a store");
        assert!(balance.is_even(), "{keep}: {balance:?}, {ledger:?}");
        assert_eq!(
            balance.stored + ledger.lost_by_gaps,
            HITS,
            "{keep}: every hit is stored or counted as dropped: {balance:?}, {ledger:?}"
        );
        assert!(ledger.lost_by_gaps > 400, "{keep}: {ledger:?}");
        // The right hits are kept.
        let (kept, given_up) = match keep {
            "oldest" => (0, HITS - 1),
            _ => (HITS - 1, 0),
        };
        for (number, is_there) in [(kept, true), (given_up, false)] {
            let mut account = Account::default();
            account.offer(&batch);
            account
                .due(&Batch { name: String::new(), scripts: vec![batch.scripts[number as usize].clone()] });
            let balance = account.compare_with_store(&collector.store(), 0).expect("a store");
            assert_eq!(balance.lost == 0, is_there, "{keep}: hit {number}");
        }
    }
}

#[test]
fn a_cloned_machine_does_not_double_hits() {
    let place = tempfile::tempdir().expect("a folder");
    let mut rng = Rng::new(8);
    let common = Batch::new("common", 150, 60..4000, &mut rng);
    let mut first = spooled(place.path(), "first", &[], &common, "");
    let mut second = Sensor::new(place.path(), "second", &["--insecure-loopback"]).expect("a sensor");
    for entry in fs::read_dir(&first.disk.folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let copy = second.disk.folder.join(path.file_name().expect("a name"));
        fs::copy(&path, copy).expect("a copy");
    }
    let mut collector = Collector::new(place.path(), &["--insecure-loopback"]).expect("a collector");
    collector.start_and_wait().expect("it listens");
    let own = [Batch::new("one", 150, 60..4000, &mut rng), Batch::new("two", 150, 60..4000, &mut rng)];
    // Both send the same epoch and sequence numbers at the same time, and then their own hits.
    std::thread::scope(|scope| {
        for (sensor, batch) in [&mut first, &mut second].into_iter().zip(&own) {
            let (place, address) = (place.path(), collector.address);
            scope.spawn(move || sensor.deliver(batch, place, &[address]).expect("all arrives"));
        }
    });
    collector.stop().expect("it stops");
    let mut account = Account::default();
    for batch in own.iter().chain([&common]) {
        account.offer(batch);
        account.due(batch);
    }
    let balance = account.compare_with_store(&collector.store(), 0).expect("a store");
    assert!(balance.is_even() && balance.sent == 450, "{balance:?}");
    let ledger = Ledger::read(&collector.store()).expect("the ledger");
    assert_eq!((ledger.conflicts, ledger.gap_counts, ledger.dangling), (0, 0, 0), "{ledger:?}");
}
