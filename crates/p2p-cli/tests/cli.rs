//! The program as a person or a script uses it: the real binary, its output, its exit codes.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::Stdio,
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::common::{Program, command, listener, path, run, split, start, text};

/// The id of a peer that is not there.
const STRANGER: &str = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";

#[test]
fn a_listener_answers_and_tells_of_it_and_sigterm_closes_it() {
    let (mut listener, addr) = listener();
    let (bare, peer) = split(&addr);

    let pinged = run(&["ping", "-c", "3", "--interval", "0.01", "--json", &addr]);
    pinged.code(0).quiet();
    assert_eq!(pinged.names(), ["connected", "ping", "ping", "ping", "summary"]);
    let events = pinged.events();
    assert_eq!(events[0]["peer"], peer);
    assert_eq!((&events[1]["seq"], &events[3]["seq"]), (&1.into(), &3.into()));
    assert!(events[1]["rtt_us"].is_u64(), "{}", events[1]);
    assert_eq!((&events[4]["sent"], &events[4]["lost"]), (&3.into(), &0.into()));
    for key in ["min_us", "median_us", "max_us"] {
        assert!(events[4][key].is_u64(), "{}", events[4]);
    }

    let connected = listener.event("connected");
    assert_eq!(connected["direction"], "inbound");
    assert_eq!(connected["security"], "/noise");
    assert_eq!(connected["muxer"], "/yamux/1.0.0");
    let identified = listener.event("identified");
    assert_eq!(identified["peer"], connected["peer"]);
    assert!(text(&identified, "agent").starts_with("p2p-cli/"), "{identified}");
    let gone = listener.event("disconnected");
    assert_eq!(gone["peer"], connected["peer"]);
    assert!(text(&gone, "cause").contains("closed by the peer"), "{gone}");

    // Without an id in the address the peer is whoever answers there.
    let identified = run(&["identify", "--json", bare]);
    identified.code(0).quiet();
    let event = &identified.events()[0];
    assert_eq!(event["event"], "identified");
    assert_eq!(event["peer"], peer);
    assert_eq!(event["listen_addrs"], serde_json::json!([bare]));
    let protocols = event["protocols"].to_string();
    for protocol in ["/echo/1.0.0", "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"] {
        assert!(protocols.contains(protocol), "{protocols}");
    }

    listener.signal("-TERM");
    let ended = listener.finish();
    ended.code(0).quiet();
    assert_eq!(ended.names().last().map(String::as_str), Some("closed"));
}

#[test]
fn as_text_the_same_is_for_people_and_sigint_closes() {
    let mut listener = start(&["listen", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let first = listener.line().expect("it listens");
    let addr = first.strip_prefix("listening on ").expect("it says where").to_owned();

    let pinged = run(&["ping", "-c", "1", &addr]);
    let last = pinged.code(0).quiet().stdout.last().expect("a summary");
    assert!(last.starts_with("1 sent, 1 answered, 0 lost; min "), "{last}");
    let identified = run(&["identify", &addr]);
    let all = identified.code(0).quiet().stdout.join("\n");
    assert!(all.contains(split(&addr).1) && all.contains("/echo/1.0.0"), "{all}");

    listener.signal("-INT");
    let ended = listener.finish();
    ended.code(0).quiet();
    assert_eq!(ended.stdout.last().map(String::as_str), Some("closed"));
}

#[test]
fn several_addresses_are_listened_on() {
    let addr = "/ip4/127.0.0.1/tcp/0";
    let mut listener = start(&["listen", "--json", "--listen", addr, "--listen", addr]);
    let (one, two) = (listener.event("listening"), listener.event("listening"));
    assert_ne!(one["addr"], two["addr"]);
    for addr in [text(&one, "addr"), text(&two, "addr")] {
        run(&["ping", "-c", "1", &addr]).code(0);
    }
}

#[test]
fn the_echo_protocol_echoes() {
    let (_listener, addr) = listener();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let echo = runtime.block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let host = p2p::builder().spawn().await.expect("a host");
        let mut stream = host.open(&addr, "/echo/1.0.0").await.expect("a stream");
        stream.write_all(b"hi").await.expect("sent");
        stream.shutdown().await.expect("ended");
        let mut echo = String::new();
        stream.read_to_string(&mut echo).await.expect("echoed");
        host.close().await;
        echo
    });
    assert_eq!(echo, "hi");
}

#[test]
fn another_peer_than_the_address_names_is_an_error_that_names_both() {
    let (_listener, addr) = listener();
    let (bare, peer) = split(&addr);
    let wrong = format!("{bare}/p2p/{STRANGER}");
    for command in ["ping", "identify"] {
        let ended = run(&[command, "--json", &wrong]);
        let message = ended.code(1).quiet().message();
        assert!(message.contains(peer) && message.contains(STRANGER), "{message}");
        assert!(message.contains("stage security"), "{message}");
        assert_eq!(ended.events().last().expect("an error")["stage"], "security");
    }
    let ended = run(&["ping", &wrong]);
    ended.code(1).holds_no_debug_output();
    assert!(ended.stdout.is_empty(), "{:?}", ended.stdout);
    assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(peer), "{}", ended.stderr);
}

#[test]
fn a_refused_address_is_named_with_its_stage() {
    for command in ["ping", "identify"] {
        let ended = run(&[command, "/ip4/127.0.0.1/tcp/1"]);
        ended.code(1).holds_no_debug_output();
        for part in ["error: ", "/ip4/127.0.0.1/tcp/1", "refused", "stage connect", "p2p listen"] {
            assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
        }
    }
    let ended = run(&["ping", "--json", "/ip4/127.0.0.1/tcp/1"]);
    assert_eq!(ended.code(1).quiet().events()[0]["stage"], "connect");
}

#[test]
fn an_address_of_another_transport_says_what_can_be_dialed() {
    let ended = run(&["ping", "/ip4/127.0.0.1/udp/1/quic-v1"]);
    ended.code(1).holds_no_debug_output();
    assert!(
        ended.stderr.contains("no transport") && ended.stderr.contains("TCP"),
        "{}",
        ended.stderr
    );
}

#[test]
fn what_is_not_an_address_is_wrong_use() {
    let peer_only = format!("/p2p/{STRANGER}");
    for addr in ["hello", "", "/", "/ip4/localhost/tcp/1", STRANGER, &peer_only] {
        for command in ["ping", "identify"] {
            let ended = run(&[command, addr]);
            ended.code(2).holds_no_debug_output();
            assert!(ended.stderr.contains("<ADDR>"), "{}", ended.stderr);
        }
    }
    run(&["listen", "--listen", "hello"]).code(2).holds_no_debug_output();
    for wrong in [&["ping"][..], &[], &["dance"], &["ping", "-c", "0", "/ip4/127.0.0.1/tcp/1"]] {
        run(wrong).code(2);
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let addr = format!("/ip4/127.0.0.1/tcp/{port}");
    let ended = run(&["listen", "--listen", &addr]);
    ended.code(1).holds_no_debug_output();
    assert!(ended.stderr.contains(&addr) && ended.stderr.contains("in use"), "{}", ended.stderr);
    let message = run(&["listen", "--json", "--listen", &addr]).code(1).quiet().message();
    assert!(message.contains(&addr), "{message}");
}

#[test]
fn a_peer_that_says_nothing_is_given_up_with_stage_and_limit() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().expect("bound").port());
    for command in ["ping", "identify"] {
        let ended = run(&[command, "--json", "--timeout", "1", &addr]);
        let message = ended.code(1).quiet().message();
        for part in ["no answer within 1s", "stage security", &addr, "--timeout"] {
            assert!(message.contains(part), "{part} in {message}");
        }
        assert_eq!(ended.events()[0]["stage"], "security");
    }
}

#[test]
fn pings_to_a_listener_that_is_gone_are_lost_and_counted() {
    let (listener, addr) = listener();
    let mut ping = start(&["ping", "--json", "-c", "2", "--interval", "2", &addr]);
    ping.event("ping");
    drop(listener);
    let ended = ping.finish();
    ended.code(1).quiet();
    assert_eq!(ended.names(), ["connected", "ping", "lost", "summary", "error"]);
    let summary = &ended.events()[3];
    assert_eq!((&summary["sent"], &summary["lost"]), (&2.into(), &1.into()));
    assert!(ended.message().contains("1 of 2"), "{}", ended.message());
}

#[test]
fn ctrl_c_ends_pinging_with_its_summary() {
    let (_listener, addr) = listener();
    let mut ping = start(&["ping", "--json", "-c", "1000000", "--interval", "0.01", &addr]);
    ping.event("ping");
    ping.signal("-INT");
    let ended = ping.finish();
    ended.code(0).quiet();
    let summary = ended.events().pop().expect("a summary");
    assert_eq!((&summary["event"], &summary["lost"]), (&"summary".into(), &0.into()));
}

#[test]
fn a_reader_that_goes_away_ends_the_listener_quietly() {
    let (reader, stdout) = std::io::pipe().expect("a pipe");
    let mut listen = command(&["listen", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let program = Program::start(listen.stdout(stdout).stderr(Stdio::piped()));
    // The command holds the test's copy of the writing end.
    drop(listen);
    let mut first = String::new();
    BufReader::new(reader).read_line(&mut first).expect("it listens");
    assert!(first.starts_with("listening"), "{first}");
    program.finish().code(0).quiet();
}

/// A pipe that is full stands for whatever keeps the program from ending by itself.
#[cfg(target_os = "linux")]
#[test]
fn a_second_ctrl_c_ends_what_is_stuck() {
    let (unread, mut full) = std::io::pipe().expect("a pipe");
    let stdout = full.try_clone().expect("a second end");
    thread::spawn(move || while full.write_all(&[b'x'; 4096]).is_ok() {});
    let mut listen = command(&["listen", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let mut program = Program::start(listen.stdout(stdout).stderr(Stdio::null()));
    while !catches_sigint(program.child.id()) {
        assert!(!program.left().is_zero(), "it does not watch for signals");
        // Its standard output is stuck: the system alone tells of its signal handlers.
        thread::sleep(Duration::from_millis(5));
    }
    // One after the other until two have been told apart.
    let status = loop {
        program.signal("-INT");
        // The system makes one of two signals that come at once, and tells of neither's arrival.
        thread::sleep(Duration::from_millis(20));
        if let Some(status) = program.child.try_wait().expect("it is this test's child") {
            break status;
        }
        assert!(!program.left().is_zero(), "it does not end");
    };
    assert_eq!(status.code(), Some(130));
    drop(unread);
}

#[cfg(target_os = "linux")]
fn catches_sigint(id: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
    let mask = u64::from_str_radix(caught.trim(), 16).expect("a hexadecimal number");
    mask & 2 != 0
}

#[test]
fn a_key_is_made_once_shown_without_its_secret_and_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = path(folder.path(), "node.key");
    let made = run(&["key", "new", "--json", &file]);
    let made = made.code(0).quiet().events().remove(0);
    let peer = text(&made, "peer");
    assert!(peer.starts_with("12D3KooW") && text(&made, "cid").starts_with("bafz"), "{made}");
    assert_eq!(made["key_type"], "Ed25519");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&file).expect("it was made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    let before = fs::read(&file).expect("it was made");
    let again = run(&["key", "new", &file]);
    again.code(1).holds_no_debug_output();
    assert!(again.stderr.contains(&file) && again.stderr.contains("exists"), "{}", again.stderr);
    assert_eq!(fs::read(&file).expect("it is there"), before);

    let shown = run(&["key", "show", &file]);
    let shown = shown.code(0).quiet().stdout.join("\n");
    assert!(shown.contains(&peer) && shown.contains(&text(&made, "cid")), "{shown}");
    let shown = run(&["key", "show", "--json", &file]).events().remove(0);
    assert_eq!(shown["peer"], made["peer"]);
    let keys: Vec<&str> =
        shown.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["cid", "event", "file", "key_type", "peer"]);

    let listen = ["listen", "--json", "--listen", "/ip4/127.0.0.1/tcp/0", "--key", &file];
    let mut listener = start(&listen);
    let addr = text(&listener.event("listening"), "addr");
    assert_eq!(split(&addr).1, peer);
}

#[test]
fn a_key_file_that_cannot_be_used_says_why_and_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = path(folder.path(), "node.key");
    for command in [&["listen", "--key", &file][..], &["key", "show", &file]] {
        let ended = run(command);
        ended.code(1).holds_no_debug_output();
        let wanted = format!("p2p key new {file}");
        assert!(ended.stderr.contains(&wanted), "{}", ended.stderr);
    }
    run(&["key", "new", &file]).code(0);
    let whole = fs::read(&file).expect("it was made");
    fs::write(&file, &whole[..30]).expect("written");
    for command in [&["listen", "--json", "--key", &file][..], &["key", "show", "--json", &file]] {
        let message = run(command).code(1).quiet().message();
        assert!(message.contains("damaged") && message.contains(&file), "{message}");
    }
    let nowhere = path(folder.path(), "no/node.key");
    let ended = run(&["key", "new", &nowhere]);
    assert!(ended.code(1).stderr.contains("folder"), "{}", ended.stderr);
}

#[test]
fn keys_of_each_type_are_made_and_go_through_pem_and_back() {
    let folder = tempfile::tempdir().expect("a folder");
    for (kind, shown, start) in [
        ("ed25519", "Ed25519", "12D3KooW"),
        ("secp256k1", "secp256k1", "16Uiu2HA"),
        ("ecdsa", "ECDSA", "Qm"),
    ] {
        let file = |name: &str| path(folder.path(), &format!("{kind}.{name}"));
        let (key, pem, again) = (file("key"), file("pem"), file("again"));
        let event = |args: &[&str]| run(args).code(0).quiet().events().remove(0);
        let made = event(&["key", "new", "--json", "--type", kind, &key]);
        assert_eq!(made["key_type"], shown);
        assert!(text(&made, "peer").starts_with(start), "{made}");
        let exported = event(&["key", "export", "--json", &key, &pem]);
        assert_eq!(exported["peer"], made["peer"]);
        let imported = event(&["key", "import", "--json", &pem, &again]);
        assert_eq!(imported["peer"], made["peer"]);
        assert_eq!(fs::read(&again).expect("made"), fs::read(&key).expect("made"));
        let shown = event(&["key", "show", "--json", &pem]);
        assert_eq!(shown["peer"], made["peer"]);
        let pem_text = fs::read_to_string(&pem).expect("made");
        assert!(pem_text.starts_with("-----BEGIN PRIVATE KEY-----"), "{kind}");
        let taken = run(&["key", "export", &key, &pem]);
        assert!(taken.code(1).stderr.contains("another name"), "{}", taken.stderr);
    }
    let nowhere = path(folder.path(), "rsa.key");
    let refused = run(&["key", "new", "--type", "rsa", &nowhere]);
    assert!(refused.code(2).stderr.contains("secp256k1"), "{}", refused.stderr);
}

/// The whole stack with an identity of each type, RSA's of 4096 bits: the handshake binds it, and
/// the address that is dialed names it.
#[cfg(unix)]
#[test]
fn a_host_of_each_type_of_key_is_reached_as_itself() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let rsa = path(folder.path(), "rsa.pem");
    let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/../p2p-core/src/key/vectors/rsa.pem");
    fs::copy(pem, &rsa).expect("it is in the repository");
    fs::set_permissions(&rsa, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let mut files = vec![rsa];
    for kind in ["secp256k1", "ecdsa"] {
        let file = path(folder.path(), kind);
        run(&["key", "new", "--type", kind, &file]).code(0);
        files.push(file);
    }
    for file in files {
        let peer = text(&run(&["key", "show", "--json", &file]).events().remove(0), "peer");
        let listen = ["listen", "--json", "--listen", "/ip4/127.0.0.1/tcp/0", "--key", &file];
        let mut listener = start(&listen);
        let addr = text(&listener.event("listening"), "addr");
        assert_eq!(split(&addr).1, peer);
        run(&["identify", &addr]).code(0);
    }
}

#[cfg(unix)]
#[test]
fn a_key_file_open_to_others_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let file = path(folder.path(), "node.key");
    run(&["key", "new", &file]).code(0);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let ended = run(&["listen", "--key", &file]);
    assert!(ended.code(1).stderr.contains("chmod 600"), "{}", ended.stderr);
}

/// The events of a demo that went well, in their order.
const STORY: [&str; 15] = [
    "listening",
    "dialing",
    "dialed",
    "secured",
    "muxed",
    "identified",
    "ping",
    "echoed",
    "file_sent",
    "hash_equal",
    "round_trips",
    "throughput",
    "round_trips",
    "round_trips",
    "one_connection",
];

fn demo(file: Option<&str>) -> Vec<Value> {
    let args: Vec<&str> = ["demo", "--json"].into_iter().chain(file).collect();
    let ended = run(&args);
    ended.code(0).quiet();
    let mut names = ended.names();
    assert_eq!(names.pop().as_deref(), Some("done"));
    assert_eq!(names, STORY);
    let events = ended.events();
    let times: Vec<f64> = events.iter().map(|e| e["ms"].as_f64().expect("a time")).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(events[3]["security"], "/noise");
    assert_eq!(events[4]["muxer"], "/yamux/1.0.0");
    assert_eq!(events[7]["at_once"], 64);
    assert_eq!(events[14]["made"], 1);
    events
}

#[test]
fn the_demo_tells_its_story_with_a_file_of_its_own() {
    let events = demo(None);
    let built_in = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../LICENSE-APACHE"));
    assert_eq!(events[9]["bytes"], built_in.expect("it is in the repository").len());

    let ended = run(&["demo"]);
    let all = ended.code(0).quiet().stdout.join("\n");
    for part in ["listening on", "/noise", "/yamux/1.0.0", "64 streams", "MiB/s", "one connection"]
    {
        assert!(all.contains(part), "{part} in {all}");
    }
}

#[test]
fn the_demo_sends_an_empty_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = path(folder.path(), "empty");
    fs::write(&file, b"").expect("written");
    let events = demo(Some(&file));
    assert_eq!(events[9]["bytes"], 0);
    // FIPS 180-2: the digest of nothing.
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(events[9]["sha256"], empty);
}

#[test]
fn the_demo_sends_5_mib_of_noise_whole() {
    use sha2::{Digest, Sha256};
    let folder = tempfile::tempdir().expect("a folder");
    let file = path(folder.path(), "noise");
    // Digests of a counter: as good as random, and the same each time.
    let block = |n: u64| <[u8; 32]>::from(Sha256::digest(n.to_be_bytes()));
    let noise: Vec<u8> = (0..(5 << 20) / 32).flat_map(block).collect();
    fs::write(&file, &noise).expect("written");
    let events = demo(Some(&file));
    let digest: String = Sha256::digest(&noise).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(events[9]["bytes"], 5 << 20);
    assert_eq!(events[9]["sha256"], digest);
    assert!(events[10]["count"].as_u64() > Some(0), "{}", events[10]);
}

#[test]
fn a_demo_without_its_file_says_which_before_anything_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = path(folder.path(), "missing");
    for (file, why) in [(missing.as_str(), "No such file"), (&path(folder.path(), "."), "folder")] {
        let ended = run(&["demo", file]);
        ended.code(1).holds_no_debug_output();
        assert!(ended.stdout.is_empty(), "{:?}", ended.stdout);
        assert!(ended.stderr.contains(file) && ended.stderr.contains(why), "{}", ended.stderr);
        let message = run(&["demo", "--json", file]).code(1).quiet().message();
        assert!(message.contains(file), "{message}");
    }
}

#[test]
fn ctrl_c_ends_the_demo() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = path(folder.path(), "endless");
    // A hole: it takes no room, and far longer than the test.
    let hole = fs::File::create(&file).and_then(|created| created.set_len(64 << 30));
    hole.expect("the file system has sparse files");
    let mut demo = start(&["demo", "--json", &file]);
    demo.event("echoed");
    demo.signal("-INT");
    demo.finish().code(130).quiet();
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for command in [
        "demo",
        "listen",
        "ping",
        "identify",
        "pipe",
        "pipe listen",
        "pipe connect",
        "forward",
        "serve-tcp",
        "send",
        "recv",
        "perf",
        "doctor",
        "completions",
        "key",
        "key new",
        "key show",
        "key export",
        "key import",
    ] {
        let args: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = run(&args);
        let help = help.code(0).quiet().stdout.join("\n");
        let (_, examples) = help.split_once("\nExample").expect("an example");
        assert!(examples.contains(&format!(": p2p {command} ")) || command == "doctor", "{help}");
    }
    let version = run(&["--version"]);
    assert_eq!(version.code(0).stdout, [format!("p2p {}", env!("CARGO_PKG_VERSION"))]);
}

#[test]
fn a_log_filter_that_is_none_is_wrong_use() {
    let output = command(&["key", "show", "x"]).env("RUST_LOG", "a=b=c").output();
    let output = output.expect("the program was built");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("RUST_LOG"));
}
