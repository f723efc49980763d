//! Our dialer, their listener.

use p2p::{AddrExt as _, Cause, DialError, Keypair, OpenError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    limited,
    ours::{
        self, ECHO, IDENTIFY, PING, PUSH, assert_kept, assert_same, exchange, only_connection,
        payload,
    },
    process::texts,
    theirs::{self, Listener},
};

#[tokio::test]
async fn their_listener_answers_our_pings() {
    limited(async {
        let listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        let mut pinger = host.pinger(&listener.addr).unwrap();
        for _ in 0..3 {
            assert!(!pinger.ping().await.unwrap().is_zero());
        }
        only_connection(&host, &listener.peer());
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn their_listener_pings_us_back() {
    limited(async {
        let mut listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        host.connect(&listener.addr).await.unwrap();
        let pinged = listener.process.event("pinged").await;
        assert_eq!(pinged["peer"], host.peer_id().to_string());
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn each_identifies_the_other_on_a_connection_that_we_dial() {
    limited(async {
        let mut listener = Listener::start().await;
        let host = ours::echo_host().await;

        let theirs = host.identify(&listener.addr).await.unwrap();
        assert_eq!(theirs.agent, theirs::AGENT);
        assert_eq!(theirs.public_key.peer_id(), listener.peer());
        for protocol in [ECHO, IDENTIFY, PING] {
            assert!(theirs.protocols.iter().any(|p| p.as_str() == protocol), "{theirs:?}");
        }
        assert_eq!(theirs.listen_addrs, [listener.bare_addr()]);
        let observed = theirs.observed_addr.as_ref().unwrap().to_string();
        let port: u16 = observed.strip_prefix("/ip4/127.0.0.1/tcp/").unwrap().parse().unwrap();
        assert_ne!(port, 0);

        let ours = listener.process.event("identified").await;
        assert_eq!(ours["peer"], host.peer_id().to_string());
        assert_eq!(ours["agent"], ours::AGENT);
        assert_eq!(texts(&ours["protocols"]), [ECHO, IDENTIFY, PUSH, PING]);
        assert_eq!(ours["observed_addr"], listener.bare_addr().to_string());
        let bare = host.multiaddrs()[0].split_peer().unwrap().0;
        assert_eq!(texts(&ours["listen_addrs"]), [bare.to_string()]);
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn they_observe_the_address_that_we_dial_from() {
    limited(async {
        let listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        let theirs = host.identify(&listener.addr).await.unwrap();
        let connection = only_connection(&host, &listener.peer());
        assert_eq!(theirs.observed_addr.as_ref(), connection.local());
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn their_listener_echoes_10_mib_and_then_ends_its_half() {
    limited(async {
        let listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        let stream = host.open(&listener.addr, ECHO).await.unwrap();
        exchange(stream, 1, 10 << 20).await;
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_lost_when_we_read_only_after_our_half_is_ended() {
    limited(async {
        let listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        let mut stream = host.open(&listener.addr, ECHO).await.unwrap();
        // What the first window of either side holds.
        let sent = payload(2, 256 << 10);
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        assert_same(&back, &sent);
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_optimistic_stream_carries_data_with_its_proposal() {
    limited(async {
        let listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        for seed in 0..3 {
            let stream = host.open(&listener.addr, ECHO).optimistic().await.unwrap();
            exchange(stream, seed, 100 << 10).await;
        }
        only_connection(&host, &listener.peer());
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_optimistic_stream_that_they_do_not_support_fails_on_its_first_read() {
    limited(async {
        let listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        let mut stream = host.open(&listener.addr, "/no/such/1").optimistic().await.unwrap();
        stream.write_all(b"lost").await.unwrap();
        let error = stream.read(&mut [0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::Unsupported, "{error}");
        drop(stream);
        let connection = only_connection(&host, &listener.peer());

        exchange(host.open(&listener.addr, ECHO).await.unwrap(), 3, 1000).await;
        assert_kept(&host, &connection);
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_protocol_that_they_do_not_support_leaves_the_connection_usable() {
    limited(async {
        let listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        host.connect(&listener.addr).await.unwrap();
        let connection = only_connection(&host, &listener.peer());
        for _ in 0..3 {
            match host.open(&listener.addr, "/no/such/1").await.unwrap_err() {
                OpenError::Unsupported { peer, protocol } => {
                    assert_eq!((peer, protocol.as_str()), (listener.peer(), "/no/such/1"));
                }
                other => panic!("{other}"),
            }
        }
        exchange(host.open(&listener.addr, ECHO).await.unwrap(), 4, 1000).await;
        assert_kept(&host, &connection);
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn another_peer_than_the_one_dialed_is_refused_by_both_names() {
    limited(async {
        let listener = Listener::start().await;
        let host = ours::builder().spawn().await.unwrap();
        let expected = Keypair::generate().unwrap().public().peer_id();
        let wrong = listener.bare_addr().with_peer(&expected);
        let error = host.open(&wrong, ECHO).await.unwrap_err();
        let text = error.to_string();
        for peer in [expected, listener.peer()] {
            assert!(text.contains(&peer.to_string()), "{text}");
        }
        let OpenError::Dial(DialError::Attempts(attempts)) = error else { panic!("{text}") };
        assert!(matches!(attempts[0].cause, Cause::Security(_)), "{text}");
        assert!(host.peers().is_empty());

        exchange(host.open(&listener.addr, ECHO).await.unwrap(), 5, 1000).await;
        host.close().await;
    })
    .await;
}
