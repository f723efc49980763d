//! Drivers over pipes of a few bytes that stall, with readers that stop and go: never a deadlock.

use p2p_core::Role;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex, split},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::*;
use crate::{
    Config, Mux, MuxStream, Yamux,
    common::{
        pattern,
        random::{Random, for_seeds},
    },
    connect,
};

const SEEDS: u64 = 400;

/// Carries bytes from one pipe to another, and stands still now and then.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut random: Random,
) {
    let mut bytes = vec![0; 20_000];
    loop {
        let most = random.pick(&[1, 30, 20_000]);
        let count = from.read(&mut bytes[..most]).await.unwrap();
        if random.chance(2000) {
            sleep(Duration::from_millis(random.next() % 900)).await;
        }
        to.write_all(&bytes[..count]).await.unwrap();
    }
}

/// Writes all of it, and reads `len` bytes and the end, both with pauses.
async fn exchange(stream: MuxStream, text: Vec<u8>, expected: Vec<u8>, mut random: Random) {
    let (mut read, mut write) = split(stream);
    let sender = async {
        write.write_all(&text).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let receiver = async {
        let mut all = Vec::new();
        let mut bytes = vec![0; 60_000];
        loop {
            let most = random.pick(&[1, 2000, 60_000]);
            let count = read.read(&mut bytes[..most]).await.unwrap();
            if count == 0 {
                break;
            }
            all.extend_from_slice(&bytes[..count]);
            if random.chance(20) {
                sleep(Duration::from_millis(random.next() % 3000)).await;
            }
        }
        assert!(all == expected, "not what was written");
    };
    tokio::join!(sender, receiver);
}

/// What `side` writes on the stream that was opened as number `stream` of `opener`.
fn text(side: usize, opener: usize, stream: usize, lens: &[usize]) -> Vec<u8> {
    let which = (stream * 2 + opener) * 2 + side;
    pattern(which, lens[which % lens.len()])
}

/// Opens streams, accepts as many, and exchanges on all of them.
async fn run_side(mut mux: Mux, side: usize, streams: usize, lens: Vec<usize>, seed: u64) {
    let mut tasks = JoinSet::new();
    let mut begin = |stream: MuxStream, opener: usize, number: usize| {
        let own = text(side, opener, number, &lens);
        let theirs = text(1 - side, opener, number, &lens);
        tasks.spawn(exchange(stream, own, theirs, Random::new(seed ^ number as u64)));
    };
    for number in 0..streams {
        begin(mux.open().await.unwrap(), side, number);
    }
    for number in 0..streams {
        begin(mux.accept().await.unwrap(), 1 - side, number);
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
}

async fn run(seed: u64) {
    let mut random = Random::new(seed);
    let size = random.pick(&[1, 5, 13, 64, 1000]);
    let (client_io, client_end) = duplex(size);
    let (server_io, server_end) = duplex(size);
    let (from_client, to_client) = split(client_end);
    let (from_server, to_server) = split(server_end);
    let carriers = [
        tokio::spawn(carry(from_client, to_server, Random::new(seed + 1))),
        tokio::spawn(carry(from_server, to_client, Random::new(seed + 2))),
    ];
    let yamux = Yamux::new(Config::default().keep_alive(Duration::from_secs(20)));
    let (client, driver) = connect(client_io, &yamux, Role::Initiator);
    let client_task = tokio::spawn(driver);
    let (server, driver) = connect(server_io, &yamux, Role::Responder);
    let server_task = tokio::spawn(driver);
    let streams = 1 + random.below(6);
    let lens: Vec<usize> = (0..5).map(|_| random.pick(&[0, 50, 100 * size, 500 * size])).collect();
    let work = async {
        tokio::join!(
            run_side(client, 0, streams, lens.clone(), seed),
            run_side(server, 1, streams, lens, seed),
        )
    };
    // Many times what all pauses add up to: paused time jumps there when nobody can go on.
    timeout(Duration::from_secs(100_000), work).await.expect("deadlock");
    for task in carriers {
        task.abort();
    }
    client_task.abort();
    server_task.abort();
}

#[test]
fn rust_yamux_227_drivers_over_stalling_pipes_never_deadlock_whatever_the_seed() {
    for_seeds(SEEDS, |seed| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(run(seed));
    });
}
