//! The authority: creates it, issues and revokes certificates.

use super::bundle::{certificate_hosts, certificate_validity, fingerprint};
use super::{Bundle, CertificateEntry, PkiError, Register, SensorName, files};
use data_encoding::HEXLOWER;
use etwsieve_transport::time::{unix_now, unix_text};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Maximum validity of a certificate in days, which is that of the authority.
pub const DAYS_MAX: u32 = 3650;

const SECONDS_PER_DAY: u64 = 86_400;
/// Certificates are valid from one day before they are issued, for machines whose clock is slow.
const BACKDATED_SECONDS: u64 = SECONDS_PER_DAY;
/// Length of a serial number in bytes; RFC 5280 allows up to 20.
const SERIAL_LEN: usize = 16;
/// Names of the authority's files, which bundles must not have.
const OWN_FILES: [&str; 5] = ["ca.pem", "ca.key", "collector.pem", "sensors.toml", ".lock"];
/// Maximum length of a certificate or key file, in bytes.
const PEM_LEN_MAX: u64 = 64 * 1024;

/// An authority in a folder.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
}

/// The result of issuing a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedBundle {
    /// The path of the bundle.
    pub bundle: PathBuf,
    /// When the certificate expires, in seconds since 1970.
    pub expires: u64,
}

/// The purpose of a certificate.
#[derive(Clone, Copy)]
enum Purpose {
    Sensor,
    Collector,
}

impl Authority {
    /// Creates an authority in `folder`, with a collector's bundle for `hosts` that is valid for `days`.
    ///
    /// # Errors
    ///
    /// [`PkiError::Exists`] if one of its files exists, because an authority is never overwritten; others if a host is
    /// invalid or a file cannot be written.
    pub fn init(folder: &Path, hosts: &[String], days: u32) -> Result<Self, PkiError> {
        check_hosts(hosts)?;
        files::make_folder(folder)?;
        let authority = Self { folder: folder.to_owned() };
        let _lock = files::lock(folder)?;
        for path in [
            authority.key_path(),
            authority.certificate_path(),
            authority.register_path(),
            authority.collector_path(),
        ] {
            if path.symlink_metadata().is_ok() {
                return Err(PkiError::Exists { path });
            }
        }
        let serial = serial()?;
        // A random part distinguishes the authorities of one organisation.
        let name = format!("etwsieve authority {}", HEXLOWER.encode(&serial[..4]));
        let failed = |source| PkiError::Certificate { name: name.clone(), source };
        let now = unix_now();
        let mut params = params(&name, now, now + u64::from(DAYS_MAX) * SECONDS_PER_DAY, serial);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let mut made = Vec::new();
        let written = (|| {
            for (path, text) in [
                (authority.certificate_path(), certificate.pem()),
                (authority.key_path(), key.serialize_pem()),
                (authority.register_path(), Register::new("", Vec::new()).text()?),
            ] {
                files::create(&path, &text)?;
                made.push(path);
            }
            let (text, ..) = authority.sign(Purpose::Collector, hosts, days, self::serial()?)?;
            files::create(&authority.collector_path(), &text)
        })();
        match written {
            Ok(()) => Ok(authority),
            Err(error) => {
                // An incomplete authority is useless and would prevent the next attempt.
                for path in &made {
                    _ = std::fs::remove_file(path);
                }
                Err(error)
            }
        }
    }

    /// Opens the authority in a folder.
    ///
    /// # Errors
    ///
    /// [`PkiError::Missing`] if there is none.
    pub fn open(folder: &Path) -> Result<Self, PkiError> {
        let authority = Self { folder: folder.to_owned() };
        let path = authority.certificate_path();
        if path.exists() { Ok(authority) } else { Err(PkiError::Missing { path }) }
    }

    /// Issues a certificate to a sensor and writes its bundle to `out`, by default `NAME.bundle.pem` in the folder.
    ///
    /// If `renew` is set, the sensor may already have a valid certificate, which stays valid until it expires or is
    /// revoked, so that the sensor works until it has the new one.
    ///
    /// # Errors
    ///
    /// [`PkiError::Known`] if the sensor has a valid certificate and `renew` is not set; [`PkiError::Taken`] if the
    /// file exists and is not an earlier bundle of this sensor. In both cases no certificate is registered.
    pub fn issue(
        &self,
        name: &SensorName,
        days: u32,
        renew: bool,
        out: Option<&Path>,
    ) -> Result<IssuedBundle, PkiError> {
        let _lock = files::lock(&self.folder)?;
        let mut register = self.register()?;
        let now = unix_now();
        let good = |entry: &&CertificateEntry| entry.name == name.as_str() && entry.is_good(now);
        if let Some(entry) = register.entries().iter().find(good)
            && !renew
        {
            return Err(PkiError::Known { name: name.to_string(), expires: entry.expires.clone() });
        }
        let bundle = out.map_or_else(|| self.folder.join(format!("{name}.bundle.pem")), Path::to_owned);
        let replaces = self.check_place(&bundle, Some(name))?;
        let serial = serial()?;
        let (text, certificate, expires) = self.sign(Purpose::Sensor, &[name.to_string()], days, serial)?;
        register.add(CertificateEntry {
            name: name.to_string(),
            serial: HEXLOWER.encode(&serial),
            fingerprint: fingerprint(&certificate),
            issued: unix_text(now),
            expires: unix_text(expires),
            revoked: false,
        })?;
        // In this order, only certificates whose bundle can be written are registered, and every complete bundle is
        // registered.
        let pending = files::write(&bundle, &text)?;
        register.save()?;
        let kept = if replaces { pending.replace() } else { pending.create() };
        if let Err(error) = kept {
            // Nobody has the key. If this fails, too, an entry stays that nobody can use.
            register.remove(&HEXLOWER.encode(&serial));
            register.save().unwrap_or_else(|other| {
                tracing::warn!("cannot remove the unused certificate of {name} from the list: {other}");
            });
            return Err(error);
        }
        Ok(IssuedBundle { bundle, expires })
    }

    /// Revokes all certificates of a sensor, or the one with a serial number, and returns how many were not yet
    /// revoked. A running collector refuses them as soon as it has reloaded the list.
    ///
    /// # Errors
    ///
    /// [`PkiError::Unknown`] if there is no such certificate.
    pub fn revoke(&self, name: &SensorName, serial: Option<&str>) -> Result<usize, PkiError> {
        let _lock = files::lock(&self.folder)?;
        let mut register = self.register()?;
        let revoked = register.revoke(name.as_str(), serial)?;
        register.save()?;
        Ok(revoked)
    }

    /// Issues a new certificate for the collector, or one for another collector to `out`. If `hosts` is empty, those of
    /// the current certificate are used.
    ///
    /// # Errors
    ///
    /// [`PkiError::Taken`] if `out` exists.
    pub fn issue_collector(
        &self,
        hosts: &[String],
        days: u32,
        out: Option<&Path>,
    ) -> Result<IssuedBundle, PkiError> {
        let _lock = files::lock(&self.folder)?;
        let present = self.collector_path();
        let hosts = if hosts.is_empty() {
            certificate_hosts(&Bundle::read(&present)?.certificate).unwrap_or_default()
        } else {
            hosts.to_vec()
        };
        check_hosts(&hosts)?;
        if let Some(path) = out {
            self.check_place(path, None)?;
        }
        let (text, _, expires) = self.sign(Purpose::Collector, &hosts, days, serial()?)?;
        let bundle = out.map_or(present, Path::to_owned);
        let pending = files::write(&bundle, &text)?;
        if out.is_some() {
            pending.create()?;
        } else {
            pending.replace()?;
        }
        Ok(IssuedBundle { bundle, expires })
    }

    /// Checks that a bundle may be written to `path`. Returns true if an earlier bundle of `sensor` exists there, which
    /// may be replaced.
    fn check_place(&self, path: &Path, sensor: Option<&SensorName>) -> Result<bool, PkiError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_in = |(own, other): (PathBuf, PathBuf)| own == other;
        let is_authoritys = std::fs::canonicalize(folder)
            .and_then(|folder| Ok((folder, std::fs::canonicalize(&self.folder)?)))
            .is_ok_and(is_in);
        if is_authoritys
            && path.file_name().is_some_and(|name| OWN_FILES.iter().any(|own| name.eq_ignore_ascii_case(own)))
        {
            return Err(PkiError::Reserved { path: path.to_owned() });
        }
        if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return Ok(false);
        }
        let name = sensor.map_or_else(|| "the collector".to_owned(), SensorName::to_string);
        let is_earlier = sensor.is_some_and(|sensor| {
            let authority = self.certificate().ok();
            Bundle::read(path).is_ok_and(|bundle| {
                Some(&bundle.authority) == authority.as_ref()
                    && certificate_hosts(&bundle.certificate)
                        .is_some_and(|names| names.first().is_some_and(|name| name == sensor.as_str()))
            })
        });
        if is_earlier { Ok(true) } else { Err(PkiError::Taken { path: path.to_owned(), name }) }
    }

    /// Reads the list of sensors.
    ///
    /// # Errors
    ///
    /// The same as those of [`Register::read`].
    pub fn register(&self) -> Result<Register, PkiError> {
        Register::read(self.register_path())
    }

    /// Returns the path of the authority's certificate, `ca.pem`.
    pub fn certificate_path(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Returns the path of the collector's bundle, `collector.pem`.
    pub fn collector_path(&self) -> PathBuf {
        self.folder.join("collector.pem")
    }

    /// Returns the path of the list of sensors, `sensors.toml`.
    pub fn register_path(&self) -> PathBuf {
        self.folder.join("sensors.toml")
    }

    fn key_path(&self) -> PathBuf {
        self.folder.join("ca.key")
    }

    /// Reads the authority's certificate.
    ///
    /// # Errors
    ///
    /// [`PkiError::Missing`], [`PkiError::Damaged`], [`PkiError::Io`].
    pub fn certificate(&self) -> Result<CertificateDer<'static>, PkiError> {
        let path = self.certificate_path();
        let text = files::read(&path, PEM_LEN_MAX)?;
        CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|error| PkiError::Damaged { path, detail: error.to_string() })
    }

    /// Signs a certificate for at least one name and returns the bundle, the certificate and its expiry.
    fn sign(
        &self,
        purpose: Purpose,
        names: &[String],
        days: u32,
        serial: [u8; SERIAL_LEN],
    ) -> Result<(String, CertificateDer<'static>, u64), PkiError> {
        let failed = |source| PkiError::Certificate { name: names.join(", "), source };
        let authority = self.certificate()?;
        let path = self.certificate_path();
        let end = certificate_validity(&authority)
            .ok_or_else(|| PkiError::Damaged { path: path.clone(), detail: "not a certificate".to_owned() })?
            .until;
        let now = unix_now();
        if end <= now {
            return Err(PkiError::Expired { path, expires: unix_text(end) });
        }
        let key_path = self.key_path();
        let damaged =
            |source: rcgen::Error| PkiError::Damaged { path: key_path.clone(), detail: source.to_string() };
        let authority_key = KeyPair::from_pem(&files::read(&key_path, PEM_LEN_MAX)?).map_err(damaged)?;
        let issuer = Issuer::from_ca_cert_der(&authority, authority_key).map_err(damaged)?;

        let expires = end.min(now + u64::from(days.clamp(1, DAYS_MAX)) * SECONDS_PER_DAY);
        let mut params = params(&names[0], now, expires, serial);
        params.subject_alt_names = CertificateParams::new(names.to_vec()).map_err(failed)?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match purpose {
            Purpose::Sensor => ExtendedKeyUsagePurpose::ClientAuth,
            Purpose::Collector => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
        let bundle = [certificate.pem(), key.serialize_pem(), files::read(&path, PEM_LEN_MAX)?].concat();
        Ok((bundle, certificate.der().clone(), expires))
    }
}

/// Returns the parameters that all certificates have in common.
fn params(name: &str, now: u64, expires: u64, serial: [u8; SERIAL_LEN]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // A common name has at most 64 characters (RFC 5280, ub-common-name). The identity is in the alternative names.
    params.distinguished_name.push(DnType::CommonName, name.get(..64).unwrap_or(name));
    let unix = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = unix + Duration::from_secs(now - BACKDATED_SECONDS.min(now));
    params.not_after = unix + Duration::from_secs(expires);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

/// Returns a random serial number, which is positive and of full length.
fn serial() -> Result<[u8; SERIAL_LEN], PkiError> {
    let mut serial = [0; SERIAL_LEN];
    getrandom::fill(&mut serial).map_err(PkiError::Random)?;
    serial[0] = serial[0] & 0x7F | 0x40;
    Ok(serial)
}

fn check_hosts(hosts: &[String]) -> Result<(), PkiError> {
    if hosts.is_empty() {
        return Err(PkiError::NoHost);
    }
    match hosts.iter().find(|host| ServerName::try_from(host.as_str()).is_err()) {
        Some(host) => Err(PkiError::Host { host: host.clone() }),
        None => Ok(()),
    }
}
