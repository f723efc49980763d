//! The scenario that this project runs on its simulated network: real hosts that connect, transfer
//! and ping while machines crash, links break and the network falls apart.
//!
//! ```
//! use std::time::Duration;
//! use p2p_testkit::simulation::{Plan, simulate};
//!
//! let plan = Plan::new().hosts(4).faults(Duration::from_secs(5));
//! let report = simulate(7, &plan).expect("nothing is wrong with seed 7");
//! assert_eq!(simulate(7, &plan).expect("still").trace_hash, report.trace_hash);
//! ```
//!
//! What is checked:
//!
//! - no byte is lost, doubled or reordered on a stream that ended well, and truncated data never
//!   look complete;
//! - a dial ends at the peer that was named or fails, within its time limit, and so does every
//!   other call;
//! - no stream outlives its connection;
//! - limits hold;
//! - after the faults have stopped, everything is usable or ended within twice its time limit;
//! - when all hosts are closed, no task, connection or byte under way is left.

mod actor;
mod content;
mod course;
mod node;
mod transfer;
mod world;

use std::{ops::Range, time::Duration};

use tokio::time::timeout;

use crate::network::{Network, Outcome, on_all_processors, run};

/// Everything after the last fault has limits, which are less than this together.
const PEACE_MAX: Duration = Duration::from_secs(600);

/// How large a simulation is.
#[derive(Clone, Debug)]
pub struct Plan {
    hosts: usize,
    faults: Duration,
    pause: Duration,
    noise: Option<bool>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            hosts: 20,
            faults: Duration::from_secs(20),
            pause: Duration::from_secs(6),
            noise: None,
        }
    }
}

impl Plan {
    /// Begins with the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many hosts there are. Default 20, at least 2.
    #[must_use]
    pub fn hosts(mut self, count: usize) -> Self {
        self.hosts = count.max(2);
        self
    }

    /// For how long the hosts are at work and faults happen, in virtual time. Default 20 s.
    #[must_use]
    pub fn faults(mut self, time: Duration) -> Self {
        self.faults = time;
        self
    }

    /// How long a host waits between two of its actions, at most. Default 6 s.
    #[must_use]
    pub fn pause(mut self, time: Duration) -> Self {
        self.pause = time.max(Duration::from_millis(1));
        self
    }

    /// Whether connections are secured by Noise, or by `/plaintext/2.0.0`, which is faster.
    /// Default: by Noise in one seed of eight.
    #[must_use]
    pub fn noise(mut self, noise: bool) -> Self {
        self.noise = Some(noise);
        self
    }
}

/// What happened in a simulation in which nothing was wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Everything that happened on the network, as a number.
    pub trace_hash: u64,
    /// Events of the network.
    pub events: u64,
    /// Virtual time that passed.
    pub time: Duration,
    /// Connections that were told of, by both their sides.
    pub connected: u64,
    /// Transfers that ended well on both sides.
    pub whole: u64,
    /// Transfers that ended in an error, as they should.
    pub ended: u64,
    /// Calls that gave an error.
    pub errors: u64,
    /// Bytes that arrived.
    pub bytes: u64,
    /// Machines that crashed.
    pub crashes: u64,
    /// Hosts that were closed gracefully while others went on.
    pub closed: u64,
    /// Links that were cut.
    pub cuts: u64,
    /// Peers that a host knew of at the end, at most.
    pub known_peers: usize,
}

/// Runs the scenario with one seed.
///
/// # Errors
/// What was wrong, one sentence a line.
pub fn simulate(seed: u64, plan: &Plan) -> Result<Report, String> {
    take_course(seed, plan, |_| ())
}

/// The same, and hands every event of the network to `sink`, as a line without its end.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_traced(
    seed: u64,
    plan: &Plan,
    sink: impl FnMut(&str) + Send + 'static,
) -> Result<Report, String> {
    take_course(seed, plan, |network| network.print_trace(sink))
}

fn take_course(seed: u64, plan: &Plan, prepare: impl FnOnce(&Network)) -> Result<Report, String> {
    let Outcome { value, trace_hash, tasks } = run(seed, |network| {
        prepare(&network);
        let limit = plan.faults + PEACE_MAX;
        timeout(limit, course::take(network, plan.clone()))
    });
    let hangs = |_| (Report::default(), vec!["it does not come to its end".into()]);
    let (mut report, mut wrong) = value.unwrap_or_else(hangs);
    report.trace_hash = trace_hash;
    if tasks > 0 {
        wrong.push(format!("{tasks} tasks are alive after all hosts were closed"));
    }
    if wrong.is_empty() { Ok(report) } else { Err(wrong.join("\n")) }
}

/// Runs the scenario with each of many seeds, on all processors, and tells `done` what came of
/// each. With `twice`, each is run a second time, and has to take the same course.
pub fn simulate_all(
    seeds: Range<u64>,
    plan: &Plan,
    twice: bool,
    mut done: impl FnMut(u64, Result<Report, String>) + Send,
) {
    let work = |seed| {
        let result = simulate(seed, plan);
        if twice && simulate(seed, plan) != result {
            let first = result.map_or_else(|wrong| wrong, |report| format!("{report:?}"));
            return Err(format!("it took another course the second time; the first: {first}"));
        }
        result
    };
    on_all_processors(seeds, work, |seed, result| {
        done(seed, result.unwrap_or_else(|text| Err(format!("it panicked: {text}"))));
        true
    });
}

impl Report {
    /// Adds the figures of another simulation.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.time += other.time;
        self.connected += other.connected;
        self.whole += other.whole;
        self.ended += other.ended;
        self.errors += other.errors;
        self.bytes += other.bytes;
        self.crashes += other.crashes;
        self.closed += other.closed;
        self.cuts += other.cuts;
        self.known_peers = self.known_peers.max(other.known_peers);
    }
}

/// The command that runs one seed again, and prints what happens.
#[must_use]
pub fn replay_command(seed: u64) -> String {
    format!("cargo run --release -p p2p-testkit -- simulate --seed {seed}")
}
