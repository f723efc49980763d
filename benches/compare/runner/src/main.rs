//! Runs the benchmark peers in turn within each scenario, and reports: see the README beside.

mod build;
mod counts;
mod namespace;
mod options;
mod plan;
mod plot;
mod report;
mod results;
mod run;
mod targets;

use std::{fs, process::ExitCode};

use compare_peer::Failure;
use options::Options;
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> ExitCode {
    match compare().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn compare() -> Result<(), Failure> {
    let mut options = Options::parse(std::env::args().skip(1))?;
    let out = options.out_folder()?;
    fs::create_dir_all(&out)?;
    if options.build_times {
        build::times(&options)?;
        return write_report(&options);
    }
    if options.report_only {
        return write_report(&options);
    }
    if !namespace::is_inside() {
        if !options.no_build {
            options.missing = build::peers()?;
        }
        if let Some(code) = namespace::enter(&options)? {
            return match code.success() {
                true => Ok(()),
                false => Err("the run has failed".into()),
            };
        }
    }
    let plan = plan::plan(&options);
    let mut results = results::Results::default();
    run::all(&options, &plan, &mut results).await?;
    let counts = if options.only.is_empty() { counts::all(&options).await? } else { Value::Null };
    let figures = json!({
        "machine": report::machine(),
        "options": options.words(),
        "results": results.json(),
        "counts": counts,
    });
    fs::write(out.join("figures.json"), serde_json::to_string_pretty(&figures)? + "\n")?;
    write_report(&options)
}

/// From the figures that were written last.
fn write_report(options: &Options) -> Result<(), Failure> {
    let out = options.out_folder()?;
    let read = |name: &str| -> Result<Value, Failure> {
        match fs::read_to_string(out.join(name)) {
            Ok(text) => Ok(serde_json::from_str(&text)?),
            Err(_) => Ok(Value::Null),
        }
    };
    let (figures, build) = (read("figures.json")?, read("build.json")?);
    let results = results::Results::from_json(&figures["results"]);
    for (name, svg) in plot::all(&results) {
        fs::write(out.join(format!("{name}.svg")), svg)?;
    }
    let text = report::markdown(&figures, &results, &build, options.docs);
    fs::write(out.join("report.md"), &text)?;
    if options.docs {
        report::into_docs(&text)?;
        fs::remove_file(out.join("report.md"))?;
    }
    eprintln!("the report is in {}", out.display());
    Ok(())
}
