//! The connection to the servers and the login.

use super::settings::{Login, NatsSettings, is_loopback};
use async_nats::{Auth, AuthError, Client, ConnectErrorKind, ConnectOptions};
use etwsieve_transport::wire::codec::HIT_LEN_MAX;
use std::fmt::Display;
use std::time::Duration;

/// Maximum length of a message in bytes: a hit with its headers.
pub(super) const MESSAGE_LEN_MAX: usize = HIT_LEN_MAX + 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// First and longest pause between two attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Number of refused logins after which the settings are considered wrong. A server that is starting may refuse valid
/// logins for a moment.
const REFUSALS_MAX: u32 = 4;

/// Why JetStream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The settings are wrong.
    #[error("nats: {0}")]
    Settings(String),
    /// No server can be reached at the moment.
    #[error("cannot connect to NATS: {0}")]
    Connect(String),
    /// The servers refuse the login.
    #[error(
        "NATS refuses the login with {login}: {detail}; check user and password in the URL, or [nats] in the configuration"
    )]
    Login {
        /// Kind of the login, without secrets.
        login: String,
        /// The server's answer.
        detail: String,
    },
    /// The servers do not accept messages of the maximum length.
    #[error(
        "nats-server accepts messages of up to {found} bytes, hits need {MESSAGE_LEN_MAX}; set max_payload: 2MB in its configuration"
    )]
    Payload {
        /// The limit of the server in bytes.
        found: usize,
    },
    /// A stream or a consumer cannot be used.
    #[error("JetStream refuses {what}: {detail}")]
    JetStream {
        /// The stream or consumer.
        what: String,
        /// The server's answer.
        detail: String,
    },
}

impl NatsError {
    /// Returns whether retrying is pointless because only a change of the settings helps.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Login { .. })
    }

    pub(super) fn jetstream(what: impl Into<String>, detail: impl Display) -> Self {
        Self::JetStream { what: what.into(), detail: detail.to_string() }
    }
}

/// Retries with doubling pauses, and logs each different failure once.
pub(super) struct ConnectRetry {
    pause: Duration,
    logged: Option<String>,
    refusals: u32,
}

impl Default for ConnectRetry {
    fn default() -> Self {
        Self { pause: PAUSE_MIN, logged: None, refusals: 0 }
    }
}

impl ConnectRetry {
    /// Waits before the next attempt.
    ///
    /// # Errors
    ///
    /// Returns `error` if another attempt cannot succeed.
    pub(super) async fn wait(&mut self, error: NatsError) -> Result<(), NatsError> {
        if matches!(error, NatsError::Login { .. }) {
            self.refusals += 1;
        }
        if matches!(error, NatsError::Settings(_)) || self.refusals >= REFUSALS_MAX {
            return Err(error);
        }
        let text = error.to_string();
        if self.logged.as_ref() == Some(&text) {
            tracing::debug!("{text}");
        } else {
            tracing::warn!("{text}; will retry at least every {} s", PAUSE_MAX.as_secs());
            self.logged = Some(text);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

impl NatsSettings {
    /// Connects, and retries until it succeeds.
    ///
    /// # Errors
    ///
    /// Only errors for which [`NatsError::is_final`] holds.
    pub(super) async fn client(&self) -> Result<Client, NatsError> {
        let mut retry = ConnectRetry::default();
        loop {
            match self.client_now().await {
                Ok(client) => return Ok(client),
                Err(error) => retry.wait(error).await?,
            }
        }
    }

    /// Connects without retries.
    pub(super) async fn client_now(&self) -> Result<Client, NatsError> {
        let servers = self.addresses()?;
        let login = self.login()?;
        for path in [&self.ca_file, &self.bundle].into_iter().flatten() {
            if let Err(error) = std::fs::File::open(path) {
                return Err(NatsError::Settings(format!("cannot read {}: {error}", path.display())));
            }
        }
        let settings = self.clone();
        // Called for each connection, so renewed files are read again.
        let mut options = ConnectOptions::with_auth_callback(move |nonce| {
            let auth = settings.login().map_err(AuthError::new).and_then(|login| auth(login, &nonce));
            async move { auth }
        })
        .name("etwsieve-collector")
        .connection_timeout(CONNECT_TIMEOUT)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempt| Duration::from_millis(100 << attempt.min(5)))
        // Hits are never sent unencrypted to other machines.
        .require_tls(!servers.iter().all(is_loopback) || self.ca_file.is_some());
        if let Some(path) = &self.ca_file {
            options = options.add_root_certificates(path.clone());
        }
        if let Some(path) = &self.bundle {
            options = options.add_client_certificate(path.clone(), path.clone());
        }
        let client = options.connect(servers).await.map_err(|error| {
            let detail = chain(&error);
            match error.kind() {
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                    NatsError::Login { login: login.describe(), detail }
                }
                _ => NatsError::Connect(detail),
            }
        })?;
        let found = client.server_info().max_payload;
        if found < MESSAGE_LEN_MAX {
            return Err(NatsError::Payload { found });
        }
        Ok(client)
    }
}

/// Returns the fields of the CONNECT message for a login.
fn auth(login: Login, nonce: &[u8]) -> Result<Auth, AuthError> {
    let signed = |seed: &str| {
        let pair = nkeys::KeyPair::from_seed(seed).map_err(AuthError::new)?;
        let signature = pair.sign(nonce).map_err(AuthError::new)?;
        Ok::<_, AuthError>((pair.public_key(), signature))
    };
    let mut auth = Auth::new();
    match login {
        Login::None => {}
        Login::Password { user, password } => {
            (auth.username, auth.password) = (Some(user), Some(password));
        }
        Login::Token(token) => auth.token = Some(token),
        Login::Nkey(seed) => {
            let (public, signature) = signed(&seed)?;
            (auth.nkey, auth.signature) = (Some(public), Some(signature));
        }
        Login::Credentials { jwt, seed } => {
            (auth.jwt, auth.signature) = (Some(jwt), Some(signed(&seed)?.1));
        }
    }
    Ok(auth)
}

/// Returns the error and its causes in one line, because the client's error texts often omit the cause.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}
