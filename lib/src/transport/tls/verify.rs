//! Whether a server is who it says, as rustls does it; but that a certificate nobody signed is told apart from one
//! that a stranger signed, for the person who reads it.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use webpki::EndEntityCert;

/// See the module. Every decision is that of `inner`.
#[derive(Debug)]
pub(super) struct Servers {
    inner: Arc<WebPkiServerVerifier>,
    /// The authorities, for messages.
    authorities: PathBuf,
}

/// Why a certificate is not believed, in words of ours.
#[derive(Clone, Debug)]
pub(super) struct NotSigned(pub(super) String);

impl fmt::Display for NotSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotSigned {}

impl Servers {
    pub(super) const fn new(inner: Arc<WebPkiServerVerifier>, authorities: PathBuf) -> Self {
        Self { inner, authorities }
    }

    fn in_words(&self, error: Error, own: &CertificateDer<'_>) -> Error {
        let unknown = matches!(
            error,
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
        );
        let as_authority = matches!(&error, Error::InvalidCertificate(CertificateError::Other(other))
            if other.to_string().contains("CaUsedAsEndEntity"));
        if !unknown && !as_authority {
            return error;
        }
        let itself = EndEntityCert::try_from(own).is_ok_and(|own| own.issuer() == own.subject());
        let text = if itself {
            "the server's certificate is signed by itself".to_owned()
        } else {
            format!("the server's certificate is signed by none of {}", self.authorities.display())
        };
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NotSigned(text)))))
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| self.in_words(error, end_entity))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
