//! What names things: keys, peer ids, addresses, protocols, and the varints in them.

use multibase::Base;
use p2p_core::{
    AddrError, AddrExt, KeyType, Keypair, Multiaddr, PeerId, ProtocolId, PublicKey, Reach,
    addrs_for, decode_multiaddr, multiaddr::Protocol, parse_multiaddr, varint as var,
};
use sha2::{Digest, Sha256};

/// The longest encoded key that is its own peer id, in bytes.
const IDENTITY_KEY_LEN_MAX: usize = 42;

/// A decoded public key encodes to one form, which decodes to it again; its peer id is that of this
/// form.
pub fn public_key(data: &[u8]) {
    let Ok(key) = PublicKey::from_protobuf(data) else { return };
    check_public(&key);
    assert!(key.verify(b"a message", data).is_err(), "a signature that nobody has made");
}

fn check_public(key: &PublicKey) {
    let canonical = key.to_protobuf();
    assert!(canonical.len() <= PublicKey::ENCODED_LEN_MAX);
    assert_eq!(PublicKey::from_protobuf(&canonical), Ok(key.clone()));
    let mut multihash = Vec::new();
    if canonical.len() <= IDENTITY_KEY_LEN_MAX {
        multihash.extend([0, canonical.len().to_le_bytes()[0]]);
        multihash.extend(&canonical);
        assert_eq!(PublicKey::try_from(&key.peer_id()), Ok(key.clone()));
    } else {
        multihash.extend([0x12, 32]);
        multihash.extend(Sha256::digest(&canonical));
        assert!(PublicKey::try_from(&key.peer_id()).is_err());
    }
    assert_eq!(key.peer_id().as_bytes(), multihash);
}

/// A decoded private key encodes to one form, which decodes to it again, and signs for its public
/// half.
pub fn private_key(data: &[u8]) {
    let Ok(pair) = Keypair::from_protobuf(data) else { return };
    let canonical = pair.to_protobuf();
    check_pair(&pair);
    if pair.public().key_type() == KeyType::Ed25519 {
        // A seed alone is a form that py-libp2p stores.
        let halves = if data.len() < canonical.len() { &canonical[4..36] } else { &canonical[4..] };
        assert!(data.windows(halves.len()).any(|bytes| bytes == halves), "halves of two keys");
    }
}

/// The same for a key in PEM: the text itself, or the DER in it behind a byte that says its label.
pub fn private_key_pem(data: &[u8]) {
    let text = match data.split_first() {
        Some((label @ 0..4, der)) => pem(PEM_LABELS[usize::from(*label)], der),
        Some(_) | None => String::from_utf8_lossy(data).into_owned(),
    };
    match Keypair::from_pem(&text) {
        Ok(pair) => {
            check_pair(&pair);
            if text.as_bytes() != data {
                check_algorithm(pair.key_type(), data);
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty() && error.to_string().len() < 1000);
        }
    }
}

const PEM_LABELS: [&str; 4] = ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "PUBLIC KEY"];

/// A key is of the type that the DER names, or that its label does.
fn check_algorithm(key_type: KeyType, data: &[u8]) {
    let named: &[u8] = match key_type {
        KeyType::Ed25519 => &[6, 3, 0x2b, 0x65, 0x70],
        KeyType::Secp256k1 => &[6, 5, 0x2b, 0x81, 4, 0, 10],
        KeyType::Ecdsa => &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
        KeyType::Rsa | _ if data[0] == 2 => &[],
        KeyType::Rsa | _ => &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1],
    };
    assert!(named.is_empty() || data.windows(named.len()).any(|bytes| bytes == named));
}

fn pem(label: &str, der: &[u8]) -> String {
    let digits = Base::Base64Pad.encode(der);
    let lines: Vec<&str> =
        (0..digits.len()).step_by(64).map(|at| &digits[at..digits.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn check_pair(pair: &Keypair) {
    let canonical = pair.to_protobuf();
    let text = pair.to_pem();
    for again in [Keypair::from_protobuf(&canonical), Keypair::from_pem(&text)] {
        let Ok(again) = again else { panic!("its own form is refused") };
        assert_eq!(again.to_protobuf(), canonical);
        assert_eq!(again.public(), pair.public());
        assert_eq!(again.to_pem(), text);
    }
    let signature = pair.sign(b"a message").expect("every key signs");
    assert_eq!(pair.public().verify(b"a message", &signature), Ok(()));
    assert!(pair.public().verify(b"another", &signature).is_err());
    check_public(&pair.public());
    assert!(format!("{pair:?}").len() < 100);
}

/// A peer id that parses is found again in each of its forms.
pub fn peer_id_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<PeerId>() {
        Ok(id) => check_peer_id(&id),
        Err(error) => assert!(error.to_string().chars().count() < 1000),
    }
}

/// The same for the form on the wire, of which there is only one.
pub fn peer_id_bytes(data: &[u8]) {
    let Ok(id) = PeerId::from_bytes(data) else { return };
    assert_eq!(id.as_bytes(), data);
    check_peer_id(&id);
}

fn check_peer_id(id: &PeerId) {
    assert_eq!(PeerId::from_bytes(id.as_bytes()), Ok(*id));
    assert_eq!(id.to_string().parse(), Ok(*id));
    assert_eq!(id.to_cid().parse(), Ok(*id));
    if let Ok(key) = PublicKey::try_from(id) {
        public_key(&key.to_protobuf());
    }
}

/// An address that parses is found again in its text and in its bytes; what people write is parsed
/// to what the `multiaddr` crate makes of it, or to another form of it, or refused.
pub fn multiaddr_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let plain = text.parse::<Multiaddr>();
    match parse_multiaddr(&text) {
        Ok(addr) => {
            if let Ok(plain) = &plain {
                assert_eq!(addr, *plain);
            }
            check_text(&addr);
            assert_eq!(parse_multiaddr(&addr.to_string()).as_ref(), Ok(&addr));
            assert_eq!(parse_multiaddr(&format!("{text}/")).as_ref(), Ok(&addr));
            assert_eq!(decode_multiaddr(addr.as_ref()).as_ref(), Ok(&addr));
        }
        Err(error) => check_addr_error(&error),
    }
    let Ok(addr) = plain else { return };
    check_text(&addr);
    check_addr(&addr);
}

fn check_text(addr: &Multiaddr) {
    assert_eq!(Multiaddr::try_from(addr.to_vec()).ok().as_ref(), Some(addr), "bytes of {addr}");
    assert_eq!(addr.to_string().parse().ok().as_ref(), Some(addr), "text of {addr}");
}

fn check_addr_error(error: &AddrError) {
    let shown = error.to_string();
    assert!(!shown.is_empty() && shown.chars().count() < 6000 && error.text.chars().count() <= 80);
}

/// An address that decodes encodes to the same bytes. The text of one that we take is parsed to it,
/// but for paths; that of one that only the `multiaddr` crate takes need not be: a name may hold
/// what the text form cannot say.
pub fn multiaddr_bytes(data: &[u8]) {
    let plain = Multiaddr::try_from(data.to_vec());
    match decode_multiaddr(data) {
        Ok(addr) => {
            assert_eq!(Some(&addr), plain.as_ref().ok());
            // The text form of a path ends at its first slash.
            let slash = |part| matches!(part, Protocol::Unix(path) if path.contains('/'));
            if !addr.iter().any(slash) {
                assert_eq!(parse_multiaddr(&addr.to_string()).as_ref(), Ok(&addr), "{addr}");
            }
        }
        Err(error) => check_addr_error(&error),
    }
    let Ok(addr) = plain else { return };
    assert_eq!(addr.to_vec(), data);
    check_addr(&addr);
}

/// The peer id at the end is split off, put back and replaced without a change of the rest; whom an
/// address is told depends on where both can be reached.
fn check_addr(addr: &Multiaddr) {
    check_told(addr);
    let other = Keypair::from_ed25519_seed(&[1; 32]).public().peer_id();
    let named = addr.with_peer(&other);
    let Ok((bare, peer)) = addr.split_peer() else {
        assert!(named.split_peer().is_ok());
        return;
    };
    // Of two ids at the end, the inner one would be replaced.
    if !matches!(bare.iter().last(), Some(Protocol::P2p(_))) {
        assert_eq!(peer.map_or_else(|| bare.clone(), |peer| bare.with_peer(&peer)), *addr);
    }
    assert_eq!(named.split_peer(), Ok((bare, Some(other))));
    p2p_core::Transport::supports(&p2p_transport_tcp::Tcp::default(), addr);
}

fn check_told(addr: &Multiaddr) {
    let bare = addr.without_zone();
    assert_eq!(bare.without_zone(), bare);
    assert_eq!(addr.reach(), bare.reach(), "a zone is no place");
    let peer = Keypair::from_ed25519_seed(&[1; 32]).public().peer_id();
    assert_eq!(addr.with_peer(&peer).reach(), addr.reach(), "who is there is no place: {addr}");
    assert_eq!(addr.decapsulate(addr), Multiaddr::empty());
    for (remote, nearest) in [
        ("/ip4/9.9.9.9/tcp/1", Reach::Public),
        ("/ip4/10.0.0.1/tcp/1", Reach::Private),
        ("/ip6/fe80::1/tcp/1", Reach::LinkLocal),
        ("/ip4/127.0.0.1/tcp/1", Reach::Loopback),
        ("/memory/1", Reach::Process),
        ("/tcp/1", Reach::Public),
    ] {
        let remote = remote.parse().expect("an address");
        let told = addrs_for(&remote, [addr, addr, &bare]);
        assert_eq!(told.is_empty(), addr.reach() < nearest, "{addr} for {remote}");
        assert!(told.is_empty() || told == [bare.clone()]);
    }
    // It may be a peer's address as well.
    let told = addrs_for(addr, [addr]);
    assert!(told.is_empty() == (addr.reach() == Reach::Unroutable), "{addr} for itself");
}

/// A protocol's name keeps its text, and the rules that the negotiation depends on.
pub fn protocol_id(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let rules = text.starts_with('/') && !text.contains('\n') && text.len() <= ProtocolId::LEN_MAX;
    match ProtocolId::new(&text) {
        Ok(id) => assert!(rules && id.as_str() == text && id.to_string() == text),
        Err(error) => assert!(!rules && error.to_string().chars().count() < 1000),
    }
}

/// Only the shortest form decodes, and every prefix of it waits for more.
pub fn varint(data: &[u8]) {
    match var::decode(data) {
        Ok(Some((value, len))) => {
            let mut shortest = Vec::new();
            var::encode(value, &mut shortest);
            assert_eq!(shortest, data[..len]);
            for short in 0..len {
                assert_eq!(var::decode(&data[..short]), Ok(None));
            }
        }
        Ok(None) => assert!(data.len() < var::LEN_MAX && data.iter().all(|byte| byte & 0x80 != 0)),
        Err(_) => {
            let longer = [data, &[0; var::LEN_MAX]].concat();
            assert!(var::decode(&longer).is_err(), "an error that more bytes mend");
        }
    }
}
