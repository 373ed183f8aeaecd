//! Makes and checks certificates.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use gotgan_core::amount::{MICROS_PER_SECOND, UnixMicros};
use gotgan_core::ids::NodeName;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use ring::digest;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;

use super::super::hex;
use super::files::{self, Secrecy};
use super::{REQUEST_MAX_BYTES, TlsError, WORKER_MARK, new_key};

const DAY_S: i64 = 86_400;

/// The CA outlives the machines of one procurement.
const CA_DAYS: i64 = 3650;

/// Browsers and some libraries refuse server certificates of more than 398 days.
const SERVER_DAYS: i64 = 397;

/// A worker has it renewed when a third of that is left, so that it may be off for four months.
const WORKER_DAYS: i64 = 365;

/// The server's certificate is made again at a start with less than this left.
const RENEW_DAYS: i64 = 30;

/// Certificates begin this much earlier, so that a machine whose clock is behind accepts them at once.
const BACKDATE_S: i64 = 3600;

/// The CA's certificate and key.
pub(super) struct Authority {
    pem: String,
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// The CA of a directory. The key is written before the certificate, so a key alone means that the making was
    /// cut short, or that the certificate was lost: both are made good by a certificate for the same key, under
    /// which all certificates of workers still count.
    pub(super) fn load_or_make(dir: &Path, now: UnixMicros) -> Result<Self, TlsError> {
        let (pem_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        if files::read_if_there(&pem_path)?.is_some() {
            return Self::load(&pem_path, &key_path, now);
        }
        let key = match files::read_if_there(&key_path)? {
            Some(text) => key_of(&text, &key_path)?,
            None => {
                let key = new_key()?;
                files::write(&key_path, &key.serialize_pem(), Secrecy::Secret)?;
                key
            }
        };
        let certificate = ca_params(&key, now).self_signed(&key)?;
        files::write(&pem_path, &certificate.pem(), Secrecy::Public)?;
        Self::load(&pem_path, &key_path, now)
    }

    /// The CA of two files.
    pub(super) fn load(pem: &Path, key: &Path, now: UnixMicros) -> Result<Self, TlsError> {
        let text = files::read(pem)?;
        check_certificate(&text, pem, now)?;
        let key_text = files::read(key)?;
        check_key(&key_text, key, &text, pem)?;
        let not_a_ca =
            || TlsError::Content { path: pem.to_owned(), what: "the certificate of a CA" };
        let der = first_der(&text).ok_or_else(not_a_ca)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| not_a_ca())?;
        if !parsed.is_ca() {
            return Err(not_a_ca());
        }
        let issuer = Issuer::from_ca_cert_der(&der.as_slice().into(), key_of(&key_text, key)?)?;
        Ok(Authority { pem: text, der, issuer })
    }

    /// A client certificate for the key of the request.
    pub(super) fn sign_worker(
        &self,
        request_pem: &str,
        node: &NodeName,
        now: UnixMicros,
    ) -> Result<String, TlsError> {
        if request_pem.len() > REQUEST_MAX_BYTES {
            return Err(TlsError::BadRequest);
        }
        let request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|_| TlsError::BadRequest)?;
        let params = worker_params(node, now);
        Ok(params.signed_by(&request.public_key, &self.issuer)?.pem())
    }

    /// Whether this CA signed a certificate.
    fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        x509_parser::parse_x509_certificate(&self.der)
            .is_ok_and(|(_, ca)| certificate.verify_signature(Some(ca.public_key())).is_ok())
    }
}

/// A certificate with its key, both PEM.
pub(super) struct KeyedCertificate {
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
}

/// The server's certificate of a directory, made again where it does not serve any more.
pub(super) fn server_certificate(
    dir: &Path,
    authority: &Authority,
    names: &[String],
    now: UnixMicros,
) -> Result<KeyedCertificate, TlsError> {
    let (pem_path, key_path) = (dir.join("server.pem"), dir.join("server.key"));
    let names = server_names(names, host_name().as_deref())?;
    let kept = files::read_if_there(&pem_path)?.zip(files::read_if_there(&key_path)?);
    if let Some((certificate_pem, key_pem)) = kept
        && serves(&certificate_pem, &key_pem, authority, &names, now)
    {
        return Ok(KeyedCertificate { certificate_pem, key_pem });
    }
    let key = new_key()?;
    let certificate = server_params(&names, now)?.signed_by(&key, &authority.issuer)?;
    let made =
        KeyedCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
    files::write(&key_path, &made.key_pem, Secrecy::Secret)?;
    files::write(&pem_path, &made.certificate_pem, Secrecy::Public)?;
    Ok(made)
}

/// Whether a kept certificate is ours, fits its key, has exactly these names and some time left.
fn serves(
    certificate_pem: &str,
    key_pem: &str,
    authority: &Authority,
    names: &BTreeSet<ServerName>,
    now: UnixMicros,
) -> bool {
    let Some(der) = first_der(certificate_pem) else {
        return false;
    };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else {
        return false;
    };
    let Ok(key) = KeyPair::from_pem(key_pem) else {
        return false;
    };
    authority.signed(&certificate)
        && fits(&key, &certificate)
        && names_of(&certificate) == *names
        && not_after(&certificate) > now.plus_seconds(RENEW_DAYS * DAY_S)
}

/// A name the server is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum ServerName {
    Address(IpAddr),
    Host(String),
}

impl ServerName {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.trim_matches(['[', ']']).parse() {
            return Some(ServerName::Address(address));
        }
        let part = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            (1..=63).contains(&part.len()) && part.chars().all(plain)
        };
        let valid = text.len() <= 253 && text.split('.').all(part);
        valid.then(|| ServerName::Host(text.to_ascii_lowercase()))
    }

    fn is_unspecified(&self) -> bool {
        matches!(self, ServerName::Address(address) if address.is_unspecified())
    }
}

/// The names given, localhost by name and address, and the host's name if it can stand in a certificate.
fn server_names(given: &[String], host: Option<&str>) -> Result<BTreeSet<ServerName>, TlsError> {
    let mut names = BTreeSet::new();
    for text in given {
        names.insert(ServerName::parse(text).ok_or_else(|| TlsError::BadName(text.clone()))?);
    }
    let own = ["localhost", "127.0.0.1", "::1"].into_iter().chain(host);
    names.extend(own.filter_map(ServerName::parse));
    names.retain(|name| !name.is_unspecified());
    Ok(names)
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned())
}

fn names_of(certificate: &X509Certificate<'_>) -> BTreeSet<ServerName> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| extension.value.general_names.as_slice());
    names.unwrap_or_default().iter().filter_map(server_name_of).collect()
}

fn server_name_of(name: &GeneralName<'_>) -> Option<ServerName> {
    match name {
        GeneralName::DNSName(host) => Some(ServerName::Host((*host).to_owned())),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(ServerName::Address)
        }
        _ => None,
    }
}

/// The subject carries a digest of the key, so that the CAs of two clusters are told apart, and a certificate made
/// again for the same key keeps its name.
fn ca_params(key: &KeyPair, now: UnixMicros) -> CertificateParams {
    let fingerprint = digest::digest(&digest::SHA256, key.der_bytes());
    let name = format!("Gotgan cluster CA {}", hex::encode(&fingerprint.as_ref()[..4]));
    let mut params = params_for(&name, CA_DAYS, now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn server_params(
    names: &BTreeSet<ServerName>,
    now: UnixMicros,
) -> Result<CertificateParams, TlsError> {
    let mut params = params_for("gotgan-scheduler", SERVER_DAYS, now);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    for name in names {
        params.subject_alt_names.push(match name {
            ServerName::Address(address) => SanType::IpAddress(*address),
            ServerName::Host(host) => SanType::DnsName(host.as_str().try_into()?),
        });
    }
    Ok(params)
}

fn worker_params(node: &NodeName, now: UnixMicros) -> CertificateParams {
    let mut params = params_for(node.as_str(), WORKER_DAYS, now);
    params.distinguished_name.push(DnType::OrganizationalUnitName, WORKER_MARK);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// What all certificates share: a common name, and a life that begins an hour ago.
fn params_for(common_name: &str, days: i64, now: UnixMicros) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |second: i64| epoch + Duration::from_secs(u64::try_from(second).unwrap_or_default());
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = at(now.whole_seconds() - BACKDATE_S);
    params.not_after = at(now.whole_seconds() + days * DAY_S);
    params
}

/// Fails unless the text begins with a certificate that has not expired.
pub(super) fn check_certificate(text: &str, path: &Path, now: UnixMicros) -> Result<(), TlsError> {
    let bad = || TlsError::Content { path: path.to_owned(), what: "a certificate in PEM" };
    let der = first_der(text).ok_or_else(bad)?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|_| bad())?;
    if not_after(&certificate) <= now {
        return Err(TlsError::Expired { path: path.to_owned() });
    }
    Ok(())
}

/// Fails unless the key is the one of the certificate.
pub(super) fn check_key(
    key_text: &str,
    key_path: &Path,
    certificate_text: &str,
    certificate_path: &Path,
) -> Result<(), TlsError> {
    let key = key_of(key_text, key_path)?;
    let der = first_der(certificate_text).unwrap_or_default();
    let parsed = x509_parser::parse_x509_certificate(&der);
    if parsed.is_ok_and(|(_, certificate)| fits(&key, &certificate)) {
        return Ok(());
    }
    Err(TlsError::KeyMismatch {
        key: key_path.to_owned(),
        certificate: certificate_path.to_owned(),
    })
}

fn key_of(text: &str, path: &Path) -> Result<KeyPair, TlsError> {
    let bad = |_| TlsError::Content { path: path.to_owned(), what: "a private key in PEM" };
    KeyPair::from_pem(text).map_err(bad)
}

fn fits(key: &KeyPair, certificate: &X509Certificate<'_>) -> bool {
    certificate.public_key().subject_public_key.data.as_ref() == key.der_bytes()
}

/// The first certificate of a PEM text.
fn first_der(text: &str) -> Option<Vec<u8>> {
    let first = Pem::iter_from_buffer(text.as_bytes()).next()?.ok()?;
    (first.label == "CERTIFICATE").then_some(first.contents)
}

/// When a certificate runs out.
pub(super) fn not_after(certificate: &X509Certificate<'_>) -> UnixMicros {
    let seconds = certificate.validity().not_after.timestamp();
    UnixMicros(seconds.saturating_mul(MICROS_PER_SECOND))
}
