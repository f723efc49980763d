//! Identities of every type, ours and theirs, each dialing the other.

use p2p::{KeyType, Keypair};

use crate::{
    limited,
    ours::{self, PING, exchange},
    theirs,
};

/// A 4096-bit key of the peer-id specification, as a storage message in hex.
const RSA: &str = include_str!("rsa.hex");

fn key(of: KeyType) -> Keypair {
    if of == KeyType::Rsa {
        let hex = RSA.trim();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let message: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        return Keypair::from_protobuf(&message).unwrap();
    }
    Keypair::generate_of(of).unwrap()
}

/// They read our storage form of their key, and both sides prove who they are to the other.
async fn both_ways(ours: KeyType, theirs: KeyType) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let their_key = key(theirs);
    std::fs::write(&file, &*their_key.to_protobuf()).unwrap();
    let file = file.to_str().unwrap();
    let host = ours::builder().identity(key(ours)).spawn().await.unwrap();
    ours::serve_echo(&host);

    // They dial.
    let addr = ours::addr(&host);
    let told = theirs::command(&["identify", &addr, "--key", file]).end().await.success();
    assert_eq!(told["peer"], host.peer_id().to_string());
    assert_eq!(told["public_key_peer"], host.peer_id().to_string());
    theirs::command(&["echo", &addr, "--bytes", "100000", "--key", file]).end().await.success();

    // We dial.
    let args = ["listen", "--listen", "/ip4/127.0.0.1/tcp/0", "--key", file];
    let mut listener = theirs::command(&args);
    let addr = listener.event("listening").await["addr"].as_str().unwrap().to_owned();
    assert!(addr.ends_with(&their_key.public().peer_id().to_string()), "{addr}");
    let info = host.identify(&addr).await.unwrap();
    assert_eq!(info.public_key, their_key.public());
    assert!(info.protocols.iter().any(|protocol| protocol.as_str() == PING));
    exchange(host.open(&addr, ours::ECHO).await.unwrap(), 1, 100_000).await;
    host.close().await;
}

#[tokio::test]
async fn key_01_04_ed25519_both_ways() {
    limited(both_ways(KeyType::Ed25519, KeyType::Ed25519)).await;
}

#[tokio::test]
async fn key_07_rsa_is_ours() {
    limited(both_ways(KeyType::Rsa, KeyType::Ed25519)).await;
}

#[tokio::test]
async fn key_07_rsa_is_theirs() {
    limited(both_ways(KeyType::Ed25519, KeyType::Rsa)).await;
}

#[tokio::test]
async fn key_09_10_secp256k1_both_ways() {
    limited(both_ways(KeyType::Secp256k1, KeyType::Secp256k1)).await;
}

#[tokio::test]
async fn key_11_ecdsa_both_ways() {
    limited(both_ways(KeyType::Ecdsa, KeyType::Ecdsa)).await;
}
