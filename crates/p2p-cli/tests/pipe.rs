//! `p2p pipe`: two programs, and the bytes between them.

mod common;

use std::io::{Read, Write};

use crate::common::{Piped, noise, path, run, split, start, text};

const ANYWHERE: &str = "/ip4/127.0.0.1/tcp/0";

fn listen(more: &[&str]) -> (Piped, String) {
    let args = [&["pipe", "listen", "--json", "--listen", ANYWHERE], more].concat();
    let mut listen = Piped::start(&args);
    let addr = text(&listen.event("listening"), "addr");
    (listen, addr)
}

#[test]
fn all_bytes_go_both_ways_and_nothing_else_is_on_stdout() {
    let (mut listen, addr) = listen(&[]);
    let mut connect = Piped::start(&["pipe", "connect", "--json", &addr]);
    let (there, back) = (noise(1, 5 << 20), noise(2, 3 << 20));
    let feeding = [connect.feed(there.clone()), listen.feed(back.clone())];
    let received = std::thread::spawn(move || (listen.read_all(), listen.code()));
    assert!(connect.read_all() == back);
    let done = connect.event("done");
    assert_eq!((&done["sent"], &done["received"]), (&(5 << 20).into(), &(3 << 20).into()));
    assert_eq!(connect.code(), Some(0));
    let (received, code) = received.join().expect("it was read");
    assert!(received == there);
    assert_eq!(code, Some(0));
    for feeding in feeding {
        feeding.join().expect("it was fed");
    }
}

/// Each side in turn ends first: the other reads the end while its own stdin is open, and still
/// sends.
#[test]
fn an_end_is_an_end_in_its_own_direction_alone() {
    for listener_first in [true, false] {
        let (listen, addr) = listen(&[]);
        let connect = Piped::start(&["pipe", "connect", "--json", &addr]);
        let (mut first, mut second) =
            if listener_first { (listen, connect) } else { (connect, listen) };
        first.feed(b"question".to_vec()).join().expect("fed");
        assert_eq!(second.read_all(), b"question");
        let stdin = second.stdin.as_mut().expect("it is open");
        stdin.write_all(b"ans").expect("it reads");
        let mut part = [0; 3];
        first
            .stdout
            .as_mut()
            .expect("open")
            .read_exact(&mut part)
            .expect("it comes before the end");
        second.feed(b"wer".to_vec()).join().expect("fed");
        assert_eq!(first.read_all(), b"wer");
        assert_eq!((first.code(), second.code()), (Some(0), Some(0)));
    }
}

#[test]
fn a_peer_that_is_killed_is_an_error() {
    let (mut listen, addr) = listen(&[]);
    let mut connect = Piped::start(&["pipe", "connect", "--json", &addr]);
    connect.stdin.as_mut().expect("open").write_all(b"x").expect("it reads");
    listen.stdout.as_mut().expect("open").read_exact(&mut [0]).expect("it came");
    listen.kill();
    let message = text(&connect.event("error"), "message");
    assert!(message.contains("the peer is gone"), "{message}");
    assert_eq!(connect.code(), Some(1));
}

#[test]
fn a_reader_that_goes_away_ends_the_pipe_quietly() {
    let (mut listen, addr) = listen(&[]);
    let mut connect = Piped::start(&["pipe", "connect", "--json", &addr]);
    connect.event("connected");
    connect.stdout = None;
    listen.feed(noise(3, 1 << 20));
    assert_eq!(connect.code(), Some(0));
    assert_eq!(listen.code(), Some(1));
}

#[test]
fn only_allowed_peers_are_served_and_others_do_not_end_the_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = path(folder.path(), "key");
    let peer = text(&run(&["key", "new", "--json", &key]).events().remove(0), "peer");
    let (mut listen, addr) = listen(&["--allow-peer", &peer]);
    let mut stranger = Piped::start(&["pipe", "connect", "--json", &addr]);
    listen.event("refused");
    let message = text(&stranger.event("error"), "message");
    assert!(message.contains("certain peers"), "{message}");
    assert_eq!(stranger.code(), Some(1));
    let mut known = Piped::start(&["pipe", "connect", "--json", "--key", &key, &addr]);
    known.feed(b"hi".to_vec());
    assert_eq!(listen.read_all(), b"hi");
    drop(listen.stdin.take());
    assert_eq!((known.code(), listen.code()), (Some(0), Some(0)));
}

#[test]
fn one_pipe_has_two_ends() {
    let (mut listen, addr) = listen(&[]);
    let _first = Piped::start(&["pipe", "connect", "--json", &addr]);
    listen.event("connected");
    let message = run(&["pipe", "connect", &addr]);
    assert!(message.code(1).stderr.contains("p2p pipe listen"), "{}", message.stderr);
}

#[test]
fn a_peer_without_the_protocol_says_what_to_start() {
    let mut other = start(&["listen", "--json", "--listen", ANYWHERE]);
    let addr = text(&other.event("listening"), "addr");
    let ended = run(&["pipe", "connect", &addr]);
    ended.code(1).holds_no_debug_output();
    assert!(ended.stderr.contains("p2p pipe listen"), "{}", ended.stderr);
    assert!(ended.stdout.is_empty());
    let refused = run(&["pipe", "connect", "/ip4/127.0.0.1/tcp/1"]);
    assert!(refused.code(1).stderr.contains("refused"), "{}", refused.stderr);
    let ended = run(&["pipe", "listen", "--listen", split(&addr).0]);
    assert!(ended.code(1).stderr.contains("in use"), "{}", ended.stderr);
}

#[test]
fn ctrl_c_ends_a_pipe() {
    let (mut listen, _) = listen(&[]);
    listen.signal("-INT");
    assert_eq!(listen.code(), Some(130));
}
