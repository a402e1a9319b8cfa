//! Real sensors and a collector while they are killed, lose power, find their disks full or use a bad network: short runs of
//! the fault campaign with one kind of fault each.

use etwsieve_tests::faults::{Acks, NetworkFaults, Outcome, Plan, run_campaign};
use std::time::Duration;

fn run(plan: &Plan) -> Outcome {
    let place = tempfile::tempdir().expect("a folder");
    let outcome = run_campaign(plan, place.path(), |_| {}).unwrap_or_else(|error| panic!("{error}"));
    println!("{outcome:?}");
    outcome
}

#[test]
fn killed_at_random_moments() {
    let plan = Plan { faults_max: 60, kill_sensor: 2, kill_collector: 1, ..Plan::without_faults(1) };
    let outcome = run(&plan);
    assert!(outcome.balance.is_even(), "{outcome:?}");
    assert!(outcome.kills >= 20 && outcome.balance.sent > 100, "{outcome:?}");
}

#[test]
fn power_losses_of_either_side() {
    let plan = Plan { faults_max: 40, power_sensor: 1, power_collector: 1, ..Plan::without_faults(2) };
    let outcome = run(&plan);
    assert!(outcome.balance.is_even(), "{outcome:?}");
    assert!(outcome.power_losses == 40 && outcome.torn > 0, "{outcome:?}");
}

/// Negative control for power losses of the collector.
#[test]
fn acknowledging_before_the_sync_is_detected() {
    let found = (0..4).any(|seed| {
        let plan =
            Plan { faults_max: 15, power_collector: 1, negative_control: true, ..Plan::without_faults(seed) };
        run(&plan).balance.lost > 0
    });
    assert!(found, "the test does not detect a collector that acknowledges before it syncs");
}

#[test]
fn full_disks_and_failed_syncs() {
    let plan =
        Plan { faults_max: 16, disk_full: 1, sync_errors: 1, power_collector: 1, ..Plan::without_faults(4) };
    let outcome = run(&plan);
    assert!(outcome.balance.is_even(), "{outcome:?}");
    assert!(outcome.disk_full + outcome.sync_errors > 0, "{outcome:?}");
}

#[test]
fn broken_connections_and_changed_acknowledgements() {
    let network = NetworkFaults {
        cut: 60,
        half_open: 0,
        within_bytes: 300_000,
        delay_ms_max: 2,
        acks: Acks { dropped: 20, swapped: 20, doubled: 20, stale: 20 },
    };
    let outcome = run(&Plan { faults_max: 25, cut: 1, network, ..Plan::without_faults(5) });
    assert!(outcome.balance.is_even(), "{outcome:?}");
    assert!(outcome.cut > 0 && outcome.acks > 0, "{outcome:?}");
}

#[test]
fn connections_that_stop_carrying_data() {
    let network = NetworkFaults { half_open: 100, within_bytes: 60_000, ..NetworkFaults::default() };
    // After the last fault the network works again, and sensors have to detect the dead connections.
    let plan = Plan {
        faults_max: 8,
        time: Duration::from_secs(6),
        cut: 1,
        pause_ms: (500, 600),
        network,
        ..Plan::without_faults(6)
    };
    let outcome = run(&plan);
    assert!(outcome.balance.is_even(), "{outcome:?}");
    assert!(outcome.half_open > 0, "{outcome:?}");
}
