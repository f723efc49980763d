//! What the streams of all connections hold, and what is done when that is too much.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use p2p_core::{ErrorCode, PeerId, ProtocolId};
use tokio::time::sleep;

use crate::{IpRange, LimitReached, connection::Conn, host::Inner, metrics::Buffered};

/// How often what is held is added up while there are connections.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whose bytes are added up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Protocol(ProtocolId),
    Peer(PeerId),
    Range(IpRange),
    Host,
}

impl Scope {
    /// The narrower are freed first: what is closed for them may be enough for the wider.
    fn breadth(&self) -> u8 {
        match self {
            Self::Peer(_) => 0,
            Self::Range(range) => 129 - range.prefix_len(),
            Self::Protocol(_) => 130,
            Self::Host => 131,
        }
    }
}

/// What the connections of a scope hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) bytes: usize,
    /// Those that hold something.
    connections: usize,
    /// The peer of the one that holds most, and how much that is.
    most: Option<(PeerId, usize)>,
}

/// What the streams of one connection hold.
struct Held {
    conn: Arc<Conn>,
    bytes: usize,
    of_protocols: BTreeMap<ProtocolId, usize>,
}

impl Held {
    fn new(conn: Arc<Conn>) -> Self {
        let (mut bytes, mut of_protocols) = (0_usize, BTreeMap::<_, usize>::new());
        conn.connection.buffered_by_protocol(&mut |protocol, len| {
            bytes = bytes.saturating_add(len);
            if let Some(protocol) = protocol.filter(|_| len > 0) {
                let of_protocol = of_protocols.entry(protocol.clone()).or_default();
                *of_protocol = of_protocol.saturating_add(len);
            }
        });
        Self { conn, bytes, of_protocols }
    }

    /// By whom these bytes are counted.
    fn parts(&self) -> impl Iterator<Item = (Scope, usize)> {
        let of_protocols = self.of_protocols.iter();
        let of_protocols = of_protocols.map(|(of, bytes)| (Scope::Protocol(of.clone()), *bytes));
        let wider = [Scope::Peer(self.conn.peer()), Scope::Host].into_iter();
        let wider = wider.chain(self.conn.account.ranges().map(Scope::Range));
        of_protocols.chain(wider.map(|scope| (scope, self.bytes)))
    }

    fn of(&self, scope: &Scope) -> usize {
        self.parts().find_map(|(of, bytes)| (of == *scope).then_some(bytes)).unwrap_or(0)
    }
}

fn sums(held: &[Held]) -> BTreeMap<Scope, Sum> {
    let mut sums: BTreeMap<Scope, Sum> = BTreeMap::new();
    for one in held {
        for (scope, bytes) in one.parts().filter(|(_, bytes)| *bytes > 0) {
            let sum = sums.entry(scope).or_default();
            sum.bytes = sum.bytes.saturating_add(bytes);
            sum.connections += 1;
            if sum.most.is_none_or(|(_, most)| most < bytes) {
                sum.most = Some((one.conn.peer(), bytes));
            }
        }
    }
    sums
}

impl Sum {
    /// Who holds it, in words.
    fn holder(&self, scope: &Scope) -> String {
        let Self { bytes, connections, most } = self;
        let most = most.map_or_else(String::new, |(peer, bytes)| format!("{bytes} by {peer}"));
        match scope {
            Scope::Host => format!("{bytes} bytes of {connections} connections, {most}"),
            Scope::Peer(peer) => format!("{bytes} bytes of {connections} connections of {peer}"),
            Scope::Range(range) => {
                format!("{bytes} bytes of {connections} connections of {range}, {most}")
            }
            Scope::Protocol(protocol) => {
                format!("{bytes} bytes of {protocol} on {connections} connections, {most}")
            }
        }
    }
}

impl Inner {
    /// How many bytes each connection's streams hold.
    pub(crate) fn buffered(&self) -> Vec<(Arc<Conn>, usize)> {
        let conns = self.registry().all();
        let weighed = |conn: Arc<Conn>| {
            let bytes = conn.connection.buffered();
            (conn, bytes)
        };
        conns.into_iter().map(weighed).collect()
    }

    /// How many bytes are held for the host and each peer, protocol and IP range.
    pub(crate) fn buffered_in_detail(&self) -> BTreeMap<Scope, Sum> {
        let conns = self.registry().all();
        sums(&conns.into_iter().map(Held::new).collect::<Vec<_>>())
    }

    /// Starts the task that looks after the buffers.
    pub(crate) fn watch_buffers(self: &Arc<Self>) {
        self.spawn(watch(Arc::clone(self)));
    }

    /// Sees who holds too much. Nothing new is taken from there; where it was too much at the last
    /// look, too, those who hold most are closed.
    fn look_at_buffers(&self, held: Vec<(Arc<Conn>, usize)>) {
        let limits = &self.config.limits;
        let mut open: Vec<_> = held.into_iter().filter(|(conn, _)| !conn.is_closing()).collect();
        if sum(&open) <= limits.buffered_least() {
            open.clear();
        }
        let held: Vec<Held> = open.into_iter().map(|(conn, _)| Held::new(conn)).collect();
        let overfull: BTreeMap<Scope, LimitReached> = sums(&held)
            .into_iter()
            .filter_map(|(scope, sum)| {
                let (max, what) = limits.buffered(&scope);
                let overfull = sum.bytes > max.value;
                overfull.then(|| (scope.clone(), max.reached(what, sum.holder(&scope))))
            })
            .collect();
        let before = self.ledger.set_overfull(overfull.clone());
        let mut overfull: Vec<_> = overfull.into_iter().collect();
        overfull.sort_by_key(|(scope, _)| scope.breadth());
        for (scope, limit) in overfull {
            if before.contains_key(&scope) {
                self.free_buffers(&held, &scope, &limit);
            }
        }
    }

    /// Closes connections of `scope`, those that hold most and are not protected first, until the
    /// others hold no more than they may.
    fn free_buffers(&self, held: &[Held], scope: &Scope, limit: &LimitReached) {
        let open = held.iter().filter(|held| !held.conn.is_closing());
        let parts = open.map(|held| (&held.conn, held.of(scope)));
        // Nothing is gained by closing one that holds nothing of it.
        let mut parts: Vec<_> = parts.filter(|(_, bytes)| *bytes > 0).collect();
        {
            let registry = self.registry();
            parts.sort_by_cached_key(|(conn, bytes)| {
                (registry.marks.is_protected(&conn.peer()), Reverse(*bytes))
            });
        }
        let mut left = parts.iter().map(|(_, bytes)| *bytes).fold(0, usize::saturating_add);
        for (conn, bytes) in parts {
            if left <= limit.value {
                return;
            }
            left = left.saturating_sub(bytes);
            tracing::debug!(peer = %conn.peer(), bytes, %limit, "closed for its buffers");
            let reason = format!("it holds {bytes} bytes: {limit}");
            conn.close(ErrorCode::CONNECTION_RESOURCE_LIMIT, &reason);
        }
    }
}

fn sum(held: &[(Arc<Conn>, usize)]) -> usize {
    held.iter().map(|(_, bytes)| *bytes).fold(0, usize::saturating_add)
}

async fn watch(host: Arc<Inner>) {
    let mut told = Buffered::new();
    loop {
        host.buffers.notified().await;
        loop {
            sleep(LOOK_EVERY).await;
            let held = host.buffered();
            let none = held.is_empty();
            told.set(sum(&held));
            host.look_at_buffers(held);
            if none {
                break;
            }
        }
    }
}
