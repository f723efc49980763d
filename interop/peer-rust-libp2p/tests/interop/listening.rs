//! Their dialer, our listener.

use p2p::{AddrExt as _, Event, Keypair, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    limited,
    ours::{self, ECHO, IDENTIFY, PING, PUSH},
    process::texts,
    theirs,
};

#[tokio::test]
async fn our_listener_answers_repeated_pings_on_an_otherwise_idle_connection() {
    limited(async {
        let host = ours::builder().spawn().await.unwrap();
        let addr = ours::addr(&host);
        let mut dialer = theirs::command(&["ping", &addr, "-c", "3", "--interval-ms", "500"]);
        let ended = dialer.end().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.lines.len(), 3);
        assert!(ended.lines.iter().all(|line| line["event"] == "ping" && line["rtt_us"].is_u64()));
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn each_identifies_the_other_on_a_connection_that_they_dial() {
    limited(async {
        let host = ours::echo_host().await;
        let addr = ours::addr(&host);
        let mut events = host.events();
        let ours = theirs::command(&["identify", &addr]).end().await.success();
        let id = host.peer_id().to_string();
        assert_eq!((&ours["peer"], &ours["public_key_peer"]), (&id.clone().into(), &id.into()));
        assert_eq!(ours["agent"], ours::AGENT);
        assert_eq!(texts(&ours["protocols"]), [ECHO, IDENTIFY, PUSH, PING]);
        let bare = host.multiaddrs()[0].split_peer().unwrap().0;
        assert_eq!(texts(&ours["listen_addrs"]), [bare.to_string()]);

        let (mut remote, mut info) = (None, None);
        while info.is_none() {
            match events.next().await.unwrap() {
                Event::Connected { connection, .. } => remote = Some(connection.remote().clone()),
                Event::Identified { info: theirs, .. } => info = Some(theirs),
                // The dialer has what it wanted, and may be gone before it has answered.
                Event::Disconnected { .. } => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ours["observed_addr"], remote.unwrap().to_string());
        if let Some(theirs) = info {
            assert_eq!(theirs.agent, theirs::AGENT);
            assert_eq!(theirs.observed_addr, Some(bare));
            assert!(theirs.listen_addrs.is_empty(), "{theirs:?}");
            assert!(theirs.protocols.iter().any(|p| p.as_str() == PING), "{theirs:?}");
        }
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn our_listener_identifies_a_dialer_that_stays() {
    limited(async {
        let host = ours::echo_host().await;
        let mut events = host.events();
        let _dialer = theirs::command(&["ping", &ours::addr(&host), "-c", "1000000"]);
        loop {
            if let Event::Identified { info, .. } = events.next().await.unwrap() {
                assert_eq!(info.agent, theirs::AGENT);
                let bare = host.multiaddrs()[0].split_peer().unwrap().0;
                assert_eq!(info.observed_addr, Some(bare));
                break;
            }
        }
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn our_listener_echoes_10_mib_and_then_ends_its_half() {
    limited(async {
        let host = ours::echo_host().await;
        let addr = ours::addr(&host);
        let done = theirs::command(&["echo", &addr, "--bytes", "10485760"]).end().await.success();
        assert_eq!(done["bytes"], 10 << 20);
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn our_listener_can_answer_10_mib_after_their_half_is_ended() {
    limited(async {
        let host = ours::builder().spawn().await.unwrap();
        let answer_at_the_end = |mut stream: Stream| async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await?;
            stream.write_all(&all).await?;
            stream.shutdown().await
        };
        host.handle(ECHO, answer_at_the_end).unwrap();
        let addr = ours::addr(&host);
        theirs::command(&["echo", &addr, "--bytes", "10485760"]).end().await.success();
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn their_dialer_is_told_that_we_do_not_support_a_protocol() {
    limited(async {
        let host = ours::builder().spawn().await.unwrap();
        let addr = ours::addr(&host);
        let message = theirs::command(&["echo", &addr]).end().await.failure();
        assert!(message.contains(ECHO) && message.contains("support"), "{message}");
        ours::serve_echo(&host);
        theirs::command(&["echo", &addr, "--bytes", "1000"]).end().await.success();
        host.close().await;
    })
    .await;
}

#[tokio::test]
async fn their_dialer_refuses_us_under_another_peers_name() {
    limited(async {
        let host = ours::echo_host().await;
        let other = Keypair::generate().unwrap().public().peer_id();
        let wrong = host.multiaddrs()[0].with_peer(&other).to_string();
        let message = theirs::command(&["identify", &wrong]).end().await.failure();
        assert!(message.contains(&host.peer_id().to_string()), "{message}");
        let addr = ours::addr(&host);
        theirs::command(&["echo", &addr, "--bytes", "1000"]).end().await.success();
        host.close().await;
    })
    .await;
}
