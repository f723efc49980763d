//! Every byte of a connection's life failed once: cut, stalled, changed, replaced. Time is paused.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Fault, Network, Plan, builder, echo_host, echo_once, tasks};
use tokio::time::timeout;

/// More than either side sends in the exchange below.
const LAST_BYTE: usize = 1100;
/// Every wait has a limit. The longest is the multiplexer's keep-alive, which notices a peer that
/// is silent in the middle of a record: 90 s.
const ALL_LIMITS: Duration = Duration::from_secs(120);

/// One dial, stream and ping over links with a fault. What matters is that it ends, with either
/// success or an error that says where, and that the other side is as it was.
async fn one_faulty_connection(network: &Network, addr: &str, plan: Plan) {
    let dialer = builder(network, Some(plan)).spawn().await.unwrap();
    let exchange = echo_once(&dialer, addr, b"sixteen bytes ok");
    match timeout(ALL_LIMITS, exchange).await {
        Ok(Ok(back)) => assert_eq!(back, b"sixteen bytes ok", "{plan:?}"),
        Ok(Err(text)) => assert!(!text.is_empty(), "{plan:?}"),
        Err(_) => panic!("hangs: {plan:?}"),
    }
    timeout(ALL_LIMITS, dialer.close()).await.unwrap_or_else(|_| panic!("close hangs: {plan:?}"));
}

async fn every_byte(fault: Fault, outbound: bool) {
    let network = Network::default();
    let listener = echo_host(&network, "/memory/7").await;
    let addr = listener.addrs().remove(0);
    let bystander = builder(&network, None).spawn().await.unwrap();
    assert_eq!(echo_once(&bystander, &addr, b"before").await.unwrap(), b"before");
    let guards = [
        bystander.keep_alive(&listener.peer_id()).unwrap(),
        listener.keep_alive(&bystander.peer_id()).unwrap(),
    ];
    let connection = bystander.connections(&listener.peer_id());
    let at_rest = tasks();

    for at in 0..LAST_BYTE {
        one_faulty_connection(&network, &addr, Plan { fault, at, outbound }).await;
    }

    // The limits of the listener's side run out as well; then only the bystander is left.
    tokio::time::sleep(ALL_LIMITS).await;
    assert_eq!(listener.peers(), [bystander.peer_id()]);
    assert_eq!(tasks(), at_rest, "a task is left behind");
    let usage = listener.usage();
    assert_eq!((usage.pending_inbound.count, usage.connections_inbound.count), (0, 1));
    assert_eq!((usage.streams_inbound.count, usage.streams_outbound.count), (0, 0));
    assert_eq!(echo_once(&bystander, &addr, b"after").await.unwrap(), b"after");
    let same = bystander.connections(&listener.peer_id());
    assert_eq!(connection.len(), 1);
    assert!(std::sync::Arc::ptr_eq(&connection[0], &same[0]), "the bystander was disturbed");
    drop(guards);
    bystander.close().await;
    listener.close().await;
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn conn_08_mss_35_what_the_dialer_sends_is_cut_at_every_byte() {
    every_byte(Fault::Cut, true).await;
}

#[tokio::test(start_paused = true)]
async fn conn_08_mss_35_what_the_listener_sends_is_cut_at_every_byte() {
    every_byte(Fault::Cut, false).await;
}

#[tokio::test(start_paused = true)]
async fn mss_34_35_conn_10_the_dialer_goes_silent_at_every_byte() {
    every_byte(Fault::Stall, true).await;
}

#[tokio::test(start_paused = true)]
async fn mss_34_35_conn_10_the_listener_goes_silent_at_every_byte() {
    every_byte(Fault::Stall, false).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_dialer_sends_is_changed_in_every_byte() {
    every_byte(Fault::Flip, true).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_listener_sends_is_changed_in_every_byte() {
    every_byte(Fault::Flip, false).await;
}

#[tokio::test(start_paused = true)]
async fn conn_08_the_dialer_sends_garbage_from_every_byte_on() {
    every_byte(Fault::Garbage, true).await;
}

#[tokio::test(start_paused = true)]
async fn conn_08_the_listener_sends_garbage_from_every_byte_on() {
    every_byte(Fault::Garbage, false).await;
}
