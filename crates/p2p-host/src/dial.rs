//! Dialing: one dial for each peer however many tasks ask, its addresses raced.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use p2p_core::{DialTarget, Link, Multiaddr, Muxed, PeerId, Role, SecurityError};
use p2p_mux::Driver;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    Cause, DialAttempt, DialError, Target,
    connection::{Conn, within},
    host::Inner,
    upgrade::Progress,
};

/// Addresses of one peer that are tried, at most.
const ADDRS_MAX: usize = 32;
/// Addresses of one peer that are tried at a time.
const AT_ONCE_MAX: usize = 8;
/// How long the next address waits for the one before it.
const STAGGER: Duration = Duration::from_millis(250);

/// What a dial is shared by: the peer, or the address where no peer is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DialKey {
    Peer(PeerId),
    Addrs(Vec<Multiaddr>),
}

type Outcome = Option<Result<Arc<Conn>, DialError>>;

/// A dial under way. It is given up when nobody waits for it any more.
pub(crate) struct Dial {
    id: u64,
    outcome: watch::Sender<Outcome>,
}

impl Inner {
    /// Gives the connection to `target`, new or not. `avoid` is one that has just failed.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        target: &Target,
        avoid: Option<u64>,
    ) -> Result<Arc<Conn>, DialError> {
        if let Some(peer) = target.peer.filter(|peer| *peer == self.own) {
            return Err(DialError::SelfDial(peer));
        }
        loop {
            let (mut outcome, own) = match self.join_dial(target, avoid)? {
                Joined::Connected(conn) => return Ok(conn),
                Joined::Dial { outcome, own } => (outcome, own),
            };
            let result = match outcome.wait_for(Option::is_some).await {
                Ok(result) => result.clone(),
                Err(_) => return Err(DialError::HostClosed),
            };
            match result {
                Some(Ok(conn)) => return Ok(conn),
                // Somebody else's dial failed, without some of the addresses given here.
                Some(Err(DialError::Attempts(tried) | DialError::TimedOut(_, tried)))
                    if !own && misses(&tried, target) => {}
                Some(Err(error)) => return Err(error),
                None => return Err(DialError::HostClosed),
            }
        }
    }

    fn join_dial(
        self: &Arc<Self>,
        target: &Target,
        avoid: Option<u64>,
    ) -> Result<Joined, DialError> {
        let key = match target.peer {
            Some(peer) => DialKey::Peer(peer),
            None => DialKey::Addrs(target.addrs.clone()),
        };
        let mut registry = self.registry();
        if registry.is_closed() {
            return Err(DialError::HostClosed);
        }
        if let Some(conn) = registry.usable(target, avoid) {
            return Ok(Joined::Connected(conn));
        }
        if let Some(dial) = registry.dials.get(&key) {
            return Ok(Joined::Dial { outcome: dial.outcome.subscribe(), own: false });
        }
        match (target.peer, target.addrs.is_empty()) {
            (Some(peer), true) => return Err(DialError::NoAddresses(peer)),
            (None, true) => return Err(DialError::Attempts(Arc::default())),
            (_, false) => {}
        }
        let (sender, outcome) = watch::channel(None);
        let id = self.next_id();
        registry.dials.insert(key.clone(), Dial { id, outcome: sender.clone() });
        drop(registry);
        let entry = Entry { host: Arc::clone(self), key, id };
        self.spawn(run(entry, target.clone(), sender));
        Ok(Joined::Dial { outcome, own: true })
    }
}

enum Joined {
    Connected(Arc<Conn>),
    Dial { outcome: watch::Receiver<Outcome>, own: bool },
}

fn misses(tried: &[DialAttempt], target: &Target) -> bool {
    target.addrs.iter().any(|addr| tried.iter().all(|attempt| attempt.addr != *addr))
}

/// The task of one dial.
async fn run(entry: Entry, target: Target, outcome: watch::Sender<Outcome>) {
    let host = Arc::clone(&entry.host);
    let dial = dial(&host, &target);
    tokio::pin!(dial);
    let result = loop {
        tokio::select! {
            result = &mut dial => break result,
            () = host.quiet.cancelled() => break Err(DialError::HostClosed),
            () = outcome.closed() => {
                // Under the lock nobody can join any more.
                let mut registry = host.registry();
                if outcome.receiver_count() == 0 {
                    registry.dials.remove(&entry.key);
                    return;
                }
            }
        }
    };
    drop(entry);
    outcome.send_replace(Some(result));
}

/// Takes the dial out of the registry, however its task ends: also when it never ran.
struct Entry {
    host: Arc<Inner>,
    key: DialKey,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut registry = self.host.registry();
        // One that was given up may have a successor by now.
        let own = registry.dials.get(&self.key).is_some_and(|dial| dial.id == self.id);
        let dial = own.then(|| registry.dials.remove(&self.key));
        // Those who wait are woken without the lock.
        drop(registry);
        drop(dial);
    }
}

/// Tries the addresses in their order, the next one `STAGGER` after the last or as soon as it has
/// failed, until one works.
async fn dial(host: &Arc<Inner>, target: &Target) -> Result<Arc<Conn>, DialError> {
    let limit = host.config.dial_timeout;
    let tried = Mutex::new(Vec::new());
    let outcome = tokio::time::timeout(limit, race(host, target, &tried)).await;
    let tried = tried.into_inner().unwrap_or_else(PoisonError::into_inner);
    let report = || tried.iter().map(|attempt| attempt.report(limit)).collect();
    match outcome {
        Ok(Some((muxed, driver))) => Ok(host.adopt(muxed, driver, None)?),
        Ok(None) => Err(DialError::Attempts(report())),
        Err(_) => Err(DialError::TimedOut(limit, report())),
    }
}

type Connected = (Muxed, Option<Driver>);

async fn race(
    host: &Arc<Inner>,
    target: &Target,
    tried: &Mutex<Vec<Arc<Attempt>>>,
) -> Option<Connected> {
    let mut waiting: VecDeque<&Multiaddr> = target.addrs.iter().take(ADDRS_MAX).collect();
    let mut running = JoinSet::new();
    loop {
        if running.len() < AT_ONCE_MAX
            && let Some(addr) = waiting.pop_front()
        {
            let attempt = Arc::new(Attempt::new(addr.clone()));
            tried.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&attempt));
            let (host, peer) = (Arc::clone(host), target.peer);
            let tasks = host.tasks.clone();
            running.spawn(tasks.track_future(async move { attempt.run(&host, peer).await }));
        }
        let more = !waiting.is_empty() && running.len() < AT_ONCE_MAX;
        tokio::select! {
            done = running.join_next() => match done? {
                Ok(Some(connected)) => return Some(connected),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "a dial attempt panicked"),
            },
            () = sleep(STAGGER), if more => {}
        }
    }
}

/// One address that is tried.
struct Attempt {
    addr: Multiaddr,
    begun: Instant,
    progress: Progress,
    /// How it failed, and after how long.
    failed: OnceLock<(Duration, Cause)>,
}

impl Attempt {
    fn new(addr: Multiaddr) -> Self {
        let progress = Progress::default();
        Self { addr, begun: Instant::now(), progress, failed: OnceLock::new() }
    }

    /// Connects to the address and upgrades what comes of it.
    async fn run(&self, host: &Inner, peer: Option<PeerId>) -> Option<Connected> {
        let limit = host.config.address_timeout;
        let connected = within(limit, connect(host, &self.addr, peer, &self.progress)).await;
        match connected.and_then(|connected| connected) {
            Ok(connected) => Some(connected),
            Err(cause) => {
                tracing::debug!(addr = %self.addr, %cause, "dial attempt");
                self.failed.get_or_init(|| (self.begun.elapsed(), cause));
                None
            }
        }
    }

    /// What is told of it. One that has not failed was under way when the time for the whole,
    /// `limit`, ran out.
    fn report(&self, limit: Duration) -> DialAttempt {
        let under_way = || (self.begun.elapsed(), Cause::TimedOut(limit));
        let (elapsed, cause) = self.failed.get().cloned().unwrap_or_else(under_way);
        DialAttempt { addr: self.addr.clone(), stage: self.progress.stage(), elapsed, cause }
    }
}

async fn connect(
    host: &Inner,
    addr: &Multiaddr,
    peer: Option<PeerId>,
    progress: &Progress,
) -> Result<Connected, Cause> {
    let transport = host.transport(addr).ok_or(Cause::NoTransport)?;
    match transport.dial(DialTarget::new(addr.clone(), peer)).await? {
        Link::Pipe(pipe) => {
            let role = Role::Initiator;
            let upgrade = host.upgrader.upgrade(pipe, role, peer, addr.clone(), progress);
            upgrade.await.map(|(muxed, driver)| (muxed, Some(driver)))
        }
        Link::Muxed(muxed) => {
            host.check_peer(&muxed, peer)?;
            Ok((muxed, None))
        }
        _ => Err(Cause::NoTransport),
    }
}

impl Inner {
    /// What the upgrader checks of a pipe's peer, for a link that came authenticated.
    pub(crate) fn check_peer(&self, muxed: &Muxed, expected: Option<PeerId>) -> Result<(), Cause> {
        let actual = muxed.connection.info().peer();
        if actual == self.own {
            return Err(Cause::SelfDial);
        }
        match expected.filter(|expected| *expected != actual) {
            Some(expected) => Err(SecurityError::WrongPeer { expected, actual }.into()),
            None => Ok(()),
        }
    }
}
