use std::time::Instant;

/// An allowance that refills with time.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u32,
    max: u32,
    per_second: u32,
    refilled_at: Instant,
}

impl Budget {
    /// Allows `max` at once, and `per_second` over time.
    pub(crate) fn new(max: u32, per_second: u32, now: Instant) -> Self {
        Self { left: max, max, per_second, refilled_at: now }
    }

    /// Takes one. False when nothing is left.
    pub(crate) fn spend(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        let earned = elapsed.as_millis().saturating_mul(self.per_second.into()) / 1000;
        let earned = u32::try_from(earned).unwrap_or(self.max);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(self.max);
            self.refilled_at = now;
        }
        let spent = self.left.checked_sub(1);
        self.left = spent.unwrap_or(0);
        spent.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_spent_comes_back_with_time_up_to_the_most() {
        let mut now = Instant::now();
        let mut budget = Budget::new(3, 10, now);
        let mut left =
            |now| std::iter::repeat_with(|| budget.spend(now)).take_while(|x| *x).count();
        assert_eq!(left(now), 3);
        now += Duration::from_millis(99);
        assert_eq!(left(now), 0);
        now += Duration::from_millis(101);
        assert_eq!(left(now), 2);
        now += Duration::from_secs(1_000_000_000);
        assert_eq!(left(now), 3);
    }
}
