//! `/p2p-pipe/1.0.0`: the bytes of each side's stdin, until its end.
//!
//! What was written to a stream may still be on its way when the program has no more to do. So
//! each side opens a stream of `/p2p-pipe/received/1.0.0` once it has the other's end, and stays
//! until the other has done so. A peer that does not know that protocol is not waited for.

use std::{io, sync::Arc, time::Duration};

use p2p::{Cause, Event, Events, Host, OpenError, PeerId, ProtocolId, Stream, StreamError};
use serde_json::json;
use tokio::{io::AsyncWriteExt, sync::Notify, time::timeout};

use crate::{
    args::PipeCommand,
    carry::{Broken, Stdout, carry},
    failure::Failure,
    output::Output,
    peer,
    stop::Stop,
};

const PROTOCOL: ProtocolId = ProtocolId::from_static("/p2p-pipe/1.0.0");
const RECEIVED: ProtocolId = ProtocolId::from_static("/p2p-pipe/received/1.0.0");

/// How long a word that came with the connection's end may take to be heard.
const LAST_WORD_MAX: Duration = Duration::from_secs(1);

pub(crate) async fn run(command: &PipeCommand, out: &Output, stop: &Stop) -> Result<u8, Failure> {
    let host = match command {
        PipeCommand::Listen { listen, .. } => peer::listener(listen.key.as_deref()).await?,
        PipeCommand::Connect { peer, key } => peer::dialer(peer.timeout, key.as_deref()).await?,
    };
    let result = tokio::select! {
        biased;
        code = stop.requested() => Ok(code),
        result = pipe(&host, command, out) => result.map(|()| 0),
    };
    host.close().await;
    result
}

async fn pipe(host: &Host, command: &PipeCommand, out: &Output) -> Result<(), Failure> {
    let heard = Arc::new(Notify::new());
    let word = Arc::clone(&heard);
    let handler = move |mut stream: Stream| {
        word.notify_one();
        async move { stream.shutdown().await }
    };
    host.handle(RECEIVED, handler)?;
    let mut events = host.events();
    let stream = match command {
        PipeCommand::Listen { listen, allow_peer } => {
            let mut streams = host.accept(PROTOCOL)?;
            peer::listen(host, &listen.listen, "p2p pipe connect", out).await?;
            loop {
                let Some(mut stream) = streams.next().await else {
                    return Err(Failure::new("the host has ended"));
                };
                let peer = stream.peer();
                let fields = [("peer", json!(peer.to_string()))];
                if allow_peer.is_empty() || allow_peer.contains(&peer) {
                    out.event("connected", &fields, format_args!("connected: {peer}"));
                    break stream;
                }
                stream.reset(p2p::ErrorCode::CONNECTION_GATED);
                let text = format_args!("refused: {peer} is not among --allow-peer");
                out.event("refused", &fields, text);
            }
        }
        PipeCommand::Connect { peer, .. } => {
            peer::connect(host, &peer.addr, out).await?;
            host.open(&peer.addr, PROTOCOL).await.map_err(not_opened)?
        }
    };
    let peer = stream.peer();
    let carried = match carry(stream, tokio::io::stdin(), Stdout::new()).await {
        Ok(carried) => carried,
        // The reader of the data has seen what it wanted.
        Err(Broken::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(Broken::Stream(StreamError::Reset(_))) => return Err(reset()),
        Err(Broken::Stream(error)) => {
            return Err(Failure::new(format!("the peer is gone: {error}"))
                .next("the data are not complete: run both sides again"));
        }
        Err(error) => return Err(Failure::new(error.to_string())),
    };
    agree_on_the_end(host, peer, &heard, &mut events).await?;
    let fields = [("sent", json!(carried.sent)), ("received", json!(carried.received))];
    let text = format!("done: {} bytes sent, {} received", carried.sent, carried.received);
    out.event("done", &fields, text);
    Ok(())
}

/// Tells the peer that its data have arrived, and waits until it says the same.
async fn agree_on_the_end(
    host: &Host,
    peer: PeerId,
    heard: &Notify,
    events: &mut Events,
) -> Result<(), Failure> {
    let gone = async {
        while let Some(event) = events.next().await {
            if matches!(event, Event::Disconnected { peer: left, left: 0, .. } if left == peer) {
                break;
            }
        }
    };
    let agreed = async {
        match host.open(peer, RECEIVED).await {
            Ok(mut stream) => {
                // Nothing is sent on it: that it was opened says it.
                drop(stream.shutdown().await);
                heard.notified().await;
            }
            Err(OpenError::Unsupported { .. }) => {}
            // The peer has left: then it has spoken before.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = agreed => return Ok(()),
        () = gone => {}
    }
    timeout(LAST_WORD_MAX, heard.notified()).await.map_err(|_| {
        Failure::new("the peer left before it had confirmed all data")
            .next("look at what has arrived there")
    })
}

fn reset() -> Failure {
    Failure::new("the peer ended the pipe before its data were complete")
        .next("look at what the other side says; it may serve only certain peers")
}

fn not_opened(error: OpenError) -> Failure {
    if let OpenError::Stream { cause: Cause::Stream(StreamError::Reset(_)), .. } = error {
        return reset();
    }
    let unsupported = matches!(error, OpenError::Unsupported { .. });
    let failure = Failure::from(error);
    if unsupported {
        return failure
            .next("start `p2p pipe listen` there; each serves one `p2p pipe connect`, and ends");
    }
    failure
}
