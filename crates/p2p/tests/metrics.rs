//! What two hosts tell a recorder, and that it is what `docs/metrics.md` and the dashboard say.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{Network, builder, echo_host, echo_once};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use p2p::{
    Host, Stream,
    core::{DialTarget, Transport},
};
use tokio::{io::AsyncWriteExt, time::sleep};

/// Everything that was told, by name and labels.
#[derive(Default)]
struct Recorded {
    values: Mutex<BTreeMap<String, Arc<Value>>>,
    /// Kind and unit of each name.
    described: Mutex<BTreeMap<String, (&'static str, Unit)>>,
}

/// The sum of a counter or gauge, or what a histogram has seen.
#[derive(Default)]
struct Value(Mutex<Vec<f64>>);

impl Value {
    fn add(&self, amount: f64) {
        self.0.lock().unwrap().push(amount);
    }
}

impl CounterFn for Value {
    fn increment(&self, value: u64) {
        self.add(f64::from(u32::try_from(value).unwrap()));
    }

    fn absolute(&self, _: u64) {
        panic!("a counter is only added to");
    }
}

impl GaugeFn for Value {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, _: f64) {
        panic!("several hosts share a gauge");
    }
}

impl HistogramFn for Value {
    fn record(&self, value: f64) {
        self.add(value);
    }
}

impl Recorded {
    fn value(&self, key: &Key) -> Arc<Value> {
        let labels: BTreeMap<_, _> =
            key.labels().map(|label| (label.key(), label.value())).collect();
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.values.lock().unwrap().entry(name).or_default())
    }

    fn describe(&self, name: &KeyName, kind: &'static str, unit: Option<Unit>) {
        let known = (kind, unit.expect("each has a unit"));
        self.described.lock().unwrap().insert(name.as_str().into(), known);
    }

    /// The sum of what was told; `None` when nothing was.
    fn sum(&self, name: &str) -> Option<f64> {
        let values = self.values.lock().unwrap();
        Some(values.get(name)?.0.lock().unwrap().iter().sum())
    }

    fn seen(&self, name: &str) -> Vec<f64> {
        self.values.lock().unwrap()[name].0.lock().unwrap().clone()
    }

    #[track_caller]
    fn assert(&self, expected: &[(&str, f64)]) {
        for (name, sum) in expected {
            let found = self.sum(name);
            assert_eq!(found, Some(*sum), "{name} of {:?}", self.values.lock().unwrap().keys());
        }
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, "counter", unit);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, "gauge", unit);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, "histogram", unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.value(key))
    }
}

const CONNECTION: [&str; 2] = ["outbound", "inbound"];

fn connection(name: &str, direction: &str) -> String {
    format!("p2p_{name}{{direction={direction},security=/noise,transport=memory}}")
}

async fn pair(network: &Network) -> (Host, Host) {
    (echo_host(network, "/memory/7").await, builder(network, None).spawn().await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn connections_streams_and_bytes_are_counted_by_direction_and_protocol() {
    let recorded = Recorded::default();
    let _guard = metrics::set_default_local_recorder(&recorded);
    let network = Network::default();
    let (listener, dialer) = pair(&network).await;
    let data = vec![7; 100_000];
    assert_eq!(echo_once(&dialer, "/memory/7", &data).await.unwrap(), data);
    let _open = dialer.open("/memory/7", "/echo/1.0.0").await.unwrap();
    dialer.identify("/memory/7").await.unwrap();
    listener.identify(dialer.peer_id()).await.unwrap();
    for direction in CONNECTION {
        recorded.assert(&[
            (&connection("connections", direction), 1.0),
            (&connection("connections_opened_total", direction), 1.0),
            (&format!("p2p_streams{{direction={direction},protocol=/echo/1.0.0}}"), 1.0),
            (
                &format!("p2p_streams_opened_total{{direction={direction},protocol=/echo/1.0.0}}"),
                2.0,
            ),
            (
                &format!(
                    "p2p_streams_opened_total{{direction={direction},protocol=/ipfs/id/1.0.0}}"
                ),
                2.0,
            ),
        ]);
        assert_eq!(
            recorded
                .seen(&format!("p2p_handshake_seconds{{direction={direction},security=/noise}}")),
            [0.0],
            "no time passes in this network"
        );
    }
    recorded.assert(&[
        ("p2p_bytes_total{direction=sent,protocol=/echo/1.0.0}", 200_000.0),
        ("p2p_bytes_total{direction=received,protocol=/echo/1.0.0}", 200_000.0),
        ("p2p_dials_total{result=connected,stage=muxer}", 1.0),
        ("p2p_identify_total{result=answered}", 2.0),
    ]);
    listener.close().await;
    dialer.close().await;
    for direction in CONNECTION {
        recorded.assert(&[
            (&connection("connections", direction), 0.0),
            (&connection("connections_closed_total", direction), 1.0),
            (&format!("p2p_streams{{direction={direction},protocol=/ipfs/id/1.0.0}}"), 0.0),
        ]);
    }
}

#[tokio::test(start_paused = true)]
async fn zero_copy_streams_are_counted_like_others() {
    let recorded = Recorded::default();
    let _guard = metrics::set_default_local_recorder(&recorded);
    let network = Network::default();
    let (listener, dialer) = pair(&network).await;
    listener
        .handle("/chunks", |mut stream: Stream| async move {
            while let Some(mut chunk) = stream.chunk(1000).await? {
                stream.send(&mut chunk).await?;
            }
            stream.shutdown().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })
        .unwrap();
    let mut stream = dialer.open("/memory/7", "/chunks").await.unwrap();
    stream.send(&mut bytes::Bytes::from(vec![1; 50_000])).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = 0;
    while let Some(chunk) = stream.chunk(usize::MAX).await.unwrap() {
        back += chunk.len();
    }
    assert_eq!(back, 50_000);
    recorded.assert(&[
        ("p2p_bytes_total{direction=sent,protocol=/chunks}", 100_000.0),
        ("p2p_bytes_total{direction=received,protocol=/chunks}", 100_000.0),
    ]);
}

#[tokio::test(start_paused = true)]
async fn what_fails_and_what_is_refused_is_counted_by_its_name() {
    let recorded = Recorded::default();
    let _guard = metrics::set_default_local_recorder(&recorded);
    let network = Network::default();
    let (listener, dialer) = pair(&network).await;
    // Nobody there; backed off; no answer.
    assert!(dialer.connect("/memory/8").await.is_err());
    assert!(dialer.open("/memory/8", "/echo/1.0.0").await.is_err());
    assert!(dialer.connect("/memory/0").await.is_err());
    recorded.assert(&[
        ("p2p_dials_total{result=failed,stage=connect}", 1.0),
        ("p2p_dials_total{result=timed_out,stage=connect}", 1.0),
        ("p2p_dials_total{result=refused,stage=connect}", 1.0),
    ]);
    // One address wins; nobody waits.
    let peer = listener.peer_id();
    let addrs = ["/memory/0", "/memory/7"].map(|addr| addr.parse().unwrap());
    dialer.connect((peer, addrs.to_vec())).await.unwrap();
    recorded.assert(&[("p2p_dials_total{result=unfinished,stage=connect}", 1.0)]);
    // Somebody who leaves in the middle of the handshake.
    let target = DialTarget::new("/memory/7".parse().unwrap(), None);
    drop(network.transport(None).dial(target).await.unwrap());
    sleep(Duration::from_millis(1)).await;
    recorded.assert(&[("p2p_inbound_failed_total{result=failed,stage=security}", 1.0)]);
    // A limit of the host, one of a protocol, and a list.
    let none = builder(&network, None).connections_outbound_max(0).spawn().await.unwrap();
    assert!(none.connect("/memory/7").await.is_err());
    let mut pings = Vec::new();
    for _ in 0..3 {
        pings.push(dialer.open("/memory/7", p2p::ping::PROTOCOL).await);
    }
    sleep(Duration::from_millis(1)).await;
    dialer.deny(none.peer_id()).unwrap();
    assert!(dialer.connect(format!("/memory/9/p2p/{}", none.peer_id())).await.is_err());
    recorded.assert(&[
        ("p2p_refused_total{limit=connections_outbound_max}", 1.0),
        ("p2p_refused_total{limit=inbound streams of one protocol and peer}", 1.0),
        ("p2p_refused_total{limit=denied}", 1.0),
    ]);
    drop(pings);
    sleep(Duration::from_millis(1)).await;
    dialer.ping("/memory/7").await.unwrap();
    assert!(listener.unhandle("/ipfs/ping/1.0.0"));
    assert!(dialer.ping("/memory/7").await.is_err());
    recorded.assert(&[
        ("p2p_pings_total{result=answered}", 1.0),
        ("p2p_pings_total{result=unsupported}", 1.0),
    ]);
    assert_eq!(recorded.seen("p2p_ping_seconds{}"), [0.0]);
}

#[tokio::test(start_paused = true)]
async fn buffered_bytes_come_and_go_with_what_holds_them() {
    let recorded = Recorded::default();
    let _guard = metrics::set_default_local_recorder(&recorded);
    let network = Network::default();
    let (listener, dialer) = pair(&network).await;
    let _unread = listener.accept("/unread").unwrap();
    let mut stream = dialer.open("/memory/7", "/unread").await.unwrap();
    stream.write_all(&[0; 10_000]).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    recorded.assert(&[("p2p_buffered_bytes{}", 10_000.0)]);
    drop(stream);
    sleep(Duration::from_secs(2)).await;
    recorded.assert(&[("p2p_buffered_bytes{}", 0.0)]);
    let mut stream = dialer.open("/memory/7", "/unread").await.unwrap();
    stream.write_all(&[0; 10_000]).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    recorded.assert(&[("p2p_buffered_bytes{}", 10_000.0)]);
    drop((listener, dialer));
    sleep(Duration::from_secs(2)).await;
    recorded.assert(&[("p2p_buffered_bytes{}", 0.0)]);
}

/// A peer that proposes names of its own must not make labels of them.
#[tokio::test(start_paused = true)]
async fn names_that_a_peer_makes_up_are_no_labels() {
    let recorded = Recorded::default();
    let _guard = metrics::set_default_local_recorder(&recorded);
    let network = Network::default();
    let (_listener, dialer) = pair(&network).await;
    for number in 0..10 {
        assert!(dialer.open("/memory/7", format!("/made/up/{number}")).await.is_err());
    }
    assert_eq!(echo_once(&dialer, "/memory/7", b"x").await.unwrap(), b"x");
    let names = recorded.values.lock().unwrap();
    assert!(names.keys().all(|name| !name.contains("/made/up")), "{:?}", names.keys());
}

fn read(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// Every `p2p_…` word of a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("p2p_")).map(ToOwned::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn the_table_and_the_dashboard_name_the_metrics_that_there_are() {
    let recorded = Recorded::default();
    let _guard = metrics::set_default_local_recorder(&recorded);
    builder(&Network::default(), None).spawn().await.unwrap().close().await;
    let described = recorded.described.lock().unwrap();
    let known: BTreeSet<String> = described.keys().cloned().collect();
    let table = read("docs/metrics.md");
    assert_eq!(names(&table), known);
    for (name, (kind, unit)) in described.iter() {
        let unit = unit.as_str();
        let row = format!("| `{name}` | {kind} | {unit} |");
        assert!(table.contains(&row), "{row} is not in the table");
    }
    let dashboard = read("docs/grafana-dashboard.json");
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() >= 10);
    let shown = names(&dashboard).into_iter().map(|name| {
        let base = name.strip_suffix("_bucket").unwrap_or(&name);
        base.to_owned()
    });
    assert_eq!(shown.collect::<BTreeSet<_>>(), known, "each is shown, and no other");
}
