//! Each limit of a host is reached: what it allows, one more, and what is free again afterwards.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod buffers;
mod connections;
mod streams;

use std::{collections::BTreeSet, future::IntoFuture, time::Duration};

use common::{Network, builder, echo, echo_host, echo_once, next_event};
use p2p::{
    Builder, Cause, DialError, ErrorCode, Event, Events, Host, IpRange, Keypair, LimitReached,
    OpenError, PeerId, Stage, Stream, StreamError, UsageReport, Used,
    core::{DialTarget, Link, Transport},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Dialers of one IP range, one more than it may have for each that an address may; what the range is
/// called, and what it is.
const RANGES: [(&[&str], &str, &str); 3] = [
    (&["/ip4/192.0.2.1", "/ip4/192.0.2.1"], "one IPv4 address", "192.0.2.1/32"),
    (&["/ip6/2001:db8:1:100::1", "/ip6/2001:db8:1:1ff::2"], "one IPv6 /56", "2001:db8:1:100::/56"),
    (
        &[
            "/ip6/2001:db8:2:100::1",
            "/ip6/2001:db8:2:200::1",
            "/ip6/2001:db8:2:300::1",
            "/ip6/2001:db8:2:400::1",
            "/ip6/2001:db8:2:500::1",
        ],
        "one IPv6 /48",
        "2001:db8:2::/48",
    ),
];

async fn listener(network: &Network, set: impl FnOnce(Builder) -> Builder) -> Host {
    let host = set(builder(network, None).listen("/memory/7")).spawn().await.unwrap();
    host.handle("/echo/1.0.0", echo).unwrap();
    host
}

async fn dialer(network: &Network, set: impl FnOnce(Builder) -> Builder) -> Host {
    set(builder(network, None)).spawn().await.unwrap()
}

/// A host whose links come from an address.
async fn dialer_from(network: &Network, from: &str) -> Host {
    let transport = network.transport_from(from);
    p2p::builder().transport(transport).spawn().await.unwrap()
}

/// A link that says nothing.
async fn silent(network: &Network, from: &str) -> Link {
    let target = DialTarget::new("/memory/7".parse().unwrap(), None);
    network.transport_from(from).dial(target).await.unwrap()
}

/// What the next inbound failure, or refused stream, says of its limit.
async fn refusal(events: &mut Events) -> LimitReached {
    let refused = |event| {
        if let Event::InboundFailed { error } = &event {
            let Cause::Limit(limit) = &error.cause else { return None };
            assert!(error.to_string().contains(&limit.to_string()), "{error}");
            return Some(limit.clone());
        }
        if let Event::StreamRefused { limit, .. } = event { Some(limit) } else { None }
    };
    next_event(events, refused).await
}

fn assert_names(limit: &LimitReached, value: usize, what: &str, holder: &str, setting: &str) {
    let text = limit.to_string();
    assert_eq!((limit.value, limit.what), (value, what), "{text}");
    for part in [&format!("the limit of {value} {what}"), holder, setting] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

fn dial_limit(error: OpenError) -> LimitReached {
    if let OpenError::Dial(DialError::Limit(limit))
    | OpenError::Stream { stage: Stage::Stream, cause: Cause::Limit(limit), .. } = error
    {
        return limit;
    }
    let OpenError::Dial(DialError::Attempts(tried) | DialError::TimedOut(_, tried)) = error else {
        panic!("{error}");
    };
    let Cause::Limit(limit) = &tried[0].cause else { panic!("{}", tried[0]) };
    assert_eq!(tried[0].stage, Stage::Connect);
    limit.clone()
}

fn used(used: Used) -> (usize, usize) {
    (used.count, used.max)
}

/// Opens a stream that the peer resets, and gives the code.
async fn reset_code(dialer: &Host, protocol: &str) -> ErrorCode {
    let opened = dialer.open("/memory/7", protocol).await;
    let error = match opened {
        Ok(mut stream) => {
            let read = timeout(Duration::from_secs(100), stream.chunk(64));
            read.await.expect("it is not refused").unwrap_err()
        }
        Err(error) => {
            let OpenError::Stream { cause: Cause::Stream(error), .. } = error else {
                panic!("{error}");
            };
            error
        }
    };
    let StreamError::Reset(code) = error else { panic!("{error}") };
    code
}
