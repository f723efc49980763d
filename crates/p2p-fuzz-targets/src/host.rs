//! What a host takes from peers, files and users.

use std::{io::Write, sync::LazyLock};

use bytes::Bytes;
use p2p_core::{Keypair, Multiaddr, multiaddr::Protocol};
use p2p_host::{IntoTarget, key_file as file};

/// The identity of the peer whose answers [`identify`] takes.
static PEER: LazyLock<Keypair> = LazyLock::new(|| Keypair::from_ed25519_seed(&[7; 32]));

/// The text that a user gives to dial.
pub fn dial_target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.as_ref().into_target() {
        Ok(target) => assert_eq!(target.clone().into_target(), Ok(target)),
        Err(error) => assert!(error.to_string().len() < 4096),
    }
}

/// An identify answer gives the peer that the connection has proven or nothing, and no more of it
/// than the limits allow.
pub fn identify(data: &[u8]) {
    let proven = PEER.public();
    let Ok(info) = p2p_host::fuzzing::identify(Bytes::copy_from_slice(data), &proven) else {
        return;
    };
    assert_eq!(info.public_key, proven);
    assert!(info.listen_addrs.len() <= 64 && info.protocols.len() <= 1024);
    let named = |addr: &Multiaddr| matches!(addr.iter().last(), Some(Protocol::P2p(_)));
    for addr in info.listen_addrs.iter().chain(&info.observed_addr) {
        assert!(data.len() >= addr.to_vec().len(), "more than was sent");
        assert!(!addr.is_empty() && !named(addr), "{addr}");
    }
    assert!(info.agent.len() + info.protocol_version.len() <= data.len());
}

/// A key file's content: read like the key in it, or named as damaged.
pub fn key_file(data: &[u8]) {
    let mut kept = tempfile::NamedTempFile::new().expect("a folder for temporary files");
    kept.write_all(data).expect("room for temporary files");
    match (file::load(kept.path()), Keypair::from_protobuf(data)) {
        (Ok(read), Ok(key)) => assert_eq!(read.public(), key.public()),
        // Another form, which `private_key_pem` searches.
        (_, Err(_)) if data.windows(11).any(|part| part == b"-----BEGIN ") => {}
        (Err(error), Err(_)) => {
            assert!(matches!(error, file::KeyFileError::Damaged { .. }), "{error}");
        }
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => panic!("a file's content and its bytes differ"),
    }
}
