use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use p2p_core::{Multiaddr, multiaddr::Protocol};

/// The socket address of exactly `/ip4/…/tcp/…` or `/ip6/…/tcp/…`.
pub(crate) fn to_socket(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let (ip, port, None) = (parts.next()?, parts.next()?, parts.next()) else { return None };
    let Protocol::Tcp(port) = port else { return None };
    if let Protocol::Ip4(ip) = ip {
        return Some(SocketAddr::new(ip.into(), port));
    }
    let Protocol::Ip6(ip) = ip else { return None };
    Some(SocketAddr::new(ip.into(), port))
}

/// The address of a socket, as the system gives it.
pub(crate) fn from_socket(addr: SocketAddr) -> Multiaddr {
    Multiaddr::from(addr.ip()).with(Protocol::Tcp(addr.port()))
}

/// The addresses under which a socket bound to `bound` can be reached: itself, or for a wildcard
/// those of the machine's interfaces.
pub(crate) fn reachable(bound: SocketAddr) -> Vec<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::debug!(%error, "the interfaces could not be listed");
        Vec::new()
    });
    expand(bound, interfaces.iter().map(if_addrs::Interface::ip))
}

/// The addresses among `interfaces` that the wildcard `bound` covers; the loopback address when
/// there are none, so that a bound socket always has an address.
fn expand(bound: SocketAddr, interfaces: impl Iterator<Item = IpAddr>) -> Vec<SocketAddr> {
    let mut addrs = Vec::new();
    for ip in interfaces {
        let addr = SocketAddr::new(ip, bound.port());
        if covers(bound, ip) && !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    if addrs.is_empty() {
        addrs.push(SocketAddr::new(loopback(bound), bound.port()));
    }
    addrs
}

fn covers(bound: SocketAddr, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => bound.is_ipv4() && !ip.is_unspecified(),
        // A link-local address means nothing without its interface, which the address lacks.
        IpAddr::V6(ip) => bound.is_ipv6() && !ip.is_unspecified() && !ip.is_unicast_link_local(),
    }
}

fn loopback(bound: SocketAddr) -> IpAddr {
    if bound.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    fn expanded(bound: &str, interfaces: &[&str]) -> Vec<String> {
        let interfaces = interfaces.iter().map(|ip| ip.parse().expect("an ip"));
        let addrs = expand(bound.parse().expect("a socket address"), interfaces);
        addrs.into_iter().map(|addr| from_socket(addr).to_string()).collect()
    }

    #[test]
    fn only_ip_and_tcp_are_taken() {
        for text in ["/ip4/192.0.2.1/tcp/0", "/ip6/2001:db8::1/tcp/65535"] {
            let addr = to_socket(&parse(text)).expect("supported");
            assert_eq!(from_socket(addr).to_string(), text);
        }
        for text in [
            "/ip4/192.0.2.1",
            "/tcp/1",
            "/tcp/1/ip4/192.0.2.1",
            "/ip4/192.0.2.1/udp/1",
            "/ip4/192.0.2.1/tcp/1/ws",
            "/ip4/192.0.2.1/tcp/1/tcp/2",
            "/dns4/example.com/tcp/1",
            "/ip6zone/eth0/ip6/fe80::1/tcp/1",
            "/ip4/192.0.2.1/tcp/1/p2p/12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq",
        ] {
            assert_eq!(to_socket(&parse(text)), None, "{text}");
        }
        assert_eq!(to_socket(&Multiaddr::empty()), None);
    }

    #[test]
    fn an_ip4_mapped_address_stays_as_it_is() {
        let addr = from_socket("[::ffff:192.0.2.1]:7".parse().expect("a socket address"));
        assert_eq!(addr.to_string(), "/ip6/::ffff:192.0.2.1/tcp/7");
    }

    #[test]
    fn a_wildcard_covers_the_interfaces_of_its_family() {
        let interfaces =
            ["127.0.0.1", "::1", "192.0.2.7", "fe80::1", "2001:db8::7", "192.0.2.7", "0.0.0.0"];
        assert_eq!(
            expanded("0.0.0.0:4001", &interfaces),
            ["/ip4/127.0.0.1/tcp/4001", "/ip4/192.0.2.7/tcp/4001"]
        );
        assert_eq!(
            expanded("[::]:4001", &interfaces),
            ["/ip6/::1/tcp/4001", "/ip6/2001:db8::7/tcp/4001"]
        );
    }

    #[test]
    fn without_interfaces_the_loopback_address_is_left() {
        assert_eq!(expanded("0.0.0.0:1", &["fe80::1"]), ["/ip4/127.0.0.1/tcp/1"]);
        assert_eq!(expanded("[::]:1", &["fe80::1"]), ["/ip6/::1/tcp/1"]);
    }
}
