//! The Noise handshake, and records of several sizes: one core, no I/O.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use p2p::{
    Keypair,
    core::{Handshake, Opened, Role, Security, Session},
    noise::Noise,
};

fn handshake(initiator: &Noise, responder: &Noise) -> (Session, Session) {
    let start = |noise: &Noise, role| noise.start(role, None, &[]).unwrap();
    let mut initiator: Box<dyn Handshake> = start(initiator, Role::Initiator);
    let mut responder: Box<dyn Handshake> = start(responder, Role::Responder);
    let (mut forth, mut back) = (BytesMut::new(), BytesMut::new());
    let mut ours = None;
    loop {
        if ours.is_none() {
            ours = initiator.advance(&mut back, &mut forth).unwrap();
        }
        if let Some(theirs) = responder.advance(&mut forth, &mut back).unwrap() {
            return (ours.unwrap(), theirs);
        }
    }
}

fn pair() -> (Noise, Noise) {
    let make = || Noise::new(&Keypair::generate().unwrap()).unwrap();
    (make(), make())
}

fn handshakes(c: &mut Criterion) {
    let (initiator, responder) = pair();
    c.bench_function("noise/handshake, both sides", |b| {
        b.iter(|| handshake(&initiator, &responder));
    });
}

fn records(c: &mut Criterion) {
    let (initiator, responder) = pair();
    let (mut ours, mut theirs) = handshake(&initiator, &responder);
    for len in [256, 1024, 16 << 10, 65_519usize] {
        let plain = Bytes::from(vec![7; len]);
        let mut group = c.benchmark_group(format!("noise/{len} B"));
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function("seal", |b| {
            let mut out = BytesMut::new();
            b.iter(|| {
                out.clear();
                ours.seal.seal(&mut plain.clone(), &mut out).unwrap();
            });
        });
        // The counters must stay in step, so what is opened is sealed by the same session.
        let (mut sealing, mut opening) = handshake(&initiator, &responder);
        group.bench_function("open", |b| {
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
        group.finish();
    }
    drop((theirs.open.open(&mut BytesMut::new()), ours.peer));
}

criterion_group!(benches, handshakes, records);
criterion_main!(benches);
