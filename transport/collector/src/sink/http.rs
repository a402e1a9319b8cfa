//! The HTTPS client of sinks: bounded answers, and errors by status.

use super::SinkError;
use super::bulk::Verdict;
use etwsieve_transport::files;
use rustls::pki_types::pem::PemObject as _;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// Maximum length of an answer, in bytes; the rest is not read.
pub(super) const ANSWER_LEN_MAX: u64 = 32 * 1024 * 1024;
/// Maximum length of a file with a secret, in bytes.
const SECRET_LEN_MAX: u64 = 64 * 1024;
/// Maximum length of a certificate file, in bytes.
pub(super) const PEM_LEN_MAX: u64 = 1024 * 1024;
/// Maximum number of characters of an answer that are quoted in an error.
const QUOTED_MAX: usize = 300;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// Minimum value for the length at which a request is sent, in bytes.
pub(super) const REQUEST_LEN_MIN: usize = 64 * 1024;

/// The credentials of a sink. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(String);

impl Credentials {
    /// Creates credentials from the value of the header `Authorization`.
    pub fn new(header: String) -> Self {
        Self(header)
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// An HTTP client for one base URL.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    base: String,
    credentials: Option<Credentials>,
}

/// An answer of at most [`ANSWER_LEN_MAX`] bytes.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// The pause that the receiver asks for.
    pub(super) retry_after: Option<Duration>,
}

impl Client {
    /// Creates a client for `base`, whose certificate must be signed by an authority in `ca_file`, or else by a public
    /// one.
    pub(super) fn new(
        base: &str,
        ca_file: Option<&Path>,
        credentials: Option<Credentials>,
    ) -> Result<Self, String> {
        check_url(base)?;
        let roots = match ca_file {
            None => RootCerts::WebPki,
            Some(path) => {
                let pem = files::read_at_most(path, PEM_LEN_MAX)
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                if pem.len() as u64 > PEM_LEN_MAX {
                    return Err(format!("{}: longer than {PEM_LEN_MAX} bytes", path.display()));
                }
                let certificates: Result<Vec<_>, _> =
                    rustls::pki_types::CertificateDer::pem_slice_iter(&pem).collect();
                let certificates = certificates.map_err(|error| format!("{}: {error}", path.display()))?;
                if certificates.is_empty() {
                    return Err(format!("{} contains no certificate", path.display()));
                }
                let owned: Vec<_> =
                    certificates.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
                RootCerts::new_with_certs(&owned)
            }
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would send the token to another server.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REQUEST_TIMEOUT))
            .user_agent(concat!("etwsieve-collector/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build()
            .new_agent();
        Ok(Self { agent, base: base.trim_end_matches('/').to_owned(), credentials })
    }

    /// Posts `body` to a path below the base URL.
    pub(super) fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, SinkError> {
        let url = format!("{}{path}", self.base);
        let mut request = self.agent.post(&url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(Credentials(value)) = &self.credentials {
            request = request.header("Authorization", value);
        }
        let failed = |error: ureq::Error| SinkError::new(format!("{url}: {error}"));
        let mut response = request.send(body).map_err(failed)?;
        let retry_after = retry_after(&response);
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let reader = response.body_mut().as_reader();
        reader
            .take(ANSWER_LEN_MAX)
            .read_to_end(&mut body)
            .map_err(|error| SinkError::new(format!("{url}: {error}")))?;
        Ok(Answer { status, body, retry_after })
    }
}

impl Answer {
    /// Interprets an answer that accepts nothing. `is_own`: it is from the receiver, which would name a bad record.
    /// Other answers may object to the contents of the request, such as those of a firewall that finds an attack in a
    /// script, or of a proxy with limits.
    pub(super) fn judge(&self, what: &str, is_own: bool) -> Result<Verdict, SinkError> {
        match self.status {
            400 | 403 | 406 | 415 | 422 | 431 | 451 if !is_own => Ok(Verdict::Suspect(self.as_error(what))),
            _ => Err(self.as_error(what)),
        }
    }

    /// Returns the answer as an error that is retried.
    pub(super) fn as_error(&self, what: &str) -> SinkError {
        SinkError {
            detail: format!("{what}: status {}: {}", self.status, self.quote()),
            retry_after: self.retry_after,
        }
    }

    /// Returns the beginning of the body on one line.
    pub(super) fn quote(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(4 * QUOTED_MAX)]);
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(QUOTED_MAX).collect()
    }
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    value.parse().ok().map(Duration::from_secs)
}

/// Checks that a URL is HTTPS, or HTTP to a loopback address, so that tokens are not sent unencrypted to other
/// machines.
fn check_url(url: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|error| format!("invalid URL {url:?}: {error}"))?;
    let host = uri.host().ok_or_else(|| format!("invalid URL {url:?}: missing host"))?;
    let loopback = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if loopback => Ok(()),
        Some("http") => {
            Err(format!("{url:?} is not encrypted; use https (http is only allowed for loopback addresses)"))
        }
        _ => Err(format!("invalid URL {url:?}: missing scheme (use https://…)")),
    }
}

/// Returns a secret: the value, or the first line of a file.
///
/// # Errors
///
/// Both or neither are set, the file cannot be read, or the secret is not printable ASCII.
pub(super) fn secret(key: &str, value: Option<&str>, file: Option<&PathBuf>) -> Result<String, String> {
    let secret = match (value, file) {
        (Some(value), None) => value.to_owned(),
        (None, Some(path)) => {
            let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
            let text = files::read_text_at_most(path, SECRET_LEN_MAX).map_err(failed)?;
            text.lines().next().unwrap_or_default().trim().to_owned()
        }
        _ => return Err(format!("set either {key} or {key}_file")),
    };
    let printable = !secret.is_empty() && secret.bytes().all(|byte| (0x20..0x7F).contains(&byte));
    if printable { Ok(secret) } else { Err(format!("{key} is empty or not printable ASCII")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_only_allowed_for_loopback_addresses() {
        let rows = [
            ("https://splunk.example.test:8088", true),
            ("http://127.0.0.1:8088", true),
            ("http://[::1]:8088", true),
            ("http://localhost", true),
            ("http://127.example.test", false),
            ("http://splunk.example.test:8088", false),
            ("ftp://127.0.0.1", false),
            ("splunk.example.test", false),
            ("", false),
        ];
        for (url, expected) in rows {
            assert_eq!(check_url(url).is_ok(), expected, "{url}");
        }
    }
}
