//! Where peers see this host, and what of that is to be believed (IDENT-17).

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use p2p_core::{AddrExt, Multiaddr, Reach, multiaddr::Protocol};
use tokio::time::Instant;

use crate::{Event, connection::Conn, group::Group, host::Inner};

/// Groups of observers that must agree, as go-libp2p has it.
const OBSERVERS_MIN: usize = 4;
/// Addresses that are believed for one listen address; those with the most observers.
const BELIEVED_MAX: usize = 3;
/// How long a sighting counts after its connection has ended.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Sightings that are kept, and those of one group among them. The one that ended first makes
/// room; where none has ended, no other is taken.
const SIGHTINGS_MAX: usize = 1024;
const SIGHTINGS_OF_GROUP_MAX: usize = 8;

/// What peers say of where they see this host.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    sightings: Vec<Sighting>,
}

/// Connections of one group of observers came by `local`, and were seen as coming by `seen`.
#[derive(Debug)]
struct Sighting {
    local: Endpoint,
    seen: Endpoint,
    observer: Group,
    conns: Vec<u64>,
    /// When the last of the connections has ended.
    ended: Option<Instant>,
}

impl Observed {
    /// Takes what the peer of connection `conn` has said. It counts when the connection came by
    /// one of the `listen` addresses, and when it can be the same seen from elsewhere.
    pub(crate) fn handle_observation(
        &mut self,
        conn: u64,
        observer: Group,
        (local, seen): (&Multiaddr, &Multiaddr),
        listen: &[Multiaddr],
        now: Instant,
    ) {
        // What it has said before, it says no more.
        for sighting in &mut self.sightings {
            sighting.conns.retain(|of| *of != conn);
        }
        self.sightings.retain(|sighting| !sighting.conns.is_empty() || sighting.ended.is_some());
        let Some((local, seen)) = plausible(local, seen, listen) else { return };
        if let Group::Peer(_) = observer {
            return;
        }
        let known = |s: &&mut Sighting| (s.local, s.seen, s.observer) == (local, seen, observer);
        if let Some(sighting) = self.sightings.iter_mut().find(known) {
            sighting.conns.push(conn);
            sighting.ended = None;
            return;
        }
        self.handle_timeout(now);
        let of_group = self.sightings.iter().filter(|s| s.observer == observer).count();
        let has_room = (of_group < SIGHTINGS_OF_GROUP_MAX || self.forget_of(|s| s == observer))
            && (self.sightings.len() < SIGHTINGS_MAX || self.forget_of(|_| true));
        if has_room {
            self.sightings.push(Sighting { local, seen, observer, conns: vec![conn], ended: None });
        }
    }

    /// Forgets the sighting that ended first among those of some groups; false without one.
    fn forget_of(&mut self, of: impl Fn(Group) -> bool) -> bool {
        let ended = self.sightings.iter().enumerate().filter(|(_, s)| of(s.observer));
        let first = ended.filter_map(|(at, s)| Some((s.ended?, at))).min();
        first.map(|(_, at)| self.sightings.swap_remove(at)).is_some()
    }

    /// A connection has ended.
    pub(crate) fn handle_end(&mut self, conn: u64, now: Instant) {
        for sighting in self.sightings.iter_mut().filter(|s| s.conns.contains(&conn)) {
            sighting.conns.retain(|of| *of != conn);
            if sighting.conns.is_empty() {
                sighting.ended = Some(now);
            }
        }
    }

    /// Forgets what is not listened on any more.
    pub(crate) fn handle_listen(&mut self, listen: &[Multiaddr]) {
        let listen: Vec<Endpoint> = listen.iter().filter_map(Endpoint::of).collect();
        self.sightings.retain(|sighting| listen.contains(&sighting.local));
    }

    /// Forgets what ended too long ago.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.sightings.retain(|s| s.ended.is_none_or(|ended| ended + REMEMBERED > now));
    }

    /// When [`Observed::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.sightings.iter().filter_map(|s| s.ended).min().map(|ended| ended + REMEMBERED)
    }

    /// The addresses that are believed: those of `listen`, as enough groups of observers see
    /// them.
    pub(crate) fn believed(&self, listen: &[Multiaddr]) -> Vec<Multiaddr> {
        let mut believed = Vec::new();
        for addr in listen {
            let Some(local) = Endpoint::of(addr) else { continue };
            let mut observers: BTreeMap<Endpoint, usize> = BTreeMap::new();
            for sighting in self.sightings.iter().filter(|s| s.local == local) {
                *observers.entry(sighting.seen).or_default() += 1;
            }
            let mut enough: Vec<(Endpoint, usize)> =
                observers.into_iter().filter(|(_, count)| *count >= OBSERVERS_MIN).collect();
            enough.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            for (seen, _) in enough.into_iter().take(BELIEVED_MAX) {
                let addr = seen.in_place_of_first(addr);
                if !listen.contains(&addr) && !believed.contains(&addr) {
                    believed.push(addr);
                }
            }
        }
        believed
    }
}

/// The endpoints of an observation that is worth counting.
fn plausible(
    local: &Multiaddr,
    seen: &Multiaddr,
    listen: &[Multiaddr],
) -> Option<(Endpoint, Endpoint)> {
    let (from, to) = (Endpoint::of(local)?, Endpoint::of(seen)?);
    let listened = listen.iter().any(|addr| Endpoint::of(addr) == Some(from));
    let same_form = from.udp == to.udp && from.ip.is_ipv4() == to.ip.is_ipv4();
    let direct = !seen.iter().any(|part| part == Protocol::P2pCircuit);
    (listened && same_form && direct && to.is_useful(seen)).then_some((from, to))
}

/// An IP address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Endpoint {
    ip: IpAddr,
    udp: bool,
    port: u16,
}

impl Endpoint {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the multiaddr crate may add protocols")]
    fn of(addr: &Multiaddr) -> Option<Self> {
        let mut parts = addr.iter();
        let ip = match parts.next()? {
            Protocol::Ip4(ip) => IpAddr::V4(ip),
            Protocol::Ip6(ip) => IpAddr::V6(ip),
            _ => return None,
        };
        let (udp, port) = match parts.next()? {
            Protocol::Tcp(port) => (false, port),
            Protocol::Udp(port) => (true, port),
            _ => return None,
        };
        Some(Self { ip, udp, port })
    }

    /// Whether others can do something with it. What a NAT64 makes of an IPv4 address holds for
    /// the one peer behind it.
    fn is_useful(self, addr: &Multiaddr) -> bool {
        let nat64 = match self.ip {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => ip.to_bits() >> 32 == 0x0064_ff9b << 64,
        };
        self.port != 0 && !nat64 && addr.reach() >= Reach::Private
    }

    /// `addr` with this endpoint in the place of its own.
    fn in_place_of_first(self, addr: &Multiaddr) -> Multiaddr {
        let own = Multiaddr::empty().with(self.ip.into());
        let own =
            own.with(if self.udp { Protocol::Udp(self.port) } else { Protocol::Tcp(self.port) });
        addr.iter().skip(2).fold(own, Multiaddr::with)
    }
}

/// What a host knows of how it is seen.
#[derive(Debug, Default)]
pub(crate) struct Sights {
    observed: Mutex<Observed>,
    believed: Mutex<Vec<Multiaddr>>,
}

impl Sights {
    fn observed(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is believed, as it was found last.
    pub(crate) fn believed(&self) -> Vec<Multiaddr> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.observed().poll_timeout()
    }

    /// A connection has ended.
    pub(crate) fn end(&self, conn: u64) {
        self.observed().handle_end(conn, Instant::now());
    }
}

impl Inner {
    /// Takes what a connection's peer says of where it sees this host.
    pub(crate) fn observe(&self, conn: &Conn, seen: &Multiaddr) {
        let Some(local) = conn.info().local() else { return };
        let observer = Group::of(conn.peer(), conn.info().remote());
        let (both, listen) = ((local, seen), self.addresses.all());
        let now = Instant::now();
        self.sights.observed().handle_observation(conn.id, observer, both, &listen, now);
        // Its end may have been told before.
        if conn.ended.is_cancelled() {
            self.sights.end(conn.id);
        }
        self.changes.mark();
    }

    /// Finds what is to be believed now, and says so when that is something else than before.
    pub(crate) fn update_believed(&self) {
        let listen = self.addresses.all();
        let believed = {
            let mut observed = self.sights.observed();
            observed.handle_listen(&listen);
            observed.handle_timeout(Instant::now());
            observed.believed(&listen)
        };
        let before = {
            let mut known = self.sights.believed.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *known, believed.clone())
        };
        if before != believed {
            tracing::debug!(?believed, "observed addresses");
            let addrs = believed.iter().map(|addr| addr.with_peer(&self.own)).collect();
            self.emit(Event::ObservedAddrs { addrs });
        }
    }

    /// The addresses that peers are told: those listened on, and those believed.
    pub(crate) fn told_addrs(&self) -> Vec<Multiaddr> {
        let mut addrs = self.addresses.all();
        addrs.extend(self.sights.believed());
        addrs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTEN: &str = "/ip4/10.0.0.1/tcp/4001";
    const SEEN: &str = "/ip4/1.2.3.4/tcp/5001";

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn observer(number: u32) -> Group {
        Group::Ip(std::net::Ipv4Addr::from_bits(number << 8).into())
    }

    struct Case {
        observed: Observed,
        listen: Vec<Multiaddr>,
        now: Instant,
    }

    impl Case {
        fn new(listen: &[&str]) -> Self {
            let listen = listen.iter().map(|text| addr(text)).collect();
            Self { observed: Observed::default(), listen, now: Instant::now() }
        }

        /// Connection `conn` of a group of observers says that it sees `local` as `seen`.
        fn say(&mut self, conn: u64, group: u32, local: &str, seen: &str) {
            let both = (&addr(local), &addr(seen));
            self.observed.handle_observation(conn, observer(group), both, &self.listen, self.now);
        }

        fn believed(&self) -> Vec<String> {
            self.observed.believed(&self.listen).iter().map(ToString::to_string).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ident_17_four_groups_of_observers_make_an_address_believed() {
        let mut case = Case::new(&[LISTEN]);
        for conn in 1..=3 {
            case.say(u64::from(conn), conn, LISTEN, SEEN);
        }
        // Many connections of one group are one observer, and so is one that repeats itself.
        for conn in 4..100 {
            case.say(conn, 3, LISTEN, SEEN);
        }
        case.say(4, 3, LISTEN, SEEN);
        case.say(100, 4, LISTEN, "/ip4/1.2.3.4/tcp/5002");
        assert!(case.believed().is_empty());
        case.say(101, 5, LISTEN, SEEN);
        assert_eq!(case.believed(), [SEEN]);
    }

    #[tokio::test(start_paused = true)]
    async fn ident_17_what_an_observer_says_last_counts() {
        let mut case = Case::new(&[LISTEN]);
        for conn in 1..=4 {
            case.say(u64::from(conn), conn, LISTEN, SEEN);
        }
        case.say(4, 4, LISTEN, "/ip4/9.9.9.9/tcp/1");
        assert!(case.believed().is_empty());
        case.say(4, 4, LISTEN, SEEN);
        assert_eq!(case.believed(), [SEEN]);
        case.say(4, 4, LISTEN, "/ip4/127.0.0.1/tcp/1");
        assert!(case.believed().is_empty());
        assert_eq!(case.observed.sightings.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn ident_17_what_cannot_be_a_listen_address_seen_from_elsewhere_does_not_count() {
        let listen = [LISTEN, "/ip6/2400::1/tcp/4001"];
        for (local, seen) in [
            ("/ip4/10.0.0.1/tcp/40000", SEEN),
            ("/ip4/10.0.0.2/tcp/4001", SEEN),
            (LISTEN, "/ip4/1.2.3.4/udp/5001/quic-v1"),
            (LISTEN, "/ip6/2400::9/tcp/5001"),
            (LISTEN, "/ip4/127.0.0.1/tcp/5001"),
            (LISTEN, "/ip4/0.0.0.0/tcp/5001"),
            (LISTEN, "/ip4/169.254.1.1/tcp/5001"),
            (LISTEN, "/ip4/1.2.3.4/tcp/0"),
            (LISTEN, "/dns4/example.com/tcp/5001"),
            (LISTEN, "/ip4/1.2.3.4/tcp/5001/p2p-circuit"),
            ("/ip6/2400::1/tcp/4001", "/ip6/64:ff9b::102:304/tcp/5001"),
            ("/memory/1", "/memory/2"),
        ] {
            let mut case = Case::new(&listen);
            for conn in 1..=8 {
                case.say(u64::from(conn), conn, local, seen);
            }
            assert!(case.observed.sightings.is_empty(), "{local} seen as {seen}");
        }
        // Nor what peers say that are not known by their IP address.
        let mut case = Case::new(&listen);
        for seed in 1..=8 {
            let peer = p2p_core::Keypair::from_ed25519_seed(&[seed; 32]).public().peer_id();
            let (group, both) = (Group::Peer(peer), (&addr(LISTEN), &addr(SEEN)));
            case.observed.handle_observation(seed.into(), group, both, &case.listen, case.now);
        }
        assert!(case.observed.sightings.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn ident_17_listeners_that_share_a_port_are_seen_alike_and_are_named_once() {
        let mut case = Case::new(&[LISTEN, "/ip4/10.0.0.1/tcp/4001/ws", "/ip4/10.0.0.1/tcp/4002"]);
        for conn in 1..=4 {
            case.say(u64::from(conn), conn, LISTEN, SEEN);
        }
        assert_eq!(case.believed(), [SEEN, "/ip4/1.2.3.4/tcp/5001/ws"]);
        // One that is listened on is no news.
        case.listen.push(addr(SEEN));
        assert_eq!(case.believed(), ["/ip4/1.2.3.4/tcp/5001/ws"]);
    }

    #[tokio::test(start_paused = true)]
    async fn ident_17_the_three_with_the_most_observers_are_believed() {
        let mut case = Case::new(&[LISTEN]);
        let mut conn = 0;
        for (port, observers) in [(1, 4), (2, 6), (3, 4), (4, 5)] {
            for group in 0..observers {
                conn += 1;
                case.say(conn, group, LISTEN, &format!("/ip4/1.2.3.4/tcp/{port}"));
            }
        }
        let ports = [2, 4, 1].map(|port| format!("/ip4/1.2.3.4/tcp/{port}"));
        assert_eq!(case.believed(), ports);
    }

    #[tokio::test(start_paused = true)]
    async fn ident_17_sightings_are_forgotten_ten_minutes_after_their_connection() {
        let mut case = Case::new(&[LISTEN]);
        for conn in 1..=4 {
            case.say(u64::from(conn), conn, LISTEN, SEEN);
        }
        case.say(5, 4, LISTEN, SEEN);
        case.observed.handle_end(4, case.now);
        assert_eq!(case.observed.poll_timeout(), None, "the observer has another connection");
        case.observed.handle_end(5, case.now);
        assert_eq!(case.observed.poll_timeout(), Some(case.now + REMEMBERED));
        case.observed.handle_timeout(case.now + REMEMBERED - Duration::from_millis(1));
        assert_eq!(case.believed(), [SEEN]);
        // Another connection of the same observer renews it.
        case.say(6, 4, LISTEN, SEEN);
        case.observed.handle_timeout(case.now + REMEMBERED);
        assert_eq!((case.believed().len(), case.observed.poll_timeout()), (1, None));
        case.observed.handle_end(6, case.now);
        case.observed.handle_timeout(case.now + REMEMBERED);
        assert!(case.believed().is_empty());
        assert_eq!(case.observed.sightings.len(), 3);
        case.observed.handle_listen(&[]);
        assert!(case.observed.sightings.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn ident_17_sightings_are_bounded_in_all_and_for_each_group() {
        let mut case = Case::new(&[LISTEN]);
        let seen = |port: u64| format!("/ip4/1.2.3.4/tcp/{}", port + 1);
        for conn in 0..100 {
            case.say(conn, 0, LISTEN, &seen(conn));
        }
        assert_eq!(case.observed.sightings.len(), SIGHTINGS_OF_GROUP_MAX);
        // One that has ended makes room for one.
        case.observed.handle_end(0, case.now);
        case.say(100, 0, LISTEN, &seen(100));
        case.say(101, 0, LISTEN, &seen(101));
        assert_eq!(case.observed.sightings.len(), SIGHTINGS_OF_GROUP_MAX);
        assert!(case.observed.sightings.iter().any(|s| s.conns == [100]));
        for group in 1..2000 {
            case.say(1000 + u64::from(group), group, LISTEN, SEEN);
        }
        assert_eq!(case.observed.sightings.len(), SIGHTINGS_MAX);
        case.observed.handle_end(1001, case.now);
        case.say(9000, 3000, LISTEN, SEEN);
        case.say(9001, 3001, LISTEN, SEEN);
        assert_eq!(case.observed.sightings.len(), SIGHTINGS_MAX);
        assert!(case.observed.sightings.iter().any(|s| s.conns == [9000]));
    }
}
