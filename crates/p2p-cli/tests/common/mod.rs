//! Runs the real program, as a person or a script does.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long one program may run, whatever else the machine does.
pub const RUN_MAX: Duration = Duration::from_secs(120);

/// A running `p2p`, which does not outlive its test.
pub struct Program {
    pub child: Child,
    pub stdout: Receiver<String>,
    pub stderr: Receiver<String>,
    pub seen: Vec<String>,
    pub until: Instant,
}

/// How a `p2p` has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<String>,
    pub stderr: String,
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2p"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

pub fn start(args: &[&str]) -> Program {
    Program::start(command(args).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

pub fn run(args: &[&str]) -> Ended {
    start(args).finish()
}

impl Program {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the program was built");
        let (lines, stdout) = channel();
        let (text, stderr) = channel();
        // The test may end before its program: then nobody wants what is read.
        if let Some(out) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(out).lines() {
                    drop(lines.send(line.expect("the output is UTF-8")));
                }
            });
        }
        if let Some(mut err) = child.stderr.take() {
            thread::spawn(move || {
                let mut all = String::new();
                err.read_to_string(&mut all).expect("the errors are UTF-8");
                drop(text.send(all));
            });
        }
        Self { child, stdout, stderr, seen: Vec::new(), until: Instant::now() + RUN_MAX }
    }

    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// The next line of stdout, `None` at its end.
    pub fn line(&mut self) -> Option<String> {
        match self.stdout.recv_timeout(self.left()) {
            Ok(line) => {
                self.seen.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no further line; so far {:#?}", self.seen),
        }
    }

    /// The next event of this name.
    pub fn event(&mut self, name: &str) -> Value {
        while let Some(line) = self.line() {
            let event = json(&line);
            if event["event"] == name {
                return event;
            }
        }
        panic!("it ended without {name}: {:#?}", self.seen);
    }

    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    pub fn wait(&mut self) -> ExitStatus {
        let ended = end_of(&mut self.child, self.until);
        ended.unwrap_or_else(|| panic!("it does not end; so far {:#?}", self.seen))
    }

    /// Waits for the end; the program has to come to it by itself.
    pub fn finish(mut self) -> Ended {
        while self.line().is_some() {}
        let status = self.wait();
        let stderr = self.stderr.recv_timeout(self.left()).expect("stderr is closed at the end");
        Ended { status, stdout: std::mem::take(&mut self.seen), stderr }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended, and then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Ended {
    #[track_caller]
    pub fn code(&self, code: i32) -> &Self {
        let Self { status, stdout, stderr } = self;
        assert_eq!(status.code(), Some(code), "stdout: {stdout:#?}\nstderr: {stderr}");
        self
    }

    #[track_caller]
    pub fn quiet(&self) -> &Self {
        assert_eq!(self.stderr, "");
        self
    }

    /// The events, all of which must be JSON.
    pub fn events(&self) -> Vec<Value> {
        self.stdout.iter().map(|line| json(line)).collect()
    }

    pub fn names(&self) -> Vec<String> {
        let name = |event: &Value| event["event"].as_str().expect("every event has a name").into();
        self.events().iter().map(name).collect()
    }

    /// The message of the error that ended it, from stdout.
    pub fn message(&self) -> String {
        let events = self.events();
        let last = events.last().expect("an error is an event");
        assert_eq!(last["event"], "error");
        last["message"].as_str().expect("an error has a message").to_owned()
    }

    /// What a person would take for the output of a broken program.
    #[track_caller]
    pub fn holds_no_debug_output(&self) -> &Self {
        for text in ["panicked", "Error {", "Some(", "Err(", "RUST_BACKTRACE"] {
            assert!(!self.stderr.contains(text), "{}", self.stderr);
        }
        self
    }
}

pub fn json(line: &str) -> Value {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
    assert!(value.is_object(), "{line}");
    value
}

/// A `p2p listen` and its address.
pub fn listener() -> (Program, String) {
    let mut listener = start(&["listen", "--listen", "/ip4/127.0.0.1/tcp/0", "--json"]);
    let addr = text(&listener.event("listening"), "addr");
    (listener, addr)
}

pub fn text(event: &Value, key: &str) -> String {
    event[key].as_str().unwrap_or_else(|| panic!("{event} has a text {key:?}")).to_owned()
}

pub fn split(addr: &str) -> (&str, &str) {
    addr.split_once("/p2p/").expect("a full address names the peer")
}

pub fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().expect("the test's folder is UTF-8").to_owned()
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args([name, &id]).status().expect("there is a `kill`");
    assert!(sent.success());
}

/// A running `p2p` whose stdin and stdout are data, and whose events are on stderr.
pub struct Piped {
    child: Child,
    pub stdin: Option<std::process::ChildStdin>,
    pub stdout: Option<std::process::ChildStdout>,
    events: Receiver<String>,
    until: Instant,
}

impl Piped {
    pub fn start(args: &[&str]) -> Self {
        let mut command = command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program was built");
        let (lines, events) = channel();
        let stderr = child.stderr.take().expect("a pipe");
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                drop(lines.send(line.expect("the events are UTF-8")));
            }
        });
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        Self { child, stdin, stdout, events, until: Instant::now() + RUN_MAX }
    }

    /// The next event of this name.
    pub fn event(&mut self, name: &str) -> Value {
        let mut seen = Vec::new();
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let Ok(line) = self.events.recv_timeout(left) else { panic!("no {name} in {seen:#?}") };
            let event = json(&line);
            if event["event"] == name {
                return event;
            }
            seen.push(line);
        }
    }

    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("it is this test's child");
    }

    /// Writes all of `data` from a thread of its own, and ends stdin.
    pub fn feed(&mut self, data: Vec<u8>) -> thread::JoinHandle<()> {
        let mut stdin = self.stdin.take().expect("it was not ended");
        thread::spawn(move || {
            // The program may end before it has read all.
            drop(std::io::Write::write_all(&mut stdin, &data));
        })
    }

    /// What comes on stdout until its end.
    pub fn read_all(&mut self) -> Vec<u8> {
        let mut data = Vec::new();
        self.stdout.take().expect("open").read_to_end(&mut data).expect("stdout is readable");
        data
    }

    pub fn code(&mut self) -> Option<i32> {
        end_of(&mut self.child, self.until).expect("it ends").code()
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // It may have ended, and then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How a program ends, if it does so until then.
fn end_of(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    while Instant::now() < until {
        if let Some(status) = child.try_wait().expect("it is this test's child") {
            return Some(status);
        }
        // A process ends without a word to wait for, but to one that would wait for ever.
        thread::sleep(Duration::from_millis(5));
    }
    None
}

/// Bytes without a pattern, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut noise = Vec::with_capacity(len + 8);
    while noise.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(len);
    noise
}
