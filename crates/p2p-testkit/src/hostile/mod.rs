//! Peers that send exactly the bytes a test says.
