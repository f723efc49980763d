//! The scene that every case is set in.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use p2p::{
    Host, Keypair, ProtocolId, Stream,
    core::{DialTarget, Link, Role, Transport as _},
};
use p2p_testkit::hostile::{
    End, Script,
    noise::{RawHandshake, framed},
    wire,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use crate::common::{self, Network};

pub(crate) const KIB: usize = 1 << 10;
/// What a peer that has not proven its identity may cost (`docs/limits.md`, promise 3).
pub(crate) const UNPROVEN: usize = 64 * KIB;
/// What a pending connection may cost after that, until its multiplexer is agreed on.
pub(crate) const PENDING: usize = 384 * KIB;
/// What a connection may cost besides its windows.
pub(crate) const CONNECTION: usize = 1024 * KIB;
/// What a stream's received data may cost.
pub(crate) const WINDOW: usize = (256 + 16) * KIB;
/// What the script itself and the honest peer use: pipes, keys, echoes. The case that does nothing
/// measures it.
const SCENE: usize = 64 * KIB;

pub(crate) const YAMUX: ProtocolId = ProtocolId::from_static("/yamux/1.0.0");
pub(crate) const MPLEX: ProtocolId = ProtocolId::from_static("/mplex/6.7.0");
/// How long an inbound connection may take.
pub(crate) const INBOUND_MAX: Duration = Duration::from_secs(10);
/// By then every wait that there is has run out.
const ALL_LIMITS: Duration = Duration::from_secs(200);
/// No case lasts longer.
const CASE_MAX: Duration = Duration::from_secs(600);

/// The victim, and the honest peer.
pub(crate) struct Field {
    pub(crate) network: Network,
    pub(crate) victim: Host,
    pub(crate) honest: Host,
    /// What a link of the offender holds each way, in bytes.
    pub(crate) pipe_len: std::sync::atomic::AtomicUsize,
    addr: String,
    /// The honest peer's stream that is open all the while.
    stream: tokio::sync::Mutex<Stream>,
}

impl Field {
    async fn set() -> Self {
        let network = Network::default();
        let victim = common::builder(&network, None)
            .muxer(p2p_mux::Mplex::default())
            .listen("/memory/7")
            .spawn()
            .await
            .unwrap();
        victim.handle("/echo/1.0.0", common::echo).unwrap();
        victim
            .handle("/panic/1.0.0", |stream: Stream| async {
                drop(stream);
                // As `panic!`, without a word on the terminal, whose memory would count.
                if true {
                    std::panic::resume_unwind(Box::new("a handler's own fault"));
                }
                std::io::Result::Ok(())
            })
            .unwrap();
        victim
            .handle("/error/1.0.0", |_: Stream| async {
                Err::<(), _>(std::io::Error::other("its own"))
            })
            .unwrap();
        victim
            .handle("/deaf/1.0.0", |stream: Stream| async move {
                let (mut send, _unread) = stream.into_halves();
                Err::<(), _>(send.stopped().await)
            })
            .unwrap();
        let addr = victim.addrs().remove(0);
        let transport = network.transport_from("/ip4/192.0.2.1/memory/1");
        let honest = p2p::builder().transport(transport).spawn().await.unwrap();
        let stream = honest.open(&addr, "/echo/1.0.0").await.unwrap();
        let pipe_len = 4096.into();
        let field = Self { network, victim, honest, pipe_len, addr, stream: stream.into() };
        field.honest_echo().await;
        // Identify and its like are over then, and buffers are released.
        tokio::time::sleep(Duration::from_secs(20)).await;
        field
    }

    /// The honest peer's echo, on its old stream and on a new one, takes no time.
    pub(crate) async fn honest_echo(&self) {
        let begun = Instant::now();
        {
            let mut stream = self.stream.lock().await;
            stream.write_all(b"still there?").await.unwrap();
            let mut back = [0; 12];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"still there?");
        }
        let back = common::echo_once(&self.honest, &self.addr, b"and anew").await;
        assert_eq!(back.as_deref(), Ok(&b"and anew"[..]));
        assert_eq!(begun.elapsed(), Duration::ZERO, "the honest peer had to wait");
    }

    /// A new connection of the offender.
    pub(crate) async fn dial(&self) -> Script {
        self.dial_from("/ip4/192.0.2.66/memory/1").await
    }

    pub(crate) async fn dial_from(&self, from: &str) -> Script {
        let mut transport = self.network.transport_from(from);
        transport.pipe_len = self.pipe_len.load(Ordering::Relaxed);
        let target = DialTarget::new("/memory/7".parse().unwrap(), None);
        let link = transport.dial(target).await.unwrap();
        let Link::Pipe(pipe) = link else { panic!("links are pipes") };
        Script::new(pipe)
    }

    /// The same, with Noise agreed on.
    pub(crate) async fn noise(&self) -> Script {
        let mut script = self.dial().await;
        script.negotiate(Role::Initiator, "/noise").await.unwrap();
        script
    }

    /// The same, with the first two messages of a handshake.
    pub(crate) async fn half_shaken(&self) -> (Script, RawHandshake) {
        let mut script = self.noise().await;
        let mut handshake = RawHandshake::new(7);
        script.send(&framed(&handshake.message_1(&[]))).await.unwrap();
        let len = script.hear(2).await.unwrap();
        let len = u16::from_be_bytes([len[0], len[1]]);
        let second = script.hear(usize::from(len)).await.unwrap();
        handshake.hear_2(&second).unwrap();
        (script, handshake)
    }

    /// The same, with a channel, and the multiplexers offered in its handshake.
    pub(crate) async fn secured(&self, muxers: &[ProtocolId]) -> Script {
        let mut script = self.noise().await;
        let identity = Keypair::from_ed25519_seed(&[66; 32]);
        let (_, agreed) = script.shake_hands(Role::Initiator, &identity, muxers).await.unwrap();
        assert_eq!(agreed.as_ref(), muxers.first());
        script
    }

    /// The same, with yamux.
    pub(crate) async fn yamux(&self) -> Script {
        self.secured(&[YAMUX]).await
    }

    /// The same, with mplex.
    pub(crate) async fn mplex(&self) -> Script {
        self.secured(&[MPLEX]).await
    }

    /// The same, with a stream for `protocol`.
    pub(crate) async fn stream(&self, id: u32, protocol: &str) -> Script {
        let mut script = self.yamux().await;
        self.open(&mut script, id, protocol).await;
        script
    }

    /// Opens a stream of yamux for `protocol`, which the victim confirms.
    pub(crate) async fn open(&self, script: &mut Script, id: u32, protocol: &str) {
        let proposal = wire::multistream::proposal(protocol);
        script.say(&wire::yamux::data(wire::yamux::SYN, id, &proposal)).await.unwrap();
        script.hear_until(&wire::multistream::message(protocol)).await.unwrap();
    }

    /// Sends `piece` so many times, or until the victim has had enough, with honest echoes between.
    /// Gives how many went.
    pub(crate) async fn flood(&self, script: &mut Script, piece: &[u8], count: usize) -> usize {
        // Whole records, and not too large: the script's own memory counts.
        let many = (8 * KIB / piece.len()).max(1);
        let batch = piece.repeat(many);
        let mut sent = 0;
        while sent < count {
            let now = (count - sent).min(many);
            let whole = batch.get(..now * piece.len()).unwrap();
            match timeout(Duration::from_secs(1), script.say(whole)).await {
                Ok(Ok(())) => sent += now,
                Ok(Err(_)) | Err(_) => break,
            }
            if sent % (16 * many) < many {
                self.honest_echo().await;
            }
        }
        self.honest_echo().await;
        sent
    }

    /// That the victim ends the connection in no time, and what it had still said.
    pub(crate) async fn ended_at_once(&self, script: &mut Script) -> End {
        self.ended_within(script, Duration::ZERO).await
    }

    /// That the victim ends the connection within `limit` from now.
    pub(crate) async fn ended_within(&self, script: &mut Script, limit: Duration) -> End {
        self.honest_echo().await;
        let begun = Instant::now();
        let end = timeout(CASE_MAX, script.end()).await.expect("the victim does not end it");
        assert!(begun.elapsed() <= limit, "it took {:?}", begun.elapsed());
        self.honest_echo().await;
        end
    }

    /// That the victim goes away with `code` after a violation, and ends the connection.
    pub(crate) async fn goes_away(&self, script: &mut Script, code: u32) {
        // Up to a second is for the goodbye to be taken.
        let end = self.ended_within(script, Duration::from_secs(1)).await;
        let goodbye = wire::yamux::frame(wire::yamux::GO_AWAY, 0, 0, code);
        assert!(end.said.ends_with(&goodbye), "{:02x?}", end.said);
        let goodbyes = end.said.windows(8).filter(|part| *part == &goodbye[..8]).count();
        assert_eq!(goodbyes, 1);
    }

    /// The number of connections that the victim has with others than the honest peer.
    pub(crate) fn offenders(&self) -> usize {
        self.victim.usage().connections_inbound.count - 1
    }

    /// That nothing is left of the offender, whom time has run out for.
    async fn is_as_before(&self, tasks: usize) {
        tokio::time::sleep(ALL_LIMITS).await;
        let usage = self.victim.usage();
        assert_eq!(usage.pending_inbound.count, 0);
        assert_eq!(usage.connections_inbound.count, 1, "the honest peer's");
        assert_eq!(usage.connections_outbound.count, 0);
        assert_eq!(usage.streams_inbound.count, 1, "the honest peer's");
        assert_eq!(usage.streams_outbound.count, 0);
        assert_eq!(common::tasks(), tasks, "a task is left behind");
        self.honest_echo().await;
    }
}

/// Plays a case in which the offender may cost `bound` bytes. Gives what it cost.
pub(crate) fn attack(bound: usize, script: impl AsyncFnOnce(&Field)) -> usize {
    let runtime = paused();
    let field = Arc::new(runtime.block_on(Field::set()));
    // Not generic from here on: it would be compiled for every case.
    let scripted = Arc::clone(&field);
    play(&runtime, &field, bound, Box::pin(async move { script(&scripted).await }))
}

fn play(
    runtime: &tokio::runtime::Runtime,
    field: &Arc<Field>,
    bound: usize,
    script: Pin<Box<dyn Future<Output = ()> + '_>>,
) -> usize {
    let at_rest = runtime.block_on(async { common::tasks() });
    let cost = allocation_counter::measure(|| {
        runtime.block_on(async {
            let over = Arc::new(AtomicBool::new(false));
            let honest = tokio::spawn({
                let (field, over) = (Arc::clone(field), Arc::clone(&over));
                async move {
                    while !over.load(Ordering::Relaxed) {
                        field.honest_echo().await;
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                }
            });
            timeout(CASE_MAX, script).await.expect("the case hangs");
            over.store(true, Ordering::Relaxed);
            honest.await.unwrap();
        });
    });
    runtime.block_on(field.is_as_before(at_rest));
    let cost = usize::try_from(cost.bytes_max).unwrap();
    assert!(cost <= bound + SCENE, "{} KiB are held, of {} KiB", cost / KIB, (bound + SCENE) / KIB);
    cost
}

/// What is held at the end of a case, with what the script has returned.
pub(crate) fn cost_of(script: impl AsyncFnOnce(&Field) -> Vec<Script>) -> usize {
    let runtime = paused();
    let field = runtime.block_on(Field::set());
    let mut kept = Vec::new();
    let cost = allocation_counter::measure(|| kept = runtime.block_on(script(&field)));
    usize::try_from(cost.bytes_current).unwrap()
}

fn paused() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

#[test]
fn a_case_that_does_nothing_costs_nothing() {
    let cost = attack(0, async |_| tokio::time::sleep(INBOUND_MAX).await);
    eprintln!("the scene itself: {cost} bytes");
}
