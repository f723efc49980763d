use std::sync::Arc;

use p2p::{ConnectionError, ConnectionInfo, Event, Events, Host, PeerId, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) const AGENT: &str = "p2p-interop-test";
pub(crate) const ECHO: &str = "/echo/1.0.0";
pub(crate) const IDENTIFY: &str = "/ipfs/id/1.0.0";
pub(crate) const PUSH: &str = "/ipfs/id/push/1.0.0";
pub(crate) const PING: &str = "/ipfs/ping/1.0.0";

pub(crate) fn builder() -> p2p::Builder {
    p2p::builder().agent(AGENT).listen("/ip4/127.0.0.1/tcp/0")
}

/// A host of ours that echoes.
pub(crate) async fn echo_host() -> Host {
    let host = builder().spawn().await.unwrap();
    serve_echo(&host);
    host
}

pub(crate) fn serve_echo(host: &Host) {
    let echo = |stream: Stream| async move {
        let (mut r, mut w) = tokio::io::split(stream);
        tokio::io::copy(&mut r, &mut w).await?;
        w.shutdown().await
    };
    host.handle(ECHO, echo).unwrap();
}

/// The address under which a host that listens once is dialed.
pub(crate) fn addr(host: &Host) -> String {
    let addrs = host.addrs();
    assert_eq!(addrs.len(), 1, "{addrs:?}");
    addrs.into_iter().next().unwrap()
}

/// Sends `len` bytes over a stream whose other side echoes, ends this side's data, and checks
/// that the same bytes come back, and then the end.
pub(crate) async fn exchange(stream: Stream, seed: u64, len: usize) {
    let sent = payload(seed, len);
    let (mut send, recv) = stream.into_halves();
    let write = async {
        send.write_all(&sent).await.unwrap();
        send.shutdown().await.unwrap();
    };
    let read = async {
        let mut back = Vec::with_capacity(len);
        recv.take(len as u64 + 1).read_to_end(&mut back).await.unwrap();
        back
    };
    let ((), back) = tokio::join!(write, read);
    assert_same(&back, &sent);
}

/// Fails without printing megabytes.
pub(crate) fn assert_same(back: &[u8], sent: &[u8]) {
    assert_eq!(back.len(), sent.len());
    let differs = back.iter().zip(sent).position(|(back, sent)| back != sent);
    assert_eq!(differs, None, "the first byte that differs");
}

/// Bytes that no two places and no two seeds have in common for long (splitmix64).
pub(crate) fn payload(seed: u64, len: usize) -> Vec<u8> {
    let word = |index: u64| {
        let mut z = (seed << 32 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    (1..).flat_map(word).take(len).collect()
}

/// Waits for the end of a connection, and gives its cause.
pub(crate) async fn disconnected(events: &mut Events) -> ConnectionError {
    while let Some(event) = events.next().await {
        if let Event::Disconnected { cause, .. } = event {
            return cause;
        }
    }
    panic!("the host ended without an end of a connection");
}

/// The only connection to a peer.
pub(crate) fn only_connection(host: &Host, peer: &PeerId) -> Arc<ConnectionInfo> {
    let mut connections = host.connections(peer);
    assert_eq!(connections.len(), 1, "{connections:?}");
    connections.remove(0)
}

/// Fails unless `before` is still the only connection to its peer.
pub(crate) fn assert_kept(host: &Host, before: &Arc<ConnectionInfo>) {
    let now = only_connection(host, &before.peer());
    assert!(Arc::ptr_eq(&now, before), "{before:?} was replaced by {now:?}");
}
