//! Who may connect over TCP: ranges of addresses.

use crate::base::{Class, Error, Result};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(IpNet);

impl Cidr {
    /// Whether an address is in it. IPv4 inside IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// Whether an address may connect: an empty list says nothing about anybody.
pub fn allows(list: &[Cidr], address: IpAddr) -> bool {
    list.is_empty() || list.iter().any(|range| range.contains(address))
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(Class::Usage, format!("{}: reading a range of addresses: {why}", text.escape_debug()))
        };
        let net = match text.parse::<IpAddr>() {
            Ok(one) => IpNet::from(one),
            Err(_) => text.parse::<IpNet>().map_err(|_| bad("not like 10.0.0.0/8, fd00::/8 or 10.0.0.1"))?,
        };
        if net.addr() != net.network() {
            return Err(bad(&format!(
                "it names one address and a range: write {} or {}",
                net.addr(),
                net.trunc()
            )));
        }
        if net.addr().to_canonical() != net.addr() {
            return Err(bad("write IPv4 as IPv4"));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s17_an_address_is_not_the_beginning_of_another() {
        // CVE-2013-6410: nbd-server compared texts, so that 10.0.0.1 let 10.0.0.10 in.
        for (range, address, is) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.10", false),
            ("10.0.0.1", "10.0.0.100", false),
            ("10.0.0.1/32", "10.0.0.10", false),
            ("10.0.0.0/30", "10.0.0.3", true),
            ("10.0.0.0/30", "10.0.0.4", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "::ffff:11.1.2.3", false),
            ("::1", "::1", true),
            ("::1", "::10", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
        ] {
            let list = [range.parse::<Cidr>().expect(range)];
            assert_eq!(allows(&list, address.parse().expect(address)), is, "{range} {address}");
        }
        assert!(allows(&[], "8.8.8.8".parse().expect("address")));
        assert_eq!("10.0.0.1".parse::<Cidr>().expect("one").to_string(), "10.0.0.1/32");
    }

    #[test]
    fn a_range_that_says_two_things_is_refused() {
        for (text, why) in [
            ("", "not like"),
            ("10.0.0", "not like"),
            ("10.0.0.0/33", "not like"),
            ("host", "not like"),
            ("10.0.0.1/8", "write 10.0.0.1 or 10.0.0.0/8"),
            ("::ffff:10.0.0.1", "IPv4 as IPv4"),
        ] {
            let error = text.parse::<Cidr>().expect_err(text);
            assert!(error.message.contains(why), "{error}");
        }
    }
}
