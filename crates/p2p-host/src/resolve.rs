//! What the names in a target's addresses lead to (DNS-01 to DNS-07): [`Expansion`], a state
//! machine that knows no resolver, and [`Names`], which asks one for it.

use std::{collections::HashMap, fmt, net::IpAddr, sync::Arc, time::Duration};

use p2p_core::{
    AddrExt, Multiaddr, PeerId, Resolve, ResolveError, multiaddr::Protocol, parse_multiaddr,
};
use tokio::{
    task::{Id, JoinSet},
    time::{Instant, timeout},
};

use crate::{Cause, DialAttempt, Stage, Target, host::Inner, tasks::Tasks};

/// `/dnsaddr` records that lead to one another, at most (DNS-04).
const DEPTH_MAX: usize = 4;
/// Lookups for one dial, at most (DNS-04).
const LOOKUPS_MAX: usize = 32;
/// Lookups for one dial at a time.
const LOOKUPS_AT_ONCE_MAX: usize = 8;
/// Records that are used of one lookup's answer (DNS-04).
const RECORDS_MAX: usize = 16;
/// Addresses with names that are looked at for one dial, and as many again that come out of their
/// lookups, those with further names among them (DNS-04).
const ADDRS_MAX: usize = 100;
/// How long one lookup may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether an address has a name that must be looked up before it can be dialed.
pub(crate) fn has_name(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| !queries(&part).is_empty())
}

/// What a host looks names up with, if anything.
#[derive(Clone, Default)]
pub(crate) struct Resolver(Option<Arc<dyn Resolve>>);

impl Resolver {
    pub(crate) fn new(resolver: impl Resolve) -> Self {
        Self(Some(Arc::new(resolver)))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "given" } else { "none" })
    }
}

/// The names of one dial, and the tasks that look them up.
pub(crate) struct Names {
    expansion: Expansion,
    resolver: Resolver,
    tasks: Tasks,
    running: JoinSet<Result<Answer, ResolveError>>,
    lookups: HashMap<Id, (usize, String)>,
}

impl Names {
    pub(crate) fn new(host: &Arc<Inner>, target: &Target) -> Self {
        let takes = {
            let host = Arc::clone(host);
            Box::new(move |addr: &Multiaddr| host.transport(addr).is_some())
        };
        Self {
            expansion: Expansion::new(target, takes, Instant::now()),
            resolver: host.config.resolver.clone(),
            tasks: host.tasks.clone(),
            running: JoinSet::new(),
            lookups: HashMap::new(),
        }
    }

    /// Waits until every name is resolved. Cancel safe.
    pub(crate) async fn finish(&mut self) {
        while self.advance().await.is_some() {}
    }

    /// Waits for addresses that were not given yet; there are none once every name is resolved.
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Vec<Multiaddr>> {
        while self.expansion.ready.is_empty() {
            self.advance().await?;
        }
        Some(std::mem::take(&mut self.expansion.ready))
    }

    /// The names that led nowhere; `limit` is the time for the whole, if that ran out.
    pub(crate) fn failures(&self, limit: Duration) -> Vec<DialAttempt> {
        self.expansion.failures(limit, Instant::now())
    }

    /// Begins lookups and waits for one answer. Cancel safe.
    async fn advance(&mut self) -> Option<()> {
        while let Some((lookup, query)) = self.expansion.poll_lookup() {
            let Some(resolver) = self.resolver.0.clone() else {
                self.expansion.handle_answer(lookup, Err(Cause::NoResolver), Instant::now());
                continue;
            };
            let name = query.name.clone();
            let running = self.tasks.begin();
            let task = self.running.spawn(async move {
                let _running = running;
                ask(resolver, query).await
            });
            self.lookups.insert(task.id(), (lookup, name));
        }
        let (id, answer) = match self.running.join_next_with_id().await? {
            Ok((id, answer)) => (id, answer),
            Err(error) => {
                tracing::error!(%error, "a lookup panicked");
                (error.id(), Err(ResolveError::Server("the resolver panicked".into())))
            }
        };
        let (lookup, name) = self.lookups.remove(&id)?;
        let answer = answer.map_err(|error| Cause::Resolve { name, error });
        self.expansion.handle_answer(lookup, answer, Instant::now());
        Some(())
    }
}

async fn ask(resolver: Arc<dyn Resolve>, query: Query) -> Result<Answer, ResolveError> {
    let answer = async {
        Ok(match query.kind {
            Kind::Ip4 => Answer::Ips(into_ips(resolver.lookup_ip4(&query.name).await?)),
            Kind::Ip6 => Answer::Ips(into_ips(resolver.lookup_ip6(&query.name).await?)),
            Kind::Txt => Answer::Txt(resolver.lookup_txt(&query.name).await?),
        })
    };
    let answer = timeout(LOOKUP_TIMEOUT, answer).await;
    answer.unwrap_or(Err(ResolveError::TimedOut(LOOKUP_TIMEOUT)))
}

fn into_ips(ips: Vec<impl Into<IpAddr>>) -> Vec<IpAddr> {
    ips.into_iter().map(Into::into).collect()
}

/// What is looked up of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ip4,
    Ip6,
    Txt,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Query {
    kind: Kind,
    name: String,
}

enum Answer {
    Ips(Vec<IpAddr>),
    Txt(Vec<Vec<u8>>),
}

/// What must be asked to replace a component; nothing, when it is no name (DNS-01, DNS-02).
#[expect(clippy::wildcard_enum_match_arm, reason = "the multiaddr crate may add protocols")]
fn queries(part: &Protocol<'_>) -> Vec<Query> {
    let query = |kind, name: &str| Query { kind, name: name.to_owned() };
    match part {
        Protocol::Dns(name) => vec![query(Kind::Ip6, name), query(Kind::Ip4, name)],
        Protocol::Dns4(name) => vec![query(Kind::Ip4, name)],
        Protocol::Dns6(name) => vec![query(Kind::Ip6, name)],
        Protocol::Dnsaddr(name) => vec![query(Kind::Txt, &format!("_dnsaddr.{name}"))],
        _ => vec![],
    }
}

/// Replaces the names in the addresses of one target, first name first, as far as answers come.
///
/// Each question is asked once, however many addresses need it. What comes out has either no name,
/// or is taken by a transport as it is.
struct Expansion {
    peer: Option<PeerId>,
    takes: Box<dyn Fn(&Multiaddr) -> bool + Send>,
    lookups: Vec<Lookup>,
    /// How many of them have been begun, and how many of these are not answered.
    begun: usize,
    running: usize,
    named: Vec<Named>,
    /// How many addresses came out of lookups.
    made: usize,
    /// Every address without a name, and those of them that were not taken yet.
    seen: Vec<Multiaddr>,
    ready: Vec<Multiaddr>,
}

struct Lookup {
    query: Query,
    answer: Option<Result<Answer, Cause>>,
}

/// An address that waits for an answer, or has had it.
struct Named {
    addr: Multiaddr,
    /// How many `/dnsaddr` records led to it.
    depth: usize,
    lookup: usize,
    begun: Instant,
    /// How long it took, and why it led nowhere if it did.
    ended: Option<(Duration, Option<Cause>)>,
}

impl Expansion {
    fn new(target: &Target, takes: Box<dyn Fn(&Multiaddr) -> bool + Send>, now: Instant) -> Self {
        let mut expansion = Self {
            peer: target.peer,
            takes,
            lookups: Vec::new(),
            begun: 0,
            running: 0,
            named: Vec::new(),
            made: 0,
            seen: Vec::new(),
            ready: Vec::new(),
        };
        let mut names = 0;
        for addr in &target.addrs {
            if has_name(addr) {
                names += 1;
                if names > ADDRS_MAX {
                    continue;
                }
            }
            expansion.add(addr.clone(), 0, now);
        }
        expansion
    }

    /// The next lookup to begin, with the number to answer it by.
    fn poll_lookup(&mut self) -> Option<(usize, Query)> {
        let (number, lookup) = (self.begun, self.lookups.get(self.begun)?);
        if self.running >= LOOKUPS_AT_ONCE_MAX {
            return None;
        }
        self.begun += 1;
        self.running += 1;
        Some((number, lookup.query.clone()))
    }

    fn handle_answer(&mut self, number: usize, answer: Result<Answer, Cause>, now: Instant) {
        let Some(lookup) = self.lookups.get_mut(number).filter(|l| l.answer.is_none()) else {
            return;
        };
        lookup.answer = Some(answer);
        self.running -= 1;
        // What comes out may need an answer that is there already.
        while self.settle_one(now) {}
    }

    /// Replaces the name of one address whose answer is there.
    fn settle_one(&mut self, now: Instant) -> bool {
        let Self { named, lookups, .. } = self;
        let open = named.iter_mut().filter(|named| named.ended.is_none());
        let mut answered = open.filter_map(|named| {
            let lookup = lookups.get(named.lookup)?;
            Some((named, &lookup.query, lookup.answer.as_ref()?))
        });
        let Some((named, query, answer)) = answered.next() else { return false };
        let (addr, mut depth) = (&named.addr, named.depth);
        let made = match answer {
            Ok(Answer::Ips(ips)) => Ok(with_ips(addr, ips)),
            Ok(Answer::Txt(records)) => {
                depth += 1;
                Ok(with_records(addr, records, self.peer))
            }
            Err(cause) => Err(cause.clone()),
        };
        let name = query.name.clone();
        let made = made.and_then(|made| match made.is_empty() {
            true => Err(Cause::Resolve { name, error: ResolveError::NoRecords }),
            false => Ok(made),
        });
        named.ended = Some((now - named.begun, made.as_ref().err().cloned()));
        for addr in made.unwrap_or_default() {
            if self.made >= ADDRS_MAX {
                tracing::debug!(max = ADDRS_MAX, "names lead to more addresses than are looked at");
                break;
            }
            self.made += 1;
            self.add(addr, depth, now);
        }
        true
    }

    fn add(&mut self, addr: Multiaddr, depth: usize, now: Instant) {
        let queries = addr.iter().map(|part| queries(&part)).find(|queries| !queries.is_empty());
        let Some(queries) = queries.filter(|_| !(self.takes)(&without_peer(&addr))) else {
            // The peer that a target names is known; others are checked by what the records say.
            let addr = match self.peer {
                Some(_) if self.made > 0 => without_peer(&addr),
                Some(_) | None => addr,
            };
            if !self.seen.contains(&addr) {
                self.seen.push(addr.clone());
                self.ready.push(addr);
            }
            return;
        };
        for query in queries {
            let too_deep = query.kind == Kind::Txt && depth >= DEPTH_MAX;
            let known = self.lookups.iter().position(|lookup| lookup.query == query);
            let ended = match known {
                _ if too_deep => Some(("`dnsaddr` records one after another", DEPTH_MAX)),
                None if self.lookups.len() >= LOOKUPS_MAX => Some(("lookups", LOOKUPS_MAX)),
                Some(_) | None => None,
            };
            let ended = ended
                .map(|(what, value)| (Duration::ZERO, Some(Cause::NamesLimit { what, value })));
            if known.is_none() && ended.is_none() {
                self.lookups.push(Lookup { query, answer: None });
            }
            let lookup = known.unwrap_or(self.lookups.len().saturating_sub(1));
            self.named.push(Named { addr: addr.clone(), depth, lookup, begun: now, ended });
        }
    }

    /// One failure for each address of which no question led anywhere. Of two causes it is the
    /// one that says more than that there is no such record.
    fn failures(&self, limit: Duration, now: Instant) -> Vec<DialAttempt> {
        let mut failures: Vec<DialAttempt> = Vec::new();
        for Named { addr, begun, ended, .. } in &self.named {
            let (elapsed, cause) = match ended {
                Some((_, None)) => continue,
                Some((elapsed, Some(cause))) => (*elapsed, cause.clone()),
                None => (now - *begun, Cause::TimedOut(limit)),
            };
            let led = |other: &Named| other.addr == *addr && matches!(other.ended, Some((_, None)));
            if self.named.iter().any(led) {
                continue;
            }
            let failure = DialAttempt { addr: addr.clone(), stage: Stage::Resolve, elapsed, cause };
            match failures.iter_mut().find(|other| other.addr == *addr) {
                Some(other) if says_little(&other.cause) => *other = failure,
                Some(_) => {}
                None => failures.push(failure),
            }
        }
        failures
    }
}

fn says_little(cause: &Cause) -> bool {
    matches!(cause, Cause::Resolve { error: ResolveError::NoRecords, .. })
}

fn without_peer(addr: &Multiaddr) -> Multiaddr {
    addr.split_peer().map_or_else(|_| addr.clone(), |(addr, _)| addr)
}

/// Puts each IP address in the place of the first name; the rest stays (DNS-01).
fn with_ips(addr: &Multiaddr, ips: &[IpAddr]) -> Vec<Multiaddr> {
    let (before, name, after) = split_name(addr);
    let after = keep_for_tls(name, after);
    let with_ip = |ip: &IpAddr| {
        let parts = before.iter().cloned().chain([Protocol::from(*ip)]);
        parts.chain(after.iter().cloned()).collect()
    };
    ips.iter().take(RECORDS_MAX).map(with_ip).collect()
}

/// What stands before the first name, the name, and what stands after it.
fn split_name(addr: &Multiaddr) -> (Vec<Protocol<'_>>, Option<Protocol<'_>>, Vec<Protocol<'_>>) {
    let mut parts = addr.iter();
    let mut before = Vec::new();
    let name = loop {
        match parts.next() {
            Some(part) if queries(&part).is_empty() => before.push(part),
            name => break name,
        }
    };
    (before, name, parts.collect())
}

/// TLS shows the server the name that it is asked for, and checks it: the name stays, as `/sni`,
/// up to where another host's part of the address begins (DNS-06).
fn keep_for_tls<'a>(name: Option<Protocol<'a>>, after: Vec<Protocol<'a>>) -> Vec<Protocol<'a>> {
    let Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) = name else {
        return after;
    };
    let sni = || Protocol::Sni(name.clone());
    let (mut kept, mut foreign) = (Vec::with_capacity(after.len()), false);
    let mut parts = after.into_iter().peekable();
    while let Some(part) = parts.next() {
        foreign |= part == Protocol::P2pCircuit;
        #[expect(clippy::wildcard_enum_match_arm, reason = "the multiaddr crate may add protocols")]
        match part {
            Protocol::Tls if !foreign && !matches!(parts.peek(), Some(Protocol::Sni(_))) => {
                kept.extend([Protocol::Tls, sni()]);
            }
            Protocol::Wss(path) if !foreign => {
                kept.extend([Protocol::Tls, sni(), Protocol::Ws(path)]);
            }
            part => kept.push(part),
        }
    }
    kept
}

/// What stands before `/dnsaddr`, with each record that ends in the components after it and does
/// not name another peer than `peer` (DNS-02, DNS-03, DNS-05).
fn with_records(addr: &Multiaddr, records: &[Vec<u8>], peer: Option<PeerId>) -> Vec<Multiaddr> {
    let (before, _, suffix) = split_name(addr);
    let usable = records.iter().filter_map(|record| {
        let text = std::str::from_utf8(record.strip_prefix(b"dnsaddr=")?).ok()?;
        let record = parse_multiaddr(text).ok()?;
        let (bare, named) = record.split_peer().ok()?;
        let wanted = named.is_none() || peer.is_none() || named == peer;
        let parts: Vec<Protocol<'_>> = record.iter().collect();
        let usable = wanted && !bare.is_empty() && parts.ends_with(&suffix);
        usable.then(|| before.iter().cloned().chain(parts).collect())
    });
    usable.take(RECORDS_MAX).collect()
}
