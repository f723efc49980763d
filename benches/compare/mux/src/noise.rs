//! Noise sessions without a wire.

use bytes::BytesMut;
use p2p_core::{Handshake, Keypair, Role, Security, Session};
use p2p_security_noise::{Noise, cipher::Cipher};

/// Runs a handshake; gives the initiator's session first.
pub fn sessions(cipher: Cipher) -> (Session, Session) {
    let start = |role| {
        let noise = Noise::new(&Keypair::generate().expect("randomness")).expect("randomness");
        noise.with_cipher(cipher).start(role, None, &[]).expect("a handshake")
    };
    let mut initiator: Box<dyn Handshake> = start(Role::Initiator);
    let mut responder: Box<dyn Handshake> = start(Role::Responder);
    let (mut forth, mut back) = (BytesMut::new(), BytesMut::new());
    let mut first = None;
    loop {
        if first.is_none() {
            first = initiator.advance(&mut back, &mut forth).expect("honest");
        }
        if let Some(second) = responder.advance(&mut forth, &mut back).expect("honest") {
            return (first.expect("the initiator is done first"), second);
        }
    }
}
