//! The form in which a [`Store`](p2p_core::Store) keeps a peer.
//!
//! Lifetimes are kept by the wall clock, which may jump. Whatever it does, an address that is read
//! lives at most as long as one that has just been heard, and none has been heard in the future.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use p2p_core::{
    Multiaddr, PeerId, PeerRecord, ProtocolId, PublicKey, STORE_ENTRY_LEN_MAX, decode_multiaddr,
};
use prost::Message;

use crate::{
    entry_proto as proto,
    identify::PROTOCOLS_MAX,
    peerstore::{AddrSource, KnownAddr, KnownPeer, LIFETIME},
};

/// One moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) wall: SystemTime,
}

impl Moment {
    /// A time of the host's clock as milliseconds since 1970.
    fn to_wall(self, time: Instant) -> u64 {
        let later = self.wall.checked_add(time.saturating_duration_since(self.now));
        let at = later.and_then(|at| at.checked_sub(self.now.saturating_duration_since(time)));
        let since = at.unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn wall_millis(self) -> u64 {
        self.to_wall(self.now)
    }

    /// When an address is forgotten that has until `millis`; `None` when that is over.
    fn expiry(self, millis: u64) -> Option<Instant> {
        let left = millis.checked_sub(self.wall_millis()).filter(|left| *left > 0)?;
        Some(self.now + Duration::from_millis(left).min(LIFETIME))
    }

    /// When a peer was heard of.
    fn past(self, millis: u64) -> Instant {
        let age = Duration::from_millis(self.wall_millis().saturating_sub(millis));
        self.now.checked_sub(age).unwrap_or(self.now)
    }
}

/// Writes what is known of a peer; `None` where it is too long to be kept.
pub(crate) fn encode(
    known: &KnownPeer,
    connected: bool,
    heard: Instant,
    at: Moment,
) -> Option<Bytes> {
    let address = |known: &KnownAddr| proto::Address {
        addr: Some(known.addr.to_vec()),
        source: Some(number_of(known.source)),
        expires: known.expires.filter(|_| !connected).map(|expires| at.to_wall(expires)),
    };
    let entry = proto::PeerEntry {
        addresses: known.addrs.iter().map(address).collect(),
        public_key: known.public_key.as_ref().map(PublicKey::to_protobuf),
        protocols: known.protocols.iter().map(ToString::to_string).collect(),
        agent: Some(known.agent.clone()),
        record: known.record.as_ref().map(|(_, envelope)| envelope.to_vec()),
        heard: Some(at.to_wall(heard)),
    };
    (entry.encoded_len() <= STORE_ENTRY_LEN_MAX).then(|| entry.encode_to_vec().into())
}

/// What an entry says.
#[derive(Clone, Debug)]
pub(crate) struct Decoded {
    pub(crate) known: KnownPeer,
    pub(crate) heard: Instant,
    /// An address has its life from now on, so that the entry is to be written again.
    pub(crate) renewed: bool,
}

/// Reads an entry, and believes no more of it than a peer could prove: a key must be that of the
/// peer id, a record is verified anew, and an address counts as signed only where that record has
/// it. What is not valid is left out; `None` where nothing is.
pub(crate) fn decode(peer: &PeerId, bytes: &[u8], at: Moment) -> Option<Decoded> {
    if bytes.len() > STORE_ENTRY_LEN_MAX {
        return None;
    }
    let entry = proto::PeerEntry::decode(bytes).ok()?;
    let key = entry.public_key.and_then(|key| PublicKey::from_protobuf(&key).ok());
    let record = entry.record.and_then(|envelope| {
        let record = PeerRecord::open(&envelope).ok().filter(|record| record.peer() == peer)?;
        Some((record, Bytes::from(envelope)))
    });
    let signed = record.as_ref().map_or(&[][..], |(record, _)| record.addrs());
    let user = number_of(AddrSource::User);
    let lasting = |addr: &proto::Address| addr.expires.is_none() && addr.source != Some(user);
    let renewed = entry.addresses.iter().any(lasting);
    let addrs = entry.addresses.into_iter().filter_map(|addr| read_addr(addr, signed, at));
    let protocols = entry.protocols.iter().filter_map(|name| ProtocolId::new(name).ok());
    let mut known = KnownPeer {
        addrs: Vec::new(),
        public_key: key.filter(|key| key.peer_id() == *peer),
        protocols: protocols.take(PROTOCOLS_MAX).collect(),
        agent: entry.agent.unwrap_or_default(),
        record: record.as_ref().map(|(record, envelope)| (record.seq(), envelope.clone())),
    };
    for addr in addrs {
        known.learn(&addr.addr, addr.source, addr.expires);
    }
    (known != KnownPeer::default()).then(|| Decoded {
        known,
        heard: at.past(entry.heard.unwrap_or_default()),
        renewed,
    })
}

/// An address of an entry, unless its time is over. One that was written while its peer was
/// connected has its whole life before it.
fn read_addr(addr: proto::Address, signed: &[Multiaddr], at: Moment) -> Option<KnownAddr> {
    let bare = decode_multiaddr(&addr.addr?).ok().filter(|addr| !addr.is_empty())?;
    let mut source = source_of(addr.source.unwrap_or_default());
    if source == AddrSource::Record && !signed.contains(&bare) {
        source = AddrSource::Identify;
    }
    let expires = match (source, addr.expires) {
        (AddrSource::User, _) => None,
        (_, None) => Some(at.now + LIFETIME),
        (_, Some(millis)) => Some(at.expiry(millis)?),
    };
    Some(KnownAddr { addr: bare, source, expires })
}

fn number_of(source: AddrSource) -> u32 {
    match source {
        AddrSource::Identify => 1,
        AddrSource::Record => 2,
        AddrSource::Dialed => 3,
        AddrSource::User => 4,
    }
}

/// A number that is not known is of a source that is not.
fn source_of(number: u32) -> AddrSource {
    match number {
        2 => AddrSource::Record,
        3 => AddrSource::Dialed,
        4 => AddrSource::User,
        _ => AddrSource::Identify,
    }
}

#[cfg(test)]
mod tests {
    use p2p_core::Keypair;

    use super::*;

    fn keypair() -> Keypair {
        Keypair::from_ed25519_seed(&[7; 32])
    }

    fn addr(port: u16) -> Multiaddr {
        format!("/ip4/1.2.3.4/tcp/{port}").parse().unwrap()
    }

    fn at(wall_secs: u64) -> Moment {
        let now = tokio::time::Instant::now().into_std() + Duration::from_secs(1_000_000);
        Moment { now, wall: UNIX_EPOCH + Duration::from_secs(wall_secs) }
    }

    /// One address of each source, and everything else that is kept.
    fn full(at: Moment) -> KnownPeer {
        let record = PeerRecord::new(keypair().public().peer_id(), 5, [addr(2)]);
        let envelope = record.seal(&keypair()).unwrap().as_bytes().clone();
        let known = |port, source, expires| KnownAddr { addr: addr(port), source, expires };
        KnownPeer {
            addrs: vec![
                known(4, AddrSource::User, None),
                known(3, AddrSource::Dialed, Some(at.now + LIFETIME)),
                known(2, AddrSource::Record, Some(at.now + LIFETIME / 2)),
                known(1, AddrSource::Identify, Some(at.now + LIFETIME / 4)),
            ],
            public_key: Some(keypair().public()),
            protocols: vec![ProtocolId::from_static("/a/1"), ProtocolId::from_static("/b/1")],
            agent: "agent".into(),
            record: Some((5, envelope)),
        }
    }

    fn read(bytes: &[u8], at: Moment) -> Decoded {
        decode(&keypair().public().peer_id(), bytes, at).unwrap()
    }

    fn ports(known: &KnownPeer) -> Vec<Multiaddr> {
        known.addrs.iter().map(|known| known.addr.clone()).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let then = at(2_000_000_000);
        let known = full(then);
        let bytes = encode(&known, false, then.now - LIFETIME, then).unwrap();
        let decoded = read(&bytes, then);
        assert_eq!((&decoded.known, decoded.heard), (&known, then.now - LIFETIME));
        // The host's clock began anew, and a quarter of an hour has passed.
        let later = Moment { now: then.now - LIFETIME * 3, ..at(2_000_000_000 + 900) };
        let decoded = read(&bytes, later);
        assert_eq!(ports(&decoded.known), [addr(4), addr(3), addr(2)]);
        assert_eq!(decoded.known.addrs[1].expires, Some(later.now + LIFETIME * 3 / 4));
        assert_eq!(decoded.heard, later.now - LIFETIME * 5 / 4);
    }

    #[test]
    fn a_clock_that_jumps_neither_keeps_addresses_for_ever_nor_loses_what_has_no_lifetime() {
        let then = at(2_000_000_000);
        let bytes = encode(&full(then), false, then.now, then).unwrap();
        for wall in [0, 1, 1_999_990_000] {
            let back = at(wall);
            let decoded = read(&bytes, back);
            assert_eq!(ports(&decoded.known).len(), 4);
            let longest = decoded.known.addrs.iter().filter_map(|known| known.expires).max();
            assert_eq!((longest, decoded.heard), (Some(back.now + LIFETIME), back.now));
        }
        for wall in [2_000_003_600, 9_000_000_000, u64::MAX >> 12] {
            let decoded = read(&bytes, at(wall));
            assert_eq!(ports(&decoded.known), [addr(4)], "{wall}");
            assert_eq!(decoded.known.record, full(then).record);
        }
        // Written before 1970, by a machine that has no clock.
        let before = Moment { wall: UNIX_EPOCH - LIFETIME * 2, ..at(0) };
        let bytes = encode(&full(before), false, before.now, before).unwrap();
        assert_eq!(ports(&read(&bytes, at(2_000_000_000)).known), [addr(4)]);
    }

    #[test]
    fn an_address_of_a_connected_peer_has_an_hour_from_the_start() {
        let then = at(2_000_000_000);
        let bytes = encode(&full(then), true, then.now, then).unwrap();
        let later = at(2_100_000_000);
        let expiries: Vec<_> =
            read(&bytes, later).known.addrs.iter().map(|known| known.expires).collect();
        let hour = Some(later.now + LIFETIME);
        assert_eq!(expiries, [None, hour, hour, hour]);
    }

    #[test]
    fn env_04_what_is_signed_is_verified_when_it_is_read() {
        let then = at(2_000_000_000);
        let other = Keypair::from_ed25519_seed(&[8; 32]);
        let forge = |change: &dyn Fn(&mut KnownPeer)| {
            let mut known = full(then);
            change(&mut known);
            read(&encode(&known, false, then.now, then).unwrap(), then).known
        };
        // The key of another peer.
        assert_eq!(forge(&|known| known.public_key = Some(other.public())).public_key, None);
        // A record with one bit flipped, and a good one that another peer has signed.
        let flipped = forge(&|known| {
            let (_, envelope) = known.record.take().unwrap();
            let mut bytes = envelope.to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            known.record = Some((5, bytes.into()));
        });
        let record = PeerRecord::new(other.public().peer_id(), 9, [addr(2)]);
        let envelope = record.seal(&other).unwrap().as_bytes().clone();
        let others = forge(&|known| known.record = Some((9, envelope.clone())));
        for known in [flipped, others] {
            assert_eq!(known.record, None);
            let second = known.addrs.iter().find(|known| known.addr == addr(2)).unwrap();
            assert_eq!(second.source, AddrSource::Identify);
        }
        // An address that the record does not have, and a number that it does not.
        let known = forge(&|known| {
            known.addrs[2].addr = addr(7);
            known.record.as_mut().unwrap().0 = 700;
        });
        assert_eq!(known.record.unwrap().0, 5);
        let seventh = known.addrs.iter().find(|known| known.addr == addr(7)).unwrap();
        assert_eq!(seventh.source, AddrSource::Identify);
    }

    #[test]
    fn what_is_not_an_entry_is_nothing() {
        let (peer, then) = (keypair().public().peer_id(), at(2_000_000_000));
        let whole = encode(&full(then), false, then.now, then).unwrap();
        for len in 0..whole.len() {
            if let Some(decoded) = decode(&peer, &whole[..len], then) {
                assert!(
                    decoded.known.record.is_none_or(|record| Some(record) == full(then).record)
                );
            }
        }
        assert!(decode(&peer, b"", then).is_none());
        let mut long = full(then);
        long.agent = "x".repeat(STORE_ENTRY_LEN_MAX);
        assert!(encode(&long, false, then.now, then).is_none());
        assert!(decode(&peer, &vec![0x22; STORE_ENTRY_LEN_MAX + 1], then).is_none());
    }

    #[test]
    fn what_is_read_is_bounded_as_what_is_heard() {
        let then = at(2_000_000_000);
        let address = |port| proto::Address {
            addr: Some(addr(port).to_vec()),
            source: Some(99),
            expires: Some(u64::MAX),
        };
        let entry = proto::PeerEntry {
            addresses: (0..1000).map(address).collect(),
            heard: Some(u64::MAX),
            ..proto::PeerEntry::default()
        };
        let decoded = read(&entry.encode_to_vec(), then);
        assert_eq!((decoded.known.addrs.len(), decoded.heard), (64, then.now));
        let kept = decoded.known.addrs[0].clone();
        assert_eq!((kept.source, kept.expires), (AddrSource::Identify, Some(then.now + LIFETIME)));
    }
}
