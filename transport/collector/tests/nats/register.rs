//! The list of sensors in the cluster: every collector reads it, and a revoked certificate is refused by all of them.

use super::collector::{Authority, Client, Collector, Word};
use super::{Cluster, runtime, settings};
use etwsieve_collector::counters::Counters;
use etwsieve_collector::nats::{self, NatsBackend, NatsSettings};
use etwsieve_collector::pki::{Register, SENSORS_FILE};
use etwsieve_collector::server::{Security, ServerSettings};
use etwsieve_transport::wire::message::BusyReason;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait until all collectors have reloaded the list.
const PATIENCE: Duration = Duration::from_mins(1);

/// Starts a collector with the authority's certificate and its own, but without a local list of sensors.
fn start(folder: &Path, authority: &Authority, settings: &NatsSettings) -> Collector {
    std::fs::create_dir_all(folder).unwrap();
    let Security::Pki(pki) = authority.security() else { panic!("there are certificates") };
    for name in ["ca.pem", "collector.pem"] {
        std::fs::copy(pki.join(name), folder.join(name)).unwrap();
    }
    let runtime = runtime();
    let (backend, issued) = runtime.block_on(async {
        let nats = NatsBackend::connect(settings).await.unwrap();
        let issued = nats.follow_register(settings).await.unwrap();
        (nats, issued)
    });
    assert!(issued.is_some());
    let server = ServerSettings { issued, ..ServerSettings::default() };
    let collector = Collector::start(
        &Security::Pki(folder.into()),
        server,
        Arc::new(backend),
        Arc::new(Counters::default()),
    )
    .unwrap();
    // The runtime runs the connection to the cluster.
    std::mem::forget(runtime);
    collector
}

#[test]
fn a_revoked_certificate_is_refused_by_every_collector() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let settings = NatsSettings { register: Some("sensors".into()), ..settings(&cluster, 1) };
    let mut authority = Authority::new(&folder.path().join("pki"));
    let Security::Pki(pki) = authority.security() else { panic!("there are certificates") };
    let sensors = ["first.example.test", "second.example.test"].map(|name| authority.issue(name));
    let admin = runtime();
    let push = || {
        let register = Register::read(pki.join(SENSORS_FILE)).unwrap();
        admin.block_on(nats::push_register(&settings, &register)).unwrap()
    };
    // The list is pushed before the first collector starts; a second push changes nothing.
    assert_eq!(push().written, 2);
    assert_eq!(push().written, 0);
    let collectors = ["c0", "c1"].map(|name| start(&folder.path().join(name), &authority, &settings));
    let answer = |collector: &Collector, sensor: usize| {
        let mut client = Client::tls(collector.addr, authority.client_config(Some(&sensors[sensor])));
        let mut frame = Vec::new();
        etwsieve_transport::wire::encode_message(&super::collector::hello(sensor as u8, 1), &mut frame)
            .unwrap();
        let _ = client.send_bytes(&frame);
        client.word()
    };
    for collector in &collectors {
        for sensor in 0..2 {
            assert!(matches!(answer(collector, sensor), Word::Welcome(_)));
        }
    }
    let before = std::fs::read(pki.join(SENSORS_FILE)).unwrap();
    let mut register = Register::read(pki.join(SENSORS_FILE)).unwrap().entries().to_vec();
    register[0].revoked = true;
    Register::new(pki.join(SENSORS_FILE), register).save().unwrap();
    assert_eq!(push().written, 1);
    let is_refused = |word| matches!(word, Word::Busy(busy) if busy.reason == BusyReason::NotAllowed);
    for collector in &collectors {
        let begun = Instant::now();
        while !is_refused(answer(collector, 0)) {
            assert!(begun.elapsed() < PATIENCE, "a revoked sensor is accepted");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(matches!(answer(collector, 1), Word::Welcome(_)));
    }
    // Pushing an older list does not undo the revocation.
    std::fs::write(pki.join(SENSORS_FILE), before).unwrap();
    let pushed = push();
    assert_eq!((pushed.written, pushed.stay_revoked), (0, 1));
    std::thread::sleep(2 * nats::POLL_EVERY);
    assert!(collectors.iter().all(|collector| is_refused(answer(collector, 0))));
}
