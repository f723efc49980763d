//! What the program says: events on stdout as text or JSON lines, failures, and nothing else.

use std::{
    fmt,
    io::{self, Write as _},
    sync::OnceLock,
};

use serde_json::{Value, json};

use crate::{failure::Failure, stop::Stop};

/// Exit code when nobody reads the output any more: the reader has seen what it wanted.
const NO_READER: u8 = 0;

/// What the program says, on stdout. Every event is one line, which is out when the call returns.
/// When it cannot be written the command is asked to end, and what it says from then on is
/// dropped.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    /// Stdout is for data: everything is said on stderr, and lost where that cannot be written.
    on_stderr: bool,
    stop: Stop,
    broken: OnceLock<io::Error>,
}

impl Output {
    pub(crate) fn new(json: bool, on_stderr: bool, stop: Stop) -> Self {
        Self { json, on_stderr, stop, broken: OnceLock::new() }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn is_on_stderr(&self) -> bool {
        self.on_stderr
    }

    /// Says that something happened. What came from a peer must be [`printable`] in `text`.
    pub(crate) fn event(&self, name: &str, fields: &[(&str, Value)], text: impl fmt::Display) {
        if self.json { self.line(json_line(name, fields)) } else { self.line(text) }
    }

    /// Says why the command failed: on stderr, or as an event.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.reader_is_gone() {
            tracing::debug!(%failure, "after the output's reader went away");
        } else if self.json {
            let stage = failure.stage().map(|stage| ("stage", json!(stage.to_string())));
            let message = ("message", json!(failure.one_line()));
            let fields: Vec<_> = stage.into_iter().chain([message]).collect();
            self.line(json_line("error", &fields));
        } else {
            complain(failure);
        }
    }

    /// Gives the exit code, which is 1 when the output could not be written.
    pub(crate) fn finish(&self, code: u8) -> u8 {
        match self.broken.get() {
            Some(_) if self.reader_is_gone() => NO_READER,
            Some(error) => {
                complain(&Failure::new(format!("cannot write to standard output: {error}")));
                1
            }
            None => code,
        }
    }

    fn reader_is_gone(&self) -> bool {
        self.broken.get().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn line(&self, line: impl fmt::Display) {
        if self.on_stderr {
            return drop(writeln!(io::stderr(), "{line}"));
        }
        if self.broken.get().is_some() {
            return;
        }
        let mut stdout = io::stdout().lock();
        let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        if let Err(error) = written {
            // Where two fail at once, the first is the one to tell of.
            drop(self.broken.set(error));
            self.stop.request(NO_READER);
        }
    }
}

/// There is nobody left to tell when stderr fails as well.
fn complain(failure: &Failure) {
    drop(writeln!(io::stderr(), "error: {failure}"));
}

/// The name goes first, the fields in their order.
fn json_line(name: &str, fields: &[(&str, Value)]) -> String {
    let mut line = format!("{{\"event\":{}", json!(name));
    for (key, value) in fields {
        line += &format!(",{}:{value}", json!(key));
    }
    line + "}"
}

/// A text that came from a peer, with nothing in it that a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => printable.push(c),
            c => printable.extend(c.escape_debug()),
        }
    }
    printable
}

/// Requests the end when nobody reads stdout any more, which a command that has nothing to say
/// would not notice. Never returns where the system cannot tell.
pub(crate) async fn stop_without_reader(stop: Stop) {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd as _;
        use tokio::{io::Interest, net::unix::pipe};

        let Ok(stdout) = io::stdout().as_fd().try_clone_to_owned() else { return };
        // Unchecked, since the check would make stdout non-blocking. Files and /dev/null cannot
        // be watched, and have no reader to lose.
        let Ok(stdout) = pipe::Sender::from_owned_fd_unchecked(stdout) else { return };
        if stdout.ready(Interest::ERROR).await.is_ok() {
            stop.request(NO_READER);
        }
    }
    #[cfg(not(unix))]
    drop(stop);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_with_the_name_first() {
        let line = json_line("ping", &[("seq", json!(1)), ("text", json!("a \"b\"\n"))]);
        assert_eq!(line, r#"{"event":"ping","seq":1,"text":"a \"b\"\n"}"#);
        assert!(serde_json::from_str::<Value>(&line).is_ok());
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let text = printable("p2p\u{1b}[2J\u{9b}\n\u{202e}x");
        assert!(text.chars().all(|c| c.is_ascii_graphic()), "{text}");
    }
}
