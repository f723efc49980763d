//! What a host does: one thing after the other, and some at a time.

use std::{sync::Arc, time::Duration};

use p2p_core::{AddrExt, Keypair, Multiaddr, PeerId};
use p2p_host::Host;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    node::PORT,
    transfer::{self, Transfer},
    world::World,
};
use crate::network::Random;

/// Actions of one host that may be under way.
const AT_ONCE_MAX: usize = 6;
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// A dial, a stream, and a round trip.
const PING_MAX: Duration = Duration::from_secs(30 + 10 + 10);
const IDENTIFY_MAX: Duration = Duration::from_secs(30 + 10 + 10);

/// The task of one node, until the simulation is over and all that it began has ended.
pub(super) async fn act(world: Arc<World>, own: usize) {
    let mut random = world.network.random(&format!("actor {own}"));
    let mut under_way = JoinSet::new();
    while Instant::now() < world.over_at {
        sleep(random.time(world.plan.pause)).await;
        while under_way.len() >= AT_ONCE_MAX {
            end_one(&world, &mut under_way).await;
        }
        let Some(host) = world.nodes.get(own).and_then(|node| node.host()) else { continue };
        // Several tasks that ask for one peer at a time share its dial.
        let twins = if random.one_in(8) { 3 } else { 1 };
        let peer = other_than(own, world.nodes.len(), &mut random);
        let action = random.below(100);
        for _ in 0..twins {
            let (world, host) = (Arc::clone(&world), host.clone());
            let random = Random::new(random.number());
            under_way.spawn(async move { act_once(&world, &host, peer, action, random).await });
        }
    }
    while !under_way.is_empty() {
        end_one(&world, &mut under_way).await;
    }
}

async fn end_one(world: &World, under_way: &mut JoinSet<()>) {
    if let Some(Err(error)) = under_way.join_next().await {
        world.wrong(format!("an action panicked: {error}"));
    }
}

fn other_than(own: usize, count: usize, random: &mut Random) -> usize {
    let others = u64::try_from(count.saturating_sub(1)).unwrap_or(u64::MAX);
    let step = 1 + usize::try_from(random.below(others)).unwrap_or(0);
    (own + step) % count
}

async fn act_once(world: &Arc<World>, host: &Host, peer: usize, action: u64, mut random: Random) {
    let Some(node) = world.nodes.get(peer) else { return };
    let (addr, id) = (node.addr.clone(), node.id);
    let failed = match action {
        0..55 => transfer(world, host, &addr, id, random).await,
        55..60 => transfer(world, host, id, id, random).await,
        60..65 => {
            // Dropped at any point, it leaves nothing behind.
            let limit = random.time(Duration::from_millis(300));
            timeout(limit, transfer(world, host, &addr, id, random)).await.unwrap_or(false)
        }
        65..75 => {
            let connecting = host.connect(&addr);
            let connected = world.within("connecting", CONNECT_MAX, connecting).await;
            if connected.as_ref().is_ok_and(|info| info.peer() != id) {
                world.wrong("a connection leads to another peer than the one that was named");
            }
            is_error(world, connected)
        }
        75..82 => is_error(world, world.within("a ping", PING_MAX, host.ping(&addr)).await),
        82..86 => {
            let identified = world.within("identify", IDENTIFY_MAX, host.identify(&addr)).await;
            is_error(world, identified)
        }
        86..91 => {
            host.disconnect(&id);
            false
        }
        91..95 => {
            let opening = world.within("opening", CONNECT_MAX * 3, async {
                host.open(&addr, "/nobody/serves/this").await
            });
            let opened = opening.await;
            if opened.is_ok() {
                world.wrong("a stream is open for a protocol that nobody serves");
            }
            is_error(world, opened)
        }
        _ => {
            let addr = nowhere(node.addr.clone(), &mut random);
            let connected = world.within("connecting", CONNECT_MAX, host.connect(&addr)).await;
            if connected.is_ok() {
                world.wrong(format!("a dial of {addr} leads somewhere"));
            }
            is_error(world, connected)
        }
    };
    world.book(|book| book.report.errors += u64::from(failed));
}

/// An address where the peer that it names is not.
fn nowhere(addr: Multiaddr, random: &mut Random) -> Multiaddr {
    let stranger = Keypair::from_ed25519_seed(&random.bytes()).public().peer_id();
    let text = match random.below(3) {
        0 => addr.to_string(),
        1 => addr.to_string().replace(&format!("/tcp/{PORT}"), "/tcp/9"),
        _ => format!("/ip4/10.99.0.1/tcp/{PORT}"),
    };
    text.parse().unwrap_or(addr).with_peer(&stranger)
}

async fn transfer(
    world: &Arc<World>,
    host: &Host,
    target: impl p2p_host::IntoTarget,
    peer: PeerId,
    mut random: Random,
) -> bool {
    let transfer = Transfer::draw(world.new_transfer(), &mut random);
    match transfer::open(world, host, target, peer, transfer).await {
        Ok(is_whole) => {
            world.book(|book| {
                book.report.whole += u64::from(is_whole);
                book.report.ended += u64::from(!is_whole);
            });
            false
        }
        Err(error) => {
            world.book(|book| book.report.ended += 1);
            check_text(world, &error.to_string());
            true
        }
    }
}

fn is_error<T, E: std::fmt::Display>(world: &World, result: Result<T, E>) -> bool {
    if let Err(error) = &result {
        check_text(world, &error.to_string());
    }
    result.is_err()
}

fn check_text(world: &World, text: &str) {
    if text.is_empty() {
        world.wrong("an error has no text");
    }
}
