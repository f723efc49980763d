//! How often something may happen: so many times in a row, and then once in an interval.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// Longer than anything lasts.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);

/// So many in a row, and then one in each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) interval: Duration,
}

/// What each of some keys has used up of a rate. Of no more keys than a number: the one that has
/// used the least makes room for another.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    /// When each will have paid for what it has used.
    paid: HashMap<K, Instant>,
    keys_max: usize,
}

impl<K: Copy + Eq + Hash + Ord> Rates<K> {
    pub(crate) fn new(keys_max: usize) -> Self {
        Self { paid: HashMap::new(), keys_max }
    }

    /// Counts one more of `key`; false when it is one too many.
    pub(crate) fn admit(&mut self, key: K, rate: Rate, now: Instant) -> bool {
        let admitted = self.check(&key, rate, now).is_ok();
        if admitted {
            self.count(key, rate, now);
        }
        admitted
    }

    /// Whether `key` may have one more, or how long until then.
    pub(crate) fn check(&self, key: &K, rate: Rate, now: Instant) -> Result<(), Duration> {
        let Some(others) = rate.burst.checked_sub(1) else { return Err(FOR_EVER) };
        let free = rate.interval.saturating_mul(others);
        match self.owed(key, now).checked_sub(free) {
            Some(wait) if !wait.is_zero() => Err(wait),
            Some(_) | None => Ok(()),
        }
    }

    /// Counts one more of `key`, whether or not it may.
    pub(crate) fn count(&mut self, key: K, rate: Rate, now: Instant) {
        if self.paid.len() >= self.keys_max && !self.paid.contains_key(&key) {
            self.paid.retain(|_, paid| *paid > now);
            let least = self.paid.iter().map(|(key, paid)| (*paid, *key)).min().map(|(_, key)| key);
            if let Some(least) = least.filter(|_| self.paid.len() >= self.keys_max) {
                self.paid.remove(&least);
            }
        }
        let owed = self.owed(&key, now).saturating_add(rate.interval).min(FOR_EVER);
        self.paid.insert(key, now + owed);
    }

    /// How many each of the keys has used of its rate, without those that have paid.
    pub(crate) fn used(&self, now: Instant) -> impl Iterator<Item = (K, Duration)> {
        self.paid
            .keys()
            .map(move |key| (*key, self.owed(key, now)))
            .filter(|(_, owed)| !owed.is_zero())
    }

    fn owed(&self, key: &K, now: Instant) -> Duration {
        self.paid.get(key).map_or(Duration::ZERO, |paid| paid.saturating_duration_since(now))
    }
}

impl Rate {
    /// How many of the burst are used up by one that owes so much time.
    pub(crate) fn used_by(self, owed: Duration) -> usize {
        let interval = self.interval.as_nanos().max(1);
        usize::try_from(owed.as_nanos().div_ceil(interval)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Rate = Rate { burst: 10, interval: Duration::from_secs(5) };

    #[tokio::test(start_paused = true)]
    async fn ipush_05_ten_in_a_row_and_then_one_in_five_seconds() {
        let (mut rates, now) = (Rates::new(1024), Instant::now());
        for used in 1..=10 {
            assert!(rates.admit(1, TEN, now));
            let (_, owed) = rates.used(now).next().unwrap();
            assert_eq!(TEN.used_by(owed), used);
        }
        assert!(!rates.admit(1, TEN, now));
        assert_eq!(rates.check(&1, TEN, now), Err(TEN.interval));
        assert!(rates.admit(2, TEN, now), "each for itself");
        let later = now + TEN.interval;
        assert!(!rates.admit(1, TEN, later - Duration::from_millis(1)));
        assert!(rates.admit(1, TEN, later));
        assert!(!rates.admit(1, TEN, later));
        let rested = later + TEN.interval * 100;
        assert_eq!((0..20).filter(|_| rates.admit(1, TEN, rested)).count(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn ipush_05_the_number_of_groups_is_bounded_and_the_quietest_makes_room() {
        let (mut rates, now) = (Rates::new(1024), Instant::now());
        for _ in 0..10 {
            assert!(rates.admit(0, TEN, now));
        }
        for number in 1..5000 {
            assert!(rates.admit(number, TEN, now));
        }
        assert_eq!(rates.paid.len(), 1024);
        assert!(!rates.admit(0, TEN, now), "the busiest was forgotten");
        assert!(rates.admit(9999, TEN, now + TEN.interval * 50));
        assert_eq!(rates.paid.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn rates_without_a_limit_or_without_an_allowance_are_no_trap() {
        let (mut rates, now) = (Rates::new(8), Instant::now());
        let never = Rate { burst: 0, interval: Duration::ZERO };
        assert!(!rates.admit(1, never, now));
        let endless = Rate { burst: u32::MAX, interval: Duration::MAX };
        let free = Rate { burst: 1, interval: Duration::ZERO };
        for _ in 0..100 {
            assert!(rates.admit(2, endless, now));
            assert!(rates.admit(3, free, now));
        }
    }
}
