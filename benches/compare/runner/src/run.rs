//! Runs a server and a client of one contender at a time.

use std::{process::Stdio, time::Duration};

use compare_peer::{Failure, Runtime, delay};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, timeout},
};

use crate::{
    options::{self, Options},
    plan::{AWAKE, Case, Contender},
    results::Results,
};

const START_MAX: Duration = Duration::from_secs(20);
const RUN_MAX: Duration = Duration::from_secs(180);

/// A server, which is killed when this is dropped.
pub struct Server {
    pub addr: String,
    pub pid: u32,
    _process: Child,
}

impl Server {
    pub async fn start(program: &str, args: &[String]) -> Result<Self, Failure> {
        let mut process = command(program)?
            .arg("server")
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let stdout = process.stdout.take().ok_or("no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let addr = timeout(START_MAX, lines.next_line()).await??.ok_or("no address")?;
        Ok(Self { addr, pid: process.id().ok_or("no pid")?, _process: process })
    }
}

fn command(program: &str) -> Result<Command, Failure> {
    let mut command = Command::new(options::programs()?.join(program));
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// Runs a client to its end; gives its line. `before` are the words before its own.
pub async fn client(before: &[String], program: &str, args: &[String]) -> Result<Value, Failure> {
    let mut command = match before {
        [] => command(program)?,
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(options::programs()?.join(program)).kill_on_drop(true);
            command
        }
    };
    let output = command.arg("client").args(args).stderr(Stdio::inherit()).output();
    let output = timeout(RUN_MAX, output).await.map_err(|_| "not done in time")??;
    if !output.status.success() {
        return Err(format!("the client has failed: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

pub async fn all(options: &Options, plan: &[Case], results: &mut Results) -> Result<(), Failure> {
    let begun = Instant::now();
    for (number, case) in plan.iter().enumerate() {
        for round in 0..case.rounds {
            eprintln!(
                "{:>4} s  {} ({} of {}), round {} of {}",
                begun.elapsed().as_secs(),
                case.name,
                number + 1,
                plan.len(),
                round + 1,
                case.rounds
            );
            for runtime in &case.runtimes {
                // The default runtime is the one that is quoted.
                if *runtime == Runtime::Current && round >= 3 && options.rounds.is_none() {
                    continue;
                }
                for variant in &case.variants {
                    let mut awake = Vec::new();
                    if variant.name == AWAKE {
                        match keep_awake() {
                            Ok(spinning) => awake = spinning,
                            Err(error) => {
                                eprintln!("!!! WITHOUT {}, {}: {error}", case.name, variant.name);
                                continue;
                            }
                        }
                    }
                    for contender in &variant.contenders {
                        let place = [case.name, variant.name, runtime.name(), contender.name];
                        match once(case, *contender, &variant.args, *runtime).await {
                            Ok(line) => results.add(place, &line),
                            Err(error) => eprintln!("        {}: {error}", place.join(", ")),
                        }
                    }
                    for spinning in &mut awake {
                        if let Some(status) = spinning.try_wait()? {
                            eprintln!("!!! {}, {}: NOT AWAKE: {status}", case.name, variant.name);
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

async fn once(
    case: &Case,
    contender: Contender,
    args: &[String],
    runtime: Runtime,
) -> Result<Value, Failure> {
    let mut common: Vec<String> = contender.args.iter().map(ToString::to_string).collect();
    common.extend(["--rt".into(), runtime.to_string()]);
    let server = Server::start(contender.program, &common).await?;
    let mut addr = server.addr.clone();
    let mut behind = None;
    if let Some(ms) = case.delay_ms {
        let (near, task) = delayed(&addr, Duration::from_millis(ms)).await?;
        behind = Some(task);
        addr = near;
    }
    let mut words = common;
    words.extend(["--addr".into(), addr, "--server-pid".into(), server.pid.to_string()]);
    words.extend(["--scenario".into(), case.scenario.into()]);
    words.extend(args.iter().cloned());
    let line = client(&[], contender.program, &words).await;
    if let Some(task) = behind {
        task.abort();
    }
    line
}

/// Keeps every processor busy, at the priority of what runs only where nothing else does, until it is
/// dropped.
fn keep_awake() -> Result<Vec<Child>, Failure> {
    let count = std::thread::available_parallelism()?.get();
    let spin = || {
        let mut command = Command::new("chrt");
        command.args(["--idle", "0", "sh", "-c", "while :; do :; done"]);
        command.stdin(Stdio::null()).kill_on_drop(true).spawn()
    };
    let spinning = (0..count).map(|_| spin()).collect::<Result<_, _>>();
    spinning.map_err(|error| format!("chrt (of util-linux): {error}").into())
}

/// The same address behind a proxy.
async fn delayed(
    addr: &str,
    delay: Duration,
) -> Result<(String, tokio::task::JoinHandle<()>), Failure> {
    let mut parts: Vec<String> = addr.split('/').map(str::to_owned).collect();
    let port = parts.get(4).ok_or("an address without a port")?.parse()?;
    let (near, task) = delay::proxy(([127, 0, 0, 1], port).into(), delay).await?;
    parts[4] = near.port().to_string();
    Ok((parts.join("/"), task))
}
