//! A machine of a simulation, and the host that runs on it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use p2p_core::{AddrExt, ConnectionError, ConnectionInfo, ErrorCode, Multiaddr, MuxError, PeerId};
use p2p_host::{Event, Events, Host, Usage, Used};
use p2p_mux::{Config, Yamux};
use p2p_security_noise::Noise;
use p2p_security_plaintext::Plaintext;
use tokio::time::{Instant, sleep_until};

use super::{
    transfer,
    world::{Live, World},
};
use crate::network::{Machine, Random};

pub(super) const PORT: u16 = 4001;
/// How soon the transfers of a connection that has ended must have ended too.
const STREAMS_END: Duration = Duration::from_secs(5);

pub(super) struct Node {
    pub(super) machine: Machine,
    pub(super) id: PeerId,
    /// With the peer id.
    pub(super) addr: Multiaddr,
    host: Mutex<Option<Host>>,
    settings: Settings,
}

/// What differs between hosts.
#[derive(Clone, Debug)]
struct Settings {
    is_noise: bool,
    idle: Duration,
    connections: usize,
    streams: usize,
    watermark: usize,
}

impl Node {
    pub(super) fn new(machine: Machine, is_noise: bool, random: &mut Random) -> Self {
        let number = |random: &mut Random, least, more| {
            least + usize::try_from(random.below(more)).unwrap_or(0)
        };
        let settings = Settings {
            is_noise,
            idle: Duration::from_secs(3 + random.below(20)),
            connections: number(random, 8, 20),
            streams: number(random, 16, 64),
            watermark: number(random, 6, 30),
        };
        let id = machine.peer_id();
        let addr = machine.addr(PORT).with_peer(&id);
        Self { machine, id, addr, host: Mutex::default(), settings }
    }

    /// The host, while there is one.
    pub(super) fn host(&self) -> Option<Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn take_host(&self) -> Option<Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) async fn start(&self, world: &Arc<World>) {
        let Settings { is_noise, idle, connections, streams, watermark } = self.settings;
        let seed = self.machine.random_of_life("security").number();
        let builder = self.machine.bare_builder();
        let builder = if is_noise {
            builder.security(move |identity| Noise::dangerous_seeded(identity, seed))
        } else {
            builder.security(|identity| Ok(Plaintext::dangerous_new(identity)))
        };
        let keep_alive = Config::default().keep_alive(Duration::from_secs(10));
        let started = builder
            .muxer(Yamux::new(keep_alive))
            .idle_timeout(idle)
            .connections_inbound_max(connections)
            .connections_outbound_max(connections)
            .streams_inbound_max(streams)
            .streams_outbound_max(streams)
            .connections_watermarks(watermark.saturating_sub(3), watermark)
            .trim_grace(Duration::from_secs(5))
            .listen(self.machine.addr(PORT).to_string())
            .spawn()
            .await;
        let host = match started {
            Ok(host) => host,
            Err(error) => return world.wrong(format!("a host does not start: {error}")),
        };
        let shared = Arc::clone(world);
        let served = host
            .handle(transfer::PROTOCOL, move |stream| transfer::serve(Arc::clone(&shared), stream));
        if let Err(error) = served {
            world.wrong(format!("a protocol cannot be served: {error}"));
        }
        tokio::spawn(watch(Arc::clone(world), host.events()));
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = Some(host);
    }

    /// Looks at the limits of the host.
    pub(super) fn check_limits(&self, world: &World) {
        let Some(host) = self.host() else { return };
        let Usage { connections_inbound, connections_outbound, pending_inbound, .. } = host.usage();
        let Usage { dials_at_once, streams_inbound, streams_outbound, .. } = host.usage();
        for (what, Used { count, max, .. }) in [
            ("inbound connections", connections_inbound),
            ("outbound connections", connections_outbound),
            ("pending connections", pending_inbound),
            ("dials at once", dials_at_once),
            ("inbound streams", streams_inbound),
            ("outbound streams", streams_outbound),
        ] {
            if count > max {
                world.wrong(format!("{count} {what}, and the limit is {max}"));
            }
        }
    }
}

/// Sees connections come and go, and that no stream outlives its connection.
async fn watch(world: Arc<World>, mut events: Events) {
    let mut ended: VecDeque<(Instant, Arc<ConnectionInfo>)> = VecDeque::new();
    loop {
        let due = ended.front().map(|(due, _)| *due);
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(Event::Connected { .. }) => world.book(|book| book.report.connected += 1),
                Some(Event::Disconnected { connection, cause, .. }) => {
                    check_cause(&world, &cause);
                    ended.push_back((Instant::now() + STREAMS_END, connection));
                }
                Some(Event::Missed { count }) => world.wrong(format!("{count} events are missed")),
                Some(_) => {}
                None => break,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                check_first(&world, &mut ended);
            }
        }
    }
    while let Some((due, _)) = ended.front() {
        sleep_until(*due).await;
        check_first(&world, &mut ended);
    }
}

/// Hosts that keep to the rules never find each other breaking them.
fn check_cause(world: &World, cause: &ConnectionError) {
    #[expect(clippy::wildcard_enum_match_arm, reason = "faults cause the others")]
    match cause {
        ConnectionError::Mux(MuxError::KeepAlive(_)) => {}
        ConnectionError::ClosedByPeer { code }
            if *code != ErrorCode::CONNECTION_PROTOCOL_VIOLATION => {}
        ConnectionError::ClosedByPeer { .. }
        | ConnectionError::Mux(_)
        | ConnectionError::Security(_)
        | ConnectionError::Negotiation(_) => {
            world.wrong(format!("a connection ended, and no fault explains it: {cause}"));
        }
        _ => {}
    }
}

fn check_first(world: &World, ended: &mut VecDeque<(Instant, Arc<ConnectionInfo>)>) {
    let Some((_, connection)) = ended.pop_front() else { return };
    let count = Live::count(world, &connection);
    if count > 0 {
        let remote = connection.remote();
        world.wrong(format!(
            "{count} streams of a connection to {remote} have outlived it by {STREAMS_END:?}"
        ));
    }
}
