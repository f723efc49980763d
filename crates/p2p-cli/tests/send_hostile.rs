//! `p2p recv` against senders, and `p2p send` against receivers, that do not keep to the protocol:
//! see `docs/protocols/send.md`.

mod common;

use std::{fs, path::Path};

use p2p::{AddrExt, Host, Stream};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
};

use crate::common::{Ended, path, run, start, text};

const PROTOCOL: &str = "/p2p-send/1.0.0";

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("a test's body").to_be_bytes();
    [&[kind][..], &len, body].concat()
}

fn offer(files: u64, folders: u64, bytes: u64) -> Vec<u8> {
    frame(0x11, &[files, folders, bytes].map(u64::to_be_bytes).concat())
}

fn file(path: &str, size: u64) -> Vec<u8> {
    frame(0x14, &[&size.to_be_bytes()[..], &[0], path.as_bytes()].concat())
}

fn content(start: u64) -> Vec<u8> {
    frame(0x15, &start.to_be_bytes())
}

fn data(data: &[u8]) -> Vec<u8> {
    frame(0x17, data)
}

fn end(data: &[u8]) -> Vec<u8> {
    frame(0x18, &Sha256::digest(data))
}

fn done() -> Vec<u8> {
    frame(0x1a, &[])
}

fn whole(path: &str, content_of: &[u8]) -> Vec<u8> {
    let size = content_of.len() as u64;
    [file(path, size), content(0), data(content_of), end(content_of)].concat()
}

/// A sender that says just this to whoever comes, and its ticket.
struct Sender {
    runtime: Runtime,
    host: Host,
    ticket: String,
}

impl Sender {
    fn start(says: Vec<u8>) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let host = runtime.block_on(async {
            let host = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.expect("a host");
            let handler = move |mut stream: Stream| {
                let says = says.clone();
                async move {
                    stream.write_all(&says).await?;
                    let mut heard = Vec::new();
                    // The receiver ends it, in order or not.
                    drop(stream.read_to_end(&mut heard).await);
                    stream.shutdown().await
                }
            };
            host.handle(PROTOCOL, handler).expect("served");
            host
        });
        let (addr, _) = host.multiaddrs().remove(0).split_peer().expect("an address");
        let (peer, addr) = (host.peer_id(), addr.to_vec());
        let mut bytes = vec![1];
        bytes.extend([0; 16]);
        bytes.push(u8::try_from(peer.as_bytes().len()).expect("short"));
        bytes.extend(peer.as_bytes());
        bytes.push(1);
        bytes.extend(u16::try_from(addr.len()).expect("short").to_be_bytes());
        bytes.extend(addr);
        let sum = Sha256::digest(&bytes);
        bytes.extend(&sum[..4]);
        let ticket = format!("p2psend{}", bs58::encode(bytes).into_string());
        Self { runtime, host, ticket }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.runtime.block_on(self.host.close());
    }
}

/// What comes of receiving from a sender that says this, into the folder `to` of `folder`.
fn received(folder: &Path, says: &[Vec<u8>]) -> Ended {
    let sender = Sender::start(says.concat());
    let ended = run(&["recv", &sender.ticket, "--into", &path(folder, "to")]);
    ended.holds_no_debug_output();
    ended
}

/// The names of what is in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("an entry").file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

#[test]
fn a_sender_that_keeps_to_the_protocol_is_understood() {
    let folder = tempfile::tempdir().expect("a folder");
    let says = [offer(1, 1, 3), frame(0x13, b"a"), whole("a/b", b"abc"), done()];
    received(folder.path(), &says).code(0).quiet();
    assert_eq!(fs::read(folder.path().join("to/a/b")).expect("there"), b"abc");
}

#[test]
fn no_path_of_a_sender_leads_out_of_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = "a/".repeat(65) + "b";
    let absolute = path(folder.path(), "evil");
    for name in
        ["../evil", "a/../../evil", "..", ".", "a//b", "/evil", &absolute, "a\0b", "a/", &long]
    {
        for say in [file(name, 1), frame(0x13, name.as_bytes())] {
            let ended = received(folder.path(), &[offer(1, 1, 1), say, done()]);
            ended.code(1);
            assert!(ended.stderr.contains("path is refused"), "{name:?}: {}", ended.stderr);
        }
        assert_eq!(names(folder.path()), ["to"], "{name:?}");
        assert_eq!(names(&folder.path().join("to")), [""; 0], "{name:?}");
    }
}

#[test]
fn a_second_file_of_a_name_does_not_replace_the_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = [content(0), data(b"one"), end(b"one")].concat();
    let two = [content(0), data(b"two"), end(b"two")].concat();
    let says = [offer(2, 0, 6), file("a", 3), file("a", 3), one, two, done()];
    let ended = received(folder.path(), &says);
    assert!(ended.code(1).stderr.contains("came there"), "{}", ended.stderr);
    assert_eq!(fs::read(folder.path().join("to/a")).expect("there"), b"one");
}

#[test]
fn content_with_another_digest_is_not_put_in_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let says = [offer(1, 0, 3), file("a", 3), content(0), data(b"abc"), end(b"abd"), done()];
    let ended = received(folder.path(), &says);
    assert!(ended.code(1).stderr.contains("not what was sent"), "{}", ended.stderr);
    assert_eq!(names(&folder.path().join("to")), [""; 0]);
}

#[test]
fn whatever_breaks_the_protocol_ends_it_plainly() {
    let begin = || vec![offer(2, 1, 10), file("a", 3)];
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("no offer", vec![done()]),
        ("a receiver's frame", vec![frame(0x01, &[0; 16])]),
        ("an unknown frame", vec![offer(1, 0, 1), frame(0x30, b"")]),
        ("a path that is too long", vec![offer(1, 0, 1), frame(0x13, &[b'a'; 4097])]),
        ("a path that is not UTF-8", vec![offer(1, 1, 1), frame(0x13, &[0xff])]),
        ("an offer that is too short", vec![frame(0x11, &[0; 23])]),
        ("unknown flags", vec![offer(1, 0, 1), frame(0x14, &[&[0; 8][..], b"\x02a"].concat())]),
        ("more files than offered", vec![offer(0, 0, 10), file("a", 1)]),
        ("more bytes than offered", vec![offer(9, 0, 10), file("a", 11)]),
        ("more folders than offered", vec![offer(9, 0, 10), frame(0x13, b"a")]),
        ("content of nothing", vec![offer(1, 0, 3), content(0)]),
        (
            "an end before the content",
            [begin(), vec![content(0), data(b"ab"), end(b"ab")]].concat(),
        ),
        ("too much content", [begin(), vec![content(0), data(b"abcd"), end(b"abcd")]].concat()),
        ("content from the middle", [begin(), vec![content(1), data(b"bc"), end(b"abc")]].concat()),
        ("a file in another's content", [begin(), vec![content(0), file("b", 1)]].concat()),
        ("differs to what was not compared", [begin(), vec![frame(0x16, b"")]].concat()),
        ("empty data", [begin(), vec![content(0), data(b"")]].concat()),
        ("data that are too long", [begin(), vec![content(0), data(&[0; 131_073])]].concat()),
        ("done before all is served", [begin(), vec![done()]].concat()),
        (
            "65 files ahead",
            [vec![offer(99, 0, 99)], (0..65).map(|n| file(&n.to_string(), 1)).collect()].concat(),
        ),
    ];
    for (what, says) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let ended = received(folder.path(), &says);
        ended.code(1);
        assert!(ended.stderr.contains("broke the protocol"), "{what}: {}", ended.stderr);
        let left = names(&folder.path().join("to"));
        assert!(left.iter().all(|name| name.ends_with(".p2p.part")), "{what}: {left:?}");
    }
}

#[test]
fn garbage_of_a_sender_ends_it_plainly() {
    for seed in 1..20 {
        let folder = tempfile::tempdir().expect("a folder");
        let garbage = common::noise(seed * 7919, 5_000);
        received(folder.path(), &[offer(9, 9, 9), garbage]).code(1);
    }
}

#[test]
fn what_the_sender_says_of_a_failure_is_shown_without_what_a_terminal_obeys() {
    let folder = tempfile::tempdir().expect("a folder");
    let says = [offer(1, 0, 1), frame(0x19, b"no\x1b[2J")];
    let ended = received(folder.path(), &says);
    assert!(ended.code(1).stderr.contains(r"no\u{1b}[2J"), "{}", ended.stderr);
}

/// What a receiver may say, and the sender goes on: the right one gets its files all the same.
#[test]
fn receivers_that_break_the_protocol_do_not_end_a_sender() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = path(folder.path(), "from");
    fs::write(&from, common::noise(1, 3 << 20)).expect("written");
    let mut send = start(&["send", "--json", "--listen", "/ip4/127.0.0.1/tcp/0", &from]);
    let ticket = text(&send.event("ticket"), "ticket");
    let bytes = bs58::decode(&ticket["p2psend".len()..]).into_vec().expect("base58");
    let hello = frame(0x01, &bytes[1..17]);
    let peer_len = usize::from(bytes[17]);
    let peer = p2p::PeerId::from_bytes(&bytes[18..18 + peer_len]).expect("an id");
    // One address: 2 bytes of length, then itself up to the checksum.
    let addr = p2p::core::decode_multiaddr(&bytes[18 + peer_len + 3..bytes.len() - 4]);
    let addr = addr.expect("an address").with_peer(&peer);
    let want = |have: u64| frame(0x02, &[&[1][..], &have.to_be_bytes(), &[0; 32]].concat());
    let answers = want(0).repeat(1000);
    let runtime = Runtime::new().expect("a runtime");
    for says in [
        common::noise(5, 1000),
        frame(0x01, &[0; 17]),
        [&hello[..], &common::noise(6, 1000)].concat(),
        [&hello[..], &frame(0x02, &[3])].concat(),
        [&hello[..], &done()].concat(),
        [&hello[..], &answers].concat(),
        [&hello[..], &want(u64::MAX)].concat(),
        [&hello[..], &frame(0x03, b"\x02disk full")].concat(),
    ] {
        runtime.block_on(async {
            let host = p2p::builder().spawn().await.expect("a host");
            let mut stream = host.open(&addr, PROTOCOL).await.expect("a stream");
            stream.write_all(&says).await.expect("said");
            // The sender ends it, in order or not; perhaps before this side has.
            drop(stream.shutdown().await);
            drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await);
            host.close().await;
        });
    }
    let to = path(folder.path(), "to");
    // The sender may be about to notice that the last one is gone.
    let mut ended = run(&["recv", &ticket, "--into", &to]);
    while ended.stderr.contains("another receiver") {
        ended = run(&["recv", &ticket, "--into", &to]);
    }
    ended.code(0).quiet();
    send.finish().code(0).quiet();
    assert!(fs::read(format!("{to}/from")).expect("there") == common::noise(1, 3 << 20));
}
