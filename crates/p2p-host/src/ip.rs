use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use p2p_core::{Multiaddr, multiaddr::Protocol};

/// A range of IP addresses: an address and how many of its bits count, as `192.0.2.0/24`.
///
/// IPv4 addresses that are written as IPv6 ones (`::ffff:192.0.2.1`) are IPv4 addresses here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpRange {
    first: IpAddr,
    prefix_len: u8,
}

/// Why a text or a pair is not a range of IP addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpRangeError {
    /// Neither an address nor an address and a prefix.
    #[error("{0:?} is neither an IP address nor a range such as 192.0.2.0/24")]
    Parse(String),
    /// The prefix is longer than the address.
    #[error("a prefix of {prefix_len} bits is longer than {addr}")]
    PrefixLen {
        /// The address.
        addr: IpAddr,
        /// The prefix, in bits.
        prefix_len: u8,
    },
}

impl IpRange {
    /// Makes the range of the addresses whose first `prefix_len` bits are those of `addr`.
    ///
    /// # Errors
    /// [`IpRangeError::PrefixLen`] when the prefix is longer than 32 or 128 bits.
    pub fn new(addr: IpAddr, prefix_len: u8) -> Result<Self, IpRangeError> {
        let canonical = addr.to_canonical();
        let (addr, prefix_len) = match prefix_len.checked_sub(96) {
            Some(of_ip4) if canonical != addr => (canonical, of_ip4),
            Some(_) | None => (addr, prefix_len),
        };
        if prefix_len > len(&addr) {
            return Err(IpRangeError::PrefixLen { addr, prefix_len });
        }
        Ok(Self::cut(addr, prefix_len))
    }

    /// The range of `addr` with at most `prefix_len` bits.
    pub(crate) fn cut(addr: IpAddr, prefix_len: u8) -> Self {
        let prefix_len = prefix_len.min(len(&addr));
        let rest = u32::from(len(&addr).saturating_sub(prefix_len));
        let first = match addr {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(rest).unwrap_or(0);
                Ipv4Addr::from_bits(ip.to_bits() & mask).into()
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() & mask).into()
            }
        };
        Self { first, prefix_len }
    }

    /// Whether the address is in the range.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        addr.is_ipv4() == self.first.is_ipv4() && Self::cut(addr, self.prefix_len) == *self
    }

    /// The range's first address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// How many bits the addresses have in common.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    pub(crate) fn is_loopback(&self) -> bool {
        self.first.is_loopback()
    }
}

fn len(addr: &IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

impl From<IpAddr> for IpRange {
    fn from(addr: IpAddr) -> Self {
        Self::cut(addr.to_canonical(), 128)
    }
}

impl FromStr for IpRange {
    type Err = IpRangeError;

    fn from_str(text: &str) -> Result<Self, IpRangeError> {
        let error = || IpRangeError::Parse(text.chars().take(100).collect());
        let Some((addr, prefix_len)) = text.split_once('/') else {
            return Ok(text.parse::<IpAddr>().map_err(|_| error())?.into());
        };
        let addr = addr.parse().map_err(|_| error())?;
        Self::new(addr, prefix_len.parse().map_err(|_| error())?)
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix_len)
    }
}

/// The IP address that a link to or from `addr` goes over; that of the relay where there is one.
pub(crate) fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the multiaddr crate may add protocols")]
    let ip = addr.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    });
    ip.map(|ip| ip.to_canonical())
}

/// Whether a relay stands between.
pub(crate) fn is_relayed(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| matches!(part, Protocol::P2pCircuit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_hold_what_shares_their_prefix() {
        for (text, printed, inside, outside) in [
            ("192.0.2.77/24", "192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.77", "192.0.2.77/32", "192.0.2.77", "192.0.2.76"),
            ("0.0.0.0/0", "0.0.0.0/0", "255.1.2.3", "::1"),
            ("::/0", "::/0", "2001:db8::1", "10.0.0.1"),
            ("2001:db8:1:2ff::/56", "2001:db8:1:200::/56", "2001:db8:1:2ab::9", "2001:db8:1:300::"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24", "192.0.2.9", "192.0.3.9"),
            ("::ffff:192.0.2.1", "192.0.2.1/32", "::ffff:192.0.2.1", "::192.0.2.1"),
        ] {
            let range: IpRange = text.parse().unwrap();
            assert_eq!(range.to_string(), printed);
            assert!(range.contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!range.contains(outside.parse().unwrap()), "{text} {outside}");
            assert_eq!(printed.parse(), Ok(range));
        }
        for text in ["", "/", "1.2.3.4/", "1.2.3.4/33", "::/129", "1.2.3/8", "1.2.3.4/256"] {
            let error = text.parse::<IpRange>().unwrap_err().to_string();
            assert!(error.contains(text) || error.contains("longer than"), "{error}");
        }
    }

    #[test]
    fn the_address_of_a_link_is_its_first_and_a_relay_is_known() {
        let addr = |text: &str| text.parse::<Multiaddr>().unwrap();
        let ip = |text: &str| ip_of(&addr(text)).map(|ip| ip.to_string());
        assert_eq!(ip("/ip4/192.0.2.1/tcp/1").as_deref(), Some("192.0.2.1"));
        assert_eq!(ip("/ip6/::ffff:192.0.2.1/tcp/1").as_deref(), Some("192.0.2.1"));
        assert_eq!(ip("/ip6zone/eth0/ip6/fe80::1/tcp/1").as_deref(), Some("fe80::1"));
        assert_eq!(ip("/memory/1"), None);
        assert!(is_relayed(&addr("/ip4/192.0.2.1/tcp/1/p2p-circuit")));
        assert!(!is_relayed(&addr("/ip4/192.0.2.1/tcp/1")));
    }
}
