//! The whole connection: two hosts, and what lies between them.

mod app;
mod link;
mod script;

use std::{
    cell::Cell,
    panic,
    sync::{Arc, LazyLock, Mutex, Once},
    time::{Duration, SystemTime},
};

use p2p_core::Keypair;
use p2p_host::{Host, Usage};
use p2p_mux::Yamux;
use p2p_security_noise::Noise;
use tokio::{
    runtime::{Builder, Handle},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use app::Exchange;
use link::Access;
use script::{Action, Script};

/// Two sides, and somebody who is not there.
static KEYS: LazyLock<[Keypair; 3]> =
    LazyLock::new(|| [1, 2, 3].map(|seed| Keypair::from_ed25519_seed(&[seed; 32])));

const PROTOCOL: &str = "/echo/1.0.0";

/// A dial has 30 s over all addresses, and whoever waits for it is told in the same moment.
const CONNECT_MAX: Duration = Duration::from_secs(30 + 1);
/// Opening has 10 s after the dial, and where the connection has just ended it is done twice.
const OPEN_MAX: Duration = Duration::from_secs(2 * (30 + 10) + 1);
/// A ping has 10 s after its stream is open.
const PING_MAX: Duration = OPEN_MAX.saturating_add(Duration::from_secs(10));
/// The answer has 10 s after the connection is there.
const IDENTIFY_MAX: Duration = CONNECT_MAX.saturating_add(Duration::from_secs(10));
/// The multiplexer notices within 90 s that nothing arrives any more; all stalls of a run together
/// and whatever a side waits before it reads or writes come before that.
const EXCHANGE_MAX: Duration = Duration::from_secs(90 + 10 + 60).saturating_add(script::STALLS_MAX);
/// 5 s for streams under way, 6 s for the connections, and the tasks end at once.
const CLOSE_MAX: Duration = Duration::from_secs(5 + 6 + 1);

/// Two hosts with Noise and Yamux that do what the input says, over links that do to the bytes
/// what it says: cut into pieces, stalled, changed, more, fewer, ended, failed.
///
/// Nothing panics, and every call ends within the time it has. What was ended well has arrived
/// whole, and nothing else looks as if it had. The peer at the other end is the one that is there,
/// or there is none. Once both hosts are closed no task lives and nothing counts as used.
pub fn connection(data: &[u8]) {
    run(data);
}

/// What happened and when, in order: the same in every run of one input.
#[derive(Clone, Default)]
struct Course(Arc<Mutex<Vec<String>>>);

impl Course {
    fn note(&self, began: Instant, what: impl std::fmt::Display) {
        let line = format!("{} ms: {what}", began.elapsed().as_millis());
        self.0.lock().expect("no panic that goes on").push(line);
    }
}

fn run(data: &[u8]) -> Vec<String> {
    let before = panics();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O");
    let course = runtime.block_on(course(Script::read(data)));
    drop(runtime);
    assert_eq!(panics(), before, "a task has panicked");
    course
}

/// How many panics there were on this thread: the runtime and the host keep those of tasks to
/// themselves.
fn panics() -> usize {
    thread_local! {
        static PANICS: Cell<usize> = const { Cell::new(0) };
    }
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            next(info);
        }));
    });
    PANICS.get()
}

async fn course(script: Script) -> Vec<String> {
    let Script { plans, dials, actions } = script;
    let accesses = Access::of_both(plans, dials);
    let mut world = World {
        hosts: Vec::new(),
        began: Instant::now(),
        course: Course::default(),
        running: JoinSet::new(),
    };
    for (side, access) in accesses.into_iter().enumerate() {
        let host = host(side, access).await;
        host.handle(PROTOCOL, app::answer).expect("a protocol that is not served yet");
        world.hosts.push(host);
    }
    for (number, (side, action)) in (0..).zip(actions) {
        world.act(side, number, action).await;
        world.check_peers();
    }
    world.end().await
}

async fn host(side: usize, access: Access) -> Host {
    let seed = side as u64;
    let spawning = p2p_host::builder()
        .identity(KEYS[side].clone())
        .transport(access)
        .security(move |identity| Noise::dangerous_seeded(identity, seed))
        .muxer(Yamux::default())
        .dangerous_simulated(seed, || SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30))
        .listen(format!("/memory/{side}"))
        .spawn();
    spawning.await.expect("a host that has all it needs")
}

struct World {
    hosts: Vec<Host>,
    began: Instant,
    course: Course,
    /// Calls under way.
    running: JoinSet<()>,
}

impl World {
    async fn act(&mut self, side: usize, number: u32, action: Action) {
        let (host, peer) = (self.hosts[side].clone(), KEYS[1 - side].public());
        let target = format!("/memory/{}/p2p/{}", 1 - side, peer.peer_id());
        let unnamed = format!("/memory/{}", 1 - side);
        let (course, began) = (self.course.clone(), self.began);
        let told = format!("{side} {action:?}");
        match action {
            Action::Exchange(exchange) => {
                self.running.spawn(async move {
                    let done = exchange_with(&host, &target, number, &exchange).await;
                    course.note(began, format_args!("{told} {done:?}"));
                });
            }
            Action::Ping => {
                self.running.spawn(async move {
                    let pong = timeout(PING_MAX, host.ping(target)).await.expect("a ping hangs");
                    course.note(began, format_args!("{told} {pong:?}"));
                });
            }
            Action::Connect => {
                self.running.spawn(async move {
                    let made = timeout(CONNECT_MAX, host.connect(unnamed)).await;
                    let made = made.expect("a dial hangs").map(|info| info.peer());
                    assert!(made.as_ref().map_or(true, |id| *id == peer.peer_id()), "{made:?}");
                    course.note(began, format_args!("{told} {made:?}"));
                });
            }
            Action::ConnectToOther => {
                let other = KEYS[2].public().peer_id();
                self.running.spawn(async move {
                    let made = host.connect(format!("{unnamed}/p2p/{other}"));
                    let made = timeout(CONNECT_MAX, made).await.expect("a dial hangs");
                    assert!(made.is_err(), "connected to a peer that is not there: {made:?}");
                });
            }
            Action::Identify => {
                self.running.spawn(async move {
                    let info = timeout(IDENTIFY_MAX, host.identify(target)).await;
                    let info = info.expect("identify hangs").map(|info| info.public_key.clone());
                    assert!(info.as_ref().map_or(true, |key| *key == peer), "{info:?}");
                    course.note(began, format_args!("{told} {info:?}"));
                });
            }
            Action::Wait(time) => sleep(time).await,
            Action::Join => self.join().await,
            Action::Disconnect => host.disconnect(&peer.peer_id()),
            Action::Close => {
                timeout(CLOSE_MAX, host.close()).await.expect("closing hangs");
                course.note(began, told);
            }
        }
    }

    async fn join(&mut self) {
        while let Some(ended) = self.running.join_next().await {
            ended.expect("a call that does not panic");
        }
    }

    fn check_peers(&self) {
        for (side, host) in self.hosts.iter().enumerate() {
            let other = KEYS[1 - side].public();
            for peer in host.peers() {
                assert_eq!(peer, other.peer_id());
                assert!(host.connections(&peer).iter().all(|info| *info.public_key() == other));
            }
        }
    }

    async fn end(mut self) -> Vec<String> {
        self.join().await;
        self.check_peers();
        for host in &self.hosts {
            timeout(CLOSE_MAX, host.close()).await.expect("closing hangs");
            assert!(host.peers().is_empty(), "a closed host has peers");
            assert_unused(host.usage());
        }
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0, "a task is left");
        self.course.note(self.began, "the end");
        std::mem::take(&mut *self.course.0.lock().expect("no panic that goes on"))
    }
}

fn assert_unused(usage: Usage) {
    let counts = [
        usage.connections_inbound,
        usage.connections_outbound,
        usage.pending_inbound,
        usage.pending_outbound,
        usage.dials_at_once,
        usage.streams_inbound,
        usage.streams_outbound,
        usage.buffered_bytes,
    ];
    assert!(counts.iter().all(|used| used.count == 0), "a closed host uses {usage:?}");
}

async fn exchange_with(
    host: &Host,
    target: &str,
    number: u32,
    exchange: &Exchange,
) -> Result<(), String> {
    let opening = host.open(target, PROTOCOL);
    let opening = if exchange.optimistic { opening.optimistic() } else { opening };
    let stream = timeout(OPEN_MAX, opening).await.expect("opening hangs");
    let stream = stream.map_err(|error| error.to_string())?;
    let done = timeout(EXCHANGE_MAX, exchange.run(stream, number)).await;
    done.expect("a stream hangs").map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::run;

    fn corpus(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/connection");
        fs::read(folder.join(name)).expect("an input of this name")
    }

    #[test]
    fn one_input_takes_one_course() {
        for name in ["both_at_once", "pieces_and_stalls", "garbage_in_a_stream"] {
            let data = corpus(name);
            assert_eq!(run(&data), run(&data), "{name}");
        }
    }

    #[test]
    fn the_corpus_reaches_what_its_names_say() {
        for name in ["all_well", "pieces_and_stalls"] {
            let course = run(&corpus(name));
            assert!(!course.iter().any(|line| line.contains("Err(")), "{name}: {course:#?}");
        }
        for (name, expected) in [
            ("flip_in_the_handshake", "a message failed authentication"),
            ("garbage_in_the_negotiation", "does not speak multistream-select"),
            ("cut_in_a_stream", "the link ended without a goodbye"),
            ("garbage_in_a_stream", "the link ended without a goodbye"),
            ("silence_in_a_stream", "keep-alive ping unanswered"),
        ] {
            let course = run(&corpus(name));
            assert!(course.iter().any(|line| line.contains(expected)), "{name}: {course:#?}");
        }
    }
}
