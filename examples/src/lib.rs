//! The guide in `docs/guide`: its code is compiled and run as the documentation tests of this
//! crate. The examples lie beside it, one file each.

#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/src/first-program.md")]
struct FirstProgram;

#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/src/streams.md")]
struct Streams;

#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/src/dialing.md")]
struct Dialing;

#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/src/errors.md")]
struct Errors;

#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/src/limits.md")]
struct Limits;

#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/src/from-rust-libp2p.md")]
struct FromRustLibp2p;

#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/src/from-go-libp2p.md")]
struct FromGoLibp2p;

#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/src/deployment.md")]
struct Deployment;

#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/src/testing.md")]
struct Testing;

#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/src/transport.md")]
struct Transport;
