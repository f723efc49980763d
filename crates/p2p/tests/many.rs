//! Ten thousand connections of one host, held by another in a second process: real TCP, Noise and
//! yamux over the loopback interface, each to an address of its own in 127.0.0.0/8.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    alloc::System,
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use cap::Cap;
use common::{echo, echo_once};
use p2p::{Builder, Host};
use tokio::{runtime::Handle, sync::Semaphore, task::JoinSet, time::timeout};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const TEST: &str = "ten_thousand_connections_are_held_used_and_closed";
/// What a child process is told its part by.
const PART: &str = "P2P_MANY_PART";
const CONNECTIONS: usize = 10_000;
/// Files of a process besides its connections.
const OTHER_FILES: usize = 200;
/// Handshakes under way.
const AT_ONCE: usize = 64;
/// Every so manyth connection is used.
const SAMPLE: usize = 50;
/// How long one side's part may take, on a machine that is busy with other things.
const PART_MAX: Duration = Duration::from_secs(300);
/// What an idle connection may hold on either side, in bytes of the heap. A build without
/// optimisations holds somewhat more than one with them.
const IDLE_LEN_MAX: usize = 9 << 10;

fn builder() -> Builder {
    p2p::builder()
        .connections_inbound_max(CONNECTIONS)
        .connections_outbound_max(CONNECTIONS)
        .connections_per_peer_max(CONNECTIONS)
        // The machine may be busy with other things.
        .address_timeout(PART_MAX)
        .dial_timeout(PART_MAX)
        .inbound_timeout(PART_MAX)
        // A dialer is done with a handshake before its listener is.
        .pending_inbound_max(CONNECTIONS)
        .connections_watermarks(usize::MAX, usize::MAX)
        .idle_timeout(Duration::from_secs(3600))
        .drain_timeout(Duration::from_secs(60))
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Waits for the parent's word to go on.
async fn told() {
    tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await.unwrap();
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Waits until a host has so many connections and streams.
async fn wait_usage(host: &Host, connections: usize) {
    loop {
        let usage = host.usage();
        let streams = usage.streams_inbound.count + usage.streams_outbound.count;
        let all = usage.connections_inbound.count + usage.connections_outbound.count;
        if (all, streams) == (connections, 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the connections that have come since hold no more than they may, and tells what
/// that is. One that has just moved something, as its multiplexer's ping, holds more.
async fn wait_idle(heap: usize, rss: usize) {
    let held = || HEAP.allocated().saturating_sub(heap) / CONNECTIONS;
    while held() > IDLE_LEN_MAX {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let resident = resident().saturating_sub(rss) / CONNECTIONS;
    say(&format!("held {} bytes of the heap, {resident} resident", held()));
}

/// Ends the host, and waits until the process has no task left.
async fn end(host: Host) {
    host.close().await;
    drop(host);
    // The runtime frees a task a moment after the host has counted it as ended.
    while Handle::current().metrics().num_alive_tasks() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    say("ended without a task");
}

async fn listen() {
    let host = builder().listen("/ip4/0.0.0.0/tcp/0").spawn().await.unwrap();
    host.handle("/echo/1.0.0", echo).unwrap();
    let (heap, rss) = (HEAP.allocated(), resident());
    let addr = host.addrs().remove(0);
    say(&format!("port {}", addr.split('/').nth(4).unwrap()));
    wait_usage(&host, CONNECTIONS).await;
    say("connected");
    told().await;
    wait_idle(heap, rss).await;
    wait_usage(&host, 0).await;
    end(host).await;
}

fn addr(number: usize, port: &str) -> String {
    let ip = Ipv4Addr::from_bits(0x7f01_0000 + u32::try_from(number).unwrap());
    format!("/ip4/{ip}/tcp/{port}")
}

async fn dial(port: &str) {
    let host = builder().spawn().await.unwrap();
    let (heap, rss) = (HEAP.allocated(), resident());
    let (turns, mut dials) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for number in 0..CONNECTIONS {
        let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
        let (host, addr) = (host.clone(), addr(number, port));
        dials.spawn(async move {
            host.connect(&addr).await.unwrap();
            drop(turn);
        });
    }
    while let Some(dialed) = dials.join_next().await {
        dialed.unwrap();
    }
    drop(dials);
    wait_usage(&host, CONNECTIONS).await;
    say("connected");
    told().await;
    wait_idle(heap, rss).await;
    for number in (0..CONNECTIONS).step_by(SAMPLE) {
        // Not a ping, of which a peer may have two at once: a listener that is busy sees the end of
        // the last ones late. The end of an echo is its handler's.
        assert_eq!(echo_once(&host, &addr(number, port), b"hello").await.unwrap(), b"hello");
    }
    assert_eq!(host.usage().connections_outbound.count, CONNECTIONS, "no new one was made");
    say("used");
    told().await;
    end(host).await;
}

/// One of the two processes, with as many files as the machine allows.
struct Process {
    child: Child,
    words: ChildStdin,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(part: &str) -> Self {
        let own = std::env::current_exe().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -n $(ulimit -H -n) && exec \"$@\"", "sh"])
            .arg(own)
            .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
            .env(PART, part)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let words = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, words, lines }
    }

    /// Waits for the line that begins with `word`, and gives the rest of it.
    fn wait(&mut self, word: &str) -> String {
        let found = |line: std::io::Result<String>| {
            // The test's name may stand before the first one.
            let line = line.unwrap();
            line.rfind(word).map(|at| line[at + word.len()..].trim().to_owned())
        };
        self.lines.find_map(found).unwrap_or_else(|| panic!("it ended before it said {word}"))
    }

    fn go_on(&mut self) {
        self.words.write_all(b"\n").unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn files_max() -> usize {
    let output = Command::new("sh").args(["-c", "ulimit -H -n"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().parse().unwrap_or(usize::MAX)
}

/// All are held at once, every fiftieth answers a ping over its own connection, and when they are
/// closed neither process has a task left.
#[test]
fn ten_thousand_connections_are_held_used_and_closed() {
    if let Ok(part) = std::env::var(PART) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let played = async {
            match part.strip_prefix("dial ") {
                Some(port) => dial(port).await,
                None => listen().await,
            }
        };
        return runtime.block_on(async { timeout(PART_MAX, played).await.unwrap() });
    }
    if files_max() < CONNECTIONS + OTHER_FILES {
        eprintln!("SKIPPED: this machine lets a process have {} files open", files_max());
        return;
    }
    let mut listener = Process::start("listen");
    let port = listener.wait("port ");
    let mut dialer = Process::start(&format!("dial {port}"));
    dialer.wait("connected");
    listener.wait("connected");
    for (side, process) in [("listener", &mut listener), ("dialer", &mut dialer)] {
        process.go_on();
        eprintln!("{side}: {} for each connection", process.wait("held "));
    }
    dialer.wait("used");
    dialer.go_on();
    for process in [&mut dialer, &mut listener] {
        process.wait("ended without a task");
    }
    for process in [&mut dialer, &mut listener] {
        assert!(process.child.wait().unwrap().success());
    }
}
