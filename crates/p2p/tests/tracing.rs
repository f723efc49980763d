//! What a host logs: spans of connections and streams, and nothing that must not be there.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use common::{Network, builder, echo_host, echo_once};
use p2p::{
    Keypair, Multiaddr,
    core::{DialTarget, Link, ListenEvent, Listener, Transport, TransportError},
};
use tracing::{
    Event, Id, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Record},
};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

type Fields = BTreeMap<&'static str, String>;

/// A span or event with its fields, and the spans that it is in, outermost first.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    level: Level,
    target: String,
    fields: Fields,
    within: Vec<String>,
    ended: bool,
}

#[derive(Clone, Default)]
struct Log {
    spans: Arc<Mutex<BTreeMap<u64, Entry>>>,
    /// Spans that have ended, and events.
    past: Arc<Mutex<Vec<Entry>>>,
}

struct Reader<'a>(&'a mut Fields);

impl Visit for Reader<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').into());
    }
}

fn entry(metadata: &Metadata<'_>, within: Vec<String>) -> Entry {
    let (level, target) = (*metadata.level(), metadata.target().into());
    let (name, fields) = (metadata.name().into(), Fields::new());
    Entry { name, level, target, fields, within, ended: false }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let within = span.scope().from_root().map(|span| span.name().to_owned()).collect();
        let mut entry = entry(attributes.metadata(), within);
        attributes.record(&mut Reader(&mut entry.fields));
        self.spans.lock().unwrap().insert(id.into_u64(), entry);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut spans = self.spans.lock().unwrap();
        values.record(&mut Reader(&mut spans.get_mut(&id.into_u64()).unwrap().fields));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let scope = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let mut entry = entry(event.metadata(), scope.map(|span| span.name().to_owned()).collect());
        event.record(&mut Reader(&mut entry.fields));
        entry.name = entry.fields.get("message").cloned().unwrap_or_default();
        self.past.lock().unwrap().push(entry);
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let mut entry = self.spans.lock().unwrap().remove(&id.into_u64()).unwrap();
        entry.ended = true;
        self.past.lock().unwrap().push(entry);
    }
}

impl Log {
    fn all(&self) -> Vec<Entry> {
        let spans = self.spans.lock().unwrap().values().cloned().collect::<Vec<_>>();
        [self.past.lock().unwrap().clone(), spans].concat()
    }

    fn of(&self, name: &str, fields: &[(&'static str, &str)]) -> Vec<Entry> {
        let mut all = self.all();
        let has = |entry: &Entry| {
            fields.iter().all(|(key, value)| entry.fields.get(key).is_some_and(|v| v == value))
        };
        all.retain(|entry| entry.name == name && has(entry));
        all
    }

    #[track_caller]
    fn only(&self, name: &str, fields: &[(&'static str, &str)]) -> Entry {
        let found = self.of(name, fields);
        assert_eq!(found.len(), 1, "{name} {fields:?}: {found:#?}");
        found.into_iter().next().unwrap()
    }
}

fn subscribe() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let guard = tracing_subscriber::registry().with(log.clone()).set_default();
    (log, guard)
}

#[tokio::test(start_paused = true)]
async fn connections_and_streams_have_spans_that_say_whose_they_are() {
    let (log, _guard) = subscribe();
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let dialer = builder(&network, None).spawn().await.unwrap();
    assert_eq!(echo_once(&dialer, "/memory/7", b"x").await.unwrap(), b"x");
    let open = dialer.open("/memory/7", "/echo/1.0.0").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (direction, peer) in [("outbound", listener.peer_id()), ("inbound", dialer.peer_id())] {
        let whose = [("direction", direction), ("peer", &peer.to_string())];
        let connection = log.only("connection", &whose);
        assert_eq!((connection.level, connection.ended), (Level::DEBUG, false));
        let echo = [&whose[..], &[("protocol", "/echo/1.0.0")]].concat();
        let mut streams = log.of("stream", &echo);
        streams.sort_by_key(|stream| !stream.ended);
        assert_eq!(streams.len(), 2, "{streams:#?}");
        for (stream, ended) in streams.iter().zip([true, false]) {
            assert_eq!((stream.level, stream.ended), (Level::DEBUG, ended), "{stream:#?}");
            assert_eq!(stream.fields["connection"], connection.fields["id"]);
            assert_eq!(stream.within, ["connection", "stream"]);
        }
    }
    for state in ["connected", "opened"] {
        let events = log.of(state, &[]);
        assert!(events.len() >= 2, "{state}");
        for event in events {
            assert_eq!(event.level, Level::DEBUG, "{event:#?}");
            assert_eq!(event.within[0], "connection", "{event:#?}");
        }
    }
    assert_eq!(log.only("dial", &[("addr", "/memory/7")]).level, Level::DEBUG);
    for packet in ["read", "wrote"] {
        let packets = log.of(packet, &[]);
        assert!(packets.len() > 4, "{packet}");
        for packet in packets {
            assert_eq!(packet.level, Level::TRACE);
            assert!(packet.target.starts_with("p2p_mux::driver"), "{packet:#?}");
            assert_eq!(packet.within, ["connection"]);
        }
    }
    drop(open);
    listener.close().await;
    dialer.close().await;
    assert!(log.of("connection", &[]).iter().all(|connection| connection.ended));
    assert!(log.of("stream", &[]).iter().all(|stream| stream.ended));
    assert_eq!(log.of("disconnected", &[]).len(), 2);
}

/// A transport whose listener cannot accept, once.
struct Failing;

struct FailingListener(Multiaddr, bool);

#[async_trait]
impl Transport for Failing {
    fn supports(&self, addr: &Multiaddr) -> bool {
        addr.to_string().starts_with("/ip4/192.0.2.1/udp/")
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        Err(TransportError::Unsupported { addr: target.addr })
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        Ok(Box::new(FailingListener(addr, false)))
    }
}

#[async_trait]
impl Listener for FailingListener {
    fn addrs(&self) -> Vec<Multiaddr> {
        vec![self.0.clone()]
    }

    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        if std::mem::replace(&mut self.1, true) {
            return std::future::pending().await;
        }
        let source = std::io::Error::from(std::io::ErrorKind::OutOfMemory).into();
        Ok(ListenEvent::Failed(TransportError::Accept { addr: self.0.clone(), source }))
    }
}

#[tokio::test(start_paused = true)]
async fn no_address_is_above_debug_and_no_secret_anywhere() {
    let (log, _guard) = subscribe();
    let network = Network::default();
    let seed = [0x5e; 32];
    let identity = Keypair::from_ed25519_seed(&seed);
    let listener = p2p_listener(&network, identity).await;
    let dialer = builder(&network, None).spawn().await.unwrap();
    let data = b"attack at dawn";
    assert_eq!(echo_once(&dialer, "/memory/7", data).await.unwrap(), data);
    for addr in ["/memory/8", "/memory/0", "/dns/example.invalid/tcp/1"] {
        assert!(dialer.connect(addr).await.is_err());
    }
    let stranger = Keypair::generate().unwrap().public().peer_id();
    assert!(dialer.open(format!("/memory/7/p2p/{stranger}"), "/echo/1.0.0").await.is_err());
    listener.close().await;
    dialer.close().await;
    let all = log.all();
    let loud: Vec<_> = all.iter().filter(|entry| entry.level < Level::DEBUG).collect();
    assert!(loud.iter().any(|entry| entry.level == Level::WARN), "something is told: {loud:#?}");
    for entry in loud {
        let text = format!("{entry:?}");
        for form in ["/ip4/", "/memory/", "/dns", "192.0.2.1"] {
            assert!(!text.contains(form), "{form} in {text}");
        }
    }
    let text = format!("{all:?}");
    assert!(text.contains("/memory/7"), "addresses are told below");
    let hex = seed.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    let list = format!("{seed:?}");
    let data_list = format!("{data:?}");
    for secret in [
        &hex[..16],
        list.trim_matches(['[', ']']),
        "attack at dawn",
        data_list.trim_matches(['[', ']']),
    ] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
}

async fn p2p_listener(network: &Network, identity: Keypair) -> p2p::Host {
    let listener = builder(network, None).transport(Failing).identity(identity);
    let listener = listener.listen("/memory/7").listen("/ip4/192.0.2.1/udp/1");
    let listener = listener.spawn().await.unwrap();
    listener.handle("/echo/1.0.0", common::echo).unwrap();
    listener
}
