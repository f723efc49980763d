//! What a peer signs: envelopes, and the records of its addresses.

use std::sync::LazyLock;

use p2p_core::{
    AddrExt, Envelope, EnvelopeError, Keypair, Multiaddr, PeerRecord, PeerRecordError, StaleRecord,
    multiaddr::Protocol, varint,
};

use crate::{
    input::Input,
    protobuf::{change, put},
};

const DOMAINS: [&str; 3] = [PeerRecord::DOMAIN, "libp2p-routing-state", "another"];
const TYPES: [&[u8]; 3] = [PeerRecord::PAYLOAD_TYPE, b"/libp2p/routing-state-record", b"\x03"];

/// A key of every type.
static KEYS: LazyLock<[Keypair; 5]> = LazyLock::new(|| {
    let pem = |text| Keypair::from_pem(text).expect("a key of the test vectors");
    [
        Keypair::from_ed25519_seed(&[1; 32]),
        Keypair::from_ed25519_seed(&[2; 32]),
        pem(include_str!("../../p2p-core/src/key/vectors/secp256k1.pem")),
        pem(include_str!("../../p2p-core/src/key/vectors/ecdsa.pem")),
        pem(include_str!("../../p2p-core/src/key/vectors/rsa.pem")),
    ]
});

/// What was signed with one of [`KEYS`], and the fields of the envelope made of it.
struct Signed {
    key: usize,
    domain: &'static str,
    payload_type: &'static [u8],
    payload: &'static [u8],
    /// Fields 1, 2, 3 and 5.
    fields: [Vec<u8>; 4],
}

static SIGNED: LazyLock<Vec<Signed>> = LazyLock::new(|| {
    let mut all = Vec::new();
    for (key, pair) in KEYS.iter().enumerate() {
        for at in 0..3 {
            let (domain, payload_type) = (DOMAINS[at], TYPES[at]);
            let payload: &[u8] = [&b"a payload"[..], b"", b"\x01another"][(key + at) % 3];
            let sealed = Envelope::seal(pair, domain, payload_type, payload).expect("short");
            let fields = [
                pair.public().to_protobuf(),
                payload_type.to_vec(),
                payload.to_vec(),
                signature(sealed.as_bytes(), pair, payload_type, payload),
            ];
            all.push(Signed { key, domain, payload_type, payload, fields });
        }
    }
    all
});

/// The last field of an envelope, which has the others in order before it.
fn signature(envelope: &[u8], pair: &Keypair, payload_type: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut before = Vec::new();
    put(&mut before, 1, &pair.public().to_protobuf());
    put(&mut before, 2, payload_type);
    put(&mut before, 3, payload);
    let last = envelope.strip_prefix(&before[..]).expect("fields 1, 2 and 3, in this order");
    let rest = last.strip_prefix(&[5 << 3 | 2]).expect("field 5, and no other");
    let (len, start) = varint::decode(rest).expect("the shortest").expect("whole");
    assert_eq!(rest.len() - start, len as usize, "something behind the signature");
    rest[start..].to_vec()
}

/// An envelope built of the fields of several that were signed, in any order and number, changed
/// and cut: what opens was signed, by the key that is named, for the domain that it is opened for,
/// and is the same when it is passed on or sealed again. And an envelope that is made of anything
/// opens for its own domain, and no other.
pub fn envelope(data: &[u8]) {
    let mut input = Input::new(data);
    if input.flag() {
        return sealed(&mut input);
    }
    let domain = DOMAINS[input.below(3)];
    let bytes = build(&mut input);
    let envelope = match Envelope::open(&bytes, domain) {
        Ok(envelope) => envelope,
        Err(error) => {
            assert!(!error.to_string().is_empty() && error.to_string().len() < 1000);
            return;
        }
    };
    let signed = SIGNED.iter().find(|signed| {
        KEYS[signed.key].public() == *envelope.public_key()
            && signed.payload_type == envelope.payload_type()
            && signed.payload == envelope.payload()
            && signed.domain == domain
    });
    let signed = signed.expect("nobody has signed this");
    assert_eq!(envelope.as_bytes(), &bytes, "not what was read");
    let again = Envelope::seal(&KEYS[signed.key], domain, signed.payload_type, signed.payload);
    let again = again.expect("as short as before");
    let opened = Envelope::open(again.as_bytes(), domain);
    assert_eq!(opened.as_ref(), Ok(&again));
    assert_eq!(again.public_key(), envelope.public_key());
    for other in DOMAINS.iter().filter(|other| **other != domain) {
        assert_eq!(Envelope::open(&bytes, other), Err(EnvelopeError::Signature));
    }
}

fn build(input: &mut Input) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !input.is_empty() {
        let op = input.byte();
        let signed = &SIGNED[usize::from(op >> 3) % SIGNED.len()];
        match op & 7 {
            // One that is whole.
            0 => (0..4).for_each(|at| put_field(&mut bytes, signed, at)),
            1 => put_field(&mut bytes, signed, input.below(4)),
            // Another type or payload under this signature, or another signature.
            2 => {
                for at in [0, 1, 2, 3] {
                    let other = &SIGNED[input.below(SIGNED.len())];
                    put_field(&mut bytes, if input.flag() { other } else { signed }, at);
                }
            }
            3 => {
                let mut field = signed.fields[input.below(4)].clone();
                change(input, &mut field);
                put(&mut bytes, [1, 2, 3, 5][input.below(4)], &field);
            }
            4 => put(&mut bytes, input.byte() >> 3, input.bytes()),
            5 => bytes.extend(input.bytes()),
            6 => bytes.resize(bytes.len() + input.below(9000), 0x22),
            _ => change(input, &mut bytes),
        }
    }
    bytes
}

fn put_field(bytes: &mut Vec<u8>, signed: &Signed, at: usize) {
    put(bytes, [1, 2, 3, 5][at], &signed.fields[at]);
}

/// An envelope made of anything.
fn sealed(input: &mut Input) {
    let pair = &KEYS[input.below(KEYS.len())];
    let domain = String::from_utf8_lossy(input.bytes()).into_owned();
    let payload_type = input.bytes().to_vec();
    let mut payload = input.bytes().to_vec();
    payload.resize(payload.len() + input.below(9000), 7);
    let envelope = match Envelope::seal(pair, &domain, &payload_type, &payload) {
        Ok(envelope) => envelope,
        Err(EnvelopeError::EmptyDomain) => return assert!(domain.is_empty()),
        Err(EnvelopeError::EmptyPayloadType) => return assert!(payload_type.is_empty()),
        Err(EnvelopeError::TooLong { len }) => return assert!(len > Envelope::LEN_MAX),
        Err(error) => panic!("{error}"),
    };
    assert!(!domain.is_empty() && !payload_type.is_empty());
    assert!(envelope.as_bytes().len() <= Envelope::LEN_MAX);
    assert_eq!(envelope.payload_type(), payload_type);
    assert_eq!(envelope.payload(), payload);
    assert_eq!(Envelope::open(envelope.as_bytes(), &domain).as_ref(), Ok(&envelope));
    // What leaves one part cannot enter the next.
    let shorter = domain.char_indices().next_back().map_or("", |(at, _)| &domain[..at]);
    let expected =
        if shorter.is_empty() { EnvelopeError::EmptyDomain } else { EnvelopeError::Signature };
    assert_eq!(Envelope::open(envelope.as_bytes(), shorter), Err(expected));
    let longer = format!("{domain}{}", String::from_utf8_lossy(&payload_type));
    assert_eq!(Envelope::open(envelope.as_bytes(), &longer), Err(EnvelopeError::Signature));
}

/// A record built of fields in any order and number, signed by somebody and then changed: what
/// opens is its signer's record of itself, with addresses that stood in it; it is found again in
/// the form that we write, and supersedes those of lower numbers alone.
pub fn peer_record(data: &[u8]) {
    let mut input = Input::new(data);
    let signer = &KEYS[input.below(3)];
    let (domain, payload_type) = match input.below(8) {
        0..=3 => (DOMAINS[0], TYPES[0]),
        4 | 5 => (DOMAINS[1], TYPES[1]),
        6 => (DOMAINS[1], TYPES[0]),
        _ => (DOMAINS[2], TYPES[2]),
    };
    let changes = input.below(4).saturating_sub(2);
    let known_seq = u64::from(input.byte());
    let (payload, addrs) = build_record(&mut input, signer);
    let Ok(envelope) = Envelope::seal(signer, domain, payload_type, &payload) else {
        return assert!(payload.len() > Envelope::LEN_MAX / 2);
    };
    let mut bytes = envelope.as_bytes().to_vec();
    for _ in 0..changes {
        change(&mut input, &mut bytes);
    }
    let record = match PeerRecord::open(&bytes) {
        Ok(record) => record,
        Err(error) => {
            assert!(!error.to_string().is_empty() && error.to_string().len() < 2000);
            return;
        }
    };
    assert!((domain, payload_type) == (DOMAINS[0], TYPES[0]) || domain == DOMAINS[1]);
    assert!((domain, payload_type) != (DOMAINS[1], TYPES[0]), "of another domain");
    assert_eq!(*record.peer(), signer.public().peer_id());
    assert!(record.addrs().len() <= PeerRecord::ADDRS_MAX);
    for addr in record.addrs() {
        assert!(!addr.is_empty(), "an empty address");
        assert!(!matches!(addr.iter().last(), Some(Protocol::P2p(_))), "{addr}");
        let own = addr.with_peer(record.peer());
        if let Some(addrs) = &addrs {
            assert!(addrs.contains(&addr.to_vec()) || addrs.contains(&own.to_vec()), "{addr}");
        }
    }
    check_seq(&record, known_seq);
    match record.seal(signer) {
        Ok(again) => assert_eq!(PeerRecord::open(again.as_bytes()), Ok(record)),
        Err(PeerRecordError::Envelope(EnvelopeError::TooLong { len })) => {
            // A number of 0 and an absent one are the same.
            assert!(len <= Envelope::LEN_MAX + 4 && bytes.len() > Envelope::LEN_MAX - 4);
        }
        Err(error) => panic!("{error}"),
    }
}

fn check_seq(record: &PeerRecord, known_seq: u64) {
    let known = PeerRecord::new(*record.peer(), known_seq, []);
    assert_eq!(record.supersedes(&known).is_ok(), record.seq() > known_seq);
    assert!(!(record.supersedes(&known).is_ok() && known.supersedes(record).is_ok()));
    assert!(record.supersedes(record).is_err());
    let other = PeerRecord::new(KEYS[3].public().peer_id(), 0, []);
    assert!(matches!(record.supersedes(&other), Err(StaleRecord::Peer { .. })));
}

/// A record's message, and the addresses in it, unless its bytes were changed so that it may hold
/// any.
fn build_record(input: &mut Input, signer: &Keypair) -> (Vec<u8>, Option<Vec<Vec<u8>>>) {
    let mut payload = Vec::new();
    let mut addrs = Some(Vec::new());
    while !input.is_empty() {
        let op = input.byte();
        let peer = KEYS[usize::from(op >> 4) % KEYS.len()].public().peer_id();
        match op & 0xf {
            0 | 1 => put(&mut payload, 1, signer.public().peer_id().as_bytes()),
            2 => put(&mut payload, 1, peer.as_bytes()),
            3 => {
                payload.push(2 << 3);
                varint::encode(u64::from(input.u32()) << (op >> 4), &mut payload);
            }
            4..=8 => {
                let mut addr = addr(input, signer);
                if op & 0xf == 8 {
                    change(input, &mut addr);
                }
                let mut info = Vec::new();
                put(&mut info, 1, &addr);
                put(&mut payload, 3, &info);
                if let Some(addrs) = &mut addrs {
                    addrs.push(addr);
                }
            }
            9 => {
                let wire = addr(input, signer);
                let mut info = Vec::new();
                put(&mut info, 1, &wire);
                (0..input.byte()).for_each(|_| put(&mut payload, 3, &info));
                if let Some(addrs) = &mut addrs {
                    addrs.push(wire);
                }
            }
            10 => {
                addrs = None;
                payload.extend(input.bytes());
            }
            11 => {
                addrs = None;
                change(input, &mut payload);
            }
            _ => {
                addrs = None;
                put(&mut payload, input.byte() >> 3, input.bytes());
            }
        }
    }
    (payload, addrs)
}

/// The bytes of an address, with peer ids in it and at its end.
fn addr(input: &mut Input, signer: &Keypair) -> Vec<u8> {
    let mut addr = Multiaddr::empty();
    for _ in 0..input.below(6) {
        let part: Multiaddr = ["/ip4/1.2.3.4", "/tcp/1", "/dns/a.b", "/p2p-circuit", "/ip6zone/x"]
            [input.below(5)]
        .parse()
        .expect("an address");
        part.iter().for_each(|part| addr.push(part));
        let peer = match input.below(4) {
            0 => signer.public().peer_id(),
            1 => KEYS[input.below(KEYS.len())].public().peer_id(),
            _ => continue,
        };
        let named = Multiaddr::empty().with_peer(&peer);
        named.iter().for_each(|part| addr.push(part));
        if input.flag() {
            named.iter().for_each(|part| addr.push(part));
        }
    }
    addr.to_vec()
}
