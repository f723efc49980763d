//! libp2p's open protocols behind a small, tokio-native API.
//!
//! ```no_run
//! use p2p::Stream;
//! use tokio::io::AsyncWriteExt;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = p2p::builder().listen("/ip4/0.0.0.0/tcp/0").spawn().await?;
//! host.handle("/echo/1.0.0", |s: Stream| async move {
//!     let (mut r, mut w) = tokio::io::split(s);
//!     tokio::io::copy(&mut r, &mut w).await?;
//!     w.shutdown().await
//! })?;
//! println!("{}", host.addrs().join("\n"));
//! # Ok(())
//! # }
//! ```
//!
//! This crate is names only: it re-exports the others behind features, and [`builder`] fills in
//! what they bring. The types are explained where they are: [`Host`], [`Builder`], [`Stream`].
//!
//! ```text
//!   builder() ──► Host ──► open, handle, request, ping, … ──► Stream
//!     ▲ tcp, dns, pnet      noise (ring)      yamux, mplex      store, metrics
//! ```
//!
//! It deliberately has no type, trait or setting of its own, but for [`Parts`], which changes what
//! [`builder`] fills in.
//!
//! # Features
//!
//! | feature | on by default | brings |
//! |---|---|---|
//! | `tcp` | yes | the TCP transport, [`tcp`] |
//! | `noise` | yes | the Noise secure channel, [`noise`] |
//! | `yamux` | yes | the yamux multiplexer, in [`mux`] |
//! | `ring` | yes | ring's cipher, which [`builder`] gives to Noise: a quarter less processor time for a transfer. It needs a C compiler; without it, RustCrypto's cipher needs Rust alone |
//! | `rsa` | no | RSA identity keys; needs a C compiler |
//! | `secp256k1` | no | secp256k1 identity keys |
//! | `ecdsa` | no | ECDSA identity keys, P-256 |
//! | `pem` | no | private keys as PEM text and in PEM files |
//! | `json` | no | requests and answers in JSON, [`request::json`](request) |
//! | `dns` | no | names in addresses, `/dns`, `/dns4`, `/dns6` and `/dnsaddr`: [`dns`], which [`builder`] gives to the host with the system's configuration; 54 more crates |
//! | `metrics` | no | counters and histograms for the `metrics` facade: `docs/metrics.md` |
//! | `pnet` | no | private networks, [`pnet`] and [`private_builder`] |
//! | `full` | no | everything above |
//! | `store` | no | a file for what is known of peers, [`store`]; one more crate; needs Rust 1.90 |
//! | `openssl` | no | OpenSSL's cipher, which [`builder`] then gives to Noise, also where `ring` is on: a fifth less processor time for a transfer on processors with AVX-512; ring's is the better one on others, and for small messages. It needs the system's OpenSSL: its headers, pkg-config and a C compiler to build (Debian: `libssl-dev`, `pkg-config`), its library to run |
//! | `plaintext` | no | a channel without encryption or proof of identity, for tests: [`plaintext`] |
//! | `mplex` | no | the deprecated mplex multiplexer, in [`mux`], for peers that know no other |
//!
//! Identify and ping are part of every host.
#![cfg_attr(
    not(all(
        feature = "tcp",
        feature = "noise",
        feature = "yamux",
        feature = "dns",
        feature = "pnet",
        feature = "plaintext",
        feature = "store"
    )),
    allow(rustdoc::broken_intra_doc_links, reason = "the links are to features")
)]

pub use p2p_core::{
    self as core, AddrExt, ConnectionError, ConnectionInfo, ErrorCode, KeyError, KeyType, Keypair,
    Multiaddr, PeerId, ProtocolId, PublicKey, RecvStream, Resolve, ResolveError, SendStream, Store,
    StoreError, Stream, StreamError,
};
#[cfg(feature = "dns")]
pub use p2p_dns as dns;
pub use p2p_host::{
    AcceptedStreams, AccessRule, BuildError, Builder, Cause, Denied, DialAttempt, DialError, Event,
    Events, GatePoint, Gater, HandleError, Host, InboundError, IntoTarget, IpRange, IpRangeError,
    KeepAlive, LimitReached, ListenError, OpenError, Opening, PeerUsage, ProtocolUsage, RangeUsage,
    Stage, Target, TargetError, Usage, UsageReport, Used, identify, key_file, peerstore, perf,
    ping, request,
};
pub use p2p_multistream as multistream;
#[cfg(any(feature = "yamux", feature = "mplex"))]
pub use p2p_mux as mux;
#[cfg(feature = "pnet")]
pub use p2p_pnet as pnet;
#[cfg(feature = "noise")]
pub use p2p_security_noise as noise;
#[cfg(feature = "plaintext")]
pub use p2p_security_plaintext as plaintext;
#[cfg(feature = "store")]
pub use p2p_store_redb as store;
#[cfg(feature = "tcp")]
pub use p2p_transport_tcp as tcp;

/// What [`Builder::busy_poll`] is set to: twice what it takes to wake a thread on a processor that sleeps.
const BUSY_POLL: std::time::Duration = std::time::Duration::from_micros(100);

/// Begins a host with everything that the enabled features bring, and with
/// [`busy_poll`](Builder::busy_poll) for 100 µs. [`Parts`] does the same with other settings of it.
pub fn builder() -> Builder {
    Parts::default().builder()
}

/// What [`builder`] puts into a host, to be changed before it does.
///
/// ```
/// # #[cfg(all(feature = "tcp", feature = "noise"))] {
/// let mut parts = p2p::Parts::default();
/// parts.tcp = p2p::tcp::Tcp::new().with_port_reuse(true);
/// parts.noise_cipher = p2p::noise::cipher::Cipher::RUST_CRYPTO;
/// let builder = parts.builder().listen("/ip4/0.0.0.0/tcp/0");
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Parts {
    /// The TCP transport.
    #[cfg(feature = "tcp")]
    pub tcp: tcp::Tcp,
    /// The cipher under Noise: OpenSSL's with the feature `openssl`, else ring's with `ring`, else
    /// RustCrypto's. All speak the same bytes.
    #[cfg(feature = "noise")]
    pub noise_cipher: noise::cipher::Cipher,
    /// The yamux multiplexer.
    #[cfg(feature = "yamux")]
    pub yamux: mux::Yamux,
}

#[cfg_attr(
    not(feature = "noise"),
    allow(clippy::derivable_impls, reason = "the cipher has no default of its own")
)]
impl Default for Parts {
    fn default() -> Self {
        Self {
            #[cfg(feature = "tcp")]
            tcp: tcp::Tcp::default(),
            #[cfg(feature = "noise")]
            noise_cipher: NOISE_CIPHER,
            #[cfg(feature = "yamux")]
            yamux: mux::Yamux::default(),
        }
    }
}

impl Parts {
    /// Begins a host with these parts, and what else the enabled features bring.
    pub fn builder(self) -> Builder {
        let builder = p2p_host::builder();
        #[cfg(feature = "tcp")]
        let builder = builder.transport(self.tcp.clone());
        self.complete(builder)
    }

    /// The same for the private network of `psk`; see [`private_builder`].
    #[cfg(feature = "pnet")]
    #[cfg_attr(not(feature = "tcp"), expect(unused_variables, reason = "no transport takes it"))]
    pub fn private_builder(self, psk: pnet::PreSharedKey) -> Builder {
        let builder = p2p_host::builder();
        #[cfg(feature = "tcp")]
        let builder = builder.transport(pnet::PrivateNetwork::new(psk, self.tcp.clone()));
        self.complete(builder)
    }

    fn complete(self, builder: Builder) -> Builder {
        let builder = builder.busy_poll(BUSY_POLL);
        #[cfg(feature = "dns")]
        let builder = builder.resolver(dns::Dns::system());
        #[cfg(feature = "noise")]
        let builder = builder.security(move |identity| {
            Ok(noise::Noise::new(identity)?.with_cipher(self.noise_cipher))
        });
        #[cfg(feature = "yamux")]
        let builder = builder.muxer(self.yamux);
        #[cfg(feature = "mplex")]
        let builder = builder.muxer(mux::Mplex::default());
        builder
    }
}

/// Begins a host of the private network of `psk`: [`builder`], with every transport in a
/// [`pnet::PrivateNetwork`]. It connects to members alone, and members alone to it.
///
/// A transport that is added to it must be wrapped as well, or it is open to the public.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = p2p::pnet::PreSharedKey::generate()?; // or: std::fs::read_to_string(file)?.parse()?
/// let host = p2p::private_builder(key).listen("/ip4/127.0.0.1/tcp/0").spawn().await?;
/// # host.close().await;
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "pnet")]
pub fn private_builder(psk: pnet::PreSharedKey) -> Builder {
    Parts::default().private_builder(psk)
}

/// The paved path's choice; all speak the same bytes. `ring` is on by default, `openssl` only where
/// somebody wants it.
#[cfg(feature = "openssl")]
const NOISE_CIPHER: noise::cipher::Cipher = noise::cipher::Cipher::OPENSSL;
#[cfg(all(feature = "ring", not(feature = "openssl")))]
const NOISE_CIPHER: noise::cipher::Cipher = noise::cipher::Cipher::RING;
#[cfg(all(feature = "noise", not(any(feature = "ring", feature = "openssl"))))]
const NOISE_CIPHER: noise::cipher::Cipher = noise::cipher::Cipher::RUST_CRYPTO;

/// The README's example, compiled and run.
#[cfg(all(doctest, feature = "tcp", feature = "noise", feature = "yamux"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
