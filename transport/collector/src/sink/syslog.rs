//! Syslog over TLS (RFC 5425): a batch is a connection.
//!
//! The protocol has no acknowledgements. What comes nearest is its orderly end: after the last message the sink closes its
//! side and waits until the receiver, having read everything up to there, closes the other one. Only then is the batch
//! delivered; a reset (the receiver closed without having read all), an alert or silence sends it again. What the receiver loses after that, nobody can see.

mod message;

use super::http::PEM_LEN_MAX;
use super::{Item, Outcome, Progress, Record, Sink, SinkError, join};
use crate::pki::Bundle;
use etwsieve_transport::files;
use message::Layout;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for one write, and for the receiver's end.
const IO_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a reset is waited for: two round trips, within these.
const RESET_WAIT_MIN: Duration = Duration::from_millis(20);
const RESET_WAIT_MAX: Duration = Duration::from_secs(2);
/// Bytes gathered before they are written.
const WRITE_LEN: usize = 64 * 1024;
/// Most bytes that a receiver may say, which has nothing to say.
const ANSWER_LEN_MAX: usize = 64 * 1024;

/// What can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogSettings {
    /// `host:port`; the port of RFC 5425 is 6514.
    pub address: String,
    /// The name that the receiver's certificate must have, unless that of the address.
    pub server_name: Option<String>,
    /// Certificates that vouch for the receiver.
    pub ca_file: PathBuf,
    /// Certificate and key to show to it: a bundle of `pki issue`.
    pub bundle: Option<PathBuf>,
    /// Facility, 0 to 23.
    pub facility: u8,
    /// Private enterprise number of the structured data.
    pub enterprise: u32,
    /// Longest message in bytes; scripts are shortened to it.
    pub message_bytes: usize,
}

/// The sink.
#[derive(Debug)]
pub struct Syslog {
    settings: SyslogSettings,
    server_name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    layout: Layout,
}

impl Syslog {
    /// A sink; it connects with its first batch.
    ///
    /// # Errors
    ///
    /// An address or a file that cannot be used, in words.
    pub fn new(settings: SyslogSettings) -> Result<Self, String> {
        let (host, _) = split_address(&settings.address)?;
        let name = settings.server_name.clone().unwrap_or(host);
        let server_name =
            ServerName::try_from(name).map_err(|error| format!("{:?}: {error}", settings.address))?;
        let tls = Arc::new(tls_config(&settings)?);
        let layout = Layout {
            facility: settings.facility,
            enterprise: settings.enterprise,
            len_max: settings.message_bytes,
        };
        Ok(Self { settings, server_name, tls, layout })
    }

    /// Sends the batch over a connection of its own and notes what no message can carry.
    fn send(&self, batch: &[Item], outcomes: &mut [Outcome], progress: &mut dyn Progress) -> io::Result<()> {
        let begun = Instant::now();
        let socket = connect(&self.settings.address)?;
        let round_trip = begun.elapsed();
        let tls =
            ClientConnection::new(self.tls.clone(), self.server_name.clone()).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, socket);
        let mut out = Vec::with_capacity(WRITE_LEN);
        for (item, outcome) in batch.iter().zip(outcomes) {
            for record in Record::of(item) {
                match self.layout.message(&record) {
                    Ok(message) => {
                        // RFC 5425, section 4.3: the length in decimal, a blank, the message.
                        write!(out, "{} ", message.len())?;
                        out.extend(message);
                    }
                    Err(len) => {
                        let len_max = self.settings.message_bytes;
                        let reason = format!("a message of {len} bytes, message_bytes is {len_max}");
                        join(outcome, Outcome::Refused(reason));
                    }
                }
                if out.len() >= WRITE_LEN {
                    stream.write_all(&out)?;
                    out.clear();
                    if !progress.wait(Duration::ZERO) {
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
        // Who closes at once (a sender that it does not want) is seen to close before it answers our data with a reset.
        std::thread::sleep((2 * round_trip).clamp(RESET_WAIT_MIN, RESET_WAIT_MAX));
        stream.sock.take_error()?.map_or(Ok(()), Err)
    }
}

impl Sink for Syslog {
    fn deliver(&mut self, batch: &[Item], progress: &mut dyn Progress) -> Result<Vec<Outcome>, SinkError> {
        let mut outcomes = vec![Outcome::Delivered; batch.len()];
        self.send(batch, &mut outcomes, progress)
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
            // The end of the connection without the word for it: the receiver has read everything nevertheless, since
            // unread data would have made it a reset.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if len > ANSWER_LEN_MAX {
            return Err(io::Error::other("the receiver talks, which no syslog receiver does"));
        }
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
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
        return Err(format!("{path}: expected at most {PEM_LEN_MAX} bytes"));
    }
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("{path}: {error}"))?;
        roots.add(certificate).map_err(|error| format!("{path}: {error}"))?;
    }
    if roots.is_empty() {
        return Err(format!("{path} holds no certificate"));
    }
    // TLS 1.2 too: receivers may be old.
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

/// Host and port of `host:port` or `[address]:port`.
fn split_address(address: &str) -> Result<(String, u16), String> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parts {
        Some((host, port)) if !host.is_empty() => Ok((host.trim_matches(['[', ']']).to_owned(), port)),
        _ => Err(format!("{address:?} is not HOST:PORT")),
    }
}
