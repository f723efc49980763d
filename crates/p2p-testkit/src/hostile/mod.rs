//! Peers that send exactly the bytes a test says, when it says so.
//!
//! A [`Script`] is one end of any pipe. It speaks bytes, or whatever [`wire`] builds of them; it
//! keeps to a protocol as far as a test lets it, and then does what the test is about:
//!
//! ```
//! use p2p_core::{Keypair, Role};
//! use p2p_security_noise::{Noise, handshake};
//! use p2p_testkit::hostile::{Script, wire::yamux};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (near, far) = tokio::io::duplex(1024);
//! let victim = Noise::new(&Keypair::generate()?)?;
//! let own = Keypair::generate()?;
//! let mut script = Script::over(near);
//! let (secured, victim) = tokio::join!(
//!     script.shake_hands(Role::Initiator, &own, &[]),
//!     handshake(far, &victim, Role::Responder, None),
//! );
//! secured?;
//! let (mut victim, _) = victim?;
//! script.say(&yamux::frame(yamux::DATA, yamux::SYN, 1, u32::MAX)).await?;
//! let mut header = [0; 12];
//! tokio::io::AsyncReadExt::read_exact(&mut victim, &mut header).await?;
//! assert_eq!(header[8..], [0xff; 4]);
//! # Ok(())
//! # }
//! ```
//!
//! For handshakes that are not what they should be, [`noise::RawHandshake`] is a Noise that lets
//! a test choose every payload and change every message. It shares no code with
//! `p2p-security-noise` but the cipher.
//!
//! Nothing here limits a time: a test does.

pub mod noise;
mod script;
pub mod wire;

pub use script::{End, Script};
