//! `p2p forward` and `p2p serve-tcp`, with services and clients of the test's own.

mod common;

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::common::{Piped, Program, noise, path, run, start, text};

const ANYWHERE: &str = "/ip4/127.0.0.1/tcp/0";

/// How long a local socket may take, whatever else the machine does.
const SOCKET_MAX: Duration = Duration::from_secs(60);

/// Serves each connection in a thread of its own, until the test program ends.
fn service(serve: impl Fn(TcpStream) + Send + Sync + Copy + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.expect("accepted");
            thread::spawn(move || serve(connection));
        }
    });
    addr
}

/// A port that nothing listens on.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").to_string()
}

fn echo(mut connection: TcpStream) {
    let mut read = connection.try_clone().expect("a second handle");
    std::io::copy(&mut read, &mut connection).expect("echoed");
    connection.shutdown(Shutdown::Write).expect("ended");
}

/// Answers one request of HTTP/1.1 with its path, by length, and leaves the connection to the
/// client.
fn http(mut connection: TcpStream) {
    let mut read = BufReader::new(connection.try_clone().expect("a second handle"));
    loop {
        let mut first = String::new();
        if read.read_line(&mut first).expect("a request") == 0 {
            return;
        }
        let mut line = String::new();
        while read.read_line(&mut line).expect("a header") > 2 {
            line.clear();
        }
        let body = format!("you asked for {}", first.split(' ').nth(1).expect("a path"));
        write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            .expect("answered");
    }
}

/// A line protocol as of a mail server: a greeting, an answer to each line, an end on request.
fn lines(mut connection: TcpStream) {
    let read = BufReader::new(connection.try_clone().expect("a second handle"));
    connection.write_all(b"220 ready\n").expect("greeted");
    for line in read.lines() {
        let line = line.expect("a line");
        if line == "QUIT" {
            connection.write_all(b"221 bye\n").expect("said");
            return;
        }
        connection.write_all(format!("250 {line}\n").as_bytes()).expect("answered");
    }
}

fn serve(allow: &[&str], more: &[&str]) -> (Program, String) {
    let mut args = vec!["serve-tcp", "--json", "--listen", ANYWHERE];
    for target in allow {
        args.extend(["--allow", *target]);
    }
    args.extend(more);
    let mut serve = start(&args);
    let addr = text(&serve.event("listening"), "addr");
    (serve, addr)
}

/// A `p2p forward` of each pair, and the local sockets that it took.
fn forward(peer: &str, pairs: &[(&str, &str)], more: &[&str]) -> (Program, Vec<String>) {
    let mut args = vec!["forward", "--json", "--peer", peer];
    for (local, remote) in pairs {
        args.extend(["--local", *local, "--remote", *remote]);
    }
    args.extend(more);
    let mut forward = start(&args);
    let local = |_: &(&str, &str)| text(&forward.event("forwarding"), "local");
    let locals = pairs.iter().map(local).collect();
    (forward, locals)
}

fn connect(addr: &str) -> TcpStream {
    let client = TcpStream::connect(addr).expect("the program listens");
    client.set_read_timeout(Some(SOCKET_MAX)).expect("set");
    client
}

const FREE: &str = "127.0.0.1:0";

#[test]
fn a_web_server_and_a_line_protocol_are_used_through_one_program() {
    let (web, line) = (service(http), service(lines));
    let (_serve, addr) = serve(&[&web, &line], &[]);
    let (_forward, locals) = forward(&addr, &[(FREE, &web), (FREE, &line)], &[]);

    let mut client = connect(&locals[0]);
    let mut read = BufReader::new(client.try_clone().expect("a second handle"));
    for path in ["/a", "/b"] {
        write!(client, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").expect("asked");
        let mut head = String::new();
        for _ in 0..3 {
            read.read_line(&mut head).expect("a line");
        }
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let mut body = vec![0; format!("you asked for {path}").len()];
        read.read_exact(&mut body).expect("a body");
        assert_eq!(body, format!("you asked for {path}").as_bytes());
    }

    let mut client = connect(&locals[1]);
    let mut read = BufReader::new(client.try_clone().expect("a second handle"));
    let mut line = || {
        let mut line = String::new();
        read.read_line(&mut line).expect("a line");
        line
    };
    assert_eq!(line(), "220 ready\n");
    for word in ["HELO", "MAIL"] {
        writeln!(client, "{word}").expect("said");
        assert_eq!(line(), format!("250 {word}\n"));
    }
    writeln!(client, "QUIT").expect("said");
    assert_eq!((line(), line()), ("221 bye\n".into(), String::new()));
}

#[test]
fn a_hundred_connections_at_a_time_are_carried_whole() {
    const COUNT: u64 = 100;
    let echo = service(echo);
    let (_serve, addr) = serve(&[&echo], &[]);
    let (_forward, locals) = forward(&addr, &[(FREE, &echo)], &[]);
    // All are open, and have said something, before one of them ends.
    let mut clients: Vec<_> = (0..COUNT).map(|_| connect(&locals[0])).collect();
    for client in &mut clients {
        client.write_all(b"x").expect("said");
        client.read_exact(&mut [0]).expect("echoed");
    }
    let clients: Vec<_> = clients
        .into_iter()
        .zip(0..)
        .map(|(mut client, seed)| {
            thread::spawn(move || {
                let data = noise(seed, 100_000);
                let mut write = client.try_clone().expect("a second handle");
                let sent = data.clone();
                let writing = thread::spawn(move || {
                    write.write_all(&sent).expect("taken");
                    write.shutdown(Shutdown::Write).expect("ended");
                });
                let mut back = Vec::new();
                client.read_to_end(&mut back).expect("read to the end");
                writing.join().expect("written");
                assert!(back == data);
            })
        })
        .collect();
    for client in clients {
        client.join().expect("it got its own bytes back");
    }
}

#[test]
fn a_service_that_refuses_is_a_plain_sentence_where_it_is_forwarded() {
    let nobody = nobody();
    let (_serve, addr) = serve(&[&nobody], &[]);
    let (mut forward, locals) = forward(&addr, &[(FREE, &nobody), (FREE, "127.0.0.1:22")], &[]);
    for (local, part) in [(&locals[0], "refused"), (&locals[1], "does not expose 127.0.0.1:22")] {
        let mut client = connect(local);
        let ended = client.read(&mut [0]);
        assert_eq!(ended.expect_err("no end in order").kind(), ErrorKind::ConnectionReset);
        let message = text(&forward.event("failed"), "message");
        assert!(message.contains(part), "{message}");
    }
    for (remote, part) in
        [(nobody.as_str(), "cannot reach"), ("127.0.0.1:22", "--allow 127.0.0.1:22")]
    {
        let ended = run(&["forward", "--stdio", "--peer", &addr, "--remote", remote]);
        ended.code(1).holds_no_debug_output();
        assert!(ended.stderr.contains(part) && ended.stdout.is_empty(), "{}", ended.stderr);
    }
}

/// Cut data must not look whole: the client sees an error and no end.
#[test]
fn a_service_that_breaks_off_breaks_the_local_connection_off() {
    let broken = service(|mut connection| {
        connection.write_all(b"part").expect("said");
        // What was sent to it is unread: the system resets the connection.
        connection.peek(&mut [0]).expect("a byte");
    });
    let (_serve, addr) = serve(&[&broken], &[]);
    let (mut forward, locals) = forward(&addr, &[(FREE, &broken)], &[]);
    let mut client = connect(&locals[0]);
    let mut part = [0; 4];
    client.read_exact(&mut part).expect("a part comes");
    client.write_all(b"more").expect("said");
    let ended = client.read(&mut part);
    assert_eq!(ended.expect_err("no end in order").kind(), ErrorKind::ConnectionReset);
    let message = text(&forward.event("failed"), "message");
    assert!(message.contains("reset at the other end"), "{message}");
}

#[test]
fn an_end_is_an_end_in_its_own_direction_alone() {
    // Answers only when it has seen the client's end.
    let waiting = service(|mut connection| {
        let mut all = Vec::new();
        connection.read_to_end(&mut all).expect("read");
        connection.write_all(format!("{} bytes", all.len()).as_bytes()).expect("said");
    });
    let (_serve, addr) = serve(&[&waiting], &[]);
    let (_forward, locals) = forward(&addr, &[(FREE, &waiting)], &[]);
    let mut client = connect(&locals[0]);
    client.write_all(&noise(4, 1000)).expect("said");
    client.shutdown(Shutdown::Write).expect("ended");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("answered");
    assert_eq!(answer, "1000 bytes");
}

#[cfg(unix)]
#[test]
fn unix_sockets_are_forwarded_at_both_ends() {
    use std::os::unix::net::{UnixListener, UnixStream};
    let folder = tempfile::tempdir().expect("a folder");
    let service = path(folder.path(), "service");
    let listener = UnixListener::bind(&service).expect("bound");
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("accepted");
            let mut read = connection.try_clone().expect("a second handle");
            std::io::copy(&mut read, &mut connection).expect("echoed");
            connection.shutdown(Shutdown::Write).expect("ended");
        }
    });
    let (target, local) = (format!("unix:{service}"), path(folder.path(), "local"));
    let (_serve, addr) = serve(&[&target], &[]);
    let socket = format!("unix:{local}");
    let (forward, locals) = forward(&addr, &[(&socket, &target), (FREE, &target)], &[]);
    let mut client = UnixStream::connect(&local).expect("the program listens");
    client.write_all(b"hi").expect("said");
    client.shutdown(Shutdown::Write).expect("ended");
    let mut back = String::new();
    client.read_to_string(&mut back).expect("echoed");
    let mut client = connect(&locals[1]);
    client.write_all(b" there").expect("said");
    client.shutdown(Shutdown::Write).expect("ended");
    client.read_to_string(&mut back).expect("echoed");
    assert_eq!(back, "hi there");

    let taken = run(&["forward", "--local", &socket, "--peer", &addr, "--remote", &target]);
    assert!(taken.code(1).stderr.contains("remove the file"), "{}", taken.stderr);
    forward.signal("-TERM");
    forward.finish().code(0).quiet();
    assert!(!std::path::Path::new(&local).exists());
}

#[test]
fn stdio_is_a_connection_as_for_ssh() {
    let line = service(lines);
    let (_serve, addr) = serve(&[&line], &[]);
    let mut proxy =
        Piped::start(&["forward", "--stdio", "--json", "--peer", &addr, "--remote", &line]);
    proxy.feed(b"HELO\nQUIT\n".to_vec()).join().expect("fed");
    let all = String::from_utf8(proxy.read_all()).expect("text");
    assert_eq!(all, "220 ready\n250 HELO\n221 bye\n");
    assert_eq!(proxy.code(), Some(0));
}

#[test]
fn only_allowed_peers_are_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = path(folder.path(), "key");
    let peer = text(&run(&["key", "new", "--json", &key]).events().remove(0), "peer");
    let line = service(lines);
    let (mut serve, addr) = serve(&[&line], &["--allow-peer", &peer]);
    let args = ["forward", "--stdio", "--peer", &addr, "--remote", &line];
    let ended = run(&args);
    ended.code(1).holds_no_debug_output();
    assert!(ended.stderr.contains("--allow-peer"), "{}", ended.stderr);
    serve.event("refused");
    let mut known = Piped::start(&[&args[..], &["--key", &key]].concat());
    known.feed(b"QUIT\n".to_vec());
    assert_eq!(known.read_all(), b"220 ready\n221 bye\n");
    let opened = serve.event("opened");
    assert_eq!((&opened["peer"], &opened["target"]), (&peer.into(), &line.into()));
}

#[test]
fn a_peer_that_is_gone_fails_connections_and_not_the_program() {
    let echo = service(echo);
    let (serve, addr) = serve(&[&echo], &[]);
    let (mut forward, locals) = forward(&addr, &[(FREE, &echo)], &["--timeout", "2"]);
    let mut client = connect(&locals[0]);
    client.write_all(b"x").expect("said");
    client.read_exact(&mut [0]).expect("echoed");
    drop(serve);
    client.read(&mut [0]).expect_err("no end in order");
    let message = text(&forward.event("failed"), "message");
    assert!(message.contains("the peer is gone"), "{message}");
    connect(&locals[0]).read(&mut [0]).expect_err("no end in order");
    forward.event("failed");
}

#[test]
fn what_cannot_be_forwarded_is_said_at_once() {
    let bound = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = bound.local_addr().expect("bound").to_string();
    let peer = "/ip4/127.0.0.1/tcp/1";
    let forward = |local: &str| {
        run(&["forward", "--local", local, "--peer", peer, "--remote", "127.0.0.1:80"])
    };
    let ended = forward(&taken);
    ended.code(1).holds_no_debug_output();
    assert!(ended.stderr.contains(&taken) && ended.stderr.contains("in use"), "{}", ended.stderr);
    let ended = forward(FREE);
    assert!(ended.code(1).stderr.contains("nothing listens there"), "{}", ended.stderr);

    run(&["serve-tcp"]).code(2);
    run(&["forward", "--peer", peer, "--remote", "127.0.0.1:80"]).code(2);
    let pairs = ["forward", "--peer", peer, "--local", FREE, "--remote", "a:1", "--remote", "b:1"];
    assert!(run(&pairs).code(2).stderr.contains("2 --remote"));
    let two = ["forward", "--stdio", "--peer", peer, "--remote", "a:1", "--remote", "b:1"];
    assert!(run(&two).code(2).stderr.contains("one --remote"));
    for wrong in ["80", "a b:1", "unix:relative", "127.0.0.1:0"] {
        run(&["serve-tcp", "--allow", wrong]).code(2);
    }
}
