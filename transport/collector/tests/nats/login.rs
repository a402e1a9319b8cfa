//! All kinds of logins, with servers that require them.

use super::{Cluster, entry, runtime};
use etwsieve_collector::backend::Backend;
use etwsieve_collector::nats::{self, NatsBackend, NatsError, NatsSettings};
use etwsieve_collector::status::now;
use std::fmt::Write as _;
use std::path::Path;

fn settings(url: &str) -> NatsSettings {
    NatsSettings { replicas: 1, max_gb: 1, ..NatsSettings::for_url(url) }
}

/// Stores a hit, which needs more than a connection.
fn works(settings: &NatsSettings) {
    runtime().block_on(async {
        let nats = NatsBackend::connect(settings).await.unwrap();
        assert!(nats.append(vec![entry(1, 1, "a")]).await.is_ok());
    });
    assert!(runtime().block_on(nats::status(settings, now())).is_ok());
}

/// Checks that the servers refuse a login and that the error names it without its secret.
fn refused(settings: &NatsSettings, expected: &str) {
    let error = runtime().block_on(nats::status(settings, now())).unwrap_err();
    assert!(matches!(error, NatsError::Login { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(expected) && text.contains("check") && !text.contains("wrong"), "{text}");
}

#[expect(clippy::unnecessary_wraps, reason = "the settings have options")]
fn file(folder: &Path, name: &str, text: &str) -> Option<std::path::PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    Some(path)
}

#[test]
fn passwords_in_url_and_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let more = "authorization { users: [ { user: \"u@x\", password: \"p:/ä\" } ] }";
    let Some(cluster) = Cluster::start_with(folder.path(), 1, more) else { return };
    let in_url = settings(&cluster.url_with("u%40x:p%3A%2F%C3%A4@"));
    works(&in_url);
    let plain = settings(&cluster.url());
    let user = Some("u@x".to_owned());
    works(&NatsSettings { user: user.clone(), password: Some("p:/ä".into()), ..plain.clone() });
    let password_file = file(folder.path(), "password", "p:/ä\n");
    works(&NatsSettings { user: user.clone(), password_file, ..plain.clone() });
    refused(&plain, "no user or token");
    refused(&settings(&cluster.url_with("u%40x:wrong@")), "user \"u@x\" with a password");
    // A starting collector tries a few times before it considers the settings wrong.
    let error =
        runtime().block_on(NatsBackend::connect(&settings(&cluster.url_with("u:wrong@")))).unwrap_err();
    assert!(error.is_final(), "{error}");
}

/// The file is read again for each connection, so a new password needs no restart.
#[test]
fn a_new_password_needs_no_restart() {
    let folder = tempfile::tempdir().unwrap();
    let users =
        |password: &str| format!("authorization {{ users: [ {{ user: u, password: {password} }} ] }}");
    let Some(mut cluster) = Cluster::start_with(folder.path(), 1, &users("first")) else { return };
    let password_file = file(folder.path(), "password", "first");
    let settings = NatsSettings { user: Some("u".into()), password_file, ..settings(&cluster.url()) };
    let runtime = runtime();
    let nats = runtime.block_on(NatsBackend::connect(&settings)).unwrap();
    assert_eq!(runtime.block_on(nats.append(vec![entry(1, 1, "a")])).unwrap().new, 1);
    file(folder.path(), "password", "second");
    cluster.reconfigure(&users("second"));
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(runtime.block_on(super::append(std::slice::from_ref(&nats), vec![entry(1, 2, "a")])).new, 1);
}

#[test]
fn tokens() {
    let folder = tempfile::tempdir().unwrap();
    let more = "authorization { token: \"s3cr3t\" }";
    let Some(cluster) = Cluster::start_with(folder.path(), 1, more) else { return };
    works(&settings(&cluster.url_with("s3cr3t@")));
    let plain = settings(&cluster.url());
    works(&NatsSettings { token: Some("s3cr3t".into()), ..plain.clone() });
    works(&NatsSettings { token_file: file(folder.path(), "token", "s3cr3t\r\n"), ..plain.clone() });
    refused(&NatsSettings { token: Some("wrong".into()), ..plain }, "a token");
}

#[test]
fn nkeys_sign_the_nonce() {
    let folder = tempfile::tempdir().unwrap();
    let (pair, other) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let more = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", pair.public_key());
    let Some(cluster) = Cluster::start_with(folder.path(), 1, &more) else { return };
    let plain = settings(&cluster.url());
    let nkey_file = file(folder.path(), "user.nk", &pair.seed().unwrap());
    works(&NatsSettings { nkey_file, ..plain.clone() });
    let nkey_file = file(folder.path(), "other.nk", &other.seed().unwrap());
    refused(&NatsSettings { nkey_file, ..plain }, "an nkey");
}

/// The server has an operator: JWTs of accounts and users are signed in a chain.
#[test]
fn credentials_files_of_nsc() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, user) = (nkeys::KeyPair::new_operator(), nkeys::KeyPair::new_user());
    let (system, account) = (nkeys::KeyPair::new_account(), nkeys::KeyPair::new_account());
    let limits = r#"{"subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1,"mem_storage":-1,"disk_storage":-1,"streams":-1,"consumer":-1}"#;
    let plain_limits = limits
        .replace(":-1,\"streams\":-1,\"consumer\":-1", ":0")
        .replace("\"mem_storage\":-1", "\"mem_storage\":0");
    let jwt = |subject: &nkeys::KeyPair, issuer: &nkeys::KeyPair, name: &str, nats: &str| {
        let key = subject.public_key();
        let claims = format!(
            r#"{{"jti":"{name}","iat":1700000000,"iss":"{}","name":"{name}","sub":"{key}","nats":{nats}}}"#,
            issuer.public_key()
        );
        let signed = format!(
            "{}.{}",
            base64url(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#),
            base64url(claims.as_bytes())
        );
        format!("{signed}.{}", base64url(&issuer.sign(signed.as_bytes()).unwrap()))
    };
    let account_claims = |limits: &str| format!(r#"{{"limits":{limits},"type":"account","version":2}}"#);
    let operator_claims =
        format!(r#"{{"type":"operator","version":2,"system_account":"{}"}}"#, system.public_key());
    let user_claims = r#"{"pub":{},"sub":{},"subs":-1,"data":-1,"payload":-1,"type":"user","version":2}"#;
    let more = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}\n",
        jwt(&operator, &operator, "operator", &operator_claims),
        system.public_key(),
        system.public_key(),
        jwt(&system, &operator, "system", &account_claims(&plain_limits)),
        account.public_key(),
        jwt(&account, &operator, "account", &account_claims(limits)),
    );
    let Some(cluster) = Cluster::start_with(folder.path(), 1, &more) else { return };
    let creds = |jwt: &str, seed: &str| {
        let mut text = String::new();
        write!(text, "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n").unwrap();
        write!(text, "-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n").unwrap();
        text
    };
    let plain = settings(&cluster.url());
    let user_jwt = jwt(&user, &account, "user", user_claims);
    let credentials = file(folder.path(), "user.creds", &creds(&user_jwt, &user.seed().unwrap()));
    works(&NatsSettings { credentials, ..plain.clone() });
    // The JWT is signed by a key that the account does not know.
    let foreign = jwt(&user, &operator, "user", user_claims);
    let credentials = file(folder.path(), "foreign.creds", &creds(&foreign, &user.seed().unwrap()));
    refused(&NatsSettings { credentials, ..plain }, "a credentials file");
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        text.extend((0..=chunk.len()).map(|digit| char::from(DIGITS[bits >> (18 - 6 * digit) & 63])));
    }
    text
}

#[test]
fn certificates_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path().join("pki");
    let authority = etwsieve_collector::pki::Authority::init(&pki, &["127.0.0.1".into()], 30).unwrap();
    let bundle = authority.issue(&"collector-1".parse().unwrap(), 30, false, None).unwrap().bundle;
    let (ca, server) = (authority.certificate_path(), authority.collector_path());
    let more = format!(
        "tls {{ cert_file: {server:?}, key_file: {server:?}, ca_file: {ca:?}, verify: true, timeout: 5 }}"
    );
    let Some(cluster) = Cluster::start_with(folder.path(), 1, &more) else { return };
    let plain = NatsSettings { ca_file: Some(ca), ..settings(&cluster.url()) };
    works(&NatsSettings { bundle: Some(bundle.clone()), ..plain.clone() });
    // Without a client certificate, and with a server certificate that the system's authorities did not sign.
    for (name, wrong) in [("no certificate", plain.clone()), ("unknown authority", settings(&cluster.url()))]
    {
        let error = runtime().block_on(nats::status(&wrong, now())).unwrap_err();
        assert!(matches!(error, NatsError::Connect(_)), "{name}: {error:?}");
        let text = error.to_string().to_lowercase();
        assert!(text.contains("certificate") || text.contains("issuer"), "{name}: {text}");
    }
    let missing = NatsSettings { bundle: Some(folder.path().join("none.pem")), ..plain };
    assert!(matches!(runtime().block_on(NatsBackend::connect(&missing)), Err(NatsError::Settings(_))));
}
