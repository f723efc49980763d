//! Identify push, `/ipfs/id/push/1.0.0`: peers are told when what this host says of itself
//! changes, and tell it (specs, identify/README.md).

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use p2p_core::{ErrorCode, Multiaddr, ProtocolId, Stream};
use tokio::{
    io::AsyncReadExt,
    sync::{Semaphore, watch},
    time::{Instant, sleep_until},
};

use crate::{
    HandleError,
    connection::{Conn, within},
    dispatch::{BoxError, Limits},
    group::Group,
    host::Inner,
    identify::{self, EXCHANGE_MAX, Said},
    ledger::Max,
    open::open_counted,
    rates::{Rate, Rates},
};

/// The protocol's name.
const PROTOCOL: ProtocolId = ProtocolId::from_static("/ipfs/id/push/1.0.0");

/// How long changes are gathered before peers are told (IPUSH-04).
const GATHERING: Duration = Duration::from_secs(1);
/// Peers that are told at a time (IPUSH-04).
const AT_ONCE_MAX: usize = 32;
/// Push streams of one peer that are served at a time.
const STREAMS_OF_PEER_MAX: usize = 2;
/// How many pushes a group of peers may send (IPUSH-05).
const RATE: Rate = Rate { burst: 10, interval: Duration::from_secs(5) };
/// Groups whose pushes are counted; the one that has sent the least makes room for another.
const GROUPS_MAX: usize = 1024;

/// Says that what a host tells of itself may have changed. Marks that nobody has seen yet are
/// one.
#[derive(Clone, Debug)]
pub(crate) struct Changes(Arc<watch::Sender<()>>);

impl Default for Changes {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(())))
    }
}

impl Changes {
    pub(crate) fn mark(&self) {
        self.0.send_replace(());
    }
}

/// The pushes of one connection: at most one under way and one that waits for it.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: AtomicBool,
    turn: tokio::sync::Mutex<()>,
}

/// Serves the protocol, and starts the task that tells peers of changes.
pub(crate) fn register(host: &Arc<Inner>) -> Result<(), HandleError> {
    let limits = Limits {
        streams_of_peer_max: Some(Max::fixed(STREAMS_OF_PEER_MAX)),
        keeps_alive: false,
        ..Limits::default()
    };
    let rates = Arc::new(Mutex::new(Rates::new(GROUPS_MAX)));
    let host_ref: Weak<Inner> = Arc::downgrade(host);
    host.protocols.handle_within(PROTOCOL, limits, move |stream| {
        let (host, rates) = (host_ref.upgrade(), Arc::clone(&rates));
        async move {
            match host {
                Some(host) => receive(&host, &rates, stream).await,
                None => Ok(()),
            }
        }
    })?;
    let changes = host.changes.0.subscribe();
    let told = Told::now(host);
    host.spawn(run(Arc::clone(host), changes, told));
    Ok(())
}

/// What peers are told of, before it is cut to what each may hear.
#[derive(PartialEq)]
struct Told {
    protocols: Vec<ProtocolId>,
    addrs: Vec<Multiaddr>,
}

impl Told {
    fn now(host: &Inner) -> Self {
        Self { protocols: host.protocols.names(), addrs: host.told_addrs() }
    }
}

/// The task that waits for changes.
async fn run(host: Arc<Inner>, mut changes: watch::Receiver<()>, mut told: Told) {
    let at_once = Arc::new(Semaphore::new(AT_ONCE_MAX));
    loop {
        let forget = host.sights.poll_timeout();
        tokio::select! {
            biased;
            changed = changes.changed() => match changed {
                Ok(()) => tokio::time::sleep(GATHERING).await,
                Err(_) => return,
            },
            () = sleep_until(forget.unwrap_or_else(Instant::now)), if forget.is_some() => {}
        }
        changes.mark_unchanged();
        if host.quiet.is_cancelled() {
            return;
        }
        host.update_believed();
        let now = Told::now(&host);
        if now == told {
            continue;
        }
        told = now;
        let conns = host.registry().newest();
        for conn in conns {
            if !conn.push.waiting.swap(true, Ordering::Relaxed) {
                host.spawn(push(Arc::clone(&host), conn, Arc::clone(&at_once)));
            }
        }
    }
}

/// Tells one peer, once it is known to want it.
async fn push(host: Arc<Inner>, conn: Arc<Conn>, at_once: Arc<Semaphore>) {
    let _turn = conn.push.turn.lock().await;
    let wanted = identify::wait(&conn).await.is_ok_and(|info| info.protocols.contains(&PROTOCOL));
    let _permit = at_once.acquire().await;
    // What changes from here on is another push.
    conn.push.waiting.store(false, Ordering::Relaxed);
    if !wanted {
        return;
    }
    let told = async {
        let mut stream = open_counted(&host, &conn, &PROTOCOL, false, EXCHANGE_MAX).await?;
        identify::write_own(&host, &mut stream).await?;
        // A stream that is dropped before the peer has read it would be reset.
        let _byte_or_end: usize = stream.read(&mut [0]).await?;
        Ok::<_, BoxError>(())
    };
    match within(EXCHANGE_MAX, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(peer = %conn.peer(), %error, "identify push"),
        Err(cause) => tracing::debug!(peer = %conn.peer(), %cause, "identify push"),
    }
}

/// Takes one push.
async fn receive(
    host: &Arc<Inner>,
    rates: &Mutex<Rates<Group>>,
    mut stream: Stream,
) -> Result<(), BoxError> {
    let info = Arc::clone(stream.connection());
    let group = Group::of(info.peer(), info.remote());
    let admitted =
        rates.lock().unwrap_or_else(PoisonError::into_inner).admit(group, RATE, Instant::now());
    if !admitted {
        stream.reset(ErrorCode::STREAM_RESOURCE_LIMIT);
        return Err("more pushes than a group of peers may send".into());
    }
    let bytes = within(EXCHANGE_MAX, identify::read_all(&mut stream)).await??;
    let said = Said::decode(bytes, info.public_key())?;
    within(EXCHANGE_MAX, tokio::io::AsyncWriteExt::shutdown(&mut stream)).await??;
    drop(stream);
    let conns = host.registry().of_peer(&info.peer());
    for conn in &conns {
        // An answer under way may be older than the push.
        let _either = identify::wait(conn).await;
    }
    for conn in conns {
        let own = Arc::ptr_eq(conn.info(), &info);
        let said = if own { said.clone() } else { said.clone().of_any_connection() };
        let mut known = None;
        conn.identification.change(|state| known = Some(state.update(said, info.public_key())));
        // Nobody is told of a peer after its connection's end.
        if let Some(info) = known.filter(|_| own && !conn.ended.is_cancelled()) {
            host.learned(&conn, info);
        }
    }
    Ok(())
}
