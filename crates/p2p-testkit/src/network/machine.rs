use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use p2p_core::{Keypair, Multiaddr, PeerId};
use p2p_host::Builder;
use p2p_mux::Yamux;
use p2p_security_noise::Noise;

use super::{
    Network, Random,
    state::MachineId,
    transport::{SimTransport, to_multiaddr},
};

/// The date on which every simulated network begins: 2026-01-01, in seconds of the Unix epoch.
const DATE: Duration = Duration::from_secs(1_767_225_600);

/// A machine on a simulated network, with one IP address, from [`Network::machine`]. Cheap to
/// clone; every clone is the same machine.
#[derive(Clone)]
pub struct Machine {
    pub(super) network: Network,
    pub(super) id: MachineId,
}

impl Machine {
    /// Its IP address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.network.with(|state, _| state.ip(self.id))
    }

    /// The address of one of its ports, without `/p2p`.
    #[must_use]
    pub fn addr(&self, port: u16) -> Multiaddr {
        to_multiaddr(SocketAddr::new(self.ip(), port))
    }

    /// The identity of its host; it stays the same over crashes.
    #[must_use]
    pub fn keypair(&self) -> Keypair {
        Keypair::from_ed25519_seed(&self.random("identity").bytes())
    }

    /// The peer id of its host.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.keypair().public().peer_id()
    }

    /// Its access to the network, until it crashes.
    #[must_use]
    pub fn transport(&self) -> SimTransport {
        SimTransport::new(self.network.clone(), self.id)
    }

    /// Begins a host on this machine, with the transport, Noise and Yamux.
    ///
    /// It is [`Machine::bare_builder`] with two layers added: take that for others.
    pub fn builder(&self) -> Builder {
        let seed = self.random_of_life("noise").number();
        self.bare_builder()
            .security(move |identity| Noise::dangerous_seeded(identity, seed))
            .muxer(Yamux::default())
    }

    /// Begins a host on this machine that has no secure channel and no multiplexer yet. What
    /// these do at random has to come from [`Network::random`], or runs of one seed differ.
    pub fn bare_builder(&self) -> Builder {
        let seed = self.random_of_life("host").number();
        let network = self.network.clone();
        let date = move || SystemTime::UNIX_EPOCH + DATE + network.elapsed();
        p2p_host::builder()
            .identity(self.keypair())
            .transport(self.transport())
            .dangerous_simulated(seed, date)
    }

    /// Ends what runs on the machine, as a crash of the process does: its connections are reset
    /// and its ports closed. Drop its hosts then; a new builder is a restart. Where peers shall
    /// see nothing at all, [`Network::isolate`] it first.
    pub fn crash(&self) {
        self.network.with(|state, now| state.crash(self.id, now));
    }

    /// Whether a NAT keeps everybody from connecting to the machine, while it connects to others
    /// as before. Default: no.
    pub fn set_nat(&self, nat: bool) {
        self.network.with(|state, _| state.set_nat(self.id, nat));
    }

    /// How many bytes in a second each connection of the machine reads at most. Default: no limit.
    pub fn set_read_rate(&self, bytes_per_second: Option<u64>) {
        self.network.with(|state, _| state.set_read_rate(self.id, bytes_per_second));
    }

    fn random(&self, what: &str) -> Random {
        self.network.random(&format!("{what} {}", self.id))
    }

    pub(crate) fn random_of_life(&self, what: &str) -> Random {
        let life = self.network.with(|state, _| state.life(self.id));
        self.random(&format!("{what} {life}"))
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("ip", &self.ip()).finish_non_exhaustive()
    }
}
