use std::time::Duration;

use p2p::{Event, Events, Host, Stream, core::Role};
use serde_json::json;
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::{
    args::ListenArgs,
    failure::Failure,
    identify::fields_of,
    output::{Output, printable},
    peer::{self, describe},
    stop::Stop,
};

/// How long the last events may take to come when the host has ended.
const LAST_EVENTS_MAX: Duration = Duration::from_secs(1);

pub(crate) async fn run(
    args: &ListenArgs,
    perf: bool,
    out: &Output,
    stop: &Stop,
) -> Result<u8, Failure> {
    let host = peer::listener(args.key.as_deref()).await?;
    host.handle("/echo/1.0.0", echo)?;
    if perf {
        p2p::perf::serve(&host)?;
    }
    let mut events = host.events();
    for addr in &args.listen {
        host.listen(addr.to_string()).await?;
    }
    tokio::select! {
        biased;
        _ = stop.requested() => {}
        () = tell(&mut events, out) => {}
    }
    close(host, events, out).await;
    Ok(0)
}

async fn echo(stream: Stream) -> std::io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await
}

/// Tells of everything that happens, until the host is gone.
async fn tell(events: &mut Events, out: &Output) {
    while let Some(event) = events.next().await {
        tell_one(&event, out);
    }
}

/// Ends the host, and tells what happens meanwhile.
async fn close(host: Host, mut events: Events, out: &Output) {
    tokio::select! {
        () = host.close() => {}
        () = tell(&mut events, out) => {}
    }
    drop(host);
    if timeout(LAST_EVENTS_MAX, tell(&mut events, out)).await.is_err() {
        tracing::debug!("the host's events have not ended");
    }
    out.event("closed", &[], "closed");
}

fn tell_one(event: &Event, out: &Output) {
    match event {
        Event::Listening { addr } => {
            let fields = [("addr", json!(addr.to_string()))];
            out.event("listening", &fields, format_args!("listening on {addr}"));
        }
        Event::ListenEnded { addr, cause } => {
            let cause = cause.as_ref().map(ToString::to_string);
            let fields = [("addr", json!(addr.to_string())), ("cause", json!(cause))];
            let why = cause.map(|cause| format!(": {}", printable(&cause))).unwrap_or_default();
            out.event("listen_ended", &fields, format_args!("no longer on {addr}{why}"));
        }
        Event::Connected { connection, .. } => {
            let direction = match connection.role() {
                Role::Initiator => "outbound",
                Role::Responder => "inbound",
            };
            let (fields, text) = describe(connection);
            let fields: Vec<_> =
                fields.into_iter().chain([("direction", json!(direction))]).collect();
            out.event("connected", &fields, format_args!("connected, {direction}: {text}"));
        }
        Event::Disconnected { peer, cause, left, .. } => {
            let cause = cause.to_string();
            let fields =
                [("peer", json!(peer.to_string())), ("cause", json!(cause)), ("left", json!(left))];
            let text = format_args!("disconnected: {peer}: {}", printable(&cause));
            out.event("disconnected", &fields, text);
        }
        Event::Identified { peer, info } => {
            let mut fields = vec![("peer", json!(peer.to_string()))];
            fields.extend(fields_of(info));
            let agent = printable(&info.agent);
            let count = info.protocols.len();
            let text = format_args!("identified: {peer} is {agent}, {count} protocols");
            out.event("identified", &fields, text);
        }
        Event::InboundFailed { error } => {
            let fields = [
                ("remote", json!(error.remote.to_string())),
                ("stage", json!(error.stage.to_string())),
                ("cause", json!(error.cause.to_string())),
            ];
            out.event("inbound_failed", &fields, printable(&error.to_string()));
        }
        Event::ObservedAddrs { addrs } => {
            let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
            let text = format!("seen by others as: {}", addrs.join(" "));
            out.event("observed_addrs", &[("addrs", json!(addrs))], printable(&text));
        }
        Event::StreamRefused { peer, protocol, limit } => {
            let limit = limit.to_string();
            let name = protocol.as_ref().map(ToString::to_string);
            let fields = [
                ("peer", json!(peer.to_string())),
                ("protocol", json!(name)),
                ("limit", json!(limit)),
            ];
            let text = format_args!("refused a stream of {peer}: {}", printable(&limit));
            out.event("stream_refused", &fields, text);
        }
        Event::StoreFailed { error } => {
            let error = error.to_string();
            out.event("store_failed", &[("cause", json!(error))], printable(&error));
        }
        Event::StoreRecovered => {
            out.event("store_recovered", &[], "the store of peers works again")
        }
        Event::Missed { count } => {
            let fields = [("count", json!(count))];
            out.event("missed", &fields, format_args!("{count} events were missed"));
        }
        other => tracing::debug!(?other, "an event that this program does not know"),
    }
}
