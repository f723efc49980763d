//! What peers see of a host's addresses: believed when enough of them agree, and told on.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use p2p::{
    AddrExt, Builder, Event, Host, Multiaddr,
    core::{
        DialTarget, Incoming, Link, ListenEvent, Listener, Pipe, Transport, TransportError,
        multiaddr::Protocol,
    },
};
use tokio::{io::DuplexStream, sync::mpsc, time::Instant};

const HOME: &str = "/ip4/10.0.0.1/tcp/4001";
const ROUTER: &str = "/ip4/1.2.3.4/tcp/5001";
const HOUR: Duration = Duration::from_secs(3600);

fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

type Links = mpsc::Sender<(DuplexStream, Multiaddr)>;

/// An internet in memory; a router forwards [`ROUTER`] to [`HOME`].
#[derive(Clone, Default)]
struct Internet(Arc<Mutex<HashMap<Multiaddr, Links>>>);

/// A host's place in it: the address that its dials come from.
struct Place(Internet, Multiaddr);

#[async_trait]
impl Transport for Place {
    fn supports(&self, addr: &Multiaddr) -> bool {
        matches!(addr.iter().nth(1), Some(Protocol::Tcp(_)))
    }

    async fn dial(&self, target: DialTarget) -> Result<Link, TransportError> {
        let at = if target.addr == addr(ROUTER) { addr(HOME) } else { target.addr.clone() };
        let refused = || TransportError::Dial {
            addr: target.addr.clone(),
            source: io::Error::from(io::ErrorKind::ConnectionRefused).into(),
        };
        let links = self.0.0.lock().unwrap().get(&at).cloned().ok_or_else(refused)?;
        let (near, far) = tokio::io::duplex(4096);
        links.send((far, self.1.clone())).await.map_err(|_| refused())?;
        let (read, write) = tokio::io::split(near);
        Ok(Link::Pipe(Pipe::new(read, write).with_local(self.1.clone())))
    }

    async fn listen(&self, addr: Multiaddr) -> Result<Box<dyn Listener>, TransportError> {
        let (sender, links) = mpsc::channel(64);
        self.0.0.lock().unwrap().insert(addr.clone(), sender);
        Ok(Box::new(Bound { addr, links }))
    }
}

struct Bound {
    addr: Multiaddr,
    links: mpsc::Receiver<(DuplexStream, Multiaddr)>,
}

#[async_trait]
impl Listener for Bound {
    fn addrs(&self) -> Vec<Multiaddr> {
        vec![self.addr.clone()]
    }

    async fn next(&mut self) -> Result<ListenEvent, TransportError> {
        let Some((link, remote)) = self.links.recv().await else {
            return std::future::pending().await;
        };
        let (read, write) = tokio::io::split(link);
        let link = async move { Ok(Link::Pipe(Pipe::new(read, write))) };
        Ok(ListenEvent::Incoming(Incoming::new(self.addr.clone(), remote, link)))
    }
}

fn at(internet: &Internet, place: &str) -> Builder {
    // Without the TCP of the machine, which has none of these addresses.
    p2p_host::builder()
        .transport(Place(internet.clone(), addr(place)))
        .security(p2p::noise::Noise::new)
        .muxer(p2p::mux::Yamux::default())
        .idle_timeout(HOUR)
}

/// A host that has dialed through the router.
async fn dialer(internet: &Internet, place: &str) -> Host {
    let dialer = at(internet, place).spawn().await.unwrap();
    dialer.identify(ROUTER).await.unwrap();
    dialer
}

/// What is believed after the next change.
async fn next_believed(events: &mut p2p::Events) -> Vec<Multiaddr> {
    let next = async {
        loop {
            if let Event::ObservedAddrs { addrs } = events.next().await.unwrap() {
                return addrs;
            }
        }
    };
    tokio::time::timeout(HOUR, next).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn ident_17_an_address_that_four_observers_agree_on_is_believed_and_told() {
    let internet = Internet::default();
    let home = at(&internet, HOME).listen(HOME).spawn().await.unwrap();
    let mut events = home.events();
    let mut dialers = Vec::new();
    // Two of one range are one observer.
    for place in ["/ip4/9.0.1.1/tcp/1", "/ip4/9.0.1.2/tcp/1", "/ip4/9.0.2.1/tcp/1"] {
        dialers.push(dialer(&internet, place).await);
    }
    dialers.push(dialer(&internet, "/ip4/9.0.3.1/tcp/1").await);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(home.observed_addrs().is_empty());
    dialers.push(dialer(&internet, "/ip4/9.0.4.1/tcp/1").await);
    let believed = addr(ROUTER).with_peer(&home.peer_id());
    assert_eq!(next_believed(&mut events).await, std::slice::from_ref(&believed));
    assert_eq!(home.observed_addrs(), [believed]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    for dialer in &dialers {
        let info = dialer.identify(home.peer_id()).await.unwrap();
        assert_eq!(
            (&info.listen_addrs[..], info.record_seq.is_some()),
            (&[addr(ROUTER)][..], true)
        );
    }

    // An observer leaves: ten minutes later nobody needs to believe it any more.
    let begun = Instant::now();
    dialers.pop().unwrap().close().await;
    assert_eq!(next_believed(&mut events).await, []);
    let elapsed = begun.elapsed();
    assert!((600..602).contains(&elapsed.as_secs()), "{elapsed:?}");
    assert!(home.observed_addrs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn ident_17_a_listener_that_ends_takes_what_was_seen_of_it_along() {
    let internet = Internet::default();
    let home = at(&internet, HOME).listen(HOME).spawn().await.unwrap();
    let mut dialers = Vec::new();
    for group in 1..=4 {
        dialers.push(dialer(&internet, &format!("/ip4/9.0.{group}.1/tcp/1")).await);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(home.observed_addrs().len(), 1);
    internet.0.lock().unwrap().clear();
    home.close().await;
    // What is not listened on is not seen from outside either: dials of the host do not count.
    let roaming = at(&internet, "/ip4/10.0.0.1/tcp/50000").spawn().await.unwrap();
    for group in 1..=6 {
        let place = format!("/ip4/9.1.{group}.1/tcp/1");
        let peer = at(&internet, &place).listen(&place).spawn().await.unwrap();
        roaming.identify(&place).await.unwrap();
        dialers.push(peer);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(roaming.observed_addrs().is_empty());
}
