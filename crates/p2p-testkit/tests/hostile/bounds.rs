//! The worst cases of memory that `docs/limits.md` states, computed from the constants that it
//! names, and held to by floods.

use std::{
    fs,
    future::Future,
    path::PathBuf,
    task::{Context, Poll, Waker},
    time::Duration,
};

use p2p_testkit::hostile::{
    Script,
    noise::framed,
    wire::yamux::{WINDOW_UPDATE, data, frame},
};

use crate::field::{Field, KIB, PENDING, UNPROVEN, WINDOW, attack, cost_of};

/// What a connection costs without any buffer, and a stream without any data: states, tasks, and
/// the entries of lists, in bytes.
const HOUSEKEEPING: usize = 16 * KIB;
/// What a connection may hold beside its windows: promise 3.
const PROMISED: usize = 1024 * KIB;
/// What a wide pipe holds each way: more than a burst.
const WIDE: usize = 4096 * KIB;
/// What the script at the other end of a connection costs: a pipe of twice 4 KiB, and its keys.
const SCRIPT: usize = 20 * KIB;

/// A constant's value, read from its source. It is made of numbers, of other constants there, and
/// of `+`, `*` and `<<`.
fn constant(file: &str, name: &str) -> usize {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let source = fs::read_to_string(&path).unwrap();
    let begin = format!("const {name}: ");
    let line = source
        .lines()
        .find_map(|line| line.split_once(&begin))
        .unwrap_or_else(|| panic!("{name} in {file}"));
    let value = line.1.split_once(" = ").unwrap().1.trim_end_matches(';');
    let product = |text: &str| -> usize {
        text.split('*')
            .map(|factor| match factor.trim().replace('_', "").parse() {
                Ok(number) => number,
                Err(_) => constant(file, factor.trim()),
            })
            .product()
    };
    let sum = |text: &str| -> usize { text.split('+').map(product).sum() };
    value.split("<<").map(sum).reduce(|shifted, by| shifted << by).unwrap()
}

const UPGRADE: &str = "p2p-host/src/upgrade.rs";
const READER: &str = "p2p-mux/src/driver/reader.rs";
const WRITER: &str = "p2p-mux/src/driver/writer.rs";
const SESSION: &str = "p2p-mux/src/yamux/session.rs";
const FORMER: &str = "p2p-mux/src/driver/former.rs";
const RECEIVED: &str = "p2p-mux/src/received.rs";
const HELD: &str = "p2p-mux/src/yamux/held.rs";
const NOISE: &str = "p2p-security-noise/src/limits.rs";

/// A peer that has proven nothing: its read buffer doubles until it holds what a handshake may
/// leave untaken, and for a moment stands next to its old half.
fn unproven() -> usize {
    let first = constant(UPGRADE, "WIRE_LEN");
    let most = constant(UPGRADE, "HANDSHAKE_WIRE_LEN_MAX");
    let mut buffer = first;
    while buffer < most + first {
        buffer *= 2;
    }
    buffer + buffer / 2
}

/// After its proof: a record in a buffer that has doubled, next to its old half, and its plaintext
/// in another such.
fn pending() -> usize {
    let record = constant(NOISE, "MESSAGE_LEN_MAX") + 2;
    2 * (2 * record + record)
}

/// What a connection under load may hold besides the windows of its `streams`.
fn under_load(streams: usize) -> usize {
    let read = constant(READER, "READ_LEN_MAX");
    let receiving = (1 + constant(FORMER, "FORMER_MAX")) * read;
    // What is taken exceeds the budget by less than a frame.
    let sending = constant(WRITER, "TRANSMIT_LEN") + constant(SESSION, "BLOCK_LEN_MAX");
    let blocks = constant(SESSION, "BLOCKS_MAX") * constant(SESSION, "BLOCK_LEN_MAX");
    // A chunk takes 32 bytes on its way out, and 40 on its way in; a spare itself 64.
    let spare =
        constant(HELD, "CHUNKS_KEPT") * (32 + 40) + 2 * (64 + constant(HELD, "BLOCK_LEN_KEPT"));
    let spares = constant(HELD, "SPARES_MAX") * spare;
    let queued =
        constant(SESSION, "SEND_BUFFERS_MAX") + streams * constant(SESSION, "SEND_BUFFER_MIN");
    receiving + sending + blocks + spares + queued
}

/// What a stream that nobody reads may hold.
fn stream() -> usize {
    (256 << 10) + constant(RECEIVED, "BLOCK_LEN_MAX")
}

#[test]
fn the_constants_add_up_to_what_is_published() {
    assert_eq!(unproven(), 48 * KIB);
    assert!(unproven() <= UNPROVEN);
    assert!(pending() <= PENDING + KIB, "{}", pending());
    assert_eq!(stream(), WINDOW);
    assert_eq!(under_load(0) / KIB, 1006);
    assert!(under_load(0) <= PROMISED);
}

#[test]
fn promise_3_a_flood_of_pending_handshakes_costs_what_it_may() {
    let count = 64;
    let bound = count * (unproven() + HOUSEKEEPING);
    let cost = attack(bound + count * SCRIPT, async |field| {
        let mut kept = Vec::new();
        for number in 0..count {
            let mut script = field.dial_from(&format!("/ip4/198.51.100.{number}/memory/1")).await;
            script.negotiate(p2p::core::Role::Initiator, "/noise").await.unwrap();
            let mut handshake = p2p_testkit::hostile::noise::RawHandshake::new(7);
            script.send(&framed(&handshake.message_1(&[]))).await.unwrap();
            let mut message = 16_384_u16.to_be_bytes().to_vec();
            message.resize(2 + 16_383, 7);
            script.send(&message).await.unwrap();
            kept.push(script);
        }
        field.honest_echo().await;
        assert_eq!(field.victim.usage().pending_inbound.count, count);
    });
    eprintln!("a pending handshake holds {} bytes, of {}", cost / count, unproven());
}

#[test]
fn promise_3_a_flood_of_pending_connections_costs_what_it_may() {
    let count = 8;
    let cost = attack(count * (pending() + HOUSEKEEPING + SCRIPT), async |field| {
        let mut kept = Vec::new();
        for _ in 0..count {
            let mut script = field.secured(&[]).await;
            let record = script.sealed(&[7; 65_519]).unwrap();
            script.send(&record[..record.len() - 1]).await.unwrap();
            kept.push(script);
        }
        field.honest_echo().await;
        assert_eq!(field.victim.usage().pending_inbound.count, count);
    });
    eprintln!("a pending connection holds {} bytes, of {}", cost / count, pending());
}

/// Answers pings until there is nothing for a while.
async fn stay(script: &mut Script, for_: Duration) {
    let stay = async {
        loop {
            let ping = script.hear_until(&[0, 2, 0, 1, 0, 0, 0, 0]).await.unwrap();
            drop(ping);
            let value = script.hear(4).await.unwrap();
            script.say(&[&[0, 2, 0, 2, 0, 0, 0, 0], &value[..]].concat()).await.unwrap();
        }
    };
    let never: Result<(), _> = tokio::time::timeout(for_, stay).await;
    drop(never);
}

#[test]
fn promise_3_an_idle_connection_holds_no_buffer() {
    let count = 8;
    let cost = cost_of(async |field| {
        let mut kept = Vec::new();
        for _ in 0..count {
            let mut script = field.stream(1, "/echo/1.0.0").await;
            script.say(&data(0, 1, &[7; 4_000])).await.unwrap();
            script.hear(4_000).await.unwrap();
            kept.push(script);
        }
        for script in &mut kept {
            stay(script, Duration::from_secs(5)).await;
        }
        kept
    });
    let each = cost / count;
    eprintln!("an idle connection with a stream holds {each} bytes, the script's end included");
    assert!(each <= 2 * HOUSEKEEPING + SCRIPT, "{each}");
}

#[test]
fn promise_3_streams_that_nobody_reads_cost_their_windows() {
    let cost = |count: u32| {
        cost_of(async |field| {
            let mut script = field.yamux().await;
            for id in (1..=2 * count).step_by(2) {
                field.open(&mut script, id, "/deaf/1.0.0").await;
                field.flood(&mut script, &data(0, id, &[7; 1_000]), 262).await;
            }
            stay(&mut script, Duration::from_secs(5)).await;
            vec![script]
        })
    };
    let each = (cost(17) - cost(1)) / 16;
    eprintln!("a stream that nobody reads holds {each} bytes, of {}", stream());
    assert!(each <= stream() + HOUSEKEEPING, "{each}");
}

/// Makes the victim hold as much of everything as one connection can: windows whose bytes hold
/// receive buffers, and `echoes` that nobody reads.
async fn make_hold_everything(field: &Field, script: &mut Script, echoes: u32, pins: bool) {
    let mut id = 1;
    for _ in 0..echoes {
        field.open(script, id, "/echo/1.0.0").await;
        id += 2;
    }
    field.open(script, id, "/deaf/1.0.0").await;
    if pins {
        // One chunk in each receive buffer of 128 KiB: the rest are bytes of no stream. They come
        // all at once, as from a socket that has gathered them.
        let mut burst = Vec::new();
        // What the script prepares is not the victim's.
        allocation_counter::opt_out(|| {
            let mut first = data(0, id, &[7; 4 * KIB]);
            first.extend(data(0, 99_999, &[7; 56 * KIB]));
            let second = data(0, 99_999, &[7; 60 * KIB]);
            for record in [first, second].iter().cycle().take(40) {
                burst.extend(script.sealed(record).unwrap());
            }
        });
        {
            let mut send = std::pin::pin!(script.send(&burst));
            let mut sent = Poll::Pending;
            // Nor is what the pipe holds, where it holds all of it.
            allocation_counter::opt_out(|| {
                sent = send.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            });
            match sent {
                Poll::Ready(sent) => sent.unwrap(),
                Poll::Pending => send.await.unwrap(),
            }
        }
        std::mem::forget(burst);
        field.honest_echo().await;
    }
    // What echoes have queued earns credit, which fills their windows anew.
    let mut credits = vec![255 * KIB; usize::try_from(echoes).unwrap()];
    for id in (1..=2 * echoes).step_by(2) {
        script.say(&frame(WINDOW_UPDATE, 0, id, 1 << 30)).await.unwrap();
    }
    for round in 0..4 {
        for (id, credit) in (1..).step_by(2).zip(&mut credits) {
            let piece = data(0, id, &[7; 8 * KIB - 12]);
            let count = *credit / piece.len();
            *credit -= count * piece.len();
            field.flood(script, &piece, count).await;
        }
        // At the end nothing is read.
        if round < 3 && echoes > 0 {
            hear_some(script, &mut credits).await;
        }
    }
}

/// Hears so much that every window that is due to be opened is.
async fn hear_some(script: &mut Script, credits: &mut [usize]) {
    let mut heard = 0;
    while heard < 256 * KIB {
        let header = tokio::time::timeout(Duration::from_secs(1), script.hear(12)).await;
        let Ok(Ok(header)) = header else { return };
        let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let [stream, len] = [4, 8].map(|at| usize::try_from(number(at)).unwrap());
        match (header[1], credits.get_mut(stream / 2)) {
            (0, _) => {
                script.hear(len).await.unwrap();
                heard += len;
            }
            (1, Some(credit)) if stream % 2 == 1 => *credit += len,
            _ => {}
        }
    }
}

/// What a connection holds, when it is made to hold everything, over a pipe that holds `pipe`
/// bytes each way.
fn everything(echoes: u32, pins: bool, pipe: usize) -> usize {
    let streams = usize::try_from(echoes).unwrap() + 1;
    let bound = under_load(streams) + streams * (stream() + HOUSEKEEPING);
    attack(bound, async |field| {
        field.pipe_len.store(pipe, std::sync::atomic::Ordering::Relaxed);
        let mut script = field.yamux().await;
        make_hold_everything(field, &mut script, echoes, pins).await;
    })
}

#[test]
fn promise_3_a_connection_that_is_made_to_hold_everything_costs_what_it_may() {
    let beside = |echoes: u32, pins, pipe| {
        let held = everything(echoes, pins, pipe);
        let beside = held.saturating_sub((usize::try_from(echoes).unwrap() + 1) * 256 * KIB);
        let [held_kib, beside_kib] = [held, beside].map(|bytes| bytes / KIB);
        eprintln!(
            "{echoes} unread echoes, pins {pins}: {held_kib} KiB, {beside_kib} beside windows"
        );
        beside
    };
    let received = beside(0, true, WIDE);
    let sent = [1, 4, 8, 32].map(|echoes| beside(echoes, false, 4096));
    let both = [1, 4, 8, 32].map(|echoes| beside(echoes, true, 4096));
    let worst = sent.into_iter().chain(both).chain([received]).max().unwrap();
    eprintln!("a connection holds at most {} KiB beside its windows", worst / KIB);
    assert!(worst <= PROMISED, "{} KiB beside the windows", worst / KIB);
}

#[test]
fn promise_3_a_peer_costs_eight_connections() {
    let streams = 5;
    let each = under_load(streams) + streams * (stream() + HOUSEKEEPING) + SCRIPT;
    let cost = attack(8 * each, async |field| {
        let mut kept = Vec::new();
        for _ in 0..8 {
            let mut script = field.yamux().await;
            make_hold_everything(field, &mut script, 4, true).await;
            kept.push(script);
        }
        assert_eq!(field.offenders(), 8);
    });
    eprintln!("a peer holds {} KiB, of {} KiB", cost / KIB, 8 * each / KIB);
}
