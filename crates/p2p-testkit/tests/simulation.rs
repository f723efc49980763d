//! The scenario of hosts, faults and invariants, with many seeds; and an hour of it.
#![expect(clippy::print_stdout, reason = "the figures of a run, for those who ask")]

use std::{sync::Mutex, time::Duration};

use p2p_testkit::simulation::{Plan, Report, replay_command, simulate, simulate_all};

/// What is tried while the scenario is worked on: other seeds than those of every run.
fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run_all(seeds: std::ops::Range<u64>, plan: &Plan, twice: bool) -> Report {
    let (mut sum, failed) = (Report::default(), Mutex::new(Vec::new()));
    simulate_all(seeds, plan, twice, |seed, result| match result {
        Ok(report) => sum.add(&report),
        Err(wrong) => {
            let text = format!("seed {seed}: {wrong}\nreplay: {}", replay_command(seed));
            failed.lock().expect("no panic").push(text);
        }
    });
    let failed = failed.into_inner().expect("no panic");
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), failed.join("\n"));
    sum
}

/// Every invariant of [`p2p_testkit::simulation`] holds, and the second run of each seed takes the
/// course of the first, byte for byte and event for event.
#[test]
fn a_thousand_seeds_hold_every_invariant_and_take_the_same_course_twice() {
    let from = from_environment("SIMULATION_FROM", 0);
    let seeds = from_environment("SIMULATION_SEEDS", 1000);
    let sum = run_all(from..from + seeds, &Plan::new(), true);
    println!("{sum:#?}");
    // It was not an empty play.
    assert!(sum.whole > seeds * 50, "{sum:?}");
    assert!(sum.ended > seeds * 5, "{sum:?}");
    assert!(sum.crashes > seeds / 2 && sum.closed > seeds / 2 && sum.cuts > seeds, "{sum:?}");
}

/// An hour of connects, streams, failures and churn leaves no task, no connection, no byte, and no
/// peer in a store beyond those that there are.
#[test]
fn an_hour_leaves_nothing_behind() {
    let hosts = 8;
    let plan = Plan::new()
        .hosts(hosts)
        .faults(Duration::from_secs(60 * 60))
        .pause(Duration::from_secs(20))
        .noise(false);
    let report = simulate(1, &plan).unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{report:#?}");
    assert!(report.time >= Duration::from_secs(60 * 60));
    assert!(report.whole > 500 && report.crashes > 50 && report.closed > 50, "{report:?}");
    assert!(report.known_peers < hosts, "{report:?}");
}
