//! Who may connect: the lists of peers and IP ranges, and the application's gater (CONN-09).
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{Network, builder, echo, echo_host, echo_once, next_event};
use p2p::{
    AccessRule, Cause, ConnectionError, ConnectionInfo, Denied, DialError, ErrorCode, Event,
    Events, GatePoint, Gater, Host, InboundError, IpRange, Keypair, Multiaddr, OpenError, PeerId,
    Stage, core::Role,
};
use tokio::time::sleep;

/// Refuses at one point, or panics there, and notes at which it was asked.
#[derive(Clone, Default)]
struct Judge(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    asked: Vec<(GatePoint, String)>,
    refuse: Option<GatePoint>,
    panic: bool,
}

impl Judge {
    fn refusing(point: GatePoint) -> Self {
        let judge = Self::default();
        judge.refuse(Some(point));
        judge
    }

    fn refuse(&self, point: Option<GatePoint>) {
        self.0.lock().unwrap().refuse = point;
    }

    fn asked(&self) -> Vec<(GatePoint, String)> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    fn ask(&self, point: GatePoint, about: &str) -> Result<(), String> {
        let panics = {
            let mut notes = self.0.lock().unwrap();
            notes.asked.push((point, about.to_owned()));
            if notes.refuse != Some(point) {
                return Ok(());
            }
            notes.panic
        };
        assert!(!panics, "a planned panic");
        Err("not on Sundays".into())
    }
}

impl Gater for Judge {
    fn dial_peer(&self, peer: &PeerId) -> Result<(), String> {
        self.ask(GatePoint::DialPeer, &peer.to_string())
    }

    fn dial_addr(&self, peer: Option<&PeerId>, addr: &Multiaddr) -> Result<(), String> {
        let peer = peer.map(ToString::to_string).unwrap_or_default();
        self.ask(GatePoint::DialAddr, &format!("{peer}{addr}"))
    }

    fn accept(&self, local: &Multiaddr, remote: &Multiaddr) -> Result<(), String> {
        self.ask(GatePoint::Accept, &format!("{local}{remote}"))
    }

    fn secured(&self, role: Role, peer: &PeerId, remote: &Multiaddr) -> Result<(), String> {
        self.ask(GatePoint::Secured, &format!("{role}{peer}{remote}"))
    }

    fn upgraded(&self, connection: &ConnectionInfo) -> Result<(), String> {
        self.ask(GatePoint::Upgraded, &format!("{}{}", connection.role(), connection.peer()))
    }
}

fn denied(error: OpenError) -> Denied {
    let text = error.to_string();
    let denied = if let OpenError::Dial(DialError::Denied(denied)) = error {
        denied
    } else {
        let OpenError::Dial(DialError::Attempts(attempts)) = error else { panic!("{text}") };
        let Cause::Denied(denied) = &attempts[0].cause else { panic!("{text}") };
        denied.clone()
    };
    assert!(text.contains(&denied.to_string()) && text.contains(&*denied.reason), "{text}");
    denied
}

async fn inbound_failed(events: &mut Events) -> InboundError {
    let failed =
        |event| if let Event::InboundFailed { error } = event { Some(error) } else { None };
    next_event(events, failed).await
}

async fn disconnected(events: &mut Events) -> ConnectionError {
    let ended =
        |event| if let Event::Disconnected { cause, .. } = event { Some(cause) } else { None };
    next_event(events, ended).await
}

async fn host_with(network: &Network, gater: Judge) -> Host {
    let host = builder(network, None).gater(gater).listen("/memory/7").spawn().await.unwrap();
    host.handle("/echo/1.0.0", echo).unwrap();
    host
}

/// A host whose links come from an address.
async fn dialer_from(network: &Network, from: &str) -> Host {
    p2p::builder().transport(network.transport_from(from)).spawn().await.unwrap()
}

// The gater.

#[tokio::test(start_paused = true)]
async fn conn_09_a_gater_is_asked_at_each_point_in_order_with_what_is_known() {
    let network = Network::default();
    let (near, far) = (Judge::default(), Judge::default());
    let listener = host_with(&network, far.clone()).await;
    let dialer = builder(&network, None).gater(near.clone()).spawn().await.unwrap();
    let (own, peer) = (dialer.peer_id(), listener.peer_id());
    dialer.connect(format!("/memory/7/p2p/{peer}")).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    let expected = [
        (GatePoint::DialPeer, peer.to_string()),
        (GatePoint::DialAddr, format!("{peer}/memory/7")),
        (GatePoint::Secured, format!("initiator{peer}/memory/7")),
        (GatePoint::Upgraded, format!("initiator{peer}")),
    ];
    assert_eq!(near.asked(), expected);
    let expected = [
        (GatePoint::Accept, "/memory/7/memory/999".to_owned()),
        (GatePoint::Secured, format!("responder{own}/memory/999")),
        (GatePoint::Upgraded, format!("responder{own}")),
    ];
    assert_eq!(far.asked(), expected);
}

#[tokio::test(start_paused = true)]
async fn conn_09_a_dial_that_is_refused_says_where_and_why_and_works_once_it_is_not() {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let addr = listener.addrs().remove(0);
    for point in [GatePoint::DialPeer, GatePoint::DialAddr, GatePoint::Secured, GatePoint::Upgraded]
    {
        let judge = Judge::refusing(point);
        let dialer = builder(&network, None).gater(judge.clone()).spawn().await.unwrap();
        let denied = denied(dialer.connect(&addr).await.unwrap_err());
        assert_eq!((denied.point, &*denied.reason), (point, "not on Sundays"));
        assert_eq!(judge.asked().last().unwrap().0, point, "nothing is asked after a refusal");
        sleep(Duration::from_secs(2)).await;
        let usage = dialer.usage();
        assert_eq!((usage.refused, usage.connections_outbound.count), (1, 0));
        assert_eq!(usage.pending_outbound.count, 0);
        judge.refuse(None);
        // At once: a refusal of this side does not speak against the address.
        assert_eq!(echo_once(&dialer, &addr, b"x").await.unwrap(), b"x");
    }
}

#[tokio::test(start_paused = true)]
async fn conn_09_an_inbound_connection_that_is_refused_is_told_as_an_event() {
    let network = Network::default();
    let judge = Judge::default();
    let listener = host_with(&network, judge.clone()).await;
    for (point, stage) in [
        (GatePoint::Accept, Stage::Connect),
        (GatePoint::Secured, Stage::Security),
        (GatePoint::Upgraded, Stage::Muxer),
    ] {
        judge.refuse(Some(point));
        let mut events = listener.events();
        let dialer = builder(&network, None).spawn().await.unwrap();
        let _stream = dialer.open("/memory/7", "/echo/1.0.0").await.unwrap_err();
        let error = inbound_failed(&mut events).await;
        let Cause::Denied(denied) = &error.cause else { panic!("{error}") };
        assert_eq!((denied.point, error.stage), (point, stage));
        assert!(error.to_string().contains("not on Sundays"), "{error}");
        assert!(listener.peers().is_empty());
        judge.refuse(None);
        dialer.connect("/memory/7").await.unwrap();
        dialer.close().await;
    }
    sleep(Duration::from_secs(10)).await;
    let usage = listener.usage();
    assert_eq!((usage.pending_inbound.count, usage.connections_inbound.count), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn conn_41_a_peer_refused_after_the_upgrade_is_told_that_it_is_gated() {
    let network = Network::default();
    let _listener = host_with(&network, Judge::refusing(GatePoint::Upgraded)).await;
    let dialer = builder(&network, None).spawn().await.unwrap();
    let mut events = dialer.events();
    drop(dialer.connect("/memory/7").await);
    let cause = disconnected(&mut events).await;
    let ConnectionError::ClosedByPeer { code } = cause else { panic!("{cause}") };
    assert_eq!((code, code.value()), (ErrorCode::CONNECTION_GATED, 0x1007));
}

#[tokio::test(start_paused = true)]
async fn conn_09_a_gater_that_panics_has_refused_and_harms_nothing_else() {
    let network = Network::default();
    let judge = Judge::refusing(GatePoint::Accept);
    judge.0.lock().unwrap().panic = true;
    let listener = host_with(&network, judge.clone()).await;
    let mut events = listener.events();
    let dialer = builder(&network, None).spawn().await.unwrap();
    assert!(dialer.connect("/memory/7").await.is_err());
    let error = inbound_failed(&mut events).await;
    assert!(error.to_string().contains("the gater panicked"), "{error}");
    judge.refuse(None);
    assert_eq!(dialer.connect("/memory/7").await.unwrap().peer(), listener.peer_id());
}

// The lists.

#[tokio::test(start_paused = true)]
async fn conn_09_a_peer_that_is_denied_is_closed_and_stays_away_until_it_is_not() {
    let network = Network::default();
    let one = echo_host(&network, "/memory/7").await;
    let two = echo_host(&network, "/memory/8").await;
    let bystander = builder(&network, None).spawn().await.unwrap();
    bystander.connect("/memory/7").await.unwrap();
    two.connect("/memory/7").await.unwrap();
    let (mut events, mut events_of_two) = (one.events(), two.events());
    sleep(Duration::from_secs(1)).await;

    assert_eq!(one.deny(two.peer_id()), Ok(1));
    let cause = disconnected(&mut events).await;
    let text = cause.to_string();
    assert!(text.contains(&two.peer_id().to_string()) && text.contains("denied"), "{text}");
    let cause = disconnected(&mut events_of_two).await;
    assert!(matches!(cause, ConnectionError::ClosedByPeer { code: ErrorCode::CONNECTION_GATED }));
    assert_eq!(one.peers(), [bystander.peer_id()]);

    let refused = denied(one.connect(two.addrs().remove(0)).await.unwrap_err());
    assert_eq!(refused.point, GatePoint::DialPeer);
    assert!(refused.reason.contains("deny list"), "{refused}");
    // Not even where its name is not known before.
    assert_eq!(denied(one.connect("/memory/8").await.unwrap_err()).point, GatePoint::Secured);
    drop(two.connect("/memory/7").await);
    let error = inbound_failed(&mut events).await;
    assert!(matches!(&error.cause, Cause::Denied(denied) if denied.point == GatePoint::Secured));

    assert!(one.undeny(two.peer_id()) && !one.undeny(two.peer_id()));
    assert_eq!(echo_once(&two, &one.addrs()[0], b"x").await.unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn conn_09_an_ip_range_that_is_denied_is_closed_neither_dialed_nor_accepted() {
    let network = Network::default();
    let host = echo_host(&network, "/memory/7").await;
    let _other = echo_host(&network, "/memory/8").await;
    let near = dialer_from(&network, "/ip4/192.0.2.9/memory/1").await;
    let far = dialer_from(&network, "/ip4/198.51.100.1/memory/1").await;
    near.connect("/memory/7").await.unwrap();
    far.connect("/memory/7").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let mut events = host.events();

    let range: IpRange = "192.0.2.0/24".parse().unwrap();
    assert_eq!(host.deny(range), Ok(1));
    disconnected(&mut events).await;
    assert_eq!(host.peers(), [far.peer_id()]);
    sleep(Duration::from_secs(2)).await;
    assert!(near.connect("/memory/7").await.is_err());
    let error = inbound_failed(&mut events).await;
    assert_eq!(error.stage, Stage::Connect, "before any cryptography");
    for part in ["192.0.2.9", "192.0.2.0/24", "deny list"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    for addr in ["/ip4/192.0.2.77/memory/8", "/ip6/::ffff:192.0.2.77/memory/8"] {
        let denied = denied(host.connect(addr).await.unwrap_err());
        assert_eq!(denied.point, GatePoint::DialAddr);
    }
    host.connect("/ip4/192.0.3.77/memory/8").await.unwrap();
    assert!(host.undeny(range));
    near.connect("/memory/7").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn conn_09_once_something_is_allowed_nothing_else_is() {
    let network = Network::default();
    let friend = Keypair::generate().unwrap();
    let peer = friend.public().peer_id();
    let range: IpRange = "192.0.2.0/24".parse().unwrap();
    let host = builder(&network, None)
        .listen("/memory/7")
        .allow(peer)
        .allow(range)
        .deny("192.0.2.13".parse::<std::net::IpAddr>().unwrap())
        .spawn()
        .await
        .unwrap();
    let mut events = host.events();
    let mut kept = Vec::new();
    for (from, identity, part) in [
        ("/ip4/192.0.2.1/memory/1", Keypair::generate().unwrap(), "not on the allow list"),
        ("/ip4/192.0.3.1/memory/1", friend.clone(), "in no range of the allow list"),
        ("/memory/1", friend.clone(), "in no range of the allow list"),
        ("/ip4/192.0.2.13/memory/1", friend.clone(), "deny list"),
        ("/ip4/192.0.2.1/memory/1", friend.clone(), ""),
    ] {
        let transport = network.transport_from(from);
        let dialer = p2p::builder().transport(transport).identity(identity).spawn().await.unwrap();
        drop(dialer.connect("/memory/7").await);
        if part.is_empty() {
            sleep(Duration::from_millis(1)).await;
            assert_eq!(host.peers(), [peer]);
        } else {
            let text = inbound_failed(&mut events).await.to_string();
            assert!(text.contains(part), "{text}");
        }
        kept.push(dialer);
    }
    // An empty list allows nobody; the connection stays until it is ended.
    assert!(host.unallow(peer) && !host.unallow(peer));
    assert_eq!(host.peers(), [peer]);
    kept.pop().unwrap().close().await;
    let again = p2p::builder().transport(network.transport_from("/ip4/192.0.2.1/memory/1"));
    let again = again.identity(friend).spawn().await.unwrap();
    drop(again.connect("/memory/7").await);
    let text = inbound_failed(&mut events).await.to_string();
    assert!(text.contains("not on the allow list"), "{text}");
    host.allow(AccessRule::Peer(peer)).unwrap();
    again.connect("/memory/7").await.unwrap();
}

/// Denies the peer of the connection that it is asked about, and lets it pass.
struct Traitor(Arc<Mutex<Option<Host>>>);

impl Gater for Traitor {
    fn upgraded(&self, connection: &ConnectionInfo) -> Result<(), String> {
        let host = self.0.lock().unwrap().take().unwrap();
        assert_eq!(host.deny(connection.peer()), Ok(0), "it is no connection yet");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn conn_09_a_peer_denied_during_its_upgrade_does_not_slip_through() {
    let network = Network::default();
    let handle = Arc::new(Mutex::new(None));
    let gater = Traitor(Arc::clone(&handle));
    let host = builder(&network, None).gater(gater).listen("/memory/7").spawn().await.unwrap();
    *handle.lock().unwrap() = Some(host.clone());
    let mut events = host.events();
    let dialer = builder(&network, None).spawn().await.unwrap();
    drop(dialer.connect("/memory/7").await);
    let error = inbound_failed(&mut events).await;
    assert!(error.to_string().contains("deny list"), "{error}");
    assert!(host.peers().is_empty());
}

/// Holds a handle of the host that it is part of.
#[expect(dead_code, reason = "it only keeps what it holds")]
struct Owner(Arc<Mutex<Option<Host>>>);

impl Gater for Owner {}

#[tokio::test(start_paused = true)]
async fn a_gater_that_owns_its_host_ends_with_it() {
    let handle = Arc::new(Mutex::new(None));
    let gater = Owner(Arc::clone(&handle));
    let host = builder(&Network::default(), None).gater(gater).spawn().await.unwrap();
    let mut events = host.events();
    handle.lock().unwrap().replace(host.clone());
    drop(handle);
    host.close().await;
    drop(host);
    assert!(tokio::time::timeout(Duration::from_secs(1), events.next()).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_lists_are_bounded() {
    let host = builder(&Network::default(), None).spawn().await.unwrap();
    let range = |number: u32| IpRange::from(std::net::IpAddr::from(number.to_be_bytes()));
    for number in 0..65_536 {
        assert_eq!(host.deny(range(number)), Ok(0));
    }
    let text = host.deny(range(65_536)).unwrap_err().to_string();
    for part in ["65536 entries of the deny list", "the application", "it is fixed"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(host.deny(range(0)), Ok(0), "it is there already");
    assert!(host.undeny(range(1)));
    assert_eq!(host.deny(range(65_536)), Ok(0));
}
