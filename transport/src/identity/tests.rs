//! Tests of bundles: valid ones, invalid ones, and the contents of their certificates.

use super::{BUNDLE_LEN_MAX, Identity, IdentityError, subject};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::Path;

/// Certificate of `names`, key and authority, each as PEM.
fn parts(names: &[&str]) -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    let own = params.signed_by(&key, &authority).unwrap();
    (own.pem(), key.serialize_pem(), authority.pem())
}

fn parse(text: &str) -> Result<Identity, IdentityError> {
    Identity::parse(text.as_bytes(), Path::new("ws01.pem"))
}

#[test]
fn a_bundle_serves_sensor_and_collector() {
    let (own, key, authority) = parts(&["ws01", "localhost"]);
    let identity = parse(&format!("# for ws01\n{own}{key}{authority}")).unwrap();
    assert_eq!(identity.subject().name, "ws01");
    assert_eq!(identity.subject().starts_unix, 1_577_836_800);
    assert_eq!(identity.subject().expires_unix, 2_208_988_800);
    identity.client_config().unwrap();
    identity.server_config().unwrap();
    assert!(!format!("{identity:?}").contains("key"));
}

#[test]
fn invalid_bundles_are_rejected_with_the_reason() {
    let (own, key, authority) = parts(&["ws01"]);
    let (_, other_key, _) = parts(&["ws02"]);
    let (nameless, nameless_key, _) = parts(&["192.0.2.1"]);
    let rows: [(&str, String, &str); 8] = [
        ("empty", String::new(), "the private key is missing"),
        ("no key", format!("{own}{authority}"), "the private key is missing"),
        ("no certificate", format!("{key}{authority}"), "the certificate before the key is missing"),
        ("no authority", format!("{own}{key}"), "authority's certificate behind the key is missing"),
        ("authority first", format!("{own}{authority}{key}"), "behind the key is missing"),
        ("two keys", format!("{own}{key}{other_key}{authority}"), "two private keys"),
        ("cut", format!("{own}{key}{}", &authority[..authority.len() / 2]), "PEM is damaged"),
        ("no DNS name", format!("{nameless}{nameless_key}{authority}"), "no DNS name"),
    ];
    for (name, text, problem) in rows {
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(problem), "{name}: {error}");
        assert!(error.contains("ws01.pem"), "{name}: {error}");
    }
    let identity = parse(&format!("{own}{other_key}{authority}")).unwrap();
    assert!(matches!(identity.client_config(), Err(IdentityError::Content { .. })), "a key of somebody else");
    let long = vec![b'\n'; BUNDLE_LEN_MAX + 1];
    assert!(matches!(Identity::parse(&long, Path::new("x")), Err(IdentityError::TooLong { .. })));
    assert!(matches!(Identity::load("/nowhere/x.pem"), Err(IdentityError::Unreadable { .. })));
}

#[test]
fn every_truncation_of_a_certificate_is_refused_without_a_panic() {
    let (own, ..) = parts(&["ws01"]);
    let der = pem_der(&own);
    for len in 0..der.len() {
        assert!(subject(&der[..len]).is_err(), "{len} bytes");
    }
    assert_eq!(subject(&der).unwrap().name, "ws01");
}

fn pem_der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}
