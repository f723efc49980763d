use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::{
    AddrExt, Envelope, EnvelopeError, Keypair, Multiaddr, PeerId, PeerIdError, decode_multiaddr,
    envelope::Sealed, envelope_proto as proto, multiaddr::Protocol,
};

/// What rust-libp2p's default constructors still write, after the text of RFC 0003 (ENV-07).
const LEGACY_DOMAIN: &str = "libp2p-routing-state";
const LEGACY_PAYLOAD_TYPE: &[u8] = b"/libp2p/routing-state-record";

/// The addresses of a peer, to be signed by it (specs, RFC/0003-routing-records.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    peer: PeerId,
    seq: u64,
    addrs: Vec<Multiaddr>,
}

/// Why bytes are not a peer's record of itself, or none could be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerRecordError {
    /// The envelope is not valid, or could not be made.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The peer's envelope holds another kind of thing.
    #[error("an envelope of type {0:02x?} does not hold a peer record")]
    PayloadType(Vec<u8>),
    /// The payload is not a peer record message.
    #[error("the peer record is not a protobuf peer record message: {0}")]
    Encoding(String),
    /// The peer id in the record is not valid.
    #[error("the peer record's peer id: {0}")]
    PeerId(#[source] PeerIdError),
    /// The record is of another peer than the one whose key signs it.
    #[error("the peer record is of {record}, but {signer} signs it")]
    Signer {
        /// The peer that the record is of.
        record: PeerId,
        /// The peer that the key belongs to.
        signer: PeerId,
    },
}

/// Why a record does not replace a known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StaleRecord {
    /// The known record is as new, or newer.
    #[error("the record of {peer} has seq {offered}, but one of seq {known} is known")]
    Seq {
        /// The peer.
        peer: PeerId,
        /// The sequence number of the record that was offered.
        offered: u64,
        /// The sequence number of the known record.
        known: u64,
    },
    /// The known record is of another peer.
    #[error(
        "the record is of {offered} (seq {offered_seq}), the known one of {known} (seq {known_seq})"
    )]
    Peer {
        /// The peer of the record that was offered.
        offered: PeerId,
        /// Its sequence number.
        offered_seq: u64,
        /// The peer of the known record.
        known: PeerId,
        /// Its sequence number.
        known_seq: u64,
    },
}

impl PeerRecord {
    /// What a peer record's signature is for, as every implementation has it (ENV-07).
    pub const DOMAIN: &str = "libp2p-peer-record";
    /// The payload type of an envelope with a peer record: these two bytes, and no varint (ENV-08).
    pub const PAYLOAD_TYPE: &[u8] = &[0x03, 0x01];
    /// How many addresses a record holds. More are left out: no more are kept of one peer.
    pub const ADDRS_MAX: usize = 64;

    /// Makes the record of `peer`. Each address is held without a `/p2p/<peer>` at its end; empty
    /// ones, those that name another peer or two at the end, and those after the first
    /// [`PeerRecord::ADDRS_MAX`] are left out. `seq` is to grow: [`RecordSeq`].
    #[must_use]
    pub fn new(peer: PeerId, seq: u64, addrs: impl IntoIterator<Item = Multiaddr>) -> Self {
        let of_peer = |addr: Multiaddr| {
            let (bare, named) = addr.split_peer().ok()?;
            let named_twice = matches!(bare.iter().last(), Some(Protocol::P2p(_)));
            let usable = named.is_none_or(|named| named == peer) && !named_twice;
            (usable && !bare.is_empty()).then_some(bare)
        };
        let addrs = addrs.into_iter().filter_map(of_peer).take(Self::ADDRS_MAX).collect();
        Self { peer, seq, addrs }
    }

    /// Signs the record, in the form that all peers read (ENV-07).
    ///
    /// # Errors
    /// [`PeerRecordError::Signer`] when `key` is not the peer's, and
    /// [`PeerRecordError::Envelope`] when the addresses do not fit
    /// [`Envelope::LEN_MAX`] bytes.
    pub fn seal(&self, key: &Keypair) -> Result<Envelope, PeerRecordError> {
        self.check_signer(key.public().peer_id())?;
        let info = |addr: &Multiaddr| proto::AddressInfo { multiaddr: Some(addr.to_vec()) };
        let payload = proto::PeerRecord {
            peer_id: Some(self.peer.as_bytes().to_vec()),
            seq: Some(self.seq),
            addresses: self.addrs.iter().map(info).collect(),
        }
        .encode_to_vec();
        Ok(Envelope::seal(key, Self::DOMAIN, Self::PAYLOAD_TYPE, &payload)?)
    }

    /// Opens an envelope with the record that its signer has made of itself, in the form that all
    /// peers write or in the older one of rust-libp2p (ENV-07).
    ///
    /// The signature is verified first, then the peer id compared (ENV-04). Addresses that do not
    /// parse are left out (ENV-09), and so is what [`PeerRecord::new`] leaves out. `bytes` are
    /// what can be passed on (ENV-10).
    ///
    /// # Errors
    /// [`PeerRecordError`]: the peer's fault in every case.
    pub fn open(bytes: &[u8]) -> Result<Self, PeerRecordError> {
        let sealed = Sealed::decode(bytes)?;
        let domain = match sealed.payload_type() {
            Self::PAYLOAD_TYPE => Self::DOMAIN,
            LEGACY_PAYLOAD_TYPE => LEGACY_DOMAIN,
            other => {
                let shown = other.iter().copied().take(LEGACY_PAYLOAD_TYPE.len()).collect();
                return Err(PeerRecordError::PayloadType(shown));
            }
        };
        let envelope = sealed.open(domain)?;
        let message = proto::PeerRecord::decode(envelope.payload())
            .map_err(|e| PeerRecordError::Encoding(e.to_string()))?;
        let peer = PeerId::from_bytes(&message.peer_id.unwrap_or_default())
            .map_err(PeerRecordError::PeerId)?;
        let addr = |info: proto::AddressInfo| decode_multiaddr(&info.multiaddr?).ok();
        let addrs = message.addresses.into_iter().filter_map(addr);
        let record = Self::new(peer, message.seq.unwrap_or_default(), addrs);
        record.check_signer(envelope.public_key().peer_id())?;
        Ok(record)
    }

    fn check_signer(&self, signer: PeerId) -> Result<(), PeerRecordError> {
        if self.peer != signer {
            return Err(PeerRecordError::Signer { record: self.peer, signer });
        }
        Ok(())
    }

    /// Says whether this record is to replace one that is known (ENV-06).
    ///
    /// # Errors
    /// [`StaleRecord`] unless it is of the same peer and its number is higher.
    pub fn supersedes(&self, known: &Self) -> Result<(), StaleRecord> {
        if self.peer != known.peer {
            return Err(StaleRecord::Peer {
                offered: self.peer,
                offered_seq: self.seq,
                known: known.peer,
                known_seq: known.seq,
            });
        }
        if self.seq <= known.seq {
            return Err(StaleRecord::Seq { peer: self.peer, offered: self.seq, known: known.seq });
        }
        Ok(())
    }

    /// Whose record it is.
    #[must_use]
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// Its number: the highest of a peer's records counts (ENV-06). Not a time.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Where the peer says it can be reached; at most [`PeerRecord::ADDRS_MAX`], none empty, none
    /// with a `/p2p` at its end.
    #[must_use]
    pub fn addrs(&self) -> &[Multiaddr] {
        &self.addrs
    }
}

/// Gives the numbers of a peer's own records: each higher than the last, and after a restart
/// higher than before, as long as the clock is right (ENV-06).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordSeq {
    last: u64,
}

impl RecordSeq {
    /// The clock's part of a number stays below this (the year 2262), so that a clock far in the
    /// future does not use the numbers up.
    const CLOCK_MAX: u64 = u64::MAX / 2;

    /// Numbers after `last`, which is that of a record that peers may know; 0 when there is none.
    #[must_use]
    pub fn after(last: u64) -> Self {
        Self { last }
    }

    /// The next number: the nanoseconds of `now` since 1970, or one more than the last when the
    /// clock stands or has gone back. Strictly growing until `u64::MAX`.
    pub fn advance(&mut self, now: SystemTime) -> u64 {
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
        self.last = clock.min(Self::CLOCK_MAX).max(self.last.saturating_add(1));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::{Random, hex, other_key, vector_key};

    const ENVELOPE: &str = "0a24080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fc\
                            e27e120203011a360a260024080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c\
                            3cacf6010f0e42d474fce27e10011a0a0a08047f0000010604d22a40662bd2f6915763c5\
                            ce0b00c736f7a644c581c79759cc8ca0de1b7fe7686a37176c4e3e3da2a06473ea3639c8\
                            b6202ade7c0c8055c7fa03780966db62d0768407";
    const LEGACY_SIGNATURE: &str = "4b72683bee7f4425155562e635f2600f567e110daeb18a0c9310f4c0db2fe292\
                                    6a022e6d95991c12d7c5cc7543f61310cef7f8e1e2925fb0e0a519bd61e7980b";

    fn addr(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    fn vector_record() -> PeerRecord {
        let peer = vector_key().public().peer_id();
        PeerRecord::new(peer, 1, [addr("/ip4/127.0.0.1/tcp/1234")])
    }

    /// Signs any payload as a peer record.
    fn sealed(key: &Keypair, payload: &[u8]) -> Vec<u8> {
        let (domain, kind) = (PeerRecord::DOMAIN, PeerRecord::PAYLOAD_TYPE);
        Envelope::seal(key, domain, kind, payload).expect("valid").as_bytes().to_vec()
    }

    fn message(peer: &[u8], addrs: &[&[u8]]) -> Vec<u8> {
        let info = |addr: &&[u8]| proto::AddressInfo { multiaddr: Some(addr.to_vec()) };
        let addresses = addrs.iter().map(info).collect();
        proto::PeerRecord { peer_id: Some(peer.to_vec()), seq: Some(9), addresses }.encode_to_vec()
    }

    #[test]
    fn env_05_07_08_the_vector_is_reproduced_byte_for_byte() {
        let envelope = vector_record().seal(&vector_key()).expect("valid");
        assert_eq!(envelope.as_bytes()[..], hex(ENVELOPE));
        assert_eq!(PeerRecord::open(&hex(ENVELOPE)), Ok(vector_record()));
    }

    #[test]
    fn env_07_trap_1_the_legacy_form_is_read() {
        let payload = vector_record().seal(&vector_key()).expect("valid").payload().to_vec();
        let legacy = Envelope::seal(&vector_key(), LEGACY_DOMAIN, LEGACY_PAYLOAD_TYPE, &payload);
        let legacy = legacy.expect("valid");
        assert!(legacy.as_bytes().ends_with(&hex(LEGACY_SIGNATURE)));
        assert_eq!(PeerRecord::open(legacy.as_bytes()), Ok(vector_record()));
    }

    #[test]
    fn env_07_the_two_forms_cannot_be_mixed() {
        let payload = vector_record().seal(&vector_key()).expect("valid").payload().to_vec();
        for (domain, kind) in [
            (PeerRecord::DOMAIN, LEGACY_PAYLOAD_TYPE),
            (LEGACY_DOMAIN, PeerRecord::PAYLOAD_TYPE),
            ("libp2p-relay-rsvp", PeerRecord::PAYLOAD_TYPE),
        ] {
            let mixed = Envelope::seal(&vector_key(), domain, kind, &payload).expect("valid");
            let error = PeerRecord::open(mixed.as_bytes());
            assert_eq!(error, Err(EnvelopeError::Signature.into()));
        }
    }

    /// Trap 2: the type is two raw bytes; the varint of 0x0301 is something else.
    #[test]
    fn env_08_another_type_is_no_peer_record() {
        let payload = vector_record().seal(&vector_key()).expect("valid").payload().to_vec();
        for kind in [&[0x81, 0x06][..], &[0x03, 0x02], &[0x03], &[0x03, 0x01, 0x00]] {
            let other = Envelope::seal(&vector_key(), PeerRecord::DOMAIN, kind, &payload);
            let error = PeerRecord::open(other.expect("valid").as_bytes());
            assert_eq!(error, Err(PeerRecordError::PayloadType(kind.to_vec())));
        }
    }

    /// RUSTSEC-2022-0009: a record of A was taken from an envelope that B had signed.
    #[test]
    fn rustsec_2022_0009_nobody_signs_for_another() {
        let (record, signer) = (vector_key().public().peer_id(), other_key().public().peer_id());
        let payload = message(record.as_bytes(), &[&addr("/ip4/192.0.2.1/tcp/1").to_vec()]);
        let expected = Err(PeerRecordError::Signer { record, signer });
        assert_eq!(PeerRecord::open(&sealed(&other_key(), &payload)), expected);
        assert_eq!(vector_record().seal(&other_key()).map(|_| ()), expected.map(|_| ()));
    }

    #[test]
    fn env_04_the_signature_is_verified_before_the_payload_is_decoded() {
        let mut bytes = sealed(&vector_key(), b"no record");
        assert!(matches!(PeerRecord::open(&bytes), Err(PeerRecordError::Encoding(_))));
        *bytes.last_mut().expect("not empty") ^= 1;
        assert_eq!(PeerRecord::open(&bytes), Err(EnvelopeError::Signature.into()));
    }

    #[test]
    fn env_05_a_record_without_a_valid_peer_is_refused() {
        for (payload, expected) in [
            (vec![], PeerIdError::Multihash),
            (message(&[], &[]), PeerIdError::Multihash),
            (message(&[0x13, 1, 0], &[]), PeerIdError::HashCode(0x13)),
        ] {
            let error = PeerRecord::open(&sealed(&vector_key(), &payload));
            assert_eq!(error, Err(PeerRecordError::PeerId(expected)));
        }
    }

    #[test]
    fn env_09_unusable_addresses_are_left_out_not_the_record() {
        let key = vector_key();
        let peer = key.public().peer_id();
        let good = addr("/ip4/192.0.2.1/tcp/1");
        let other = good.with_peer(&other_key().public().peer_id());
        let mut payload = message(
            peer.as_bytes(),
            &[
                &[],
                &[0xff],
                &good.to_vec()[..6],
                &[0x35, 0x00],
                &other.to_vec(),
                &Multiaddr::empty().with_peer(&peer).to_vec(),
                &good.with_peer(&peer).to_vec(),
                &addr("/ip6/::1/udp/1/quic-v1").to_vec(),
            ],
        );
        // An AddressInfo without its field.
        payload.extend_from_slice(&[0x1a, 0x00]);
        let record = PeerRecord::open(&sealed(&key, &payload)).expect("valid");
        assert_eq!(record.addrs(), [good.clone(), addr("/ip6/::1/udp/1/quic-v1")]);
        assert_eq!((record.peer(), record.seq()), (&peer, 9));
        let made = PeerRecord::new(peer, 9, [Multiaddr::empty(), other, good.clone()]);
        assert_eq!(made.addrs(), [good]);
    }

    /// Found by fuzzing: what was held after the peer's own id was cut off ended in an id again.
    #[test]
    fn ma_10_an_address_that_names_two_peers_at_its_end_is_left_out() {
        let (own, other) = (vector_key().public().peer_id(), other_key().public().peer_id());
        let relayed = format!("/ip4/192.0.2.1/tcp/1/p2p/{other}/p2p-circuit");
        for (text, held) in [
            (format!("/dns/a.b/p2p/{own}/p2p/{own}"), None),
            (format!("/dns/a.b/p2p/{other}/p2p/{own}"), None),
            (format!("/p2p/{own}/p2p/{own}"), None),
            (format!("{relayed}/p2p/{own}"), Some(addr(&relayed))),
        ] {
            let record = PeerRecord::new(own, 1, [addr(&text)]);
            assert_eq!(record.addrs(), held.as_slice(), "{text}");
            let sealed = record.seal(&vector_key()).expect("valid");
            assert_eq!(PeerRecord::open(sealed.as_bytes()), Ok(record), "{text}");
        }
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let key = vector_key();
        let peer = key.public().peer_id();
        let many: Vec<Vec<u8>> =
            (0..200).map(|port| addr(&format!("/ip4/192.0.2.1/tcp/{port}")).to_vec()).collect();
        let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
        let record = PeerRecord::open(&sealed(&key, &message(peer.as_bytes(), &many)));
        let record = record.expect("valid");
        assert_eq!(record.addrs().len(), PeerRecord::ADDRS_MAX);
        assert_eq!(record.addrs().last(), Some(&addr("/ip4/192.0.2.1/tcp/63")));
        let long = addr(&format!("/dns/{}/tcp/1", "a".repeat(250)));
        let error = PeerRecord::new(peer, 1, vec![long; 64]).seal(&key).map(|_| ());
        let expected = EnvelopeError::TooLong { len: 38 + 4 + 4 + 42 + 64 * 262 + 66 };
        assert_eq!(error, Err(expected.into()));
    }

    #[test]
    fn env_06_only_a_newer_record_of_the_same_peer_replaces_one() {
        let peer = vector_key().public().peer_id();
        let record = |seq| PeerRecord::new(peer, seq, []);
        assert_eq!(record(2).supersedes(&record(1)), Ok(()));
        assert_eq!(record(u64::MAX).supersedes(&record(0)), Ok(()));
        for (offered, known) in [(1, 1), (1, 2), (0, u64::MAX)] {
            let error = record(offered).supersedes(&record(known)).expect_err("stale");
            assert_eq!(error, StaleRecord::Seq { peer, offered, known });
            assert!(error.to_string().contains(&format!("seq {offered}, ")), "{error}");
            assert!(error.to_string().contains(&format!("seq {known} ")), "{error}");
        }
        let other = PeerRecord::new(other_key().public().peer_id(), 1, []);
        let error = record(5).supersedes(&other).expect_err("another peer's");
        assert!(matches!(error, StaleRecord::Peer { offered_seq: 5, known_seq: 1, .. }));
    }

    #[test]
    fn env_06_numbers_grow_whatever_the_clock_does() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let mut seq = RecordSeq::default();
        assert_eq!(seq.advance(at(1)), 1_000_000_000);
        assert_eq!(seq.advance(at(1)), 1_000_000_001);
        assert_eq!(seq.advance(at(0)), 1_000_000_002);
        assert_eq!(seq.advance(UNIX_EPOCH - Duration::from_secs(5)), 1_000_000_003);
        assert_eq!(seq.advance(at(2)), 2_000_000_000);
        assert_eq!(RecordSeq::after(7_000_000_000).advance(at(2)), 7_000_000_001);
        let far = seq.advance(at(1 << 36));
        assert_eq!(far, u64::MAX / 2);
        assert_eq!(seq.advance(at(2)), far + 1);
    }

    #[test]
    fn env_05_records_survive_the_wire_and_random_payloads_do_not_panic() {
        let (mut random, key) = (Random(2), vector_key());
        let peer = key.public().peer_id();
        for _ in 0..64 {
            let addrs = (0..random.below(20)).map(|_| {
                let port = u16::from_le_bytes([random.bytes(9).len() as u8, 3]);
                addr(&format!("/dns4/{}.example/tcp/{port}/ws", random.next()))
            });
            let addrs: Vec<Multiaddr> = addrs.collect();
            let record = PeerRecord::new(peer, random.next(), addrs.clone());
            assert_eq!(record.addrs(), addrs);
            let envelope = record.seal(&key).expect("valid");
            assert_eq!(PeerRecord::open(envelope.as_bytes()), Ok(record));
        }
        let start = message(peer.as_bytes(), &[]);
        for _ in 0..500 {
            let payload = [&start[..], &random.bytes(60)].concat();
            // Signed by the peer itself, so that the payload is reached.
            if let Ok(record) = PeerRecord::open(&sealed(&key, &payload)) {
                assert_eq!(record.peer(), &peer);
            }
        }
    }
}
