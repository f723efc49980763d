//! Who may connect: the lists of peers and IP ranges, and the application's own judgement.

use std::{
    collections::HashSet,
    fmt,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use p2p_core::{ConnectionInfo, ErrorCode, Multiaddr, PeerId, Role};

use crate::{
    Cause, Host, LimitReached,
    host::Inner,
    ip::{IpRange, ip_of},
    metrics,
};

/// Entries of each list, of peers and of ranges.
const RULES_MAX: usize = 65_536;

/// The application's judgement of connections, from the first that is known of them to the last.
///
/// Each method may refuse with a reason, which is found in this side's errors and events as a
/// [`Denied`]; the peer is not told. By default everything is allowed. What the host's own lists
/// ([`Host::deny`], [`Host::allow`]) refuse, a gater is not asked about.
///
/// The methods are not asynchronous, and nothing waits for a slow one but the task that asks: for
/// [`Gater::accept`] that is the listener's, so that the next connection is not accepted before
/// it returns. Look things up in memory here; have another task fetch them. A method that panics
/// has refused. One that holds a handle of the host keeps it alive until [`Host::close`].
///
/// ```
/// use p2p_core::{Multiaddr, PeerId, Role};
///
/// struct Friends(std::collections::HashSet<PeerId>);
///
/// impl p2p_host::Gater for Friends {
///     fn secured(&self, _: Role, peer: &PeerId, _: &Multiaddr) -> Result<(), String> {
///         if self.0.contains(peer) { Ok(()) } else { Err("a stranger".into()) }
///     }
/// }
/// ```
pub trait Gater: Send + Sync + 'static {
    /// Before `peer` is dialed, at any address.
    ///
    /// # Errors
    /// Why not.
    fn dial_peer(&self, peer: &PeerId) -> Result<(), String> {
        let _ = peer;
        Ok(())
    }

    /// Before an address is dialed; `peer` is who is expected there.
    ///
    /// # Errors
    /// Why not.
    fn dial_addr(&self, peer: Option<&PeerId>, addr: &Multiaddr) -> Result<(), String> {
        let _ = (peer, addr);
        Ok(())
    }

    /// After a connection was accepted, before a byte of it is read.
    ///
    /// # Errors
    /// Why not.
    fn accept(&self, local: &Multiaddr, remote: &Multiaddr) -> Result<(), String> {
        let _ = (local, remote);
        Ok(())
    }

    /// After the secure channel has proven who the peer is, before the multiplexer.
    ///
    /// # Errors
    /// Why not.
    fn secured(&self, role: Role, peer: &PeerId, remote: &Multiaddr) -> Result<(), String> {
        let _ = (role, peer, remote);
        Ok(())
    }

    /// After the upgrade, before anybody can use the connection.
    ///
    /// # Errors
    /// Why not.
    fn upgraded(&self, connection: &ConnectionInfo) -> Result<(), String> {
        let _ = connection;
        Ok(())
    }
}

/// Where a connection was refused; the methods of [`Gater`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GatePoint {
    /// Before the peer was dialed.
    DialPeer,
    /// Before the address was dialed.
    DialAddr,
    /// When it was accepted.
    Accept,
    /// When the peer was known.
    Secured,
    /// After the upgrade.
    Upgraded,
}

impl fmt::Display for GatePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DialPeer => "before the peer was dialed",
            Self::DialAddr => "before the address was dialed",
            Self::Accept => "when it was accepted",
            Self::Secured => "when the peer was known",
            Self::Upgraded => "after the upgrade",
        })
    }
}

/// This side did not want the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused by this side {point}: {reason}")]
#[non_exhaustive]
pub struct Denied {
    /// Where it was refused.
    pub point: GatePoint,
    /// Why.
    pub reason: Arc<str>,
}

/// An entry of the lists of [`Host::deny`] and [`Host::allow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AccessRule {
    /// A peer, wherever it is.
    Peer(PeerId),
    /// Every address of a range, whoever is there.
    Ip(IpRange),
}

impl From<PeerId> for AccessRule {
    fn from(peer: PeerId) -> Self {
        Self::Peer(peer)
    }
}

impl From<IpRange> for AccessRule {
    fn from(range: IpRange) -> Self {
        Self::Ip(range)
    }
}

impl From<IpAddr> for AccessRule {
    fn from(addr: IpAddr) -> Self {
        Self::Ip(addr.into())
    }
}

impl fmt::Display for AccessRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => peer.fmt(f),
            Self::Ip(range) => range.fmt(f),
        }
    }
}

impl AccessRule {
    pub(crate) fn matches(&self, connection: &ConnectionInfo) -> bool {
        match self {
            Self::Peer(peer) => connection.peer() == *peer,
            Self::Ip(range) => ip_of(connection.remote()).is_some_and(|ip| range.contains(ip)),
        }
    }
}

/// The lists of a host.
#[derive(Debug, Default)]
pub(crate) struct Access {
    denied: Rules,
    allowed: Rules,
    /// There was an entry among the allowed ones, so only they are.
    only_peers: bool,
    only_ranges: bool,
}

#[derive(Debug, Default)]
struct Rules {
    peers: HashSet<PeerId>,
    ranges: HashSet<IpRange>,
}

impl Rules {
    fn insert(&mut self, rule: AccessRule, what: &'static str) -> Result<(), LimitReached> {
        let (known, count) = match &rule {
            AccessRule::Peer(peer) => (self.peers.contains(peer), self.peers.len()),
            AccessRule::Ip(range) => (self.ranges.contains(range), self.ranges.len()),
        };
        if !known && count >= RULES_MAX {
            let holder = "the application".into();
            return Err(LimitReached { what, value: RULES_MAX, holder, setting: None });
        }
        match rule {
            AccessRule::Peer(peer) => self.peers.insert(peer),
            AccessRule::Ip(range) => self.ranges.insert(range),
        };
        Ok(())
    }

    fn remove(&mut self, rule: &AccessRule) -> bool {
        match rule {
            AccessRule::Peer(peer) => self.peers.remove(peer),
            AccessRule::Ip(range) => self.ranges.remove(range),
        }
    }

    /// The widest range that the address is in.
    fn range_of(&self, ip: IpAddr) -> Option<IpRange> {
        if self.ranges.is_empty() {
            return None;
        }
        (0..=128).map(|len| IpRange::cut(ip, len)).find(|range| self.ranges.contains(range))
    }
}

impl Access {
    pub(crate) fn deny(&mut self, rule: AccessRule) -> Result<(), LimitReached> {
        self.denied.insert(rule, "entries of the deny list")
    }

    pub(crate) fn allow(&mut self, rule: AccessRule) -> Result<(), LimitReached> {
        self.allowed.insert(rule, "entries of the allow list")?;
        match rule {
            AccessRule::Peer(_) => self.only_peers = true,
            AccessRule::Ip(_) => self.only_ranges = true,
        }
        Ok(())
    }

    /// What the lists say of as much of a connection as is known.
    pub(crate) fn check(
        &self,
        point: GatePoint,
        peer: Option<&PeerId>,
        addr: Option<&Multiaddr>,
    ) -> Result<(), Denied> {
        let reason = peer.and_then(|peer| self.check_peer(peer));
        let reason = reason.or_else(|| addr.and_then(|addr| self.check_addr(addr)));
        reason.map_or(Ok(()), |reason| Err(Denied { point, reason: reason.into() }))
    }

    fn check_peer(&self, peer: &PeerId) -> Option<String> {
        if self.denied.peers.contains(peer) {
            return Some(format!("{peer} is on the deny list"));
        }
        let missing = self.only_peers && !self.allowed.peers.contains(peer);
        missing.then(|| format!("{peer} is not on the allow list"))
    }

    fn check_addr(&self, addr: &Multiaddr) -> Option<String> {
        let Some(ip) = ip_of(addr) else {
            return self.only_ranges.then(|| format!("{addr} is in no range of the allow list"));
        };
        if let Some(range) = self.denied.range_of(ip) {
            return Some(format!("{ip} is in {range}, which is on the deny list"));
        }
        let missing = self.only_ranges && self.allowed.range_of(ip).is_none();
        missing.then(|| format!("{ip} is in no range of the allow list"))
    }
}

impl Inner {
    /// Asks the lists and the gater; the two name the same connection.
    pub(crate) fn gate(
        &self,
        point: GatePoint,
        peer: Option<&PeerId>,
        addr: Option<&Multiaddr>,
        ask: impl FnOnce(&dyn Gater) -> Result<(), String>,
    ) -> Result<(), Denied> {
        let listed = self.registry().access.check(point, peer, addr);
        let asked = listed.and_then(|()| {
            let Some(gater) = self.gater() else { return Ok(()) };
            let answer = catch_unwind(AssertUnwindSafe(|| ask(&*gater)));
            let answer = answer.unwrap_or_else(|_| Err("the gater panicked".into()));
            answer.map_err(|reason| Denied { point, reason: reason.into() })
        });
        asked.inspect_err(|_| {
            self.ledger.refused();
            metrics::denied();
        })
    }

    /// What can be said of a connection once its peer is known.
    pub(crate) fn may_secure(
        &self,
        role: Role,
        peer: &PeerId,
        remote: &Multiaddr,
    ) -> Result<(), Cause> {
        self.gate(GatePoint::Secured, Some(peer), Some(remote), |gater| {
            gater.secured(role, peer, remote)
        })?;
        Ok(self.ledger.check_peer(role, peer)?)
    }
}

impl Host {
    /// Has nothing to do with a peer, or with the addresses of an IP range, from now on: they are
    /// neither dialed nor accepted, and their connections are closed. Says how many those were.
    /// The deny list outweighs the allow list.
    ///
    /// A range is looked for in the address that a link goes to or comes from: for a relayed one
    /// that is the relay's. What is dialed by a name shows no IP address.
    ///
    /// # Errors
    /// [`LimitReached`] beyond 65,536 peers or 65,536 ranges, which take some 8 MiB together.
    pub fn deny(&self, rule: impl Into<AccessRule>) -> Result<usize, LimitReached> {
        let rule = rule.into();
        let conns = {
            // Under one lock: no connection is registered between the rule and the look.
            let mut registry = self.inner.registry();
            registry.access.deny(rule)?;
            registry.open().filter(|conn| rule.matches(conn.info())).cloned().collect::<Vec<_>>()
        };
        for conn in &conns {
            conn.close(ErrorCode::CONNECTION_GATED, &format!("{rule} was denied"));
        }
        Ok(conns.len())
    }

    /// Takes an entry off the deny list; false when it was not there. A range is taken off as it
    /// was put there.
    pub fn undeny(&self, rule: impl Into<AccessRule>) -> bool {
        self.inner.registry().access.denied.remove(&rule.into())
    }

    /// Puts a peer or a range on the allow list. From the first peer on, only peers on the list
    /// are connected to; from the first range on, only addresses in a range on it, and none that
    /// has no IP address. That holds also when the list has become empty again. Connections that
    /// there are stay.
    ///
    /// # Errors
    /// As [`Host::deny`].
    pub fn allow(&self, rule: impl Into<AccessRule>) -> Result<(), LimitReached> {
        self.inner.registry().access.allow(rule.into())
    }

    /// Takes an entry off the allow list; false when it was not there. Its connections stay: see
    /// [`Host::disconnect`].
    pub fn unallow(&self, rule: impl Into<AccessRule>) -> bool {
        self.inner.registry().access.allowed.remove(&rule.into())
    }
}
