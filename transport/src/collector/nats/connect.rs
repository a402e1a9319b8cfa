//! Settings, the connection and the streams.

use crate::wire::codec::HIT_LEN_MAX;
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::{Client, ConnectOptions, ServerAddr};
use serde::Deserialize;
use std::fmt::Display;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Subjects, before the sensor's token.
pub(super) const HITS: &str = "etwsieve.hits";
pub(super) const GAPS: &str = "etwsieve.gaps";
pub(super) const STATUS: &str = "etwsieve.status";
/// The stream of hits and gaps, and that of the last status of each sensor.
pub(super) const STREAM: &str = "ETWSIEVE";
pub(super) const STATUS_STREAM: &str = "ETWSIEVE-STATUS";

/// Longest message of ours: a hit with its headers, in bytes.
const MESSAGE_LEN_MAX: usize = HIT_LEN_MAX + 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long streams and consumers are asked for: a cluster that starts has no leader yet.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);
const PREPARE_PAUSE: Duration = Duration::from_millis(500);
const GIB: i64 = 1 << 30;

/// Why JetStream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// Something in the settings.
    #[error("nats: {0}")]
    Settings(String),
    /// No server can be reached, or none lets us in.
    #[error("cannot connect to NATS: {0}")]
    Connect(String),
    /// The servers take no message as long as a hit can be.
    #[error(
        "nats-server takes messages of {found} bytes, hits have up to {MESSAGE_LEN_MAX}; set max_payload: 2MB in its configuration"
    )]
    Payload {
        /// Its limit in bytes.
        found: usize,
    },
    /// A stream or a consumer cannot be made.
    #[error("JetStream refuses {what}: {detail}")]
    JetStream {
        /// The stream or consumer.
        what: String,
        /// What it says.
        detail: String,
    },
}

/// The cluster and how to get in. As a table `[nats]` of a configuration, or made from a URL.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsSettings {
    /// `nats://[user:password@]host:port`, one for each server or several divided by commas. In a configuration this
    /// is the key `store`.
    #[serde(skip)]
    pub servers: Vec<String>,
    /// A token instead of user and password.
    pub token: Option<String>,
    /// A file with a JWT and a seed, as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// Certificates that vouch for the servers, unless the system's.
    pub ca_file: Option<PathBuf>,
    /// Certificate and key for the servers: a bundle in PEM.
    pub bundle: Option<PathBuf>,
    /// Replicas of each stream that is created: 1 to 5.
    pub replicas: usize,
    /// Most bytes of the stream of hits that is created, in GiB. When it is full, sensors keep their hits.
    pub max_gb: u64,
    /// Days after which hits are removed; 0: never.
    pub max_days: u64,
    /// Seconds within which the stream knows a repetition.
    pub duplicate_window_seconds: u64,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            token: None,
            credentials: None,
            ca_file: None,
            bundle: None,
            replicas: 3,
            max_gb: 10,
            max_days: 30,
            duplicate_window_seconds: 600,
        }
    }
}

// Passwords and tokens stay out of logs.
impl std::fmt::Debug for NatsSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsSettings").field("replicas", &self.replicas).finish_non_exhaustive()
    }
}

impl NatsSettings {
    /// The defaults for the servers of `--store`.
    pub fn for_url(url: &str) -> Self {
        Self { servers: vec![url.to_owned()], ..Self::default() }
    }

    /// Connects.
    pub(super) async fn client(&self) -> Result<Client, NatsError> {
        let settings = |detail: String| NatsError::Settings(detail);
        let servers: Result<Vec<ServerAddr>, _> = self
            .servers
            .iter()
            .flat_map(|urls| urls.split(','))
            .map(str::trim)
            .filter(|url| !url.is_empty())
            .map(str::parse)
            .collect();
        // The error of the parser would repeat the password.
        let servers = servers.map_err(|_| settings("a server is not nats://HOST:PORT".into()))?;
        if servers.is_empty() {
            return Err(settings("name at least one server, nats://HOST:PORT".into()));
        }
        let mut options = ConnectOptions::new()
            .name("etwsieve-collector")
            .connection_timeout(CONNECT_TIMEOUT)
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| Duration::from_millis(100 << attempt.min(5)))
            // Hits do not travel in the clear.
            .require_tls(!servers.iter().all(is_loopback) || self.ca_file.is_some());
        if let Some(token) = &self.token {
            options = options.token(token.clone());
        }
        if let Some(path) = &self.credentials {
            let failed = |error| settings(format!("cannot use {}: {error}", path.display()));
            options = options.credentials_file(path).await.map_err(failed)?;
        }
        if let Some(path) = &self.ca_file {
            options = options.add_root_certificates(path.clone());
        }
        if let Some(path) = &self.bundle {
            options = options.add_client_certificate(path.clone(), path.clone());
        }
        let client = options.connect(servers).await.map_err(|error| NatsError::Connect(error.to_string()))?;
        let found = client.server_info().max_payload;
        if found < MESSAGE_LEN_MAX {
            return Err(NatsError::Payload { found });
        }
        Ok(client)
    }

    /// Creates the streams that are not there.
    pub(super) async fn prepare(&self, context: &Context) -> Result<(), NatsError> {
        let hits = Config {
            name: STREAM.into(),
            description: Some("hits and gaps of etwsieve".into()),
            subjects: vec![format!("{HITS}.>"), format!("{GAPS}.>")],
            retention: RetentionPolicy::Limits,
            // Refused, so that sensors keep their hits, instead of old ones thrown away unread.
            discard: DiscardPolicy::New,
            max_bytes: self.max_gb.cast_signed() * GIB,
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            max_age: Duration::from_secs(self.max_days * 86_400),
            storage: StorageType::File,
            num_replicas: self.replicas,
            duplicate_window: Duration::from_secs(self.duplicate_window_seconds),
            ..Config::default()
        };
        let status = Config {
            name: STATUS_STREAM.into(),
            description: Some("the last status of each sensor of etwsieve".into()),
            subjects: vec![format!("{STATUS}.>")],
            discard: DiscardPolicy::Old,
            max_bytes: GIB / 4,
            max_messages: -1,
            max_messages_per_subject: 1,
            max_consumers: -1,
            duplicate_window: Duration::from_secs(1),
            storage: StorageType::File,
            num_replicas: self.replicas,
            ..Config::default()
        };
        for config in [hits, status] {
            let what = format!("the stream {}", config.name);
            patiently(&what, || context.get_or_create_stream(config.clone())).await?;
        }
        Ok(())
    }
}

/// Asks until the cluster grants it: one that starts, or has just lost a leader, refuses for seconds.
pub(super) async fn patiently<T, E, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T, NatsError>
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let begun = tokio::time::Instant::now();
    let mut is_told = false;
    loop {
        match ask().await {
            Ok(granted) => return Ok(granted),
            Err(error) if begun.elapsed() >= PREPARE_TIMEOUT => {
                return Err(NatsError::JetStream { what: what.to_owned(), detail: error.to_string() });
            }
            Err(error) if !is_told => {
                tracing::warn!(%error, "JetStream does not grant {what} yet; it is asked again for {PREPARE_TIMEOUT:?}");
                is_told = true;
            }
            Err(error) => tracing::debug!(%error, what, "JetStream is asked again"),
        }
        tokio::time::sleep(PREPARE_PAUSE).await;
    }
}

fn is_loopback(server: &ServerAddr) -> bool {
    let host = server.host();
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
