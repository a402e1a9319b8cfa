//! A collector in the test's process, a private authority, and an independent client that follows `docs/wire.md`.

#![allow(dead_code, reason = "each test program uses its part")]

use etwsieve_collector::backend::Backend;
use etwsieve_collector::counters::Counters;
use etwsieve_collector::pki::{CertificateEntry, Register, SENSORS_FILE, fingerprint};
use etwsieve_collector::server::{Security, ServeError, Server, ServerSettings};
use etwsieve_collector::sqlite::{SqliteBackend, SqliteOptions};
use etwsieve_transport::hit::HitV1;
use etwsieve_transport::wire::frame::{FRAME_LEN_MAX, FrameType, split_frame};
use etwsieve_transport::wire::message::{AckV1, BusyV1, HelloV1, Message, RefusedV1, WelcomeV1};
use etwsieve_transport::wire::{decode_message, encode_data, encode_message};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Longest wait for an answer.
const ANSWER_TIME: Duration = Duration::from_mins(1);

/// A collector with its store in a temporary folder.
pub(crate) struct Collector {
    pub(crate) runtime: Runtime,
    pub(crate) server: Option<Server>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) addr: SocketAddr,
}

impl Collector {
    pub(crate) fn sqlite(folder: &Path, security: &Security, settings: ServerSettings) -> Self {
        Self::with_options(folder, security, settings, SqliteOptions::default())
    }

    pub(crate) fn with_options(
        folder: &Path,
        security: &Security,
        settings: ServerSettings,
        options: SqliteOptions,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        let backend = SqliteBackend::start(&folder.join("hits.db"), options, Arc::clone(&counters)).unwrap();
        Self::start(security, settings, Arc::new(backend), counters).unwrap()
    }

    pub(crate) fn start(
        security: &Security,
        settings: ServerSettings,
        backend: Arc<dyn Backend>,
        counters: Arc<Counters>,
    ) -> Result<Self, ServeError> {
        let runtime = Runtime::new().unwrap();
        let addr = "127.0.0.1:0".parse().unwrap();
        let server =
            runtime.block_on(Server::start(addr, security, settings, backend, Arc::clone(&counters)))?;
        let addr = server.local_addr();
        Ok(Self { runtime, server: Some(server), counters, addr })
    }

    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A private authority in a folder with the layout of `etwsieve-collector pki`.
pub(crate) struct Authority {
    pub(crate) folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    sensors: Vec<CertificateEntry>,
}

/// A certificate and its key in PEM.
pub(crate) struct Bundle {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
        let mut authority =
            Self { folder: folder.into(), issuer: Issuer::new(params, key), sensors: Vec::new() };
        let bundle = authority.sign("localhost", ExtendedKeyUsagePurpose::ServerAuth, 4000);
        fs::write(folder.join("collector.pem"), format!("{}{}", bundle.certificate, bundle.key)).unwrap();
        authority.write();
        authority
    }

    /// Signs a certificate that expires with the year `until`.
    pub(crate) fn sign(&mut self, name: &str, usage: ExtendedKeyUsagePurpose, until: i32) -> Bundle {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Bundle { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Issues and lists a certificate for a sensor.
    pub(crate) fn issue(&mut self, name: &str) -> Bundle {
        let bundle = self.sign(name, ExtendedKeyUsagePurpose::ClientAuth, 4000);
        let der = CertificateDer::from_pem_slice(bundle.certificate.as_bytes()).unwrap();
        self.sensors.push(CertificateEntry {
            name: name.into(),
            serial: "01".into(),
            fingerprint: fingerprint(&der),
            issued: "2020-01-01T00:00:00Z".into(),
            expires: "4000-12-31T00:00:00Z".into(),
            revoked: false,
        });
        self.write();
        bundle
    }

    pub(crate) fn revoke(&mut self, name: &str) {
        for sensor in self.sensors.iter_mut().filter(|sensor| sensor.name == name) {
            sensor.revoked = true;
        }
        self.write();
    }

    fn write(&self) {
        Register::new(self.folder.join(SENSORS_FILE), self.sensors.clone()).save().unwrap();
    }

    pub(crate) fn security(&self) -> Security {
        Security::Pki(self.folder.clone())
    }

    /// Returns the TLS configuration of a sensor; without a bundle it has no certificate.
    pub(crate) fn client_config(&self, bundle: Option<&Bundle>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.folder.join("ca.pem")).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match bundle {
            Some(bundle) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(bundle.certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(bundle.key.as_bytes()).unwrap(),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        })
    }
}

/// A message of the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Welcome(WelcomeV1),
    Ack(AckV1),
    Busy(BusyV1),
    Refused(RefusedV1),
    /// The connection was closed.
    Closed,
}

pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A minimal sensor.
pub(crate) struct Client {
    pub(crate) stream: Box<dyn Stream>,
    received: Vec<u8>,
}

impl Client {
    pub(crate) fn plain(addr: SocketAddr) -> Self {
        Self { stream: Box::new(connect(addr)), received: Vec::new() }
    }

    pub(crate) fn tls(addr: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(config, name).unwrap();
        Self { stream: Box::new(StreamOwned::new(connection, connect(addr))), received: Vec::new() }
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    pub(crate) fn send<M: Message>(&mut self, message: &M) {
        let mut frame = Vec::new();
        encode_message(message, &mut frame).unwrap();
        self.send_bytes(&frame).unwrap();
    }

    pub(crate) fn send_hit(&mut self, sequence: u64, hit: &HitV1) {
        let mut frame = Vec::new();
        encode_data(sequence, hit, &mut frame).unwrap();
        self.send_bytes(&frame).unwrap();
    }

    /// Sends HELLO for an epoch and returns the answer.
    pub(crate) fn hello(&mut self, epoch: u8, first_unacknowledged: u64) -> Word {
        self.send(&hello(epoch, first_unacknowledged));
        self.word()
    }

    /// Returns the next message of the collector.
    pub(crate) fn word(&mut self) -> Word {
        loop {
            if let Some(split) = split_frame(&self.received).unwrap() {
                let word = match split.frame_type {
                    FrameType::Welcome => Word::Welcome(decode_message(split.payload).unwrap()),
                    FrameType::Ack => Word::Ack(decode_message(split.payload).unwrap()),
                    FrameType::Busy => Word::Busy(decode_message(split.payload).unwrap()),
                    FrameType::Refused => Word::Refused(decode_message(split.payload).unwrap()),
                    other => panic!("a collector does not send {other:?}"),
                };
                let len = self.received.len() - split.rest.len();
                self.received.drain(..len);
                return word;
            }
            assert!(self.received.len() <= FRAME_LEN_MAX);
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Word::Closed,
                Ok(len) => self.received.extend_from_slice(&chunk[..len]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("no answer from the collector")
                }
                Err(_) => return Word::Closed,
            }
        }
    }

    /// Waits until `sequence` is acknowledged. Panics on anything but lower acknowledgements.
    pub(crate) fn wait_for_ack(&mut self, epoch: u8, sequence: u64) {
        let mut last = 0;
        loop {
            match self.word() {
                Word::Ack(ack) => {
                    assert_eq!(ack.epoch, [epoch; 16]);
                    assert!(ack.sequence >= last && ack.sequence <= sequence, "{ack:?} after {last}");
                    last = ack.sequence;
                    if last == sequence {
                        return;
                    }
                }
                other => panic!("{other:?} instead of an ACK up to {sequence}"),
            }
        }
    }
}

pub(crate) fn hello(epoch: u8, first_unacknowledged: u64) -> HelloV1 {
    HelloV1 {
        versions: vec![1],
        instance: [9; 16],
        epoch: [epoch; 16],
        first_unacknowledged,
        software: "test 1".into(),
        computer: "PC1".into(),
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(ANSWER_TIME)).unwrap();
    stream.set_write_timeout(Some(ANSWER_TIME)).unwrap();
    stream
}
