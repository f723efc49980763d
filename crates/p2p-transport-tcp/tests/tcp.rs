//! The transport over the machine's loopback interfaces.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use p2p_core::{
    DialTarget, Incoming, Link, ListenEvent, Listener, Multiaddr, Pipe, Transport, TransportError,
};
use p2p_transport_tcp::Tcp;
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

fn parse(text: &str) -> Multiaddr {
    text.parse().expect("an address")
}

fn target(addr: &Multiaddr) -> DialTarget {
    DialTarget::new(addr.clone(), None)
}

fn pipe(link: Link) -> Pipe {
    let Link::Pipe(pipe) = link else { panic!("TCP gives pipes") };
    pipe
}

async fn listen(text: &str) -> (Box<dyn Listener>, Multiaddr) {
    let listener = Tcp::new().listen(parse(text)).await.expect("bound");
    let addr = listener.addrs().remove(0);
    (listener, addr)
}

async fn accept(listener: &mut Box<dyn Listener>) -> Incoming {
    let ListenEvent::Incoming(incoming) = listener.next().await.expect("goes on") else {
        panic!("nothing fails here")
    };
    incoming
}

/// Dials, accepts, and sends 100 kB there and back through an echo.
async fn echo(text: &str) {
    let (mut listener, addr) = listen(text).await;
    let tcp = Tcp::new();
    let (dialed, incoming) = tokio::join!(tcp.dial(target(&addr)), accept(&mut listener));
    assert_eq!(incoming.local, addr);
    assert_ne!(incoming.remote, addr);
    assert!(tcp.supports(&incoming.remote), "{}", incoming.remote);

    let mut theirs = pipe(incoming.link().await.expect("ready"));
    let mut ours = pipe(dialed.expect("connected"));
    let sent: Vec<u8> = (0..100_000u32).map(|i| i.to_le_bytes()[0]).collect();
    let mut received = Vec::new();
    let (echoed, written, read) = tokio::join!(
        async {
            tokio::io::copy(&mut theirs.read, &mut theirs.write).await?;
            theirs.write.shutdown().await
        },
        async {
            ours.write.write_all(&sent).await?;
            ours.write.shutdown().await
        },
        ours.read.read_to_end(&mut received),
    );
    echoed.expect("echoed");
    written.expect("written");
    read.expect("read");
    assert_eq!(received, sent);
}

#[tokio::test]
async fn dialed_and_accepted_over_ip4() {
    echo("/ip4/127.0.0.1/tcp/0").await;
}

#[tokio::test]
async fn dialed_and_accepted_over_ip6() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        eprintln!("SKIPPED: this machine has no ::1 ({error}), so TCP over IPv6 is not tested");
        return;
    }
    echo("/ip6/::1/tcp/0").await;
}

#[tokio::test]
async fn the_port_is_filled_in() {
    let (_listener, addr) = listen("/ip4/127.0.0.1/tcp/0").await;
    let text = addr.to_string();
    let port = text.strip_prefix("/ip4/127.0.0.1/tcp/").expect("the address asked for");
    assert_ne!(port, "0");
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_the_address() {
    let (_listener, addr) = listen("/ip4/127.0.0.1/tcp/0").await;
    let error = Tcp::new().listen(addr.clone()).await.err().expect("in use");
    assert!(error.to_string().starts_with(&format!("cannot listen on {addr}: ")), "{error}");
    let TransportError::Listen { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_refused_dial_names_the_address() {
    // Bound, so that nobody else gets the port, but not listening.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("valid");
    socket.bind(&any.into()).expect("loopback");
    let bound = socket.local_addr().expect("bound").as_socket().expect("an ip socket");
    let addr = parse(&format!("/ip4/127.0.0.1/tcp/{}", bound.port()));
    let error = Tcp::new().dial(target(&addr)).await.expect_err("nobody listens");
    assert!(error.to_string().starts_with(&format!("cannot connect to {addr}: ")), "{error}");
    let TransportError::Dial { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_wildcard_is_printed_as_addresses_that_can_be_dialed() {
    let listener = Tcp::new().listen(parse("/ip4/0.0.0.0/tcp/0")).await.expect("bound");
    let addrs = listener.addrs();
    assert!(addrs.iter().any(|addr| addr.to_string().starts_with("/ip4/127.0.0.1/tcp/")));
    for addr in &addrs {
        assert!(!addr.to_string().contains("0.0.0.0") && !addr.to_string().ends_with("/tcp/0"));
        Tcp::new().dial(target(addr)).await.expect("reachable");
    }
}

#[tokio::test]
async fn an_incoming_connection_on_a_wildcard_has_a_real_local_address() {
    let (mut listener, _) = listen("/ip4/0.0.0.0/tcp/0").await;
    let addrs = listener.addrs();
    let loopback = addrs.iter().find(|a| a.to_string().contains("127.0.0.1")).expect("loopback");
    let (tcp, dialed) = (Tcp::new(), target(loopback));
    let (dialed, incoming) = tokio::join!(tcp.dial(dialed), accept(&mut listener));
    dialed.expect("connected");
    assert_eq!(&incoming.local, loopback);
}

#[tokio::test]
async fn the_ip6_wildcard_is_expanded_and_leaves_the_port_to_ip4() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("SKIPPED: this machine has no ::1, so the IPv6 wildcard is not tested");
        return;
    }
    // The port is free for IPv6, but now and then somebody else has it for IPv4.
    for _ in 0..20 {
        let listener = Tcp::new().listen(parse("/ip6/::/tcp/0")).await.expect("bound");
        let addrs = listener.addrs();
        for text in addrs.iter().map(Multiaddr::to_string) {
            assert!(text.starts_with("/ip6/"), "{text}");
            assert!(!text.starts_with("/ip6/::/") && !text.starts_with("/ip6/fe80:"), "{text}");
        }
        let text = addrs[0].to_string();
        let port = text.rsplit('/').next().expect("a port");
        if Tcp::new().listen(parse(&format!("/ip4/0.0.0.0/tcp/{port}"))).await.is_ok() {
            return;
        }
    }
    panic!("the IPv6 socket takes the port for IPv4 as well");
}

#[tokio::test]
async fn other_addresses_are_not_supported() {
    let tcp = Tcp::new();
    for text in
        ["/dns4/example.com/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1/ws"]
    {
        let addr = parse(text);
        assert!(!tcp.supports(&addr));
        let dial = tcp.dial(target(&addr)).await.expect_err("unsupported");
        let listen = tcp.listen(addr.clone()).await.err().expect("unsupported");
        for error in [dial, listen] {
            assert!(
                matches!(&error, TransportError::Unsupported { addr: named } if *named == addr)
            );
        }
    }
    assert!(tcp.supports(&parse("/ip4/127.0.0.1/tcp/1")));
    assert!(tcp.supports(&parse("/ip6/::1/tcp/1")));
}

/// The side that closes first keeps the connection in TIME_WAIT.
#[tokio::test]
async fn a_port_can_be_bound_again_right_after_use() {
    let (mut listener, addr) = listen("/ip4/127.0.0.1/tcp/0").await;
    let tcp = Tcp::new();
    let (dialed, incoming) = tokio::join!(tcp.dial(target(&addr)), accept(&mut listener));
    let mut dialed = pipe(dialed.expect("connected"));
    drop(incoming.link().await.expect("ready"));
    assert_eq!(dialed.read.read(&mut [0; 1]).await.expect("closed"), 0);
    drop((dialed, listener));
    Tcp::new().listen(addr).await.expect("free again");
}

#[tokio::test]
async fn next_is_cancel_safe() {
    let (mut listener, addr) = listen("/ip4/127.0.0.1/tcp/0").await;
    for _ in 0..10 {
        assert!(timeout(Duration::from_millis(1), listener.next()).await.is_err());
        let dialed = Tcp::new().dial(target(&addr)).await.expect("connected");
        // Polled once and dropped, whether it was ready or not.
        let early = timeout(Duration::ZERO, listener.next()).await;
        if early.is_err() {
            accept(&mut listener).await;
        }
        drop(dialed);
    }
}

#[tokio::test]
async fn a_connection_that_is_gone_before_it_is_taken_does_not_end_the_listener() {
    let (mut listener, addr) = listen("/ip4/127.0.0.1/tcp/0").await;
    let tcp = Tcp::new();
    drop(tcp.dial(target(&addr)).await.expect("connected"));
    let (dialed, incoming) = tokio::join!(tcp.dial(target(&addr)), async {
        accept(&mut listener).await.link().await.expect("ready");
        accept(&mut listener).await
    });
    let mut ours = pipe(dialed.expect("connected"));
    let mut theirs = pipe(incoming.link().await.expect("ready"));
    theirs.write.write_all(b"x").await.expect("open");
    assert_eq!(ours.read.read_u8().await.expect("open"), b'x');
}

/// With nobody accepting, the system completes about as many connections as the backlog says.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_backlog_bounds_connections_that_nobody_has_accepted() {
    let listener =
        Tcp::new().with_backlog(1).listen(parse("/ip4/127.0.0.1/tcp/0")).await.expect("bound");
    let addr = listener.addrs().remove(0);
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let dialed = timeout(Duration::from_millis(200), Tcp::new().dial(target(&addr))).await;
        let Ok(dialed) = dialed else { break };
        waiting.push(dialed.expect("connected"));
    }
    assert!((1..16).contains(&waiting.len()), "{} connections", waiting.len());
}

fn port(addr: &Multiaddr) -> String {
    addr.to_string().rsplit('/').next().expect("a port").to_owned()
}

/// What the listener sees as the dialer's address.
async fn seen_from(
    tcp: &Tcp,
    listener: &mut Box<dyn Listener>,
    addr: &Multiaddr,
) -> (Link, Incoming) {
    let (dialed, incoming) = tokio::join!(tcp.dial(target(addr)), accept(listener));
    (dialed.expect("connected"), incoming)
}

#[cfg(unix)]
#[tokio::test]
async fn conn_39_dials_come_from_the_listening_port_and_from_another_where_that_is_taken() {
    for from in ["/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0"] {
        let (mut far, far_addr) = listen("/ip4/127.0.0.1/tcp/0").await;
        let tcp = Tcp::new().with_port_reuse(true);
        let near = tcp.listen(parse(from)).await.expect("bound");
        let own = port(&near.addrs()[0]);
        let (_first, incoming) = seen_from(&tcp, &mut far, &far_addr).await;
        assert_eq!(port(&incoming.remote), own);
        // The pair of ports is in use.
        let (second, again) = seen_from(&tcp, &mut far, &far_addr).await;
        assert_ne!(port(&again.remote), own);
        drop((second, incoming.link().await.expect("ready")));

        let other = tcp.clone().with_port_reuse(false);
        let (mut far, far_addr) = listen("/ip4/127.0.0.1/tcp/0").await;
        let (_third, plain) = seen_from(&other, &mut far, &far_addr).await;
        assert_ne!(port(&plain.remote), own, "only where it is wanted");
        drop(near);
        let (mut far, far_addr) = listen("/ip4/127.0.0.1/tcp/0").await;
        let (_fourth, without) = seen_from(&tcp, &mut far, &far_addr).await;
        assert_ne!(port(&without.remote), own, "nothing listens there any more");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn conn_39_a_port_is_bound_twice_only_where_it_is_to_be_reused() {
    let tcp = Tcp::new().with_port_reuse(true);
    let first = tcp.listen(parse("/ip4/127.0.0.1/tcp/0")).await.expect("bound");
    let addr = first.addrs().remove(0);
    assert!(Tcp::new().listen(addr.clone()).await.is_err());
    assert!(tcp.listen(addr).await.is_ok());
}

/// The program under test in a process of its own that may have few files.
#[cfg(unix)]
const FEW_FILES: &str = "P2P_TEST_FEW_FILES";

#[cfg(unix)]
#[tokio::test]
async fn without_file_descriptors_the_listener_goes_on_and_takes_connections_once_there_are_some() {
    if std::env::var_os(FEW_FILES).is_none() {
        let name = "without_file_descriptors_the_listener_goes_on_and_takes_connections_once_there_are_some";
        let program = std::env::current_exe().expect("this program");
        let status = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
            .arg(program)
            .args(["--exact", name, "--nocapture"])
            .env(FEW_FILES, "1")
            .status()
            .expect("a shell");
        assert!(status.success(), "{status}");
        return;
    }
    let (mut listener, addr) = listen("/ip4/127.0.0.1/tcp/0").await;
    let tcp = Tcp::new();
    let waiting = tcp.dial(target(&addr)).await.expect("a descriptor is left");
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    for _ in 0..2 {
        let event = listener.next().await.expect("it goes on");
        let ListenEvent::Failed(error) = event else { panic!("{event:?}") };
        let text = error.to_string();
        assert!(text.contains(&addr.to_string()) && text.contains("os error 24"), "{text}");
    }
    files.clear();
    let incoming = accept(&mut listener).await;
    assert_eq!(incoming.local, addr);
    drop((waiting, incoming));
}
