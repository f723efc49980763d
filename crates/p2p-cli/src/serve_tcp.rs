//! The serving side of `/p2p-forward/1.0.0`: see `forward.rs`.

use std::sync::Arc;

use p2p::{Event, Host, Stream};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::{
    args::ServeTcpArgs,
    carry::Carried,
    failure::Failure,
    forward::{Answer, PROTOCOL, STEP_MAX, TEXT_LEN_MAX, read_text},
    output::{Output, printable},
    peer,
    socket::{Local, NAME_LEN_MAX, Socket},
    stop::Stop,
};

/// Reports of connections that wait to be told; further ones are not told.
const REPORTS_MAX: usize = 256;

pub(crate) async fn run(args: &ServeTcpArgs, out: &Output, stop: &Stop) -> Result<u8, Failure> {
    let host = peer::listener(args.listen.key.as_deref()).await?;
    let result = tokio::select! {
        biased;
        _ = stop.requested() => Ok(0),
        result = serve(&host, args, out) => result.map(|()| 0),
    };
    host.close().await;
    result
}

/// What is exposed, and to whom.
struct Rules {
    targets: Vec<Socket>,
    /// Empty: every peer.
    peers: Vec<p2p::PeerId>,
}

/// One connection that was asked for.
struct Report {
    peer: p2p::PeerId,
    target: String,
    what: What,
}

enum What {
    Connected,
    Refused(String),
    Ended(Carried),
    Broken(String),
}

async fn serve(host: &Host, args: &ServeTcpArgs, out: &Output) -> Result<(), Failure> {
    let rules = Arc::new(Rules { targets: args.allow.clone(), peers: args.allow_peer.clone() });
    let (reports, mut reported) = mpsc::channel(REPORTS_MAX);
    let handler = move |stream| handle(stream, Arc::clone(&rules), reports.clone());
    host.handle(PROTOCOL, handler)?;
    let command = match args.allow.first() {
        Some(first) => format!("p2p forward --local 127.0.0.1:8080 --remote {first} --peer"),
        None => "p2p forward --peer".into(),
    };
    let mut events = host.events();
    peer::listen(host, &args.listen.listen, &command, out).await?;
    if args.allow_peer.is_empty() {
        let text = "every peer that reaches this may use what is allowed; --allow-peer limits that";
        out.event("open_to_all", &[], text);
    }
    loop {
        tokio::select! {
            Some(report) = reported.recv() => tell(&report, out),
            event = events.next() => match event {
                None => return Err(Failure::new("the host has ended")),
                Some(Event::StreamRefused { peer, limit, .. }) => {
                    let text = printable(&limit.to_string());
                    let fields = [("peer", json!(peer.to_string())), ("message", json!(text))];
                    out.event("refused", &fields, format_args!("refused: {peer}: {text}"));
                }
                Some(_) => {}
            },
        }
    }
}

async fn handle(
    mut stream: Stream,
    rules: Arc<Rules>,
    reports: mpsc::Sender<Report>,
) -> std::io::Result<()> {
    let peer = stream.peer();
    let report = |target: &str, what| {
        let report = Report { peer, target: printable(target), what };
        if reports.try_send(report).is_err() {
            tracing::debug!("too many reports");
        }
    };
    stream.set_read_deadline(Some((Instant::now() + STEP_MAX).into_std()));
    let name = read_text(&mut stream, NAME_LEN_MAX).await?;
    stream.set_read_deadline(None);
    let (answer, text, local) = connect(&rules, &peer, &name).await;
    let text: String = text.chars().take(TEXT_LEN_MAX / 4).collect();
    // It was cut to far less than 65536 bytes.
    let len = u16::try_from(text.len()).unwrap_or_default();
    stream.write_all(&[&[answer as u8][..], &len.to_be_bytes(), text.as_bytes()].concat()).await?;
    let Some(local) = local else {
        report(&name, What::Refused(text));
        return stream.shutdown().await;
    };
    report(&name, What::Connected);
    match local.carry(stream).await {
        Ok(carried) => report(&name, What::Ended(carried)),
        Err(broken) => report(&name, What::Broken(broken.to_string())),
    }
    Ok(())
}

async fn connect(rules: &Rules, peer: &p2p::PeerId, name: &str) -> (Answer, String, Option<Local>) {
    if !rules.peers.is_empty() && !rules.peers.contains(peer) {
        return (Answer::PeerNotAllowed, "the peer is not among --allow-peer".into(), None);
    }
    let Ok(socket) = Socket::parse(name) else {
        return (Answer::Malformed, "it is not HOST:PORT or unix:/PATH".into(), None);
    };
    if !rules.targets.contains(&socket) {
        return (Answer::TargetNotAllowed, "it is not among --allow".into(), None);
    }
    match timeout(STEP_MAX, Local::connect(&socket)).await {
        Ok(Ok(local)) => (Answer::Connected, String::new(), Some(local)),
        Ok(Err(error)) => (Answer::Unreachable, error.to_string(), None),
        Err(_) => (Answer::Unreachable, format!("no answer within {STEP_MAX:?}"), None),
    }
}

fn tell(report: &Report, out: &Output) {
    let Report { peer, target, what } = report;
    let mut fields = vec![("peer", json!(peer.to_string())), ("target", json!(target))];
    match what {
        What::Connected => {
            out.event("opened", &fields, format_args!("opened: {target} for {peer}"));
        }
        What::Refused(why) => {
            fields.push(("message", json!(why)));
            let text = format_args!("refused: {target} for {peer}: {}", printable(why));
            out.event("refused", &fields, text);
        }
        What::Ended(Carried { sent, received }) => {
            // What goes to the service is what was received.
            fields.extend([("sent", json!(sent)), ("received", json!(received))]);
            let text = format_args!(
                "ended: {target} for {peer}: {received} bytes to the service, {sent} from it"
            );
            out.event("ended", &fields, text);
        }
        What::Broken(why) => {
            fields.push(("message", json!(why)));
            let text = format_args!("broken: {target} for {peer}: {}", printable(why));
            out.event("broken", &fields, text);
        }
    }
}
