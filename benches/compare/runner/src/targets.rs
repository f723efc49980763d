//! The targets, and whether they are reached.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    plan::{AWAKE, PEERS},
    report::number,
    results::Results,
};

const RUNTIMES: [&str; 2] = ["multi", "current"];
/// What a record carries at most, in bytes.
const RECORD_LEN: f64 = 65_519.0;
/// A round trip that is measured has the work of both ends in it.
const ROUND_TRIPS_MAX: f64 = 3.2;

/// Ratios that one target is about, each with a name.
struct Target {
    what: String,
    at_least: bool,
    limit: f64,
    values: Vec<(String, Option<f64>)>,
}

impl Target {
    fn at_least(limit: f64, what: &str) -> Self {
        Self { what: what.into(), at_least: true, limit, values: Vec::new() }
    }

    fn at_most(limit: f64, what: &str) -> Self {
        Self { at_least: false, ..Self::at_least(limit, what) }
    }

    fn row(&self) -> String {
        let mut row = format!(
            "| {} | {} {} |",
            self.what,
            if self.at_least { "≥" } else { "≤" },
            number(self.limit)
        );
        let mut worst = None;
        for (name, value) in &self.values {
            let Some(value) = value else {
                let _ = write!(row, " {name} not measured;");
                continue;
            };
            let _ = write!(row, " {name} {};", number(*value));
            // More than 1 is reached, whatever the direction.
            let reached = if self.at_least { value / self.limit } else { self.limit / value };
            worst = Some(worst.map_or(reached, |worst: f64| worst.min(reached)));
        }
        let trimmed = row.trim_end_matches(';').to_owned();
        let verdict = match worst {
            None => "not measured".into(),
            Some(worst) if worst >= 1.0 => {
                format!("reached, with {:.0} % to spare", (worst - 1.0) * 100.0)
            }
            Some(worst) => format!("**not reached**, {:.0} % short", (1.0 - worst) * 100.0),
        };
        format!("{trimmed} | {verdict} |\n")
    }
}

struct Of<'a>(&'a Results);

impl Of<'_> {
    fn median(&self, place: [&str; 4], figure: &str) -> Option<f64> {
        let [case, variant, runtime, contender] = place;
        Some(self.0.spread(case, variant, runtime, contender, figure)?.median)
    }

    /// `ours` by the best of the peers.
    fn by_peer(&self, place: [&str; 3], ours: &str, figure: &str, more: bool) -> Option<f64> {
        let [case, variant, runtime] = place;
        let peers =
            PEERS.iter().filter_map(|peer| self.median([case, variant, runtime, peer], figure));
        let best = if more { peers.reduce(f64::max) } else { peers.reduce(f64::min) };
        Some(self.median([case, variant, runtime, ours], figure)? / best?)
    }
}

pub fn table(results: &Results, build: &Value) -> String {
    let of = Of(results);
    let bulk: Vec<(&str, &str, String)> = ["bulk-up", "bulk-down"]
        .into_iter()
        .flat_map(|case| {
            ["1 stream", "8 streams", "64 streams"].map(|variant| {
                let count = variant.split(' ').next().unwrap_or_default();
                (case, variant, format!("{} {count}", case.trim_start_matches("bulk-")))
            })
        })
        .collect();
    let mut targets = Vec::new();

    let pipes = [
        ("p2p", "sealed-ring", "bulk, by the sealed pipe with ring"),
        ("p2p-rustcrypto", "sealed-rustcrypto", "bulk with RustCrypto, by its sealed pipe"),
        ("p2p-openssl", "sealed-openssl", "bulk with OpenSSL, by its sealed pipe"),
    ];
    for (ours, pipe, what) in pipes {
        for runtime in RUNTIMES {
            let mut target = Target::at_least(0.9, &format!("{what}, {runtime}"));
            for (case, variant, name) in &bulk {
                let pipe = of.median([case, "1 stream", runtime, pipe], "gb_per_s");
                let ours = of.median([case, variant, runtime, ours], "gb_per_s");
                target.values.push((name.clone(), ours.zip(pipe).map(|(ours, pipe)| ours / pipe)));
            }
            targets.push(target);
        }
    }
    let beside = [
        ("multi", "p2p", 1.7, "bulk, by the best peer, multi"),
        ("current", "p2p", 1.3, "bulk, by the best peer, current"),
        ("multi", "p2p-rustcrypto", 1.0, "bulk with RustCrypto, by the best peer, multi"),
        ("multi", "p2p-openssl", 1.7, "bulk with OpenSSL, by the best peer, multi"),
        ("current", "p2p-openssl", 1.3, "bulk with OpenSSL, by the best peer, current"),
    ];
    for (runtime, ours, limit, what) in beside {
        let mut target = Target::at_least(limit, what);
        for (case, variant, name) in &bulk {
            let ratio = of.by_peer([case, variant, runtime], ours, "gb_per_s", true);
            target.values.push((name.clone(), ratio));
        }
        targets.push(target);
    }
    for (ours, what) in [("p2p", "CPU for a GiB"), ("p2p-openssl", "CPU for a GiB with OpenSSL")] {
        for runtime in RUNTIMES {
            let what = format!("{what}, by the best peer, {runtime}");
            let mut target = Target::at_most(0.65, &what);
            for (case, variant, name) in &bulk {
                let ratio = of.by_peer([case, variant, runtime], ours, "cpu_s_per_gib", false);
                target.values.push((name.clone(), ratio));
            }
            targets.push(target);
        }
    }
    let each = [
        ("handshakes", 1.5, "handshakes a second"),
        ("streams", 2.0, "streams a second, with negotiation and echo"),
    ];
    for (case, limit, what) in each {
        for runtime in RUNTIMES {
            let what = format!("{what}, by the best peer, {runtime}");
            let mut target = Target::at_least(limit, &what);
            for variant in ["in sequence", "64 at once"] {
                let ratio = of.by_peer([case, variant, runtime], "p2p", "per_s", true);
                target.values.push((variant.into(), ratio));
            }
            targets.push(target);
        }
    }
    for runtime in RUNTIMES {
        let what = format!("the same streams with processors that do not sleep, {runtime}");
        let mut target = Target::at_least(2.0, &what);
        let ratio = of.by_peer(["streams", AWAKE, runtime], "p2p", "per_s", true);
        target.values.push(("in sequence".into(), ratio));
        targets.push(target);
    }
    for runtime in RUNTIMES {
        let both = [
            ("in sequence", "request and response, by the best peer"),
            (AWAKE, "the same with processors that do not sleep"),
        ];
        for (variant, what) in both {
            let mut target = Target::at_most(0.7, &format!("{what}, {runtime}"));
            for figure in ["p50_us", "p99_us"] {
                let ratio = of.by_peer(["rr", variant, runtime], "p2p", figure, false);
                target.values.push((figure.trim_end_matches("_us").into(), ratio));
            }
            targets.push(target);
        }
    }
    for (case, unit) in [("idle-conns", "conn"), ("idle-streams", "stream")] {
        let what = format!("memory, {}, by the best peer", case.replace("conns", "connections"));
        let mut target = Target::at_most(0.4, &what);
        for side in ["server", "client"] {
            let figure = format!("{side}_kib_per_{unit}");
            let ratio = of.by_peer([case, "idle", "multi"], "p2p", &figure, false);
            target.values.push((side.into(), ratio));
        }
        targets.push(target);
    }
    let place = ["round-trips", "rtt of 100 ms", "multi", "p2p-optimistic"];
    let mut trips = Target::at_most(ROUND_TRIPS_MAX, "round trips to the first echoed byte: 3");
    trips.values.push(("optimistic".into(), of.median(place, "round_trips")));
    targets.push(trips);
    let mut delayed = Target::at_least(0.9, "one stream at 50 ms delay, by the sealed pipe");
    let [ours, pipe] = ["p2p", "sealed-ring"]
        .map(|who| of.median(["bulk-delayed", "rtt of 100 ms", "multi", who], "gb_per_s"));
    delayed.values.push(("up".into(), ours.zip(pipe).map(|(ours, pipe)| ours / pipe)));
    targets.push(delayed);
    let what = "p99 of one stream of 64 under load, by 3 times its p99 alone and a record's time";
    let mut loaded = Target::at_most(1.0, what);
    for runtime in RUNTIMES {
        let place = ["bulk-loaded-rr", "loaded", runtime, "p2p"];
        let ratio = || {
            let alone = of.median(["rr", "in sequence", runtime, "p2p"], "p99_us")?;
            let record_us = RECORD_LEN / of.median(place, "gb_per_s")? / 1e3;
            Some(of.median(place, "p99_us")? / (3.0 * alone + record_us))
        };
        loaded.values.push((runtime.into(), ratio()));
    }
    targets.push(loaded);
    let built = |who: &str, what: &str| match &build[who][what] {
        Value::Array(values) => median(values),
        value => value.as_f64(),
    };
    for (limit, what, text) in [
        (0.5, "wall_s", "clean build by rust-libp2p's, wall time"),
        (0.5, "cpu_s", "clean build by rust-libp2p's, processor time"),
        (0.7, "crates", "crates by rust-libp2p's"),
    ] {
        let mut target = Target::at_most(limit, text);
        for ours in ["p2p", "p2p without ring"] {
            let ratio = built(ours, what).zip(built("rust-libp2p", what));
            target.values.push((ours.into(), ratio.map(|(ours, theirs)| ours / theirs)));
        }
        targets.push(target);
    }

    let mut text = String::from("| what | target | measured | |\n|---|---|---|---|\n");
    targets.iter().for_each(|target| text.push_str(&target.row()));
    text
}

fn median(values: &[Value]) -> Option<f64> {
    let values = values.iter().filter_map(Value::as_f64).collect();
    Some(compare_peer::stats::Spread::of(values)?.median)
}
