//! What happened on a network, as one number and, for those who ask, as lines.

use std::{fmt, time::Duration};

/// Takes every event as a line.
struct Sink(Box<dyn FnMut(&str) + Send>);

/// Everything that happened so far, folded into 64 bits. Not for secrets.
#[derive(Default)]
pub(super) struct Trace {
    hash: u64,
    events: u64,
    sink: Option<Sink>,
}

impl Trace {
    pub(super) fn print(&mut self, sink: impl FnMut(&str) + Send + 'static) {
        self.sink = Some(Sink(Box::new(sink)));
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// Adds one event: what it was, the numbers that describe it, and the bytes that moved.
    pub(super) fn add(
        &mut self,
        at: Duration,
        what: &'static str,
        numbers: &[u64],
        bytes: &[u8],
        text: impl FnOnce() -> String,
    ) {
        self.events += 1;
        self.fold(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX));
        self.fold_bytes(what.as_bytes());
        numbers.iter().for_each(|number| self.fold(*number));
        self.fold_bytes(bytes);
        if let Some(Sink(sink)) = &mut self.sink {
            sink(&format!("{:12.6} {what} {}", at.as_secs_f64(), text()));
        }
    }

    fn fold_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.fold(u64::from_le_bytes(word));
        }
        self.fold(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }

    /// The halves of a product, folded: every bit of the word reaches every bit of the hash.
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.hash ^ word ^ 0x2d35_8dcc_aa6c_78a5)
            * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        let [low, high] = [product, product >> 64].map(|half| half & u128::from(u64::MAX));
        let folded = u64::try_from(low ^ high).unwrap_or_default();
        self.hash = self.hash.rotate_left(23) ^ folded;
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("hash", &self.hash)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}
