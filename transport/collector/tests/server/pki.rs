//! The authority: rustls accepts its certificates, names are in the expected fields, and no file is overwritten.

use etwsieve_collector::pki::{Authority, Bundle, PkiError, Register, SensorName, certificate_validity};
use etwsieve_transport::time::unix_now;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

fn name(text: &str) -> SensorName {
    text.parse().unwrap()
}

fn roots(authority: &CertificateDer<'static>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    Arc::new(roots)
}

/// Runs a handshake in memory. Returns the client's certificate as the server sees it, or the first error.
fn handshake(client: Bundle, server: Bundle, host: &str) -> Result<CertificateDer<'static>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = &[&rustls::version::TLS13];
    let client_config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .with_root_certificates(roots(&client.authority))
        .with_client_auth_cert(vec![client.certificate], client.key)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&server.authority), provider.clone())
        .build()
        .unwrap();
    let server_config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.certificate], server.key)?;
    let host = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client_config), host)?;
    let mut server = ServerConnection::new(Arc::new(server_config))?;
    for _ in 0..8 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            server.read_tls(&mut input).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            client.read_tls(&mut input).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking(), "the handshake did not end");
    Ok(server.peer_certificates().unwrap()[0].clone().into_owned())
}

fn first_dns_name(certificate: &CertificateDer<'_>) -> String {
    use x509_parser::extensions::GeneralName;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap().value;
    names
        .general_names
        .iter()
        .find_map(|name| if let GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None })
        .unwrap()
}

fn new_authority(folder: &Path) -> Authority {
    Authority::init(folder, &["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()], 90).unwrap()
}

#[test]
fn certificates_are_valid_only_for_their_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("a"), folder.path().join("b"));
    let (ours, theirs) = (new_authority(&ours), new_authority(&theirs));
    let sensor = ours.issue(&name("SRV1.example.test"), 30, false, None).unwrap().bundle;
    let stranger = theirs.issue(&name("srv1.example.test"), 30, false, None).unwrap().bundle;
    let (ours, theirs) = (ours.collector_path(), theirs.collector_path());

    let rows = [
        ("by name", &sensor, &ours, "localhost", true),
        ("by IPv4 address", &sensor, &ours, "127.0.0.1", true),
        ("by IPv6 address", &sensor, &ours, "::1", true),
        ("another host", &sensor, &ours, "other.test", false),
        ("sensor of another authority", &stranger, &ours, "localhost", false),
        ("collector of another authority", &sensor, &theirs, "localhost", false),
        ("a sensor as collector", &sensor, &sensor, "srv1.example.test", false),
        ("a collector as sensor", &ours, &ours, "localhost", false),
    ];
    for (row, client, server, host, expected) in rows {
        let got = handshake(Bundle::read(client).unwrap(), Bundle::read(server).unwrap(), host);
        assert_eq!(got.is_ok(), expected, "{row}: {got:?}");
        if let Ok(certificate) = got {
            assert_eq!(first_dns_name(&certificate), "srv1.example.test", "{row}");
        }
    }
}

#[test]
fn issued_certificates_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let authority = new_authority(folder.path());
    let path = authority.register_path();
    assert_eq!(Register::read(&path).unwrap().entries(), []);

    let first = authority.issue(&name("srv1"), 30, false, None).unwrap();
    authority.issue(&name("srv2"), 30, false, None).unwrap();
    let again = authority.issue(&name("srv1"), 30, false, None);
    assert!(matches!(again, Err(PkiError::Known { .. })), "{again:?}");
    let old = Bundle::read(&first.bundle).unwrap().certificate;
    let second = authority.issue(&name("srv1"), 60, true, None).unwrap();
    let new = Bundle::read(&second.bundle).unwrap().certificate;

    let register = Register::read(&path).unwrap();
    let names: Vec<&str> = register.entries().iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["srv1", "srv2", "srv1"]);
    for (certificate, index) in [(&old, 0), (&new, 2)] {
        let bytes: Vec<String> =
            Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect();
        let fingerprint = bytes.concat();
        let entry = register.entries().iter().find(|entry| entry.fingerprint == fingerprint).unwrap();
        assert_eq!(entry, &register.entries()[index]);
        assert!(entry.is_good(unix_now()) && !entry.is_good(entry.expires_unix()));
        assert_eq!(certificate_validity(certificate).unwrap().until, entry.expires_unix());
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
        assert_eq!(parsed.raw_serial_as_string().replace(':', ""), entry.serial);
    }

    let serial = register.entries()[0].serial.clone();
    assert_eq!(authority.revoke(&name("srv1"), Some(&serial)).unwrap(), 1);
    let revoked =
        |register: &Register| register.entries().iter().map(|entry| entry.revoked).collect::<Vec<_>>();
    assert_eq!(revoked(&Register::read(&path).unwrap()), [true, false, false]);
    assert_eq!(authority.revoke(&name("srv1"), None).unwrap(), 1);
    assert_eq!(revoked(&Register::read(&path).unwrap()), [true, false, true]);
    let unknown = authority.revoke(&name("srv3"), None);
    assert!(matches!(unknown, Err(PkiError::Unknown { .. })), "{unknown:?}");
    // After a revocation, a new certificate needs no --renew.
    authority.issue(&name("srv1"), 30, false, None).unwrap();
}

#[test]
fn nothing_is_overwritten_and_keys_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let authority = new_authority(folder.path());
    let bundle = authority.issue(&name("srv1"), 30, false, None).unwrap().bundle;
    let read = |file: &str| std::fs::read(folder.path().join(file)).unwrap();
    let before = ["ca.pem", "ca.key", "collector.pem", "sensors.toml"].map(read);

    // Any of the files prevents another init.
    for kept in ["ca.pem", "ca.key", "collector.pem", "sensors.toml"] {
        let other = tempfile::tempdir().unwrap();
        std::fs::copy(folder.path().join(kept), other.path().join(kept)).unwrap();
        let again = Authority::init(other.path(), &["localhost".to_owned()], 90);
        assert!(
            matches!(&again, Err(PkiError::Exists { path }) if path.ends_with(kept)),
            "{kept}: {again:?}"
        );
        assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 2, "{kept}: it and the lock");
    }
    assert!(Authority::init(folder.path(), &["localhost".to_owned()], 90).is_err());
    assert!(authority.issue_collector(&[], 90, Some(&bundle)).is_err());
    assert_eq!(["ca.pem", "ca.key", "collector.pem", "sensors.toml"].map(read), before);

    #[cfg(unix)]
    for file in ["ca.key", "collector.pem", "srv1.bundle.pem", "sensors.toml"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = folder.path().join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_new_collector_certificate_keeps_its_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let authority = new_authority(folder.path());
    let sensor = authority.issue(&name("srv1"), 30, false, None).unwrap().bundle;
    let before = std::fs::read(authority.collector_path()).unwrap();
    authority.issue_collector(&[], 90, None).unwrap();
    assert_ne!(std::fs::read(authority.collector_path()).unwrap(), before);
    let other = folder.path().join("second.pem");
    authority.issue_collector(&["second.test".to_owned()], 90, Some(&other)).unwrap();
    for (server, host) in [(authority.collector_path(), "::1"), (other, "second.test")] {
        let got = handshake(Bundle::read(&sensor).unwrap(), Bundle::read(&server).unwrap(), host);
        assert!(got.is_ok(), "{host}: {got:?}");
    }
}

#[test]
fn damaged_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let authority = new_authority(folder.path());
    let fine = "[[sensor]]\nname = \"a\"\nserial = \"1\"\nfingerprint = \"F\"\nissued = \"2026-01-01T00:00:00Z\"\nexpires = \"2027-01-01T00:00:00Z\"\n";
    let fingerprint = "0f".repeat(32);
    let fine = fine.replace('F', &fingerprint);
    let rows = [
        ("fine", fine.clone(), None),
        ("no TOML", "[[sensor".to_owned(), Some("TOML")),
        ("unknown key", format!("{fine}revoke = true\n"), Some("unknown field `revoke`")),
        ("short fingerprint", fine.replace("0f0f", ""), Some("fingerprint")),
        ("capitals", fine.replace("0f", "0F"), Some("fingerprint")),
        ("no time", fine.replace("2027-01", "2027-13"), Some("time")),
        ("missing", fine.replace("serial = \"1\"\n", ""), Some("serial")),
    ];
    for (row, text, expected) in rows {
        std::fs::write(authority.register_path(), text).unwrap();
        match (authority.register(), expected) {
            (Ok(register), None) => assert_eq!(register.entries().len(), 1, "{row}"),
            (Err(error), Some(part)) => {
                let error = error.to_string();
                assert!(error.contains(part) && error.contains("sensors.toml"), "{row}: {error}");
            }
            (got, _) => panic!("{row}: {got:?}"),
        }
    }
    // With a damaged list, no certificate is issued, which would lose the old ones.
    std::fs::write(authority.register_path(), "[[sensor").unwrap();
    assert!(authority.issue(&name("srv9"), 30, false, None).is_err());
    assert_eq!(std::fs::read_to_string(authority.register_path()).unwrap(), "[[sensor");
    std::fs::remove_file(folder.path().join("ca.key")).unwrap();
    let error = authority.issue_collector(&[], 30, None).unwrap_err().to_string();
    assert!(error.contains("ca.key"), "{error}");
}

/// Other programs rely on the order in `docs/wire.md`.
#[test]
fn a_bundle_is_certificate_key_and_authority_in_this_order() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(&folder.path().join("pki"), &["localhost".into()], 365).unwrap();
    let bundle = authority.issue(&name("srv1.example.test"), 30, false, None).unwrap().bundle;
    let text = std::fs::read_to_string(bundle).unwrap();
    let labels: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----")).collect();
    assert_eq!(labels, ["CERTIFICATE", "PRIVATE KEY", "CERTIFICATE"]);
    let ca = std::fs::read_to_string(folder.path().join("pki/ca.pem")).unwrap();
    assert!(text.trim_end().ends_with(ca.trim_end()), "the last one is the authority's");
}
