//! Who may send: real processes over TLS, with the right certificate, a wrong, an expired, a revoked one, and none.
#![cfg(target_os = "linux")]

use etwsieve_collector::pki::{CertificateEntry, Register, SENSORS_FILE, fingerprint};
use etwsieve_tests::faults::client::Client;
use etwsieve_tests::faults::{Account, Batch, Books, Collector, Programs, Rng, Sensor, command, tail};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::fs;
use std::path::{Path, PathBuf};

/// What `etwsieve-collector pki` does, with certificates that it would not make.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    register: Vec<CertificateEntry>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem, register: Vec::new() }
    }

    /// The bundle of `name`, good from and until these years, on the list unless it is the collector's.
    fn bundle(&mut self, name: &str, years: (i32, i32), purpose: ExtendedKeyUsagePurpose) -> String {
        let is_sensor = purpose == ExtendedKeyUsagePurpose::ClientAuth;
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![purpose];
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        if is_sensor {
            self.register.push(CertificateEntry {
                name: name.to_owned(),
                serial: "01".to_owned(),
                fingerprint: fingerprint(certificate.der()),
                issued: "2020-01-01T00:00:00Z".to_owned(),
                expires: "2090-01-01T00:00:00Z".to_owned(),
                revoked: false,
            });
        }
        format!("{}{}{}", certificate.pem(), key.serialize_pem(), self.pem)
    }
}

/// A sensor's attempt; whether its hits arrived.
fn attempt(place: &Path, name: &str, bundle: Option<&str>, collector: &Collector, batch: &Batch) -> bool {
    let path = place.join(format!("{name}.bundle.pem"));
    let path = path.to_str().expect("UTF-8");
    let mut arguments = vec!["--collector-wait", "2"];
    match bundle {
        Some(bundle) => {
            fs::write(path, bundle).expect("the bundle is written");
            arguments.extend(["--bundle", path]);
        }
        None => arguments.push("--insecure-loopback"),
    }
    let mut sensor = Sensor::new(place, name, &arguments).expect("a sensor");
    let trace = batch.write(place).expect("a trace");
    sensor.start(&trace, &[collector.address]).expect("it starts");
    let status = sensor.wait().unwrap_or_else(|| panic!("it ends: {}", tail(&sensor.log)));
    assert!(matches!(status.code(), Some(0 | 1)), "{name}: refused, not crashed: {}", tail(&sensor.log));
    status.success()
}

#[test]
fn only_good_certificates_may_send() {
    let place = tempfile::tempdir().expect("a folder");
    let place = place.path();
    let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
    let (mut ours, mut foreign) = (Authority::new(), Authority::new());
    let pki: PathBuf = place.join("pki");
    fs::create_dir_all(&pki).expect("a folder");
    fs::write(pki.join("ca.pem"), &ours.pem).expect("it is written");
    let collector_bundle = ours.bundle("127.0.0.1", (2020, 2090), server);
    fs::write(pki.join("collector.pem"), collector_bundle).expect("it is written");
    let rows = [
        ("good", Some(ours.bundle("good.test", (2020, 2090), client.clone())), true),
        ("expired", Some(ours.bundle("expired.test", (2010, 2020), client.clone())), false),
        ("not-yet-good", Some(ours.bundle("early.test", (2080, 2090), client.clone())), false),
        ("foreign", Some(foreign.bundle("good.test", (2020, 2090), client.clone())), false),
        ("revoked", Some(ours.bundle("revoked.test", (2020, 2090), client.clone())), false),
        ("not-on-the-list", Some(ours.bundle("unlisted.test", (2020, 2090), client)), false),
        ("none", None, false),
    ];
    for sensor in &mut ours.register {
        sensor.revoked = sensor.name == "revoked.test";
    }
    ours.register.retain(|sensor| sensor.name != "unlisted.test");
    Register::new(pki.join(SENSORS_FILE), ours.register).save().expect("it is written");
    let mut collector = Collector::new(place, &["--pki", pki.to_str().expect("UTF-8")]).expect("a collector");
    collector.start_and_wait().expect("it listens");

    let mut account = Account::default();
    let mut rng = Rng::new(31);
    for (name, bundle, is_good) in rows {
        let batch = Batch::new(name, 5, 60..500, &mut rng);
        if is_good {
            account.offer(&batch);
            account.due(&batch);
        }
        assert_eq!(
            attempt(place, name, bundle.as_deref(), &collector, &batch),
            is_good,
            "{name}: {}",
            tail(&collector.log)
        );
    }
    // Not even the protocol without TLS gets a word.
    let mut plain = Client::connect(collector.address, [1; 16]).expect("it connects");
    assert!(plain.hello(1).is_err());
    collector.stop().expect("it stops");
    let balance = account.compare_with_store(&collector.store(), 0).expect("a store");
    assert!(balance.is_even() && balance.sent == 5, "only the good one's hits are there: {balance:?}");
    assert_eq!(Books::read(&collector.store()).expect("books").conflicts, 0);
}

#[test]
fn without_certificates_only_on_the_loopback_interface() {
    let place = tempfile::tempdir().expect("a folder");
    let store = place.path().join("hits.db");
    let arguments =
        ["serve", "--insecure-loopback", "--listen", "0.0.0.0:0", "--store", store.to_str().expect("UTF-8")];
    let output = command(&Programs::find().collector, arguments).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let trace = Batch::new("out", 1, 60..100, &mut Rng::new(1)).write(place.path()).expect("a trace");
    let trace = trace.to_str().expect("UTF-8");
    let arguments = ["replay", "--insecure-loopback", "--collector", "192.0.2.1:9514", trace];
    let output = command(&Programs::find().sensor, arguments).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
