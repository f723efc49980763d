//! Names in the addresses that a host dials, with a resolver in memory.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use common::{Memory, Network, echo_host, echo_once, tasks};
use p2p::{
    Cause, DialAttempt, DialError, Host, Keypair, Multiaddr, OpenError, PeerId, Resolve,
    ResolveError, Stage,
    core::{DialTarget, Link, Listener, SecurityError, Transport, TransportError},
};
use tokio::time::{Instant, sleep};

/// What the DNS knows, and what it was asked.
#[derive(Clone, Default)]
struct Zone {
    ip4: HashMap<String, Vec<Ipv4Addr>>,
    ip6: HashMap<String, Vec<Ipv6Addr>>,
    txt: HashMap<String, Vec<Vec<u8>>>,
    /// How long an answer takes.
    slow: HashMap<String, Duration>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Lookups under way, and the most there were.
    running: Arc<Mutex<(usize, usize)>>,
}

impl Zone {
    fn ip4(mut self, name: &str, ips: &[&str]) -> Self {
        self.ip4.insert(name.into(), ips.iter().map(|ip| ip.parse().unwrap()).collect());
        self
    }

    fn ip6(mut self, name: &str, ips: &[&str]) -> Self {
        self.ip6.insert(name.into(), ips.iter().map(|ip| ip.parse().unwrap()).collect());
        self
    }

    fn txt<T: AsRef<[u8]>>(mut self, name: &str, records: impl IntoIterator<Item = T>) -> Self {
        let records = records.into_iter().map(|record| record.as_ref().to_vec()).collect();
        self.txt.insert(format!("_dnsaddr.{name}"), records);
        self
    }

    fn slow(mut self, name: &str, seconds: u64) -> Self {
        self.slow.insert(name.into(), Duration::from_secs(seconds));
        self
    }

    async fn answer<T: Clone>(
        &self,
        kind: &str,
        name: &str,
        records: &HashMap<String, Vec<T>>,
    ) -> Result<Vec<T>, ResolveError> {
        assert!(!name.contains("panic"), "as it was asked to");
        self.asked.lock().unwrap().push(format!("{kind} {name}"));
        {
            let mut running = self.running.lock().unwrap();
            running.0 += 1;
            running.1 = running.1.max(running.0);
        }
        let _running = Running(Arc::clone(&self.running));
        if let Some(delay) = self.slow.get(name) {
            sleep(*delay).await;
        }
        let any = self.ip4.contains_key(name) || self.ip6.contains_key(name);
        match records.get(name) {
            Some(records) if !records.is_empty() => Ok(records.clone()),
            None if !any => Err(ResolveError::NoName),
            _ => Err(ResolveError::NoRecords),
        }
    }
}

struct Running(Arc<Mutex<(usize, usize)>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().unwrap().0 -= 1;
    }
}

#[async_trait]
impl Resolve for Zone {
    async fn lookup_ip4(&self, name: &str) -> Result<Vec<Ipv4Addr>, ResolveError> {
        self.answer("A", name, &self.ip4).await
    }

    async fn lookup_ip6(&self, name: &str) -> Result<Vec<Ipv6Addr>, ResolveError> {
        self.answer("AAAA", name, &self.ip6).await
    }

    async fn lookup_txt(&self, name: &str) -> Result<Vec<Vec<u8>>, ResolveError> {
        self.answer("TXT", name, &self.txt).await
    }
}

/// Takes all addresses that begin with an IP address and have no name. On 10.0.0.1 a TCP port is a port of the
/// memory network; 10.0.0.9 never answers; everything else refuses.
struct Ip {
    memory: Memory,
    dialed: Arc<Mutex<Vec<String>>>,
    /// Takes the address with this beginning as well.
    also: &'static str,
}

#[async_trait]
impl Transport for Ip {
    fn supports(&self, addr: &Multiaddr) -> bool {
        let addr = addr.to_string();
        (addr.starts_with("/ip") && !addr.contains("/dns"))
            || (!self.also.is_empty() && addr.starts_with(self.also))
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        let addr = target.addr.to_string();
        self.dialed.lock().unwrap().push(addr.clone());
        if let Some(port) = addr.strip_prefix("/ip4/10.0.0.1/tcp/") {
            let addr = format!("/memory/{port}").parse().unwrap();
            return self.memory.dial(DialTarget::new(addr, target.peer)).await;
        }
        if addr.starts_with("/ip4/10.0.0.9/") {
            std::future::pending::<()>().await;
        }
        let source = io::Error::from(io::ErrorKind::ConnectionRefused).into();
        Err(TransportError::Dial { addr: target.addr, source })
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        Err(TransportError::Unsupported { addr })
    }
}

/// A host that dials by a zone's names.
struct Dialer {
    host: Host,
    zone: Zone,
    dialed: Arc<Mutex<Vec<String>>>,
}

impl Dialer {
    async fn new(network: &Network, zone: Zone) -> Self {
        Self::taking(network, zone, "").await
    }

    async fn taking(network: &Network, zone: Zone, also: &'static str) -> Self {
        let dialed = Arc::new(Mutex::new(Vec::new()));
        let memory = network.transport(None);
        let host = p2p_host::builder()
            .transport(Ip { memory, dialed: Arc::clone(&dialed), also })
            .security(p2p::noise::Noise::new)
            .muxer(p2p::mux::Yamux::default())
            .resolver(zone.clone())
            .drain_timeout(Duration::from_secs(1))
            .spawn()
            .await
            .unwrap();
        Self { host, zone, dialed }
    }

    /// Dials in vain, and says why.
    async fn fails(&self, target: impl p2p::IntoTarget) -> Vec<DialAttempt> {
        let error = self.host.connect(target).await.unwrap_err();
        let OpenError::Dial(DialError::Attempts(attempts)) = error else { panic!("{error}") };
        attempts.to_vec()
    }

    fn dialed(&self) -> BTreeSet<String> {
        self.dialed.lock().unwrap().drain(..).collect()
    }

    fn asked(&self) -> Vec<String> {
        self.zone.asked.lock().unwrap().drain(..).collect()
    }
}

/// What is dialed for an address that leads to nobody.
async fn dialed(zone: Zone, target: impl p2p::IntoTarget) -> BTreeSet<String> {
    let dialer = Dialer::new(&Network::default(), zone).await;
    dialer.fails(target).await;
    dialer.dialed()
}

fn set<T: Into<String>>(addrs: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    addrs.into_iter().map(Into::into).collect()
}

fn peer(seed: u8) -> PeerId {
    Keypair::from_ed25519_seed(&[seed; 32]).public().peer_id()
}

#[tokio::test(start_paused = true)]
async fn dns_01_names_give_the_addresses_of_their_family_and_the_rest_stays() {
    let zone = Zone::default().ip4("a.test", &["1.1.1.1", "1.1.1.2"]).ip6("a.test", &["2400::1"]);
    for (given, wanted) in [
        (
            "/dns/a.test/tcp/1",
            &["/ip4/1.1.1.1/tcp/1", "/ip4/1.1.1.2/tcp/1", "/ip6/2400::1/tcp/1"][..],
        ),
        ("/dns4/a.test/tcp/2", &["/ip4/1.1.1.1/tcp/2", "/ip4/1.1.1.2/tcp/2"]),
        ("/dns6/a.test/udp/3/quic-v1", &["/ip6/2400::1/udp/3/quic-v1"]),
    ] {
        assert_eq!(dialed(zone.clone(), given).await, set(wanted.iter().copied()), "{given}");
    }
}

#[tokio::test(start_paused = true)]
async fn dns_01_every_name_of_an_address_is_replaced_where_it_stands() {
    let zone = Zone::default().ip4("a.test", &["1.1.1.1"]).ip4("b.test", &["2.2.2.2"]);
    let relay = peer(1);
    let given = format!("/dns4/a.test/tcp/1/p2p/{relay}/p2p-circuit/dns/b.test/tcp/2");
    let wanted = format!("/ip4/1.1.1.1/tcp/1/p2p/{relay}/p2p-circuit/ip4/2.2.2.2/tcp/2");
    assert_eq!(dialed(zone, given).await, set([wanted]));
}

#[tokio::test(start_paused = true)]
async fn dns_02_only_records_of_one_address_are_used() {
    let zone = Zone::default().txt(
        "a.test",
        [
            &b"dnsaddr=/ip4/1.1.1.1/tcp/1"[..],
            b"v=spf1 -all",
            b"/ip4/1.1.1.2/tcp/1",
            b"",
            b"dnsaddr=",
            b"dnsaddr=1.1.1.2",
            b"dnsaddr=/ip4/1.1.1.3",
            b"dnsaddr=/ip4/1.1.1.300/tcp/1",
            b"dnsaddr=/ip4/1.1.1.4/tcp/1 /ip4/1.1.1.5/tcp/1",
            b"dnsaddr=/ip4/1.1.1.6/tcp/\xff",
            b"DNSADDR=/ip4/1.1.1.7/tcp/1",
            b" dnsaddr=/ip4/1.1.1.8/tcp/1",
        ],
    );
    let wanted = set(["/ip4/1.1.1.1/tcp/1", "/ip4/1.1.1.3"]);
    assert_eq!(dialed(zone, "/dnsaddr/a.test").await, wanted);
}

#[tokio::test(start_paused = true)]
async fn dns_03_what_stands_after_a_dnsaddr_must_end_the_record() {
    let zone = Zone::default().txt(
        "a.test",
        [
            "dnsaddr=/ip4/1.1.1.1/tcp/1",
            "dnsaddr=/ip4/1.1.1.2/tcp/1/ws",
            "dnsaddr=/ip4/1.1.1.3/tcp/2/ws",
            "dnsaddr=/ip4/1.1.1.4/tcp/1/ws/x-parity-ws/%2ftcp",
        ],
    );
    let of = |suffix: &str| dialed(zone.clone(), format!("/dnsaddr/a.test{suffix}"));
    assert_eq!(of("/tcp/1/ws").await, set(["/ip4/1.1.1.2/tcp/1/ws"]));
    assert_eq!(of("/ws").await, set(["/ip4/1.1.1.2/tcp/1/ws", "/ip4/1.1.1.3/tcp/2/ws"]));
    assert_eq!(of("/tcp/1").await, set(["/ip4/1.1.1.1/tcp/1"]));
    assert_eq!(of("/tcp/3").await, set([""; 0]));
    // What stands before it stays before the record.
    let relayed = format!("/ip4/9.9.9.9/tcp/9/p2p/{}/p2p-circuit", peer(1));
    assert_eq!(
        dialed(zone, format!("{relayed}/dnsaddr/a.test/tcp/1")).await,
        set([format!("{relayed}/ip4/1.1.1.1/tcp/1")])
    );
}

/// The bytes of a record may end like the suffix in the middle of a component.
#[tokio::test(start_paused = true)]
async fn dns_03_the_suffix_is_compared_by_components() {
    // 0x06 0x00 0x01 is /tcp/1, and the end of this IPv6 address.
    let zone =
        Zone::default().txt("a.test", ["dnsaddr=/ip6/2400::6:1", "dnsaddr=/ip6/2400::600:1"]);
    assert_eq!(dialed(zone, "/dnsaddr/a.test/tcp/1").await, set([""; 0]));
}

#[tokio::test(start_paused = true)]
async fn dns_04_four_dnsaddrs_in_a_row_are_followed_and_a_fifth_is_not() {
    let mut zone = Zone::default();
    for depth in 1..=5 {
        let next = format!("dnsaddr=/dnsaddr/{}.test", depth + 1);
        let here = format!("dnsaddr=/ip4/1.1.1.{depth}/tcp/1");
        zone = zone.txt(&format!("{depth}.test"), [next, here]);
    }
    let dialer = Dialer::new(&Network::default(), zone).await;
    let attempts = dialer.fails("/dnsaddr/1.test").await;
    let wanted = (1..=4).map(|depth| format!("/ip4/1.1.1.{depth}/tcp/1"));
    assert_eq!(dialer.dialed(), set(wanted));
    assert_eq!(attempts[0].addr.to_string(), "/dnsaddr/5.test");
    assert_eq!(attempts[0].stage, Stage::Resolve);
    assert!(matches!(attempts[0].cause, Cause::NamesLimit { value: 4, .. }), "{}", attempts[0]);
}

#[tokio::test(start_paused = true)]
async fn dns_04_names_that_lead_to_themselves_are_asked_once() {
    let zone = Zone::default()
        .txt("a.test", ["dnsaddr=/dnsaddr/b.test", "dnsaddr=/dnsaddr/a.test"])
        .txt("b.test", ["dnsaddr=/dnsaddr/a.test", "dnsaddr=/ip4/1.1.1.1/tcp/1"]);
    let dialer = Dialer::new(&Network::default(), zone).await;
    dialer.fails("/dnsaddr/a.test").await;
    assert_eq!(dialer.dialed(), set(["/ip4/1.1.1.1/tcp/1"]));
    assert_eq!(dialer.asked(), ["TXT _dnsaddr.a.test", "TXT _dnsaddr.b.test"]);
}

#[tokio::test(start_paused = true)]
async fn dns_04_a_dial_asks_32_questions_and_8_at_a_time() {
    let mut zone = Zone::default();
    let mut addrs = Vec::new();
    for number in 0..120 {
        let name = format!("{number}.test");
        zone = zone.ip4(&name, &["1.1.1.1"]).slow(&name, 1);
        addrs.push(format!("/dns4/{name}/tcp/1").parse().unwrap());
    }
    let dialer = Dialer::new(&Network::default(), zone).await;
    let attempts = dialer.fails((peer(1), addrs)).await;
    assert_eq!(dialer.asked().len(), 32);
    assert_eq!(dialer.zone.running.lock().unwrap().1, 8);
    assert_eq!(dialer.dialed(), set(["/ip4/1.1.1.1/tcp/1"]));
    let refused = |a: &&DialAttempt| matches!(a.cause, Cause::NamesLimit { value: 32, .. });
    assert_eq!(attempts.iter().filter(refused).count(), 100 - 32, "a hundred names are looked at");
    assert_eq!(attempts.len(), 1 + 68);
}

#[tokio::test(start_paused = true)]
async fn dns_04_sixteen_records_of_an_answer_and_a_hundred_addresses_are_used() {
    let records = |at: u8, count: u8| {
        let record = move |n| format!("dnsaddr=/ip4/1.1.{at}.{n}/tcp/1");
        (0..count).map(record)
    };
    let zone =
        Zone::default().txt("a.test", ["other".to_owned()].into_iter().chain(records(0, 20)));
    let dialer = Dialer::new(&Network::default(), zone).await;
    dialer.fails("/dnsaddr/a.test").await;
    assert_eq!(dialer.dialed().len(), 16);
    let ips: Vec<String> = (0..20).map(|n| format!("1.1.1.{n}")).collect();
    let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
    assert_eq!(dialed(Zone::default().ip4("b.test", &ips), "/dns4/b.test/tcp/1").await.len(), 16);

    // Sixteen nested names of sixteen dead names each: 16 + 84 addresses, and no more questions
    // than 1 + 16 + 15.
    let nested = (0..16).map(|n| format!("dnsaddr=/dnsaddr/{n}.test"));
    let mut zone = Zone::default().txt("a.test", nested);
    for number in 0..16 {
        let names = (0..16).map(|n| format!("dnsaddr=/dns4/{number}-{n}.test/tcp/1"));
        zone = zone.txt(&format!("{number}.test"), names);
    }
    let dialer = Dialer::new(&Network::default(), zone).await;
    let attempts = dialer.fails("/dnsaddr/a.test").await;
    assert_eq!(dialer.asked().len(), 32);
    assert_eq!(attempts.len(), 84);
    assert!(attempts.iter().all(|attempt| attempt.stage == Stage::Resolve));
}

#[tokio::test(start_paused = true)]
async fn dns_05_records_of_other_peers_are_left_out() {
    let (wanted, other) = (peer(1), peer(2));
    let zone = Zone::default()
        .txt(
            "a.test",
            [
                format!("dnsaddr=/ip4/1.1.1.1/tcp/1/p2p/{wanted}"),
                format!("dnsaddr=/ip4/1.1.1.2/tcp/1/p2p/{other}"),
                "dnsaddr=/ip4/1.1.1.3/tcp/1".to_owned(),
                format!("dnsaddr=/dnsaddr/b.test/p2p/{wanted}"),
                format!("dnsaddr=/dnsaddr/c.test/p2p/{other}"),
                format!("dnsaddr=/p2p/{wanted}"),
            ],
        )
        .txt(
            "b.test",
            [
                format!("dnsaddr=/ip4/1.1.1.4/tcp/1/p2p/{wanted}"),
                // Its name is followed by a peer id, which is a suffix filter as any.
                "dnsaddr=/ip4/1.1.1.5/tcp/1".to_owned(),
            ],
        )
        .txt("c.test", ["dnsaddr=/ip4/1.1.1.6/tcp/1"]);
    let dialer = Dialer::new(&Network::default(), zone).await;
    dialer.fails(format!("/dnsaddr/a.test/p2p/{wanted}")).await;
    assert_eq!(
        dialer.dialed(),
        set(["/ip4/1.1.1.1/tcp/1", "/ip4/1.1.1.3/tcp/1", "/ip4/1.1.1.4/tcp/1"])
    );
    assert!(!dialer.asked().contains(&"TXT _dnsaddr.c.test".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn dns_06_tls_keeps_the_name() {
    let zone = Zone::default().ip4("a.test", &["1.1.1.1"]);
    for (given, wanted) in [
        ("/dns4/a.test/tcp/1/tls/ws", "/ip4/1.1.1.1/tcp/1/tls/sni/a.test/ws"),
        ("/dns4/a.test/tcp/1/wss", "/ip4/1.1.1.1/tcp/1/tls/sni/a.test/ws"),
        ("/dns4/a.test/tcp/1/tls/sni/b.test/ws", "/ip4/1.1.1.1/tcp/1/tls/sni/b.test/ws"),
        ("/dns4/a.test/tcp/1/ws", "/ip4/1.1.1.1/tcp/1/ws"),
    ] {
        assert_eq!(dialed(zone.clone(), given).await, set([wanted]), "{given}");
    }
    let relayed = format!("/dns4/a.test/tcp/1/p2p/{}/p2p-circuit/tls/ws", peer(1));
    assert_eq!(dialed(zone, &relayed).await, set([relayed.replace("dns4/a.test", "ip4/1.1.1.1")]));
}

#[tokio::test(start_paused = true)]
async fn dns_06_a_transport_that_takes_names_is_given_them() {
    let zone = Zone::default().ip4("a.test", &["1.1.1.1"]);
    let dialer = Dialer::taking(&Network::default(), zone, "/dns4/a.test/tcp/1").await;
    dialer.fails("/dns4/a.test/tcp/1").await;
    assert_eq!(dialer.dialed(), set(["/dns4/a.test/tcp/1"]));
    assert!(dialer.asked().is_empty());
    dialer.fails("/dns4/a.test/tcp/2").await;
    assert_eq!(dialer.dialed(), set(["/ip4/1.1.1.1/tcp/2"]));
}

#[tokio::test(start_paused = true)]
async fn conn_27_an_address_that_several_names_lead_to_is_dialed_once() {
    let zone = Zone::default()
        .ip4("a.test", &["1.1.1.1", "1.1.1.1"])
        .ip4("b.test", &["1.1.1.1"])
        .slow("b.test", 1);
    let dialer = Dialer::new(&Network::default(), zone).await;
    let addrs = ["/dns4/a.test/tcp/1", "/ip4/1.1.1.1/tcp/1", "/dns/b.test/tcp/1"];
    let attempts = dialer.fails((peer(1), addrs.map(|addr| addr.parse().unwrap()).to_vec())).await;
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    assert_eq!(dialer.dialed.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_name_that_failed_is_in_the_error_beside_the_attempts() {
    let zone = Zone::default()
        .ip4("a.test", &["1.1.1.1"])
        .ip6("six.test", &["2400::1"])
        .slow("slow.test", 60)
        .txt("none.test", ["v=spf1 -all"]);
    let dialer = Dialer::new(&Network::default(), zone).await;
    let addrs = [
        "/dns/a.test/tcp/1",
        "/dns4/six.test/tcp/1",
        "/dns4/slow.test/tcp/1",
        "/dnsaddr/none.test",
        "/dns/no.test/tcp/1",
        "/dns4/panic.test/tcp/1",
    ];
    let attempts = dialer.fails((peer(1), addrs.map(|addr| addr.parse().unwrap()).to_vec())).await;
    let found: HashMap<String, &DialAttempt> =
        attempts.iter().map(|attempt| (attempt.addr.to_string(), attempt)).collect();
    assert_eq!((found.len(), attempts.len()), (6, 6), "{attempts:?}");
    assert_eq!(found["/ip4/1.1.1.1/tcp/1"].stage, Stage::Connect);
    let cause = |addr: &str| {
        let attempt = found[addr];
        assert_eq!(attempt.stage, Stage::Resolve, "{attempt}");
        let Cause::Resolve { name, error } = &attempt.cause else { panic!("{attempt}") };
        assert!(attempt.to_string().contains("failed in dns after"), "{attempt}");
        (name.as_str(), error)
    };
    assert!(matches!(cause(addrs[1]), ("six.test", ResolveError::NoRecords)));
    assert!(matches!(cause(addrs[2]), ("slow.test", ResolveError::TimedOut(_))));
    assert_eq!(found[addrs[2]].elapsed, Duration::from_secs(5));
    assert!(matches!(cause(addrs[3]), ("_dnsaddr.none.test", ResolveError::NoRecords)));
    assert!(matches!(cause(addrs[4]), ("no.test", ResolveError::NoName)));
    assert!(matches!(cause(addrs[5]), ("panic.test", ResolveError::Server(_))));
}

#[tokio::test(start_paused = true)]
async fn of_two_failed_questions_the_cause_that_says_more_is_told() {
    let zone = Zone::default().ip6("a.test", &[]);
    let dialer = Dialer::new(&Network::default(), zone).await;
    let attempts = dialer.fails("/dns/a.test/tcp/1").await;
    let [DialAttempt { cause, .. }] = &attempts[..] else { panic!("{attempts:?}") };
    assert!(matches!(cause, Cause::Resolve { error: ResolveError::NoRecords, .. }), "{cause}");
    for broken in [4, 6] {
        let host = p2p::builder().resolver(HalfBroken(broken)).spawn().await.unwrap();
        let text = host.connect("/dns/a.test/tcp/1").await.unwrap_err().to_string();
        assert!(text.contains("SERVFAIL") && !text.contains("no usable record"), "{text}");
    }
}

/// Fails for addresses of one family, and knows none of the other.
struct HalfBroken(u8);

impl HalfBroken {
    fn answer<T>(&self, family: u8) -> Result<Vec<T>, ResolveError> {
        match family == self.0 {
            true => Err(ResolveError::Server("SERVFAIL".into())),
            false => Err(ResolveError::NoRecords),
        }
    }
}

#[async_trait]
impl Resolve for HalfBroken {
    async fn lookup_ip4(&self, _: &str) -> Result<Vec<Ipv4Addr>, ResolveError> {
        self.answer(4)
    }

    async fn lookup_ip6(&self, _: &str) -> Result<Vec<Ipv6Addr>, ResolveError> {
        self.answer(6)
    }

    async fn lookup_txt(&self, _: &str) -> Result<Vec<Vec<u8>>, ResolveError> {
        self.answer(0)
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_resolver_the_error_says_what_gives_one() {
    let host = p2p_host::builder()
        .transport(p2p::tcp::Tcp::default())
        .security(p2p::noise::Noise::new)
        .muxer(p2p::mux::Yamux::default())
        .spawn()
        .await
        .unwrap();
    let error = host.connect("/dns4/a.test/tcp/1").await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("feature `dns`") && text.contains("Builder::resolver"), "{text}");
    let OpenError::Dial(DialError::Attempts(attempts)) = error else { panic!("{error}") };
    assert!(matches!(attempts[0].cause, Cause::NoResolver), "{}", attempts[0]);
    assert_eq!(attempts[0].stage, Stage::Resolve);
}

/// An IP address is a name whose answer is known without asking: nothing leaves this machine.
#[tokio::test]
async fn the_feature_dns_gives_the_builder_a_resolver() {
    let server = p2p::builder().listen("/ip4/127.0.0.1/tcp/0").spawn().await.unwrap();
    let client = p2p::builder().spawn().await.unwrap();
    let addr = server.addrs()[0].replace("/ip4/", "/dns4/");
    let info = client.connect(&addr).await.unwrap();
    assert_eq!(
        info.remote().to_string(),
        addr.replace("dns4", "ip4").split("/p2p/").next().unwrap()
    );
    client.close().await;
    server.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_opens_by_name_and_later_ones_share_its_connection() {
    let network = Network::default();
    let server = echo_host(&network, "/memory/7").await;
    let id = server.peer_id();
    let zone = Zone::default()
        .ip4("a.test", &["10.0.0.1"])
        .txt("a.test", [format!("dnsaddr=/dns4/a.test/tcp/7/p2p/{id}")]);
    let dialer = Dialer::new(&network, zone).await;
    for target in ["/dns4/a.test/tcp/7", "/dns4/a.test/tcp/7", "/dnsaddr/a.test"] {
        assert_eq!(echo_once(&dialer.host, target, b"hi").await.unwrap(), b"hi");
    }
    let with_peer = format!("/dnsaddr/a.test/p2p/{id}");
    assert_eq!(echo_once(&dialer.host, &with_peer, b"hi").await.unwrap(), b"hi");
    // One for each name; the peer's id finds either.
    let connections = dialer.host.connections(&id);
    assert_eq!(connections.len(), 2);
    for connection in connections {
        assert_eq!(connection.remote().to_string(), "/ip4/10.0.0.1/tcp/7");
    }
}

#[tokio::test(start_paused = true)]
async fn the_peer_that_a_record_names_is_verified() {
    let network = Network::default();
    let _server = echo_host(&network, "/memory/7").await;
    let record = format!("dnsaddr=/ip4/10.0.0.1/tcp/7/p2p/{}", peer(1));
    let dialer = Dialer::new(&network, Zone::default().txt("a.test", [record])).await;
    let attempts = dialer.fails("/dnsaddr/a.test").await;
    let [DialAttempt { cause, .. }] = &attempts[..] else { panic!("{attempts:?}") };
    let Cause::Security(SecurityError::WrongPeer { expected, .. }) = cause else {
        panic!("{cause}")
    };
    assert_eq!(*expected, peer(1));
}

#[tokio::test(start_paused = true)]
async fn a_slow_name_does_not_hold_up_an_address_without_one() {
    let network = Network::default();
    let server = echo_host(&network, "/memory/7").await;
    let zone = Zone::default().ip4("a.test", &["1.1.1.1"]).slow("a.test", 4);
    let dialer = Dialer::new(&network, zone).await;
    let addrs = ["/dns4/a.test/tcp/1", "/ip4/10.0.0.1/tcp/7"];
    let begun = Instant::now();
    let addrs = addrs.map(|addr| addr.parse().unwrap()).to_vec();
    dialer.host.connect((server.peer_id(), addrs)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
    assert_eq!(dialer.dialed(), set(["/ip4/10.0.0.1/tcp/7"]));
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_name_leads_to_is_dialed_when_it_is_known() {
    let network = Network::default();
    let server = echo_host(&network, "/memory/7").await;
    let zone = Zone::default().ip4("a.test", &["10.0.0.1"]).slow("a.test", 4);
    let dialer = Dialer::new(&network, zone).await;
    for literal in ["/ip4/1.1.1.1/tcp/1", "/ip4/10.0.0.9/tcp/1"] {
        let addrs = ["/dns4/a.test/tcp/7", literal].map(|addr| addr.parse().unwrap()).to_vec();
        let begun = Instant::now();
        dialer.host.connect((server.peer_id(), addrs)).await.unwrap();
        let took = begun.elapsed();
        assert!((4.0..4.1).contains(&took.as_secs_f32()), "{literal}: {took:?}");
        dialer.host.disconnect(&server.peer_id());
        while !dialer.host.connections(&server.peer_id()).is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_whose_time_runs_out_tells_of_the_names_under_way() {
    let mut zone = Zone::default();
    for (name, next) in [("1.test", "2.test"), ("2.test", "3.test"), ("3.test", "4.test")] {
        let name = format!("_dnsaddr.{name}");
        zone = zone.slow(&name, 4);
        zone.txt.insert(name, vec![format!("dnsaddr=/dnsaddr/{next}").into_bytes()]);
    }
    let host =
        p2p::builder().resolver(zone).dial_timeout(Duration::from_secs(10)).spawn().await.unwrap();
    let begun = Instant::now();
    let error = host.connect("/dnsaddr/1.test").await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    let OpenError::Dial(DialError::TimedOut(_, attempts)) = &error else { panic!("{error}") };
    let [DialAttempt { addr, stage: Stage::Resolve, elapsed, .. }] = &attempts[..] else {
        panic!("{error}")
    };
    assert_eq!((addr.to_string().as_str(), elapsed.as_secs()), ("/dnsaddr/3.test", 2));
}

#[tokio::test(start_paused = true)]
async fn conn_36_what_is_left_alone_is_what_the_name_led_to() {
    let zone = Zone::default().ip4("a.test", &["1.1.1.1"]).ip4("b.test", &["1.1.1.1"]);
    let dialer = Dialer::new(&Network::default(), zone).await;
    dialer.fails("/dns4/a.test/tcp/1").await;
    let opened = dialer.host.open("/dns4/b.test/tcp/1", "/x/1").await;
    let Err(OpenError::Dial(DialError::Attempts(attempts))) = opened else { panic!("{opened:?}") };
    assert_eq!(attempts[0].addr.to_string(), "/ip4/1.1.1.1/tcp/1");
    assert!(matches!(attempts[0].cause, Cause::BackedOff(_)), "{}", attempts[0]);
    assert_eq!(dialer.dialed.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn those_who_dial_one_name_share_the_dial_also_when_it_fails() {
    let zone = Zone::default().ip4("a.test", &["1.1.1.1"]).slow("a.test", 1);
    let dialer = Dialer::new(&Network::default(), zone).await;
    for id in [None, Some(peer(1))] {
        let target = match id {
            None => "/dns4/a.test/tcp/1".to_owned(),
            Some(id) => format!("/dns4/a.test/tcp/1/p2p/{id}"),
        };
        let both = tokio::join!(dialer.host.connect(&target), dialer.host.connect(&target));
        assert!(both.0.is_err() && both.1.is_err());
        assert_eq!(dialer.asked(), ["A a.test"]);
        assert_eq!(dialer.dialed.lock().unwrap().drain(..).count(), 1);
    }
    // One that does not leave alone what has failed of late is not content with that.
    let target = format!("/dns4/a.test/tcp/1/p2p/{}", peer(1));
    let opening = async { dialer.host.open(&target, "/x/1").await };
    let (opened, connected) = tokio::join!(opening, dialer.host.connect(&target));
    assert!(opened.unwrap_err().to_string().contains("failed of late"));
    assert!(!connected.unwrap_err().to_string().contains("failed of late"));
    assert_eq!(dialer.asked().len(), 2);
    // One that brings a name of its own is not content with the other's failure.
    let addrs = |name: &str| vec![format!("/dns4/{name}/tcp/1").parse().unwrap()];
    let one = dialer.host.connect((peer(2), addrs("a.test")));
    let other = dialer.host.connect((peer(2), addrs("b.test")));
    let (_, other) = tokio::join!(one, other);
    assert_eq!(dialer.asked(), ["A a.test", "A b.test"]);
    assert!(other.unwrap_err().to_string().contains("b.test"));
}

#[tokio::test(start_paused = true)]
async fn lookups_end_with_the_dial_that_nobody_waits_for_and_with_the_host() {
    let zone = Zone::default().slow("a.test", 4);
    let dialer = Dialer::new(&Network::default(), zone.clone()).await;
    let before = tasks();
    let dial = dialer.host.connect("/dns4/a.test/tcp/1");
    assert!(tokio::time::timeout(Duration::from_secs(1), dial).await.is_err());
    sleep(Duration::from_millis(1)).await;
    assert_eq!((tasks(), zone.running.lock().unwrap().0), (before, 0));
    let host = dialer.host.clone();
    let dial = tokio::spawn(async move { host.connect("/dns4/a.test/tcp/1").await });
    sleep(Duration::from_secs(1)).await;
    assert_eq!(zone.running.lock().unwrap().0, 1);
    dialer.host.close().await;
    assert_eq!(zone.running.lock().unwrap().0, 0);
    let ended = dial.await.unwrap();
    assert!(matches!(ended, Err(OpenError::Dial(DialError::HostClosed))), "{ended:?}");
}
