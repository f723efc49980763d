//! In which order, and how long after one another, the addresses of one peer are dialed: happy
//! eyeballs (RFC 8305) with go-libp2p's numbers (CONN-30 to CONN-32).

use std::time::Duration;

use p2p_core::{AddrExt, Multiaddr, Reach, multiaddr::Protocol};

/// How long an address on the internet waits for the better one before it.
const STEP_PUBLIC: Duration = Duration::from_millis(250);
/// The same for addresses nearby, which answer or refuse at once.
const STEP_PRIVATE: Duration = Duration::from_millis(30);
/// How long relays wait where there is a public address: a direct connection is worth it.
const RELAY_DELAY: Duration = Duration::from_millis(500);
/// How long addresses without an IP address wait for all others.
const OTHER_DELAY: Duration = Duration::from_secs(1);

/// An address and when it is dialed, from the beginning of the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranked {
    pub(crate) after: Duration,
    pub(crate) addr: Multiaddr,
}

/// What an address is reached over, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Quic,
    WebTransport,
    Tcp,
    WebRtc,
}

/// What an address says of itself.
#[derive(Clone, Copy, Debug)]
struct Facts {
    kind: Kind,
    ip4: bool,
    port: u16,
}

impl Facts {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the multiaddr crate may add protocols")]
    fn of(addr: &Multiaddr) -> Self {
        let mut facts = Self { kind: Kind::Tcp, ip4: false, port: 0 };
        for part in addr {
            match part {
                Protocol::Ip4(_) | Protocol::Dns4(_) => facts.ip4 = true,
                Protocol::Tcp(port) | Protocol::Udp(port) => facts.port = port,
                Protocol::QuicV1 | Protocol::Quic => facts.kind = Kind::Quic,
                Protocol::WebTransport => facts.kind = Kind::WebTransport,
                Protocol::WebRTCDirect => facts.kind = Kind::WebRtc,
                _ => {}
            }
        }
        facts
    }

    /// By kind, IPv6 before IPv4, the lower port first (CONN-31).
    fn order(self) -> (Kind, bool, u16) {
        (self.kind, self.ip4, self.port)
    }
}

/// Ranks addresses; each is there once. Nothing is dropped: what cannot be dialed fails by
/// itself, and says why.
pub(crate) fn rank(addrs: &[Multiaddr]) -> Vec<Ranked> {
    let (mut private, mut public, mut relayed, mut other) = (vec![], vec![], vec![], vec![]);
    for (index, addr) in addrs.iter().enumerate() {
        if addrs.iter().take(index).any(|before| before == addr) {
            continue;
        }
        let group = if addr.iter().any(|part| part == Protocol::P2pCircuit) {
            &mut relayed
        } else if !names_ip(addr) {
            &mut other
        } else if addr.reach() == Reach::Public {
            &mut public
        } else {
            &mut private
        };
        group.push(addr.clone());
    }
    let relay_delay = if public.is_empty() { Duration::ZERO } else { RELAY_DELAY };
    let mut ranked = group(private, STEP_PRIVATE);
    ranked.extend(group(public, STEP_PUBLIC));
    let late = group(relayed, STEP_PUBLIC).into_iter();
    ranked.extend(late.map(|r| Ranked { after: r.after + relay_delay, ..r }));
    ranked.sort_by_key(|ranked| ranked.after);
    let last = ranked.last().map_or(Duration::ZERO, |last| last.after + OTHER_DELAY);
    let mut after = last;
    for addr in other {
        ranked.push(Ranked { after, addr });
        after += STEP_PUBLIC;
    }
    ranked
}

fn names_ip(addr: &Multiaddr) -> bool {
    let names = |part| {
        matches!(
            part,
            Protocol::Ip4(_)
                | Protocol::Ip6(_)
                | Protocol::Dns(_)
                | Protocol::Dns4(_)
                | Protocol::Dns6(_)
                | Protocol::Dnsaddr(_)
        )
    };
    addr.iter().any(names)
}

/// QUIC first: the best at once, IPv4's best a step behind IPv6's, the rest one more; TCP a step
/// after the last QUIC in the same way; all else a second after that, or four private steps
/// (CONN-32).
fn group(addrs: Vec<Multiaddr>, step: Duration) -> Vec<Ranked> {
    let mut addrs: Vec<(Facts, Multiaddr)> =
        addrs.into_iter().map(|addr| (Facts::of(&addr), addr)).collect();
    addrs.sort_by_key(|(facts, _)| facts.order());
    let (mut ranked, mut after) = (Vec::with_capacity(addrs.len()), Duration::ZERO);
    for kinds in [&[Kind::Quic, Kind::WebTransport][..], &[Kind::Tcp], &[Kind::WebRtc]] {
        let mut of_kind: Vec<_> =
            addrs.iter().filter(|(facts, _)| kinds.contains(&facts.kind)).collect();
        if of_kind.is_empty() {
            continue;
        }
        // The best of the other family is tried second.
        let first_ip6 = of_kind.first().is_some_and(|(facts, _)| !facts.ip4);
        if let Some(ip4) = of_kind.iter().position(|(facts, _)| facts.ip4)
            && first_ip6
        {
            let second = of_kind.remove(ip4);
            of_kind.insert(1, second);
        }
        let families = first_ip6 && of_kind.iter().any(|(facts, _)| facts.ip4);
        let mut last = after;
        for (index, (_, addr)) in of_kind.into_iter().enumerate() {
            let steps = match index {
                0 => 0,
                1 => 1,
                _ if families => 2,
                _ => 1,
            };
            last = after + step * steps;
            ranked.push(Ranked { after: last, addr: addr.clone() });
        }
        after = last + step;
    }
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranks addresses and prints the milliseconds of each.
    fn ranked(addrs: &[&str]) -> Vec<(u128, String)> {
        let addrs: Vec<Multiaddr> = addrs.iter().map(|addr| addr.parse().expect("valid")).collect();
        rank(&addrs).into_iter().map(|r| (r.after.as_millis(), r.addr.to_string())).collect()
    }

    fn expect(given: &[&str], wanted: &[(u128, &str)]) {
        let wanted: Vec<_> = wanted.iter().map(|(ms, addr)| (*ms, (*addr).to_owned())).collect();
        assert_eq!(ranked(given), wanted);
    }

    #[test]
    fn conn_31_32_ip6_first_then_ip4_then_the_rest() {
        expect(
            &[
                "/ip4/1.1.1.2/tcp/2",
                "/ip4/1.1.1.1/tcp/1",
                "/ip6/2400::2/tcp/9",
                "/ip6/2400::1/tcp/3",
            ],
            &[
                (0, "/ip6/2400::1/tcp/3"),
                (250, "/ip4/1.1.1.1/tcp/1"),
                (500, "/ip6/2400::2/tcp/9"),
                (500, "/ip4/1.1.1.2/tcp/2"),
            ],
        );
    }

    #[test]
    fn conn_31_32_quic_before_tcp_a_step_apart() {
        expect(
            &["/ip4/1.1.1.1/tcp/1", "/ip4/1.1.1.1/udp/1/quic-v1", "/ip6/2400::1/udp/1/quic-v1"],
            &[
                (0, "/ip6/2400::1/udp/1/quic-v1"),
                (250, "/ip4/1.1.1.1/udp/1/quic-v1"),
                (500, "/ip4/1.1.1.1/tcp/1"),
            ],
        );
    }

    #[test]
    fn conn_30_private_and_public_begin_together_and_private_steps_are_short() {
        expect(
            &["/ip4/1.1.1.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/192.168.0.1/tcp/2"],
            &[
                (0, "/ip4/10.0.0.1/tcp/1"),
                (0, "/ip4/1.1.1.1/tcp/1"),
                (30, "/ip4/192.168.0.1/tcp/2"),
            ],
        );
    }

    #[test]
    fn conn_30_relays_wait_for_public_addresses_and_others_for_all() {
        let relay = "/ip4/1.1.1.1/tcp/1/p2p/12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq\
                     /p2p-circuit";
        expect(&[relay], &[(0, relay)]);
        expect(
            &["/memory/1", "/memory/2", relay, "/ip4/1.1.1.1/tcp/1"],
            &[(0, "/ip4/1.1.1.1/tcp/1"), (500, relay), (1500, "/memory/1"), (1750, "/memory/2")],
        );
    }

    #[test]
    fn addresses_without_ip_are_dialed_in_their_order() {
        expect(
            &["/memory/2", "/memory/1", "/memory/2", "/memory/3"],
            &[(0, "/memory/2"), (250, "/memory/1"), (500, "/memory/3")],
        );
    }
}
