//! The embedded store under power losses and disk errors. Negative controls show that the fault shim detects a broken store.

use etwsieve_tests::faults::{Account, Balance, Batch, Disk, Rng, Running, command, wait_for};
use std::fs;
use std::path::Path;
use std::time::Duration;

const COUNT: usize = 20_000;

/// Returns the number of hits that the program has reported as durable.
fn durable(log: &Path) -> usize {
    let text = fs::read_to_string(log).unwrap_or_default();
    // The last line may be cut by a kill.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter_map(|line| line.parse().ok()).max().unwrap_or(0)
}

fn start(disk: &Disk, seed: u64, log: &Path) -> Running {
    let store = disk.folder.join("hits.db");
    let (seed, count) = (seed.to_string(), COUNT.to_string());
    let mut command = command(
        Path::new(env!("CARGO_BIN_EXE_store-under-test")),
        [store.as_os_str().to_str().expect("UTF-8"), &seed, &count],
    );
    disk.attach(&mut command);
    Running::start(command, log).expect("it starts")
}

/// Compares the store with the hits that were reported as durable.
fn balance(disk: &Disk, seed: u64, durable: usize) -> Balance {
    let all = Batch::new("store", COUNT, 100..6000, &mut Rng::new(seed));
    let mut account = Account::default();
    account.offer(&all);
    account.due(&Batch { name: all.name.clone(), scripts: all.scripts[..durable].to_vec() });
    let store = disk.folder.join("hits.db");
    if !store.exists() {
        return account.compare(std::iter::empty(), 0);
    }
    account.compare_with_store(&store, 0).expect("the store opens without help")
}

/// Injects power losses at random moments. Returns the first balance with an error, or the last one.
fn power_losses(seed: u64, count: u32, control: &str) -> Balance {
    let place = tempfile::tempdir().expect("a folder");
    let disk = Disk::new(place.path(), "store").expect("a disk");
    disk.control(control).expect("the control file is written");
    let mut rng = Rng::new(seed);
    let log = place.path().join("log");
    let mut worst = Balance::default();
    for round in 0..count {
        let before = durable(&log);
        let mut program = start(&disk, seed, &log);
        // The moment is random and measured by the progress of the program, so that it is working.
        let further = rng.within(1..200) as usize;
        wait_for(Duration::from_secs(20), || (durable(&log) >= before + further).then_some(()));
        assert!(
            program.kill(),
            "round {round}: the program was running: {}",
            fs::read_to_string(&log).unwrap_or_default()
        );
        let promised = durable(&log);
        disk.lose_power(&mut rng).expect("the loss is played");
        let balance = balance(&disk, seed, promised);
        println!("round {round}: {balance:?}");
        if !balance.is_even() {
            worst = balance;
            break;
        }
        worst = balance;
    }
    worst
}

#[test]
fn stored_hits_survive_power_losses() {
    let balance = power_losses(11, 8, "");
    assert!(balance.is_even(), "{balance:?}");
    assert!(balance.sent > 50, "{balance:?}");
}

#[test]
fn power_losses_are_detected_if_syncs_are_ignored() {
    let mut lost = 0;
    for seed in 0..4 {
        // A damaged store may not even open.
        let result = std::panic::catch_unwind(|| power_losses(seed, 2, "sync=ignored"));
        lost += u64::from(result.is_err() || result.is_ok_and(|balance| !balance.is_even()));
    }
    assert!(lost > 0, "the test does not detect a store that never syncs");
}

/// After a failed sync, a reopened store still reads pages from the memory of the system. They must be written and synced
/// again before they count as durable.
#[test]
fn hits_are_not_reported_as_durable_after_disk_errors() {
    let place = tempfile::tempdir().expect("a folder");
    let disk = Disk::new(place.path(), "store").expect("a disk");
    let (log, mut rng) = (place.path().join("log"), Rng::new(3));
    let mut program = start(&disk, 3, &log);
    for (round, words) in
        (1..=12).zip(["sync=eio-once", "write=enospc", "sync=eio", "write=eio"].iter().cycle())
    {
        let before = durable(&log);
        let reached = wait_for(Duration::from_secs(20), || (durable(&log) > before + 20).then_some(()));
        assert!(
            reached.is_some(),
            "{words}: it continues after the previous error: {}",
            fs::read_to_string(&log).unwrap_or_default()
        );
        let (syncs, writes) = disk.injected();
        let words = if words.ends_with("once") { format!("{words}:{round}") } else { (*words).to_owned() };
        disk.control(&words).expect("the control file is written");
        let hit = wait_for(Duration::from_secs(20), || {
            let (now_syncs, now_writes) = disk.injected();
            (now_syncs + now_writes > syncs + writes).then_some(())
        });
        assert!(hit.is_some(), "{words}: the error has occurred");
        std::thread::sleep(Duration::from_millis(rng.within(0..60)));
        disk.control("").expect("the control file is written");
    }
    let before = durable(&log);
    wait_for(Duration::from_secs(20), || (durable(&log) > before).then_some(()));
    assert!(program.kill(), "no error ends the program");
    let promised = durable(&log);
    disk.lose_power(&mut rng).expect("the loss is played");
    let balance = balance(&disk, 3, promised);
    assert!(balance.is_even(), "{balance:?}");
    let text = fs::read_to_string(&log).expect("a log");
    assert!(text.contains("no room left"), "{text}");
}
