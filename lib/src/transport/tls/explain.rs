//! What went wrong with TLS, in the words of an administrator. Pure.

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// Which side we are.
#[derive(Clone, Debug)]
pub(super) enum Side {
    /// Clients come to us.
    Server,
    /// We have come to a server; which of our files would help, and whether we have shown a certificate.
    Client { certificate: String, shown: bool },
}

impl Side {
    /// The other one.
    pub(super) const fn peer(&self) -> &'static str {
        match self {
            Self::Server => "the client",
            Self::Client { .. } => "the server",
        }
    }
}

/// One line on an error of the handshake, or later.
pub(super) fn explain(error: &Error, side: &Side) -> String {
    let peer = side.peer();
    match error {
        Error::InvalidCertificate(why) => certificate(why, peer),
        Error::NoCertificatesPresented => format!("{peer} has shown no certificate"),
        Error::AlertReceived(alert) => refused(*alert, side),
        Error::InvalidMessage(_) => format!("{peer} does not speak TLS (or not any more)"),
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => {
            format!("{peer} speaks neither TLS 1.2 nor 1.3")
        }
        Error::DecryptError => format!("what {peer} sent was changed on the way"),
        other => one_line(&other.to_string()),
    }
}

fn certificate(error: &CertificateError, peer: &str) -> String {
    let its = format!("{peer}'s certificate");
    match error {
        CertificateError::Expired => format!("{its} has expired"),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("{its} expired on {}", date(*not_after))
        }
        CertificateError::NotValidYet => format!("{its} is not valid yet"),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("{its} is not valid before {}", date(*not_before))
        }
        CertificateError::Revoked => format!("{its} has been revoked (ca-crl.pem)"),
        CertificateError::UnknownIssuer => format!("{its} is signed by none of ca-cert.pem"),
        CertificateError::UnknownRevocationStatus => {
            format!("whether {its} was revoked is not known: ca-crl.pem lacks the list of its issuer")
        }
        CertificateError::NotValidForName => format!("{its} is for another host"),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented: Vec<_> = presented.iter().map(|name| name_of(name)).collect();
            let presented = if presented.is_empty() { "no host".to_owned() } else { presented.join(", ") };
            format!("{its} is for another host: for {presented}, not for {}", expected.to_str())
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("{its} is for another use (its extended key usage)")
        }
        CertificateError::Other(other) => one_line(&other.to_string()),
        other => one_line(&format!("{its} is not believed: {other:?}")),
    }
}

/// `DnsName("far")` as rustls shows a name, without its wrapping; what a stranger wrote is escaped.
fn name_of(shown: &str) -> String {
    let bare = shown.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(shown);
    bare.trim_matches('"').chars().filter(|c| !c.is_control()).take(80).collect()
}

/// The other side has ended it.
fn refused(alert: AlertDescription, side: &Side) -> String {
    use AlertDescription as A;
    let peer = side.peer();
    let certificate = matches!(
        alert,
        A::NoCertificate
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::CertificateRequired
    );
    match (side, certificate) {
        (Side::Client { certificate, shown: false }, _) if alert == A::CertificateRequired => {
            format!("{peer} wants to see a certificate: {certificate} is missing")
        }
        (Side::Client { certificate, shown: true }, true) => {
            format!("{peer} refuses our certificate {certificate}: it says {alert:?}")
        }
        (Side::Client { certificate, shown: false }, true) => {
            format!("{peer} refuses us: it says {alert:?} ({certificate} is missing)")
        }
        _ => format!("{peer} has ended it: it says {alert:?}"),
    }
}

/// What every peer would find wrong with a certificate of ours; `None` if that depends on whom the peer believes.
pub(super) fn certificate_of_ours(error: &webpki::Error) -> Option<String> {
    match error {
        webpki::Error::CertExpired { not_after, .. } => Some(format!("it expired on {}", date(*not_after))),
        webpki::Error::CertNotValidYet { not_before, .. } => {
            Some(format!("it is not valid before {}", date(*not_before)))
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            Some("it is for another use (its extended key usage)".to_owned())
        }
        webpki::Error::CaUsedAsEndEntity => Some("it is that of an authority, not of a host".to_owned()),
        webpki::Error::BadDer | webpki::Error::UnsupportedCertVersion => Some("it is damaged".to_owned()),
        _ => None,
    }
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| format!("second {seconds}"), |time| time.to_string())
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}
