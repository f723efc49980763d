use std::{
    ffi::OsStr,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    process::Stdio,
    thread,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// How much of a process's standard error a failing test shows, in bytes.
const TAIL_LEN: u64 = 4096;

/// A child process that prints one JSON object per line. It is killed when this is dropped, and
/// shows the end of its standard error when that is because the test fails.
pub(crate) struct Process {
    command: String,
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: File,
}

/// How a process ended, and what it printed since the last event that was waited for.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) lines: Vec<Value>,
}

impl Process {
    pub(crate) fn start<S: AsRef<OsStr>>(program: &Path, args: &[S]) -> Self {
        let stderr = tempfile::tempfile().unwrap();
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone().unwrap())
            .kill_on_drop(true);
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { command: format!("{:?}", command.as_std()), child, stdout, stderr }
    }

    /// Waits for the next event of this name; others before it are passed over.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        let mut others = Vec::new();
        while let Some(line) = self.line().await {
            if line["event"] == name {
                return line;
            }
            others.push(line);
        }
        panic!("{} ended without {name:?}, after {others:?}", self.command);
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn end(&mut self) -> Ended {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        Ended { code: self.child.wait().await.unwrap().code(), lines }
    }

    /// Ends the process at once, without a chance to say goodbye to its peers.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    async fn line(&mut self) -> Option<Value> {
        let line = self.stdout.next_line().await.unwrap()?;
        let value = serde_json::from_str(&line);
        Some(value.unwrap_or_else(|error| panic!("{} printed {line:?}: {error}", self.command)))
    }

    fn stderr_tail(&mut self) -> std::io::Result<String> {
        let len = self.stderr.seek(SeekFrom::End(0))?;
        self.stderr.seek(SeekFrom::Start(len.saturating_sub(TAIL_LEN)))?;
        let mut tail = Vec::new();
        self.stderr.read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        // The child shares the file's position: it must write no more.
        let killed = self.child.start_kill();
        let tail = self.stderr_tail();
        eprintln!("--- {} ({killed:?}), end of standard error:", self.command);
        eprintln!("{}", tail.unwrap_or_else(|error| error.to_string()));
    }
}

impl Ended {
    /// The one line of a client command that succeeded.
    pub(crate) fn success(self) -> Value {
        assert_eq!((self.code, self.lines.len()), (Some(0), 1), "{self:?}");
        self.lines.into_iter().next().unwrap()
    }

    /// The message of a client command that failed.
    pub(crate) fn failure(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        let last = self.lines.last().unwrap();
        assert_eq!(last["event"], "error", "{last}");
        last["message"].as_str().unwrap().to_owned()
    }
}

/// The strings of a JSON list.
pub(crate) fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}
