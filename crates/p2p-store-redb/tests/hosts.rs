//! Hosts whose peers are kept in a file.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{fs, path::Path};

use common::{child, part, peer, tell};
use p2p_core::{Multiaddr, PeerRecord, StoreError};
use p2p_host::{BuildError, Builder, Event, Host, peerstore::AddrSource};
use p2p_store_redb::Redb;

fn builder() -> Builder {
    p2p_host::builder()
        .transport(p2p_transport_tcp::Tcp::default())
        .security(p2p_security_noise::Noise::new)
        .muxer(p2p_mux::Yamux::default())
}

async fn with(store: Redb) -> Host {
    builder().store(store).spawn().await.unwrap()
}

fn addr() -> Multiaddr {
    "/ip4/192.0.2.1/tcp/1".parse().unwrap()
}

#[tokio::test]
async fn a_peer_is_reached_by_its_id_alone_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    let listener = builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
    let peer = listener.peer_id();
    let first = with(Redb::new(&path)).await;
    first.identify(listener.addrs()[0].as_str()).await.unwrap();
    let known = first.peerstore().get(&peer).unwrap();
    first.close().await;

    let second = with(Redb::new(&path)).await;
    let kept = second.peerstore().get(&peer).unwrap();
    assert_eq!(kept.addrs[0].source, AddrSource::Dialed);
    assert_eq!(kept.public_key, known.public_key);
    assert_eq!((&kept.protocols, &kept.agent), (&known.protocols, &known.agent));
    let (seq, envelope) = kept.record.unwrap();
    assert_eq!(PeerRecord::open(&envelope).unwrap().seq(), seq);
    second.ping(peer).await.unwrap();
    // A second host cannot have the same file.
    let refused = builder().store(Redb::new(&path)).spawn().await.unwrap_err();
    assert!(matches!(refused, BuildError::Store(StoreError::InUse { .. })), "{refused}");
    assert!(second.peerstore().remove(&peer));
    second.disconnect(&peer);
    while !second.connections(&peer).is_empty() {
        tokio::task::yield_now().await;
    }
    second.peerstore().remove(&peer);
    second.close().await;

    let third = with(Redb::new(&path)).await;
    assert!(third.peerstore().peers().is_empty());
    third.close().await;
    listener.close().await;
}

#[tokio::test]
async fn a_damaged_file_is_an_error_of_spawn_or_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.redb");
    fs::write(&path, b"dear diary").unwrap();
    let refused = builder().store(Redb::new(&path)).spawn().await.unwrap_err();
    let expected = format!("the peer store {} is damaged: it is not a redb file", path.display());
    assert_eq!(refused.to_string(), expected);
    let host = with(Redb::new(&path).move_damaged_aside()).await;
    host.peerstore().add(peer(1), [addr()]);
    host.close().await;
    let host = with(Redb::new(&path)).await;
    assert_eq!(host.peerstore().peers(), [peer(1)]);
    host.close().await;
    assert_eq!(fs::read(path.with_extension("redb.damaged")).unwrap(), b"dear diary");
}

/// A host on a disk that fills up, in the folder of a small file system of its own.
async fn on_a_full_disk(folder: &Path) {
    let path = folder.join("peers.redb");
    let host = with(Redb::new(&path)).await;
    let mut events = host.events();
    let filling = folder.join("filling");
    let mut filled = 8 << 20;
    while filled > 0 && fs::write(&filling, vec![1; filled]).is_err() {
        filled -= 4096;
    }
    // So much that the file would have to grow.
    let many: Vec<Multiaddr> =
        (1..60).map(|port| format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()).collect();
    for number in 0..2000 {
        host.peerstore().add(peer(number), many.clone());
    }
    let error = loop {
        if let Event::StoreFailed { error } = events.next().await.unwrap() {
            break error;
        }
    };
    let StoreError::Io { cause, .. } = &error else { panic!("{error}") };
    assert_eq!(cause.kind(), std::io::ErrorKind::StorageFull, "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    host.peerstore().add(peer(5000), [addr()]);
    assert_eq!(host.peerstore().peers().len(), 2001);
    fs::remove_file(filling).unwrap();
    while !matches!(events.next().await.unwrap(), Event::StoreRecovered) {}
    host.close().await;
    let host = with(Redb::new(&path)).await;
    assert_eq!(host.peerstore().peers().len(), 2001);
    host.close().await;
}

/// The disk is a file system of 8 MiB in memory, which a process of its own mounts where nobody
/// else sees it.
#[tokio::test(start_paused = true)]
async fn a_full_disk_is_survived_and_recovered_from() {
    if let Some(folder) = part() {
        tell("begun");
        return on_a_full_disk(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let mount = format!("mount -t tmpfs -o size=8m tmpfs '{path}' && exec \"$@\"");
    let before = ["unshare", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"];
    let ended = child(&before, "a_full_disk_is_survived_and_recovered_from", path).output();
    match ended {
        Ok(output) if output.status.success() => {}
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("begun") => {
            panic!("{}", String::from_utf8_lossy(&output.stdout));
        }
        other => eprintln!("SKIPPED: this machine lets nobody mount a file system: {other:?}"),
    }
}
