//! Certificates for tests, in a directory with the names that every program of the field looks for.

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// An authority.
pub struct Authority {
    certificate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// What is to be signed.
#[derive(Clone)]
pub struct Wanted {
    /// The host names and addresses that it is for.
    pub hosts: Vec<String>,
    /// For a server, or for a client.
    pub server: bool,
    /// It was valid until 2001 only.
    pub expired: bool,
    /// Nobody signs it but itself.
    pub by_itself: bool,
    /// To revoke it by.
    pub serial: u64,
}

impl Wanted {
    /// A server's, for these hosts.
    pub fn server(hosts: &[&str]) -> Self {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Self { hosts, server: true, expired: false, by_itself: false, serial: 1 }
    }

    /// A client's.
    pub fn client() -> Self {
        Self { server: false, serial: 2, ..Self::server(&[]) }
    }
}

impl Authority {
    /// A new one of this name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("key");
        let certificate = params.self_signed(&key).expect("authority").der().to_vec();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Writes `ca-cert.pem`.
    pub fn write(&self, dir: &Path) {
        put(&dir.join("ca-cert.pem"), "CERTIFICATE", &self.certificate);
    }

    /// Writes `server-cert.pem` and its key, or the client's.
    pub fn sign(&self, dir: &Path, wanted: &Wanted) {
        let side = if wanted.server { "server" } else { "client" };
        let mut params = CertificateParams::new(wanted.hosts.clone()).expect("names");
        params.distinguished_name.push(DnType::CommonName, side);
        params.serial_number = Some(SerialNumber::from(wanted.serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![if wanted.server {
            ExtendedKeyUsagePurpose::ServerAuth
        } else {
            ExtendedKeyUsagePurpose::ClientAuth
        }];
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(if wanted.expired { 2001 } else { 2090 }, 1, 1);
        let key = KeyPair::generate().expect("key");
        let certificate = if wanted.by_itself {
            params.self_signed(&key).expect("certificate")
        } else {
            params.signed_by(&key, &self.issuer).expect("certificate")
        };
        put(&dir.join(format!("{side}-cert.pem")), "CERTIFICATE", certificate.der());
        put(&dir.join(format!("{side}-key.pem")), "PRIVATE KEY", &key.serialize_der());
    }

    /// Writes `ca-crl.pem`, which takes back those with these numbers.
    pub fn revoke(&self, dir: &Path, serials: &[u64]) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("list");
        put(&dir.join("ca-crl.pem"), "X509 CRL", list.der());
    }
}

/// A directory with everything: for a server at 127.0.0.1 and `localhost`, and for a client.
pub fn complete(dir: &Path) -> Authority {
    let authority = Authority::new("the authority of a test");
    std::fs::create_dir_all(dir).expect("directory");
    authority.write(dir);
    authority.sign(dir, &Wanted::server(&["localhost", "127.0.0.1"]));
    authority.sign(dir, &Wanted::client());
    authority
}

/// PEM (RFC 7468), readable by its owner alone.
fn put(path: &Path, label: &str, der: &[u8]) {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"));
    let _ = std::fs::remove_file(path);
    let mut file =
        std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).expect("create");
    std::io::Write::write_all(&mut file, pem.as_bytes()).expect("write");
}
