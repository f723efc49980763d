//! Streams that both halves of this side are done with, and whose peer has not ended them.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

use crate::ids::IdHashes;

/// How long such a stream waits for the peer's end, from the first look at the clock after that.
const LINGER: Duration = Duration::from_secs(30);
/// Entries of streams that are gone, in a queue of streams, that are not worth a clean-up.
const QUEUE_SLACK: usize = 64;

/// The streams that wait, those that have waited longest first.
#[derive(Debug)]
pub(crate) struct Lingering<K> {
    due: VecDeque<(Instant, K)>,
    /// Those that begin to wait as soon as the time is known.
    released: Vec<K>,
}

impl<K: Copy + Eq + Hash> Lingering<K> {
    pub(crate) fn new() -> Self {
        Self { due: VecDeque::new(), released: Vec::new() }
    }

    pub(crate) fn begin(&mut self, id: K) {
        self.released.push(id);
    }

    pub(crate) fn look_at_clock<S>(&mut self, now: Instant, streams: &HashMap<K, S, IdHashes>) {
        for id in self.released.drain(..) {
            self.due.push_back((now + LINGER, id));
        }
        prune(&mut self.due, streams, |(_, id)| *id);
    }

    /// The next one that has waited long enough.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        pop_due(&mut self.due, now)
    }

    /// When to look at the clock next, given the last look.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let released = (!self.released.is_empty()).then_some(now);
        released.or_else(|| self.due.front().map(|(due, _)| *due))
    }

    /// Gives back memory that is kept for later.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.due.shrink_to_fit();
        self.released.shrink_to_fit();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.due.len() + self.released.len()
    }
}

/// The first entry of a queue in the order of time, if it is due.
pub(crate) fn pop_due<K>(queue: &mut VecDeque<(Instant, K)>, now: Instant) -> Option<K> {
    queue.front().filter(|(due, _)| *due <= now)?;
    queue.pop_front().map(|(_, id)| id)
}

/// Drops the entries of streams that are gone, once they outnumber the others.
pub(crate) fn prune<T, K: Eq + Hash, S>(
    queue: &mut VecDeque<T>,
    streams: &HashMap<K, S, IdHashes>,
    id: impl Fn(&T) -> K,
) {
    if queue.len() > 2 * streams.len() + QUEUE_SLACK {
        queue.retain(|entry| streams.contains_key(&id(entry)));
    }
}
