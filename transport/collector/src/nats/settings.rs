//! Settings of the cluster: servers, login and streams.

use super::NatsError;
use async_nats::ServerAddr;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Maximum number of partitions.
pub const PARTITIONS_MAX: usize = 64;
/// Maximum length of a file with a password, a token, a seed or credentials, in bytes.
const SECRET_LEN_MAX: u64 = 64 << 10;
const GIB: u64 = 1 << 30;

/// Settings of the cluster: the table `[nats]` of a configuration, or the defaults for a URL.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsSettings {
    /// `nats://[user:password@]host:port`, one for each server or several separated by commas. In a configuration this
    /// is the key `store`.
    #[serde(skip)]
    pub servers: Vec<String>,
    /// User name, unless the URL contains it.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A file with the password, instead of `password`.
    pub password_file: Option<PathBuf>,
    /// A token instead of user and password.
    pub token: Option<String>,
    /// A file with the token, instead of `token`.
    pub token_file: Option<PathBuf>,
    /// A file with the seed of a user nkey (`SU…`).
    pub nkey_file: Option<PathBuf>,
    /// A file with a JWT and a seed, as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// CA certificates for the servers, instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and key in one PEM file.
    pub bundle: Option<PathBuf>,
    /// Number of replicas of each stream: 1 to 5. Existing streams with fewer replicas are updated.
    pub replicas: usize,
    /// Number of streams among which sensors are divided: 1 to [`PARTITIONS_MAX`].
    pub partitions: usize,
    /// Maximum total size of the streams of hits in GiB. When one is full, sensors keep their hits.
    pub max_gb: u64,
    /// Exact size in bytes of each stream of hits, instead of `max_gb`. Not a key of the configuration.
    #[serde(skip)]
    pub max_bytes: Option<u64>,
    /// Days after which hits are removed even if no sink has received them; 0: never.
    pub max_days: u64,
    /// Whether hits that every sink has received are removed from the streams.
    pub free_taken: bool,
    /// Seconds within which a stream recognises a repeated hit, and for which it keeps hits that every sink has
    /// received.
    pub duplicate_window_seconds: u64,
    /// Key-value bucket with the list of sensors, in addition to `sensors.toml`; `None`: only the file is used.
    pub register: Option<String>,
    /// Sinks that must have received a hit before it is removed, even if they have never run: those of the `[[sink]]`
    /// tables.
    #[serde(skip)]
    pub sinks: Vec<String>,
    /// Interval between two checks of streams and consumers.
    #[serde(skip)]
    pub check_every: Duration,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            user: None,
            password: None,
            password_file: None,
            token: None,
            token_file: None,
            nkey_file: None,
            credentials: None,
            ca_file: None,
            bundle: None,
            replicas: 3,
            partitions: 1,
            max_gb: 10,
            max_bytes: None,
            max_days: 0,
            free_taken: true,
            duplicate_window_seconds: 600,
            register: None,
            sinks: Vec::new(),
            check_every: Duration::from_secs(10),
        }
    }
}

// Omits passwords and tokens.
impl std::fmt::Debug for NatsSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsSettings")
            .field("replicas", &self.replicas)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

/// The login of the collector.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// None, or only a client certificate.
    None,
    Password {
        user: String,
        password: String,
    },
    Token(String),
    /// The seed of an nkey, which signs the server's nonce.
    Nkey(String),
    /// A JWT and the seed of its nkey.
    Credentials {
        jwt: String,
        seed: String,
    },
}

impl Login {
    /// Describes the login without its secret, for errors.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::None => "no user or token".into(),
            Self::Password { user, .. } => format!("user {user:?} with a password"),
            Self::Token(_) => "a token".into(),
            Self::Nkey(_) => "an nkey".into(),
            Self::Credentials { .. } => "a credentials file".into(),
        }
    }
}

impl NatsSettings {
    /// Returns the defaults for the servers of `--store`.
    pub fn for_url(url: &str) -> Self {
        Self { servers: vec![url.to_owned()], ..Self::default() }
    }

    /// Returns the paths in the table, which are resolved against the folder of the configuration.
    pub fn files_mut(&mut self) -> [&mut Option<PathBuf>; 6] {
        [
            &mut self.password_file,
            &mut self.token_file,
            &mut self.nkey_file,
            &mut self.credentials,
            &mut self.ca_file,
            &mut self.bundle,
        ]
    }

    /// Returns the maximum size of one stream of hits, in bytes.
    pub(super) fn stream_bytes(&self) -> u64 {
        self.max_bytes.unwrap_or_else(|| self.max_gb.saturating_mul(GIB) / self.partitions.max(1) as u64)
    }

    pub(super) fn duplicate_window(&self) -> Duration {
        Duration::from_secs(self.duplicate_window_seconds)
    }

    /// Parses the addresses of the servers.
    pub(super) fn addresses(&self) -> Result<Vec<ServerAddr>, NatsError> {
        let urls = self.servers.iter().flat_map(|urls| urls.split(',')).map(str::trim);
        let servers: Result<Vec<ServerAddr>, _> =
            urls.filter(|url| !url.is_empty()).map(str::parse).collect();
        // The parser's error would contain the password.
        let servers = servers
            .map_err(|_| NatsError::Settings("invalid server URL; expected nats://HOST:PORT".into()))?;
        if servers.is_empty() {
            return Err(NatsError::Settings("no server; expected at least one nats://HOST:PORT".into()));
        }
        Ok(servers)
    }

    /// Returns the login from the URLs or from the keys, reading their files.
    pub(super) fn login(&self) -> Result<Login, NatsError> {
        let mut found = self.logins_of_urls()?;
        if let Some(user) = &self.user {
            let password = secret("password", self.password.as_ref(), self.password_file.as_deref())?;
            found.push(Login::Password { user: user.clone(), password: password.unwrap_or_default() });
        } else if self.password.is_some() || self.password_file.is_some() {
            return Err(NatsError::Settings("password without a user; set `user`".into()));
        }
        if let Some(token) = secret("token", self.token.as_ref(), self.token_file.as_deref())? {
            found.push(Login::Token(token));
        }
        if let Some(path) = &self.nkey_file {
            found.push(Login::Nkey(checked_seed(read_secret(path)?.trim(), path)?));
        }
        if let Some(path) = &self.credentials {
            found.push(credentials(&read_secret(path)?, path)?);
        }
        match (found.pop(), found.is_empty()) {
            (login, true) => Ok(login.unwrap_or(Login::None)),
            (_, false) => Err(NatsError::Settings(
                "more than one login; use only one of user:password@ in the URL, user, token, nkey_file, credentials"
                    .into(),
            )),
        }
    }

    /// Returns the login in the URLs, if any. All URLs that contain a login must contain the same.
    fn logins_of_urls(&self) -> Result<Vec<Login>, NatsError> {
        let mut found: Vec<Login> = Vec::new();
        for server in self.addresses()? {
            let Some(user) = server.username() else { continue };
            let user = percent_decoded(user)?;
            let login = match server.password() {
                Some(password) => Login::Password { user, password: percent_decoded(password)? },
                // By convention of all NATS clients, a user without a password is a token.
                None => Login::Token(user),
            };
            if found.iter().any(|other| *other != login) {
                return Err(NatsError::Settings("the URLs of the servers contain different logins".into()));
            }
            if found.is_empty() {
                found.push(login);
            }
        }
        Ok(found)
    }
}

pub(super) fn is_loopback(server: &ServerAddr) -> bool {
    let host = server.host();
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn secret(what: &str, text: Option<&String>, file: Option<&Path>) -> Result<Option<String>, NatsError> {
    match (text, file) {
        (Some(_), Some(_)) => {
            Err(NatsError::Settings(format!("both {what} and {what}_file are set; remove one of them")))
        }
        (Some(text), None) => Ok(Some(text.clone())),
        (None, Some(path)) => Ok(Some(read_secret(path)?.trim_end_matches(['\r', '\n']).to_owned())),
        (None, None) => Ok(None),
    }
}

fn read_secret(path: &Path) -> Result<String, NatsError> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(SECRET_LEN_MAX).read_to_string(&mut text))
        .map_err(|error| NatsError::Settings(format!("cannot read {}: {error}", path.display())))?;
    Ok(text)
}

fn checked_seed(seed: &str, path: &Path) -> Result<String, NatsError> {
    match nkeys::KeyPair::from_seed(seed) {
        Ok(_) => Ok(seed.to_owned()),
        Err(error) => {
            let expected = "expected the seed of a user nkey, which starts with SU";
            Err(NatsError::Settings(format!(
                "{} does not contain an nkey seed ({error}); {expected}",
                path.display()
            )))
        }
    }
}

/// Parses a credentials file of `nsc`: a JWT and a seed, each between two lines with dashes.
fn credentials(text: &str, path: &Path) -> Result<Login, NatsError> {
    let block = |title: &str| {
        let mut lines = text.lines().map(str::trim);
        lines.by_ref().find(|line| line.starts_with("---") && line.contains(title))?;
        lines.find(|line| !line.is_empty()).filter(|line| !line.starts_with('-')).map(str::to_owned)
    };
    match (block("BEGIN NATS USER JWT"), block("BEGIN USER NKEY SEED")) {
        (Some(jwt), Some(seed)) => Ok(Login::Credentials { jwt, seed: checked_seed(&seed, path)? }),
        _ => Err(NatsError::Settings(format!(
            "{} is not a credentials file; expected a user JWT and a seed, as `nsc generate creds` writes them",
            path.display()
        ))),
    }
}

/// Decodes percent-encoding, which URLs need for `@`, `:` and `/` in a password.
fn percent_decoded(text: &str) -> Result<String, NatsError> {
    let (mut bytes, mut decoded) = (text.bytes(), Vec::with_capacity(text.len()));
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [bytes.next(), bytes.next()].map(|digit| (digit? as char).to_digit(16));
        match digits {
            [Some(high), Some(low)] => decoded.push((high * 16 + low) as u8),
            _ => {
                return Err(NatsError::Settings(
                    "invalid percent-encoding in the user or password of a URL".into(),
                ));
            }
        }
    }
    String::from_utf8(decoded)
        .map_err(|_| NatsError::Settings("the user or password of a URL is not UTF-8".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_login_is_accepted_from_urls_and_keys() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let seed = nkeys::KeyPair::new_user().seed().unwrap();
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\nabc.def.ghi\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let (url, plain) = ("nats://u%40x:p%3A%2f@h1,nats://u%40x:p%3A%2f@h2,h3", "nats://h");
        let password = |user: &str, password: &str| {
            Some(Login::Password { user: user.into(), password: password.into() })
        };
        let with = |url: &str, set: &dyn Fn(&mut NatsSettings)| {
            let mut settings = NatsSettings::for_url(url);
            set(&mut settings);
            settings
        };
        let secret_file = file("secret", "s3\r\n");
        let rows = [
            ("nothing", with(plain, &|_| {}), Some(Login::None)),
            ("URL", with(url, &|_| {}), password("u@x", "p:/")),
            ("token in the URL", with("nats://t0ken@h", &|_| {}), Some(Login::Token("t0ken".into()))),
            ("different URLs", with("nats://a:b@h,nats://c:d@h", &|_| {}), None),
            ("bad escape", with("nats://a:%4@h", &|_| {}), None),
            (
                "user",
                with(plain, &|it| (it.user, it.password) = (Some("u".into()), Some("p".into()))),
                password("u", "p"),
            ),
            (
                "password file",
                with(plain, &|it| {
                    (it.user, it.password_file) = (Some("u".into()), Some(secret_file.clone()));
                }),
                password("u", "s3"),
            ),
            ("password alone", with(plain, &|it| it.password = Some("p".into())), None),
            (
                "token file",
                with(plain, &|it| it.token_file = Some(secret_file.clone())),
                Some(Login::Token("s3".into())),
            ),
            (
                "nkey",
                with(plain, &|it| it.nkey_file = Some(file("nk", &format!("{seed}\n")))),
                Some(Login::Nkey(seed.clone())),
            ),
            ("no nkey", with(plain, &|it| it.nkey_file = Some(secret_file.clone())), None),
            (
                "credentials",
                with(plain, &|it| it.credentials = Some(file("c", &creds))),
                Some(Login::Credentials { jwt: "abc.def.ghi".into(), seed: seed.clone() }),
            ),
            ("no credentials", with(plain, &|it| it.credentials = Some(secret_file.clone())), None),
            ("two logins", with(url, &|it| it.token = Some("t".into())), None),
            ("missing file", with(plain, &|it| it.token_file = Some("/nowhere/token".into())), None),
        ];
        for (name, settings, expected) in rows {
            let found = settings.login();
            let text = found.as_ref().err().map(ToString::to_string).unwrap_or_default();
            assert!(!text.contains("s3"), "{name}: a secret is in {text:?}");
            assert!(found.ok() == expected, "{name}: {text}");
        }
    }
}
