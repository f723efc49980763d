//! The wire: name servers on loopback that answer well, badly, or not at all.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use p2p_core::{Resolve, ResolveError};
use p2p_dns::{Dns, LOOKUP_TIMEOUT};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

const A: u16 = 1;
const CNAME: u16 = 5;
const TXT: u16 = 16;
const AAAA: u16 = 28;

const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NAME_ERROR: u8 = 3;
const REFUSED: u8 = 5;

/// What a server does with a question.
#[derive(Clone)]
enum Answer {
    Records(u8, Vec<(u16, Vec<u8>)>),
    /// Over UDP only a head that says so; the records over TCP.
    Truncated(Vec<(u16, Vec<u8>)>),
    Bytes(Vec<u8>),
    Silence,
}

/// A name server that answers every question of one kind in one way.
struct Server {
    addr: SocketAddr,
    /// The questions' names and kinds, and whether they came over TCP.
    asked: Arc<Mutex<Vec<(String, u16, bool)>>>,
}

impl Server {
    async fn new(kind: u16, answer: Answer) -> Self {
        // Another program may have the TCP port of the same number.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let server = Self { addr: udp.local_addr().unwrap(), asked: Arc::clone(&asked) };
        tokio::spawn(async move {
            let mut buf = [0; 2048];
            loop {
                tokio::select! {
                    received = udp.recv_from(&mut buf) => {
                        let (len, from) = received.unwrap();
                        let (name, asks, end) = question(&buf[..len]);
                        asked.lock().unwrap().push((name, asks, false));
                        if let Some(reply) = reply(&buf[..end], asks, kind, &answer, false) {
                            udp.send_to(&reply, from).await.unwrap();
                        }
                    }
                    accepted = tcp.accept() => {
                        let mut stream = accepted.unwrap().0;
                        let len = stream.read_u16().await.unwrap();
                        let mut query = vec![0; len.into()];
                        stream.read_exact(&mut query).await.unwrap();
                        let (name, asks, end) = question(&query);
                        asked.lock().unwrap().push((name, asks, true));
                        if let Some(reply) = reply(&query[..end], asks, kind, &answer, true) {
                            stream.write_u16(reply.len().try_into().unwrap()).await.unwrap();
                            stream.write_all(&reply).await.unwrap();
                        }
                    }
                }
            }
        });
        server
    }

    fn dns(&self) -> Dns {
        Dns::with_servers([self.addr])
    }
}

/// The name and kind that a query asks for, and where its question ends.
fn question(query: &[u8]) -> (String, u16, usize) {
    let (mut name, mut at) = (String::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name += std::str::from_utf8(&query[at + 1..end]).unwrap();
        name += ".";
        at = end;
    }
    (name, u16::from_be_bytes([query[at + 1], query[at + 2]]), at + 5)
}

/// The reply to a query that is cut after its question.
fn reply(query: &[u8], asks: u16, kind: u16, answer: &Answer, tcp: bool) -> Option<Vec<u8>> {
    let (code, truncated, records) = match answer {
        Answer::Silence => return None,
        Answer::Bytes(bytes) => return Some(bytes.clone()),
        Answer::Truncated(_) if !tcp => (NO_ERROR, true, &Vec::new()),
        Answer::Truncated(records) => (NO_ERROR, false, records),
        Answer::Records(code, _) if asks != kind => (*code, false, &Vec::new()),
        Answer::Records(code, records) => (*code, false, records),
    };
    let count = u16::try_from(records.len()).unwrap();
    // RFC 1035 4.1.1: a response to a question that asks for recursion, which there is.
    let flags = [0x81 | if truncated { 2 } else { 0 }, 0x80 | code];
    let mut reply = [&query[..2], &flags, &[0, 1], &count.to_be_bytes(), &[0; 4]].concat();
    reply.extend(&query[12..]);
    for (kind, data) in records {
        // The name is that of the question; the class is IN; it lives for a minute.
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 60]);
        reply.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        reply.extend(data);
    }
    Some(reply)
}

fn txt(strings: &[&[u8]]) -> Vec<u8> {
    let string = |s: &&[u8]| [&[u8::try_from(s.len()).unwrap()], *s].concat();
    strings.iter().flat_map(string).collect()
}

#[tokio::test]
async fn dns_01_addresses_of_both_families_are_looked_up() {
    let ips = vec![(A, vec![192, 0, 2, 1]), (A, vec![192, 0, 2, 2])];
    let server = Server::new(A, Answer::Records(NO_ERROR, ips)).await;
    let found = server.dns().lookup_ip4("a.test").await.unwrap();
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(server.asked.lock().unwrap()[..], [("a.test.".to_owned(), A, false)]);
    let ip = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1]].concat();
    let server = Server::new(AAAA, Answer::Records(NO_ERROR, vec![(AAAA, ip)])).await;
    let found = server.dns().lookup_ip6("a.test.").await.unwrap();
    assert_eq!(found[0].to_string(), "2001:db8::1");
    let none = server.dns().lookup_ip4("a.test").await;
    assert!(matches!(none, Err(ResolveError::NoRecords)), "{none:?}");
}

#[tokio::test]
async fn aliases_without_end_come_to_an_end() {
    // Whatever is asked for, its alias is `b` under it.
    let alias = vec![(CNAME, vec![1, b'b', 0xc0, 12])];
    let server = Server::new(A, Answer::Records(NO_ERROR, alias)).await;
    let error = server.dns().lookup_ip4("a.test").await.unwrap_err();
    assert!(!matches!(error, ResolveError::TimedOut(_)), "{error}");
    assert!(server.asked.lock().unwrap().len() < 20);
}

#[tokio::test]
async fn dns_07_the_character_strings_of_a_record_are_joined() {
    let long = [b'x'; 255];
    let records = vec![
        (TXT, txt(&[b"dnsaddr=/ip4/192.0.2.1", b"", b"/tcp/1"])),
        (TXT, txt(&[&long, &long, b"end"])),
        (TXT, txt(&[b"\xff\x00"])),
    ];
    let server = Server::new(TXT, Answer::Records(NO_ERROR, records)).await;
    let found = server.dns().lookup_txt("_dnsaddr.a.test").await.unwrap();
    assert_eq!(found[0], b"dnsaddr=/ip4/192.0.2.1/tcp/1");
    assert_eq!((found[1].len(), &found[1][509..]), (513, &b"xend"[..]));
    assert_eq!(found[2], b"\xff\x00");
    assert_eq!(server.asked.lock().unwrap()[0].0, "_dnsaddr.a.test.");
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_fetched_over_tcp() {
    let records = (0..200u8).map(|n| (A, vec![192, 0, 2, n])).collect();
    let server = Server::new(A, Answer::Truncated(records)).await;
    assert_eq!(server.dns().lookup_ip4("a.test").await.unwrap().len(), 200);
    let asked: Vec<bool> = server.asked.lock().unwrap().iter().map(|asked| asked.2).collect();
    assert_eq!(asked, [false, true]);
}

#[tokio::test]
async fn what_a_server_says_when_it_has_no_answer_is_told_apart() {
    for (code, wanted) in [
        (NAME_ERROR, "there is no such name"),
        (NO_ERROR, "it has no usable record"),
        (SERVER_FAILURE, "the name server failed: Server Failure"),
        (REFUSED, "the name server failed: Query Refused"),
    ] {
        let server = Server::new(A, Answer::Records(code, vec![])).await;
        let error = server.dns().lookup_ip4("a.test").await.unwrap_err();
        assert_eq!(error.to_string(), wanted);
    }
}

#[tokio::test]
async fn an_answer_is_kept_and_a_failure_that_may_pass_is_not() {
    let server = Server::new(A, Answer::Records(NO_ERROR, vec![(A, vec![192, 0, 2, 1])])).await;
    let dns = server.dns();
    for _ in 0..3 {
        dns.lookup_ip4("a.test").await.unwrap();
    }
    assert_eq!(server.asked.lock().unwrap().len(), 1);
    let server = Server::new(A, Answer::Records(SERVER_FAILURE, vec![])).await;
    let dns = server.dns();
    dns.lookup_ip4("a.test").await.unwrap_err();
    let first = server.asked.lock().unwrap().len();
    dns.lookup_ip4("a.test").await.unwrap_err();
    assert!(server.asked.lock().unwrap().len() > first);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_is_waited_for_five_seconds_and_asked_again() {
    let server = Server::new(A, Answer::Silence).await;
    let begun = tokio::time::Instant::now();
    let error = server.dns().lookup_ip4("a.test").await.unwrap_err();
    assert!(matches!(error, ResolveError::TimedOut(LOOKUP_TIMEOUT)), "{error}");
    assert!(begun.elapsed() <= LOOKUP_TIMEOUT + Duration::from_millis(1), "{:?}", begun.elapsed());
    assert!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn garbage_is_an_error_and_ends_in_time() {
    let garbage = [vec![], vec![0xff; 3], vec![0xff; 512], vec![0; 12], b"HTTP/1.1 400".to_vec()];
    for bytes in garbage {
        let server = Server::new(A, Answer::Bytes(bytes.clone())).await;
        let begun = tokio::time::Instant::now();
        let error = server.dns().lookup_ip4("a.test").await.unwrap_err();
        let kind = matches!(error, ResolveError::TimedOut(_) | ResolveError::Server(_));
        assert!(kind, "{bytes:?}: {error}");
        assert!(begun.elapsed() <= LOOKUP_TIMEOUT + Duration::from_millis(1));
    }
}

#[tokio::test]
async fn addresses_and_what_is_no_name_are_not_asked_for() {
    let server = Server::new(A, Answer::Records(NO_ERROR, vec![(A, vec![192, 0, 2, 9])])).await;
    let dns = server.dns();
    assert_eq!(dns.lookup_ip4("192.0.2.1").await.unwrap()[0].to_string(), "192.0.2.1");
    assert!(matches!(dns.lookup_ip6("192.0.2.1").await, Err(ResolveError::NoRecords)));
    assert_eq!(dns.lookup_ip6("2001:db8::1").await.unwrap()[0].to_string(), "2001:db8::1");
    assert!(matches!(dns.lookup_ip4("2001:db8::1").await, Err(ResolveError::NoRecords)));
    for name in ["", "a..test", &"a".repeat(64), &"a.".repeat(200)] {
        let answer = dns.lookup_ip4(name).await;
        assert!(matches!(answer, Err(ResolveError::Name(_))), "{name:?}: {answer:?}");
    }
    assert!(server.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_name_servers_it_is_the_configuration_that_is_wrong() {
    let answer = Dns::with_servers([]).lookup_ip4("a.test").await;
    assert!(matches!(answer, Err(ResolveError::Config(_))), "{answer:?}");
}
