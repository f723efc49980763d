//! `p2p perf`, `p2p doctor` and `p2p completions`.

mod common;

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    thread,
};

use serde_json::Value;

use crate::common::{Ended, listener, path, run, split, start, text};

const STRANGER: &str = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";

#[test]
fn perf_measures_both_ways_over_several_streams() {
    let mut listen = start(&["listen", "--perf", "--json", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let addr = text(&listen.event("listening"), "addr");
    let sizes = ["--upload", "5MiB", "--download", "3000001", "--streams", "4"];
    let ended = run(&[&["perf", "--json", &addr], &sizes[..]].concat());
    ended.code(0).quiet();
    let events: Vec<Value> =
        ended.events().into_iter().filter(|event| event["event"] != "progress").collect();
    let names: Vec<&Value> = events.iter().map(|event| &event["event"]).collect();
    assert_eq!(names, ["connected", "upload", "download"]);
    assert_eq!((&events[1]["bytes"], &events[2]["bytes"]), (&(5 << 20).into(), &3_000_001.into()));
    for event in &events[1..] {
        assert_eq!(event["streams"], 4);
        let rate = |key: &str| event[key].as_f64().unwrap_or_else(|| panic!("{key} in {event}"));
        assert!(rate("mib_per_s") > 0.0);
        assert!(rate("min_mib_per_s") <= rate("median_mib_per_s"));
        assert!(rate("median_mib_per_s") <= rate("max_mib_per_s"));
    }
    let ended = run(&["perf", &addr, "--upload", "1MiB", "--download", "0"]);
    let all = ended.code(0).quiet().stdout.join("\n");
    assert!(all.contains("upload: 1048576 bytes") && all.contains("median"), "{all}");
    assert!(!all.contains("download"), "{all}");
}

#[test]
fn perf_of_a_peer_that_does_not_serve_it_says_what_to_start() {
    let (_listener, addr) = listener();
    let ended = run(&["perf", &addr]);
    ended.code(1).holds_no_debug_output();
    assert!(ended.stderr.contains("p2p listen --perf"), "{}", ended.stderr);
    for wrong in ["1MB", "-1", "x"] {
        run(&["perf", &addr, "--upload", wrong]).code(2);
    }
    run(&["perf", &addr, "--streams", "0"]).code(2);
}

/// The names of the steps, and whether each went well.
fn steps(ended: &Ended) -> Vec<(String, bool)> {
    let events = ended.events();
    let steps = events.iter().filter(|event| event["event"] == "step");
    steps.map(|step| (text(step, "name"), step["ok"].as_bool().expect("a truth"))).collect()
}

fn last_step(ended: &Ended) -> (String, bool) {
    steps(ended).pop().expect("a step")
}

#[test]
fn the_doctor_finds_all_well() {
    let (_listener, addr) = listener();
    let ended = run(&["doctor", "--json", &addr]);
    ended.code(0).quiet();
    let all = steps(&ended);
    assert!(all.iter().all(|(_, ok)| *ok), "{all:?}");
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    let before = ["program", "listen", "loopback"];
    let peer = [
        "tcp",
        "negotiation",
        "handshake",
        "peer id",
        "muxer",
        "connect",
        "identify",
        "addresses",
        "ping",
        "seen as",
    ];
    assert_eq!(names, [&before[..], &peer].concat());
    let report = ended.events().pop().expect("a report");
    assert_eq!((&report["event"], &report["ok"]), (&"report".into(), &true.into()));

    let ended = run(&["doctor", "--json"]);
    assert_eq!(steps(ended.code(0).quiet()).len(), before.len());
    let ended = run(&["doctor", &addr]);
    let lines = &ended.code(0).quiet().stdout;
    assert_eq!(lines.len(), before.len() + peer.len() + 1);
    assert!(lines[3].starts_with("ok ") && lines[3].contains(" ms  tcp "), "{}", lines[3]);
}

/// Whatever tells where this machine is, or who is who, is left out: when all goes well, and in
/// what is said of a failure.
#[test]
fn the_doctors_report_holds_no_address() {
    let mut listener = start(&["listen", "--json"]);
    let addr = text(&listener.event("listening"), "addr");
    let well = run(&["doctor", "--json", &addr]);
    well.code(0).quiet();
    listener.signal("-TERM");
    while listener.line().is_some() {}
    let ill = run(&["doctor", "--json", &addr]);
    ill.code(1).quiet();
    let said: Vec<Value> =
        listener.seen.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let addrs = said.iter().filter(|event| event["event"] == "listening");
    let addrs: Vec<String> = addrs.map(|event| text(event, "addr")).collect();
    for report in [well, ill] {
        let report = report.stdout.join("\n");
        for addr in &addrs {
            let (bare, peer) = split(addr);
            let ip = bare.split('/').nth(2).expect("an address");
            assert!(!report.contains(peer), "{peer} in {report}");
            let is_loopback = ["127.0.0.1", "::1"].contains(&ip);
            assert!(is_loopback || !report.contains(ip), "{ip} in {report}");
        }
        assert!(!report.contains("12D3KooW"), "{report}");
    }
}

#[test]
fn the_doctor_names_the_first_thing_that_does_not_work() {
    let (_listener, addr) = listener();
    let (bare, peer) = split(&addr);
    let wrong = format!("{bare}/p2p/{STRANGER}");
    let ended = run(&["doctor", "--json", &wrong]);
    assert_eq!(last_step(ended.code(1)), ("peer id".into(), false));
    let ended = run(&["doctor", &wrong]);
    ended.code(1).holds_no_debug_output();
    assert!(ended.stderr.contains(peer) && ended.stderr.contains(STRANGER), "{}", ended.stderr);

    let ended = run(&["doctor", "--json", "/ip4/127.0.0.1/tcp/1"]);
    assert_eq!(last_step(ended.code(1)), ("tcp".into(), false));
    assert!(ended.message().contains("nothing listens"), "{}", ended.message());

    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = other.local_addr().expect("bound").port();
    thread::spawn(move || {
        for connection in other.incoming() {
            let mut connection = connection.expect("accepted");
            connection.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").expect("said");
            drop(connection.read(&mut [0; 64]));
        }
    });
    let ended = run(&["doctor", "--json", &format!("/ip4/127.0.0.1/tcp/{port}")]);
    assert_eq!(last_step(ended.code(1)), ("negotiation".into(), false));
    assert!(ended.message().contains("something else than libp2p"), "{}", ended.message());

    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("bound").port();
    let addr = format!("/ip4/127.0.0.1/tcp/{port}");
    let ended = run(&["doctor", "--json", "--timeout", "1", &addr]);
    assert_eq!(last_step(ended.code(1)), ("negotiation".into(), false));
    assert!(ended.message().contains("no answer within 1s"), "{}", ended.message());

    let ended = run(&["doctor", "--json", "/dns4/no such name.invalid/tcp/1"]);
    assert_eq!(last_step(ended.code(1)), ("dns".into(), false));
    assert!(!ended.message().contains("no such name.invalid"), "{}", ended.message());
    let ended = run(&["doctor", "--json", "/ip4/127.0.0.1/udp/1/quic-v1"]);
    assert_eq!(last_step(ended.code(1)), ("connect".into(), false));
}

#[test]
fn completions_are_scripts_that_the_shell_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ended = run(&["completions", shell]);
        let script = ended.code(0).quiet().stdout.join("\n");
        for word in ["serve-tcp", "doctor", "--announce"] {
            assert!(script.contains(word.trim_start_matches("--")), "{word} for {shell}");
        }
        if shell == "bash" {
            let file = path(folder.path(), "p2p.bash");
            std::fs::write(&file, script).expect("written");
            let checked = Command::new("bash").args(["-n", &file]).status();
            assert!(checked.is_ok_and(|status| status.success()));
        }
    }
    run(&["completions", "cmd"]).code(2);
}
