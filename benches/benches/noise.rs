//! The Noise handshake, and records of several sizes, for each cipher: one core, no I/O.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use p2p::core::Opened;
use p2p_benches::{CIPHERS, handshake, noise_pair};

fn handshakes(c: &mut Criterion) {
    let mut group = c.benchmark_group("noise/handshake, both sides");
    for cipher in CIPHERS {
        let (initiator, responder) = noise_pair(cipher);
        group.bench_function(cipher.name(), |b| b.iter(|| handshake(&initiator, &responder)));
    }
    group.finish();
}

fn records(c: &mut Criterion) {
    for len in [256, 1024, 16 << 10, 65_519usize] {
        let plain = Bytes::from(vec![7; len]);
        let mut group = c.benchmark_group(format!("noise/{len} B"));
        group.throughput(Throughput::Bytes(len as u64));
        for cipher in CIPHERS {
            let (initiator, responder) = noise_pair(cipher);
            let (mut ours, _) = handshake(&initiator, &responder);
            group.bench_function(format!("seal, {}", cipher.name()), |b| {
                let mut out = BytesMut::new();
                b.iter(|| {
                    out.clear();
                    ours.seal.seal(&mut plain.clone(), &mut out).unwrap();
                });
            });
        }
        for cipher in CIPHERS {
            let (initiator, responder) = noise_pair(cipher);
            // The counters must stay in step, so what is opened is sealed by the same session.
            let (mut sealing, mut opening) = handshake(&initiator, &responder);
            group.bench_function(format!("open, {}", cipher.name()), |b| {
                b.iter_batched(
                    || {
                        let mut wire = BytesMut::new();
                        sealing.seal.seal(&mut plain.clone(), &mut wire).unwrap();
                        wire
                    },
                    |mut wire| {
                        let opened = opening.open.open(&mut wire).unwrap();
                        assert!(matches!(opened, Opened::Record(_)));
                        opened
                    },
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, handshakes, records);
criterion_main!(benches);
