use std::{fmt, time::Duration};

use serde_json::{Value, json};

/// Round trips that were measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoundTrips(Vec<Duration>);

impl RoundTrips {
    pub(crate) fn push(&mut self, round_trip: Duration) {
        self.0.push(round_trip);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// `None` when nothing was measured.
    pub(crate) fn spread(&self) -> Option<Spread> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Spread { min, median: (low + high) / 2, max })
    }
}

/// The least, the middle and the greatest of several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    min: Duration,
    median: Duration,
    max: Duration,
}

impl Spread {
    pub(crate) fn fields(&self) -> [(&'static str, Value); 3] {
        [
            ("min_us", micros(self.min)),
            ("median_us", micros(self.median)),
            ("max_us", micros(self.max)),
        ]
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, median, max } = *self;
        write!(f, "min {}, median {}, max {}", millis(min), millis(median), millis(max))
    }
}

/// Whole microseconds, for JSON.
pub(crate) fn micros(time: Duration) -> Value {
    json!(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

/// Milliseconds, for people.
pub(crate) fn millis(time: Duration) -> impl fmt::Display {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = |times: &[u64]| {
            let mut trips = RoundTrips::default();
            times.iter().for_each(|time| trips.push(Duration::from_micros(*time)));
            trips.spread().map(|s| [s.min, s.median, s.max].map(|time| time.as_micros()))
        };
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[7]), Some([7, 7, 7]));
        assert_eq!(spread(&[30, 10, 20]), Some([10, 20, 30]));
        assert_eq!(spread(&[40, 10, 20, 30]), Some([10, 25, 40]));
    }
}
