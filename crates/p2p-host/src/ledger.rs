//! What connections and streams take of the host's limits. Everything is counted before it costs
//! anything, and until the place that it was given is dropped.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use p2p_core::{Multiaddr, PeerId, ProtocolId, Role};
use tokio::time::Instant;

use crate::{
    LimitReached,
    buffers::{Scope, Sum},
    ip::{IpRange, ip_of, is_relayed},
    metrics,
    rates::{Rate, Rates},
    usage::{PeerUsage, ProtocolUsage, RangeUsage, Usage, UsageReport, Used},
};

/// Refusals that are told as events, a second; more would push other events out.
const REFUSALS_TOLD_MAX: u32 = 32;
/// IP ranges whose new connections are counted; the one that has made the fewest makes room for
/// another.
const RATED_MAX: usize = 1024;
/// How much more an IPv6 /48 may have than a /56.
const SITE_FACTOR: u32 = 4;

/// The counts that a host allows; see [`Builder`](crate::Builder).
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostLimits {
    pub(crate) connections_inbound_max: usize,
    pub(crate) connections_outbound_max: usize,
    pub(crate) connections_per_peer_max: usize,
    pub(crate) connections_per_ip_max: usize,
    pub(crate) connections_per_ip6_site_max: usize,
    pub(crate) connections_per_ip_rate: Rate,
    pub(crate) buffered_bytes_max: usize,
    pub(crate) buffered_bytes_per_peer_max: usize,
    pub(crate) buffered_bytes_per_protocol_max: usize,
    pub(crate) buffered_bytes_per_ip_max: usize,
    pub(crate) pending_inbound_max: usize,
    pub(crate) dials_at_once_max: usize,
    pub(crate) streams_inbound_max: usize,
    pub(crate) streams_outbound_max: usize,
    pub(crate) streams_inbound_per_peer_max: usize,
    pub(crate) streams_outbound_per_peer_max: usize,
    pub(crate) streams_inbound_per_ip_max: usize,
    pub(crate) streams_per_protocol_max: usize,
    pub(crate) streams_per_protocol_and_peer_max: usize,
}

/// A limit and the setting that raises it, if one does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Max {
    pub(crate) value: usize,
    pub(crate) setting: Option<&'static str>,
}

impl Max {
    pub(crate) const fn new(value: usize, setting: &'static str) -> Self {
        Self { value, setting: Some(setting) }
    }

    /// A limit that belongs to a protocol.
    pub(crate) const fn fixed(value: usize) -> Self {
        Self { value, setting: None }
    }

    /// Whether one more is allowed beside `count`.
    pub(crate) fn check(
        self,
        count: usize,
        what: &'static str,
        holder: impl FnOnce() -> String,
    ) -> Result<(), LimitReached> {
        if count < self.value { Ok(()) } else { Err(self.reached(what, holder())) }
    }

    pub(crate) fn reached(self, what: &'static str, holder: String) -> LimitReached {
        let Self { value, setting } = self;
        LimitReached { what, value, holder, setting }
    }
}

/// The host's books. Its lock is taken last, and nothing is called under it.
pub(crate) struct Ledger {
    limits: HostLimits,
    counts: Mutex<Counts>,
}

struct Counts {
    pending_inbound: usize,
    inbound: usize,
    pending_outbound: usize,
    outbound: usize,
    dials: usize,
    streams_inbound: usize,
    streams_outbound: usize,
    peers: HashMap<PeerId, PeerCounts>,
    protocols: HashMap<Arc<ProtocolId>, ProtocolCounts>,
    ranges: HashMap<IpRange, RangeCounts>,
    rates: Rates<IpRange>,
    /// Who held more bytes than may be, at the last look.
    overfull: BTreeMap<Scope, LimitReached>,
    refused: u64,
    told: Option<(Instant, u32)>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct PeerCounts {
    connections: usize,
    streams_inbound: usize,
    streams_outbound: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct RangeCounts {
    /// Connections, and dials of addresses.
    connections: usize,
    streams_inbound: usize,
    streams_outbound: usize,
}

#[derive(Default)]
struct ProtocolCounts {
    inbound: usize,
    /// That of the last inbound stream; until there is one, the host's.
    inbound_max: Option<usize>,
    inbound_by_peer: HashMap<PeerId, usize>,
    outbound: usize,
}

/// What a [`Place`] is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An inbound connection from accept to its registration; or refused, and not yet ended.
    PendingInbound,
    Inbound,
    /// A dial to a peer.
    PendingOutbound,
    Outbound,
    /// The dial of one address.
    Dial,
}

impl Counts {
    fn new() -> Self {
        Self {
            pending_inbound: 0,
            inbound: 0,
            pending_outbound: 0,
            outbound: 0,
            dials: 0,
            streams_inbound: 0,
            streams_outbound: 0,
            peers: HashMap::new(),
            protocols: HashMap::new(),
            ranges: HashMap::new(),
            rates: Rates::new(RATED_MAX),
            overfull: BTreeMap::new(),
            refused: 0,
            told: None,
        }
    }

    fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::PendingInbound => &mut self.pending_inbound,
            Kind::Inbound => &mut self.inbound,
            Kind::PendingOutbound => &mut self.pending_outbound,
            Kind::Outbound => &mut self.outbound,
            Kind::Dial => &mut self.dials,
        }
    }

    fn streams(&mut self, role: Role) -> &mut usize {
        match role {
            Role::Initiator => &mut self.streams_outbound,
            Role::Responder => &mut self.streams_inbound,
        }
    }

    /// The counts of a protocol, and its name, which its streams share.
    fn of_protocol(&mut self, protocol: &ProtocolId) -> (Arc<ProtocolId>, &mut ProtocolCounts) {
        let known = self.protocols.get_key_value(protocol).map(|(name, _)| Arc::clone(name));
        let name = known.unwrap_or_else(|| Arc::new(protocol.clone()));
        (Arc::clone(&name), self.protocols.entry(name).or_default())
    }

    fn change_peer(&mut self, peer: PeerId, change: impl FnOnce(&mut PeerCounts)) {
        let of_peer = self.peers.entry(peer).or_default();
        change(of_peer);
        if *of_peer == PeerCounts::default() {
            self.peers.remove(&peer);
        }
    }

    fn holders(&self, count: usize, pending: usize) -> String {
        let peers = self.peers.values().filter(|of_peer| of_peer.connections > 0).count();
        format!("{count} connections, {pending} pending ones; connected are {peers} peers")
    }

    fn change_ranges(&mut self, ip: Option<IpAddr>, change: impl Fn(&mut RangeCounts)) {
        for range in ranges(ip) {
            let of_range = self.ranges.entry(range).or_default();
            change(of_range);
            if *of_range == RangeCounts::default() {
                self.ranges.remove(&range);
            }
        }
    }

    fn range(&self, range: IpRange) -> RangeCounts {
        self.ranges.get(&range).copied().unwrap_or_default()
    }
}

impl PeerCounts {
    fn streams(&mut self, role: Role) -> &mut usize {
        match role {
            Role::Initiator => &mut self.streams_outbound,
            Role::Responder => &mut self.streams_inbound,
        }
    }
}

impl RangeCounts {
    fn streams(&mut self, role: Role) -> &mut usize {
        match role {
            Role::Initiator => &mut self.streams_outbound,
            Role::Responder => &mut self.streams_inbound,
        }
    }
}

/// The ranges in which an address is counted (CONN-45); a loopback address for itself.
fn ranges(ip: Option<IpAddr>) -> impl Iterator<Item = IpRange> {
    let ranges = match ip {
        None => [None, None],
        Some(ip) if ip.is_loopback() => [Some(ip.into()), None],
        Some(ip @ IpAddr::V4(_)) => [Some(IpRange::cut(ip, 32)), None],
        Some(ip @ IpAddr::V6(_)) => [Some(IpRange::cut(ip, 56)), Some(IpRange::cut(ip, 48))],
    };
    ranges.into_iter().flatten()
}

/// What is said of a range: of an IPv4 address, an IPv6 /56 or an IPv6 /48.
fn by_prefix(range: IpRange, texts: [&'static str; 3]) -> &'static str {
    let [address, subnet, site] = texts;
    match range.prefix_len() {
        32 => address,
        56 => subnet,
        _ => site,
    }
}

/// A limit of an IPv4 address or IPv6 /56, of which a /48 has four times as much, and what is near
/// none.
fn of_range(range: IpRange, value: usize, setting: &'static str) -> Max {
    match range.prefix_len() {
        _ if range.is_loopback() => Max::fixed(usize::MAX),
        48 => Max::new(value.saturating_mul(SITE_FACTOR as usize), setting),
        _ => Max::new(value, setting),
    }
}

/// The address by which a link is counted. Those that come over a relay are not the relay's.
fn counted_ip(addr: &Multiaddr) -> Option<IpAddr> {
    ip_of(addr).filter(|_| !is_relayed(addr))
}

impl HostLimits {
    /// What streams may hold, in bytes.
    pub(crate) fn buffered(&self, scope: &Scope) -> (Max, &'static str) {
        match scope {
            Scope::Host => {
                (Max::new(self.buffered_bytes_max, "Builder::buffered_bytes_max"), "buffered bytes")
            }
            Scope::Peer(_) => (
                Max::new(self.buffered_bytes_per_peer_max, "Builder::buffered_bytes_per_peer_max"),
                "buffered bytes of one peer",
            ),
            Scope::Protocol(_) => (
                Max::new(
                    self.buffered_bytes_per_protocol_max,
                    "Builder::buffered_bytes_per_protocol_max",
                ),
                "buffered bytes of one protocol",
            ),
            Scope::Range(range) => {
                let what = [
                    "buffered bytes of one IPv4 address",
                    "buffered bytes of one IPv6 /56",
                    "buffered bytes of one IPv6 /48",
                ];
                let setting = "Builder::buffered_bytes_per_ip_max";
                let max = of_range(*range, self.buffered_bytes_per_ip_max, setting);
                (max, by_prefix(*range, what))
            }
        }
    }

    /// The least of these: nobody holds too much while all together hold no more.
    pub(crate) fn buffered_least(&self) -> usize {
        let of_parts = self.buffered_bytes_per_peer_max.min(self.buffered_bytes_per_protocol_max);
        self.buffered_bytes_max.min(of_parts).min(self.buffered_bytes_per_ip_max)
    }

    fn connections_of_range(&self, range: IpRange) -> (Max, &'static str) {
        let what = [
            "connections of one IPv4 address",
            "connections of one IPv6 /56",
            "connections of one IPv6 /48",
        ];
        let what = by_prefix(range, what);
        if range.is_loopback() {
            return (Max::fixed(usize::MAX), what);
        }
        let max = if range.prefix_len() == 48 {
            Max::new(self.connections_per_ip6_site_max, "Builder::connections_per_ip6_site_max")
        } else {
            Max::new(self.connections_per_ip_max, "Builder::connections_per_ip_max")
        };
        (max, what)
    }

    /// How often new connections of a range are taken; `None` where there is no limit.
    fn rate_of(&self, range: IpRange) -> Option<(Rate, &'static str)> {
        let Rate { burst, interval } = self.connections_per_ip_rate;
        let what = [
            "new connections of one IPv4 address at once",
            "new connections of one IPv6 /56 at once",
            "new connections of one IPv6 /48 at once",
        ];
        let rate = match range.prefix_len() {
            _ if range.is_loopback() => return None,
            48 => {
                Rate { burst: burst.saturating_mul(SITE_FACTOR), interval: interval / SITE_FACTOR }
            }
            _ => Rate { burst, interval },
        };
        Some((rate, by_prefix(range, what)))
    }

    fn streams(&self, role: Role) -> (Max, &'static str) {
        match role {
            Role::Initiator => (
                Max::new(self.streams_outbound_max, "Builder::streams_outbound_max"),
                "outbound streams",
            ),
            Role::Responder => (
                Max::new(self.streams_inbound_max, "Builder::streams_inbound_max"),
                "inbound streams",
            ),
        }
    }

    fn streams_inbound_of_range(&self, range: IpRange) -> (Max, &'static str) {
        let what = [
            "inbound streams of one IPv4 address",
            "inbound streams of one IPv6 /56",
            "inbound streams of one IPv6 /48",
        ];
        let setting = "Builder::streams_inbound_per_ip_max";
        let max = of_range(range, self.streams_inbound_per_ip_max, setting);
        (max, by_prefix(range, what))
    }

    fn streams_of_peer(&self, role: Role) -> (Max, &'static str) {
        match role {
            Role::Initiator => (
                Max::new(
                    self.streams_outbound_per_peer_max,
                    "Builder::streams_outbound_per_peer_max",
                ),
                "outbound streams to one peer",
            ),
            Role::Responder => (
                Max::new(
                    self.streams_inbound_per_peer_max,
                    "Builder::streams_inbound_per_peer_max",
                ),
                "inbound streams of one peer",
            ),
        }
    }
}

impl Ledger {
    pub(crate) fn new(limits: HostLimits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::new(Counts::new()) })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what a limit has refused.
    fn refuse(&self, limit: &LimitReached) {
        self.refused();
        metrics::refused(limit);
    }

    /// Takes a place for a link that has just come in, and with it one among the inbound
    /// connections: nobody is upgraded only to be refused.
    pub(crate) fn accept(
        self: &Arc<Self>,
        remote: &Multiaddr,
        now: Instant,
    ) -> Result<Place, LimitReached> {
        let result = self.try_accept(&mut self.counts(), remote, now);
        self.place(Kind::PendingInbound, result)
    }

    fn try_accept(
        &self,
        counts: &mut Counts,
        remote: &Multiaddr,
        now: Instant,
    ) -> Result<Option<IpAddr>, LimitReached> {
        let (pending, open) = (counts.pending_inbound, counts.inbound);
        let holder = || counts.holders(open, pending);
        Max::new(self.limits.pending_inbound_max, "Builder::pending_inbound_max").check(
            pending,
            "pending inbound connections",
            holder,
        )?;
        Max::new(self.limits.connections_inbound_max, "Builder::connections_inbound_max").check(
            pending.saturating_add(open),
            "inbound connections",
            holder,
        )?;
        counts.check_buffers([Scope::Host])?;
        let ip = counted_ip(remote);
        counts.check_buffers(ranges(ip).map(Scope::Range))?;
        self.check_rate(counts, ip, now)?;
        self.take_range(counts, ip)?;
        for range in ranges(ip) {
            if let Some((rate, _)) = self.limits.rate_of(range) {
                counts.rates.count(range, rate, now);
            }
        }
        *counts.of(Kind::PendingInbound) += 1;
        Ok(ip)
    }

    /// Takes a place among the outbound connections for a dial to a peer.
    pub(crate) fn dial(self: &Arc<Self>) -> Result<Place, LimitReached> {
        let result = self.try_dial(&mut self.counts());
        self.place(Kind::PendingOutbound, result)
    }

    fn try_dial(&self, counts: &mut Counts) -> Result<Option<IpAddr>, LimitReached> {
        let (pending, open) = (counts.pending_outbound, counts.outbound);
        let max =
            Max::new(self.limits.connections_outbound_max, "Builder::connections_outbound_max");
        let holder = || counts.holders(open, pending);
        max.check(pending.saturating_add(open), "outbound connections", holder)?;
        *counts.of(Kind::PendingOutbound) += 1;
        Ok(None)
    }

    /// Takes a place for the dial of one address, among those of its IP range.
    pub(crate) fn dial_addr(self: &Arc<Self>, addr: &Multiaddr) -> Result<Place, LimitReached> {
        let result = self.try_dial_addr(&mut self.counts(), addr);
        self.place(Kind::Dial, result)
    }

    fn try_dial_addr(
        &self,
        counts: &mut Counts,
        addr: &Multiaddr,
    ) -> Result<Option<IpAddr>, LimitReached> {
        let ip = counted_ip(addr);
        self.take_range(counts, ip)?;
        *counts.of(Kind::Dial) += 1;
        Ok(ip)
    }

    fn check_rate(
        &self,
        counts: &Counts,
        ip: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), LimitReached> {
        for range in ranges(ip) {
            let Some((rate, what)) = self.limits.rate_of(range) else { continue };
            if let Err(wait) = counts.rates.check(&range, rate, now) {
                let value = usize::try_from(rate.burst).unwrap_or(usize::MAX);
                let holder = format!("{range}, which may have one more in {wait:.1?}");
                let setting = Some("Builder::connections_per_ip_rate");
                return Err(LimitReached { what, value, holder, setting });
            }
        }
        Ok(())
    }

    fn take_range(&self, counts: &mut Counts, ip: Option<IpAddr>) -> Result<(), LimitReached> {
        for range in ranges(ip) {
            let (max, what) = self.limits.connections_of_range(range);
            let count = counts.range(range).connections;
            max.check(count, what, || format!("{count} connections and dials of {range}"))?;
        }
        counts.change_ranges(ip, |of_range| of_range.connections += 1);
        Ok(())
    }

    /// The place of what was counted, or a refusal.
    fn place(
        self: &Arc<Self>,
        kind: Kind,
        ip: Result<Option<IpAddr>, LimitReached>,
    ) -> Result<Place, LimitReached> {
        let ip = ip.inspect_err(|limit| self.refuse(limit))?;
        Ok(Place { ledger: Arc::clone(self), kind, ip, peer: None })
    }

    /// Whether a peer may have one more connection; it is not taken yet.
    pub(crate) fn check_peer(&self, role: Role, peer: &PeerId) -> Result<(), LimitReached> {
        let checked = self.check_peer_of(&self.counts(), role, peer);
        checked.inspect_err(|limit| self.refuse(limit))
    }

    fn check_peer_of(
        &self,
        counts: &Counts,
        role: Role,
        peer: &PeerId,
    ) -> Result<(), LimitReached> {
        if role == Role::Responder {
            counts.check_buffers([Scope::Peer(*peer)])?;
        }
        let count = counts.peers.get(peer).map_or(0, |of_peer| of_peer.connections);
        let max =
            Max::new(self.limits.connections_per_peer_max, "Builder::connections_per_peer_max");
        max.check(count, "connections to one peer", || peer.to_string())
    }

    fn take_stream(
        &self,
        counts: &mut Counts,
        role: Role,
        account: &Account,
    ) -> Result<(), LimitReached> {
        let Account { peer, ip, .. } = *account;
        if role == Role::Responder {
            counts.check_buffers([Scope::Host, Scope::Peer(peer)])?;
            counts.check_buffers(ranges(ip).map(Scope::Range))?;
        }
        let mut of_peer = counts.peers.get(&peer).copied().unwrap_or_default();
        let (max, what) = self.limits.streams_of_peer(role);
        max.check(*of_peer.streams(role), what, || peer.to_string())?;
        for range in ranges(ip).filter(|_| role == Role::Responder) {
            let (max, what) = self.limits.streams_inbound_of_range(range);
            let count = counts.range(range).streams_inbound;
            max.check(count, what, || format!("{count} streams of {range}"))?;
        }
        let (max, what) = self.limits.streams(role);
        let (count, peers) = (*counts.streams(role), counts.peers.len());
        max.check(count, what, || format!("{count} streams of {peers} peers"))?;
        *counts.streams(role) += 1;
        counts.change_peer(peer, |of_peer| *of_peer.streams(role) += 1);
        counts.change_ranges(ip, |of_range| *of_range.streams(role) += 1);
        Ok(())
    }

    /// Counts a refusal that no limit made.
    pub(crate) fn refused(&self) {
        let mut counts = self.counts();
        counts.refused = counts.refused.saturating_add(1);
    }

    /// What an address is told that never had its turn.
    pub(crate) fn no_turn(&self) -> LimitReached {
        let limit = LimitReached {
            what: "dials at once",
            value: self.limits.dials_at_once_max,
            holder: format!("{} dials under way", self.counts().dials),
            setting: Some("Builder::dials_at_once_max"),
        };
        self.refuse(&limit);
        limit
    }

    /// Takes note of who holds too many bytes, and gives those who did at the last look.
    pub(crate) fn set_overfull(
        &self,
        overfull: BTreeMap<Scope, LimitReached>,
    ) -> BTreeMap<Scope, LimitReached> {
        std::mem::replace(&mut self.counts().overfull, overfull)
    }

    /// Whether one more refusal is told as an event.
    pub(crate) fn may_tell(&self, now: Instant) -> bool {
        let mut counts = self.counts();
        let (since, told) = counts.told.get_or_insert((now, 0));
        if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            (*since, *told) = (now, 0);
        }
        *told = told.saturating_add(1);
        *told <= REFUSALS_TOLD_MAX
    }

    pub(crate) fn connections(&self) -> usize {
        let counts = self.counts();
        counts.inbound.saturating_add(counts.outbound)
    }

    pub(crate) fn usage(&self, buffered: usize) -> Usage {
        self.usage_of(&self.counts(), buffered)
    }

    fn usage_of(&self, counts: &Counts, buffered: usize) -> Usage {
        let limits = &self.limits;
        Usage {
            connections_inbound: Used::new(counts.inbound, limits.connections_inbound_max),
            connections_outbound: Used::new(counts.outbound, limits.connections_outbound_max),
            pending_inbound: Used::new(counts.pending_inbound, limits.pending_inbound_max),
            pending_outbound: Used::new(counts.pending_outbound, limits.connections_outbound_max),
            dials_at_once: Used::new(counts.dials, limits.dials_at_once_max),
            streams_inbound: Used::new(counts.streams_inbound, limits.streams_inbound_max),
            streams_outbound: Used::new(counts.streams_outbound, limits.streams_outbound_max),
            buffered_bytes: Used::new(buffered, limits.buffered_bytes_max),
            refused: counts.refused,
        }
    }

    /// `held` says how many bytes streams hold.
    pub(crate) fn report(&self, held: &BTreeMap<Scope, Sum>, now: Instant) -> UsageReport {
        let counts = self.counts();
        let limits = &self.limits;
        let bytes = |scope: &Scope| held.get(scope).map_or(0, |sum| sum.bytes);
        let buffered = |scope: Scope| Used::new(bytes(&scope), limits.buffered(&scope).0.value);
        let peer = |(peer, of_peer): (&PeerId, &PeerCounts)| PeerUsage {
            peer: *peer,
            connections: Used::new(of_peer.connections, limits.connections_per_peer_max),
            streams_inbound: Used::new(
                of_peer.streams_inbound,
                limits.streams_inbound_per_peer_max,
            ),
            streams_outbound: Used::new(
                of_peer.streams_outbound,
                limits.streams_outbound_per_peer_max,
            ),
            buffered_bytes: buffered(Scope::Peer(*peer)),
        };
        let protocol = |protocol: &ProtocolId, of_protocol: &ProtocolCounts| ProtocolUsage {
            protocol: protocol.clone(),
            streams_inbound: Used::new(
                of_protocol.inbound,
                of_protocol.inbound_max.unwrap_or(limits.streams_per_protocol_max),
            ),
            streams_outbound: of_protocol.outbound,
            buffered_bytes: buffered(Scope::Protocol(protocol.clone())),
        };
        // Those whose last streams are at their end, with something left to be sent.
        let ended = held.keys().filter_map(|scope| match scope {
            Scope::Protocol(protocol) if !counts.protocols.contains_key(protocol) => Some(protocol),
            Scope::Protocol(_) | Scope::Peer(_) | Scope::Range(_) | Scope::Host => None,
        });
        let none = ProtocolCounts::default();
        let ended = ended.map(|name| protocol(name, &none));
        let open = counts.protocols.iter().map(|(name, of_protocol)| protocol(name, of_protocol));
        let range = |(range, of_range): (&IpRange, &RangeCounts)| RangeUsage {
            range: *range,
            connections: Used::new(
                of_range.connections,
                limits.connections_of_range(*range).0.value,
            ),
            streams_inbound: Used::new(
                of_range.streams_inbound,
                limits.streams_inbound_of_range(*range).0.value,
            ),
            streams_outbound: of_range.streams_outbound,
            buffered_bytes: buffered(Scope::Range(*range)),
        };
        let rate = |(range, owed): (IpRange, Duration)| {
            let (rate, _) = limits.rate_of(range)?;
            let max = usize::try_from(rate.burst).unwrap_or(usize::MAX);
            Some((range, Used::new(rate.used_by(owed), max)))
        };
        let mut report = UsageReport {
            host: self.usage_of(&counts, bytes(&Scope::Host)),
            peers: counts.peers.iter().map(peer).collect(),
            protocols: open.chain(ended).collect(),
            ip_ranges: counts.ranges.iter().map(range).collect(),
            ip_rates: counts.rates.used(now).filter_map(rate).collect(),
        };
        drop(counts);
        report.peers.sort_unstable_by_key(|of_peer| of_peer.peer);
        report.protocols.sort_unstable_by(|a, b| a.protocol.cmp(&b.protocol));
        report.ip_ranges.sort_unstable_by_key(|of_range| of_range.range);
        report.ip_rates.sort_unstable_by_key(|(range, _)| *range);
        report
    }
}

/// A place that a connection takes, from before its upgrade to its end. Dropping it frees it.
pub(crate) struct Place {
    ledger: Arc<Ledger>,
    kind: Kind,
    ip: Option<IpAddr>,
    /// Whose connection it is, once it is one.
    peer: Option<PeerId>,
}

impl Place {
    /// Has a dial's place stand for the address that has won, too.
    pub(crate) fn with_addr(mut self, mut addr: Self) -> Self {
        self.ip = addr.ip.take();
        self
    }

    /// What was pending is a connection to `peer` from here on.
    pub(crate) fn settle(&mut self, peer: PeerId) -> Result<(), LimitReached> {
        let (role, settled) = match self.kind {
            Kind::PendingInbound => (Role::Responder, Kind::Inbound),
            Kind::PendingOutbound => (Role::Initiator, Kind::Outbound),
            Kind::Inbound | Kind::Outbound | Kind::Dial => return Ok(()),
        };
        let mut counts = self.ledger.counts();
        if let Err(limit) = self.ledger.check_peer_of(&counts, role, &peer) {
            drop(counts);
            self.ledger.refuse(&limit);
            return Err(limit);
        }
        counts.change_peer(peer, |of_peer| of_peer.connections += 1);
        *counts.of(self.kind) -= 1;
        *counts.of(settled) += 1;
        self.kind = settled;
        self.peer = Some(peer);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.ledger.counts();
        *counts.of(self.kind) -= 1;
        counts.change_ranges(self.ip, |of_range| of_range.connections -= 1);
        if let Some(peer) = self.peer {
            counts.change_peer(peer, |of_peer| of_peer.connections -= 1);
        }
    }
}

/// On whom the streams of a connection are counted.
pub(crate) struct Account {
    ledger: Arc<Ledger>,
    peer: PeerId,
    ip: Option<IpAddr>,
}

impl Account {
    pub(crate) fn new(ledger: &Arc<Ledger>, peer: PeerId, remote: &Multiaddr) -> Arc<Self> {
        Arc::new(Self { ledger: Arc::clone(ledger), peer, ip: counted_ip(remote) })
    }

    /// The ranges that the connection's address is counted in.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = IpRange> {
        ranges(self.ip)
    }

    /// Takes a place for a stream that the peer has opened, or that is to be opened to it.
    pub(crate) fn stream(self: &Arc<Self>, role: Role) -> Result<StreamPlace, LimitReached> {
        let taken = self.ledger.take_stream(&mut self.ledger.counts(), role, self);
        taken.inspect_err(|limit| self.ledger.refuse(limit))?;
        Ok(StreamPlace { account: Arc::clone(self), role, protocol: None })
    }
}

/// A place that a stream takes, and its handler. Dropping it frees it.
pub(crate) struct StreamPlace {
    account: Arc<Account>,
    role: Role,
    protocol: Option<Arc<ProtocolId>>,
}

impl StreamPlace {
    /// Counts an outbound stream as one of its protocol, and gives the name that these share.
    pub(crate) fn outbound_of(mut self, protocol: &ProtocolId) -> (Self, ProtocolId) {
        let mut counts = self.account.ledger.counts();
        let (shared, of_protocol) = counts.of_protocol(protocol);
        of_protocol.outbound += 1;
        drop(counts);
        let name = ProtocolId::clone(&shared);
        self.protocol = Some(shared);
        (self, name)
    }

    /// The protocol that it was counted for.
    pub(crate) fn protocol(&self) -> Option<&ProtocolId> {
        self.protocol.as_deref()
    }

    /// Takes a place for an inbound stream among those of its protocol, and gives the name that these
    /// share; `None` stands for the host's limits.
    pub(crate) fn inbound_of(
        mut self,
        protocol: &ProtocolId,
        max: Option<Max>,
        of_peer_max: Option<Max>,
    ) -> Result<(Self, ProtocolId), LimitReached> {
        let Account { ledger, peer, .. } = &*self.account;
        let limits = &ledger.limits;
        let max = max.unwrap_or(Max::new(
            limits.streams_per_protocol_max,
            "Builder::streams_per_protocol_max",
        ));
        let of_peer_max = of_peer_max.unwrap_or(Max::new(
            limits.streams_per_protocol_and_peer_max,
            "Builder::streams_per_protocol_and_peer_max",
        ));
        let mut counts = ledger.counts();
        if let Err(limit) = counts.check_buffers([Scope::Protocol(protocol.clone())]) {
            drop(counts);
            ledger.refuse(&limit);
            return Err(limit);
        }
        let (shared, of_protocol) = counts.of_protocol(protocol);
        of_protocol.inbound_max = Some(max.value);
        let of_peer = of_protocol.inbound_by_peer.get(peer).copied().unwrap_or_default();
        let (count, peers) = (of_protocol.inbound, of_protocol.inbound_by_peer.len());
        let holder = || format!("{count} streams of {protocol} from {peers} peers");
        let checked = max.check(count, "inbound streams of one protocol", holder).and_then(|()| {
            let holder = || format!("{peer} for {protocol}");
            of_peer_max.check(of_peer, "inbound streams of one protocol and peer", holder)
        });
        if let Err(limit) = checked {
            counts.forget_unused(protocol);
            drop(counts);
            ledger.refuse(&limit);
            return Err(limit);
        }
        of_protocol.inbound += 1;
        *of_protocol.inbound_by_peer.entry(*peer).or_default() += 1;
        drop(counts);
        let name = ProtocolId::clone(&shared);
        self.protocol = Some(shared);
        Ok((self, name))
    }
}

impl Counts {
    fn forget_unused(&mut self, protocol: &ProtocolId) {
        let unused = |of: &ProtocolCounts| of.inbound == 0 && of.outbound == 0;
        if self.protocols.get(protocol).is_some_and(unused) {
            self.protocols.remove(protocol);
        }
    }

    /// Whether one of `scopes` held too many bytes at the last look.
    fn check_buffers(&self, scopes: impl IntoIterator<Item = Scope>) -> Result<(), LimitReached> {
        if self.overfull.is_empty() {
            return Ok(());
        }
        let limit = scopes.into_iter().find_map(|scope| self.overfull.get(&scope));
        limit.map_or(Ok(()), |limit| Err(limit.clone()))
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let Account { ledger, peer, ip } = &*self.account;
        let mut counts = ledger.counts();
        *counts.streams(self.role) -= 1;
        counts.change_peer(*peer, |of_peer| *of_peer.streams(self.role) -= 1);
        counts.change_ranges(*ip, |of_range| *of_range.streams(self.role) -= 1);
        let Some(protocol) = &self.protocol else { return };
        if let Some(of_protocol) = counts.protocols.get_mut(protocol) {
            match self.role {
                Role::Initiator => of_protocol.outbound -= 1,
                Role::Responder => {
                    of_protocol.inbound -= 1;
                    if let Some(count) = of_protocol.inbound_by_peer.get_mut(peer) {
                        *count -= 1;
                        if *count == 0 {
                            of_protocol.inbound_by_peer.remove(peer);
                        }
                    }
                }
            }
        }
        counts.forget_unused(protocol);
    }
}
