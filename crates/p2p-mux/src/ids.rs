//! Hashing of stream ids: the tables of a connection are looked at several times for each frame.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashers with a secret of the table's own. The peer chooses half of the ids; what it could
/// gain without the secret is little, since a table is as small as the limit of streams.
#[derive(Clone, Debug)]
pub(crate) struct IdHashes {
    secret: u64,
}

impl Default for IdHashes {
    fn default() -> Self {
        Self { secret: RandomState::new().hash_one(()) }
    }
}

impl BuildHasher for IdHashes {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher(self.secret)
    }
}

/// Mixes one number by a multiplication whose halves are folded: a tenth of SipHash's time.
#[derive(Debug)]
pub(crate) struct IdHasher(u64);

impl IdHasher {
    /// 2^64 divided by the golden ratio, as an odd number: its multiples are spread evenly.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * u128::from(Self::FACTOR);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables take the low bits for the place and the high ones for a first comparison.
    #[test]
    fn neighbouring_ids_are_spread_over_low_and_high_bits() {
        let hashes = IdHashes::default();
        let (mut low, mut high) = ([0; 64], [0; 64]);
        for id in (1..2 * 6400_u32).step_by(2) {
            let hash = hashes.hash_one(id);
            low[usize::try_from(hash % 64).expect("below 64")] += 1;
            high[usize::try_from(hash >> 58).expect("below 64")] += 1;
        }
        let most = low.iter().chain(&high).max();
        assert!(most < Some(&200), "100 on average, at most {most:?}");
    }
}
