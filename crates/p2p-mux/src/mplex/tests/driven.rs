//! The session under the driver, over a pipe in memory, in paused time.

use p2p_core::{ConnectionError, Role};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
};

use super::*;
use crate::{Mplex, Mux, MuxStream, connect};

type Served = JoinHandle<ConnectionError>;

fn start(pipe: DuplexStream, config: Config, role: Role) -> (Mux, Served) {
    let (mux, driver) = connect(pipe, &Mplex::new(config), role);
    (mux, tokio::spawn(driver))
}

fn pair(size: usize, config: &Config) -> (Mux, Served, Mux, Served) {
    let (ours, theirs) = duplex(size);
    let (client, client_task) = start(ours, config.clone(), Role::Initiator);
    let (server, server_task) = start(theirs, config.clone(), Role::Responder);
    (client, client_task, server, server_task)
}

/// Fails instead of hanging.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(300 * SECOND, future).await.expect("hangs")
}

async fn echo(stream: MuxStream) {
    let (mut read, mut write) = tokio::io::split(stream);
    tokio::io::copy(&mut read, &mut write).await.unwrap();
    write.shutdown().await.unwrap();
}

async fn serve(mut server: Mux) {
    while let Ok(stream) = server.accept().await {
        tokio::spawn(echo(stream));
    }
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ seed).to_le_bytes()[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn twenty_streams_echo_over_pipes_of_any_size() {
    for (size, len) in [(1, 500), (7, 5000), (100, 20_000), (64 << 10, 1 << 20)] {
        let (client, _, server, _) = pair(size, &brisk());
        tokio::spawn(serve(server));
        let mut tasks = Vec::new();
        for seed in 0..20 {
            let stream = client.open().await.unwrap();
            tasks.push(tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let text = pattern(seed, len);
                let copy = text.clone();
                let sender = tokio::spawn(async move {
                    write.write_all(&copy).await.unwrap();
                    write.shutdown().await.unwrap();
                });
                let mut echoed = Vec::new();
                read.read_to_end(&mut echoed).await.unwrap();
                sender.await.unwrap();
                assert!(echoed == text, "stream {seed} over {size}");
            }));
        }
        for task in tasks {
            soon(task).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn mplex_15_a_sleeping_reader_loses_its_stream_and_disturbs_no_other() {
    let (client, _, mut server, _) = pair(64 << 10, &brisk());
    let mut to_sleeper = client.open().await.unwrap();
    let mut sleeper = server.accept().await.unwrap();
    tokio::spawn(serve(server));
    let mut other = client.open().await.unwrap();
    let writer = tokio::spawn(async move {
        let mut sent = 0;
        loop {
            match to_sleeper.write_all(&[7; 50_000]).await {
                Ok(()) => sent += 50_000,
                Err(error) => return (sent, error.kind()),
            }
        }
    });
    for round in 0..200u8 {
        soon(other.write_all(&[round; 100])).await.unwrap();
        let mut back = [0; 100];
        soon(other.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, [round; 100]);
    }
    let (sent, error) = soon(writer).await.unwrap();
    assert_eq!(error, std::io::ErrorKind::ConnectionReset);
    assert!(sent > 8_000_000, "{sent}");
    let mut got = Vec::new();
    let error = soon(sleeper.read_to_end(&mut got)).await.unwrap_err();
    assert!((8_300_000..=8 << 20).contains(&got.len()) && got.iter().all(|byte| *byte == 7));
    assert!(error.to_string().contains("reset by this side (code 0x1002)"), "{error}");
    soon(other.write_all(b"goes on")).await.unwrap();
}

/// A reader that is served as often as the connection's task, and takes what there is.
#[tokio::test(start_paused = true)]
async fn mplex_15_a_reader_that_keeps_up_takes_a_hundred_mebibytes() {
    let (client, _, mut server, _) = pair(64 << 10, &brisk());
    let mut out = client.open().await.unwrap();
    tokio::spawn(async move {
        for _ in 0..100 {
            out.write_all(&vec![1; 1 << 20]).await.unwrap();
        }
        out.shutdown().await.unwrap();
    });
    let mut stream = server.accept().await.unwrap();
    let reader = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        loop {
            match stream.read(&mut buffer).await.unwrap() {
                0 => return total,
                count => total += count,
            }
        }
    });
    assert_eq!(soon(reader).await.unwrap(), 100 << 20);
}

#[tokio::test(start_paused = true)]
async fn mplex_14_a_close_sends_what_is_finished_and_ends_the_pipe() {
    let (client, client_task, mut server, server_task) = pair(100, &brisk());
    let mut done = client.open().await.unwrap();
    done.write_all(&[1; 50_000]).await.unwrap();
    done.shutdown().await.unwrap();
    let mut cut = client.open().await.unwrap();
    cut.write_all(b"part").await.unwrap();
    client.close(ErrorCode::new(7), "enough");
    let mut received = server.accept().await.unwrap();
    let mut data = Vec::new();
    soon(received.read_to_end(&mut data)).await.unwrap();
    assert_eq!(data.len(), 50_000);
    assert!(matches!(soon(client_task).await, Ok(ConnectionError::Closed { .. })));
    let ended = soon(server_task).await.unwrap();
    assert!(matches!(ended, ConnectionError::Truncated), "a stream was owed its end: {ended}");
}

/// There is no goodbye: the end of the pipe is an ordinary end where no stream is open.
#[tokio::test(start_paused = true)]
async fn mplex_14_the_end_of_the_pipe_is_the_goodbye() {
    let (client, client_task, server, server_task) = pair(100, &brisk());
    let stream = client.open().await.unwrap();
    drop(stream);
    client.close(ErrorCode::NONE, "done");
    assert!(matches!(soon(client_task).await, Ok(ConnectionError::Closed { .. })));
    let ended = soon(server_task).await.unwrap();
    assert!(matches!(ended, ConnectionError::ClosedByPeer { code: ErrorCode::NONE }), "{ended}");
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn a_violation_ends_the_connection_without_a_word() {
    let (ours, mut theirs) = duplex(100);
    let (mut mux, task) = start(ours, brisk(), Role::Responder);
    theirs.write_all(&unhex("8f0100")).await.unwrap();
    let mut said = Vec::new();
    soon(theirs.read_to_end(&mut said)).await.unwrap();
    assert!(said.is_empty(), "{said:02x?}");
    drop(theirs);
    let ended = soon(task).await.unwrap();
    assert!(matches!(ended, ConnectionError::Mux(MuxError::FrameType(7))), "{ended}");
    assert!(soon(mux.accept()).await.is_err());
}

/// The sixth opener is woken by time alone.
#[tokio::test(start_paused = true)]
async fn mplex_16_openers_wait_for_their_turn() {
    let (client, _, server, _) = pair(1000, &Config::default());
    tokio::spawn(serve(server));
    let start = tokio::time::Instant::now();
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(soon(client.open()).await.unwrap());
    }
    let took = start.elapsed();
    assert!((3750 * MILLI..3800 * MILLI).contains(&took), "{took:?}");
}
