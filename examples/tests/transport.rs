//! The example of a transport keeps the contract of its trait.

use std::sync::Arc;

use p2p::core::{Multiaddr, multiaddr::Protocol};
use p2p_testkit::conformance;

#[path = "../unix_transport.rs"]
#[expect(dead_code, reason = "its main function")]
mod unix_transport;

#[tokio::test]
async fn a_transport_of_ones_own_keeps_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket").to_string_lossy().into_owned();
    let socket = Protocol::Unix(socket.trim_start_matches('/').to_owned().into());
    let foreign = "/ip4/127.0.0.1/tcp/1".parse().expect("an address");
    let transport = Arc::new(unix_transport::Unix);
    let checked = conformance::transport(transport, Multiaddr::empty().with(socket), foreign).await;
    checked.expect("no violation");
}
