//! The course of a simulation: the hosts at work, the faults, the peace after them, the end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use p2p_host::Host;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Plan, Report, actor,
    node::Node,
    transfer::{self, Transfer},
    world::World,
};
use crate::network::{Link, Network, Random};

/// A host waits for streams, and then for its connections, as long as this.
const CLOSE_MAX: Duration = Duration::from_secs(5 + 6);
/// The longest limit of a call is 80 s. Once faults have stopped, everything ends within twice that.
const PEACE_MAX: Duration = Duration::from_secs(160);
/// How soon after the faults every host can be used again.
const USABLE_MAX: Duration = Duration::from_secs(120);

/// A fault that passes.
#[derive(Debug)]
enum Repair {
    Heal,
    Start(usize),
    Open(usize),
    Fast(usize),
}

/// Runs all of it, and says what happened and what was wrong.
pub(super) async fn take(network: Network, plan: Plan) -> (Report, Vec<String>) {
    let mut random = network.random("course");
    let is_noise = plan.noise.unwrap_or_else(|| network.seed().is_multiple_of(8));
    let nodes = (0..plan.hosts).map(|_| Node::new(network.machine(), is_noise, &mut random));
    let nodes: Vec<Node> = nodes.collect();
    network.set_default_link(draw_link(&mut random));
    let world = World::new(network, plan, nodes);
    for node in &world.nodes {
        node.start(&world).await;
    }
    let mut actors = JoinSet::new();
    for own in 0..world.nodes.len() {
        actors.spawn(actor::act(Arc::clone(&world), own));
    }
    let closing = break_things(&world, &mut random).await;
    mend(&world, closing).await;
    let all = async { while actors.join_next().await.is_some() {} };
    if timeout(PEACE_MAX, all).await.is_err() {
        let left = actors.len();
        world.wrong(format!("{left} hosts are not done {PEACE_MAX:?} after the last fault"));
        actors.abort_all();
    }
    check_usable(&world).await;
    end(&world).await;
    let network = world.network.clone();
    let (mut report, wrong) =
        world.book(|book| (std::mem::take(&mut book.report), std::mem::take(&mut book.wrong)));
    drop(world);
    (report.events, report.time) = (network.trace_events(), network.elapsed());
    (report, wrong)
}

fn draw_link(random: &mut Random) -> Link {
    let link = Link::new()
        .latency(Duration::from_millis(1) + random.time(Duration::from_millis(120)))
        .jitter(random.time(Duration::from_millis(30)));
    let link = if random.one_in(4) { link.bandwidth(50_000 << random.below(5)) } else { link };
    let link = if random.one_in(4) { link.loss(1 + random.below(60)) } else { link };
    let link = if random.one_in(4) { link.ragged() } else { link };
    if random.one_in(4) { link.buffer(4096 << random.below(5)) } else { link }
}

/// Breaks things until the time is over; gives the hosts that are being closed.
async fn break_things(world: &Arc<World>, random: &mut Random) -> JoinSet<usize> {
    let mut repairs: BTreeMap<(Instant, u64), Repair> = BTreeMap::new();
    let mut closing = JoinSet::new();
    let mut count = 0;
    let mut next = Instant::now();
    loop {
        let due = repairs.first_key_value().map(|((due, _), _)| *due);
        let at = due.map_or(next, |due| due.min(next));
        if at >= world.over_at {
            sleep_until(world.over_at).await;
            return closing;
        }
        sleep_until(at).await;
        world.nodes.iter().for_each(|node| node.check_limits(world));
        while let Some(done) = closing.try_join_next() {
            if let Ok(done) = done {
                count += 1;
                repairs.insert((at, count), Repair::Start(done));
            }
        }
        if let Some(entry) = repairs.first_entry()
            && entry.key().0 <= at
        {
            repair(world, entry.remove()).await;
            continue;
        }
        next = at + random.time(Duration::from_secs(3));
        count += 1;
        let until = at + random.time(Duration::from_secs(20));
        if let Some(passing) = break_one(world, random, &mut closing) {
            repairs.insert((until, count), passing);
        }
    }
}

async fn repair(world: &Arc<World>, repair: Repair) {
    match repair {
        Repair::Heal => world.network.heal_all(),
        Repair::Start(node) => world.nodes[node].start(world).await,
        Repair::Open(node) => world.nodes[node].machine.set_nat(false),
        Repair::Fast(node) => world.nodes[node].machine.set_read_rate(None),
    }
}

fn break_one(
    world: &Arc<World>,
    random: &mut Random,
    closing: &mut JoinSet<usize>,
) -> Option<Repair> {
    let network = &world.network;
    let nodes = &world.nodes;
    let count = u64::try_from(nodes.len()).unwrap_or(u64::MAX);
    let index = |random: &mut Random| usize::try_from(random.below(count)).unwrap_or(0);
    let (one, other) = (index(random), index(random));
    let (a, b) = (&nodes[one].machine, &nodes[other].machine);
    match random.below(10) {
        0 => {
            let share = 2 + random.below(4);
            let group = nodes.iter().filter(|_| random.one_in(share)).map(|node| &node.machine);
            network.isolate(&group.collect::<Vec<_>>());
            world.book(|book| book.report.cuts += 1);
            Some(Repair::Heal)
        }
        1 | 2 => {
            network.cut(a, b);
            world.book(|book| book.report.cuts += 1);
            Some(Repair::Heal)
        }
        3 => {
            network.cut_one_way(a, b);
            world.book(|book| book.report.cuts += 1);
            Some(Repair::Heal)
        }
        4 => {
            network.reset(a, b);
            None
        }
        5 => {
            let host = nodes[one].take_host()?;
            a.crash();
            drop(host);
            world.book(|book| book.report.crashes += 1);
            Some(Repair::Start(one))
        }
        6 => {
            let host = nodes[one].take_host()?;
            world.book(|book| book.report.closed += 1);
            let world = Arc::clone(world);
            closing.spawn(async move {
                close(&world, &host).await;
                one
            });
            None
        }
        7 => {
            a.set_nat(true);
            Some(Repair::Open(one))
        }
        8 => {
            a.set_read_rate(Some(20_000 << random.below(6)));
            Some(Repair::Fast(one))
        }
        _ => {
            network.set_link(a, b, draw_link(random));
            None
        }
    }
}

async fn close(world: &World, host: &Host) {
    let closing = timeout(2 * CLOSE_MAX, host.close());
    // One that hangs has taken too long as well.
    let _ = world.within("closing a host", CLOSE_MAX, closing).await;
    let usage = host.usage();
    let left = [
        usage.connections_inbound,
        usage.connections_outbound,
        usage.pending_inbound,
        usage.dials_at_once,
        usage.streams_inbound,
    ];
    if left.iter().any(|used| used.count > 0) {
        world.wrong(format!("a host that is closed uses {usage:?}"));
    }
}

/// Ends all faults.
async fn mend(world: &Arc<World>, mut closing: JoinSet<usize>) {
    world.network.heal_all();
    while closing.join_next().await.is_some() {}
    for node in &world.nodes {
        node.machine.set_nat(false);
        node.machine.set_read_rate(None);
        if node.host().is_none() {
            node.start(world).await;
        }
    }
}

/// Every host reaches the next one and transfers something.
async fn check_usable(world: &Arc<World>) {
    let mut checks = JoinSet::new();
    for (own, node) in world.nodes.iter().enumerate() {
        let Some(host) = node.host() else { continue };
        let peer = (own + 1) % world.nodes.len();
        let world = Arc::clone(world);
        checks.spawn(async move {
            let usable = async { while !transfers(&world, &host, peer).await {} };
            if timeout(USABLE_MAX, usable).await.is_err() {
                world.wrong(format!("host {own} does not reach host {peer} after the faults"));
            }
        });
    }
    while checks.join_next().await.is_some() {}
}

async fn transfers(world: &Arc<World>, host: &Host, peer: usize) -> bool {
    let Some(node) = world.nodes.get(peer) else { return true };
    // A connection to a host that has crashed unseen is found out by its first use.
    if host.connect(&node.addr).await.is_ok() {
        let transfer = Transfer::plain(world.new_transfer());
        if let Ok(true) = transfer::open(world, host, &node.addr, node.id, transfer).await {
            return true;
        }
    }
    sleep(Duration::from_secs(1)).await;
    false
}

/// Closes all hosts, after which nothing is left.
async fn end(world: &Arc<World>) {
    let mut closing = JoinSet::new();
    for node in &world.nodes {
        let Some(host) = node.take_host() else { continue };
        let known = host.peerstore().peers().len();
        world.book(|book| book.report.known_peers = book.report.known_peers.max(known));
        let world = Arc::clone(world);
        closing.spawn(async move { close(&world, &host).await });
    }
    while closing.join_next().await.is_some() {}
    // Tasks that look after the hosts of the scenario look for a few seconds more.
    sleep(Duration::from_secs(10)).await;
    let (connections, buffered) = (world.network.connections(), world.network.buffered());
    if connections > 0 || buffered > 0 {
        world.wrong(format!("{connections} connections and {buffered} bytes are left"));
    }
}
