//! A value whose changes tasks wait for.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// A value behind a lock. Those who wait are woken in the order in which they came, unlike those
/// of tokio's `watch`: a simulation takes the same course in every run.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    pub(crate) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the value, and has those look at it who wait.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
        result
    }

    /// Waits until `pick` finds something in the value.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn wait<R>(&self, pick: impl Fn(&T) -> Option<R>) -> R {
        loop {
            // It sees changes from here on, those before it is awaited too.
            let changed = self.changed.notified();
            if let Some(picked) = self.look(&pick) {
                return picked;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_came() {
        let value = Arc::new(Watched::new(0));
        let woken: Arc<Mutex<Vec<u32>>> = Arc::default();
        let tasks: Vec<_> = (0..32)
            .map(|number| {
                let (value, woken) = (Arc::clone(&value), Arc::clone(&woken));
                tokio::spawn(async move {
                    let picked = value.wait(|value| (*value > 1).then_some(*value)).await;
                    woken.lock().unwrap().push(number);
                    picked
                })
            })
            .collect();
        tokio::task::yield_now().await;
        value.change(|value| *value = 1);
        tokio::task::yield_now().await;
        value.change(|value| *value = 2);
        for task in tasks {
            assert_eq!(task.await.unwrap(), 2);
        }
        assert_eq!(*woken.lock().unwrap(), (0..32).collect::<Vec<_>>());
    }
}
