//! `simulate`: runs the scenario of the p2p crates on a simulated network, with many seeds or one.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use p2p_testkit::simulation::{Plan, Report, replay_command, simulate_all, simulate_traced};

const USAGE: &str = "\
Runs hosts on a simulated network, with faults, and checks that nothing is lost, hung or left.

usage: p2p-testkit simulate [--seeds N] [--from S] [--hosts N] [--time SECONDS] [--noise]
       p2p-testkit simulate --seed S    one seed, with every event of its network
       p2p-testkit simulate --twice …   each seed twice, and the two must take the same course

  --seeds N       how many seeds; default 1000
  --from S        the first one; default 0
  --hosts N       hosts of each run; default 20
  --time SECONDS  virtual time with faults; default 20
  --noise         Noise on all connections; default: in one seed of eight
  --plaintext     Noise on none";

/// What the command line says.
struct Args {
    seeds: u64,
    from: u64,
    only: Option<u64>,
    is_twice: bool,
    plan: Plan,
    /// What has to be repeated to replay one seed.
    options: String,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args = match args.split_first() {
        Some((command, rest)) if command == "simulate" => parse(rest),
        Some((command, _)) if command == "--help" || command == "-h" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some((command, _)) => Err(format!("{command:?} is not a command")),
        None => Err("a command is missing".into()),
    };
    match args {
        Ok(args) if args.only.is_some() => replay(&args),
        Ok(args) => run_all(&args),
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(args: &[String]) -> Result<Args, String> {
    let mut parsed = Args {
        seeds: 1000,
        from: 0,
        only: None,
        is_twice: false,
        plan: Plan::new(),
        options: String::new(),
    };
    let mut args = args.iter();
    while let Some(option) = args.next() {
        let mut number = || {
            let text = args.next().ok_or_else(|| format!("{option} needs a number"))?;
            text.parse::<u64>().map_err(|_| format!("{option}: {text:?} is not a number"))
        };
        let plan = parsed.plan.clone();
        let repeat = match option.as_str() {
            "--seeds" => {
                parsed.seeds = number()?;
                continue;
            }
            "--from" => {
                parsed.from = number()?;
                continue;
            }
            "--seed" => {
                parsed.only = Some(number()?);
                continue;
            }
            "--twice" => {
                parsed.is_twice = true;
                continue;
            }
            "--hosts" => {
                let count = number()?;
                let hosts = usize::try_from(count).ok().filter(|count| (2..=1000).contains(count));
                parsed.plan = plan.hosts(hosts.ok_or("--hosts: 2 to 1000")?);
                format!(" --hosts {count}")
            }
            "--time" => {
                let seconds = number()?;
                parsed.plan = plan.faults(Duration::from_secs(seconds));
                format!(" --time {seconds}")
            }
            "--noise" => {
                parsed.plan = plan.noise(true);
                " --noise".into()
            }
            "--plaintext" => {
                parsed.plan = plan.noise(false);
                " --plaintext".into()
            }
            _ => return Err(format!("{option:?} is not an option")),
        };
        parsed.options.push_str(&repeat);
    }
    Ok(parsed)
}

/// One seed, with its trace.
fn replay(args: &Args) -> ExitCode {
    let seed = args.only.unwrap_or_default();
    let sink = |line: &str| println!("{line}");
    match simulate_traced(seed, &args.plan, sink) {
        Ok(report) => {
            println!("seed {seed}: nothing is wrong\n{report:#?}");
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            println!("seed {seed} failed:\n{wrong}");
            ExitCode::FAILURE
        }
    }
}

/// What came of all seeds so far.
#[derive(Default)]
struct Sum {
    done: u64,
    failed: Vec<u64>,
    total: Report,
}

fn run_all(args: &Args) -> ExitCode {
    let begun = Instant::now();
    let end = args.from.saturating_add(args.seeds);
    let mut sum = Sum::default();
    simulate_all(args.from..end, &args.plan, args.is_twice, |seed, result| {
        sum.add(seed, result, args, begun);
    });
    sum.print(begun.elapsed());
    if sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Sum {
    fn add(&mut self, seed: u64, result: Result<Report, String>, args: &Args, begun: Instant) {
        self.done += 1;
        match result {
            Ok(report) => self.total.add(&report),
            Err(wrong) => {
                clear_line();
                println!("seed {seed} failed:\n{wrong}\nto replay it, with its trace:");
                println!("  {}{}", replay_command(seed), args.options);
                self.failed.push(seed);
            }
        }
        if std::io::stdout().is_terminal() {
            self.draw(args.seeds, begun.elapsed());
        }
    }

    fn draw(&self, seeds: u64, elapsed: Duration) {
        const WIDTH: u64 = 40;
        let full = (self.done * WIDTH).checked_div(seeds).unwrap_or(WIDTH);
        let bar: String = (0..WIDTH).map(|at| if at < full { '█' } else { '░' }).collect();
        let left = elapsed.mul_f64((seeds - self.done) as f64 / self.done.max(1) as f64);
        print!(
            "\r{bar} {} of {seeds} seeds, {} failed, {} s left \x1b[K",
            self.done,
            self.failed.len(),
            left.as_secs()
        );
        drop(std::io::stdout().flush());
    }

    fn print(&self, elapsed: Duration) {
        clear_line();
        let Report { events, time, connected, whole, ended, .. } = &self.total;
        let Report { errors, bytes, crashes, closed, cuts, .. } = &self.total;
        println!(
            "{} seeds, {} failed, in {:.1} s",
            self.done,
            self.failed.len(),
            elapsed.as_secs_f64()
        );
        println!("  virtual time        {:.1} h", time.as_secs_f64() / 3600.0);
        println!("  network events      {events}");
        println!("  connections         {}", connected / 2);
        println!("  transfers           {whole} whole, {ended} ended early");
        println!("  bytes received      {:.1} MiB", *bytes as f64 / f64::from(1 << 20));
        println!("  calls with an error {errors}");
        println!("  faults              {crashes} crashes, {closed} closed hosts, {cuts} cuts");
        let failed: Vec<String> = self.failed.iter().map(u64::to_string).collect();
        if !failed.is_empty() {
            println!("  failed seeds        {}", failed.join(", "));
        }
    }
}

fn clear_line() {
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[K");
    }
}
