//! Dialing: one dial for each peer however many tasks ask, its addresses ranked and raced.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use p2p_core::{
    AddrExt, DialTarget, Link, Multiaddr, Muxed, PeerId, Role, SecurityError, multiaddr::Protocol,
};
use p2p_mux::Driver;
use tokio::{
    sync::{broadcast, mpsc},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::Instrument as _;

use crate::{
    Cause, DialAttempt, DialError, Target,
    connection::{Conn, within},
    gate::GatePoint,
    host::Inner,
    ledger::Place,
    metrics,
    rank::rank,
    resolve::{Names, has_name},
    upgrade::Progress,
};

/// Addresses of one peer that are tried, at most.
const ADDRS_MAX: usize = 32;
/// Addresses of one peer that are tried at a time.
const AT_ONCE_MAX: usize = 8;
/// How long addresses without names wait for those that names lead to. Ranked together they are
/// dialed best first; what is resolved later is ranked by itself.
const NAMES_WAIT: Duration = Duration::from_millis(300);

/// What a dial is shared by: the peer, or the address where no peer is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DialKey {
    Peer(PeerId),
    Addrs(Vec<Multiaddr>),
}

/// What is told to all who wait for a dial, once.
type Outcome = Result<Arc<Conn>, DialError>;

/// A dial under way. It is given up when nobody waits for it any more.
pub(crate) struct Dial {
    id: u64,
    /// The addresses that it was given.
    given: HashSet<Multiaddr>,
    /// Takes those of others who join it, and whether to dial them though they have failed of late.
    added: mpsc::Sender<(Multiaddr, bool)>,
    /// The addresses given to it that stand for others.
    names: Arc<[Multiaddr]>,
    outcome: broadcast::Sender<Outcome>,
}

impl Dial {
    /// Has it try the addresses of somebody who joins it, as far as it takes more. Names it does
    /// not take.
    fn add(&mut self, target: &Target, force: bool) {
        for addr in target.addrs.iter().filter(|addr| !has_name(addr)) {
            if !self.given.contains(addr) && self.added.try_send((addr.clone(), force)).is_ok() {
                self.given.insert(addr.clone());
            }
        }
    }
}

impl Inner {
    /// Gives the connection to `target`, new or not. `avoid` is one that has just failed. With
    /// `force`, addresses that have failed of late are not left alone.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        target: &Target,
        avoid: Option<u64>,
        force: bool,
    ) -> Result<Arc<Conn>, DialError> {
        if let Some(peer) = target.peer.filter(|peer| *peer == self.own) {
            return Err(DialError::SelfDial(peer));
        }
        let begun = Instant::now();
        loop {
            let left = self.config.dial_timeout.saturating_sub(begun.elapsed());
            let (mut outcome, own, names) = match self.join_dial(target, avoid, force, left)? {
                Joined::Connected(conn) => return Ok(conn),
                Joined::Dial { outcome, own, names } => (outcome, own, names),
            };
            let Ok(result) = outcome.recv().await else { return Err(DialError::HostClosed) };
            let error = match result {
                Ok(conn) => return Ok(conn),
                Err(error) => error,
            };
            // Somebody else's dial failed, without some of the addresses given here, or in less
            // time than there is here.
            let unfinished = match &error {
                DialError::Attempts(tried) => misses(tried, &names, target, force),
                DialError::TimedOut(limit, tried) => {
                    *limit < self.config.dial_timeout || misses(tried, &names, target, force)
                }
                DialError::NoAddresses(_)
                | DialError::SelfDial(_)
                | DialError::Limit(_)
                | DialError::Denied(_)
                | DialError::HostClosed => false,
            };
            let limit = self.config.dial_timeout;
            if own || !unfinished || begun.elapsed() >= limit {
                let DialError::TimedOut(_, tried) = error else { return Err(error) };
                return Err(DialError::TimedOut(limit, tried));
            }
        }
    }

    /// The target with what is known of its peer, where it has no address itself.
    fn known(&self, target: &Target) -> Target {
        let mut known = target.clone();
        if let (Some(peer), true) = (&known.peer, known.addrs.is_empty()) {
            known.addrs = self.peerstore.addrs(peer);
        }
        known
    }

    fn join_dial(
        self: &Arc<Self>,
        target: &Target,
        avoid: Option<u64>,
        force: bool,
        limit: Duration,
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
        if let Some(dial) = registry.dials.get_mut(&key) {
            dial.add(target, force);
            let (outcome, names) = (dial.outcome.subscribe(), Arc::clone(&dial.names));
            return Ok(Joined::Dial { outcome, own: false, names });
        }
        let target = self.known(target);
        match (target.peer, target.addrs.is_empty()) {
            (Some(peer), true) => return Err(DialError::NoAddresses(peer)),
            (None, true) => return Err(DialError::Attempts(Arc::default())),
            (_, false) => {}
        }
        let place = self.ledger.dial()?;
        let (sender, outcome) = broadcast::channel(1);
        let id = self.next_id();
        let names: Arc<[_]> = target.addrs.iter().filter(|addr| has_name(addr)).cloned().collect();
        let (added, more) = mpsc::channel(ADDRS_MAX);
        let given = target.addrs.iter().cloned().collect();
        let dial = Dial { id, given, added, names: Arc::clone(&names), outcome: sender.clone() };
        registry.dials.insert(key.clone(), dial);
        drop(registry);
        let entry = Entry { host: Arc::clone(self), key, id };
        self.spawn(run(entry, place, Wanted { target, force, limit, more }, sender));
        Ok(Joined::Dial { outcome, own: true, names })
    }
}

enum Joined {
    Connected(Arc<Conn>),
    Dial { outcome: broadcast::Receiver<Outcome>, own: bool, names: Arc<[Multiaddr]> },
}

/// Whether a dial that was given `names`, and has tried these addresses, has left out something
/// that `target` has.
fn misses(tried: &[DialAttempt], names: &[Multiaddr], target: &Target, force: bool) -> bool {
    let not_tried = |attempt: &DialAttempt| force && matches!(attempt.cause, Cause::BackedOff(_));
    let missing = |addr: &Multiaddr| {
        if names.contains(addr) {
            return tried.iter().any(not_tried);
        }
        tried.iter().all(|attempt| attempt.addr != *addr || not_tried(attempt))
    };
    target.addrs.iter().any(missing)
}

/// What a dial is to do.
struct Wanted {
    target: Target,
    force: bool,
    /// The time for the whole.
    limit: Duration,
    /// The addresses of those who have joined it.
    more: mpsc::Receiver<(Multiaddr, bool)>,
}

/// The task of one dial.
async fn run(entry: Entry, place: Place, wanted: Wanted, outcome: broadcast::Sender<Outcome>) {
    let host = Arc::clone(&entry.host);
    let dial = dial(&host, place, wanted);
    tokio::pin!(dial);
    let result = loop {
        tokio::select! {
            biased;
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
    // Without one who still waits there is nobody to tell.
    drop(outcome.send(result));
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

/// Tries the addresses by their rank, each at its time or as soon as another one has failed, until
/// one works.
async fn dial(host: &Arc<Inner>, place: Place, mut wanted: Wanted) -> Result<Arc<Conn>, DialError> {
    let (target, limit) = (wanted.target.clone(), wanted.limit);
    if let Some(peer) = &target.peer {
        let gated = host.gate(GatePoint::DialPeer, Some(peer), None, |gater| gater.dial_peer(peer));
        gated.map_err(DialError::Denied)?;
    }
    let tried = Mutex::new(Vec::new());
    let mut names = Names::new(host, &target);
    let raced = race(host, &mut wanted, &mut names, &tried);
    let outcome = tokio::time::timeout(limit, raced).await;
    let tried = tried.into_inner().unwrap_or_else(PoisonError::into_inner);
    let report = || {
        let attempts = tried.iter().map(|attempt| attempt.report(host, limit));
        let unresolved = names.failures(limit);
        metrics::unresolved(&unresolved);
        unresolved.into_iter().chain(attempts).collect()
    };
    match outcome {
        Ok(Some((muxed, driver, of_addr))) => {
            let conn = host.adopt(muxed, driver, place.with_addr(of_addr))?;
            if target.peer.is_none() && target.addrs.iter().all(has_name) {
                conn.names.get_or_init(|| target.addrs.clone());
            }
            Ok(conn)
        }
        Ok(None) => Err(DialError::Attempts(report())),
        Err(_) => Err(DialError::TimedOut(limit, report())),
    }
}

type Connected = (Muxed, Option<Driver>, Place);

async fn race(
    host: &Arc<Inner>,
    wanted: &mut Wanted,
    names: &mut Names,
    tried: &Mutex<Vec<Arc<Attempt>>>,
) -> Option<Connected> {
    // What is known by then is dialed, whether or not that was all.
    let _ = tokio::time::timeout(NAMES_WAIT, names.finish()).await;
    let mut waiting: VecDeque<(Instant, Multiaddr, bool)> = VecDeque::new();
    let mut running = JoinSet::new();
    let (mut left, mut next, mut resolving) = (ADDRS_MAX, true, true);
    loop {
        while running.len() < AT_ONCE_MAX
            && waiting.front().is_some_and(|(due, ..)| next || *due <= Instant::now())
            && let Some((_, addr, force)) = waiting.pop_front()
        {
            next = false;
            let attempt = Arc::new(Attempt::new(addr, wanted.target.peer));
            tried.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&attempt));
            let (host, task) = (Arc::clone(host), host.tasks.begin());
            running.spawn(async move {
                let _task = task;
                attempt.run(&host, force).await
            });
        }
        let due = waiting.front().filter(|_| running.len() < AT_ONCE_MAX).map(|(due, ..)| *due);
        let busy = resolving || !running.is_empty() || !waiting.is_empty();
        tokio::select! {
            biased;
            done = running.join_next(), if !running.is_empty() => match done? {
                Ok(Some(connected)) => return Some(connected),
                // The next one need not wait any longer.
                Ok(None) => next = true,
                Err(error) => {
                    tracing::error!(%error, "a dial attempt panicked");
                    next = true;
                }
            },
            more = names.next(), if resolving => {
                resolving = more.is_some();
                let now = Instant::now();
                let mut ranked = rank(&more.unwrap_or_default());
                ranked.truncate(left);
                left -= ranked.len();
                let ranked = ranked.into_iter();
                waiting.extend(ranked.map(|ranked| (now + ranked.after, ranked.addr, wanted.force)));
                waiting.make_contiguous().sort_by_key(|(due, ..)| *due);
            }
            Some((addr, force)) = wanted.more.recv(), if busy && left > 0 => {
                left -= 1;
                waiting.push_front((Instant::now(), addr, force));
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            else => return None,
        }
    }
}

/// One address that is tried.
struct Attempt {
    addr: Multiaddr,
    /// Who is expected there: the target's peer, or the one that a record names.
    peer: Option<PeerId>,
    begun: Instant,
    /// Has been set when it had its turn.
    turn: OnceLock<()>,
    progress: Progress,
    /// How it failed, and after how long.
    failed: OnceLock<(Duration, Cause)>,
    /// Its end is among the metrics.
    counted: OnceLock<()>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.counted.get().is_none() {
            metrics::dialed(self.progress.stage(), None);
        }
    }
}

impl Attempt {
    fn new(addr: Multiaddr, peer: Option<PeerId>) -> Self {
        let (addr, peer) = match (peer, addr.split_peer()) {
            (None, Ok(split)) => split,
            (peer, _) => (addr, peer),
        };
        let progress = Progress::default();
        let (turn, failed, counted) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { addr, peer, begun: Instant::now(), turn, progress, failed, counted }
    }

    /// Waits for its turn, connects to the address and upgrades what comes of it.
    async fn run(&self, host: &Inner, force: bool) -> Option<Connected> {
        let span = tracing::debug_span!("dial", addr = %self.addr);
        let result = self.try_once(host, self.peer, force).instrument(span.clone()).await;
        self.counted.get_or_init(|| {
            metrics::dialed(self.progress.stage(), Some(result.as_ref().map(drop)));
        });
        let cause = match result {
            Ok(connected) => return Some(connected),
            Err(cause) => cause,
        };
        tracing::debug!(parent: &span, stage = %self.progress.stage(), %cause, "failed");
        self.failed.get_or_init(|| (self.begun.elapsed(), cause));
        None
    }

    async fn try_once(
        &self,
        host: &Inner,
        peer: Option<PeerId>,
        force: bool,
    ) -> Result<Connected, Cause> {
        host.may_dial(peer, &self.addr, force)?;
        let _turn = host.dials_at_once.acquire().await.expect("nobody closes this semaphore");
        self.turn.get_or_init(|| ());
        let place = host.ledger.dial_addr(&self.addr)?;
        let work = connect(host, &self.addr, peer, &self.progress);
        match within(host.config.address_timeout, work).await.and_then(|connected| connected) {
            Ok((muxed, driver)) => Ok((muxed, driver, place)),
            Err(cause) => {
                // What this side has refused does not speak against the address.
                if !matches!(cause, Cause::Limit(_) | Cause::Denied(_)) {
                    host.backoff().failed(peer, &self.addr, Instant::now());
                }
                Err(cause)
            }
        }
    }

    /// What is told of it. One that has not failed was under way, or waited for its turn, when the
    /// time for the whole, `limit`, ran out.
    fn report(&self, host: &Inner, limit: Duration) -> DialAttempt {
        let under_way = || {
            let waited = || host.ledger.no_turn().into();
            let cause = self.turn.get().map_or_else(waited, |()| Cause::TimedOut(limit));
            (self.begun.elapsed(), cause)
        };
        let (elapsed, cause) = self.failed.get().cloned().unwrap_or_else(under_way);
        DialAttempt { addr: self.addr.clone(), stage: self.progress.stage(), elapsed, cause }
    }
}

async fn connect(
    host: &Inner,
    addr: &Multiaddr,
    peer: Option<PeerId>,
    progress: &Progress,
) -> Result<(Muxed, Option<Driver>), Cause> {
    let transport = host.transport(addr).ok_or(Cause::NoTransport)?;
    match transport.dial(DialTarget::new(addr.clone(), peer)).await? {
        Link::Pipe(pipe) => {
            let role = Role::Initiator;
            let may = |peer: &PeerId| host.may_secure(role, peer, addr);
            let upgrade = host.upgrader.upgrade(pipe, role, peer, addr.clone(), progress, may);
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
    /// What can be said of an address before it is dialed (CONN-06, CONN-28, CONN-36).
    fn may_dial(&self, peer: Option<PeerId>, addr: &Multiaddr, force: bool) -> Result<(), Cause> {
        if self.transport(addr).is_none() {
            return Err(Cause::NoTransport);
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "the multiaddr crate may add protocols")]
        let unspecified = |part| match part {
            Protocol::Ip4(ip) => ip.is_unspecified(),
            Protocol::Ip6(ip) => ip.is_unspecified(),
            _ => false,
        };
        if addr.iter().any(unspecified) {
            return Err(Cause::Unspecified);
        }
        if self.addresses.all().contains(addr) {
            return Err(Cause::SelfDial);
        }
        let expected = peer.as_ref();
        self.gate(GatePoint::DialAddr, None, Some(addr), |gater| gater.dial_addr(expected, addr))?;
        match self.backoff().left(peer, addr, Instant::now()) {
            Some(left) if !force => Err(Cause::BackedOff(left)),
            Some(_) | None => Ok(()),
        }
    }

    /// What the upgrader checks of a pipe's peer, for a link that came authenticated.
    pub(crate) fn check_peer(&self, muxed: &Muxed, expected: Option<PeerId>) -> Result<(), Cause> {
        let actual = muxed.connection.info().peer();
        if actual == self.own {
            return Err(Cause::SelfDial);
        }
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(SecurityError::WrongPeer { expected, actual }.into());
        }
        let info = muxed.connection.info();
        self.may_secure(info.role(), &actual, info.remote())
    }
}
