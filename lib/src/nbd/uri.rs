//! NBD URIs (`doc/uri.md` of the NBD project): `nbd://host[:port]/export`, `nbd+unix:///export?socket=PATH`, and with
//! TLS `nbds://…` and `nbds+unix://…`.

use super::text;
use super::wire::PORT;
use crate::base::{Address, Class, Error, Result, limits};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

/// A server and one of its exports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NbdUri {
    /// Where the server listens.
    pub address: Address,
    /// The export; "" is the default one.
    pub export: String,
    /// TLS is required, and this is said of it.
    pub tls: Option<UriTls>,
}

/// What a URI says of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UriTls {
    /// `tls-hostname`: what the server must prove to be, where that is not the host of the URI.
    pub hostname: Option<String>,
    /// `tls-certificates`: the directory of certificates, an absolute path (a parameter of libnbd's).
    pub certificates: Option<PathBuf>,
}

impl NbdUri {
    /// Whether both lead to the same export of the same server, by whatever means.
    pub fn is_same_export(&self, other: &Self) -> bool {
        self.address == other.address && self.export == other.export
    }
}

fn refuse(uri: &str, why: impl fmt::Display) -> Error {
    Error::new(Class::Usage, format!("{}: reading an NBD URI: {why}", text::shown(uri)))
}

impl FromStr for NbdUri {
    type Err = Error;

    fn from_str(uri: &str) -> Result<Self> {
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| refuse(uri, "there is no '://'"))?;
        let scheme = scheme.to_ascii_lowercase();
        let unix = match scheme.as_str() {
            "nbd" | "nbd+tcp" | "nbds" | "nbds+tcp" => false,
            "nbd+unix" | "nbds+unix" => true,
            "nbd+ssh" => {
                return Err(refuse(uri, "nbd+ssh: SSH is not supported by this version"));
            }
            "nbd+vsock" | "nbds+vsock" => {
                return Err(refuse(uri, format_args!("{scheme}: VM sockets are not supported")));
            }
            _ => return Err(refuse(uri, "the scheme is not nbd, nbds, nbd+unix or nbds+unix")),
        };
        if rest.contains('#') {
            return Err(refuse(uri, "a fragment ('#') has no meaning here; write %23"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let Parameters { socket, tls } = parameters(uri, query, scheme.starts_with("nbds"))?;
        let address = match (unix, socket) {
            (true, Some(path)) if authority.is_empty() => Address::Unix(OsString::from_vec(path).into()),
            (true, Some(_)) => return Err(refuse(uri, "a Unix socket has no host; write three slashes")),
            (true, None) => return Err(refuse(uri, "socket=PATH is missing")),
            (false, Some(_)) => return Err(refuse(uri, "socket= goes with nbd+unix and nbds+unix only")),
            (false, None) => tcp(uri, authority)?,
        };
        let export = decode(path).ok_or_else(|| refuse(uri, "a % without two hexadecimal digits"))?;
        let export = text::string(&export).ok_or_else(|| {
            refuse(
                uri,
                format_args!("the export is not UTF-8 without NUL of at most {} bytes", limits::NBD_STRING),
            )
        })?;
        Ok(Self { address, export: export.to_owned(), tls })
    }
}

/// What stands behind the `?`.
struct Parameters {
    socket: Option<Vec<u8>>,
    tls: Option<UriTls>,
}

/// The parameters; unknown ones are diagnosed, except experimental ones.
fn parameters(uri: &str, query: &str, secure: bool) -> Result<Parameters> {
    let mut socket = None;
    let mut tls = UriTls::default();
    for parameter in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name {
            "socket" if socket.is_some() => return Err(refuse(uri, "socket= is given twice")),
            "socket" => {
                let path = decode(value).ok_or_else(|| refuse(uri, "a % without two hexadecimal digits"))?;
                let zeroes = path.iter().skip(1).any(|b| *b == 0);
                if path.is_empty() || zeroes || path == [0] {
                    return Err(refuse(uri, "socket= is not a path"));
                }
                socket = Some(path);
            }
            name if name.starts_with("tls-") && secure => tls_parameter(uri, name, value, &mut tls)?,
            name if name.starts_with("tls-") => {
                return Err(refuse(
                    uri,
                    format_args!("parameter '{}' goes with nbds and nbds+unix only", text::shown(name)),
                ));
            }
            name if name.starts_with("x-") => {}
            name => return Err(refuse(uri, format_args!("parameter '{}' is not known", text::shown(name)))),
        }
    }
    Ok(Parameters { socket, tls: secure.then_some(tls) })
}

fn tls_parameter(uri: &str, name: &str, value: &str, tls: &mut UriTls) -> Result<()> {
    let decoded = decode(value).ok_or_else(|| refuse(uri, "a % without two hexadecimal digits"))?;
    let twice = || Err(refuse(uri, format_args!("{name}= is given twice")));
    match name {
        "tls-hostname" if tls.hostname.is_some() => return twice(),
        "tls-hostname" => {
            let host = String::from_utf8(decoded).ok().filter(|host| !host.is_empty());
            let host = host.ok_or_else(|| refuse(uri, "tls-hostname= is not a name"))?;
            check_host(&host).map_err(|why| refuse(uri, why))?;
            tls.hostname = Some(host);
        }
        "tls-certificates" if tls.certificates.is_some() => return twice(),
        "tls-certificates" => {
            let path = PathBuf::from(OsString::from_vec(decoded));
            // It may be stored, and read by a daemon that was started elsewhere.
            if !path.is_absolute() || path.as_os_str().as_bytes().contains(&0) {
                return Err(refuse(uri, "tls-certificates= is not an absolute path"));
            }
            tls.certificates = Some(path);
        }
        "tls-type" if value == "x509" => {}
        "tls-type" => {
            return Err(refuse(uri, format_args!("tls-type={}: only x509 is supported", text::shown(value))));
        }
        "tls-verify-peer" if matches!(value, "1" | "true") => {}
        "tls-verify-peer" => {
            return Err(refuse(
                uri,
                format_args!(
                    "tls-verify-peer={}: a server that proves nothing may be anybody; tls-hostname= says whose \
                     certificate is expected",
                    text::shown(value)
                ),
            ));
        }
        name => return Err(refuse(uri, format_args!("parameter '{}' is not known", text::shown(name)))),
    }
    Ok(())
}

/// `host`, `host:port`, `[v6]:port`; nothing means this machine.
fn tcp(uri: &str, authority: &str) -> Result<Address> {
    if authority.contains('@') {
        return Err(refuse(uri, "a user goes with shared keys of TLS, which are not supported"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (host, after) = inner.split_once(']').ok_or_else(|| refuse(uri, "'[' without ']'"))?;
            if host.parse::<std::net::Ipv6Addr>().is_err() && !host.contains('%') {
                return Err(refuse(uri, "not an IPv6 address in the brackets"));
            }
            match after.strip_prefix(':') {
                Some(port) => (host, port),
                None if after.is_empty() => (host, ""),
                None => return Err(refuse(uri, "something between ']' and ':'")),
            }
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let host = decode(host).and_then(|host| String::from_utf8(host).ok());
    let host = host.ok_or_else(|| refuse(uri, "the host is not a name"))?;
    check_host(&host).map_err(|why| refuse(uri, why))?;
    let port = match port {
        "" => PORT,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| refuse(uri, "the port is larger than 65535"))?
        }
        _ => return Err(refuse(uri, "the port is not a number (an IPv6 address goes in [])")),
    };
    if port == 0 {
        return Err(refuse(uri, "port 0"));
    }
    let host = if host.is_empty() { "localhost".to_owned() } else { host };
    Ok(Address::Tcp { host, port })
}

/// A host may reach the command line of another program one day (`nbd.md` case C10).
fn check_host(host: &str) -> Result<(), &'static str> {
    if host.starts_with('-') {
        return Err("the host begins with '-'");
    }
    let legal = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if !host.chars().all(legal) {
        return Err("the host holds a character that no host name has");
    }
    Ok(())
}

/// Undoes percent-encoding; `+` is itself.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        rest = after;
        let digit = |d: u8| char::from(d).to_digit(16);
        bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
    }
    Some(bytes)
}

/// Writes `bytes` with everything encoded but what RFC 3986 leaves alone, and slashes.
fn encode(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'@') {
            write!(f, "{}", char::from(*byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.tls.is_some() { "s" } else { "" };
        match &self.address {
            Address::Tcp { host, port } => {
                write!(f, "nbd{s}://")?;
                if host.contains(':') {
                    f.write_str("[")?;
                    encode(f, host.as_bytes())?;
                    f.write_str("]")?;
                } else {
                    encode(f, host.as_bytes())?;
                }
                if *port != PORT {
                    write!(f, ":{port}")?;
                }
                f.write_str("/")?;
                encode(f, self.export.as_bytes())?;
            }
            Address::Unix(path) => {
                write!(f, "nbd{s}+unix:///")?;
                encode(f, self.export.as_bytes())?;
                f.write_str("?socket=")?;
                encode(f, path.as_os_str().as_bytes())?;
            }
        }
        let Some(tls) = &self.tls else { return Ok(()) };
        let mut before = if matches!(self.address, Address::Unix(_)) { '&' } else { '?' };
        let certificates = tls.certificates.as_ref().map(|path| path.as_os_str().as_bytes());
        let values = [
            ("tls-certificates", certificates),
            ("tls-hostname", tls.hostname.as_deref().map(str::as_bytes)),
        ];
        for (name, value) in values {
            let Some(value) = value else { continue };
            write!(f, "{before}{name}=")?;
            encode(f, value)?;
            before = '&';
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uri(text: &str) -> NbdUri {
        text.parse().expect(text)
    }

    #[test]
    fn uris_read_and_print() {
        for (text, address, export) in [
            ("nbd://far/vol", "far:10809", "vol"),
            ("nbd://far:10810/", "far:10810", ""),
            ("nbd://far", "far:10809", ""),
            ("nbd:///vol", "localhost:10809", "vol"),
            ("nbd+tcp://127.0.0.1:1//disk", "127.0.0.1:1", "/disk"),
            ("nbd://[::1]:99/a%20b%c3%a9", "[::1]:99", "a bé"),
            ("nbd://[fe80::1%25eth0]/v", "[fe80::1%eth0]:10809", "v"),
            ("nbd+unix:///vol?socket=/run/m.sock", "unix:/run/m.sock", "vol"),
            ("nbd+unix:///?socket=%2Frun%2Fa%26b", "unix:/run/a&b", ""),
            ("nbd+unix:///..?socket=%00name&x-future=1", "unix:@name", ".."),
            ("nbd://far/.", "far:10809", "."),
            ("NBD://far/v", "far:10809", "v"),
        ] {
            let read = uri(text);
            assert_eq!(
                (read.address.to_string().as_str(), read.export.as_str()),
                (address, export),
                "{text}"
            );
            assert_eq!(uri(&read.to_string()), read, "{text} printed as {read}");
        }
        assert_eq!(uri("nbd://far:10809/v").to_string(), "nbd://far/v");
        assert_eq!(uri("nbd+unix:///v?socket=%00n").to_string(), "nbd+unix:///v?socket=%00n");
    }

    #[test]
    fn what_is_said_of_tls_reads_and_prints() {
        let tls = |text: &str| uri(text).tls.expect("TLS");
        assert_eq!(tls("nbds://far/v"), UriTls::default());
        assert_eq!(tls("NBDS+TCP://far/v?tls-verify-peer=1&tls-type=x509"), UriTls::default());
        let all = "nbds://10.0.0.1:99/v?tls-certificates=/etc/p%20k&tls-hostname=far.example";
        let said = UriTls { hostname: Some("far.example".into()), certificates: Some("/etc/p k".into()) };
        assert_eq!(tls(all), said);
        assert_eq!(
            uri(all).to_string(),
            "nbds://10.0.0.1:99/v?tls-certificates=/etc/p%20k&tls-hostname=far.example"
        );
        for text in
            [all, "nbds://far/v", "nbds+unix:///v?socket=/s", "nbds+unix:///v?socket=/s&tls-hostname=h"]
        {
            assert_eq!(uri(&uri(text).to_string()), uri(text), "{text}");
        }
        assert!(uri("nbds://far/v?tls-hostname=x").is_same_export(&uri("nbd://far/v")));
        assert!(uri("nbd://far/v").tls.is_none());
    }

    #[test]
    fn c10_hosts_that_look_like_options_are_refused() {
        for text in ["nbd://-oProxyCommand=x/v", "nbd://%2doProxyCommand/v", "nbd://a b/v", "nbd://a;b/v"] {
            assert_eq!(text.parse::<NbdUri>().expect_err(text).class, Class::Usage);
        }
    }

    #[test]
    fn what_is_not_supported_is_said() {
        for (text, part) in [
            ("nbd+ssh://u@far/v", "nbd+ssh: SSH is not supported"),
            ("nbd+vsock://2/v", "VM sockets are not supported"),
            ("http://far/v", "the scheme is not"),
            ("far", "no '://'"),
            ("nbd+unix:///v", "socket=PATH is missing"),
            ("nbd+unix:///v?socket=", "not a path"),
            ("nbd+unix:///v?socket=/a&socket=/b", "twice"),
            ("nbd+unix://h/v?socket=/a", "three slashes"),
            ("nbd://far/v?socket=/a", "nbds+unix only"),
            ("nbd://far/v?sockt=/a", "parameter 'sockt' is not known"),
            ("nbd://far/v?tls-type=x509", "goes with nbds"),
            ("nbd://me@far/v", "a user goes with shared keys"),
            ("nbds://far/v?tls-type=psk", "only x509"),
            ("nbds://far/v?tls-type=anon", "only x509"),
            ("nbds://far/v?tls-verify-peer=0", "may be anybody"),
            ("nbds://far/v?tls-verify-peer=false", "may be anybody"),
            ("nbds://far/v?tls-certificates=pki", "not an absolute path"),
            ("nbds://far/v?tls-certificates=/a%00b", "not an absolute path"),
            ("nbds://far/v?tls-certificates=/a&tls-certificates=/b", "twice"),
            ("nbds://far/v?tls-hostname=-x", "begins with '-'"),
            ("nbds://far/v?tls-hostname=", "not a name"),
            ("nbds://far/v?tls-colour=x", "'tls-colour' is not known"),
            ("nbds+unix:///v", "socket=PATH is missing"),
            ("nbd://far:99999/v", "65535"),
            ("nbd://far:0/v", "port 0"),
            ("nbd://::1/v", "IPv6 address goes in []"),
            ("nbd://[::1/v", "'[' without ']'"),
            ("nbd://[zz]/v", "not an IPv6"),
            ("nbd://far/a%0", "hexadecimal"),
            ("nbd://far/a%00", "NUL"),
            ("nbd://far/a%ff", "UTF-8"),
            ("nbd://far/a#b", "fragment"),
        ] {
            let error = text.parse::<NbdUri>().expect_err(text);
            assert!(error.message.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}", tail in "[%/?&=:\\[\\]@a-z0-9-]{0,40}") {
            let _ = text.parse::<NbdUri>();
            if let Ok(read) = format!("nbd://{tail}").parse::<NbdUri>() {
                prop_assert_eq!(read.to_string().parse::<NbdUri>().expect("reads back"), read);
            }
        }

        #[test]
        fn every_export_and_socket_reads_back(export in "[^\0]{0,40}", socket in "[^\0]{1,40}") {
            let made = NbdUri { address: Address::Unix(socket.into()), export, tls: None };
            prop_assert_eq!(made.to_string().parse::<NbdUri>().expect("reads back"), made);
        }
    }
}
