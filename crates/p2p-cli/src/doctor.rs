//! Finds out, step by step, what works and what is the first thing that does not.
//!
//! The steps up to the multiplexer are done by hand, with the parts that the library is made of,
//! so that each has its own time and its own error. Those after it are done as programs do.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use p2p::{
    AddrExt, Host, Keypair, Multiaddr, PeerId, ProtocolId, Resolve,
    core::{Reach, Role, multiaddr::Protocol},
    multistream::{NegotiationError, initiate},
    noise::{HandshakeError, Noise, handshake},
};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    failure::Failure,
    output::{Output, printable},
    peer,
    redact::Redactor,
    round_trips::{RoundTrips, millis},
    stop::Stop,
};

const NOISE: ProtocolId = ProtocolId::from_static("/noise");
const YAMUX: ProtocolId = ProtocolId::from_static("/yamux/1.0.0");

/// Round trips that are measured.
const PINGS: usize = 5;

/// Records of a name that are shown.
const RECORDS_MAX: usize = 16;

pub(crate) async fn run(
    addr: Option<&Multiaddr>,
    limit: Duration,
    out: &Output,
    stop: &Stop,
) -> Result<u8, Failure> {
    let doctor = Doctor { out, limit, redactor: RefCell::default(), done: Cell::new(0) };
    let result = tokio::select! {
        biased;
        code = stop.requested() => return Ok(code),
        result = doctor.examine(addr) => result,
    };
    let done = doctor.done.get();
    match result {
        Ok(()) => {
            let text = format_args!("all {done} steps went well");
            out.event("report", &[("ok", json!(true)), ("steps", json!(done))], text);
            Ok(0)
        }
        Err(failure) => {
            if out.is_json() {
                out.event("report", &[("ok", json!(false)), ("steps", json!(done))], "");
            }
            Err(doctor.redacted(failure))
        }
    }
}

struct Doctor<'a> {
    out: &'a Output,
    limit: Duration,
    redactor: RefCell<Redactor>,
    /// Steps that went well.
    done: Cell<usize>,
}

impl Doctor<'_> {
    async fn examine(&self, addr: Option<&Multiaddr>) -> Result<(), Failure> {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        let version = env!("CARGO_PKG_VERSION");
        let text = format!("p2p {version} on {os} ({arch})");
        self.step("program", async { Ok((text, ())) }).await?;
        if let Some(addr) = addr {
            self.learn(addr);
        }
        let host = self.listen().await?;
        let result = async {
            self.loopback(&host).await?;
            match addr {
                Some(addr) => self.peer(&host, addr).await,
                None => Ok(()),
            }
        };
        let result = result.await;
        host.close().await;
        result
    }

    /// Does a step, and says how it went and how long it took.
    async fn step<T>(
        &self,
        name: &str,
        work: impl Future<Output = Result<(String, T), Failure>>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        let limit = self.limit;
        let result = timeout(limit, work).await.unwrap_or_else(|_| {
            Err(Failure::new(format!("{name}: no answer within {limit:?}")).next(
                "check the address and that no firewall drops packets, or give a longer --timeout",
            ))
        });
        let ms = begun.elapsed().as_secs_f64() * 1e3;
        let ok = result.is_ok();
        let detail = match &result {
            Ok((detail, _)) => printable(detail),
            Err(failure) => failure.one_line(),
        };
        let word = if ok { "ok  " } else { "FAIL" };
        let text = format!("{word} {ms:>9.1} ms  {name:<11}  {detail}");
        let detail = self.redactor.borrow().redact(&detail);
        let fields = [
            ("name", json!(name)),
            ("ok", json!(ok)),
            ("ms", json!((ms * 1e3).round() / 1e3)),
            ("detail", json!(detail)),
        ];
        self.out.event("step", &fields, text);
        let (_, value) = result?;
        self.done.set(self.done.get() + 1);
        Ok(value)
    }

    fn learn(&self, addr: &Multiaddr) {
        self.redactor.borrow_mut().learn(addr);
    }

    fn redacted(&self, failure: Failure) -> Failure {
        if self.out.is_json() {
            failure.map(|text| self.redactor.borrow().redact(text))
        } else {
            failure
        }
    }

    /// Listens on all interfaces.
    async fn listen(&self) -> Result<Host, Failure> {
        let host = peer::dialer(self.limit, None).await?;
        self.redactor.borrow_mut().learn_peer(&host.peer_id());
        self.step("listen", async {
            host.listen("/ip4/0.0.0.0/tcp/0").await.map_err(|error| {
                Failure::from(error).or_next("this system lets no program listen: see its firewall")
            })?;
            let ip6 = host.listen("/ip6/::/tcp/0").await.err();
            let own = host.multiaddrs();
            own.iter().for_each(|addr| self.learn(addr));
            let bare = own.iter().filter_map(|addr| Some(addr.split_peer().ok()?.0.to_string()));
            let mut text = bare.collect::<Vec<_>>().join(" ");
            if let Some(error) = ip6 {
                text += &format!(" (no IPv6: {error})");
            }
            if own.iter().all(|addr| addr.reach() <= Reach::Loopback) {
                text += "; none reaches beyond this machine";
            }
            Ok((text, ()))
        })
        .await?;
        Ok(host)
    }

    /// The whole of it from this machine to itself.
    async fn loopback(&self, host: &Host) -> Result<(), Failure> {
        let Some(own) = host.multiaddrs().into_iter().find(|addr| addr.reach() == Reach::Loopback)
        else {
            return Ok(());
        };
        let limit = self.limit;
        self.step("loopback", async move {
            let dialer = peer::dialer(limit, None).await?;
            let trip = dialer.ping(&own).await;
            dialer.close().await;
            let trip = trip.map_err(|error| {
                Failure::from(error)
                    .next("this machine does not even reach itself: see its firewall")
            })?;
            Ok((format!("reached itself; ping {}", millis(trip)), ()))
        })
        .await
    }

    async fn peer(&self, host: &Host, addr: &Multiaddr) -> Result<(), Failure> {
        let (bare, expected) =
            addr.split_peer().map_err(|error| Failure::new(error.to_string()))?;
        if let Some(targets) = self.tcp_targets(&bare).await? {
            self.by_hand(&targets, expected.as_ref()).await?;
        }
        let info = self
            .step("connect", async {
                let info = host.connect(addr).await.map_err(Failure::from)?;
                let (_, text) = peer::describe(&info);
                Ok((text, info))
            })
            .await?;
        let peer = info.peer();
        let known = self
            .step("identify", async {
                let known = host.identify(addr).await.map_err(Failure::from)?;
                let served: Vec<&str> = known.protocols.iter().map(|id| id.as_str()).collect();
                let text = format!("{}; serves {}", known.agent, served.join(" "));
                Ok((text, known))
            })
            .await?;
        for addr in known.listen_addrs.iter().chain(&known.observed_addr).chain(info.local()) {
            self.learn(addr);
        }
        self.step("addresses", async {
            let all: Vec<String> = known.listen_addrs.iter().map(ToString::to_string).collect();
            let text = if all.is_empty() { "it tells of none".into() } else { all.join(" ") };
            Ok((format!("the peer says it is at: {text}"), ()))
        })
        .await?;
        self.step("ping", async {
            let mut pinger = host.pinger(peer).map_err(Failure::from)?;
            let mut trips = RoundTrips::default();
            for _ in 0..PINGS {
                trips.push(pinger.ping().await.map_err(Failure::from)?);
            }
            Ok((trips.spread().map_or(String::new(), |spread| spread.to_string()), ()))
        })
        .await?;
        let seen = seen_as(known.observed_addr.as_ref(), info.local());
        self.step("seen as", async { Ok((seen, ())) }).await
    }

    /// Where the TCP connection goes to: looks a name up. `None` where the library has to find
    /// its way, as with the records of `/dnsaddr`.
    async fn tcp_targets(&self, addr: &Multiaddr) -> Result<Option<Vec<SocketAddr>>, Failure> {
        let mut parts = addr.iter();
        let (Some(first), second) = (parts.next(), parts.next()) else { return Ok(None) };
        let dns = p2p::dns::Dns::system();
        if let Protocol::Dnsaddr(name) = &first {
            self.step("dns", self.look_up_records(&dns, name)).await?;
            return Ok(None);
        }
        let Some(Protocol::Tcp(port)) = second else { return Ok(None) };
        let ips = if let Protocol::Ip4(ip) = first {
            vec![ip.into()]
        } else if let Protocol::Ip6(ip) = first {
            vec![ip.into()]
        } else if let Protocol::Dns(name) = &first {
            self.step("dns", self.look_up(&dns, name, true, true)).await?
        } else if let Protocol::Dns4(name) = &first {
            self.step("dns", self.look_up(&dns, name, true, false)).await?
        } else if let Protocol::Dns6(name) = &first {
            self.step("dns", self.look_up(&dns, name, false, true)).await?
        } else {
            return Ok(None);
        };
        Ok(Some(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()))
    }

    async fn look_up_records(
        &self,
        dns: &p2p::dns::Dns,
        name: &str,
    ) -> Result<(String, ()), Failure> {
        let records = dns.lookup_txt(&format!("_dnsaddr.{name}")).await;
        let records = records.map_err(|error| not_resolved(name, &error))?;
        for record in &records {
            let addr = record.strip_prefix(b"dnsaddr=").and_then(|addr| str::from_utf8(addr).ok());
            if let Some(addr) = addr.and_then(|addr| p2p::core::parse_multiaddr(addr).ok()) {
                self.learn(&addr);
            }
        }
        Ok((format!("{name} has {} TXT records", records.len()), ()))
    }

    async fn look_up(
        &self,
        dns: &p2p::dns::Dns,
        name: &str,
        ip4: bool,
        ip6: bool,
    ) -> Result<(String, Vec<IpAddr>), Failure> {
        let mut ips = Vec::new();
        let mut failed = None;
        if ip6 {
            match dns.lookup_ip6(name).await {
                Ok(found) => ips.extend(found.into_iter().map(IpAddr::from)),
                Err(error) => failed = Some(error),
            }
        }
        if ip4 {
            match dns.lookup_ip4(name).await {
                Ok(found) => ips.extend(found.into_iter().map(IpAddr::from)),
                Err(error) => failed = Some(error),
            }
        }
        ips.truncate(RECORDS_MAX);
        if let (true, Some(error)) = (ips.is_empty(), failed) {
            return Err(not_resolved(name, &error));
        }
        for ip in &ips {
            self.learn(&Multiaddr::from(*ip));
        }
        let all: Vec<String> = ips.iter().map(ToString::to_string).collect();
        Ok((format!("{name} is {}", all.join(" ")), ips))
    }

    /// Goes up to the multiplexer on one TCP connection, which is then given up.
    async fn by_hand(
        &self,
        targets: &[SocketAddr],
        expected: Option<&PeerId>,
    ) -> Result<(), Failure> {
        let mut tcp = self
            .step("tcp", async {
                let mut last = None;
                for target in targets {
                    match TcpStream::connect(target).await {
                        Ok(tcp) => {
                            // The system would hold small messages back.
                            drop(tcp.set_nodelay(true));
                            return Ok((format!("connected to {target}"), tcp));
                        }
                        Err(error) => last = Some(not_reached(target, &error)),
                    }
                }
                Err(last.unwrap_or_else(|| Failure::new("the name has no address")))
            })
            .await?;
        self.step("negotiation", async {
            initiate(&mut tcp, [NOISE]).await.map_err(|error| not_libp2p(&error))?;
            Ok(("it speaks multistream-select, and Noise".into(), ()))
        })
        .await?;
        let (mut secure, peer) = self
            .step("handshake", async {
                let key = Keypair::generate().map_err(|error| Failure::new(error.to_string()))?;
                let noise = Noise::new(&key).map_err(|error| Failure::new(error.to_string()))?;
                let (secure, key) =
                    handshake(tcp, &noise, Role::Initiator, None).await.map_err(not_secured)?;
                let text = format!("Noise XX; the peer's key is {}", key.key_type());
                Ok((text, (secure, key.peer_id())))
            })
            .await?;
        self.redactor.borrow_mut().learn_peer(&peer);
        self.step("peer id", async {
            match expected {
                None => Ok((format!("{peer}; the address names none"), ())),
                Some(expected) if *expected == peer => {
                    Ok((format!("{peer}, as the address says"), ()))
                }
                Some(expected) => Err(Failure::new(format!(
                    "the address names {expected}, but {peer} answers there"
                ))
                .next(
                    "ask the peer for its present address; another program or machine may have \
                     taken its place",
                )),
            }
        })
        .await?;
        self.step("muxer", async {
            initiate(&mut secure, [YAMUX]).await.map_err(|error| {
                Failure::new(format!("the peer takes no yamux: {error}"))
                    .next("this program has no other multiplexer: enable yamux at the peer")
            })?;
            Ok((YAMUX.to_string(), ()))
        })
        .await
    }
}

fn not_resolved(name: &str, error: &p2p::ResolveError) -> Failure {
    Failure::new(format!("the name {name} cannot be looked up: {error}"))
        .next("check how it is written and this machine's name servers, or give an IP address")
}

fn not_reached(target: &SocketAddr, error: &std::io::Error) -> Failure {
    let failure = Failure::new(format!("cannot connect to {target}: {error}"));
    if error.kind() == std::io::ErrorKind::ConnectionRefused {
        failure.next(
            "the machine answers, but nothing listens on that port: start the node there, or \
             correct the port",
        )
    } else {
        failure.next("the machine is not reached: check the address, and the network between")
    }
}

fn not_libp2p(error: &NegotiationError) -> Failure {
    let failure = Failure::new(error.to_string());
    if let NegotiationError::NotMultistream(_) = error {
        failure.next("something else than libp2p listens on that port: correct the port")
    } else if let NegotiationError::Unsupported { .. } = error {
        failure
            .next("the node speaks libp2p, but not Noise (TLS alone, perhaps): enable Noise there")
    } else {
        failure.next(
            "the other side closed the connection or answers nothing: it may be no libp2p node, \
             be of a private network, or have refused this machine",
        )
    }
}

fn not_secured(error: HandshakeError) -> Failure {
    let failure = Failure::new(error.to_string());
    if let HandshakeError::Closed { .. } = error {
        return failure.next("the peer refused: it may serve only peers that it knows");
    }
    failure.next("something between changes the data, or the peer is broken: try another network")
}

/// What the peer sees of this side, and what that means.
fn seen_as(observed: Option<&Multiaddr>, local: Option<&Multiaddr>) -> String {
    let Some(observed) = observed else { return "the peer does not say".into() };
    let ip = |addr: &Multiaddr| addr.iter().next().map(|part| part.to_string());
    if local.is_some_and(|local| ip(local) == ip(observed)) {
        return format!("{observed}: no address translation between");
    }
    let local = local.map_or_else(|| "an unknown address".to_owned(), ToString::to_string);
    format!(
        "{observed}, and here it is {local}: an address translation (NAT) is between; to be \
         reached from there, forward a port"
    )
}
