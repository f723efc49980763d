//! Numbers that a seed determines, for tests inside and outside of the crate.
#![allow(dead_code, reason = "each test uses a part")]

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// True once in `one_in` times.
    pub(crate) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// One of them.
    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Runs `work` with the seeds from 0 to `count`, or with `P2P_SEED` alone, and names the one that
/// fails.
pub(crate) fn for_seeds(count: u64, work: impl Fn(u64) + std::panic::RefUnwindSafe) {
    if let Ok(seed) = std::env::var("P2P_SEED") {
        return work(seed.parse().expect("P2P_SEED is a number"));
    }
    for seed in 0..count {
        let result = std::panic::catch_unwind(|| work(seed));
        assert!(result.is_ok(), "seed {seed} fails: P2P_SEED={seed} runs it alone");
    }
}
