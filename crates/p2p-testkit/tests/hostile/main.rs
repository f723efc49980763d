//! What hostile peers get: each case is a script, and each is held to three things. The offender
//! gets what the case says. An honest peer's echoes, measured all the while, take no time. And the
//! memory that the offender costs stays within what `docs/limits.md` publishes.
//!
//! The time is paused and the pipes are in memory, so that "no time" is exact.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bounds;
#[path = "../../../p2p/tests/common/mod.rs"]
mod common;
mod connections;
mod field;
mod handshake;
mod host;
mod mplex;
mod negotiation;
mod streams;
mod yamux;
