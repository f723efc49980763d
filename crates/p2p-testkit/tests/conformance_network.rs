//! The transport suite on the simulated network.

use std::sync::Arc;

use p2p_testkit::{
    conformance::{self, Violation},
    network::Network,
};

#[tokio::test(start_paused = true)]
async fn the_simulated_network_keeps_the_contract_of_a_transport() -> Result<(), Violation> {
    let machine = Network::new(7).machine();
    let foreign = "/ip4/192.0.2.1/udp/1".parse().unwrap();
    conformance::transport(Arc::new(machine.transport()), machine.addr(0), foreign).await
}
