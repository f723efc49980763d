use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use p2p_core::{AddrExt, Multiaddr, PeerId, Reach, multiaddr::Protocol};

/// Bits of an address that one owner is taken to have all of (IPUSH-05).
const IP4_PREFIX: u32 = 24;
const IP6_PREFIX: u32 = 56;

/// Who counts as one, however many peers they are: those of one range of IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Group {
    /// The first address of a /24 or /56.
    Ip(IpAddr),
    /// A peer that has come by something else than IP, or from this machine.
    Peer(PeerId),
}

impl Group {
    /// The group of `peer` at `remote`.
    pub(crate) fn of(peer: PeerId, remote: &Multiaddr) -> Self {
        let ip = match remote.iter().next() {
            Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
            Some(Protocol::Ip6(ip)) => ip.to_canonical(),
            _ => return Self::Peer(peer),
        };
        if remote.reach() == Reach::Loopback {
            return Self::Peer(peer);
        }
        Self::Ip(match ip {
            IpAddr::V4(ip) => {
                Ipv4Addr::from_bits(ip.to_bits() & (u32::MAX << (u32::BITS - IP4_PREFIX))).into()
            }
            IpAddr::V6(ip) => {
                Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (u128::BITS - IP6_PREFIX))).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipush_05_peers_of_one_ip_range_are_one_group() {
        let peers =
            [1, 2].map(|seed| p2p_core::Keypair::from_ed25519_seed(&[seed; 32]).public().peer_id());
        let same = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|text| text.parse::<Multiaddr>().unwrap());
            Group::of(peers[0], &a) == Group::of(peers[1], &b)
        };
        assert!(same("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.255/udp/2/quic-v1"));
        assert!(!same("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.4.4/tcp/1"));
        assert!(same("/ip6/2400::1/tcp/1", "/ip6/2400:0:0:ff::/tcp/1"));
        assert!(!same("/ip6/2400::1/tcp/1", "/ip6/2400:0:0:100::/tcp/1"));
        assert!(same("/ip4/1.2.3.4/tcp/1", "/ip6/::ffff:1.2.3.9/tcp/1"));
        for own in ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/memory/1"] {
            assert!(!same(own, own), "{own}");
        }
    }
}
