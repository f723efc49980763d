//! The memory that receive windows promise to peers, counted when it is promised: for one
//! connection, and for all connections of a host together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use p2p_core::ProtocolId;

use super::{Config, WINDOW_INITIAL};

/// How long it is known what an earlier stream's window was.
const KNOWN_FOR: Duration = Duration::from_secs(10);

/// What the connections of one [`Yamux`](super::Yamux) share. No connection may hold more than it
/// leaves to the others: the first may take half, the next a quarter, and something is always left.
#[derive(Debug)]
pub(super) struct HostWindows {
    /// By how many bytes windows may still grow.
    growth_left: AtomicU64,
    /// How many more inbound streams may be open.
    streams_left: AtomicU64,
}

impl HostWindows {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            growth_left: AtomicU64::new(config.windows_growth_host_max),
            streams_left: AtomicU64::new(config.streams_inbound_host_max),
        })
    }
}

/// Takes at most `wanted` for one that holds `held`, so that it holds no more than is left; the
/// last odd one, too.
fn take(left: &AtomicU64, wanted: u64, held: u64) -> u64 {
    let share = |left: u64| wanted.min(left.saturating_sub(held).div_ceil(2));
    let before = left.fetch_update(Relaxed, Relaxed, |left| Some(left - share(left)));
    share(before.unwrap_or_else(|left| left))
}

/// What one connection has taken; its end gives back what its streams have not.
#[derive(Debug)]
pub(super) struct Windows {
    host: Arc<HostWindows>,
    growth_max: u64,
    growth: u64,
    inbound: u64,
    known: Option<Known>,
}

/// What has been learned of the link by reading a stream.
#[derive(Debug)]
struct Known {
    /// The window that what was read has asked for, in bytes.
    wanted: u32,
    at: Instant,
    /// Whose stream it was.
    protocol: Option<ProtocolId>,
}

impl Windows {
    pub(super) fn new(host: Arc<HostWindows>, config: &Config) -> Self {
        let growth_max = u64::from(config.windows_growth_max);
        Self { host, growth_max, growth: 0, inbound: 0, known: None }
    }

    /// Takes up to `wanted` bytes for a window that grows.
    pub(super) fn grow(&mut self, wanted: u32) -> u32 {
        let wanted = u64::from(wanted).min(self.growth_max.saturating_sub(self.growth));
        let granted = take(&self.host.growth_left, wanted, self.growth);
        self.growth += granted;
        u32::try_from(granted).expect("no more than was wanted")
    }

    /// Notes that the window of a stream of `protocol` should be of `wanted` bytes: that is of the link as
    /// much as of the stream.
    pub(super) fn learn(&mut self, wanted: u32, protocol: Option<&ProtocolId>, now: Instant) {
        if self.known(now).is_none_or(|known| known.wanted <= wanted) {
            self.known = Some(Known { wanted, at: now, protocol: protocol.cloned() });
        }
    }

    fn known(&self, now: Instant) -> Option<&Known> {
        self.known.as_ref().filter(|known| now.saturating_duration_since(known.at) <= KNOWN_FOR)
    }

    /// Whether a stream of `protocol` will need a larger window than it has, since one has needed it:
    /// it can be told at once, and not only when some of its data have been read.
    pub(super) fn foresees(&self, protocol: &ProtocolId, now: Instant) -> bool {
        let known = self.known(now);
        known.is_some_and(|known| {
            known.protocol.as_ref() == Some(protocol) && known.wanted > WINDOW_INITIAL
        })
    }

    /// The window that a stream begins with, in bytes: what is known, but no more than three quarters of
    /// what the connection has left, for those that come later.
    pub(super) fn first(&self, now: Instant) -> u32 {
        let share = self.growth_max.saturating_sub(self.growth) / 4 * 3;
        self.known(now)
            .map_or(0, |known| known.wanted)
            .min(u32::try_from(share).unwrap_or(u32::MAX))
    }

    /// Gives back what a window had grown by.
    pub(super) fn shrink(&mut self, bytes: u32) {
        debug_assert!(u64::from(bytes) <= self.growth, "the total counts every window");
        self.growth = self.growth.saturating_sub(bytes.into());
        self.host.growth_left.fetch_add(bytes.into(), Relaxed);
    }

    /// Takes the first window of a stream of the peer's: that is promised by the protocol, and can
    /// only be refused together with the stream. What this side opens is its own choice.
    pub(super) fn begin_inbound(&mut self) -> bool {
        let granted = take(&self.host.streams_left, 1, self.inbound);
        self.inbound += granted;
        granted > 0
    }

    pub(super) fn end_inbound(&mut self) {
        self.inbound = self.inbound.saturating_sub(1);
        self.host.streams_left.fetch_add(1, Relaxed);
    }

    /// The streams of the peer that are open.
    pub(super) fn inbound(&self) -> usize {
        usize::try_from(self.inbound).unwrap_or(usize::MAX)
    }

    /// The bytes that windows have grown by.
    #[cfg(test)]
    pub(super) fn growth(&self) -> u64 {
        self.growth
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        self.host.growth_left.fetch_add(self.growth, Relaxed);
        self.host.streams_left.fetch_add(self.inbound, Relaxed);
    }
}
