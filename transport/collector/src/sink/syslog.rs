//! Delivers to a syslog receiver over TLS (RFC 5425), with one connection per batch.
//!
//! The protocol has no acknowledgements. A graceful close comes closest: after the last message the sink closes its
//! side and waits until the receiver, which has read everything by then, closes the other. Only then is the batch
//! delivered. After a reset (the receiver closed without reading everything), an alert or a timeout it is sent again.
//! Hits that the receiver loses later cannot be detected.

mod message;

use super::http::PEM_LEN_MAX;
use super::{DeliveryContext, Outcome, Record, Sink, SinkError, SinkItem, join};
use crate::pki::Bundle;
use etwsieve_transport::files;
use message::MessageFormat;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for one write, and for the receiver to close its side.
const IO_TIMEOUT: Duration = Duration::from_mins(1);
/// Bounds of the time to wait for a reset, which is two round trips.
const RESET_WAIT_MIN: Duration = Duration::from_millis(20);
const RESET_WAIT_MAX: Duration = Duration::from_secs(2);
/// Number of bytes that are buffered before they are written.
const WRITE_LEN: usize = 64 * 1024;
/// Maximum number of bytes that are read from a receiver, which should not send any.
const ANSWER_LEN_MAX: usize = 64 * 1024;

/// Settings of the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogSettings {
    /// `host:port`; the port of RFC 5425 is 6514.
    pub address: String,
    /// The name in the receiver's certificate; `None`: the host of the address.
    pub server_name: Option<String>,
    /// CA certificates for the receiver.
    pub ca_file: PathBuf,
    /// Client certificate and key: a bundle of `pki issue`.
    pub bundle: Option<PathBuf>,
    /// Facility, 0 to 23.
    pub facility: u8,
    /// Private enterprise number of the structured data.
    pub enterprise: u32,
    /// Maximum length of a message in bytes; scripts are shortened to fit.
    pub message_bytes: usize,
}

/// A sink for syslog.
#[derive(Debug)]
pub struct Syslog {
    settings: SyslogSettings,
    server_name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    format: MessageFormat,
}

impl Syslog {
    /// Creates a sink, which connects with its first batch.
    ///
    /// # Errors
    ///
    /// The address or a file cannot be used.
    pub fn new(settings: SyslogSettings) -> Result<Self, String> {
        let (host, _) = split_address(&settings.address)?;
        let name = settings.server_name.clone().unwrap_or(host);
        let server_name =
            ServerName::try_from(name).map_err(|error| format!("{:?}: {error}", settings.address))?;
        let tls = Arc::new(tls_config(&settings)?);
        let format = MessageFormat {
            facility: settings.facility,
            enterprise: settings.enterprise,
            len_max: settings.message_bytes,
        };
        Ok(Self { settings, server_name, tls, format })
    }

    /// Sends the batch over a new connection and records hits that do not fit into a message as refused.
    fn send(
        &self,
        batch: &[SinkItem],
        outcomes: &mut [Outcome],
        context: &mut dyn DeliveryContext,
    ) -> io::Result<()> {
        let begun = Instant::now();
        let socket = connect(&self.settings.address)?;
        let round_trip = begun.elapsed();
        let tls =
            ClientConnection::new(self.tls.clone(), self.server_name.clone()).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, socket);
        let mut out = Vec::with_capacity(WRITE_LEN);
        for (item, outcome) in batch.iter().zip(outcomes) {
            for record in Record::of(item) {
                match self.format.message(&record) {
                    Ok(message) => {
                        // RFC 5425, section 4.3: the length in decimal, a space, the message.
                        write!(out, "{} ", message.len())?;
                        out.extend(message);
                    }
                    Err(len) => {
                        let len_max = self.settings.message_bytes;
                        let reason =
                            format!("the message has {len} bytes, the maximum is {len_max} (message_bytes)");
                        join(outcome, Outcome::Refused(reason));
                    }
                }
                if out.len() >= WRITE_LEN {
                    stream.write_all(&out)?;
                    out.clear();
                    if !context.wait(Duration::ZERO) {
                        return Err(io::Error::other("stopped in the middle of a batch"));
                    }
                }
            }
        }
        stream.write_all(&out)?;
        stream.conn.send_close_notify();
        stream.flush()?;
        stream.sock.shutdown(Shutdown::Write)?;
        wait_for_end(&mut stream)?;
        // The close of a receiver that refuses this sender arrives before its reset, which answers our data.
        std::thread::sleep((2 * round_trip).clamp(RESET_WAIT_MIN, RESET_WAIT_MAX));
        stream.sock.take_error()?.map_or(Ok(()), Err)
    }
}

impl Sink for Syslog {
    fn deliver(
        &mut self,
        batch: &[SinkItem],
        context: &mut dyn DeliveryContext,
    ) -> Result<Vec<Outcome>, SinkError> {
        let mut outcomes = vec![Outcome::Delivered; batch.len()];
        self.send(batch, &mut outcomes, context)
            .map_err(|error| SinkError::new(format!("{}: {error}", self.settings.address)))?;
        Ok(outcomes)
    }
}

/// Reads until the receiver has closed its side.
fn wait_for_end(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> io::Result<()> {
    let (mut part, mut len) = ([0; 1024], 0);
    loop {
        match stream.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(read) => len += read,
            // The receiver closed the connection without a TLS close_notify. It has read everything, because otherwise
            // there would be a reset.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if len > ANSWER_LEN_MAX {
            return Err(io::Error::other("the receiver sends data, which a syslog receiver does not do"));
        }
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(IO_TIMEOUT))?;
                stream.set_write_timeout(Some(IO_TIMEOUT))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn tls_config(settings: &SyslogSettings) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let path = settings.ca_file.display();
    let pem = files::read_at_most(&settings.ca_file, PEM_LEN_MAX)
        .map_err(|error| format!("cannot read {path}: {error}"))?;
    if pem.len() as u64 > PEM_LEN_MAX {
        return Err(format!("{path}: longer than {PEM_LEN_MAX} bytes"));
    }
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("{path}: {error}"))?;
        roots.add(certificate).map_err(|error| format!("{path}: {error}"))?;
    }
    if roots.is_empty() {
        return Err(format!("{path} contains no certificate"));
    }
    // TLS 1.2 as well, because receivers may be old.
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    match &settings.bundle {
        None => Ok(builder.with_no_client_auth()),
        Some(path) => {
            let bundle = Bundle::read(path).map_err(|error| error.to_string())?;
            builder
                .with_client_auth_cert(vec![bundle.certificate], bundle.key)
                .map_err(|error| format!("{}: {error}", path.display()))
        }
    }
}

/// Splits `host:port` or `[address]:port`.
fn split_address(address: &str) -> Result<(String, u16), String> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parts {
        Some((host, port)) if !host.is_empty() => Ok((host.trim_matches(['[', ']']).to_owned(), port)),
        _ => Err(format!("invalid address {address:?}: expected HOST:PORT")),
    }
}
