//! From the files of a directory to what each side of a connection goes by. What can be wrong with them is found here,
//! when a program starts or reads its configuration again, not when the first client comes.

use super::files::{self, CA, Pair};
use super::{explain, verify};
use crate::base::{Class, Error, Result};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use webpki::{EndEntityCert, KeyUsage};

/// What a server shows, and whom it believes.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub(super) config: Arc<ServerConfig>,
    asks: bool,
}

/// What a client shows, whom it believes, and whom it wants to reach.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
    /// Where the files are, for messages.
    pub(super) dir: PathBuf,
    /// It has a certificate of its own.
    pub(super) shows: bool,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl ServerTls {
    /// The server's part of a directory. Classes: `Usage` for files that are missing, damaged or do not belong
    /// together, `Refused` for a key that others can read and for a certificate that is not valid now.
    pub fn load(dir: &Path) -> Result<Self> {
        Self::load_checked(dir, true)
    }

    fn load_checked(dir: &Path, valid: bool) -> Result<Self> {
        files::check_dir(dir)?;
        let Some(pair) = files::pair(dir, "server")? else {
            let text = format!(
                "{}: reading the server's certificate: No such file",
                dir.join("server-cert.pem").display()
            );
            return Err(Error::new(Class::Usage, text));
        };
        if valid {
            check(&pair, KeyUsage::server_auth())?;
        }
        let roots = files::authorities(dir)?.map(|found| roots(dir, found)).transpose()?;
        let revoked = files::revoked(dir)?;
        let asks = roots.is_some();
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|e| unusable(dir, &e))?;
        let builder = match roots {
            Some(roots) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots, provider()).with_crls(revoked);
                builder.with_client_cert_verifier(verifier.build().map_err(|e| unusable(dir, &e))?)
            }
            None => builder.with_no_client_auth(),
        };
        let Pair { path, chain, key } = pair;
        let mut config = builder.with_single_cert(chain, key).map_err(|e| mismatched(&path, &e))?;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config), asks })
    }

    /// Whether a client has to show a certificate.
    pub const fn asks_for_certificates(&self) -> bool {
        self.asks
    }
}

impl ClientTls {
    /// The client's part of a directory, to reach a server that proves to be `host`. Classes as of
    /// [`ServerTls::load`].
    pub fn load(dir: &Path, host: &str) -> Result<Self> {
        files::check_dir(dir)?;
        let Some(found) = files::authorities(dir)? else {
            let text =
                format!("{}: reading whose servers are believed: No such file", dir.join(CA).display());
            return Err(Error::new(Class::Usage, text));
        };
        let name = server_name(host)?;
        let pair = files::pair(dir, "client")?;
        if let Some(pair) = &pair {
            check(pair, KeyUsage::client_auth())?;
        }
        let verifier = server_verifier(dir, found, files::revoked(dir)?)?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|e| unusable(dir, &e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let shows = pair.is_some();
        let mut config = match pair {
            Some(Pair { path, chain, key }) => {
                builder.with_client_auth_cert(chain, key).map_err(|e| mismatched(&path, &e))?
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), name, dir: dir.to_owned(), shows })
    }
}

fn server_verifier(
    dir: &Path,
    found: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
) -> Result<verify::Servers> {
    let inner = WebPkiServerVerifier::builder_with_provider(roots(dir, found)?, provider())
        .with_crls(revoked)
        .build()
        .map_err(|e| unusable(dir, &e))?;
    Ok(verify::Servers::new(inner, dir.join(CA)))
}

/// The name or address that a server has to prove. A zone (`%eth0`) is this machine's own affair.
fn server_name(host: &str) -> Result<ServerName<'static>> {
    let bare = host.split_once('%').map_or(host, |(address, _)| address);
    ServerName::try_from(bare.to_owned()).map_err(|_| {
        Error::new(
            Class::Usage,
            format!("{}: reading a host's name for TLS: it is none", host.escape_debug()),
        )
    })
}

fn roots(dir: &Path, found: Vec<CertificateDer<'static>>) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in found {
        roots.add(certificate).map_err(|e| unusable(&dir.join(CA), &e))?;
    }
    Ok(Arc::new(roots))
}

/// Refuses a certificate that is not valid now, or not for this use: every peer would. Who has signed it is the
/// peers' to judge, they may have other authorities.
fn check(pair: &Pair, usage: KeyUsage) -> Result<()> {
    let Some((own, others)) = pair.chain.split_first() else { return Ok(()) };
    let refuse = |error: webpki::Error| {
        let why = explain::certificate_of_ours(&error)?;
        Some(Error::new(Class::Refused, format!("{}: checking the certificate: {why}", pair.path.display())))
    };
    let algorithms = provider().signature_verification_algorithms.all;
    let checked = EndEntityCert::try_from(own).and_then(|certificate| {
        certificate.verify_for_usage(algorithms, &[], others, UnixTime::now(), usage, None, None).map(drop)
    });
    checked.err().and_then(refuse).map_or(Ok(()), Err)
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::new(Class::Usage, format!("{}: reading certificates: {why}", path.display()))
}

fn mismatched(path: &Path, error: &rustls::Error) -> Error {
    let why = match error {
        rustls::Error::InconsistentKeys(_) => {
            "the private key beside it belongs to another certificate".to_owned()
        }
        other => other.to_string(),
    };
    Error::new(Class::Usage, format!("{}: taking the certificate: {why}", path.display()))
}

/// A server with a certificate that is not valid, as others have.
#[cfg(test)]
pub(super) fn unchecked(dir: &Path) -> ServerTls {
    ServerTls::load_checked(dir, false).expect("a server")
}
