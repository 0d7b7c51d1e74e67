//! NBD URIs (`doc/uri.md` of the NBD project): `nbd://host[:port]/export`, `nbd+unix:///export?socket=PATH`.

use super::text;
use super::wire::PORT;
use crate::base::{Address, Class, Error, Result, limits};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;

/// A server and one of its exports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NbdUri {
    /// Where the server listens.
    pub address: Address,
    /// The export; "" is the default one.
    pub export: String,
    /// Whether TLS is required. Never true in this version: such URIs are refused.
    pub tls: bool,
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
            "nbd" | "nbd+tcp" => false,
            "nbd+unix" => true,
            "nbds" | "nbds+tcp" | "nbds+unix" => {
                return Err(refuse(uri, format_args!("{scheme}: TLS is not supported by this version")));
            }
            "nbd+ssh" => {
                return Err(refuse(uri, "nbd+ssh: SSH is not supported by this version"));
            }
            "nbd+vsock" | "nbds+vsock" => {
                return Err(refuse(uri, format_args!("{scheme}: VM sockets are not supported")));
            }
            _ => return Err(refuse(uri, "the scheme is not nbd or nbd+unix")),
        };
        if rest.contains('#') {
            return Err(refuse(uri, "a fragment ('#') has no meaning here; write %23"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let socket = parameters(uri, query)?;
        let address = match (unix, socket) {
            (true, Some(path)) if authority.is_empty() => Address::Unix(OsString::from_vec(path).into()),
            (true, Some(_)) => return Err(refuse(uri, "a Unix socket has no host; write three slashes")),
            (true, None) => return Err(refuse(uri, "socket=PATH is missing")),
            (false, Some(_)) => return Err(refuse(uri, "socket= goes with nbd+unix only")),
            (false, None) => tcp(uri, authority)?,
        };
        let export = decode(path).ok_or_else(|| refuse(uri, "a % without two hexadecimal digits"))?;
        let export = text::string(&export).ok_or_else(|| {
            refuse(
                uri,
                format_args!("the export is not UTF-8 without NUL of at most {} bytes", limits::NBD_STRING),
            )
        })?;
        Ok(Self { address, export: export.to_owned(), tls: false })
    }
}

/// The `socket` parameter; others are diagnosed, except experimental ones.
fn parameters(uri: &str, query: &str) -> Result<Option<Vec<u8>>> {
    let mut socket = None;
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
            name if name.starts_with("tls-") => {
                return Err(refuse(
                    uri,
                    format_args!("parameter '{}' goes with TLS, which this version lacks", text::shown(name)),
                ));
            }
            name if name.starts_with("x-") => {}
            name => return Err(refuse(uri, format_args!("parameter '{}' is not known", text::shown(name)))),
        }
    }
    Ok(socket)
}

/// `host`, `host:port`, `[v6]:port`; nothing means this machine.
fn tcp(uri: &str, authority: &str) -> Result<Address> {
    if authority.contains('@') {
        return Err(refuse(uri, "a user goes with TLS, which this version lacks"));
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
        let s = if self.tls { "s" } else { "" };
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
                encode(f, self.export.as_bytes())
            }
            Address::Unix(path) => {
                write!(f, "nbd{s}+unix:///")?;
                encode(f, self.export.as_bytes())?;
                f.write_str("?socket=")?;
                encode(f, path.as_os_str().as_bytes())
            }
        }
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
    fn c10_hosts_that_look_like_options_are_refused() {
        for text in ["nbd://-oProxyCommand=x/v", "nbd://%2doProxyCommand/v", "nbd://a b/v", "nbd://a;b/v"] {
            assert_eq!(text.parse::<NbdUri>().expect_err(text).class, Class::Usage);
        }
    }

    #[test]
    fn what_is_not_supported_is_said() {
        for (text, part) in [
            ("nbds://far/v", "nbds: TLS is not supported by this version"),
            ("nbds+unix:///v?socket=/s", "nbds+unix: TLS is not supported by this version"),
            ("nbd+ssh://u@far/v", "nbd+ssh: SSH is not supported"),
            ("nbd+vsock://2/v", "VM sockets are not supported"),
            ("http://far/v", "the scheme is not"),
            ("far", "no '://'"),
            ("nbd+unix:///v", "socket=PATH is missing"),
            ("nbd+unix:///v?socket=", "not a path"),
            ("nbd+unix:///v?socket=/a&socket=/b", "twice"),
            ("nbd+unix://h/v?socket=/a", "three slashes"),
            ("nbd://far/v?socket=/a", "nbd+unix only"),
            ("nbd://far/v?sockt=/a", "parameter 'sockt' is not known"),
            ("nbd://far/v?tls-type=psk", "goes with TLS"),
            ("nbd://me@far/v", "a user goes with TLS"),
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
            let made = NbdUri { address: Address::Unix(socket.into()), export, tls: false };
            prop_assert_eq!(made.to_string().parse::<NbdUri>().expect("reads back"), made);
        }
    }
}
