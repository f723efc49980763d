//! What the tests of several files share.

use crate::Keypair;

/// The Ed25519 private key of the specification's test vectors.
pub(crate) const PRIVATE: &str = "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da\
                                  60fee7d1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474\
                                  fce27e";

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16).expect("a hex digit")).collect();
    digits.chunks(2).map(|pair| u8::try_from(16 * pair[0] + pair[1]).expect("a byte")).collect()
}

pub(crate) fn vector_key() -> Keypair {
    Keypair::from_protobuf(&hex(PRIVATE)).expect("valid")
}

pub(crate) fn other_key() -> Keypair {
    Keypair::from_ed25519_seed(&[7; 32])
}

/// SplitMix64: the same bytes in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).expect("fits")).expect("fits")
    }

    /// Between no and `len_max` bytes.
    pub(crate) fn bytes(&mut self, len_max: usize) -> Vec<u8> {
        let len = self.below(len_max + 1);
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}
