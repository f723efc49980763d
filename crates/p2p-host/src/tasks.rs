//! The tasks of a host. Each of them is known, so that all end with it, and takes little more memory
//! than what it runs: a connection may have thousands of streams.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{runtime::Handle, sync::Notify, task::AbortHandle};

/// Memory for tasks that have ended is given back when so many times fewer are left.
const SHRINK_FACTOR: usize = 8;

#[derive(Clone, Default)]
pub(crate) struct Tasks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The last one has ended.
    none_left: Notify,
}

#[derive(Default)]
struct State {
    /// Those that run, with what ends them where they are to be ended.
    running: HashMap<u64, Option<AbortHandle>>,
    next: u64,
    ended: bool,
}

/// A task that runs. It holds this until it is dropped.
pub(crate) struct Running {
    tasks: Tasks,
    id: u64,
}

impl Tasks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a task that ends by itself.
    pub(crate) fn begin(&self) -> Running {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.running.insert(id, None);
        drop(state);
        Running { tasks: self.clone(), id }
    }

    /// Spawns a task that is dropped where it stands when the host ends. What it holds to its end is
    /// given to `make`.
    pub(crate) fn spawn<F>(&self, runtime: &Handle, make: impl FnOnce(Running) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = self.begin();
        let id = running.id;
        let task = runtime.spawn(make(running)).abort_handle();
        let mut state = self.state();
        if state.ended {
            drop(state);
            task.abort();
        } else if let Some(end) = state.running.get_mut(&id) {
            *end = Some(task);
        }
    }

    /// Drops all tasks where they stand, but those that end by themselves.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        let taken = state.running.iter_mut().filter_map(|(id, end)| Some((*id, end.take()?)));
        let mut tasks: Vec<_> = taken.collect();
        drop(state);
        // In the same order in every run of a simulation.
        tasks.sort_unstable_by_key(|(id, _)| *id);
        for (_, task) in tasks {
            task.abort();
        }
    }

    /// Waits until none is left.
    pub(crate) async fn wait(&self) {
        loop {
            let none_left = self.0.none_left.notified();
            if self.len() == 0 {
                return;
            }
            none_left.await;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.state().running.len()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.tasks.state();
        let ended = state.running.remove(&self.id);
        let left = state.running.len();
        if left < state.running.capacity() / SHRINK_FACTOR {
            state.running.shrink_to(left * 2);
        }
        drop(state);
        drop(ended);
        if left == 0 {
            self.tasks.0.none_left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// Tells when it is dropped.
    struct Told(Arc<Notify>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    #[tokio::test]
    async fn all_tasks_end_with_the_host_but_those_that_end_by_themselves() {
        let (tasks, told) = (Tasks::default(), Arc::new(Notify::new()));
        let spawn = |told: &Arc<Notify>| {
            let told = Told(Arc::clone(told));
            tasks.spawn(&Handle::current(), |running| async move {
                let _held = (running, told);
                pending().await
            });
        };
        spawn(&told);
        let own = tasks.begin();
        assert_eq!(tasks.len(), 2);
        tokio::task::yield_now().await;
        tasks.end();
        told.notified().await;
        assert_eq!(tasks.len(), 1);
        // What comes too late does not run.
        spawn(&told);
        told.notified().await;
        let wait = tasks.wait();
        tokio::pin!(wait);
        assert!(waits(wait.as_mut()).await, "one is left");
        drop(own);
        wait.await;
        tasks.wait().await;
    }

    /// Whether it waits.
    async fn waits(mut future: std::pin::Pin<&mut impl Future>) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending()))
            .await
    }

    #[tokio::test]
    async fn a_task_that_has_ended_or_panicked_is_forgotten_and_its_memory_given_back() {
        let tasks = Tasks::default();
        for number in 0..1000 {
            tasks.spawn(&Handle::current(), |running| async move {
                let _running = running;
                assert!(number % 100 != 0, "this panic is meant");
            });
        }
        assert_eq!(tasks.len(), 1000);
        tasks.wait().await;
        assert!(tasks.state().running.capacity() < SHRINK_FACTOR);
    }

    #[test]
    fn a_task_of_a_runtime_that_has_ended_is_not_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (tasks, handle) = (Tasks::default(), runtime.handle().clone());
        let spawn = || {
            tasks.spawn(&handle, |running| async move {
                let _running = running;
                pending().await
            });
        };
        spawn();
        drop(runtime);
        spawn();
        assert_eq!(tasks.len(), 0);
    }
}
