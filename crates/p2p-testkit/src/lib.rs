//! A simulated network in one process, scripted hostile peers and conformance suites, for tests of
//! programs that use the `p2p` libp2p implementation.

pub mod conformance;
pub mod hostile;
pub mod network;
pub mod simulation;
