//! Addresses that have failed are left alone for a while (CONN-36).

use std::{collections::HashMap, time::Duration};

use p2p_core::{Multiaddr, PeerId};
use tokio::time::Instant;

/// How long an address is left alone after its first failure.
const FIRST: Duration = Duration::from_secs(5);
/// What is added for each failure in a row, times their square.
const STEP: Duration = Duration::from_secs(1);
/// The longest that an address is left alone.
const LONGEST: Duration = Duration::from_secs(300);
/// Addresses that are remembered; the one that is due first makes room for another.
const ENTRIES_MAX: usize = 1024;

type Key = (Option<PeerId>, Multiaddr);

/// The addresses that have failed of late.
#[derive(Debug, Default)]
pub(crate) struct Backoff(HashMap<Key, Failed>);

#[derive(Debug)]
struct Failed {
    tries: u32,
    until: Instant,
}

impl Backoff {
    /// How long the address is still left alone.
    pub(crate) fn left(
        &self,
        peer: Option<PeerId>,
        addr: &Multiaddr,
        now: Instant,
    ) -> Option<Duration> {
        let failed = self.0.get(&(peer, addr.clone()))?;
        failed.until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    pub(crate) fn failed(&mut self, peer: Option<PeerId>, addr: &Multiaddr, now: Instant) {
        let key = (peer, addr.clone());
        if self.0.len() >= ENTRIES_MAX && !self.0.contains_key(&key) {
            let first = self
                .0
                .iter()
                .min_by_key(|((peer, addr), failed)| (failed.until, *peer, addr.as_ref()));
            if let Some(first) = first.map(|(key, _)| key.clone()) {
                self.0.remove(&first);
            }
        }
        let failed = self.0.entry(key).or_insert(Failed { tries: 0, until: now });
        let wait = match failed.tries {
            0 => FIRST,
            tries => FIRST.saturating_add(STEP.saturating_mul(tries.saturating_mul(tries))),
        };
        failed.tries = failed.tries.saturating_add(1);
        failed.until = now + wait.min(LONGEST);
    }

    /// Forgets what failed of a peer that there is a connection to now.
    pub(crate) fn succeeded(&mut self, peer: PeerId, addr: &Multiaddr) {
        self.0.retain(|(of, failed), _| *of != Some(peer) && failed != addr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: usize) -> Multiaddr {
        format!("/ip4/1.2.3.4/tcp/{port}").parse().expect("valid")
    }

    #[tokio::test(start_paused = true)]
    async fn conn_36_waits_grow_with_the_square_of_the_tries_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        assert_eq!(backoff.left(None, &addr(1), now), None);
        for seconds in [5, 6, 9, 14, 21, 30] {
            backoff.failed(None, &addr(1), now);
            assert_eq!(backoff.left(None, &addr(1), now), Some(Duration::from_secs(seconds)));
        }
        for _ in 0..100_000 {
            backoff.failed(None, &addr(1), now);
        }
        assert_eq!(backoff.left(None, &addr(1), now), Some(LONGEST));
        assert_eq!(backoff.left(None, &addr(1), now + LONGEST), None);
        assert_eq!(backoff.left(None, &addr(2), now), None, "each address for itself");
    }

    #[tokio::test(start_paused = true)]
    async fn conn_36_a_connection_clears_what_failed_of_its_peer() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        let peer = |seed| p2p_core::Keypair::from_ed25519_seed(&[seed; 32]).public().peer_id();
        for number in [1, 2] {
            backoff.failed(Some(peer(1)), &addr(number), now);
            backoff.failed(Some(peer(2)), &addr(number), now);
        }
        backoff.succeeded(peer(1), &addr(9));
        assert_eq!(backoff.left(Some(peer(1)), &addr(1), now), None);
        assert_eq!(backoff.left(Some(peer(1)), &addr(2), now), None);
        assert!(backoff.left(Some(peer(2)), &addr(1), now).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_entries_is_bounded_and_the_oldest_goes_first() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        for port in 0..=ENTRIES_MAX {
            backoff.failed(None, &addr(port), now + Duration::from_millis(port as u64));
        }
        assert_eq!(backoff.0.len(), ENTRIES_MAX);
        assert_eq!(backoff.left(None, &addr(0), now), None);
        assert!(backoff.left(None, &addr(1), now).is_some());
    }
}
