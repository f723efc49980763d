//! System calls and allocations for a MiB and for a request: the difference of two runs, of which
//! one does more. And what the programs weigh.

use std::{fs, path::Path};

use compare_peer::Failure;
use serde_json::{Map, Value, json};

use crate::{
    options::{self, Options},
    plan::{LITEP2P, P2P, RUST_LIBP2P},
    run::{Server, client},
};

const SENDS: [&str; 4] = ["sendto", "sendmsg", "write", "writev"];
const RECEIVES: [&str; 4] = ["recvfrom", "recvmsg", "read", "readv"];
/// Beside all of them, these are told apart.
const OTHERS: [&str; 2] = ["epoll_wait", "futex"];

/// A scenario, its work in two runs, and in how many units it is counted.
struct Counted {
    unit: &'static str,
    scenario: &'static [&'static str],
    less: (&'static str, f64),
    more: (&'static str, f64),
}

const COUNTED: [Counted; 2] = [
    Counted {
        unit: "MiB",
        scenario: &["--scenario", "bulk-up", "--warmup", "16m", "--bytes"],
        less: ("64m", 64.0),
        more: ("256m", 256.0),
    },
    Counted {
        unit: "request",
        scenario: &["--scenario", "rr", "--count"],
        less: ("2000", 2100.0),
        more: ("10000", 10_500.0),
    },
];

pub async fn all(options: &Options) -> Result<Value, Failure> {
    eprintln!("counting system calls and allocations");
    let mut report = Map::new();
    for contender in [P2P, RUST_LIBP2P, LITEP2P] {
        if options.missing.iter().any(|name| name == contender.program) {
            continue;
        }
        let mut of = Map::new();
        of.insert("program_bytes".into(), json!(stripped_len(contender.program)?));
        for counted in &COUNTED {
            match calls(contender.program, counted).await {
                Ok(calls) => drop(of.insert(format!("calls_per_{}", counted.unit), calls)),
                Err(error) => eprintln!(
                    "!!! NO SYSTEM CALLS COUNTED for {}: {error}; that needs perf and root !!!",
                    contender.name
                ),
            }
            let allocations = allocations(contender.program, counted).await?;
            of.insert(format!("allocations_per_{}", counted.unit), allocations);
        }
        report.insert(contender.name.into(), Value::Object(of));
    }
    Ok(Value::Object(report))
}

fn client_args(server: &Server, counted: &Counted, work: &str) -> Vec<String> {
    let pid = server.pid.to_string();
    let mut words: Vec<String> =
        ["--addr", &server.addr, "--server-pid", &pid].map(str::to_owned).into();
    words.extend(counted.scenario.iter().map(ToString::to_string));
    words.push(work.into());
    words
}

async fn allocations(program: &str, counted: &Counted) -> Result<Value, Failure> {
    let program = format!("{program}-counting");
    let server = Server::start(&program, &[]).await?;
    let line = client(&[], &program, &client_args(&server, counted, counted.more.0)).await?;
    let each = [&line["allocations_per_mib"], &line["allocations_each"]];
    Ok(each.into_iter().find(|value| !value.is_null()).cloned().unwrap_or_default())
}

async fn calls(program: &str, counted: &Counted) -> Result<Value, Failure> {
    let less = traced(program, counted, counted.less.0).await?;
    let more = traced(program, counted, counted.more.0).await?;
    let units = counted.more.1 - counted.less.1;
    let sum = |calls: &Map<String, Value>, names: &[&str]| -> f64 {
        names.iter().filter_map(|name| calls.get(*name)?.as_f64()).sum()
    };
    let each = |names: &[&str]| (sum(&more, names) - sum(&less, names)) / units;
    Ok(json!({
        "send": each(&SENDS),
        "receive": each(&RECEIVES),
        "epoll_wait": each(&["epoll_wait"]),
        "futex": each(&["futex"]),
        "all": each(&["sys_enter"]),
    }))
}

/// The system calls of a whole run, of both processes together.
async fn traced(
    program: &str,
    counted: &Counted,
    work: &str,
) -> Result<Map<String, Value>, Failure> {
    let server = Server::start(program, &[]).await?;
    let files = ["server", "client"].map(|side| {
        std::env::temp_dir().join(format!("compare-{}-{side}.txt", std::process::id()))
    });
    let mut events = String::from("raw_syscalls:sys_enter");
    for name in SENDS.iter().chain(&RECEIVES).chain(&OTHERS) {
        events.push_str(&format!(",syscalls:sys_enter_{name}"));
    }
    let perf = |file: &Path, more: &[&str]| {
        let file = file.display().to_string();
        let mut words: Vec<String> =
            ["perf", "stat", "-x,", "-e", &events, "-o", &file].map(str::to_owned).into();
        words.extend(more.iter().map(ToString::to_string));
        words.push("--".into());
        words
    };
    let mut before = perf(&files[0], &["-p", &server.pid.to_string()]);
    before.extend(perf(&files[1], &[]));
    client(&before, program, &client_args(&server, counted, work)).await?;
    let mut calls = Map::new();
    for file in &files {
        let text = fs::read_to_string(file)?;
        fs::remove_file(file)?;
        for line in text.lines().filter(|line| line.contains("sys_enter")) {
            let fields: Vec<&str> = line.split(',').collect();
            let [count, _, event, ..] = fields.as_slice() else { continue };
            // What ends in `:u` has counted nothing.
            let name = match event.split(':').collect::<Vec<_>>().as_slice() {
                [_, name] => *name,
                _ => return Err(format!("perf may not count {event}").into()),
            };
            let name = name.strip_prefix("sys_enter_").unwrap_or(name);
            let before = calls.get(name).and_then(Value::as_f64).unwrap_or(0.0);
            calls.insert(name.into(), json!(before + count.parse::<f64>()?));
        }
    }
    Ok(calls)
}

/// Of the program without its symbols, where there is `strip`.
fn stripped_len(program: &str) -> Result<u64, Failure> {
    let path = options::programs()?.join(program);
    let copy = std::env::temp_dir().join(format!("compare-{}-stripped", std::process::id()));
    let stripped = std::process::Command::new("strip").arg("-o").arg(&copy).arg(&path).status();
    let len = match stripped {
        Ok(status) if status.success() => fs::metadata(&copy)?.len(),
        _ => fs::metadata(&path)?.len(),
    };
    drop(fs::remove_file(copy));
    Ok(len)
}
