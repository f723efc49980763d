//! Host to host over loopback TCP, one stream up, by each cipher in turn.
//!
//! The ciphers take turns within one run, so that what else the machine does meets all of them,
//! and the processor time of the whole process is a second witness beside the clock.
//!
//! ```text
//! cargo bench -p p2p-benches --bench ciphers -- [rounds] [MiB in each]
//! ```
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::{env, fs, time::Instant};

use p2p::{Host, Stream, mux::Yamux, noise::Noise, noise::cipher::Cipher, tcp::Tcp};
use p2p_benches::{CIPHERS, drain, upload};
use tokio::runtime::Runtime;

const DRAIN: &str = "/bench/drain/1.0.0";
/// What Linux counts processor time in: hundredths of a second.
const TICK_MS: u64 = 10;

fn main() {
    let mut numbers = env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let rounds = numbers.next().unwrap_or(7);
    let total = numbers.next().unwrap_or(1024) << 20;
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
    println!("{} MiB, {rounds} rounds: min / median / max", total >> 20);
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
