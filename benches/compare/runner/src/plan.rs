//! What is run: scenarios, their variants, and who takes part.

use compare_peer::Runtime;

use crate::options::Options;

/// One that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender {
    pub name: &'static str,
    pub program: &'static str,
    pub args: &'static [&'static str],
}

pub const P2P: Contender = Contender { name: "p2p", program: "peer-p2p", args: &[] };
const P2P_RUSTCRYPTO: Contender = Contender {
    name: "p2p-rustcrypto",
    program: "peer-p2p",
    args: &["--tune", "cipher=rustcrypto"],
};
const P2P_AWS: Contender =
    Contender { name: "p2p-aws-lc-rs", program: "peer-p2p", args: &["--tune", "cipher=aws-lc-rs"] };
const P2P_OPENSSL: Contender =
    Contender { name: "p2p-openssl", program: "peer-p2p", args: &["--tune", "cipher=openssl"] };
const P2P_OPTIMISTIC: Contender =
    Contender { name: "p2p-optimistic", program: "peer-p2p", args: &["--tune", "open=optimistic"] };
const P2P_SLEEPING: Contender =
    Contender { name: "p2p-sleeping", program: "peer-p2p", args: &["--tune", "busy-poll=0"] };
pub const RUST_LIBP2P: Contender =
    Contender { name: "rust-libp2p", program: "peer-rust-libp2p", args: &[] };
const RUST_LIBP2P_OPTIMISTIC: Contender = Contender {
    name: "rust-libp2p-optimistic",
    program: "peer-rust-libp2p",
    args: &["--tune", "open=optimistic"],
};
pub const LITEP2P: Contender = Contender { name: "litep2p", program: "peer-litep2p", args: &[] };
const SEALED_RING: Contender =
    Contender { name: "sealed-ring", program: "sealed-pipe", args: &["--cipher", "ring"] };
const SEALED_RUSTCRYPTO: Contender = Contender {
    name: "sealed-rustcrypto",
    program: "sealed-pipe",
    args: &["--cipher", "rustcrypto"],
};
const SEALED_AWS: Contender = Contender {
    name: "sealed-aws-lc-rs",
    program: "sealed-pipe",
    args: &["--cipher", "aws-lc-rs"],
};
const SEALED_OPENSSL: Contender =
    Contender { name: "sealed-openssl", program: "sealed-pipe", args: &["--cipher", "openssl"] };
const TCP: Contender =
    Contender { name: "tcp", program: "sealed-pipe", args: &["--cipher", "none"] };

/// Those that are beside ours.
pub const PEERS: [&str; 2] = ["rust-libp2p", "litep2p"];
/// Not run unless they are asked for.
const ON_REQUEST: [&str; 2] = ["p2p-aws-lc-rs", "sealed-aws-lc-rs"];

/// Those that are missing where the peers were built without OpenSSL.
pub const OF_OPENSSL: [&str; 2] = [P2P_OPENSSL.name, SEALED_OPENSSL.name];

/// The variant in which no processor falls asleep between two messages: on some machines, most of all
/// on virtual ones, waking it takes longer than all that the programs do.
pub const AWAKE: &str = "in sequence, awake";

/// One figure that a scenario gives.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub key: &'static str,
    pub title: &'static str,
    pub more_is_better: bool,
}

const fn more(key: &'static str, title: &'static str) -> Figure {
    Figure { key, title, more_is_better: true }
}

const fn less(key: &'static str, title: &'static str) -> Figure {
    Figure { key, title, more_is_better: false }
}

#[derive(Clone, Debug)]
pub struct Variant {
    pub name: &'static str,
    pub args: Vec<String>,
    pub contenders: Vec<Contender>,
}

/// One scenario, whose variants and contenders take turns.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub scenario: &'static str,
    /// The delay of the link in each direction.
    pub delay_ms: Option<u64>,
    pub rounds: usize,
    pub runtimes: Vec<Runtime>,
    pub variants: Vec<Variant>,
}

/// The figures of each case, as the report shows them; the first is plotted.
pub fn figures(case: &str) -> &'static [Figure] {
    const BULK: &[Figure] = &[more("gb_per_s", "GB/s"), less("cpu_s_per_gib", "CPU s/GiB")];
    const EACH: &[Figure] = &[
        more("per_s", "a second"),
        less("cpu_us_each", "CPU µs each"),
        less("p50_us", "p50 µs"),
        less("p99_us", "p99 µs"),
    ];
    const CONNS: &[Figure] = &[
        less("server_kib_per_conn", "KiB each, server"),
        less("client_kib_per_conn", "KiB each, client"),
    ];
    const STREAMS: &[Figure] = &[
        less("server_kib_per_stream", "KiB each, server"),
        less("client_kib_per_stream", "KiB each, client"),
    ];
    const TRIPS: &[Figure] = &[
        less("round_trips", "round trips to the first echo"),
        less("connected_ms", "ms to connected"),
        less("stream_open_ms", "ms to the stream"),
        less("first_echo_ms", "ms to the echo"),
    ];
    const LOADED: &[Figure] =
        &[less("p99_us", "p99 µs"), less("p50_us", "p50 µs"), more("gb_per_s", "GB/s beside")];
    match case {
        "idle-conns" => CONNS,
        "idle-streams" => STREAMS,
        "round-trips" => TRIPS,
        "bulk-loaded-rr" => LOADED,
        name if name.starts_with("bulk") => BULK,
        _ => EACH,
    }
}

pub fn plan(options: &Options) -> Vec<Case> {
    let part = if options.quick { 8 } else { 1 };
    let rounds = options.rounds.unwrap_or(if options.quick { 2 } else { 5 });
    let both = vec![Runtime::Multi, Runtime::Current];
    let all = [P2P, RUST_LIBP2P, LITEP2P];
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let variant = |name, args: String, contenders: &[Contender]| Variant {
        name,
        args: words(args),
        contenders: contenders.to_vec(),
    };
    let bulk = |name| {
        let args = |streams| format!("--bytes {}m --streams {streams}", 512 / part);
        let ours = [P2P, P2P_RUSTCRYPTO, P2P_AWS, P2P_OPENSSL, RUST_LIBP2P, LITEP2P];
        let pipes = [SEALED_RING, SEALED_RUSTCRYPTO, SEALED_AWS, SEALED_OPENSSL, TCP];
        Case {
            name,
            scenario: name,
            delay_ms: None,
            rounds,
            runtimes: both.clone(),
            variants: vec![
                variant("1 stream", args(1), &[ours.as_slice(), &pipes].concat()),
                variant("8 streams", args(8), &ours),
                variant("64 streams", args(64), &ours),
            ],
        }
    };
    let each = |name, in_sequence: String, at_once: Option<String>| {
        let mut variants = vec![variant("in sequence", in_sequence, &all)];
        variants.extend(at_once.map(|args| variant("64 at once", args, &all)));
        Case { name, scenario: name, delay_ms: None, rounds, runtimes: both.clone(), variants }
    };
    let idle = |name, args: String| Case {
        name,
        scenario: name,
        delay_ms: None,
        rounds: rounds.min(2),
        runtimes: vec![Runtime::Multi],
        variants: vec![variant("idle", args, &all)],
    };
    let mut rr = each("rr", format!("--count {}", 50_000 / part), None);
    rr.variants[0].contenders.extend([P2P_SLEEPING, SEALED_RING, TCP]);
    let mut streams = each(
        "streams",
        format!("--count {}", 20_000 / part),
        Some(format!("--count {} --concurrency 64", 20_000 / part)),
    );
    streams.variants[0].contenders.extend([P2P_SLEEPING, P2P_OPTIMISTIC, RUST_LIBP2P_OPTIMISTIC]);
    for case in [&mut rr, &mut streams] {
        case.variants.insert(1, Variant { name: AWAKE, ..case.variants[0].clone() });
    }
    let conns = options.conns.unwrap_or(1000 / part);
    let mut cases = vec![
        bulk("bulk-up"),
        bulk("bulk-down"),
        each(
            "handshakes",
            format!("--count {}", 1000 / part),
            Some(format!("--count {} --concurrency 64", 2000 / part)),
        ),
        each("dial-ping", format!("--count {}", 1000 / part), None),
        streams,
        rr,
        Case {
            name: "bulk-loaded-rr",
            scenario: "bulk-loaded-rr",
            delay_ms: None,
            rounds: rounds.min(3),
            runtimes: both.clone(),
            variants: vec![variant("loaded", format!("--count {}", 2000 / part), &all)],
        },
        idle("idle-conns", format!("--conns {conns}")),
        idle("idle-streams", "--streams 1000".into()),
        Case {
            name: "round-trips",
            scenario: "round-trips",
            delay_ms: Some(50),
            rounds: 1,
            runtimes: vec![Runtime::Multi],
            variants: vec![variant(
                "rtt of 100 ms",
                "--count 3".into(),
                &[P2P_OPTIMISTIC, P2P, RUST_LIBP2P_OPTIMISTIC, RUST_LIBP2P, LITEP2P, SEALED_RING],
            )],
        },
        Case {
            name: "bulk-delayed",
            scenario: "bulk-up",
            delay_ms: Some(50),
            rounds: rounds.min(3),
            runtimes: vec![Runtime::Multi],
            variants: vec![variant(
                "rtt of 100 ms",
                format!("--bytes {}m --warmup 256m", 2048 / part),
                &[P2P, RUST_LIBP2P, LITEP2P, SEALED_RING],
            )],
        },
    ];
    cases.retain(|case| {
        options.only.is_empty() || options.only.iter().any(|only| only == case.name)
    });
    for case in &mut cases {
        case.runtimes.retain(|runtime| options.runtime.is_none_or(|only| only == *runtime));
        if case.runtimes.is_empty() {
            case.runtimes.extend(options.runtime);
        }
        for variant in &mut case.variants {
            variant.contenders.retain(|contender| match &options.peers {
                Some(peers) => peers.iter().any(|peer| peer == contender.name),
                None => !ON_REQUEST.contains(&contender.name),
            });
            variant.contenders.retain(|contender| {
                let names = [contender.program, contender.name];
                !options.missing.iter().any(|missing| names.contains(&missing.as_str()))
            });
        }
    }
    cases
}
