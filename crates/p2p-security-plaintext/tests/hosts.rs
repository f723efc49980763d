//! Two hosts over loopback TCP with nothing but the plaintext channel.

use p2p_core::{Keypair, ProtocolId};
use p2p_host::{Builder, Cause, DialError, OpenError, Stream};
use p2p_security_plaintext::{Plaintext, SecurityError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn builder() -> Builder {
    p2p_host::builder()
        .transport(p2p_transport_tcp::Tcp::default())
        .security(|key| Ok(Plaintext::dangerous_new(key)))
        .muxer(p2p_mux::Yamux::default())
}

#[tokio::test]
async fn conn_12_two_hosts_echo_and_a_dial_to_another_peer_fails() {
    let listener = builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
    listener
        .handle("/echo/1.0.0", |s: Stream| async move {
            let (mut r, mut w) = tokio::io::split(s);
            tokio::io::copy(&mut r, &mut w).await?;
            w.shutdown().await
        })
        .unwrap();
    let addr = listener.addrs().remove(0);
    let dialer = builder().spawn().await.unwrap();

    let mut stream = dialer.open(&addr, "/echo/1.0.0").await.unwrap();
    stream.write_all(b"in the clear").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "in the clear");
    let connection = dialer.connections(&listener.peer_id()).remove(0);
    assert_eq!(connection.security(), Some(&ProtocolId::from_static("/plaintext/2.0.0")));

    let expected = Keypair::from_ed25519_seed(&[9; 32]).public().peer_id();
    let other = addr.replace(&listener.peer_id().to_string(), &expected.to_string());
    let error = dialer.open(&other, "/echo/1.0.0").await.unwrap_err();
    let OpenError::Dial(DialError::Attempts(attempts)) = error else { panic!("{error}") };
    let wrong = SecurityError::WrongPeer { expected, actual: listener.peer_id() };
    assert!(matches!(&attempts[0].cause, Cause::Security(error) if *error == wrong));
    dialer.close().await;
    listener.close().await;
}
