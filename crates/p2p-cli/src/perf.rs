//! How fast a peer takes and gives data, by `/perf/1.0.0`: first all streams upload, then all
//! download.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use p2p::{Host, OpenError, perf};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    args::PerfArgs, failure::Failure, output::Output, peer, progress::Progress,
    round_trips::micros, stop::Stop,
};

/// The time over which a rate is taken. Shorter ones tell of the system's scheduler.
const SAMPLE: Duration = Duration::from_millis(200);

pub(crate) async fn run(args: &PerfArgs, out: &Output, stop: &Stop) -> Result<u8, Failure> {
    let host = peer::dialer(args.peer.timeout, None).await?;
    let result = tokio::select! {
        biased;
        code = stop.requested() => Ok(code),
        result = measure(&host, args, out) => result.map(|()| 0),
    };
    host.close().await;
    result
}

async fn measure(host: &Host, args: &PerfArgs, out: &Output) -> Result<(), Failure> {
    peer::connect(host, &args.peer.addr, out).await?;
    for (direction, bytes) in
        [(Direction::Upload, args.upload), (Direction::Download, args.download)]
    {
        if bytes > 0 {
            one_way(host, args, direction, bytes, out).await?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Upload,
    Download,
}

async fn one_way(
    host: &Host,
    args: &PerfArgs,
    direction: Direction,
    bytes: u64,
    out: &Output,
) -> Result<(), Failure> {
    let count = u64::from(args.streams);
    let mut streams = Vec::new();
    for n in 0..count {
        let stream = host.open(&args.peer.addr, perf::PROTOCOL).await.map_err(not_opened)?;
        // What does not divide goes to the first streams.
        streams.push((stream, bytes / count + u64::from(n < bytes % count)));
    }
    let moved = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    let begun = Instant::now();
    for (stream, share) in streams {
        let moved = Arc::clone(&moved);
        let mut before = 0;
        let progress = move |now: perf::Progress| {
            let now = if direction == Direction::Upload { now.uploaded } else { now.downloaded };
            moved.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
            before = now;
        };
        let (up, down) = if direction == Direction::Upload { (share, 0) } else { (0, share) };
        running.spawn(perf::measure(stream, up, down, progress));
    }
    let rates = watch(&mut running, &moved, Progress::new(out, bytes)).await?;
    tell(direction, bytes, count, begun.elapsed(), rates, out);
    Ok(())
}

/// Waits for all streams; gives the rates on the way, in bytes a second.
async fn watch(
    running: &mut JoinSet<Result<perf::Measured, perf::PerfError>>,
    moved: &AtomicU64,
    mut progress: Progress<'_>,
) -> Result<Vec<f64>, Failure> {
    let mut rates = Vec::new();
    let mut ticks = interval(SAMPLE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut then, mut before) = (Instant::now(), 0);
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                None => return Ok(rates),
                Some(Ok(Ok(_))) => {}
                Some(Ok(Err(error))) => return Err(failed(error)),
                Some(Err(error)) => return Err(Failure::new(error.to_string())),
            },
            _ = ticks.tick() => {
                let (now, total) = (Instant::now(), moved.load(Ordering::Relaxed));
                let delta = total.saturating_sub(before);
                rates.push(delta as f64 / (now - then).as_secs_f64().max(1e-6));
                progress.add(delta);
                (then, before) = (now, total);
            }
        }
    }
}

fn tell(
    direction: Direction,
    bytes: u64,
    streams: u64,
    took: Duration,
    mut rates: Vec<f64>,
    out: &Output,
) {
    let mib = |rate: f64| (rate / f64::from(1 << 20) * 10.0).round() / 10.0;
    let whole = bytes as f64 / took.as_secs_f64().max(1e-6);
    if rates.is_empty() {
        rates.push(whole);
    }
    rates.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| rates.get(index).copied().map(mib).unwrap_or_default();
    let (min, median, max) = (at(0), at(rates.len() / 2), at(rates.len() - 1));
    let (name, word) = match direction {
        Direction::Upload => ("upload", "sent"),
        Direction::Download => ("download", "received"),
    };
    let fields = [
        ("bytes", json!(bytes)),
        ("streams", json!(streams)),
        ("took_us", micros(took)),
        ("mib_per_s", json!(mib(whole))),
        ("min_mib_per_s", json!(min)),
        ("median_mib_per_s", json!(median)),
        ("max_mib_per_s", json!(max)),
        ("samples", json!(rates.len())),
    ];
    let (seconds, plural) = (took.as_secs_f64(), if streams == 1 { "" } else { "s" });
    let text = format!(
        "{name}: {bytes} bytes {word} on {streams} stream{plural} in {seconds:.3} s: {} MiB/s\n  \
         each {SAMPLE:?}: min {min} MiB/s, median {median} MiB/s, max {max} MiB/s",
        mib(whole)
    );
    out.event(name, &fields, text);
}

fn not_opened(error: OpenError) -> Failure {
    let unsupported = matches!(error, OpenError::Unsupported { .. });
    let failure = Failure::from(error);
    if unsupported { failure.next("start `p2p listen --perf` there") } else { failure }
}

fn failed(error: perf::PerfError) -> Failure {
    if let perf::PerfError::Open(error) = error {
        return error.into();
    }
    Failure::new(error.to_string()).next(
        "the peer may be gone, or may limit perf: look at what it says, or give fewer --streams",
    )
}
