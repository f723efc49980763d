//! `p2p send` and `p2p recv`: two programs, a folder on each side.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::{Ended, Program, command, noise, path, run, start, text};

const ANYWHERE: &str = "/ip4/127.0.0.1/tcp/0";

fn send(paths: &[&str]) -> (Program, String) {
    let mut send = start(&[&["send", "--json", "--listen", ANYWHERE], paths].concat());
    let ticket = text(&send.event("ticket"), "ticket");
    (send, ticket)
}

fn recv(ticket: &str, into: &str, more: &[&str]) -> Ended {
    run(&[&["recv", "--json", ticket, "--into", into], more].concat())
}

/// The paths below a folder, and whether each is a folder. What comes and goes meanwhile may be
/// among them or not.
fn paths(folder: &Path) -> BTreeMap<String, bool> {
    fn add(folder: &Path, path: &str, paths: &mut BTreeMap<String, bool>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let entry = entry.expect("an entry");
            let path = format!("{path}/{}", entry.file_name().to_str().expect("UTF-8"));
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            paths.insert(path.clone(), is_folder);
            if is_folder {
                add(&entry.path(), &path, paths);
            }
        }
    }
    let mut all = BTreeMap::new();
    add(folder, "", &mut all);
    all
}

/// The path and digest of each file below a folder; a folder has none.
fn tree(folder: &Path) -> BTreeMap<String, Option<[u8; 32]>> {
    let digest = |path: &str| {
        let data = fs::read(format!("{}{path}", folder.display())).expect("a file");
        Sha256::digest(data).into()
    };
    let digests = paths(folder).into_iter().map(|(path, is_folder)| {
        let digest = (!is_folder).then(|| digest(&path));
        (path, digest)
    });
    digests.collect()
}

fn parts(folder: &Path) -> Vec<String> {
    paths(folder).into_keys().filter(|path| path.ends_with(".p2p.part")).collect()
}

/// A folder `from` with something of each kind in it, and an empty one `to`.
fn folders() -> (tempfile::TempDir, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let from = folder.path().join("from");
    fs::create_dir_all(from.join("deep/er/empty")).expect("made");
    fs::create_dir(folder.path().join("to")).expect("made");
    fs::write(from.join("nothing"), b"").expect("written");
    fs::write(from.join("deep/er/ü ☃.txt"), "snow").expect("written");
    fs::write(from.join("deep/large"), noise(1, 3_000_001)).expect("written");
    for n in 0..200u64 {
        fs::write(from.join(format!("deep/{n}")), noise(n, n as usize * 37)).expect("written");
    }
    let (from, to) = (path(folder.path(), "from"), path(folder.path(), "to"));
    (folder, from, to)
}

/// Something may be put in the way between the two programs' words: what is shown then.
fn failures(ended: &Ended) -> Vec<(String, String)> {
    let events = ended.events();
    let failed = events.iter().filter(|event| event["event"] == "file_failed");
    failed.map(|event| (text(event, "path"), text(event, "message"))).collect()
}

fn event(ended: &Ended, name: &str) -> Value {
    ended.events().into_iter().find(|event| event["event"] == name).expect(name)
}

#[test]
fn a_folder_and_a_file_arrive_whole_once() {
    let (folder, from, to) = folders();
    let single = path(folder.path(), "single");
    fs::write(&single, noise(9, 1_048_577)).expect("written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&single, fs::Permissions::from_mode(0o755)).expect("set");
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("from/link")).expect("made");
    }
    let (send, ticket) = send(&[&from, &single]);
    let ended = recv(&ticket, &to, &[]);
    ended.code(0).quiet();
    let sent = send.finish();
    sent.code(0).quiet();
    assert_eq!(event(&sent, "sent")["files"], 204);
    let received = event(&ended, "received");
    assert_eq!((&received["received"], &received["failed"]), (&204.into(), &0.into()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &str| fs::metadata(path).expect("there").permissions().mode() & 0o111;
        assert_ne!(mode(&format!("{to}/single")), 0);
        assert_eq!(mode(&format!("{to}/from/nothing")), 0);
        fs::remove_file(format!("{from}/link")).expect("removed");
    }
    assert_eq!(tree(&Path::new(&to).join("from")), tree(Path::new(&from)));
    assert!(fs::read(format!("{to}/single")).expect("there") == noise(9, 1_048_577));
    assert!(parts(Path::new(&to)).is_empty());

    let again = recv(&ticket, &to, &["--timeout", "2"]);
    let message = again.code(1).quiet().message();
    assert!(message.contains("p2p send"), "{message}");
}

const FILES: u64 = 20;
const FILE_LEN: usize = 10 << 20;

/// 200 MiB, each side killed once in the middle of a file and of the whole.
#[test]
fn two_hundred_mib_are_sent_although_each_side_is_killed_in_the_middle() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (path(folder.path(), "from"), path(folder.path(), "to"));
    fs::create_dir(&from).expect("made");
    for n in 0..FILES {
        fs::write(format!("{from}/{n}"), noise(n + 1, FILE_LEN)).expect("written");
    }
    let begin = |ticket: &str| start(&["recv", "--json", ticket, "--into", &to]);
    // Killed when so many files are there, and one is in part.
    let reach = |recv: &mut Program, files: usize| {
        for _ in 0..files {
            assert_eq!(recv.event("file")["state"], "received");
        }
        while parts(Path::new(&to)).iter().all(|part| {
            fs::metadata(format!("{to}{part}")).map_or(0, |metadata| metadata.len()) < 1 << 20
        }) {
            assert!(!recv.left().is_zero(), "no file is in part");
            // The file system tells of no growth.
            std::thread::sleep(Duration::from_millis(1));
        }
    };

    let (mut first, ticket) = send(&[&from]);
    let mut killed = begin(&ticket);
    reach(&mut killed, 5);
    killed.child.kill().expect("it runs");
    killed.child.wait().expect("it ends");
    assert!(!first.event("interrupted")["message"].is_null());
    assert_eq!(parts(Path::new(&to)).len(), 1);

    // The same ticket is still good; now the sender goes.
    let mut cut = begin(&ticket);
    let there = (0..).map_while(|_| {
        let event = cut.event("file");
        (event["state"] == "already_there").then_some(())
    });
    let there = there.count();
    assert!(there >= 5, "{there}");
    reach(&mut cut, 4);
    first.child.kill().expect("it runs");
    let ended = cut.finish();
    let message = ended.code(1).quiet().message();
    assert!(message.contains("gone") || message.contains("before it was complete"), "{message}");
    assert_eq!(parts(Path::new(&to)).len(), 1);

    let (second, ticket) = send(&[&from]);
    let ended = recv(&ticket, &to, &[]);
    ended.code(0).quiet();
    second.finish().code(0).quiet();
    let received = event(&ended, "received");
    assert!(received["already_there"].as_u64() >= Some(10), "{received}");
    assert!(received["resumed_bytes"].as_u64() >= Some(1 << 20), "{received}");
    let whole = FILES * FILE_LEN as u64;
    let went = received["bytes"].as_u64().expect("a count");
    assert!(went <= whole / 2, "{received}");
    assert_eq!(tree(&Path::new(&to).join("from")), tree(Path::new(&from)));
}

#[test]
fn a_part_that_is_of_another_file_is_not_continued() {
    let (_folder, from, to) = folders();
    fs::create_dir_all(format!("{to}/from/deep")).expect("made");
    for (name, len) in [("large", 1_000_000), ("7", 5), ("9", 5_000)] {
        fs::write(format!("{to}/from/deep/{name}.p2p.part"), noise(77, len)).expect("written");
    }
    let (send, ticket) = send(&[&from]);
    let ended = recv(&ticket, &to, &[]);
    ended.code(0).quiet();
    send.finish().code(0);
    assert_eq!(event(&ended, "received")["resumed_bytes"], 0);
    assert_eq!(tree(&Path::new(&to).join("from")), tree(Path::new(&from)));
}

#[test]
fn a_file_that_exists_is_not_overwritten_unless_asked_for() {
    let (_folder, from, to) = folders();
    fs::create_dir_all(format!("{to}/from/deep/3")).expect("made");
    for (name, data) in [("from/nothing", &b"mine"[..]), ("from/deep/er", b"a file")] {
        fs::write(format!("{to}/{name}"), data).expect("written");
    }
    // As long as the sender's, and another.
    fs::write(format!("{to}/from/deep/5"), noise(6, 5 * 37)).expect("written");
    let (mut send, ticket) = send(&[&from]);
    let ended = recv(&ticket, &to, &[]);
    let message = ended.code(1).quiet().message();
    assert!(message.contains("--overwrite"), "{message}");
    let mut failed: Vec<_> = failures(&ended).into_iter().map(|(path, _)| path).collect();
    failed.sort();
    let expected = ["deep/3", "deep/5", "deep/er", "deep/er/empty", "deep/er/ü ☃.txt", "nothing"];
    assert_eq!(failed, expected.map(|path| format!("from/{path}")));
    assert_eq!(fs::read(format!("{to}/from/nothing")).expect("there"), b"mine");
    assert!(fs::read(format!("{to}/from/deep/5")).expect("there") == noise(6, 5 * 37));
    let interrupted = text(&send.event("interrupted"), "message");
    assert!(interrupted.contains("does not have all"), "{interrupted}");

    // A folder is never replaced by a file, nor a file by a folder.
    let ended = recv(&ticket, &to, &["--overwrite"]);
    let mut failed: Vec<_> = failures(ended.code(1)).into_iter().map(|(path, _)| path).collect();
    failed.sort();
    assert_eq!(failed.len(), 4, "{failed:?}");
    fs::remove_dir(format!("{to}/from/deep/3")).expect("removed");
    fs::remove_file(format!("{to}/from/deep/er")).expect("removed");
    recv(&ticket, &to, &["--overwrite"]).code(0).quiet();
    send.finish().code(0);
    assert_eq!(tree(&Path::new(&to).join("from")), tree(Path::new(&from)));
}

/// A folder that was replaced by a link would lead the files elsewhere.
#[cfg(unix)]
#[test]
fn a_symbolic_link_in_the_target_is_not_followed() {
    use std::os::unix::fs::symlink;
    let (folder, from, to) = folders();
    let elsewhere = path(folder.path(), "elsewhere");
    fs::create_dir(&elsewhere).expect("made");
    fs::create_dir(format!("{to}/from")).expect("made");
    symlink(&elsewhere, format!("{to}/from/deep")).expect("made");
    symlink(format!("{elsewhere}/file"), format!("{to}/from/nothing")).expect("made");
    let (_send, ticket) = send(&[&from]);
    let ended = recv(&ticket, &to, &[]);
    let message = ended.code(1).quiet().message();
    assert!(message.contains("is no folder"), "{message}");
    assert_eq!(fs::read_dir(&elsewhere).expect("there").count(), 0);
    symlink(format!("{elsewhere}/part"), format!("{to}/from/nothing.p2p.part")).expect("made");
    recv(&ticket, &to, &["--overwrite"]).code(1);
    assert_eq!(fs::read_dir(&elsewhere).expect("there").count(), 0);
}

#[test]
fn a_wrong_ticket_is_refused_plainly() {
    let (_folder, from, to) = folders();
    let (mut send, ticket) = send(&[&from]);
    // Another program's secret, with this one's address and id: mistyped cannot be right.
    let mut mistyped = ticket.clone();
    let at = mistyped.len() / 2;
    let other = if &mistyped[at..=at] == "a" { "b" } else { "a" };
    mistyped.replace_range(at..=at, other);
    for wrong in [mistyped.as_str(), &ticket[..ticket.len() - 5], "hello", "p2psend"] {
        let ended = run(&["recv", wrong, "--into", &to]);
        ended.code(2).holds_no_debug_output();
        assert!(ended.stderr.contains("ticket"), "{}", ended.stderr);
    }
    let forged = forge(&ticket);
    let ended = run(&["recv", &forged, "--into", &to]);
    ended.code(1).holds_no_debug_output();
    assert!(ended.stderr.contains("refused the ticket"), "{}", ended.stderr);
    assert!(send.event("refused")["peer"].is_string());
    assert_eq!(fs::read_dir(&to).expect("there").count(), 0);
    // The right one is good all the same.
    recv(&ticket, &to, &[]).code(0);
    send.finish().code(0);
}

/// The same ticket with another secret and a right checksum.
fn forge(ticket: &str) -> String {
    let body = ticket.strip_prefix("p2psend").expect("a ticket");
    let mut bytes = bs58::decode(body).into_vec().expect("base58");
    bytes[5] ^= 1;
    let end = bytes.len() - 4;
    let sum = Sha256::digest(&bytes[..end]);
    bytes[end..].copy_from_slice(&sum[..4]);
    format!("p2psend{}", bs58::encode(bytes).into_string())
}

#[test]
fn a_second_receiver_is_told_to_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (path(folder.path(), "hole"), path(folder.path(), "to"));
    // It takes no room here, and far longer than the test.
    fs::File::create(&from).and_then(|file| file.set_len(8 << 30)).expect("sparse files");
    let (mut send, ticket) = send(&[&from]);
    let into = path(folder.path(), "other");
    let mut recv_one = start(&["recv", "--json", &ticket, "--into", &to]);
    recv_one.event("offer");
    let message = recv(&ticket, &into, &[]).code(1).quiet().message();
    assert!(message.contains("another receiver"), "{message}");
    recv_one.signal("-INT");
    recv_one.finish().code(130).quiet();
    send.event("interrupted");
    send.signal("-INT");
    send.finish().code(130).quiet();
}

/// Two that write one part would put what neither has checked in its place.
#[cfg(unix)]
#[test]
fn two_receivers_do_not_write_one_part() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (path(folder.path(), "hole"), path(folder.path(), "to"));
    fs::File::create(&from).and_then(|file| file.set_len(8 << 30)).expect("sparse files");
    let ((_one, ticket_one), (_two, ticket_two)) = (send(&[&from]), send(&[&from]));
    let first = start(&["recv", "--json", &ticket_one, "--into", &to]);
    while !Path::new(&format!("{to}/hole.p2p.part")).exists() {
        assert!(!first.left().is_zero(), "it does not begin");
        // The file system tells of no beginning.
        std::thread::sleep(Duration::from_millis(1));
    }
    let message = recv(&ticket_two, &to, &[]).code(1).quiet().message();
    assert!(message.contains("another program writes it"), "{message}");
}

/// Something writes to it all the time: what is sent is not what it is in the end.
#[test]
fn a_file_that_changes_while_it_is_sent_is_not_put_in_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (path(folder.path(), "from"), path(folder.path(), "to"));
    fs::create_dir(&from).expect("made");
    let changing = format!("{from}/changing");
    fs::File::create(&changing).and_then(|file| file.set_len(64 << 20)).expect("sparse files");
    fs::write(format!("{from}/steady"), b"steady").expect("written");
    let (mut send, ticket) = send(&[&from]);
    let (ended, writing) = std::sync::mpsc::channel::<()>();
    let name = changing.clone();
    let writer = std::thread::spawn(move || {
        while writing.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let file = fs::OpenOptions::new().write(true).open(&name);
            file.and_then(|mut file| file.write_all(b"x")).expect("written");
        }
    });
    let first = recv(&ticket, &to, &[]);
    drop(ended);
    writer.join().expect("it wrote");
    let message = first.code(1).quiet().message();
    assert!(message.contains("changed while it was sent"), "{message}");
    let failed = failures(&first);
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0, "from/changing");
    let there: Vec<String> = paths(Path::new(&to)).into_keys().collect();
    assert_eq!(there, ["/from", "/from/steady"]);
    assert_eq!(text(&send.event("file_failed"), "path"), "from/changing");
    send.event("interrupted");

    // There is more than was offered: a new offer is needed.
    let mut file = fs::OpenOptions::new().append(true).open(&changing).expect("opened");
    file.write_all(&[0; 100]).expect("written");
    let message = recv(&ticket, &to, &[]).code(1).quiet().message();
    assert!(message.contains("more to send"), "{message}");
    // It is as it was offered again, and steady.
    file.set_len(64 << 20).expect("cut");
    recv(&ticket, &to, &[]).code(0).quiet();
    send.finish().code(0).quiet();
    assert_eq!(tree(&Path::new(&to).join("from")), tree(Path::new(&from)));
}

/// The limit on a file's size stands for a full disk: writing fails in the same place.
#[cfg(unix)]
#[test]
fn a_full_disk_is_a_plain_sentence_and_what_is_there_is_used_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (path(folder.path(), "large"), path(folder.path(), "to"));
    fs::write(&from, noise(3, 8 << 20)).expect("written");
    let (mut send, ticket) = send(&[&from]);
    let program = env!("CARGO_BIN_EXE_p2p");
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -f 4096 && exec \"$@\"", "sh", program]);
    limited.args(["recv", "--json", &ticket, "--into", &to]).stdin(Stdio::null());
    let ended = Program::start(limited.stdout(Stdio::piped()).stderr(Stdio::piped())).finish();
    let message = ended.code(1).quiet().message();
    for part in ["cannot write", "large.p2p.part", "too large", "goes on where it stopped"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert_eq!(parts(Path::new(&to)), ["/large.p2p.part"]);
    let interrupted = text(&send.event("interrupted"), "message");
    assert!(interrupted.contains("gave up"), "{interrupted}");
    let ended = recv(&ticket, &to, &[]);
    assert!(event(ended.code(0), "received")["resumed_bytes"].as_u64() >= Some(1 << 20));
    send.finish().code(0);
    assert!(fs::read(format!("{to}/large")).expect("there") == noise(3, 8 << 20));
}

/// A real full disk, where this test may mount one.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_without_room_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = path(folder.path(), "large");
    fs::write(&from, noise(3, 4 << 20)).expect("written");
    let (_send, ticket) = send(&[&from]);
    let script = "mount -t tmpfs -o size=1m none \"$1\" || exit 77; shift; exec \"$@\"";
    let to = path(folder.path(), "to");
    fs::create_dir(&to).expect("made");
    let mut small = std::process::Command::new("unshare");
    small.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", &to]);
    small.arg(env!("CARGO_BIN_EXE_p2p")).args(["recv", "--json", &ticket, "--into", &to]);
    small.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = small.output().expect("there is `unshare`");
    if output.status.code() != Some(1) || output.stdout.is_empty() {
        eprintln!("SKIPPED: this system does not let a test mount a small disk: {output:?}");
        return;
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("No space left") && said.contains("make room"), "{said}");
}

#[cfg(unix)]
#[test]
fn what_may_not_be_read_or_written_is_said() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, from, to) = folders();
    let closed = |path: &str, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    };
    closed(&to, 0o555);
    if fs::write(format!("{to}/probe"), b"").is_ok() {
        eprintln!("SKIPPED: nothing is forbidden to this user");
        fs::remove_file(format!("{to}/probe")).expect("removed");
        return;
    }
    let (_send, ticket) = send(&[&from]);
    let message = recv(&ticket, &to, &[]).code(1).quiet().message();
    assert!(message.contains("--into") && message.contains(&to), "{message}");
    closed(&to, 0o755);
    closed(&format!("{from}/nothing"), 0o000);
    let ended = recv(&ticket, &to, &[]);
    assert_eq!(failures(ended.code(1)).len(), 1);
    closed(&format!("{from}/deep"), 0o000);
    let ended = run(&["send", &from]);
    closed(&format!("{from}/deep"), 0o755);
    assert!(ended.code(1).stderr.contains("cannot read the folder"), "{}", ended.stderr);
    drop(folder);
}

#[test]
fn what_cannot_be_sent_is_said_before_there_is_a_ticket() {
    let (folder, from, _) = folders();
    let missing = path(folder.path(), "missing");
    let same = path(folder.path(), "from/deep/../../from");
    for (args, part) in [
        (vec!["send", &missing], "No such file"),
        (vec!["send", "/dev/null"], "neither a file nor a folder"),
        (vec!["send", "/"], "no name"),
        (vec!["send", &from, &same], "two things"),
    ] {
        let ended = run(&args);
        ended.code(1).holds_no_debug_output();
        assert!(ended.stderr.contains(part) && ended.stdout.is_empty(), "{}", ended.stderr);
    }
    run(&["send"]).code(2);
}

#[test]
fn people_see_how_to_receive_and_may_have_a_qr_code() {
    let (_folder, from, to) = folders();
    let mut send = start(&["send", "--qr", "--listen", ANYWHERE, &from]);
    assert!(send.line().expect("a line").starts_with("203 files, "));
    let line = send.line().expect("a line");
    let ticket = line.rsplit(' ').next().expect("a ticket").to_owned();
    assert!(line.ends_with(&format!("p2p recv {ticket}")), "{line}");
    assert!(send.line().expect("a code").contains('█'));
    let ended = run(&["recv", &ticket, "--into", &to]);
    let all = ended.code(0).quiet().stdout.join("\n");
    assert!(all.contains("receiving 203 files") && all.contains("received: 203 files"), "{all}");
    let all = send.finish().code(0).quiet().stdout.join("\n");
    assert!(all.contains("the other side has all 203 files"), "{all}");
}

/// What is on the screen of a terminal: bars, and no remains of bars in lines.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_shows_bars_with_rate_and_time_left() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (path(folder.path(), "large"), path(folder.path(), "to"));
    fs::write(&from, noise(3, 64 << 20)).expect("written");
    let (send, ticket) = send(&[&from]);
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
    let terminal = fs::OpenOptions::new().read(true).write(true).open(&name).expect("opened");
    let mut recv = command(&["recv", &ticket, "--into", &to]);
    recv.env("TERM", "xterm").stdout(Stdio::piped()).stderr(terminal);
    let mut program = Program::start(&mut recv);
    // The command holds the test's copy of the terminal.
    drop(recv);
    let screen = std::thread::spawn(move || {
        let mut screen = Vec::new();
        // A terminal whose last user is gone gives an error.
        drop(fs::File::from(master).read_to_end(&mut screen));
        String::from_utf8_lossy(&screen).into_owned()
    });
    while program.line().is_some() {}
    assert!(program.wait().success());
    send.finish().code(0);
    let screen = screen.join().expect("it was read");
    for part in ["64.00 MiB", "MiB/s", " left", "%"] {
        assert!(screen.contains(part), "{part} in {screen:?}");
    }
}
