use std::str::FromStr;

use p2p_core::{AddrExt, Multiaddr, PeerId, parse_multiaddr};

/// Whom to reach: a peer, addresses, or both.
///
/// An address without `/p2p/<id>` is allowed: then the peer is whoever proves an identity there,
/// and the caller must look at it. With an id the connection is to that peer, or fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub(crate) peer: Option<PeerId>,
    /// Without `/p2p`.
    pub(crate) addrs: Vec<Multiaddr>,
}

/// Why something is not a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Neither an address nor a peer id.
    #[error("{text:?} is neither a multiaddr nor a peer id: {reason}")]
    Parse {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The peer id in the address is not valid.
    #[error(transparent)]
    Peer(#[from] p2p_core::AddrPeerError),
    /// Two addresses name two peers.
    #[error("the addresses name two peers, {0} and {1}")]
    TwoPeers(PeerId, PeerId),
    /// Nothing to dial.
    #[error("the list of addresses is empty")]
    Empty,
}

/// What [`Host::open`](crate::Host::open) and [`Host::connect`](crate::Host::connect) take: the
/// text of an address or peer id, an address, a peer id, or a peer with its addresses.
pub trait IntoTarget {
    /// Makes the target.
    ///
    /// # Errors
    /// [`TargetError`] says what is wrong with it.
    fn into_target(self) -> Result<Target, TargetError>;
}

impl IntoTarget for Target {
    fn into_target(self) -> Result<Target, TargetError> {
        Ok(self)
    }
}

impl IntoTarget for PeerId {
    fn into_target(self) -> Result<Target, TargetError> {
        Ok(Target { peer: Some(self), addrs: Vec::new() })
    }
}

impl IntoTarget for Multiaddr {
    fn into_target(self) -> Result<Target, TargetError> {
        (&self).into_target()
    }
}

impl IntoTarget for &Multiaddr {
    fn into_target(self) -> Result<Target, TargetError> {
        if self.is_empty() {
            return Err(TargetError::Empty);
        }
        let (addr, peer) = self.split_peer()?;
        let addrs = if addr.is_empty() { Vec::new() } else { vec![addr] };
        Ok(Target { peer, addrs })
    }
}

impl IntoTarget for (PeerId, Vec<Multiaddr>) {
    fn into_target(self) -> Result<Target, TargetError> {
        let (peer, given) = self;
        let mut addrs = Vec::with_capacity(given.len());
        for addr in given {
            let (addr, named) = addr.split_peer()?;
            if let Some(other) = named.filter(|named| *named != peer) {
                return Err(TargetError::TwoPeers(peer, other));
            }
            if !addr.is_empty() && !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        Ok(Target { peer: Some(peer), addrs })
    }
}

impl IntoTarget for &str {
    fn into_target(self) -> Result<Target, TargetError> {
        let parse_error =
            |reason: String| TargetError::Parse { text: self.chars().take(200).collect(), reason };
        if self.starts_with('/') {
            let addr = parse_multiaddr(self).map_err(|e| parse_error(e.to_string()))?;
            return addr.into_target();
        }
        let peer = PeerId::from_str(self).map_err(|e| parse_error(e.to_string()))?;
        peer.into_target()
    }
}

impl IntoTarget for String {
    fn into_target(self) -> Result<Target, TargetError> {
        self.as_str().into_target()
    }
}

impl IntoTarget for &String {
    fn into_target(self) -> Result<Target, TargetError> {
        self.as_str().into_target()
    }
}

impl<T: IntoTarget + Clone> IntoTarget for &&T {
    fn into_target(self) -> Result<Target, TargetError> {
        (*self).clone().into_target()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";

    #[test]
    fn texts_addresses_and_peers_are_targets() {
        let peer: PeerId = PEER.parse().unwrap();
        let addr: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let both = format!("{addr}/p2p/{PEER}");
        assert_eq!(
            both.as_str().into_target(),
            Ok(Target { peer: Some(peer), addrs: vec![addr.clone()] })
        );
        assert_eq!(PEER.into_target(), Ok(Target { peer: Some(peer), addrs: vec![] }));
        assert_eq!(format!("/p2p/{PEER}").into_target(), PEER.into_target());
        // As other implementations print it.
        let cid = peer.to_cid();
        assert_eq!(format!("{addr}/ipfs/{cid}/").into_target(), both.as_str().into_target());
        assert_eq!(cid.into_target(), PEER.into_target());
        assert_eq!(addr.into_target().unwrap().peer, None);
    }

    #[test]
    fn what_is_no_target_says_why() {
        let text = "/ip4/localhost/tcp/1".into_target().unwrap_err().to_string();
        assert!(text.contains("/ip4/localhost/tcp/1") && text.contains("multiaddr"), "{text}");
        assert!(text.contains("component 1"), "{text}");
        assert!("hello".into_target().unwrap_err().to_string().contains("hello"));
        assert!("".into_target().is_err());
        let peer: PeerId = PEER.parse().unwrap();
        let other: Multiaddr =
            "/ip4/1.2.3.4/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
                .parse()
                .unwrap();
        assert!(matches!((peer, vec![other]).into_target(), Err(TargetError::TwoPeers(..))));
    }
}
