//! Addresses of collectors, `HOST:PORT`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Maximum number of collectors of a sensor.
pub const COLLECTORS_MAX: usize = 16;

/// The address of a collector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A DNS name or an IP address. The collector's certificate must be valid for it.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid collector address {0:?}: expected HOST:PORT, such as collector.example:6514 or [2001:db8::1]:6514"
)]
pub struct AddressError(pub String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refuse = || AddressError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(refuse)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(inner) if matches!(inner.parse(), Ok(IpAddr::V6(_))) => inner,
            Some(_) => return Err(refuse()),
            // Without brackets the last part of an IPv6 address could be the port.
            None if host.contains(':') => return Err(refuse()),
            None => host,
        };
        rustls::pki_types::ServerName::try_from(host).map_err(|_| refuse())?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl Address {
    /// Returns true for a loopback address and for `localhost`, without asking a resolver.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses_are_read_and_written() {
        let rows = [
            ("collector.example:6514", Some(false)),
            ("10.0.0.7:1", Some(false)),
            ("[2001:db8::1]:6514", Some(false)),
            ("localhost:6514", Some(true)),
            ("127.0.0.9:6514", Some(true)),
            ("[::1]:6514", Some(true)),
            ("[::ffff:127.0.0.1]:6514", Some(true)),
            ("localhost.example:6514", Some(false)),
            ("collector.example", None),
            ("collector.example:0", None),
            ("collector.example:65536", None),
            (":6514", None),
            ("::1:6514", None),
            ("[::1:6514", None),
            ("[10.0.0.7]:6514", None),
            ("a b:6514", None),
            ("", None),
        ];
        for (text, loopback) in rows {
            let address: Option<Address> = text.parse().ok();
            assert_eq!(address.as_ref().map(Address::is_loopback), loopback, "{text}");
            if let Some(address) = address {
                assert_eq!(address.to_string(), text);
            }
        }
    }
}
