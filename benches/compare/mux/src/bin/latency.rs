//! How long 32 B and their echo take on one stream, alone and beside 63 streams that send in bulk
//! on the same connection, over loopback TCP.
//!
//! `cargo run --release -p compare-mux --bin latency -- [--messages 3000] [--unsent BYTES]
//! [--rate MB/S] [FILTER]`, in this workspace. `--unsent` has sockets take no more while so much is
//! not sent; `--rate` puts a slow hop with buffers of 64 KiB on the way to the server, since else
//! it is the machine's cores that are saturated, and not the link.

#[path = "../noise.rs"]
mod noise;

use std::time::{Duration, Instant};

use p2p_core::{Muxer, Pipe, Role, Session};
use p2p_mux::{Mux, MuxStream, Setup, Yamux};
use p2p_security_noise::cipher::Cipher;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Builder,
};

const BULK: usize = 63;
const MESSAGE_LEN: usize = 32;
const HOP_LEN: usize = 64 << 10;

fn main() {
    let (mut messages, mut unsent, mut rate, mut filter) = (3000, None, None, String::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse::<usize>().ok()).expect("a number");
        match arg.as_str() {
            "--messages" => messages = number(),
            "--unsent" => unsent = u32::try_from(number()).ok(),
            "--rate" => rate = Some(number()),
            _ => filter = arg,
        }
    }
    println!("{messages} messages; p50 / p99 in µs");
    for (name, cipher) in [("clear", None), ("Noise, ring", Some(Cipher::RING))] {
        for (load, bulk) in [("alone", 0), ("beside 63", BULK)] {
            let title = format!("{name}, {load}");
            if !title.contains(&filter) {
                continue;
            }
            let runtime =
                Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runs");
            let task = async move {
                tokio::spawn(run(cipher, bulk, messages, unsent, rate)).await.expect("a run")
            };
            let (mut times, rate) = runtime.block_on(task);
            times.sort_by(f64::total_cmp);
            let at = |share: usize| times[times.len() * share / 100];
            println!("{title:<24} {:>8.0} / {:>8.0}   bulk {rate:.0} MB/s", at(50), at(99));
        }
    }
}

async fn run(
    cipher: Option<Cipher>,
    bulk: usize,
    messages: usize,
    unsent: Option<u32>,
    rate: Option<usize>,
) -> (Vec<f64>, f64) {
    let (a, b) = sockets().await;
    let (a, b) = match rate {
        None => (a, b),
        Some(rate) => {
            let (c, d) = sockets().await;
            SockRef::from(&b).set_recv_buffer_size(HOP_LEN).expect("a socket");
            SockRef::from(&c).set_send_buffer_size(HOP_LEN).expect("a socket");
            let ((from_a, to_a), (from_d, to_d)) = (b.into_split(), c.into_split());
            tokio::spawn(hop(from_a, to_d, rate));
            tokio::spawn(hop(from_d, to_a, rate));
            (a, d)
        }
    };
    let (ours, theirs) = cipher.map(noise::sessions).unzip();
    let client = connect(a, Role::Initiator, ours, unsent);
    let mut server = connect(b, Role::Responder, theirs, unsent);
    let serving = tokio::spawn(async move {
        while let Ok(stream) = server.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let mut echo = client.open().await.expect("opens");
    echo.write_all(b"e").await.expect("writes");
    let begun = Instant::now();
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for _ in 0..bulk {
        let mut stream = client.open().await.expect("opens");
        let sent = std::sync::Arc::clone(&sent);
        tokio::spawn(async move {
            stream.write_all(b"b").await.expect("writes");
            let data = vec![7; 64 << 10];
            while stream.write_all(&data).await.is_ok() {
                sent.fetch_add(data.len(), std::sync::atomic::Ordering::Relaxed);
            }
        });
    }
    let mut times = Vec::new();
    let mut answer = [0; MESSAGE_LEN];
    for _ in 0..messages {
        let asked = Instant::now();
        echo.write_all(&[7; MESSAGE_LEN]).await.expect("writes");
        echo.read_exact(&mut answer).await.expect("reads");
        times.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    let sent = sent.load(std::sync::atomic::Ordering::Relaxed) as f64;
    let rate = sent / begun.elapsed().as_secs_f64() / 1e6;
    serving.abort();
    (times, rate)
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let addr = listener.local_addr().expect("is bound");
    let (a, b) = tokio::join!(TcpStream::connect(addr), listener.accept());
    (a.expect("connects"), b.expect("accepts").0)
}

/// Carries at most so many MB in a second.
async fn hop(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, rate: usize) {
    let (begun, mut sent) = (Instant::now(), 0.0);
    let mut buffer = vec![0; HOP_LEN];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        // Time that was not used is lost, as on a link.
        let now = begun.elapsed().as_secs_f64();
        sent = f64::max(sent, now) + count as f64 / (rate as f64 * 1e6);
        if sent > now + 1e-3 {
            tokio::time::sleep(Duration::from_secs_f64(sent - now)).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

fn connect(io: TcpStream, role: Role, session: Option<Session>, unsent: Option<u32>) -> Mux {
    io.set_nodelay(true).expect("a socket");
    if let Some(most) = unsent {
        SockRef::from(&io).set_tcp_notsent_lowat(most).expect("Linux");
    }
    let (read, write) = io.into_split();
    let core = Yamux::default().start(role, tokio::time::Instant::now().into_std());
    let mut setup = Setup::new(Pipe::new(read, write), core);
    if let Some(session) = session {
        setup = setup.sealed(session.seal, session.open);
    }
    let (mux, driver) = setup.start();
    tokio::spawn(driver);
    mux
}

async fn serve(mut stream: MuxStream) {
    match stream.read_u8().await {
        Ok(b'e') => {
            let mut message = [0; MESSAGE_LEN];
            while stream.read_exact(&mut message).await.is_ok() {
                stream.write_all(&message).await.expect("writes");
            }
        }
        _ => {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(1..) = stream.read(&mut buffer).await {}
        }
    }
}
