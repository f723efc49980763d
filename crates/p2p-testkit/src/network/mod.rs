//! A simulated network: machines, links and their faults, all from one seed in virtual time.
//!
//! ```text
//!   Machine 10.0.0.1 ── Link: latency, jitter, bandwidth, loss, buffer ──► Machine 10.0.0.2
//!     └ builder() ─► Host                                    cut, reset, crash, NAT
//! ```
//!
//! [`run`] gives a scenario a [`Network`] of a seed, and a runtime whose clock stands still while
//! something can be done. [`for_each_seed`] runs it with many seeds. Connections behave as TCP's:
//! each direction ends by itself, what is lost comes later, a process that crashes or a socket
//! that is closed with unread data resets its connections, a port without a listener refuses, and
//! an address without a machine does not answer.
//!
//! The same seed gives the same [trace](Network::trace_hash), byte for byte and event for event,
//! as long as the scenario itself does nothing at random. What breaks that: `select!` without
//! `biased`, several tasks that wait for one `tokio::sync::watch`, the order of a `HashMap`, the
//! system's randomness and clock, threads.

mod link;
mod machine;
mod pipe;
mod random;
mod run;
mod state;
mod trace;
mod transport;

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

pub use link::Link;
pub use machine::Machine;
pub use random::Random;
pub(crate) use run::on_all_processors;
pub use run::{Outcome, for_each_seed, run};
pub use transport::SimTransport;

use state::State;

/// A simulated network. Cheap to clone; every clone is the same network.
#[derive(Clone)]
pub struct Network(Arc<Shared>);

struct Shared {
    seed: u64,
    begun: Instant,
    state: Mutex<State>,
}

impl Network {
    /// Makes a network of a seed, without machines. [`run`] does that too, and stops the clock:
    /// without it, the network runs in real time.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let begun = Instant::now();
        Self(Arc::new(Shared { seed, begun, state: Mutex::new(State::new(seed, begun)) }))
    }

    /// Does something under the lock, and wakes whom it concerns after it.
    fn with<R>(&self, work: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut state, Instant::now());
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(std::task::Waker::wake);
        result
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// How long the network has been there, in its own time.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// Random numbers that follow from the seed and `label` alone.
    #[must_use]
    pub fn random(&self, label: &str) -> Random {
        let labels: Vec<u64> = label.bytes().map(u64::from).collect();
        Random::of(self.0.seed, &labels)
    }

    /// Adds a machine, at the next address of `10.0.0.1`, `10.0.0.2` and so on.
    ///
    /// # Panics
    /// When [`Network::machine_at`] has taken that address, and with more than 16 million.
    #[must_use]
    pub fn machine(&self) -> Machine {
        let id = self.with(|state, _| state.add_machine(None));
        Machine { network: self.clone(), id: id.expect("an address that is free") }
    }

    /// Adds a machine at an address.
    ///
    /// # Panics
    /// When there is one already.
    #[must_use]
    pub fn machine_at(&self, ip: IpAddr) -> Machine {
        let id = self.with(|state, _| state.add_machine(Some(ip)));
        Machine { network: self.clone(), id: id.expect("an address that is free") }
    }

    /// What links are like that nothing else was said of. It holds from the next segment on.
    pub fn set_default_link(&self, link: Link) {
        self.with(|state, _| state.set_default_link(link));
    }

    /// What the link between two machines is like, in both directions.
    pub fn set_link(&self, one: &Machine, other: &Machine, link: Link) {
        self.set_link_one_way(one, other, link.clone());
        self.set_link_one_way(other, one, link);
    }

    /// What one direction between two machines is like.
    pub fn set_link_one_way(&self, from: &Machine, to: &Machine, link: Link) {
        self.with(|state, _| state.set_link(from.id, to.id, link));
    }

    /// Lets nothing pass between two machines, until [`Network::heal`]. Nobody is told: what is
    /// sent meanwhile is sent again, and after 20 s without an answer its connection times out.
    pub fn cut(&self, one: &Machine, other: &Machine) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Lets nothing pass from one machine to another. Acknowledgements of what comes the other way
    /// pass.
    pub fn cut_one_way(&self, from: &Machine, to: &Machine) {
        self.with(|state, now| state.cut(from.id, to.id, now));
    }

    /// Mends the link between two machines, in both directions.
    pub fn heal(&self, one: &Machine, other: &Machine) {
        self.with(|state, now| {
            state.heal(one.id, other.id, now);
            state.heal(other.id, one.id, now);
        });
    }

    /// Cuts a group of machines off from all others.
    pub fn isolate(&self, group: &[&Machine]) {
        self.with(|state, now| {
            let is_in = |id| group.iter().any(|machine| machine.id == id);
            for one in state.machines().filter(|id| is_in(*id)) {
                for other in state.machines().filter(|id| !is_in(*id)) {
                    state.cut(one, other, now);
                    state.cut(other, one, now);
                }
            }
        });
    }

    /// Mends every link.
    pub fn heal_all(&self) {
        self.with(|state, now| {
            for one in state.machines() {
                for other in state.machines() {
                    state.heal(one, other, now);
                }
            }
        });
    }

    /// Resets every connection between two machines, at both ends, as a router does that has lost
    /// its state.
    pub fn reset(&self, one: &Machine, other: &Machine) {
        self.with(|state, now| state.reset(one.id, other.id, now));
    }

    /// How many connections there are, those among them of which one end is closed.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.with(|state, _| state.connections())
    }

    /// How many bytes are under way or unread.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.with(|state, _| state.buffered())
    }

    /// Adds an event of the scenario to the trace.
    pub fn note(&self, text: &str) {
        self.with(|state, now| state.note(now, text));
    }

    /// Everything that happened so far, as a number: every byte written, with its time and
    /// connection, every read, end, failure, cut and crash, and every [`Network::note`]. Two runs
    /// with the same number took the same course.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.with(|state, _| state.trace.hash())
    }

    /// How many events the trace has.
    #[must_use]
    pub fn trace_events(&self) -> u64 {
        self.with(|state, _| state.trace.events())
    }

    /// Hands every further event to `sink`, as a line without its end. It is called under the
    /// network's lock: it must not use the network.
    pub fn print_trace(&self, sink: impl FnMut(&str) + Send + 'static) {
        self.with(|state, _| state.trace.print(sink));
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("seed", &self.0.seed).finish_non_exhaustive()
    }
}
