//! Host to host over loopback TCP, Noise and yamux: what an application gets.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use p2p::{Host, Stream};
use p2p_benches::{drain, echo, upload};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
    task::JoinSet,
};

const DRAIN: &str = "/bench/drain/1.0.0";
const ECHO: &str = "/bench/echo/1.0.0";
const TOTAL: usize = 64 << 20;
const STREAMS: u64 = 100;

fn hosts(runtime: &Runtime) -> (Host, Host, String) {
    runtime.block_on(async {
        let server = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
        server.handle(DRAIN, |mut s: Stream| async move { drain(&mut s).await }).unwrap();
        server.handle(ECHO, |mut s: Stream| async move { echo(&mut s).await }).unwrap();
        let client = p2p::builder().spawn().await.unwrap();
        let addr = server.addrs().remove(0);
        client.connect(&addr).await.unwrap();
        (client, server, addr)
    })
}

fn bulk(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let (client, _server, addr) = hosts(&runtime);
    let mut group = c.benchmark_group("host/loopback TCP");
    group.sample_size(20).throughput(Throughput::Bytes(TOTAL as u64));
    for streams in [1, 64] {
        group.bench_function(format!("{streams} streams up"), |b| {
            b.to_async(&runtime).iter(|| async {
                let mut sending = JoinSet::new();
                for _ in 0..streams {
                    let mut stream = client.open(&addr, DRAIN).await.unwrap();
                    sending
                        .spawn(async move { upload(&mut stream, TOTAL / streams).await.unwrap() });
                }
                sending.join_all().await;
            });
        });
    }
    group.finish();
}

async fn echo_once(client: &Host, addr: &str) {
    let mut stream = client.open(addr, ECHO).await.unwrap();
    stream.write_all(&[7; 32]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::with_capacity(32);
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [7; 32]);
}

fn streams(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let (client, _server, addr) = hosts(&runtime);
    let mut group = c.benchmark_group("host/loopback TCP");
    group.sample_size(20).throughput(Throughput::Elements(STREAMS));
    group.bench_function("streams opened, echoed 32 B and closed, in sequence", |b| {
        b.to_async(&runtime).iter(|| async {
            for _ in 0..STREAMS {
                echo_once(&client, &addr).await;
            }
        });
    });
    group.bench_function("streams opened, echoed 32 B and closed, 100 at once", |b| {
        b.to_async(&runtime).iter(|| async {
            let mut all = JoinSet::new();
            for _ in 0..STREAMS {
                let (client, addr) = (client.clone(), addr.clone());
                all.spawn(async move { echo_once(&client, &addr).await });
            }
            all.join_all().await;
        });
    });
    group.finish();
}

fn handshakes(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let (client, server, addr) = hosts(&runtime);
    let peer = server.peer_id();
    c.bench_function("host/loopback TCP/dial, secure, multiplex, close", |b| {
        b.to_async(&runtime).iter(|| async {
            client.disconnect(&peer);
            while !client.connections(&peer).is_empty() {
                tokio::task::yield_now().await;
            }
            client.connect(&addr).await.unwrap();
        });
    });
}

criterion_group!(benches, bulk, streams, handshakes);
criterion_main!(benches);
