//! Yamux over a pipe in memory, unencrypted: one stream and 64, and small messages.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use p2p::{
    core::Role,
    mux::{Mux, Yamux, connect},
};
use p2p_benches::{drain, echo, upload};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
    task::JoinSet,
};

const PIPE_LEN: usize = 1 << 20;
const TOTAL: usize = 64 << 20;
const MESSAGES: u64 = 1000;

/// A client, and a server that serves every stream with `serve`.
fn session<F>(runtime: &Runtime, serve: impl Fn(p2p::mux::MuxStream) -> F + Send + 'static) -> Mux
where
    F: Future<Output = ()> + Send + 'static,
{
    let _entered = runtime.enter();
    let (ours, theirs) = tokio::io::duplex(PIPE_LEN);
    let (client, driver) = connect(ours, &Yamux::default(), Role::Initiator);
    runtime.spawn(driver);
    let (mut server, driver) = connect(theirs, &Yamux::default(), Role::Responder);
    runtime.spawn(driver);
    runtime.spawn(async move {
        while let Ok(stream) = server.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    client
}

fn bulk(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let client = session(&runtime, |mut stream| async move { drain(&mut stream).await.unwrap() });
    let mut group = c.benchmark_group("yamux/memory pipe");
    group.sample_size(20).throughput(Throughput::Bytes(TOTAL as u64));
    for streams in [1, 64] {
        group.bench_function(format!("{streams} streams up"), |b| {
            b.to_async(&runtime).iter(|| async {
                let mut sending = JoinSet::new();
                for _ in 0..streams {
                    let mut stream = client.open().await.unwrap();
                    sending
                        .spawn(async move { upload(&mut stream, TOTAL / streams).await.unwrap() });
                }
                sending.join_all().await;
            });
        });
    }
    group.finish();
}

fn small_messages(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let client = session(&runtime, |mut stream| async move { echo(&mut stream).await.unwrap() });
    let mut group = c.benchmark_group("yamux/memory pipe");
    group.sample_size(20).throughput(Throughput::Elements(MESSAGES));
    group.bench_function("32 B requests and responses", |b| {
        b.to_async(&runtime).iter(|| async {
            let mut stream = client.open().await.unwrap();
            let mut answer = [0; 32];
            for _ in 0..MESSAGES {
                stream.write_all(&[7; 32]).await.unwrap();
                stream.read_exact(&mut answer).await.unwrap();
            }
            stream.shutdown().await.unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, bulk, small_messages);
criterion_main!(benches);
