//! Where a host's randomness and date come from.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// Gives the date.
pub(crate) type Date = Box<dyn Fn() -> SystemTime + Send + Sync>;

/// The system, or a simulation.
#[derive(Default)]
pub(crate) enum World {
    #[default]
    System,
    Simulated {
        random: Mutex<u64>,
        date: Date,
    },
}

impl World {
    pub(crate) fn simulated(seed: u64, date: Date) -> Self {
        Self::Simulated { random: Mutex::new(seed), date }
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) -> Result<(), getrandom::Error> {
        let random = match self {
            Self::System => return getrandom::fill(bytes),
            Self::Simulated { random, .. } => random,
        };
        let mut state = random.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            let number = split_mix(&mut state).to_le_bytes();
            chunk.iter_mut().zip(number).for_each(|(byte, random)| *byte = random);
        }
        Ok(())
    }

    pub(crate) fn date(&self) -> SystemTime {
        match self {
            Self::System => SystemTime::now(),
            Self::Simulated { date, .. } => date(),
        }
    }
}

/// SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Simulated { .. } => "Simulated",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_in_every_run_and_others_each_time() {
        let world = |seed| World::simulated(seed, Box::new(|| SystemTime::UNIX_EPOCH));
        let bytes = |world: &World| {
            let mut bytes = [0; 13];
            world.fill(&mut bytes).expect("seeded");
            bytes
        };
        let (one, other) = (world(1), world(2));
        let first = bytes(&one);
        assert_ne!(bytes(&one), first);
        assert_eq!(bytes(&world(1)), first);
        assert_ne!(bytes(&other), first);
        assert_eq!(one.date(), SystemTime::UNIX_EPOCH);
    }
}
