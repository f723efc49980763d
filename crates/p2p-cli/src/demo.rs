//! The whole story on one machine: two hosts in one process, over one real TCP connection.
//!
//! ```text
//!   dialer ──────────── one TCP connection on loopback ──────────── listener
//!     pings    ── 1 stream of /ipfs/ping/1.0.0, all the time ──►
//!     echo     ── 64 streams of /echo/1.0.0 at once ───────────►
//!     transfer ── 1 stream of /p2p/demo/file/1.0.0 ────────────►  answers with its SHA-256
//!     bulk     ── 1 stream of /p2p/demo/bulk/1.0.0 ────────────►  answers with its count
//! ```

mod bulk;
mod content;
mod echo;
mod pings;
mod transfer;

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use p2p::{ConnectionInfo, Event, Events, HandleError, Host};
use serde_json::{Value, json};

use crate::{
    failure::{Failure, within},
    output::{Output, printable},
    peer::{DRAIN_MAX, name},
    round_trips::{RoundTrips, micros, millis},
    stop::Stop,
};

use self::{content::Content, echo::Echo, pings::Pings};

/// How long a step may take, and a transfer may stand still.
const STEP_MAX: Duration = Duration::from_secs(30);

/// Round trips that are measured when nothing else is going on.
const QUIET_PINGS: usize = 200;

pub(crate) async fn run(file: Option<&Path>, out: &Output, stop: &Stop) -> Result<u8, Failure> {
    let story = async {
        let content = Content::open(file).await?;
        Demo::begin(out).await?.tell(content).await
    };
    tokio::select! {
        biased;
        code = stop.requested() => Ok(code),
        result = story => result.map(|()| 0),
    }
}

/// Says what happens, as it happens.
struct Steps<'a> {
    out: &'a Output,
    begun: Instant,
}

impl Steps<'_> {
    fn step(&self, event: &str, fields: &[(&str, Value)], text: impl fmt::Display) {
        let ms = self.begun.elapsed().as_secs_f64() * 1e3;
        let mut fields = fields.to_vec();
        fields.push(("ms", json!((ms * 1e3).round() / 1e3)));
        self.out.event(event, &fields, format_args!("{ms:>9.1} ms  {text}"));
    }
}

struct Demo<'a> {
    steps: Steps<'a>,
    listener: Host,
    dialer: Host,
    listener_events: Events,
    dialer_events: Events,
    echo: Arc<Echo>,
    addr: String,
}

impl<'a> Demo<'a> {
    async fn begin(out: &'a Output) -> Result<Self, Failure> {
        let steps = Steps { out, begun: Instant::now() };
        let builder = || p2p::builder().drain_timeout(DRAIN_MAX);
        let listener = builder().agent("p2p-demo/listener").spawn().await?;
        let dialer = builder().agent("p2p-demo/dialer").spawn().await?;
        let (listener_events, dialer_events) = (listener.events(), dialer.events());
        let echo = Arc::<Echo>::default();
        serve(&listener, &echo)?;
        listener.listen("/ip4/127.0.0.1/tcp/0").await?;
        let addr = listener.addrs().pop().ok_or_else(|| Failure::new("no address was bound"))?;
        steps.step("listening", &[("addr", json!(addr))], format_args!("listening on {addr}"));
        Ok(Self { steps, listener, dialer, listener_events, dialer_events, echo, addr })
    }

    async fn tell(mut self, content: Content) -> Result<(), Failure> {
        self.connect().await?;
        self.identify().await?;
        let mut pings = self.first_ping().await?;
        self.echo_on_many_streams().await?;
        self.send(content, &mut pings).await?;
        self.measure_bulk(&mut pings).await?;
        let quiet = pings.take(QUIET_PINGS).await?;
        self.tell_round_trips("with nothing else going on", &quiet);
        drop(pings);
        self.prove_one_connection().await?;
        self.dialer.close().await;
        self.listener.close().await;
        self.steps.step("done", &[], "both hosts are closed; nothing failed, nothing differed");
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        let steps = &self.steps;
        steps.step("dialing", &[("addr", json!(self.addr))], "dialing it from a second host");
        let dialed = self.dialer.connect(&self.addr).await?;
        let accepting = first_connection(&mut self.listener_events);
        let accepted = within(STEP_MAX, "accepting", accepting).await?;
        let (from, to) = (accepted.remote().to_string(), dialed.remote().to_string());
        let text = format!("connected: one TCP connection, from {from} to {to}");
        steps.step("dialed", &[("from", json!(from)), ("to", json!(to))], text);

        let (listener, dialer) = (self.listener.peer_id(), self.dialer.peer_id());
        equal("the listener's peer id", &listener, &dialed.peer())?;
        equal("the dialer's peer id", &dialer, &accepted.peer())?;
        let security = name(accepted.security());
        equal("the secure channel", security, name(dialed.security()))?;
        let fields = [
            ("security", json!(security)),
            ("listener", json!(listener.to_string())),
            ("dialer", json!(dialer.to_string())),
        ];
        let text = format!("secured by {security}: {dialer} dialed {listener}, both proven");
        steps.step("secured", &fields, text);

        let muxer = name(accepted.muxer());
        equal("the multiplexer", muxer, name(dialed.muxer()))?;
        steps.step("muxed", &[("muxer", json!(muxer))], format_args!("multiplexed by {muxer}"));
        Ok(())
    }

    async fn identify(&self) -> Result<(), Failure> {
        let both = async {
            let listener = self.dialer.identify(&self.addr).await?;
            let dialer = self.listener.identify(self.dialer.peer_id()).await?;
            Ok((listener, dialer))
        };
        let (listener, dialer) = within(STEP_MAX, "identify", both).await?;
        let served: Vec<&str> = listener.protocols.iter().map(|name| name.as_str()).collect();
        let fields = [
            ("listener_agent", json!(listener.agent)),
            ("dialer_agent", json!(dialer.agent)),
            ("protocols", json!(served)),
        ];
        let (agent, asks) = (printable(&listener.agent), printable(&dialer.agent));
        let served = printable(&served.join(" "));
        let text = format!("identified: {agent} and {asks}; the listener serves {served}");
        self.steps.step("identified", &fields, text);
        Ok(())
    }

    async fn first_ping(&self) -> Result<Pings, Failure> {
        let mut pings = Pings::new(self.dialer.pinger(&self.addr)?);
        let first = pings.ping().await?;
        let protocol = p2p::ping::PROTOCOL;
        let text = format!("1 stream of {protocol}, kept open: pong after {}", millis(first));
        self.steps.step("ping", &[("rtt_us", micros(first))], text);
        Ok(pings)
    }

    async fn echo_on_many_streams(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        within(STEP_MAX, "echoing", echo::ask_on_all(&self.dialer, &self.addr)).await?;
        let took = millis(begun.elapsed());
        let at_once = self.echo.at_once_max();
        equal("the number of echo streams open at once", &echo::STREAMS, &at_once)?;
        let (protocol, len) = (echo::PROTOCOL, echo::MESSAGE_LEN);
        let fields =
            [("streams", json!(echo::STREAMS)), ("at_once", json!(at_once)), ("bytes", json!(len))];
        let text =
            format!("{at_once} streams of {protocol} at once, {len} bytes echoed on each, {took}");
        self.steps.step("echoed", &fields, text);
        Ok(())
    }

    async fn send(&self, content: Content, pings: &mut Pings) -> Result<(), Failure> {
        let file = content.name.clone();
        pings.begin();
        let begun = Instant::now();
        let stream = self.dialer.open(&self.addr, transfer::PROTOCOL).await?;
        let (sent, received) = transfer::send(stream, content).await?;
        let took = begun.elapsed();
        let trips = pings.end().await?;

        let (protocol, len) = (transfer::PROTOCOL, sent.len);
        let fields = [("file", json!(file)), ("bytes", json!(len)), ("took_us", micros(took))];
        let text = format!(
            "1 stream of {protocol}: sent {}, {len} bytes, {}",
            printable(&file),
            millis(took)
        );
        self.steps.step("file_sent", &fields, text);
        equal("the number of bytes that arrived", &sent.len, &received.len)?;
        equal("the SHA-256 of what arrived", &sent.sha256, &received.sha256)?;
        let sha256 = received.sha256.to_string();
        let fields = [("sha256", json!(sha256)), ("bytes", json!(received.len))];
        let text = format!("the other side has the same {len} bytes, SHA-256 {sha256}");
        self.steps.step("hash_equal", &fields, text);
        self.tell_round_trips("while the file went over", &trips);
        Ok(())
    }

    async fn measure_bulk(&self, pings: &mut Pings) -> Result<(), Failure> {
        let stream = self.dialer.open(&self.addr, bulk::PROTOCOL).await?;
        pings.begin();
        let begun = Instant::now();
        let received = bulk::send(stream).await?;
        let took = begun.elapsed();
        let trips = pings.end().await?;
        equal("the number of bytes that arrived", &bulk::LEN, &received)?;
        let (protocol, mib) = (bulk::PROTOCOL, bulk::LEN >> 20);
        let rate = (mib as f64 / took.as_secs_f64()).round();
        let fields =
            [("bytes", json!(received)), ("took_us", micros(took)), ("mib_per_s", json!(rate))];
        let (took, note) = (millis(took), bulk::NOTE);
        let text = format!("1 stream of {protocol}: {mib} MiB in {took}, {rate} MiB/s{note}");
        self.steps.step("throughput", &fields, text);
        self.tell_round_trips("while the bulk went over", &trips);
        Ok(())
    }

    fn tell_round_trips(&self, when: &str, trips: &RoundTrips) {
        let Some(spread) = trips.spread() else { return };
        let count = trips.len();
        let mut fields = vec![("when", json!(when)), ("count", json!(count))];
        fields.extend(spread.fields());
        let text = format!("{count} round trips {when}: {spread}");
        self.steps.step("round_trips", &fields, text);
    }

    async fn prove_one_connection(&mut self) -> Result<(), Failure> {
        let (listener, dialer) = (self.listener.peer_id(), self.dialer.peer_id());
        let open_now = [self.dialer.connections(&listener), self.listener.connections(&dialer)];
        for connections in open_now {
            equal("the number of connections open now", &1, &connections.len())?;
        }
        // The listener's first was taken from its events when it was made.
        let ever = [
            count_connections(&mut self.dialer_events).await,
            1 + count_connections(&mut self.listener_events).await,
        ];
        for count in ever {
            equal("the number of connections ever made", &1, &count)?;
        }
        let text = "it was one connection all along: both hosts count 1 made, 1 open";
        self.steps.step("one_connection", &[("made", json!(1)), ("open", json!(1))], text);
        Ok(())
    }
}

fn serve(listener: &Host, echo: &Arc<Echo>) -> Result<(), HandleError> {
    let echo = Arc::clone(echo);
    listener.handle(echo::PROTOCOL, move |stream| {
        let echo = Arc::clone(&echo);
        async move { echo.answer(stream).await }
    })?;
    listener.handle(transfer::PROTOCOL, transfer::receive)?;
    listener.handle(bulk::PROTOCOL, bulk::receive)
}

async fn first_connection(events: &mut Events) -> Result<Arc<ConnectionInfo>, Failure> {
    while let Some(event) = events.next().await {
        if let Event::Connected { connection, .. } = event {
            return Ok(connection);
        }
    }
    Err(Failure::new("the listener ended before it had a connection"))
}

/// How many of the events that have come so far are of a new connection.
async fn count_connections(events: &mut Events) -> usize {
    let mut count = 0;
    loop {
        let event = tokio::select! {
            biased;
            event = events.next() => event,
            () = std::future::ready(()) => None,
        };
        match event {
            Some(Event::Connected { .. }) => count += 1,
            Some(_) => {}
            None => return count,
        }
    }
}

fn equal<T: PartialEq + fmt::Display + ?Sized>(
    what: &str,
    expected: &T,
    actual: &T,
) -> Result<(), Failure> {
    if expected == actual {
        return Ok(());
    }
    Err(Failure::new(format!("{what} differs: {expected} expected, {actual} found")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_a_failure_that_shows_both() {
        assert!(equal("x", &1, &1).is_ok());
        let failure = equal("the SHA-256", "aa", "bb").unwrap_err().one_line();
        assert_eq!(failure, "the SHA-256 differs: aa expected, bb found");
    }
}
