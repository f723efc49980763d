//! What a hostile review of the host found: each test is named after what went wrong.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use common::{Network, builder, echo, echo_host, echo_once};
use p2p::{
    AcceptedStreams, Cause, ConnectionInfo, DialError, Event, Events, Gater, Host, ListenError,
    Multiaddr, OpenError, Stream,
    core::{DialTarget, Link, Listener, Pipe, Transport, TransportError},
};
use p2p_host::ping::PingError;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

const LONG: Duration = Duration::from_secs(100);

async fn pair(network: &Network) -> (Host, Host, String) {
    let listener = echo_host(network, "/memory/7").await;
    let dialer = builder(network, None).spawn().await.unwrap();
    let addr = listener.addrs().remove(0);
    (dialer, listener, addr)
}

/// The events up to the end of the host.
async fn rest(events: &mut Events) -> Vec<Event> {
    let mut rest = Vec::new();
    while let Some(event) = timeout(LONG, events.next()).await.expect("the host does not end") {
        rest.push(event);
    }
    rest
}

// Dialing.

#[tokio::test(start_paused = true)]
async fn a_dial_whose_task_never_ran_left_its_waiters_for_ever() {
    let dialer = builder(&Network::default(), None).spawn().await.unwrap();
    let both = async { tokio::join!(dialer.connect("/memory/0"), dialer.close()) };
    let (connected, ()) = timeout(LONG, both).await.expect("hangs");
    assert!(matches!(connected, Err(OpenError::Dial(DialError::HostClosed))), "{connected:?}");
}

/// Never connects, and counts those who try.
struct Never(Arc<()>);

#[async_trait]
impl Transport for Never {
    fn supports(&self, _: &Multiaddr) -> bool {
        true
    }

    async fn dial(&self, _: DialTarget) -> Result<Link, TransportError> {
        let counted = Arc::clone(&self.0);
        std::future::pending::<()>().await;
        drop(counted);
        unreachable!("it never connects")
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        Err(TransportError::Unsupported { addr })
    }
}

#[tokio::test(start_paused = true)]
async fn close_returned_before_the_attempts_of_its_dials_had_ended() {
    let counter = Arc::new(());
    let transport = Never(Arc::clone(&counter));
    let dialer = p2p::builder().transport(transport).dials_at_once_max(200);
    let dialer = dialer.spawn().await.unwrap();
    // So many that the runtime comes back to this task before it has seen them all.
    let mut waiting = JoinSet::new();
    for port in 0..200 {
        let dialer = dialer.clone();
        waiting.spawn(async move { dialer.connect(format!("/memory/{port}")).await.is_err() });
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(Arc::strong_count(&counter), 202);
    dialer.close().await;
    assert_eq!(Arc::strong_count(&counter), 2, "the transport's and this one");
    assert!(waiting.join_all().await.into_iter().all(|failed| failed));
}

// Connections.

#[tokio::test(start_paused = true)]
async fn a_connection_being_closed_was_handed_out() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    for _ in 0..2 {
        // More than one, so that avoiding the one that failed first is not enough.
        dialer.connect(&addr).await.unwrap();
        listener.connect((dialer.peer_id(), vec![])).await.unwrap();
        dialer.disconnect(&listener.peer_id());
        assert!(dialer.keep_alive(&listener.peer_id()).is_none());
        dialer.ping(&addr).await.unwrap();
        dialer.disconnect(&listener.peer_id());
        dialer.identify(&addr).await.unwrap();
        dialer.disconnect(&listener.peer_id());
        assert_eq!(echo_once(&dialer, &addr, b"x").await.unwrap(), b"x");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_task_never_ran_stayed_connected_for_ever() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let mut events = listener.events();
    let watching = tokio::spawn(async move {
        while !matches!(events.next().await, Some(Event::Connected { .. })) {}
        // The last handle: everything ends before the connection's task has been run once.
        drop(listener);
        rest(&mut events).await
    });
    drop(dialer.connect(&addr).await);
    let rest = watching.await.unwrap();
    assert!(rest.iter().any(|event| matches!(event, Event::Disconnected { .. })), "{rest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guard_taken_as_the_idle_time_ran_out_was_ignored_half_of_the_time() {
    for _ in 0..24 {
        let network = Network::default();
        let (_, listener, addr) = pair(&network).await;
        let idle = Duration::from_secs(5);
        let dialer = builder(&network, None).idle_timeout(idle).spawn().await.unwrap();
        let end = tokio::time::Instant::now() + idle;
        dialer.connect(&addr).await.unwrap();
        tokio::time::sleep_until(end).await;
        let guard = dialer.keep_alive(&listener.peer_id());
        sleep(Duration::from_secs(2)).await;
        assert_eq!(guard.is_some(), !dialer.peers().is_empty());
        drop(guard);
        dialer.close().await;
        listener.close().await;
    }
}

/// Does not end its side of a pipe.
struct NeverEnds(common::Memory);

#[async_trait]
impl Transport for NeverEnds {
    fn supports(&self, addr: &Multiaddr) -> bool {
        self.0.supports(addr)
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        let Link::Pipe(pipe) = self.0.dial(target).await? else { panic!("not a pipe") };
        let (near, mut far) = tokio::io::duplex(4096);
        let (read, mut write) = (pipe.read, pipe.write);
        tokio::spawn(async move {
            drop(tokio::io::copy(&mut far, &mut write).await);
            std::future::pending::<()>().await;
        });
        Ok(Link::Pipe(Pipe::new(read, near)))
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        self.0.listen(addr).await
    }
}

#[tokio::test(start_paused = true)]
async fn connections_refused_after_their_upgrade_were_not_counted_while_they_ended() {
    let network = Network::default();
    let listener = builder(&network, None)
        .listen("/memory/7")
        .pending_inbound_max(1)
        .gater(Once(AtomicBool::new(false)))
        .spawn()
        .await
        .unwrap();
    let mut events = listener.events();
    let dialer = p2p::builder().transport(NeverEnds(network.transport(None)));
    let dialer = dialer.spawn().await.unwrap();
    dialer.connect("/memory/7").await.unwrap();
    while !matches!(events.next().await, Some(Event::InboundFailed { .. })) {}
    let honest = builder(&network, None).spawn().await.unwrap();
    assert!(honest.connect("/memory/7").await.is_err(), "the refused one has the only place");
    sleep(Duration::from_secs(6)).await;
    honest.connect("/memory/7").await.unwrap();
}

/// Refuses the first connection, after its upgrade.
struct Once(AtomicBool);

impl Gater for Once {
    fn upgraded(&self, _: &ConnectionInfo) -> Result<(), String> {
        let before = self.0.swap(true, Ordering::Relaxed);
        if before { Ok(()) } else { Err("the first".into()) }
    }
}

// Closing.

#[tokio::test(start_paused = true)]
async fn a_host_being_closed_took_new_streams() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let mut busy = dialer.open(&addr, "/echo/1.0.0").await.unwrap();
    let late = async {
        sleep(Duration::from_millis(100)).await;
        let late = dialer.open(&addr, "/echo/1.0.0").await;
        busy.write_all(b"x").await.unwrap();
        let echoed = busy.read_u8().await.unwrap();
        busy.shutdown().await.unwrap();
        (late, echoed)
    };
    let ((), (late, echoed)) = tokio::join!(listener.close(), late);
    assert!(matches!(late, Err(OpenError::Stream { .. })), "{late:?}");
    assert_eq!(echoed, b'x');
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_closed_its_host_leaked_it() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let host = listener.clone();
    let stop = move |stream: Stream| {
        let host = host.clone();
        async move {
            host.close().await;
            drop(stream);
            Ok::<_, io::Error>(())
        }
    };
    listener.handle("/stop/1.0.0", stop).unwrap();
    let mut events = listener.events();
    drop(listener);
    drop(dialer.open(&addr, "/stop/1.0.0").await);
    rest(&mut events).await;
}

#[tokio::test(start_paused = true)]
async fn settings_without_a_limit_panicked() {
    let network = Network::default();
    let listener = builder(&network, None)
        .listen("/memory/7")
        .pending_inbound_max(usize::MAX)
        .drain_timeout(Duration::MAX)
        .spawn()
        .await
        .unwrap();
    let dialer = builder(&network, None).spawn().await.unwrap();
    dialer.connect("/memory/7").await.unwrap();
    listener.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_listener_was_not_told_when_there_was_no_connection() {
    let listener = echo_host(&Network::default(), "/memory/7").await;
    let mut events = listener.events();
    listener.close().await;
    drop(listener);
    let rest = rest(&mut events).await;
    assert!(matches!(rest.as_slice(), [Event::ListenEnded { cause: None, .. }]), "{rest:?}");
}

/// Gives one link that was made before.
struct Given(Mutex<Option<Link>>);

#[async_trait]
impl Transport for Given {
    fn supports(&self, _: &Multiaddr) -> bool {
        true
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        let addr = target.addr;
        self.0.lock().unwrap().take().ok_or(TransportError::Unsupported { addr })
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        Err(TransportError::Unsupported { addr })
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_came_too_late_for_a_closing_host_was_blamed_on_the_peer() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let _busy = dialer.open(&addr, "/echo/1.0.0").await.unwrap();
    let target = DialTarget::new("/memory/7".parse().unwrap(), None);
    let link = network.transport(None).dial(target).await.unwrap();
    let late = p2p::builder().transport(Given(Mutex::new(Some(link)))).spawn().await.unwrap();
    sleep(Duration::from_millis(1)).await;
    let mut events = listener.events();
    let connecting = async {
        sleep(Duration::from_millis(100)).await;
        drop(late.connect("/memory/7").await);
    };
    tokio::join!(listener.close(), connecting);
    let error = loop {
        if let Some(Event::InboundFailed { error }) = events.next().await {
            break error;
        }
    };
    assert!(matches!(error.cause, Cause::Connection(_)), "{error}");
    assert!(error.to_string().contains("the host is closed"), "{error}");
}

/// Needs a second to bind.
struct SlowToBind(common::Memory);

#[async_trait]
impl Transport for SlowToBind {
    fn supports(&self, addr: &Multiaddr) -> bool {
        self.0.supports(addr)
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        self.0.dial(target).await
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        sleep(Duration::from_secs(1)).await;
        self.0.listen(addr).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_bound_while_the_host_closed_stayed_listed() {
    let transport = SlowToBind(Network::default().transport(None));
    let host = p2p::builder().transport(transport).spawn().await.unwrap();
    let (listening, ()) = tokio::join!(host.listen("/memory/7"), host.close());
    assert!(matches!(listening, Err(ListenError::HostClosed)), "{listening:?}");
    assert!(host.addrs().is_empty());
}

// Protocols.

#[tokio::test(start_paused = true)]
async fn accepted_streams_dropped_late_ended_their_successor() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let old = listener.accept("/queue/1.0.0").unwrap();
    assert!(listener.unhandle("/queue/1.0.0"));
    listener.handle("/queue/1.0.0", echo).unwrap();
    drop(old);
    assert!(dialer.open(&addr, "/queue/1.0.0").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn ending_a_service_whose_handler_owned_another_deadlocked() {
    let listener = echo_host(&Network::default(), "/memory/7").await;
    let owned = listener.accept("/queue/1.0.0").unwrap();
    let handler = move |stream: Stream| {
        uses(&owned);
        echo(stream)
    };
    listener.handle("/owner/1.0.0", handler).unwrap();
    let (ended, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(listener.unhandle("/owner/1.0.0")));
    assert_eq!(result.recv_timeout(Duration::from_secs(10)), Ok(true));
}

fn uses(_: &AcceptedStreams) {}

#[tokio::test(start_paused = true)]
async fn accepted_streams_did_not_end_while_one_of_them_lived() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let mut accepted = listener.accept("/queue/1.0.0").unwrap();
    let _near = dialer.open(&addr, "/queue/1.0.0").await.unwrap();
    let _far = accepted.next().await.unwrap();
    listener.close().await;
    assert!(timeout(LONG, accepted.next()).await.expect("hangs").is_none());
}

#[tokio::test(start_paused = true)]
async fn handlers_that_had_ended_their_stream_were_not_counted() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    let (begun, mut count) = mpsc::channel(2000);
    let handler = move |mut stream: Stream| {
        let begun = begun.clone();
        async move {
            stream.read_to_end(&mut Vec::new()).await?;
            stream.shutdown().await?;
            drop(stream);
            begun.try_send(()).unwrap();
            std::future::pending::<io::Result<()>>().await
        }
    };
    listener.handle("/work/1.0.0", handler).unwrap();
    for _ in 0..600 {
        if let Ok(mut stream) = dialer.open(&addr, "/work/1.0.0").await {
            drop(stream.shutdown().await);
            drop(stream.read_to_end(&mut Vec::new()).await);
        }
    }
    let mut running = 0;
    while count.try_recv().is_ok() {
        running += 1;
    }
    assert_eq!(running, 512);
}

#[tokio::test(start_paused = true)]
async fn ping_05_a_wrong_pong_on_a_used_stream_was_hidden_by_another_try() {
    let network = Network::default();
    let (dialer, listener, addr) = pair(&network).await;
    assert!(listener.unhandle("/ipfs/ping/1.0.0"));
    let liar = |mut stream: Stream| async move {
        let mut ping = [0; 32];
        for lie in [0, 1] {
            stream.read_exact(&mut ping).await?;
            ping[0] ^= lie;
            stream.write_all(&ping).await?;
        }
        stream.shutdown().await
    };
    listener.handle("/ipfs/ping/1.0.0", liar).unwrap();
    let mut pinger = dialer.pinger(&addr).unwrap();
    pinger.ping().await.unwrap();
    let second = pinger.ping().await;
    assert!(matches!(second, Err(PingError::Mismatch)), "{second:?}");
}
