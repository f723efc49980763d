//! Closing the connections that are worth least when there are too many (CONN-22).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use p2p_core::{ErrorCode, PeerId};
use tokio::time::{Instant, sleep};

use crate::{
    Host, LimitReached,
    connection::Conn,
    host::{Inner, Registry},
    ledger::Max,
};

/// The time between two looks while there are too many connections.
const TRIM_EVERY: Duration = Duration::from_secs(10);
/// Tags of one peer, and protections of it.
const MARKS_OF_PEER_MAX: usize = 16;
/// Length of the name of a tag or protection, in bytes.
const NAME_LEN_MAX: usize = 64;

/// When connections are closed to make room; see [`Builder`](crate::Builder).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watermarks {
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) grace: Duration,
}

/// What the application has said of its peers.
#[derive(Debug, Default)]
pub(crate) struct Marks(HashMap<PeerId, MarksOfPeer>);

#[derive(Debug, Default)]
struct MarksOfPeer {
    tags: HashMap<Box<str>, i32>,
    protections: HashSet<Box<str>>,
}

impl Marks {
    fn of(
        &mut self,
        peer: &PeerId,
        name: &str,
        peers_max: usize,
    ) -> Result<&mut MarksOfPeer, LimitReached> {
        let holder = || format!("a name of {}", name.len());
        let len = name.len().saturating_sub(1);
        Max::fixed(NAME_LEN_MAX).check(len, "bytes of a tag's name", holder)?;
        if !self.0.contains_key(peer) {
            let holder = || "the application".into();
            let max = Max::new(peers_max, "Builder::tagged_peers_max");
            max.check(self.0.len(), "tagged or protected peers", holder)?;
        }
        Ok(self.0.entry(*peer).or_default())
    }

    fn forget_unmarked(&mut self, peer: &PeerId) {
        let unmarked = |of: &MarksOfPeer| of.tags.is_empty() && of.protections.is_empty();
        if self.0.get(peer).is_some_and(unmarked) {
            self.0.remove(peer);
        }
    }

    fn value(&self, peer: &PeerId) -> i64 {
        self.0.get(peer).map_or(0, |of| of.tags.values().copied().map(i64::from).sum())
    }

    pub(crate) fn is_protected(&self, peer: &PeerId) -> bool {
        self.0.get(peer).is_some_and(|of| !of.protections.is_empty())
    }
}

impl MarksOfPeer {
    fn tag(&mut self, peer: &PeerId, name: &str, value: i32) -> Result<(), LimitReached> {
        if !self.tags.contains_key(name) {
            let count = self.tags.len();
            Max::fixed(MARKS_OF_PEER_MAX).check(count, "tags of one peer", || peer.to_string())?;
        }
        self.tags.insert(name.into(), value);
        Ok(())
    }

    fn protect(&mut self, peer: &PeerId, name: &str) -> Result<(), LimitReached> {
        if !self.protections.contains(name) {
            let (count, max) = (self.protections.len(), Max::fixed(MARKS_OF_PEER_MAX));
            max.check(count, "protections of one peer", || peer.to_string())?;
        }
        self.protections.insert(name.into());
        Ok(())
    }
}

impl Registry {
    /// The connections to be closed, those worth least first; `None` when there are not too many,
    /// and then nobody looks any more.
    fn surplus(&mut self, marks: &Watermarks, now: Instant) -> Option<(usize, Vec<Arc<Conn>>)> {
        let count = self.open().count();
        if count <= marks.high {
            self.trimming = false;
            return None;
        }
        let may_go = |conn: &&Arc<Conn>| {
            now.saturating_duration_since(conn.begun) >= marks.grace
                && !conn.is_kept()
                && !self.marks.is_protected(&conn.peer())
        };
        let worth = |conn: &Arc<Conn>| {
            let (streams, since) = conn.use_of();
            (self.marks.value(&conn.peer()), streams, since, conn.id)
        };
        let mut surplus: Vec<Arc<Conn>> = self.open().filter(may_go).cloned().collect();
        surplus.sort_by_cached_key(worth);
        surplus.truncate(count.saturating_sub(marks.low.min(marks.high)));
        Some((count, surplus))
    }
}

impl Inner {
    /// Has connections closed when there are too many; one task looks after that.
    pub(crate) fn trim_if_needed(self: &Arc<Self>) {
        if self.ledger.connections() <= self.config.watermarks.high {
            return;
        }
        let begun = std::mem::replace(&mut self.registry().trimming, true);
        if !begun {
            self.spawn(trim(Arc::clone(self)));
        }
    }
}

async fn trim(host: Arc<Inner>) {
    let marks = host.config.watermarks;
    loop {
        let Some((count, surplus)) = host.registry().surplus(&marks, Instant::now()) else {
            return;
        };
        let high = marks.high;
        let reason = format!(
            "trimmed: {count} connections are more than {high}, raise it with \
             `Builder::connections_watermarks`"
        );
        tracing::debug!(count, trimmed = surplus.len(), "trim");
        for conn in surplus {
            conn.close(ErrorCode::CONNECTION_GARBAGE_COLLECTED, &reason);
        }
        sleep(TRIM_EVERY).await;
    }
}

impl Host {
    /// Says that connections to a peer are worth `value`, in the sense of `name`. When there are
    /// too many connections ([`Builder::connections_watermarks`]), those are closed first whose
    /// peers' tags have the least sum; without tags it is 0. Tags may be negative, are replaced
    /// under the same name, and outlive connections.
    ///
    /// # Errors
    /// [`LimitReached`] beyond [`Builder::tagged_peers_max`] peers, 16 tags of one peer, or 64
    /// bytes of name.
    ///
    /// [`Builder::connections_watermarks`]: crate::Builder::connections_watermarks
    /// [`Builder::tagged_peers_max`]: crate::Builder::tagged_peers_max
    pub fn tag(&self, peer: &PeerId, name: &str, value: i32) -> Result<(), LimitReached> {
        let peers_max = self.inner.config.tagged_peers_max;
        self.inner.registry().marks.of(peer, name, peers_max)?.tag(peer, name, value)
    }

    /// Takes a tag off a peer; false when it was not there.
    pub fn untag(&self, peer: &PeerId, name: &str) -> bool {
        let marks = &mut self.inner.registry().marks;
        let removed = marks.0.get_mut(peer).and_then(|of| of.tags.remove(name)).is_some();
        marks.forget_unmarked(peer);
        removed
    }

    /// Has no connection to a peer closed to make room, until [`Host::unprotect`] is called with
    /// every name that this was called with. They are closed as idle all the same: see
    /// [`Host::keep_alive`].
    ///
    /// # Errors
    /// As [`Host::tag`], with 16 protections of one peer.
    pub fn protect(&self, peer: &PeerId, name: &str) -> Result<(), LimitReached> {
        let peers_max = self.inner.config.tagged_peers_max;
        self.inner.registry().marks.of(peer, name, peers_max)?.protect(peer, name)
    }

    /// Takes a protection off a peer; false when it was not there.
    pub fn unprotect(&self, peer: &PeerId, name: &str) -> bool {
        let marks = &mut self.inner.registry().marks;
        let removed = marks.0.get_mut(peer).is_some_and(|of| of.protections.remove(name));
        marks.forget_unmarked(peer);
        removed
    }
}
