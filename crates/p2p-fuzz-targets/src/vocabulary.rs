//! What names things: keys, peer ids, addresses, protocols, and the varints in them.

use p2p_core::{
    AddrExt, KeyType, Keypair, Multiaddr, PeerId, ProtocolId, PublicKey, multiaddr::Protocol,
    varint as var,
};
use sha2::{Digest, Sha256};

/// The longest encoded key that is its own peer id, in bytes.
const IDENTITY_KEY_LEN_MAX: usize = 42;

/// A decoded public key encodes to one form, which decodes to it again; its peer id is that of this
/// form.
pub fn public_key(data: &[u8]) {
    let Ok(key) = PublicKey::from_protobuf(data) else { return };
    let canonical = key.to_protobuf();
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
    assert!(key.verify(b"a message", data).is_err(), "a signature that nobody has made");
}

/// A decoded private key encodes to one form, which decodes to it again, and signs for its public
/// half.
pub fn private_key(data: &[u8]) {
    let Ok(pair) = Keypair::from_protobuf(data) else { return };
    let canonical = pair.to_protobuf();
    let Ok(again) = Keypair::from_protobuf(&canonical) else { panic!("its own form is refused") };
    assert_eq!(again.to_protobuf(), canonical);
    assert_eq!(again.public(), pair.public());
    if pair.public().key_type() == KeyType::Ed25519 {
        // A seed alone is a form that py-libp2p stores.
        let halves = if data.len() < canonical.len() { &canonical[4..36] } else { &canonical[4..] };
        assert!(data.windows(halves.len()).any(|bytes| bytes == halves), "halves of two keys");
    }
    assert_eq!(pair.public().verify(data, &pair.sign(data).expect("every key signs")), Ok(()));
    assert!(!format!("{pair:?}").is_empty());
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

/// An address that parses is found again in its text and in its bytes.
pub fn multiaddr_text(data: &[u8]) {
    let Ok(addr) = String::from_utf8_lossy(data).parse::<Multiaddr>() else { return };
    assert_eq!(Multiaddr::try_from(addr.to_vec()).ok().as_ref(), Some(&addr), "bytes of {addr}");
    assert_eq!(addr.to_string().parse().ok().as_ref(), Some(&addr), "text of {addr}");
    check_addr(&addr);
}

/// An address that decodes encodes to the same bytes. Its text need not parse: a name may hold what
/// the text form cannot say.
pub fn multiaddr_bytes(data: &[u8]) {
    let Ok(addr) = Multiaddr::try_from(data.to_vec()) else { return };
    assert_eq!(addr.to_vec(), data);
    check_addr(&addr);
}

/// The peer id at the end is split off, put back and replaced without a change of the rest.
fn check_addr(addr: &Multiaddr) {
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
