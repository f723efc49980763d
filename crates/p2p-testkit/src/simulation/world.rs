//! What all parts of a simulation share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use p2p_core::ConnectionInfo;
use tokio::time::Instant;

use super::{Plan, Report, node::Node};
use crate::network::Network;

/// Things that are found wrong are told, up to so many.
const WRONG_MAX: usize = 20;

pub(super) struct World {
    pub(super) network: Network,
    pub(super) plan: Plan,
    pub(super) nodes: Vec<Node>,
    /// When no host begins anything new any more.
    pub(super) over_at: Instant,
    book: Mutex<Book>,
}

/// What has been seen.
#[derive(Default)]
pub(super) struct Book {
    pub(super) report: Report,
    pub(super) wrong: Vec<String>,
    transfers: u64,
    /// Transfers whose request a handler has received to its end.
    pub(super) received: BTreeSet<u64>,
    /// Transfers that one side has left unfinished on purpose.
    pub(super) abandoned: BTreeSet<u64>,
    /// Transfers under way by their connection. The key is never used for an order.
    live: BTreeMap<usize, usize>,
}

impl World {
    pub(super) fn new(network: Network, plan: Plan, nodes: Vec<Node>) -> Arc<Self> {
        let over_at = Instant::now() + plan.faults;
        Arc::new(Self { network, plan, nodes, over_at, book: Mutex::default() })
    }

    pub(super) fn book<R>(&self, work: impl FnOnce(&mut Book) -> R) -> R {
        work(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that an invariant does not hold.
    pub(super) fn wrong(&self, text: impl Into<String>) {
        let text = format!("at {:?}: {}", self.network.elapsed(), text.into());
        self.network.note(&text);
        self.book(|book| {
            if book.wrong.len() < WRONG_MAX {
                book.wrong.push(text);
            }
        });
    }

    pub(super) fn new_transfer(&self) -> u64 {
        self.book(|book| {
            book.transfers += 1;
            book.transfers
        })
    }

    /// Awaits `call`, which has to end within `limit`. Timers have a grain of a millisecond.
    pub(super) async fn within<T>(
        &self,
        what: &str,
        limit: Duration,
        call: impl Future<Output = T>,
    ) -> T {
        let begun = Instant::now();
        let result = call.await;
        let took = begun.elapsed();
        if took > limit + Duration::from_millis(20) {
            self.wrong(format!("{what} took {took:?}, and its limit is {limit:?}"));
        }
        result
    }
}

/// Counts a transfer as one of its connection.
pub(super) struct Live {
    world: Arc<World>,
    connection: Arc<ConnectionInfo>,
}

impl Live {
    pub(super) fn new(world: &Arc<World>, connection: &Arc<ConnectionInfo>) -> Self {
        world.book(|book| *book.live.entry(key(connection)).or_default() += 1);
        Self { world: Arc::clone(world), connection: Arc::clone(connection) }
    }

    /// How many transfers of a connection are under way.
    pub(super) fn count(world: &World, connection: &Arc<ConnectionInfo>) -> usize {
        world.book(|book| book.live.get(&key(connection)).copied().unwrap_or(0))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.world.book(|book| {
            if let Some(count) = book.live.get_mut(&key(&self.connection)) {
                *count -= 1;
                if *count == 0 {
                    book.live.remove(&key(&self.connection));
                }
            }
        });
    }
}

fn key(connection: &Arc<ConnectionInfo>) -> usize {
    Arc::as_ptr(connection).addr()
}
