//! Listening: bound addresses and the links that come in through them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use p2p_core::{
    AddrExt, Incoming, Link, ListenEvent, Listener, Multiaddr, PeerId, Role, TransportError,
    parse_multiaddr,
};
use p2p_mux::Driver;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::{
    Cause, Event, InboundError, ListenError, Stage, connection::within, gate::GatePoint,
    host::Inner, ledger::Place, metrics, upgrade::Progress,
};

/// The addresses of all listeners.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<Vec<(u64, Multiaddr)>>);

impl Addresses {
    fn with<R>(&self, work: impl FnOnce(&mut Vec<(u64, Multiaddr)>) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn all(&self) -> Vec<Multiaddr> {
        self.with(|list| list.iter().map(|(_, addr)| addr.clone()).collect())
    }

    pub(crate) fn clear(&self) {
        self.with(Vec::clear);
    }
}

impl Inner {
    pub(crate) async fn listen(
        self: &Arc<Self>,
        text: &str,
    ) -> Result<Vec<Multiaddr>, ListenError> {
        let addr = self.listen_addr(text)?;
        if self.quiet.is_cancelled() {
            return Err(ListenError::HostClosed);
        }
        let transport =
            self.transport(&addr).ok_or_else(|| ListenError::NoTransport(addr.clone()))?;
        let listener = transport.listen(addr).await?;
        let addrs = listener.addrs();
        let id = self.next_id();
        for addr in &addrs {
            self.add_addr(id, addr)?;
        }
        let (host, listener) = (Arc::clone(self), Some(listener));
        self.spawn(accept(Bound { host, id, listener, cause: None }));
        Ok(addrs)
    }

    fn may_accept(&self, incoming: &Incoming) -> Result<Place, Cause> {
        let Incoming { local, remote, .. } = incoming;
        self.gate(GatePoint::Accept, None, Some(remote), |gater| gater.accept(local, remote))?;
        Ok(self.ledger.accept(remote, Instant::now())?)
    }

    fn listen_addr(&self, text: &str) -> Result<Multiaddr, ListenError> {
        let parse_error =
            |reason: String| ListenError::Parse { text: text.chars().take(200).collect(), reason };
        let addr = parse_multiaddr(text).map_err(|e| parse_error(e.to_string()))?;
        let (bare, peer) = addr.split_peer().map_err(|e| parse_error(e.to_string()))?;
        match peer.filter(|peer| *peer != self.own) {
            Some(_) => Err(ListenError::WrongPeer { addr, own: self.own }),
            None => Ok(bare),
        }
    }

    fn add_addr(&self, id: u64, addr: &Multiaddr) -> Result<(), ListenError> {
        self.addresses.with(|list| {
            // Closing cancels first and clears then: nothing is added behind its back.
            if self.quiet.is_cancelled() {
                return Err(ListenError::HostClosed);
            }
            list.push((id, addr.clone()));
            Ok(())
        })?;
        self.changes.mark();
        self.emit(Event::Listening { addr: addr.with_peer(&self.own) });
        Ok(())
    }

    fn remove_addr(&self, id: u64, addr: &Multiaddr, cause: Option<TransportError>) {
        self.addresses.with(|list| list.retain(|(of, other)| *of != id || other != addr));
        self.changes.mark();
        self.emit(Event::ListenEnded { addr: addr.with_peer(&self.own), cause });
    }
}

/// The task of one listener. It ends with the host, or with an error that the listener itself
/// calls final.
async fn accept(mut bound: Bound) {
    let Bound { host, id, listener: Some(listener), cause } = &mut bound else { return };
    loop {
        tokio::select! {
            biased;
            () = host.quiet.cancelled() => return,
            event = listener.next() => match event {
                Ok(ListenEvent::Incoming(incoming)) => take(host, incoming),
                Ok(ListenEvent::AddrAdded(addr)) => {
                    if host.add_addr(*id, &addr).is_err() {
                        return;
                    }
                }
                Ok(ListenEvent::AddrRemoved(addr)) => host.remove_addr(*id, &addr, None),
                Ok(ListenEvent::Failed(error)) => {
                    tracing::debug!(%error, "accept");
                    tracing::warn!("a connection could not be taken; the listener goes on");
                }
                Ok(other) => tracing::debug!(?other, "an event that this host does not know"),
                Err(error) => {
                    *cause = Some(error);
                    return;
                }
            }
        }
    }
}

/// A listener, and what is told when it is gone, however its task ends: also when it never ran.
struct Bound {
    host: Arc<Inner>,
    id: u64,
    listener: Option<Box<dyn Listener>>,
    cause: Option<TransportError>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        let Some(listener) = self.listener.take() else { return };
        let addrs = listener.addrs();
        // The port is free before anybody is told.
        drop(listener);
        for addr in addrs {
            self.host.remove_addr(self.id, &addr, self.cause.clone());
        }
    }
}

/// Takes a place for an inbound link, or drops it, before any cryptography is paid for it.
fn take(host: &Arc<Inner>, incoming: Incoming) {
    match host.may_accept(&incoming) {
        Ok(place) => {
            let span = tracing::debug_span!("accepted", remote = %incoming.remote);
            host.spawn(upgrade(Arc::clone(host), incoming, place).instrument(span));
        }
        Err(cause) => {
            let Incoming { remote, .. } = incoming;
            let (stage, elapsed) = (Stage::Connect, Duration::ZERO);
            metrics::inbound_failed(stage, &cause);
            let error = InboundError { remote, stage, elapsed, cause };
            tracing::debug!(%error, "inbound");
            host.emit_refusal(Event::InboundFailed { error });
        }
    }
}

async fn upgrade(host: Arc<Inner>, incoming: Incoming, place: Place) {
    let begun = Instant::now();
    let progress = Progress::default();
    let remote = incoming.remote.clone();
    let limit: Duration = host.config.inbound_timeout;
    let upgraded = within(limit, connect(&host, incoming, &progress)).await;
    let adopted = upgraded
        .and_then(|upgraded| upgraded)
        .and_then(|(muxed, driver)| host.adopt(muxed, driver, place));
    if let Err(cause) = adopted {
        let stage = progress.stage();
        metrics::inbound_failed(stage, &cause);
        let error = InboundError { remote, stage, elapsed: begun.elapsed(), cause };
        tracing::debug!(%error, "inbound");
        host.emit(Event::InboundFailed { error });
    }
}

async fn connect(
    host: &Inner,
    incoming: Incoming,
    progress: &Progress,
) -> Result<(p2p_core::Muxed, Option<Driver>), Cause> {
    let (local, remote) = (incoming.local.clone(), incoming.remote.clone());
    match incoming.link().await? {
        Link::Pipe(pipe) => {
            let pipe = pipe.with_local(local);
            let from = remote.clone();
            let may = |peer: &PeerId| host.may_secure(Role::Responder, peer, &from);
            let upgrade = host.upgrader.upgrade(pipe, Role::Responder, None, remote, progress, may);
            upgrade.await.map(|(muxed, driver)| (muxed, Some(driver)))
        }
        Link::Muxed(muxed) => {
            host.check_peer(&muxed, None)?;
            Ok((muxed, None))
        }
        _ => Err(Cause::NoTransport),
    }
}
