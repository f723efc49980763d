use std::{
    fmt, iter,
    net::{Ipv4Addr, Ipv6Addr},
};

use multiaddr::{Error, Multiaddr, Protocol};

use crate::{PeerId, PeerIdError};

/// The longest address that is decoded, in bytes. A name takes at most 255, an I2P destination
/// some 400; a relayed address holds two.
const LEN_MAX: usize = 1024;
/// The longest text that is parsed, in bytes: the longest address, mostly percent-encoded.
const TEXT_LEN_MAX: usize = 4096;
/// How much of a wrong text an error shows, in characters.
const SHOWN_LEN_MAX: usize = 80;

/// What libp2p does with addresses, beside taking them apart.
///
/// Addresses are equal when their bytes are (MA-07): that is what `==` compares.
pub trait AddrExt: Sized {
    /// Splits a trailing `/p2p/<id>` off (MA-10); the address is whole without one. In a relayed
    /// address it names the target; the id before `/p2p-circuit` is the relay's.
    ///
    /// # Errors
    /// [`AddrPeerError`] when the component's multihash is not a peer id of ours (a SHA-256
    /// digest that is not 32 bytes long, or an identity multihash that holds no key).
    fn split_peer(&self) -> Result<(Self, Option<PeerId>), AddrPeerError>;

    /// The address with `/p2p/<id>` at its end, in the place of one that is there.
    #[must_use]
    fn with_peer(&self, peer: &PeerId) -> Self;

    /// What stands before the last occurrence of `suffix`; the whole address when it does not
    /// occur, or when `suffix` is empty (MA-08).
    #[must_use]
    fn decapsulate(&self, suffix: &Self) -> Self;

    /// The address without `/ip6zone`, which means something on this machine only (MA-22).
    #[must_use]
    fn without_zone(&self) -> Self;

    /// From how far away the address can be dialled. A relayed address is judged by its relay's.
    fn reach(&self) -> Reach;
}

/// From how far away an address can be dialled, nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reach {
    /// From nowhere: it names no host (`/tcp/1`, `/p2p/<relay>/p2p-circuit`), or an address that
    /// no host has: unspecified, multicast, reserved, for documentation or benchmarking.
    Unroutable,
    /// From within this process or by this machine's files: `/memory`, `/unix`.
    Process,
    /// From this machine: 127.0.0.0/8, `::1`, `localhost`.
    Loopback,
    /// From the same link: 169.254.0.0/16, fe80::/10.
    LinkLocal,
    /// From the same site: RFC 1918, carriers' NAT (100.64.0.0/10), fc00::/7, and names that are
    /// not in the public tree, such as `.local` and those without a dot.
    Private,
    /// From everywhere: the rest of the unicast addresses, names, onion services and I2P.
    Public,
}

/// The addresses among `addrs` to tell a peer whose own address is `remote`: those that can be
/// dialled from where it is, without zones and each once (IDENT-06, MA-22).
///
/// A loopback peer hears all, a private one what is private or public, a public one what is
/// public. A memory or Unix address is told to peers that come by one, and to nobody else
/// (MA-38, MA-39).
#[must_use]
pub fn addrs_for<'a>(
    remote: &Multiaddr,
    addrs: impl IntoIterator<Item = &'a Multiaddr>,
) -> Vec<Multiaddr> {
    let nearest = match remote.reach() {
        // It has come from somewhere, though not from there.
        Reach::Unroutable => Reach::Public,
        nearest @ (Reach::Process
        | Reach::Loopback
        | Reach::LinkLocal
        | Reach::Private
        | Reach::Public) => nearest,
    };
    let mut told = Vec::new();
    for addr in addrs {
        let addr = addr.without_zone();
        if addr.reach() >= nearest && !told.contains(&addr) {
            told.push(addr);
        }
    }
    told
}

/// Parses the text of an address as people write it.
///
/// Beside what the `multiaddr` crate takes: slashes at the end (MA-06), and a peer id in any text
/// form (MA-34). Refused, unlike there: the empty address (MA-05), empty values, names with
/// control characters, and what is not a peer id after `/p2p/`.
///
/// # Errors
/// [`AddrError`] says which component is wrong, and how.
pub fn parse_multiaddr(text: &str) -> Result<Multiaddr, AddrError> {
    let whole = |problem| AddrError::new(0, text, problem);
    if text.len() > TEXT_LEN_MAX {
        return Err(whole(AddrProblem::TooLong { len: text.len(), max: TEXT_LEN_MAX }));
    }
    if text.trim_end_matches('/').is_empty() {
        return Err(whole(AddrProblem::Empty));
    }
    let body = text.strip_prefix('/').ok_or_else(|| whole(AddrProblem::NoSlash))?;
    let mut parts = body.trim_end_matches('/').split('/').peekable();
    let mut addr = Multiaddr::empty();
    for component in 1.. {
        let Some(&name) = parts.peek() else { break };
        let value = parts.clone().nth(1);
        let parsed = parse_component(name, value, &mut parts)
            .and_then(|protocol| check(&protocol).map(|()| protocol));
        let protocol = parsed.map_err(|problem| {
            let text = iter::once(name).chain(value).collect::<Vec<_>>().join("/");
            AddrError::new(component, &text, problem)
        })?;
        addr.push(protocol);
    }
    if addr.len() > LEN_MAX {
        return Err(whole(AddrProblem::TooLong { len: addr.len(), max: LEN_MAX }));
    }
    Ok(addr)
}

fn parse_component<'a>(
    name: &str,
    value: Option<&str>,
    parts: &mut impl Iterator<Item = &'a str>,
) -> Result<Protocol<'a>, AddrProblem> {
    if matches!(name, "p2p" | "ipfs") {
        let peer: PeerId = value.ok_or(AddrProblem::NoValue)?.parse()?;
        parts.nth(1);
        return Ok(p2p(&peer));
    }
    Protocol::from_str_parts(parts).map_err(|error| match value {
        None if matches!(error, Error::InvalidProtocolString) => AddrProblem::NoValue,
        _ => problem(&error),
    })
}

/// Decodes an address from the wire.
///
/// Beside what the `multiaddr` crate refuses: the empty address (MA-05), empty values (MA-03),
/// names with a slash or control characters, whose text would be that of another address, and
/// what is not a peer id in `/p2p`.
///
/// # Errors
/// [`AddrError`] says which component is wrong, and how.
pub fn decode_multiaddr(bytes: &[u8]) -> Result<Multiaddr, AddrError> {
    if bytes.is_empty() {
        return Err(AddrError::new(0, "", AddrProblem::Empty));
    }
    if bytes.len() > LEN_MAX {
        let problem = AddrProblem::TooLong { len: bytes.len(), max: LEN_MAX };
        return Err(AddrError::new(0, "", problem));
    }
    let mut rest = bytes;
    for component in 1.. {
        if rest.is_empty() {
            break;
        }
        let (protocol, after) = Protocol::from_bytes(rest).map_err(|error| {
            let hex: String = rest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            AddrError::new(component, &hex, problem(&error))
        })?;
        check(&protocol)
            .map_err(|problem| AddrError::new(component, &protocol.to_string(), problem))?;
        rest = after;
    }
    Ok(Multiaddr::try_from(bytes.to_vec()).expect("every component has been decoded"))
}

/// What the multiaddr crate lets through, in texts or on the wire.
#[expect(clippy::wildcard_enum_match_arm, reason = "the multiaddr crate may add protocols")]
fn check(protocol: &Protocol<'_>) -> Result<(), AddrProblem> {
    match protocol {
        Protocol::Dns(name)
        | Protocol::Dns4(name)
        | Protocol::Dns6(name)
        | Protocol::Dnsaddr(name)
        | Protocol::Sni(name)
        | Protocol::Ip6zone(name) => {
            if name.contains(|c: char| c == '/' || c.is_control()) {
                return Err(AddrProblem::Name);
            }
            not_empty(name)
        }
        Protocol::Unix(path) if path.contains(char::is_control) => Err(AddrProblem::Name),
        Protocol::Unix(path)
        | Protocol::HttpPath(path)
        | Protocol::Ws(path)
        | Protocol::Wss(path) => not_empty(path),
        Protocol::Onion(_, port) => not_zero(*port),
        Protocol::Onion3(onion) => not_zero(onion.port()),
        // 387 is the shortest destination of I2P; the multiaddr crate's text form ends at 462.
        Protocol::Garlic64(destination) => i2p(destination, |len| (387..=462).contains(&len)),
        Protocol::Garlic32(hash) => i2p(hash, |len| len == 32 || len >= 35),
        Protocol::P2p(foreign) => Ok(PeerId::from_bytes(&foreign.to_bytes()).map(drop)?),
        _ => Ok(()),
    }
}

fn not_empty(value: &str) -> Result<(), AddrProblem> {
    if value.is_empty() { Err(AddrProblem::NoValue) } else { Ok(()) }
}

/// MA-41.
fn i2p(value: &[u8], allowed: impl Fn(usize) -> bool) -> Result<(), AddrProblem> {
    let problem = || AddrProblem::Value(format!("no I2P address has {} bytes", value.len()));
    if allowed(value.len()) { Ok(()) } else { Err(problem()) }
}

fn not_zero(port: u16) -> Result<(), AddrProblem> {
    if port == 0 { Err(AddrProblem::Value("port 0".into())) } else { Ok(()) }
}

fn problem(error: &Error) -> AddrProblem {
    if matches!(error, Error::UnknownProtocolString(_) | Error::UnknownProtocolId(_)) {
        return AddrProblem::UnknownProtocol;
    }
    // Without the words that the multiaddr crate puts before what has gone wrong.
    let inner =
        if let Error::ParsingError(inner) = error { inner.to_string() } else { error.to_string() };
    AddrProblem::Value(inner)
}

/// Why a text or bytes are not an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddrError {
    /// The component that is wrong, counted from 1; 0 is the whole address.
    pub component: usize,
    /// Its text, such as `ip4/localhost`, or hexadecimal digits when it has none; cut where it
    /// is long.
    pub text: String,
    /// What is wrong with it.
    pub problem: AddrProblem,
}

impl AddrError {
    fn new(component: usize, text: &str, problem: AddrProblem) -> Self {
        Self { component, text: text.chars().take(SHOWN_LEN_MAX).collect(), problem }
    }
}

impl std::error::Error for AddrError {}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { component, text, problem } = self;
        match component {
            0 => write!(f, "{problem}"),
            _ => write!(f, "component {component}, {text:?}: {problem}"),
        }
    }
}

/// What is wrong with an address, or with a component of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddrProblem {
    /// It has no component (MA-05).
    #[error("it is empty")]
    Empty,
    /// It is longer than allowed.
    #[error("{len} bytes are too long: at most {max} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest allowed, in bytes.
        max: usize,
    },
    /// The text does not begin with a slash (MA-02).
    #[error("it does not begin with a slash")]
    NoSlash,
    /// No protocol has this name or code (MA-04).
    #[error("there is no such protocol")]
    UnknownProtocol,
    /// The protocol needs a value, and has none or an empty one (MA-03).
    #[error("its value is missing")]
    NoValue,
    /// The value is not one of the protocol's.
    #[error("{0}")]
    Value(String),
    /// A name that has a slash or a control character in it.
    #[error("the name has a slash or a control character in it")]
    Name,
    /// The value of `/p2p` is not a peer id.
    #[error("{0}")]
    Peer(#[from] PeerIdError),
}

/// The peer id in an address is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer id at the end of {addr} is not valid: {source}")]
#[non_exhaustive]
pub struct AddrPeerError {
    /// The address.
    pub addr: Multiaddr,
    /// What is wrong with the id.
    pub source: PeerIdError,
}

impl AddrExt for Multiaddr {
    fn split_peer(&self) -> Result<(Self, Option<PeerId>), AddrPeerError> {
        let mut addr = self.clone();
        let Some(Protocol::P2p(foreign)) = addr.pop() else {
            return Ok((self.clone(), None));
        };
        let peer = PeerId::from_bytes(&foreign.to_bytes())
            .map_err(|source| AddrPeerError { addr: self.clone(), source })?;
        Ok((addr, Some(peer)))
    }

    fn with_peer(&self, peer: &PeerId) -> Self {
        let mut addr = self.clone();
        if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
            addr.pop();
        }
        addr.push(p2p(peer));
        addr
    }

    fn decapsulate(&self, suffix: &Self) -> Self {
        let bytes = self.as_ref();
        let mut cut = None;
        let mut rest = bytes;
        while let Ok((_, after)) = Protocol::from_bytes(rest) {
            if !suffix.is_empty() && rest.starts_with(suffix.as_ref()) {
                cut = Some(bytes.len() - rest.len());
            }
            rest = after;
        }
        let Some(before) = cut.and_then(|cut| bytes.get(..cut)) else { return self.clone() };
        Self::try_from(before.to_vec()).expect("an address that is cut between its components")
    }

    fn without_zone(&self) -> Self {
        if !self.iter().any(|part| matches!(part, Protocol::Ip6zone(_))) {
            return self.clone();
        }
        self.iter().filter(|part| !matches!(part, Protocol::Ip6zone(_))).collect()
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the multiaddr crate may add protocols")]
    fn reach(&self) -> Reach {
        let Some(host) = self.iter().find(|part| !matches!(part, Protocol::Ip6zone(_))) else {
            return Reach::Unroutable;
        };
        match host {
            Protocol::Ip4(ip) => reach_ip4(ip),
            Protocol::Ip6(ip) => reach_ip6(ip),
            Protocol::Dns(name)
            | Protocol::Dns4(name)
            | Protocol::Dns6(name)
            | Protocol::Dnsaddr(name) => reach_name(&name),
            Protocol::Onion(..)
            | Protocol::Onion3(_)
            | Protocol::Garlic64(_)
            | Protocol::Garlic32(_) => Reach::Public,
            Protocol::Memory(_) | Protocol::Unix(_) => Reach::Process,
            _ => Reach::Unroutable,
        }
    }
}

fn p2p(peer: &PeerId) -> Protocol<'static> {
    let foreign = multiaddr::PeerId::from_bytes(peer.as_bytes())
        .expect("the multihash of a peer id is one for the multiaddr crate as well");
    Protocol::P2p(foreign)
}

/// After IANA's registry of special-purpose IPv4 addresses.
fn reach_ip4(ip: Ipv4Addr) -> Reach {
    match ip.octets() {
        [127, ..] => Reach::Loopback,
        [169, 254, ..] => Reach::LinkLocal,
        [10, ..] | [100, 64..=127, ..] | [172, 16..=31, ..] | [192, 168, ..] => Reach::Private,
        // This network, IETF's own, documentation, 6to4 relays, benchmarking, multicast, reserved.
        [0, ..]
        | [192, 0, 0 | 2, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [224..=255, ..] => Reach::Unroutable,
        _ => Reach::Public,
    }
}

/// After IANA's registries of special-purpose IPv6 addresses and of the address space.
fn reach_ip6(ip: Ipv6Addr) -> Reach {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        reach_ip4(Ipv4Addr::new(a, b, c, d))
    };
    // Gateways between the families lead to public hosts, or nowhere.
    let through_gateway = |reach| if reach == Reach::Public { reach } else { Reach::Unroutable };
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Loopback,
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low),
        [0xfe80..=0xfebf, ..] => Reach::LinkLocal,
        // Unique local, and the site-local addresses before them; NAT64 of one's own.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] | [0x64, 0xff9b, 1, ..] => Reach::Private,
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            through_gateway(embedded(high, low))
        }
        // IETF's own (Teredo, benchmarking, ORCHID), and documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reach::Unroutable,
        [0x2000..=0x3fff, ..] => Reach::Public,
        // The unspecified address, discard-only, segment routing, multicast, and not yet given out.
        _ => Reach::Unroutable,
    }
}

/// After the registry of special-use names (RFC 6761), and ICANN's `.internal`.
fn reach_name(name: &str) -> Reach {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if let Ok(ip) = name.parse() {
        return reach_ip4(ip);
    }
    let (before, last) = name.rsplit_once('.').unwrap_or(("", &name));
    match last {
        "localhost" => Reach::Loopback,
        "invalid" => Reach::Unroutable,
        "arpa" if before == "home" || before.ends_with(".home") => Reach::Private,
        "arpa" => Reach::Unroutable,
        "local" | "internal" | "test" => Reach::Private,
        _ if before.is_empty() => Reach::Private,
        _ => Reach::Public,
    }
}

#[cfg(test)]
mod tests;
