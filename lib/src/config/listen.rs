//! An address to listen on: `HOST:PORT`, `HOST`, `[V6]:PORT`, `:PORT` (this machine only).

use crate::base::{Class, Error, Result, error::plain};
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

/// The port of NBD (IANA).
pub const NBD_PORT: u16 = 10809;

/// An address to listen on, not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// A name or a numeric address, without brackets.
    pub host: String,
    /// 0 lets the system choose; the daemon prints what it chose.
    pub port: u16,
}

impl Listen {
    /// The socket addresses. One that reaches beyond this machine is refused unless `wide`: nothing would ask
    /// who connects (design.md section 11).
    pub fn resolve(&self, wide: bool) -> Result<Vec<SocketAddr>> {
        let found = (self.host.as_str(), self.port).to_socket_addrs().map_err(|e| {
            Error::new(Class::Connect, format!("{self}: looking up the address: {}", plain(&e)))
        })?;
        let addresses: Vec<_> = found.collect();
        addresses.iter().try_for_each(|address| admit(self, address, wide))?;
        Ok(addresses)
    }
}

/// Refuses an address that reaches beyond this machine unless `wide`; `object` is what the user wrote.
pub fn admit(object: &dyn fmt::Display, address: &SocketAddr, wide: bool) -> Result<()> {
    if wide || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let text =
        format!("{object}: listening on {}: it can be reached from other machines by anybody", address.ip());
    Err(Error::new(Class::Refused, text)
        .hint("mirrord serve --allow CIDR … (or --tls-dir DIR with ca-cert.pem, or --insecure), or listen on 127.0.0.1 or a Unix socket"))
}

impl FromStr for Listen {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(Class::Usage, format!("{}: reading an address: {why}", text.escape_debug()))
        };
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(|| bad("the ']' is missing"))?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(bad("not an IPv6 address in the brackets"));
            }
            match rest.strip_prefix(':') {
                None if rest.is_empty() => (host, None),
                None => return Err(bad("not [ADDRESS]:PORT")),
                Some(port) => (host, Some(port)),
            }
        } else {
            match text.split_once(':') {
                None => (text, None),
                Some((_, port)) if port.contains(':') => {
                    return Err(bad("write an IPv6 address in brackets"));
                }
                Some(("", port)) => ("localhost", Some(port)),
                Some((host, port)) => (host, Some(port)),
            }
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || host.starts_with('-') || !host.chars().all(allowed) {
            return Err(bad("not HOST:PORT"));
        }
        let port = match port {
            None => NBD_PORT,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
                port.parse().map_err(|_| bad("the port is not from 0 to 65535"))?
            }
            Some(_) => return Err(bad("the port is not a number")),
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Listen {
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
    use super::*;

    #[test]
    fn addresses_read_and_print() {
        for (text, shown) in [
            ("127.0.0.1", "127.0.0.1:10809"),
            ("localhost:1", "localhost:1"),
            (":0", "localhost:0"),
            ("[::1]:5", "[::1]:5"),
            ("[::]", "[::]:10809"),
        ] {
            let listen: Listen = text.parse().expect(text);
            assert_eq!(listen.to_string(), shown);
            assert_eq!(shown.parse::<Listen>().expect("again"), listen);
        }
        for bad in ["", "::1", "h:", "h:x", "h:65536", "[::1", "[::1]5", "[h]:1", "-h:1", "a b:1", "nbd://h"]
        {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_beyond_this_machine_needs_insecure() {
        let wide: Listen = "0.0.0.0:0".parse().expect("wide");
        assert_eq!(wide.resolve(false).expect_err("refused").class, Class::Refused);
        assert_eq!(wide.resolve(true).expect("insecure").len(), 1);
        assert!("127.0.0.1:0".parse::<Listen>().expect("loopback").resolve(false).is_ok());
    }
}
