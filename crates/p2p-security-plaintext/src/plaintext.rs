use std::fmt;

use bytes::{Bytes, BytesMut};
use p2p_core::{Handshake, Keypair, PeerId, ProtocolId, PublicKey, Role, Security, SecurityError};
use prost::Message;

use crate::{exchange::Exchange, proto};

/// The plaintext channel, as a value that a host is configured with. It protects nothing: see
/// [the crate's page](crate).
///
/// ```
/// use p2p_core::{Role, Security};
/// use p2p_security_plaintext::{Keypair, Plaintext};
///
/// let plaintext = Plaintext::dangerous_new(&Keypair::generate()?);
/// let mut handshake = plaintext.start(Role::Responder, None, &[])?;
/// let (mut wire, mut out) = Default::default();
/// assert!(handshake.advance(&mut wire, &mut out)?.is_none());
/// assert_eq!(out.len(), 1 + 2 + 38 + 2 + 36); // length, id, key: either role begins
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Plaintext {
    public_key: PublicKey,
    /// Length and message, the same for every peer.
    message: Bytes,
}

impl Plaintext {
    /// Makes a provider for the host that `keypair` says it is. Dangerous: whoever uses it has
    /// neither secrecy nor any proof of who is at the other end. The private half is not used.
    #[must_use]
    pub fn dangerous_new(keypair: &Keypair) -> Self {
        let public_key = keypair.public();
        let exchange = proto::Exchange {
            id: Some(public_key.peer_id().as_bytes().to_vec()),
            pubkey: Some(public_key.to_protobuf()),
        };
        let mut message = BytesMut::new();
        exchange.encode_length_delimited(&mut message).expect("a BytesMut grows");
        Self { public_key, message: message.freeze() }
    }

    pub(crate) fn start_exchange(&self, expected: Option<&PeerId>) -> Exchange {
        Exchange::new(self.message.clone(), expected.copied())
    }
}

impl Security for Plaintext {
    /// `/plaintext/2.0.0` (CONN-12).
    fn protocol(&self) -> ProtocolId {
        ProtocolId::from_static("/plaintext/2.0.0")
    }

    /// Begins the exchange, which is the same in both roles and agrees on no multiplexer.
    ///
    /// The specification has both sides send at once, so this side has said who it is before a
    /// peer that is not `expected` can be refused; sides that waited for each other would wait
    /// for ever. The message holds no secret.
    ///
    /// # Errors
    /// None.
    fn start(
        &self,
        _: Role,
        expected: Option<&PeerId>,
        _: &[ProtocolId],
    ) -> Result<Box<dyn Handshake>, SecurityError> {
        Ok(Box::new(self.start_exchange(expected)))
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plaintext").field("claims", &self.public_key).finish_non_exhaustive()
    }
}
