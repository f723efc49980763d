//! Suites that check what the traits of `p2p-core` ask of an implementation.
