use std::{
    any::Any,
    future::Future,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::{self, Handle},
    time::timeout,
};

use super::Network;

/// The environment variable with the one seed that [`for_each_seed`] then runs.
const SEED: &str = "P2P_SEED";

/// Virtual time after which a scenario is taken to hang.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What came of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome<T> {
    /// What the scenario gave.
    pub value: T,
    /// Everything that happened on the network, as [`Network::trace_hash`] gives it.
    pub trace_hash: u64,
    /// How many tasks were still alive when the scenario ended.
    pub tasks: usize,
}

/// Runs `scenario` on a network of its own, in virtual time: where everything waits, the clock
/// goes to what comes next at once. The same seed gives the same outcome.
///
/// Every task that is spawned with [`tokio::spawn`] belongs to the run and ends with it.
///
/// # Panics
/// Where the scenario does, when it is not over after a day of virtual time (one that hangs comes
/// there at once), and inside another tokio runtime.
pub fn run<T, F>(seed: u64, scenario: impl FnOnce(Network) -> F) -> Outcome<T>
where
    F: Future<Output = T>,
{
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
    runtime.block_on(async {
        let network = Network::new(seed);
        let value = timeout(TIME_MAX, scenario(network.clone())).await;
        let value = value.expect("the scenario is over within a day of virtual time");
        let tasks = Handle::current().metrics().num_alive_tasks();
        Outcome { value, trace_hash: network.trace_hash(), tasks }
    })
}

/// Runs `scenario` once for each seed, on all processors. With the environment variable
/// `P2P_SEED`, that seed alone is run.
///
/// # Panics
/// When a run does; the message names its seed and how to run it alone.
pub fn for_each_seed<T, F>(
    seeds: Range<u64>,
    scenario: impl Fn(Network) -> F + Sync,
) -> Vec<Outcome<T>>
where
    T: Send,
    F: Future<Output = T>,
{
    let only = std::env::var(SEED).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = only.map_or(seeds, |seed| seed..seed.saturating_add(1));
    let (mut outcomes, mut failed) = (Vec::new(), None);
    on_all_processors(
        seeds,
        |seed| run(seed, &scenario),
        |seed, outcome| {
            match outcome {
                Ok(outcome) => outcomes.push((seed, outcome)),
                Err(text) => failed = failed.take().or(Some((seed, text))),
            }
            failed.is_none()
        },
    );
    if let Some((seed, text)) = failed {
        panic!("seed {seed} failed: {text}\nto run it alone: {SEED}={seed} cargo test");
    }
    outcomes.sort_by_key(|(seed, _)| *seed);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Does `work` for each seed, on as many threads as there are processors, and tells `done` what
/// came of it, or what a panic said, until that gives false.
pub(crate) fn on_all_processors<T>(
    seeds: Range<u64>,
    work: impl Fn(u64) -> T + Sync,
    done: impl FnMut(u64, Result<T, String>) -> bool + Send,
) {
    let next = AtomicU64::new(seeds.start);
    let done = Mutex::new(done);
    let run = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let result = catch_unwind(AssertUnwindSafe(|| work(seed)));
            let result = result.map_err(|panic| message(panic.as_ref()));
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            if !done(seed, result) {
                next.store(seeds.end, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(run);
        }
    });
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".into())
}
