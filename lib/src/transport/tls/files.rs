//! The files of a directory of certificates: bounded, and private keys only where nobody else can read them.

use crate::base::{Class, Error, Result, error::plain, limits};
use rustix::fs::{Mode, OFlags, Stat, fstat, open};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub(super) const CA: &str = "ca-cert.pem";
const CRL: &str = "ca-crl.pem";

/// A certificate with those that vouch for it, and its key.
pub(super) struct Pair {
    /// Where the certificate is.
    pub(super) path: PathBuf,
    /// Its own certificate first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

/// `side`-cert.pem and `side`-key.pem; `None` if neither is there. One without the other is an error.
pub(super) fn pair(dir: &Path, side: &str) -> Result<Option<Pair>> {
    let path = dir.join(format!("{side}-cert.pem"));
    let key_path = dir.join(format!("{side}-key.pem"));
    let (certificate, key) = (read(&path, false)?, read(&key_path, true)?);
    let missing = |path: &Path| {
        let text = format!("{}: reading a certificate and its key: No such file", path.display());
        Err(Error::new(Class::Usage, text))
    };
    let (certificate, key) = match (certificate, key) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return missing(&path),
        (Some(_), None) => return missing(&key_path),
        (Some(certificate), Some(key)) => (certificate, key),
    };
    let chain = certificates(&path, &certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| {
        damaged(&key_path, "a private key", &e)
            .hint(format!("openssl pkey -in {} -noout", key_path.display()))
    })?;
    Ok(Some(Pair { path, chain, key }))
}

/// Those whose signature is believed; `None` if there is no such file.
pub(super) fn authorities(dir: &Path) -> Result<Option<Vec<CertificateDer<'static>>>> {
    let path = dir.join(CA);
    read(&path, false)?.map(|bytes| certificates(&path, &bytes)).transpose()
}

/// What they have taken back; nothing if there is no such file.
pub(super) fn revoked(dir: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let path = dir.join(CRL);
    let Some(bytes) = read(&path, false)? else { return Ok(Vec::new()) };
    let lists: std::result::Result<Vec<_>, _> =
        CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let lists = lists.map_err(|e| damaged(&path, "a list of revoked certificates", &e))?;
    if lists.is_empty() {
        Err(damaged(&path, "a list of revoked certificates", &pem::Error::NoItemsFound))
    } else {
        Ok(lists)
    }
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|e| damaged(path, "certificates", &e))?;
    if found.is_empty() { Err(damaged(path, "certificates", &pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn damaged(path: &Path, what: &str, why: &pem::Error) -> Error {
    let why = match why {
        pem::Error::NoItemsFound => "there is none in PEM form".to_owned(),
        other => other.to_string().replace('\n', " "),
    };
    Error::new(Class::Usage, format!("{}: reading {what}: {why}", path.display()))
}

/// A whole file; `None` if it is not there. Whether a secret is one is asked of the file that was opened.
fn read(path: &Path, secret: bool) -> Result<Option<Vec<u8>>> {
    let doing = if secret { "reading a private key" } else { "reading it" };
    let failed = |e: std::io::Error| Error::os(Class::Usage, path.display(), doing, e);
    // A FIFO must not make the daemon wait.
    let fd = match open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(failed(e.into())),
    };
    let stat = fstat(&fd).map_err(|e| failed(e.into()))?;
    if secret && let Some(why) = exposed(&stat) {
        let text = format!("{}: {doing}: {why}", path.display());
        return Err(Error::new(Class::Refused, text).hint(format!("chmod go= {}", path.display())));
    }
    let mut bytes = Vec::new();
    let most = limits::TLS_FILE;
    let got = File::from(fd).take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if got as u64 > most {
        let text = format!("{}: {doing}: it is longer than {most} bytes", path.display());
        return Err(Error::new(Class::Usage, text));
    }
    Ok(Some(bytes))
}

/// Why somebody else can read a key, or change it: anybody may read it, its group may where it is not root's, or it
/// is another user's. `None` if nobody can. The rule of `PostgreSQL`.
fn exposed(stat: &Stat) -> Option<String> {
    let mode = stat.st_mode & 0o777;
    if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
        return Some(format!("it belongs to user {}", stat.st_uid));
    }
    let allowed = if stat.st_uid == 0 { 0o740 } else { 0o700 };
    (mode & !allowed != 0).then(|| format!("others than its owner can read it (its mode is {mode:04o})"))
}

/// Whether a directory can be read at all.
pub(super) fn check_dir(dir: &Path) -> Result<()> {
    let fails = |why: String| {
        Err(Error::new(Class::Usage, format!("{}: reading certificates: {why}", dir.display())))
    };
    match std::fs::metadata(dir) {
        Ok(data) if data.is_dir() => Ok(()),
        Ok(_) => fails("it is not a directory".to_owned()),
        Err(e) => fails(plain(&e)),
    }
}
