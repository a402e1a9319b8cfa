//! Only listed certificates of the authority are accepted.

use crate::collector::{Authority, Client, Collector, Word};
use crate::common::hit;
use etwsieve_collector::backend::Backend;
use etwsieve_collector::counters::Counters;
use etwsieve_collector::server::{Security, ServeError, Server, ServerSettings};
use etwsieve_collector::sqlite::{SqliteBackend, SqliteOptions};
use etwsieve_collector::status::{Status, now};
use etwsieve_transport::wire::message::BusyReason;
use rcgen::ExtendedKeyUsagePurpose;
use std::sync::Arc;
use std::time::Duration;

fn is_refused(word: &Word) -> bool {
    matches!(word, Word::Busy(busy) if busy.reason == BusyReason::NotAllowed)
}

#[test]
fn the_certificate_names_the_sensor() {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = Authority::new(&folder.path().join("pki"));
    let bundle = authority.issue("srv1.example.test");
    let mut collector = Collector::sqlite(folder.path(), &authority.security(), ServerSettings::default());
    let mut client = Client::tls(collector.addr, authority.client_config(Some(&bundle)));
    assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
    for sequence in 1..=50 {
        client.send_hit(sequence, &hit(sequence));
    }
    client.wait_for_ack(1, 50);
    collector.stop();
    let status = Status::read(&folder.path().join("hits.db"), now()).unwrap();
    assert_eq!((status.sensors[0].sensor.as_str(), status.sensors[0].hits), ("srv1.example.test", 50));
    assert!(status.sensors[0].certificate_expires.unwrap() > now());
}

#[test]
fn other_certificates_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = Authority::new(&folder.path().join("pki"));
    let mut foreign = Authority::new(&folder.path().join("foreign"));
    let good = authority.issue("good.example.test");
    let revoked = authority.issue("revoked.example.test");
    authority.revoke("revoked.example.test");
    let unlisted = authority.sign("unlisted.example.test", ExtendedKeyUsagePurpose::ClientAuth, 4000);
    let expired = authority.sign("good.example.test", ExtendedKeyUsagePurpose::ClientAuth, 2021);
    let server = authority.sign("good.example.test", ExtendedKeyUsagePurpose::ServerAuth, 4000);
    let stranger = foreign.issue("good.example.test");
    let mut collector = Collector::sqlite(folder.path(), &authority.security(), ServerSettings::default());
    // Certificates that the authority signed get a reason; others fail in the TLS handshake.
    for (name, bundle) in [("revoked", &revoked), ("not listed", &unlisted)] {
        let mut client = Client::tls(collector.addr, authority.client_config(Some(bundle)));
        let _ = client.send_bytes(b"ETWS");
        assert!(is_refused(&client.word()), "{name}");
        assert_eq!(client.word(), Word::Closed, "{name}");
    }
    let rows = [
        ("none", None),
        ("expired", Some(&expired)),
        ("for servers", Some(&server)),
        ("foreign", Some(&stranger)),
    ];
    for (name, bundle) in rows {
        let mut client = Client::tls(collector.addr, authority.client_config(bundle));
        let _ = client.send_bytes(b"ETWS");
        assert_eq!(client.word(), Word::Closed, "{name}");
    }
    let mut plain = Client::plain(collector.addr);
    let _ = plain.send_bytes(b"ETWS");
    // The client may see a TLS alert instead of a frame; it only matters that the connection ends.
    let mut rest = Vec::new();
    let _ = plain.stream.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"ETWS"));
    let mut client = Client::tls(collector.addr, authority.client_config(Some(&good)));
    assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
    collector.stop();
    assert_eq!(collector.counters.not_allowed.get(), 2);
    assert_eq!(collector.counters.handshakes_failed.get(), rows.len() as u64 + 1);
}

#[test]
fn revocation_closes_open_connections() {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = Authority::new(&folder.path().join("pki"));
    let (first, second) = (authority.issue("first.example.test"), authority.issue("second.example.test"));
    let settings = ServerSettings { reload_time: Duration::from_millis(20), ..ServerSettings::default() };
    let collector = Collector::sqlite(folder.path(), &authority.security(), settings);
    let mut revoked = Client::tls(collector.addr, authority.client_config(Some(&first)));
    let mut other = Client::tls(collector.addr, authority.client_config(Some(&second)));
    assert!(matches!(revoked.hello(1, 1), Word::Welcome(_)));
    assert!(matches!(other.hello(2, 1), Word::Welcome(_)));
    authority.revoke("first.example.test");
    assert!(is_refused(&revoked.word()));
    other.send_hit(1, &hit(1));
    other.wait_for_ack(2, 1);
    // A certificate that is issued while the collector runs is accepted.
    let third = authority.issue("third.example.test");
    let let_in = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        let mut client = Client::tls(collector.addr, authority.client_config(Some(&third)));
        let mut frame = Vec::new();
        etwsieve_transport::wire::encode_message(&crate::collector::hello(3, 1), &mut frame).unwrap();
        let _ = client.send_bytes(&frame);
        matches!(client.word(), Word::Welcome(_))
    });
    assert!(let_in);
}

#[test]
fn without_certificates_only_loopback_addresses_are_served() {
    type Row = (Security, ServerSettings, fn(&ServeError) -> bool);

    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let counters = Arc::new(Counters::default());
    let backend: Arc<dyn Backend> = Arc::new(
        SqliteBackend::start(&folder.path().join("hits.db"), SqliteOptions::default(), Arc::clone(&counters))
            .unwrap(),
    );
    let authority = Authority::new(&folder.path().join("pki"));
    let unsafe_settings = ServerSettings { ack_before_sync: true, ..ServerSettings::default() };
    let rows: [Row; 2] = [
        (Security::InsecureLoopback, ServerSettings::default(), |error| {
            matches!(error, ServeError::Insecure { .. })
        }),
        (authority.security(), unsafe_settings, |error| matches!(error, ServeError::Unsafe { .. })),
    ];
    for (security, settings, expected) in rows {
        let started = runtime.block_on(Server::start(
            "0.0.0.0:0".parse().unwrap(),
            &security,
            settings,
            Arc::clone(&backend),
            Arc::clone(&counters),
        ));
        assert!(expected(&started.unwrap_err()));
    }
}
