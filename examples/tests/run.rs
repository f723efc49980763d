//! Each example, run as its first lines say.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// How long one line, or the end of a program, is waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[test]
fn echo() {
    let program = env!("CARGO_BIN_EXE_echo");
    let server = Program::start(program, &[]);
    assert_eq!(ends_well(program, &[&server.next_line(), "hello"]), "hello\n");
}

#[test]
fn chat_between_two_terminals() {
    let mut called = Program::start(env!("CARGO_BIN_EXE_chat"), &[]);
    let addr = called.line_that(|line| line.starts_with("/ip4/127.0.0.1/"));
    let mut calling = Program::start(env!("CARGO_BIN_EXE_chat"), &[&addr]);
    calling.line_that(|line| line.starts_with("talking to 12D3KooW"));
    calling.type_line("anybody there?");
    called.line_that(|line| line == "> anybody there?");
    called.type_line("yes");
    called.end_input();
    calling.line_that(|line| line == "> yes");
    calling.end_input();
    called.ends_well();
    calling.ends_well();
}

#[test]
fn request_response() {
    let program = env!("CARGO_BIN_EXE_request-response");
    let service = Program::start(program, &[]);
    let addr = &service.next_line();
    assert_eq!(ends_well(program, &[addr, "1", "2", "-7"]), "-4\n");
    let most = i64::MAX.to_string();
    assert_eq!(ends_well(program, &[addr, &most, "1"]), "the sum is too large\n");
}

#[test]
fn file_transfer() {
    let program = env!("CARGO_BIN_EXE_file-transfer");
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    let (old, new) = (path("old"), path("new"));
    let content: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    fs::write(&old, &content).expect("written");
    let offer = Program::start(program, &["offer", &old]);
    let addr = &offer.next_line();
    assert_eq!(ends_well(program, &["fetch", addr, &new]), "3000000 bytes\n");
    assert!(fs::read(&new).expect("read") == content);
    assert!(!fs::exists(path("new.part")).expect("looked up"));
}

#[test]
fn key_value() {
    let program = env!("CARGO_BIN_EXE_key-value");
    let store = Program::start(program, &[]);
    let addr = &store.next_line();
    assert!(fails(program, &[addr, "get", "colour"]).contains("no such key"));
    assert_eq!(ends_well(program, &[addr, "set", "colour", "blue"]), "blue\n");
    assert_eq!(ends_well(program, &[addr, "set", "colour", "red"]), "red\n");
    assert_eq!(ends_well(program, &[addr, "get", "colour"]), "red\n");
}

#[test]
fn private_network() {
    let program = env!("CARGO_BIN_EXE_private-network");
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    let (ours, other) = (path("ours"), path("other"));
    ends_well(program, &["new", &ours]);
    ends_well(program, &["new", &other]);
    let member = Program::start(program, &["listen", &ours]);
    let addr = &member.next_line();
    ends_well(program, &["ping", &ours, addr]);
    assert!(fails(program, &["ping", &other, addr]).contains("pre-shared key"));
}

#[test]
fn metrics() {
    let node = Program::start(env!("CARGO_BIN_EXE_metrics"), &[]);
    let addr = node.next_line();
    let web = node.line_that(|line| line.starts_with("http://"));
    let web = web.trim_start_matches("http://").trim_end_matches("/metrics");
    assert_eq!(ends_well(env!("CARGO_BIN_EXE_echo"), &[&addr, "hello"]), "hello\n");
    let mut asking = std::net::TcpStream::connect(web).expect("a web server");
    asking.set_read_timeout(Some(WAIT_MAX)).expect("set");
    asking.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("asked");
    let mut answer = String::new();
    asking.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("p2p_connections_opened_total{"), "{answer}");
    assert!(answer.contains("protocol=\"/echo/1.0.0\""), "{answer}");
}

#[test]
fn unix_transport() {
    ends_well(env!("CARGO_BIN_EXE_unix-transport"), &[]);
}

#[test]
fn each_is_under_80_lines() {
    let mut seen = 0;
    for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR")).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "rs") {
            let lines = fs::read_to_string(&path).expect("text").lines().count();
            assert!(lines < 80, "{} has {lines} lines", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 8);
}

/// The other implementation's code in the guide is a program of `interop`, compiled there.
#[test]
fn the_guide_quotes_a_program_that_compiles() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let read = |path: &str| fs::read_to_string(format!("{root}/{path}")).expect("a file");
    let program = read("interop/peer-rust-libp2p/examples/guide_echo.rs");
    let chapter = read("docs/guide/src/from-rust-libp2p.md");
    assert!(chapter.contains(&format!("```rust,ignore\n{program}```")));
}

#[test]
fn the_guide_has_the_transport_as_it_is() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let read = |path: &str| fs::read_to_string(format!("{root}/{path}")).expect("a file");
    let program = read("examples/unix_transport.rs");
    assert!(read("docs/guide/src/transport.md").contains(&format!("```rust,no_run\n{program}```")));
}

/// Every chapter is in the table of contents, and its code is compiled by `src/lib.rs`.
#[test]
fn the_guide_is_whole() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let read = |path: &str| fs::read_to_string(format!("{root}/{path}")).expect("a file");
    let (summary, compiled) = (read("docs/guide/src/SUMMARY.md"), read("examples/src/lib.rs"));
    let chapters = fs::read_dir(format!("{root}/docs/guide/src")).expect("the guide");
    for chapter in chapters.map(|entry| entry.expect("an entry").file_name()) {
        let chapter = chapter.into_string().expect("text");
        if chapter != "SUMMARY.md" {
            assert!(summary.contains(&format!("({chapter})")), "{chapter} is not in SUMMARY.md");
            assert!(compiled.contains(&chapter), "the code of {chapter} is not compiled");
        }
    }
    for line in summary.lines().filter(|line| line.contains("](")) {
        let chapter = line.split(['(', ')']).nth(1).expect("a link");
        assert!(!read(&format!("docs/guide/src/{chapter}")).is_empty(), "{chapter}");
    }
}

/// A program that is ended with its value.
struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Program {
    fn start(program: &str, args: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a program");
        let stdout = child.stdout.take().expect("piped");
        Self { stdin: child.stdin.take(), child, lines: lines_of(stdout) }
    }

    fn next_line(&self) -> String {
        self.lines.recv_timeout(WAIT_MAX).expect("a line in time")
    }

    fn line_that(&self, fits: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.next_line();
            if fits(&line) {
                return line;
            }
        }
    }

    fn type_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("taken");
    }

    fn end_input(&mut self) {
        self.stdin = None;
    }

    fn ends_well(mut self) {
        while self.lines.recv_timeout(WAIT_MAX).is_ok() {}
        assert!(self.child.wait().expect("its end").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn ends_well(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

fn fails(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    assert!(!output.status.success(), "{args:?} should fail");
    String::from_utf8(output.stderr).expect("text")
}

fn run(program: &str, args: &[&str]) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a program");
    let (sender, ended) = mpsc::channel();
    let (mut out, mut err) =
        (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    thread::spawn(move || {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let read = out.read_to_end(&mut stdout).and_then(|_| err.read_to_end(&mut stderr));
        sender.send(read.map(|_| (stdout, stderr)))
    });
    let Ok(Ok((stdout, stderr))) = ended.recv_timeout(WAIT_MAX) else {
        let _ = child.kill();
        panic!("{program} {args:?} has not ended in time");
    };
    Output { status: child.wait().expect("its end"), stdout, stderr }
}
