use std::{
    fmt,
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::output::Output;

/// How often progress is an event.
const EVENT_EVERY: Duration = Duration::from_secs(1);

/// How far a transfer is: a bar on stderr where that is a terminal, events in JSON.
pub(crate) struct Progress<'a> {
    out: &'a Output,
    bar: ProgressBar,
    total: u64,
    done: u64,
    told: Instant,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(out: &'a Output, total: u64) -> Self {
        let target = match io::stderr().is_terminal() && !out.is_json() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let template = "{bar:30} {percent:>3}%  {binary_bytes} of {binary_total_bytes}  \
             {binary_bytes_per_sec}  {eta} left";
        // The template is the same each time.
        let style = ProgressStyle::with_template(template).expect("the template is one");
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style);
        Self { out, bar, total, done: 0, told: Instant::now() }
    }

    /// Bytes that went over.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        self.bar.inc(bytes);
        if self.told.elapsed() >= EVENT_EVERY {
            self.told = Instant::now();
            let fields = [("bytes", json!(self.done)), ("total", json!(self.total))];
            self.event_json("progress", &fields);
        }
    }

    /// Bytes that did not need to: they say nothing of the rate.
    pub(crate) fn skip(&mut self, bytes: u64) {
        if bytes > 0 {
            self.add(bytes);
            self.bar.reset_eta();
        }
    }

    /// Says something that is told in JSON alone.
    pub(crate) fn event_json(&self, name: &str, fields: &[(&str, Value)]) {
        if self.out.is_json() {
            self.out.event(name, fields, "");
        }
    }

    /// Says something without a bar in its way.
    pub(crate) fn event(&self, name: &str, fields: &[(&str, Value)], text: impl fmt::Display) {
        self.bar.suspend(|| self.out.event(name, fields, text));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        // What is left on the screen says how far it came.
        self.bar.abandon();
    }
}

/// A rate for people.
pub(crate) fn rate(bytes: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(1e-6);
    format!("{:.1} MiB/s", bytes as f64 / seconds / f64::from(1 << 20))
}
