//! The report in Markdown.

use std::{fmt::Write as _, fs, process::Command};

use compare_peer::{Failure, stats::Spread};
use serde_json::{Value, json};

use crate::{
    namespace, options,
    plan::{self, PEERS},
    results::Results,
    targets,
};

/// All cases in the order of the report.
pub const CASES: [(&str, &str); 11] = [
    ("bulk-up", "Bulk, client to server"),
    ("bulk-down", "Bulk, server to client"),
    ("bulk-delayed", "One stream over a link that delays by 50 ms each way"),
    ("handshakes", "Handshakes: dial, secure, multiplex"),
    ("dial-ping", "Dial to the first pong"),
    ("streams", "Streams opened with negotiation, 32 bytes echoed, closed"),
    ("rr", "Request and response of 32 bytes on one stream"),
    ("bulk-loaded-rr", "Request and response beside 63 streams at full speed"),
    ("idle-conns", "Memory of an idle connection"),
    ("idle-streams", "Memory of an idle stream"),
    ("round-trips", "Round trips from SYN to the first echoed byte"),
];
const ORDER: [&str; 14] = [
    "p2p",
    "p2p-sleeping",
    "p2p-optimistic",
    "p2p-rustcrypto",
    "p2p-aws-lc-rs",
    "p2p-openssl",
    "rust-libp2p",
    "rust-libp2p-optimistic",
    "litep2p",
    "sealed-ring",
    "sealed-rustcrypto",
    "sealed-aws-lc-rs",
    "sealed-openssl",
    "tcp",
];
const BEGIN: &str = "<!-- begin of what the comparison writes -->";
const END: &str = "<!-- end of what the comparison writes -->";

pub fn ordered(results: &Results, case: &str) -> Vec<String> {
    let mut names = results.contenders(case);
    names.sort_by_key(|name| ORDER.iter().position(|known| known == name));
    names
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small < 0.1 && small > 0.0 => format!("{value:.4}"),
        _ => format!("{value:.2}"),
    }
}

pub fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown");
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    json!({
        "processor": model,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "rustc": rustc.unwrap_or_default(),
        "congestion_control": namespace::describe(),
        "load_at_the_end": read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    })
}

pub fn markdown(figures: &Value, results: &Results, build: &Value, docs: bool) -> String {
    let machine = &figures["machine"];
    let text = |name: &str| machine[name].as_str().unwrap_or("?").to_owned();
    let mut out = format!(
        "{}, {} cores, Linux {}, {}; congestion control: {}; load at the end {}. Options: `{}`.\n\n",
        text("processor"),
        machine["cores"],
        text("kernel"),
        text("rustc"),
        text("congestion_control"),
        text("load_at_the_end"),
        figures["options"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(" "),
    );
    out.push_str("## Targets\n\nMedians of one run.\n\n");
    out.push_str(&targets::table(results, build));
    out.push_str(
        "\n## Figures\n\nMedian (minimum to maximum). The ratios are of `p2p`'s medians: by the \
         better of rust-libp2p and litep2p, and by the sealed pipe with ring over one stream.\n",
    );
    for (case, title) in CASES {
        let contenders = ordered(results, case);
        if contenders.is_empty() {
            continue;
        }
        let _ = write!(out, "\n### {title} (`{case}`)\n\n");
        let folder = if docs { "performance/" } else { "" };
        let _ = write!(out, "![{title}]({folder}{case}.svg)\n\n");
        for figure in plan::figures(case) {
            let _ = write!(out, "| {} |", figure.title);
            contenders.iter().for_each(|name| out.push_str(&format!(" {name} |")));
            out.push_str(" by the best peer | by the sealed pipe |\n|---|");
            out.push_str(&"---|".repeat(contenders.len() + 2));
            out.push('\n');
            for (variant, runtime) in results.rows(case) {
                let of = |variant: &str, who: &str| {
                    results.spread(case, variant, &runtime, who, figure.key)
                };
                if contenders.iter().all(|who| of(&variant, who).is_none()) {
                    continue;
                }
                let _ = write!(out, "| {variant}, {runtime} |");
                for name in &contenders {
                    let cell = of(&variant, name).map(cell).unwrap_or_default();
                    let _ = write!(out, " {cell} |");
                }
                let ours = of(&variant, "p2p");
                let peers = PEERS.iter().filter_map(|who| Some(of(&variant, who)?.median));
                let best = match figure.more_is_better {
                    true => peers.reduce(f64::max),
                    false => peers.reduce(f64::min),
                };
                let pipe = of(&variant, "sealed-ring").or_else(|| of("1 stream", "sealed-ring"));
                for by in [best, pipe.map(|pipe| pipe.median)] {
                    let ratio = ours.zip(by).map(|(ours, by)| number(ours.median / by));
                    let _ = write!(out, " {} |", ratio.unwrap_or_default());
                }
                out.push('\n');
            }
            out.push('\n');
        }
    }
    out.push_str(&counts(&figures["counts"]));
    out.push_str(&builds(build));
    out
}

fn cell(spread: Spread) -> String {
    let Spread { min, median, max } = spread;
    format!("{} ({} to {})", number(median), number(min), number(max))
}

fn counts(counts: &Value) -> String {
    let Some(counts) = counts.as_object() else { return String::new() };
    let mut out = String::from(
        "### Counts\n\nOf both processes together: for a MiB of one stream up, and for a request \
         of 32 bytes with its response. The program is without symbols.\n\n\
         | | sends, MiB | receives, MiB | all calls, MiB | allocations, MiB | sends, request | \
         receives, request | all calls, request | allocations, request | program, MiB |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (name, of) in counts {
        let _ = write!(out, "| {name} |");
        for unit in ["MiB", "request"] {
            for call in ["send", "receive", "all"] {
                let count = of[format!("calls_per_{unit}")][call].as_f64();
                let _ = write!(out, " {} |", count.map(number).unwrap_or_default());
            }
            let count = of[format!("allocations_per_{unit}")].as_f64();
            let _ = write!(out, " {} |", count.map(number).unwrap_or_default());
        }
        let mib = of["program_bytes"].as_f64().map(|bytes| number(bytes / f64::from(1 << 20)));
        let _ = writeln!(out, " {} |", mib.unwrap_or_default());
    }
    out
}

fn builds(build: &Value) -> String {
    let Some(build) = build.as_object() else { return String::new() };
    let mut out = String::from(
        "\n### Clean builds\n\nA debug build of a program that depends on one implementation with \
         TCP, Noise, Yamux, ping and identify (`--build-times`). Crates: its normal dependencies.\n\n\
         | | crates | wall s | processor s |\n|---|---|---|---|\n",
    );
    for (name, of) in build {
        let spread = |what: &str| {
            let values = of[what].as_array().into_iter().flatten().filter_map(Value::as_f64);
            Spread::of(values.collect()).map(cell).unwrap_or_default()
        };
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {} |",
            of["crates"],
            spread("wall_s"),
            spread("cpu_s")
        );
    }
    out
}

/// Puts `text` in the place of the last report.
pub fn into_docs(text: &str) -> Result<(), Failure> {
    let path = options::repository().join("docs/performance.md");
    let page = fs::read_to_string(&path)?;
    let parts =
        page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or_else(|| format!("{} has no marks", path.display()))?;
    fs::write(&path, format!("{before}{BEGIN}\n\n{text}\n{END}{after}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([0.1234, 12.345, 1234.5].map(number), ["0.12", "12.3", "1234"]);
    }

    #[test]
    fn every_case_of_the_plan_is_reported() {
        let plan = plan::plan(&options::Options::default());
        for case in plan {
            assert!(CASES.iter().any(|(name, _)| *name == case.name));
        }
    }
}
