use multiaddr::{Multiaddr, Protocol};

use crate::{PeerId, PeerIdError};

/// What libp2p does with the `/p2p/<id>` at the end of an address.
pub trait AddrExt: Sized {
    /// Splits a trailing `/p2p/<id>` off (MA-10); the address is whole without one.
    ///
    /// # Errors
    /// [`AddrPeerError`] when the component's multihash is not a peer id of ours (a SHA-256
    /// digest that is not 32 bytes long).
    fn split_peer(&self) -> Result<(Self, Option<PeerId>), AddrPeerError>;

    /// The address with `/p2p/<id>` at its end, in the place of one that is there.
    #[must_use]
    fn with_peer(&self, peer: &PeerId) -> Self;
}

/// The peer id in an address is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer id at the end of {addr} is not valid: {source}")]
#[non_exhaustive]
pub struct AddrPeerError {
    /// The address.
    pub addr: Multiaddr,
    /// What is wrong with the id.
    pub source: PeerIdError,
}

impl AddrExt for Multiaddr {
    fn split_peer(&self) -> Result<(Self, Option<PeerId>), AddrPeerError> {
        let mut addr = self.clone();
        let Some(Protocol::P2p(foreign)) = addr.pop() else {
            return Ok((self.clone(), None));
        };
        let peer = PeerId::from_bytes(&foreign.to_bytes())
            .map_err(|source| AddrPeerError { addr: self.clone(), source })?;
        Ok((addr, Some(peer)))
    }

    fn with_peer(&self, peer: &PeerId) -> Self {
        let mut addr = self.clone();
        if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
            addr.pop();
        }
        let foreign = multiaddr::PeerId::from_bytes(peer.as_bytes())
            .expect("the multihash of a peer id is one for the multiaddr crate as well");
        addr.push(Protocol::P2p(foreign));
        addr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ma_10_the_last_component_names_the_peer() {
        let id = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";
        let text = format!(
            "/ip4/127.0.0.1/tcp/1/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC/p2p-circuit/p2p/{id}"
        );
        let addr: Multiaddr = text.parse().expect("valid");
        let (bare, peer) = addr.split_peer().expect("valid");
        assert_eq!(peer.map(|p| p.to_string()).as_deref(), Some(id));
        assert!(bare.to_string().ends_with("/p2p-circuit"));
        assert_eq!(bare.with_peer(&peer.expect("some")), addr);
        assert_eq!(addr.with_peer(&peer.expect("some")), addr);
        assert_eq!(bare.split_peer(), Ok((bare.clone(), None)));
    }
}
