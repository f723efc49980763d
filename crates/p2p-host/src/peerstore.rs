//! What is known of peers: where they can be reached, who they are, what they serve.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use p2p_core::{
    AddrExt, ConnectionInfo, Multiaddr, PeerId, ProtocolId, PublicKey, Role, addrs_for,
};
use tokio::sync::Notify;

use crate::{
    entry::{self, Decoded, Moment},
    identify::PeerInfo,
};

/// How long an address is kept after its peer has named it, or was last connected.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3600);
/// Peers that are known; the one that was heard of the longest ago makes room. A connected peer,
/// or one with an address that the application gave, does so only where there is no other.
const PEERS_MAX: usize = 4096;
/// Addresses of one peer: the application's first, then those that worked, then its own words.
const ADDRS_MAX: usize = 64;
/// What all peers take, in bytes.
const BYTES_MAX: usize = 16 << 20;
/// What a peer, an address and a protocol's name take beside their own bytes.
const OVERHEAD: usize = 128;
/// What is written to a store at once: so many peers, or entries of so many bytes and one more.
const BATCH_PEERS_MAX: usize = 1024;
const BATCH_LEN_MAX: usize = 4 << 20;

/// Who says that a peer can be reached at an address, the least reliable first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AddrSource {
    /// The peer, without a signature.
    Identify,
    /// The peer's signed record.
    Record,
    /// A dial that reached it there.
    Dialed,
    /// The application. It is kept until [`Peerstore::remove`], or until there are too many.
    User,
}

/// An address of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownAddr {
    /// The address, without `/p2p`.
    pub addr: Multiaddr,
    /// Who says so.
    pub source: AddrSource,
    /// When it is forgotten, unless the peer is connected; `None` for the application's.
    pub expires: Option<Instant>,
}

/// What is known of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownPeer {
    /// Where it can be reached, the most reliable first; at most 64.
    pub addrs: Vec<KnownAddr>,
    /// Its public key, proven by a secure channel.
    pub public_key: Option<PublicKey>,
    /// The protocols that it says it serves.
    pub protocols: Vec<ProtocolId>,
    /// The software it says it runs.
    pub agent: String,
    /// Its newest signed record: the number, and the envelope that others can verify.
    pub record: Option<(u64, Bytes)>,
}

impl KnownPeer {
    fn len(&self) -> usize {
        let addrs = self.addrs.iter().map(|known| known.addr.len() + OVERHEAD);
        let protocols = self.protocols.iter().map(|name| name.as_str().len() + OVERHEAD);
        let record = self.record.as_ref().map_or(0, |(_, envelope)| envelope.len());
        let key = self.public_key.as_ref().map_or(0, |key| key.to_protobuf().len());
        addrs.chain(protocols).sum::<usize>() + record + key + self.agent.len() + OVERHEAD
    }

    /// Adds an address, or renews it. What is known from better sources stays so.
    pub(crate) fn learn(&mut self, addr: &Multiaddr, source: AddrSource, expires: Option<Instant>) {
        if let Some(known) = self.addrs.iter_mut().find(|known| known.addr == *addr) {
            known.source = known.source.max(source);
            known.expires = if known.source == AddrSource::User { None } else { expires };
        } else {
            self.addrs.push(KnownAddr { addr: addr.clone(), source, expires });
        }
        // The newest of the best sources stay.
        self.addrs.sort_by_key(|known| std::cmp::Reverse((known.source, known.expires)));
        self.addrs.truncate(ADDRS_MAX);
    }

    fn has_user_addr(&self) -> bool {
        self.addrs.iter().any(|known| known.source == AddrSource::User)
    }
}

/// What a host knows of peers. Cheap to clone; every clone is the same.
#[derive(Clone, Debug)]
pub struct Peerstore {
    own: PeerId,
    peers: Arc<Mutex<Peers>>,
    /// Something is to be written to the store.
    changed: Arc<Notify>,
}

impl Peerstore {
    pub(crate) fn new(own: PeerId) -> Self {
        Self { own, peers: Arc::default(), changed: Arc::default() }
    }

    /// The time by the host's clock.
    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn moment() -> Moment {
        Moment { now: Self::now(), wall: SystemTime::now() }
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and has the store told.
    fn change<T>(&self, change: impl FnOnce(&mut Peers, Instant) -> T) -> T {
        let (changed, unsaved) = {
            let mut peers = self.lock();
            (change(&mut peers, Self::now()), peers.is_unsaved())
        };
        if unsaved {
            self.changed.notify_one();
        }
        changed
    }

    /// Takes what a store has kept. From here on it is told of changes.
    pub(crate) fn load(&self, kept: Vec<(PeerId, Bytes)>) {
        let at = Self::moment();
        let stored = kept.iter().map(|(peer, _)| *peer).collect();
        let others = kept.into_iter().filter(|(peer, _)| *peer != self.own);
        // Signatures are verified before the lock is taken.
        let read = |(peer, bytes): (PeerId, Bytes)| Some((peer, entry::decode(&peer, &bytes, at)?));
        let decoded = others.filter_map(read).collect();
        self.change(|peers, _| peers.load(stored, decoded));
    }

    /// Waits until something is to be written.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn wait_unsaved(&self) {
        while !self.lock().is_unsaved() {
            self.changed.notified().await;
        }
    }

    /// The next entries to be written, until [`Peerstore::saved`] says how that went. Empty when
    /// all is written.
    pub(crate) fn unsaved(&self) -> Vec<(PeerId, Option<Bytes>)> {
        self.lock().unsaved(Self::moment())
    }

    pub(crate) fn saved(&self, written: bool) {
        self.lock().saved(written);
    }

    /// Adds addresses at which a peer can be reached, for [`Host::open`](crate::Host::open) by its
    /// id alone. An address that ends in another peer's `/p2p` is left out, and so is what goes
    /// beyond 64 addresses.
    pub fn add(&self, peer: PeerId, addrs: impl IntoIterator<Item = Multiaddr>) {
        if peer == self.own {
            return;
        }
        let of_peer = |addr: Multiaddr| {
            let (bare, named) = addr.split_peer().ok()?;
            (named.is_none_or(|named| named == peer) && !bare.is_empty()).then_some(bare)
        };
        let addrs: Vec<Multiaddr> = addrs.into_iter().filter_map(of_peer).take(ADDRS_MAX).collect();
        self.change(|peers, now| peers.add(peer, &addrs, now));
    }

    /// What is known of a peer.
    #[must_use]
    pub fn get(&self, peer: &PeerId) -> Option<KnownPeer> {
        self.lock().get(peer, Self::now())
    }

    /// The peers of which something is known, sorted.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerId> {
        let mut peers: Vec<PeerId> = self.lock().known.keys().copied().collect();
        peers.sort_unstable();
        peers
    }

    pub(crate) fn connected(&self, info: &ConnectionInfo) {
        self.change(|peers, now| peers.handle_connected(info, now));
    }

    pub(crate) fn disconnected(&self, peer: PeerId) {
        self.change(|peers, now| peers.handle_disconnected(peer, now));
    }

    pub(crate) fn identified(&self, peer: PeerId, remote: &Multiaddr, info: &PeerInfo) {
        self.change(|peers, now| peers.handle_identified(peer, remote, info, now));
    }

    /// Where a peer can be dialed, the most reliable address first.
    pub(crate) fn addrs(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.lock().addrs(peer, Self::now())
    }

    /// Forgets a peer. What is connected is heard of again. False when nothing was known.
    pub fn remove(&self, peer: &PeerId) -> bool {
        self.change(|peers, _| peers.remove(peer))
    }
}

/// The peers and their bounds.
#[derive(Debug, Default)]
struct Peers {
    known: HashMap<PeerId, Entry>,
    /// What all of them take.
    bytes: usize,
    /// What of them a store does not have yet, where there is one.
    saving: Option<Saving>,
}

/// How far a store is behind. What is dirty is known, in the store, or on its way there, so that
/// it does not grow however long the store takes nothing.
#[derive(Debug, Default)]
struct Saving {
    /// What the store has.
    stored: HashSet<PeerId>,
    /// What has changed since it was written.
    dirty: HashSet<PeerId>,
    /// What is being written, and whether it is set or removed.
    writing: HashMap<PeerId, bool>,
}

impl Saving {
    fn mark(&mut self, peer: PeerId, known: bool) {
        if known || self.stored.contains(&peer) || self.writing.contains_key(&peer) {
            self.dirty.insert(peer);
        } else {
            self.dirty.remove(&peer);
        }
    }
}

#[derive(Debug)]
struct Entry {
    peer: KnownPeer,
    bytes: usize,
    /// How many connections there are.
    connected: usize,
    heard: Instant,
}

impl Peers {
    fn add(&mut self, peer: PeerId, addrs: &[Multiaddr], now: Instant) {
        self.change(peer, now, |entry| {
            for addr in addrs {
                entry.peer.learn(addr, AddrSource::User, None);
            }
        });
    }

    /// There is a connection to a peer: until it ends, nothing of the peer expires.
    fn handle_connected(&mut self, info: &ConnectionInfo, now: Instant) {
        self.change(info.peer(), now, |entry| {
            entry.connected += 1;
            entry.peer.public_key = Some(info.public_key().clone());
            if info.role() == Role::Initiator {
                entry.peer.learn(info.remote(), AddrSource::Dialed, Some(now + LIFETIME));
            }
        });
    }

    /// A connection to a peer has ended; after the last one, its addresses begin to expire.
    fn handle_disconnected(&mut self, peer: PeerId, now: Instant) {
        // The application may have had it forgotten meanwhile.
        if !self.known.contains_key(&peer) {
            return;
        }
        self.change(peer, now, |entry| {
            entry.connected = entry.connected.saturating_sub(1);
            for known in &mut entry.peer.addrs {
                known.expires = known.expires.map(|_| now + LIFETIME);
            }
        });
    }

    /// A peer that is reached at `remote` has said who it is. Its addresses replace those that it
    /// named before, unless they come from an older record than the known one; those that cannot
    /// be dialed from where it is seen are left out (IDENT-06).
    fn handle_identified(
        &mut self,
        peer: PeerId,
        remote: &Multiaddr,
        info: &PeerInfo,
        now: Instant,
    ) {
        self.change(peer, now, |entry| {
            let known = &mut entry.peer;
            known.public_key = Some(info.public_key.clone());
            known.protocols.clone_from(&info.protocols);
            known.agent.clone_from(&info.agent);
            let seq = known.record.as_ref().map(|(seq, _)| *seq);
            if info.record_seq.is_some_and(|offered| seq.is_some_and(|seq| offered < seq)) {
                return;
            }
            let source = match (info.record_seq, &info.record) {
                (Some(offered), Some(envelope)) => {
                    known.record = Some((offered, envelope.clone()));
                    AddrSource::Record
                }
                (Some(_), None) | (None, _) => AddrSource::Identify,
            };
            known.addrs.retain(|known| known.source >= AddrSource::Dialed);
            for addr in addrs_for(remote, &info.listen_addrs) {
                known.learn(&addr, source, Some(now + LIFETIME));
            }
        });
    }

    fn get(&self, peer: &PeerId, now: Instant) -> Option<KnownPeer> {
        let entry = self.known.get(peer)?;
        let mut known = entry.peer.clone();
        if entry.connected == 0 {
            known.addrs.retain(|known| known.expires.is_none_or(|expires| expires > now));
        }
        Some(known)
    }

    /// Where a peer can be dialed, the most reliable address first.
    fn addrs(&self, peer: &PeerId, now: Instant) -> Vec<Multiaddr> {
        let known = self.get(peer, now).unwrap_or_default();
        known.addrs.into_iter().map(|known| known.addr).collect()
    }

    fn remove(&mut self, peer: &PeerId) -> bool {
        let removed = self.known.remove(peer);
        self.bytes -= removed.as_ref().map_or(0, |entry| entry.bytes);
        if let Some(saving) = &mut self.saving {
            saving.mark(*peer, false);
        }
        removed.is_some()
    }

    /// Takes what a store has kept, within the bounds. What is left out is to be removed there.
    fn load(&mut self, stored: HashSet<PeerId>, mut read: Vec<(PeerId, Decoded)>) {
        read.sort_unstable_by_key(|(_, decoded)| decoded.heard);
        let mut dirty = HashSet::new();
        for (peer, Decoded { known, heard, renewed }) in read {
            self.change(peer, heard, |entry| entry.peer = known);
            if renewed {
                dirty.insert(peer);
            }
        }
        dirty.extend(stored.iter().filter(|peer| !self.known.contains_key(peer)));
        self.saving = Some(Saving { stored, dirty, writing: HashMap::new() });
    }

    fn is_unsaved(&self) -> bool {
        self.saving.as_ref().is_some_and(|saving| !saving.dirty.is_empty())
    }

    fn unsaved(&mut self, at: Moment) -> Vec<(PeerId, Option<Bytes>)> {
        let Some(saving) = &mut self.saving else { return Vec::new() };
        let (mut batch, mut len) = (Vec::new(), 0);
        for peer in &saving.dirty {
            if batch.len() == BATCH_PEERS_MAX || len > BATCH_LEN_MAX {
                break;
            }
            let entry = self.known.get(peer);
            let encode = |e: &Entry| entry::encode(&e.peer, e.connected > 0, e.heard, at);
            let bytes = entry.and_then(encode);
            len += bytes.as_ref().map_or(0, Bytes::len);
            batch.push((*peer, bytes));
        }
        saving.writing = batch.iter().map(|(peer, bytes)| (*peer, bytes.is_some())).collect();
        for (peer, _) in &batch {
            saving.dirty.remove(peer);
        }
        batch
    }

    fn saved(&mut self, written: bool) {
        let Some(saving) = &mut self.saving else { return };
        for (peer, set) in std::mem::take(&mut saving.writing) {
            match (written, set) {
                (true, true) => {
                    saving.stored.insert(peer);
                }
                (true, false) => {
                    saving.stored.remove(&peer);
                }
                (false, _) => saving.mark(peer, self.known.contains_key(&peer)),
            }
        }
    }

    /// Changes what is known of a peer, and keeps the bounds.
    fn change(&mut self, peer: PeerId, now: Instant, change: impl FnOnce(&mut Entry)) {
        let new = || Entry { peer: KnownPeer::default(), bytes: 0, connected: 0, heard: now };
        let entry = self.known.entry(peer).or_insert_with(new);
        entry.heard = now;
        change(entry);
        let before = std::mem::replace(&mut entry.bytes, entry.peer.len());
        self.bytes = self.bytes - before + entry.bytes;
        if let Some(saving) = &mut self.saving {
            saving.mark(peer, true);
        }
        while self.known.len() > PEERS_MAX || self.bytes > BYTES_MAX {
            let rank = |(peer, e): &(&PeerId, &Entry)| {
                (e.connected > 0, e.peer.has_user_addr(), e.heard, **peer)
            };
            let others = self.known.iter().filter(|(other, _)| **other != peer);
            let Some((least, _)) = others.min_by_key(rank) else { return };
            let least = *least;
            self.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use p2p_core::Keypair;

    use super::*;

    fn key(number: u32) -> PublicKey {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        Keypair::from_ed25519_seed(&seed).public()
    }

    fn peer(number: u32) -> PeerId {
        key(number).peer_id()
    }

    fn addr(port: usize) -> Multiaddr {
        format!("/ip4/1.2.3.4/tcp/{port}").parse().unwrap()
    }

    fn named(number: u32, ports: &[usize], seq: Option<u64>) -> PeerInfo {
        let mut info = PeerInfo::silent(key(number));
        info.listen_addrs = ports.iter().map(|port| addr(*port)).collect();
        (info.record_seq, info.record) = (seq, seq.map(|_| Bytes::from_static(b"envelope")));
        info
    }

    fn identified(peers: &mut Peers, info: &PeerInfo, now: Instant) {
        peers.handle_identified(info.public_key.peer_id(), &addr(1), info, now);
    }

    fn dialed(number: u32, port: usize) -> ConnectionInfo {
        ConnectionInfo::new(Role::Initiator, key(number), None, addr(port))
    }

    #[test]
    fn addresses_expire_an_hour_after_the_connection_and_the_applications_stay() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        peers.add(peer(1), &[addr(1)], now);
        identified(&mut peers, &named(1, &[2], None), now);
        assert_eq!(peers.addrs(&peer(1), now + LIFETIME), [addr(1)]);
        peers.handle_connected(&dialed(1, 3), now);
        let later = now + LIFETIME * 10;
        assert_eq!(peers.addrs(&peer(1), later), [addr(1), addr(3), addr(2)]);
        peers.handle_disconnected(peer(1), later);
        let last = later + LIFETIME - Duration::from_millis(1);
        assert_eq!(peers.addrs(&peer(1), last).len(), 3);
        assert_eq!(peers.addrs(&peer(1), later + LIFETIME), [addr(1)]);
    }

    #[test]
    fn env_06_addresses_of_an_older_record_are_refused() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        identified(&mut peers, &named(1, &[1], None), now);
        identified(&mut peers, &named(1, &[2], Some(5)), now);
        identified(&mut peers, &named(1, &[3], Some(4)), now);
        let known = peers.get(&peer(1), now).unwrap();
        assert_eq!(known.record.unwrap().0, 5);
        let [only] = &known.addrs[..] else { panic!("{:?}", known.addrs) };
        assert_eq!((&only.addr, only.source), (&addr(2), AddrSource::Record));
        identified(&mut peers, &named(1, &[4], Some(6)), now);
        assert_eq!(peers.addrs(&peer(1), now), [addr(4)]);
    }

    #[test]
    fn ident_06_what_cannot_be_dialed_from_here_is_not_kept() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        let mut info = named(1, &[1], None);
        info.listen_addrs.push("/ip4/10.0.0.1/tcp/1".parse().unwrap());
        info.listen_addrs.push("/ip4/127.0.0.1/tcp/1".parse().unwrap());
        identified(&mut peers, &info, now);
        assert_eq!(peers.addrs(&peer(1), now), [addr(1)]);
    }

    #[test]
    fn addresses_are_bounded_and_the_best_sources_stay() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        peers.add(peer(1), &[addr(1)], now);
        for port in 1000..1100 {
            peers.handle_connected(&dialed(1, port), now + Duration::from_secs(port as u64));
        }
        identified(&mut peers, &named(1, &[7], None), now);
        let addrs = peers.addrs(&peer(1), now);
        assert_eq!((addrs.len(), &addrs[0], &addrs[1]), (ADDRS_MAX, &addr(1), &addr(1099)));
        assert!(!addrs.contains(&addr(7)));
    }

    #[test]
    fn peers_are_bounded_and_the_oldest_unused_one_makes_room() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        let max = u32::try_from(PEERS_MAX).unwrap();
        peers.handle_connected(&dialed(0, 1), now);
        peers.add(peer(1), &[addr(1)], now);
        for number in 2..max {
            identified(&mut peers, &named(number, &[1], None), now + LIFETIME);
        }
        identified(&mut peers, &named(2, &[1], None), now + LIFETIME * 2);
        for number in max..max + 2 {
            identified(&mut peers, &named(number, &[1], None), now + LIFETIME * 2);
        }
        assert_eq!(peers.known.len(), PEERS_MAX);
        for kept in [0, 1, 2, max, max + 1] {
            assert!(peers.known.contains_key(&peer(kept)), "{kept}");
        }
    }

    #[test]
    fn bytes_are_bounded_and_counted_back() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        for number in 0..300 {
            let mut info = named(number, &[1], None);
            info.agent = "a".repeat(100_000);
            identified(&mut peers, &info, now + Duration::from_secs(number.into()));
            identified(&mut peers, &info, now + Duration::from_secs(number.into()));
            assert!(peers.bytes <= BYTES_MAX, "{}", peers.bytes);
        }
        assert!((150..=BYTES_MAX / 100_000).contains(&peers.known.len()));
        assert!(peers.known.contains_key(&peer(299)) && !peers.known.contains_key(&peer(0)));
        for number in 0..300 {
            peers.remove(&peer(number));
        }
        assert_eq!(peers.bytes, 0);
    }

    fn moment(now: Instant) -> Moment {
        Moment { now, wall: SystemTime::UNIX_EPOCH + LIFETIME * 1000 }
    }

    #[test]
    fn what_changes_while_it_is_written_is_written_again() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        let at = moment(now);
        peers.add(peer(1), &[addr(1)], now);
        assert!(!peers.is_unsaved() && peers.unsaved(at).is_empty());
        peers.load(HashSet::new(), Vec::new());
        for number in 1..4 {
            peers.add(peer(number), &[addr(1)], now);
        }
        assert_eq!(peers.unsaved(at).len(), 3);
        assert!(!peers.is_unsaved());
        peers.add(peer(1), &[addr(2)], now);
        assert!(peers.remove(&peer(2)));
        peers.saved(true);
        let mut batch = peers.unsaved(at);
        batch.sort_by_key(|(_, entry)| entry.is_some());
        let [(gone, None), (changed, Some(entry))] = &batch[..] else { panic!("{batch:?}") };
        assert_eq!((*gone, *changed), (peer(2), peer(1)));
        assert_eq!(entry::decode(changed, entry, at).unwrap().known.addrs.len(), 2);
        // What was not written is to be written still.
        peers.saved(false);
        assert_eq!(peers.unsaved(at).len(), 2);
        peers.saved(true);
        assert!(!peers.is_unsaved());
        let saving = peers.saving.as_ref().unwrap();
        assert_eq!(saving.stored, HashSet::from([peer(1), peer(3)]));
    }

    #[test]
    fn what_a_store_lacks_is_bounded_however_long_it_fails() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        let stored: HashSet<PeerId> = (0..10).map(peer).collect();
        peers.load(stored.clone(), Vec::new());
        let max = u32::try_from(PEERS_MAX).unwrap();
        for number in 100..100 + max * 3 {
            peers.add(peer(number), &[addr(1)], now + Duration::from_secs(number.into()));
            if number % 500 == 0 {
                peers.unsaved(moment(now));
                peers.saved(false);
            }
        }
        let saving = peers.saving.as_ref().unwrap();
        assert_eq!((saving.dirty.len(), saving.stored.len()), (PEERS_MAX + 10, 10));
        // All that is known is written in the end, and what the store had before is removed.
        loop {
            let batch = peers.unsaved(moment(now));
            assert!(batch.len() <= BATCH_PEERS_MAX);
            if batch.is_empty() {
                break;
            }
            peers.saved(true);
        }
        let known: HashSet<PeerId> = peers.known.keys().copied().collect();
        assert_eq!(peers.saving.unwrap().stored, known);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        peers.load(HashSet::new(), Vec::new());
        for number in 0..100 {
            let mut info = named(number, &[1], None);
            info.agent = "x".repeat(100_000);
            identified(&mut peers, &info, now);
        }
        let len = |batch: &[(PeerId, Option<Bytes>)]| -> usize {
            batch.iter().filter_map(|(_, entry)| Some(entry.as_ref()?.len())).sum()
        };
        let first = peers.unsaved(moment(now));
        assert!((BATCH_LEN_MAX..BATCH_LEN_MAX + 200_000).contains(&len(&first)), "{}", len(&first));
        peers.saved(true);
        let second = peers.unsaved(moment(now));
        assert!(first.len() < 100 && !second.is_empty());
    }

    #[test]
    fn what_is_loaded_is_bounded_and_the_newest_stay() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        let max = u32::try_from(PEERS_MAX).unwrap();
        let entry = |number: u32| {
            let mut known = KnownPeer::default();
            known.learn(&addr(1), AddrSource::Dialed, Some(now + LIFETIME));
            let heard = now + Duration::from_secs(number.into());
            (peer(number), Decoded { known, heard, renewed: number == max })
        };
        let read: Vec<_> = (0..max + 10).map(entry).collect();
        peers.load((0..max + 10).map(peer).collect(), read);
        assert_eq!(peers.known.len(), PEERS_MAX);
        assert!(!peers.known.contains_key(&peer(9)) && peers.known.contains_key(&peer(10)));
        let batch = peers.unsaved(moment(now));
        let removed = batch.iter().filter(|(_, entry)| entry.is_none()).count();
        assert_eq!((batch.len(), removed), (11, 10));
    }
}
