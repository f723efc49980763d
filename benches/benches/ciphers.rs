//! Each cipher in turn: handshakes, records, and one stream up from host to host over loopback TCP.
//!
//! The ciphers take turns within one run, so that what else the machine does meets all of them.
//! Handshakes and records are measured in processor time of the thread, the stream by the clock,
//! with the processor time of the whole process as a second witness (both as Linux counts them).
//!
//! ```text
//! cargo bench -p p2p-benches --bench ciphers -- [rounds] [MiB in each]
//! cargo bench -p p2p-benches --bench ciphers --features openssl    # OpenSSL's, too
//! ```
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::{env, fs, hint::black_box, time::Instant};

use bytes::{Bytes, BytesMut};
use p2p::{Host, Stream, mux::Yamux, noise::Noise, noise::cipher::Cipher, tcp::Tcp};
use p2p_benches::{CIPHERS, drain, handshake, noise_pair, upload};
use tokio::runtime::Runtime;

const DRAIN: &str = "/bench/drain/1.0.0";
/// What Linux counts processor time in: hundredths of a second.
const TICK_MS: u64 = 10;

fn main() {
    let mut numbers = env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let rounds = numbers.next().unwrap_or(7);
    let total = numbers.next().unwrap_or(1024) << 20;
    println!("{rounds} rounds: min / median / max");
    handshakes(rounds);
    for len in [64, 256, 1024, 16 << 10, 65_519] {
        records(rounds, len);
    }
    streams(rounds, total);
}

/// Linux counts a thread's time to about 4 ms, so both take some hundred milliseconds.
const HANDSHAKES: u64 = 500;
/// How much is sealed and opened at a time, in bytes.
const BATCH_LEN: usize = 128 << 20;

fn handshakes(rounds: usize) {
    let mut figures = CIPHERS.map(|_| Vec::new());
    for _ in 0..rounds {
        for (cipher, figures) in CIPHERS.into_iter().zip(&mut figures) {
            let (initiator, responder) = noise_pair(cipher);
            let ns = thread_ns(|| {
                for _ in 0..HANDSHAKES {
                    black_box(handshake(&initiator, &responder));
                }
            });
            figures.push(ns / HANDSHAKES / 1000);
        }
    }
    println!("a handshake, both sides:");
    for (cipher, figures) in CIPHERS.into_iter().zip(&mut figures) {
        println!("{:>12}: {} µs", cipher.name(), spread(figures));
    }
}

fn records(rounds: usize, len: usize) {
    let plain = Bytes::from(vec![7; len]);
    let count = BATCH_LEN / len;
    let mut figures = CIPHERS.map(|_| (Vec::new(), Vec::new()));
    for _ in 0..rounds {
        for (cipher, (seal, open)) in CIPHERS.into_iter().zip(&mut figures) {
            let (initiator, responder) = noise_pair(cipher);
            let (mut ours, mut theirs) = handshake(&initiator, &responder);
            let mut wires = vec![BytesMut::with_capacity(len + 18); count];
            let sealed = thread_ns(|| {
                for wire in &mut wires {
                    ours.seal.seal(&mut plain.clone(), wire).unwrap();
                }
            });
            let opened = thread_ns(|| {
                for wire in &mut wires {
                    black_box(theirs.open.open(wire).unwrap());
                }
            });
            seal.push(sealed / count as u64);
            open.push(opened / count as u64);
        }
    }
    println!("a record of {len} B:");
    for (cipher, (seal, open)) in CIPHERS.into_iter().zip(&mut figures) {
        println!("{:>12}: seal {} ns, open {} ns", cipher.name(), spread(seal), spread(open));
    }
}

/// How long this thread has had a processor, in nanoseconds.
fn thread_ns(work: impl FnOnce()) -> u64 {
    let now = || {
        let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        stat.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let begun = now();
    work();
    now() - begun
}

fn streams(rounds: usize, total: usize) {
    let runtime = Runtime::new().unwrap();
    let pairs = CIPHERS.map(|cipher| (cipher, runtime.block_on(pair(cipher))));
    let mut figures = CIPHERS.map(|_| (Vec::new(), Vec::new()));
    for round in 0..=rounds {
        for ((_, (client, _, addr)), (rates, cpu)) in pairs.iter().zip(&mut figures) {
            let (rate, ms) = runtime.block_on(measure(client, addr, total));
            // The first round warms up.
            if round > 0 {
                rates.push(rate);
                cpu.push(ms);
            }
        }
    }
    println!("{} MiB from host to host:", total >> 20);
    for ((cipher, _), (rates, cpu)) in pairs.iter().zip(&mut figures) {
        let name = cipher.name();
        println!("{name:>12}: {} MiB/s, {} ms of processor time", spread(rates), spread(cpu));
    }
}

async fn pair(cipher: Cipher) -> (Host, Host, String) {
    let builder = || {
        p2p_host::builder()
            .transport(Tcp::default())
            .security(move |identity| Ok(Noise::new(identity)?.with_cipher(cipher)))
            .muxer(Yamux::default())
    };
    let server = builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
    server.handle(DRAIN, |mut s: Stream| async move { drain(&mut s).await }).unwrap();
    let client = builder().spawn().await.unwrap();
    let addr = server.addrs().remove(0);
    (client, server, addr)
}

/// MiB a second, and milliseconds of processor time.
async fn measure(client: &Host, addr: &str, total: usize) -> (u64, u64) {
    let mut stream = client.open(addr, DRAIN).await.unwrap();
    let (begun, cpu) = (Instant::now(), processor_ms());
    upload(&mut stream, total).await.unwrap();
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap();
    ((total as u64 >> 20) * 1_000_000 / micros, processor_ms() - cpu)
}

/// User and system time of this process.
fn processor_ms() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
    ticks.sum::<u64>() * TICK_MS
}

fn spread(figures: &mut [u64]) -> String {
    figures.sort_unstable();
    let (first, last) = (figures[0], figures[figures.len() - 1]);
    format!("{first} / {} / {last}", figures[figures.len() / 2])
}
