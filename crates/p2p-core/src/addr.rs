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
mod tests {
    use super::*;
    use crate::{
        testing::{Random, hex, other_key},
        varint,
    };

    const ID: &str = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";
    const RELAY: &str = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC";
    const ONION: &str = "vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd";

    fn addr(text: &str) -> Multiaddr {
        parse_multiaddr(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn ma_10_the_last_component_names_the_peer() {
        let direct = format!("/ip4/127.0.0.1/tcp/1/p2p/{RELAY}");
        for text in [format!("{direct}/p2p-circuit/p2p/{ID}"), format!("/dns/x/tcp/1/ws/p2p/{ID}")]
        {
            let whole = addr(&text);
            let (bare, peer) = whole.split_peer().expect("valid");
            assert_eq!(peer.map(|p| p.to_string()).as_deref(), Some(ID));
            assert_eq!(format!("{bare}/p2p/{ID}"), text);
            assert_eq!(bare.with_peer(&peer.expect("some")), whole);
            assert_eq!(whole.with_peer(&peer.expect("some")), whole);
        }
        // The relay's id is not the target's.
        let relayed = addr(&format!("{direct}/p2p-circuit"));
        assert_eq!(relayed.split_peer(), Ok((relayed.clone(), None)));
        let other = other_key().public().peer_id();
        assert_eq!(
            addr(&direct).with_peer(&other).to_string(),
            direct.replace(RELAY, &other.to_string())
        );
    }

    /// The catalogue's list of texts and bytes.
    #[test]
    fn ma_01_02_20_21_22_24_25_26_27_28_30_31_32_33_35_36_37_40_42_vectors_are_parsed_and_printed()
    {
        for (text, bytes) in [
            ("/ip4/192.0.2.42/tcp/443", "04c000022a0601bb"),
            ("/ip4/127.0.0.1/udp/1234", "047f000001910204d2"),
            ("/ip6/::1", "2900000000000000000000000000000001"),
            ("/ip6/2601:9:4f81:9700:803e:ca65:66e8:c21", "29260100094f819700803eca6566e80c21"),
            (
                "/ip6/fe80::9700:803e:ca65:66e8:c21/ip6zone/wlan0",
                "29fe80000000009700803eca6566e80c212a05776c616e30",
            ),
            (
                "/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC",
                "a503221220d52ebb89d85b02a284948203a62ff28389c57c9f42beec4ec20db76a68911c0b",
            ),
            ("/ip4/127.0.0.1/tcp/127/tls/ws", "047f00000106007fc003dd03"),
            (
                "/ip6/2001:8a0:7ac5:4201:3ac9:86ff:fe31:7095/tcp/8000/wss",
                "29200108a07ac542013ac986fffe317095061f40de03",
            ),
            (
                "/ip4/127.0.0.1/tcp/9090/p2p-circuit/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC",
                "047f000001062382a202a503221220d52ebb89d85b02a284948203a62ff28389c57c9f42beec4ec20d\
                 b76a68911c0b",
            ),
            (
                "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234",
                "bd03adadec040be047f9658668b11a504f3155001f231a37f54c4476c07fb4cc139ed7e30304d2",
            ),
            (
                "/dnsaddr/sjc-1.bootstrap.libp2p.io",
                "3819736a632d312e626f6f7473747261702e6c69627032702e696f",
            ),
            (
                "/ip4/127.0.0.1/udp/1234/webrtc-direct/certhash/\
                 uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g",
                "047f000001910204d29802d203221220c3ab8ff13720e8ad9047dd39466b3c8974e592c2fa383d4a396\
                 0714caef0c4f2",
            ),
            (
                "/tcp/1234/http/http-path/api%2Fv0%2Flogin",
                "0604d2e003e1030c6170692f76302f6c6f67696e",
            ),
            ("/memory/1", "89060000000000000001"),
            ("/tls/sni/a.b/ws", "c003c10303612e62dd03"),
            ("/ip4/1.2.3.4/udp/1/quic", "040102030491020001cc03"),
            ("/ip4/1.2.3.4/udp/1/quic-v1/webtransport", "040102030491020001cd03d103"),
            ("/ip4/1.2.3.4/tcp/1/noise", "0401020304060001c603"),
            ("/ip4/1.2.3.4/sctp/1", "040102030484010001"),
            ("/ip4/1.2.3.4/dccp/1", "0401020304210001"),
            ("/ip4/1.2.3.4/udp/1/utp", "040102030491020001ae02"),
            ("/ip4/1.2.3.4/udp/1/udt", "040102030491020001ad02"),
            ("/p2p-circuit/webrtc", "a2029902"),
            ("/dns4/a.b/tcp/1/https", "3603612e62060001bb03"),
            ("/dns6/a.b", "3703612e62"),
            ("/dns/a.b", "3503612e62"),
        ] {
            let parsed = addr(text);
            assert_eq!(parsed.to_vec(), hex(bytes), "{text}");
            assert_eq!(parsed.to_string(), text);
            assert_eq!(decode_multiaddr(&hex(bytes)), Ok(parsed.clone()));
            assert_eq!(text.parse::<Multiaddr>().expect("the crate's own"), parsed);
            for len in 0..parsed.len() {
                // A prefix is an error, or ends between two components.
                if let Ok(prefix) = decode_multiaddr(&parsed.to_vec()[..len]) {
                    assert!(text.starts_with(&prefix.to_string()), "{text} cut at {len}");
                }
            }
        }
    }

    /// The catalogue's list of what must fail, and where the error points.
    #[test]
    fn ma_vectors_that_must_fail_say_where() {
        let short_onion = format!("/onion3/{}:80", &ONION[1..]);
        let portless_onion = format!("/onion3/{ONION}:0");
        for (text, component) in [
            ("/ip4", 1),
            ("/ip4/::1", 1),
            ("/tcp/65536", 1),
            ("/tcp/-1", 1),
            ("/quic-v1/1", 2),
            ("/p2p-circuit/50", 2),
            (portless_onion.as_str(), 1),
            (short_onion.as_str(), 1),
            ("/udp/1/quic-v1/webtransport/certhash", 4),
            ("/udp/1/quic-v1/webtransport/certhash/b2uaraocy6yrdblb4sfptaddgimjmmp", 4),
            ("/p2p/QmxoHT6iViN5xAjoz1VZ553cL31U9F94ht3QvWR1FrEbZY", 1),
            ("/tcp/1234/http/http-path/a/b", 4),
            ("/udp/1234/utp/1234", 3),
            // Beyond the list.
            ("/ip4/01.2.3.4", 1),
            ("/ip6/1.2.3.4", 1),
            ("/ip6/::1%eth0", 1),
            ("/dns4//tcp/1", 1),
            ("/ip6zone//ip6/::1", 1),
            ("/ip4/1.2.3.4//tcp/1", 2),
            ("/ip4/1.2.3.4/tcp/1/p2p/12D3KooW", 3),
            ("/ip4/1.2.3.4/tcp/1/p2p", 3),
            ("/dns/a\nb/tcp/1", 1),
            ("ip4/1.2.3.4", 0),
            (" /ip4/1.2.3.4", 0),
        ] {
            let error = parse_multiaddr(text).expect_err(text);
            assert_eq!(error.component, component, "{text}: {error}");
            assert!(!error.problem.to_string().is_empty(), "{text}: {error:?}");
        }
        let error = parse_multiaddr("/ip4/localhost/tcp/1").expect_err("no name");
        let text = error.to_string();
        assert_eq!(text, "component 1, \"ip4/localhost\": invalid IPv4 address syntax");
        let error = parse_multiaddr("/ip4/1.2.3.4/tpc/1").expect_err("misspelt");
        assert_eq!(error.to_string(), "component 2, \"tpc/1\": there is no such protocol");
        let error = parse_multiaddr("/ip4/1.2.3.4/tcp").expect_err("cut");
        assert_eq!(error.to_string(), "component 2, \"tcp\": its value is missing");
    }

    #[test]
    fn ma_05_the_empty_address_is_refused() {
        for text in ["", "/", "//", "///"] {
            let error = parse_multiaddr(text).expect_err(text);
            assert_eq!((error.component, error.problem), (0, AddrProblem::Empty));
        }
        let error = decode_multiaddr(&[]).expect_err("empty");
        assert_eq!(error.problem, AddrProblem::Empty);
    }

    #[test]
    fn ma_06_slashes_at_the_end_are_dropped() {
        let plain = addr("/ip4/1.2.3.4/tcp/1/ws");
        assert_eq!(addr("/ip4/1.2.3.4/tcp/1/ws/"), plain);
        assert_eq!(addr("/ip4/1.2.3.4/tcp/1/ws///"), plain);
        assert_eq!(addr("/ip4/1.2.3.4/"), addr("/ip4/1.2.3.4"));
    }

    #[test]
    fn ma_07_addresses_are_their_bytes_and_ipfs_is_p2p() {
        let new = addr(&format!("/ip6/2001:db8:0:0::1/tcp/1/p2p/{ID}"));
        let old = addr(&format!("/ip6/2001:db8::1/tcp/1/ipfs/{ID}"));
        assert_eq!(new, old);
        assert_eq!(new.to_vec(), old.to_vec());
        assert_eq!(old.to_string(), format!("/ip6/2001:db8::1/tcp/1/p2p/{ID}"));
    }

    #[test]
    fn ma_08_decapsulate_cuts_at_the_last_occurrence() {
        for (whole, suffix, rest) in [
            ("/ip4/1.2.3.4/tcp/80/ws", "/tcp/80", "/ip4/1.2.3.4"),
            ("/ip4/1.2.3.4/tcp/80/ws", "/tcp/80/ws", "/ip4/1.2.3.4"),
            ("/ip4/1.2.3.4/tcp/80/ws", "/tcp/81", "/ip4/1.2.3.4/tcp/80/ws"),
            (
                "/ip4/1.2.3.4/tcp/80/ip4/1.2.3.4/tcp/80/ws",
                "/tcp/80",
                "/ip4/1.2.3.4/tcp/80/ip4/1.2.3.4",
            ),
            // 0x06 0x06 0x06: the bytes of /tcp/1542 occur inside of a port and an address too.
            ("/ip4/1.6.6.6/tcp/1542/ws", "/tcp/1542", "/ip4/1.6.6.6"),
            ("/ip4/6.6.6.6/udp/1542", "/tcp/1542", "/ip4/6.6.6.6/udp/1542"),
        ] {
            assert_eq!(addr(whole).decapsulate(&addr(suffix)), addr(rest), "{whole} - {suffix}");
        }
        let whole = addr("/ip4/1.2.3.4/tcp/80");
        assert_eq!(whole.decapsulate(&whole), Multiaddr::empty());
        assert_eq!(whole.decapsulate(&Multiaddr::empty()), whole);
        assert_eq!(Multiaddr::empty().decapsulate(&whole), Multiaddr::empty());
    }

    #[test]
    fn ma_34_a_peer_id_may_be_written_in_any_form() {
        let expected = addr(&format!("/tcp/1/p2p/{ID}"));
        for id in [
            "bafzaajaiaejcahwr5d5ofrfbis4l5d6uwr57hu5tjodrypfm6yaq6dsc2r2pzyt6",
            "k51qzi5uqu5dgy8qsq67hbz73jqkw87l3fgf4a91qb0d9b5173tir7n4vxk1oe",
        ] {
            assert_eq!(addr(&format!("/tcp/1/p2p/{id}")), expected);
            assert_eq!(addr(&format!("/tcp/1/ipfs/{id}/")), expected);
            assert!(format!("/tcp/1/p2p/{id}").parse::<Multiaddr>().is_err(), "the crate's own");
        }
        assert_eq!(expected.to_string(), format!("/tcp/1/p2p/{ID}"));
    }

    /// Trap 7: a SHA-256 digest of another length is a peer id for the multiaddr crate.
    #[test]
    fn ma_34_on_the_wire_a_peer_id_is_checked() {
        let mut short = hex("a503211220");
        short.truncate(3);
        short.extend([0x12, 31]);
        short.extend([1; 31]);
        let error = decode_multiaddr(&short).expect_err("31 bytes");
        let problem = PeerIdError::DigestLen { code: 0x12, len: 31 };
        assert_eq!(error.problem, AddrProblem::Peer(problem));
        assert!(Multiaddr::try_from(short).is_ok(), "the crate's own check is enough now");
    }

    #[test]
    fn ma_03_04_22_25_on_the_wire_values_are_checked() {
        for (bytes, component, problem) in [
            ("3500", 1, AddrProblem::NoValue),
            ("0604d2c103 00", 2, AddrProblem::NoValue),
            ("2a00", 1, AddrProblem::NoValue),
            ("9003 00", 1, AddrProblem::NoValue),
            ("e103 00", 1, AddrProblem::NoValue),
            ("a225 00", 1, AddrProblem::NoValue),
            // The name "a/tcp/1" prints as two components.
            ("3507 612f7463702f31", 1, AddrProblem::Name),
            ("3502 611b", 1, AddrProblem::Name),
            ("9003 02 2f1b", 1, AddrProblem::Name),
            ("0601bb ffff03", 2, AddrProblem::UnknownProtocol),
        ] {
            let error = decode_multiaddr(&hex(&bytes.replace(' ', ""))).expect_err(bytes);
            assert_eq!((error.component, &error.problem), (component, &problem), "{bytes}");
        }
        // Not minimal, more than 32 bits, a length beyond the end, a name that is not UTF-8, a
        // Tor service without a port.
        let tor = format!("bc03{}0000", "00".repeat(10));
        let tor3 = format!("bd03{}0000", "00".repeat(35));
        for bytes in ["84007f000001", "848080808010", "ffffffff7f", "35ff", "3501ff", &tor, &tor3] {
            assert!(decode_multiaddr(&hex(bytes)).is_err(), "{bytes}");
        }
    }

    /// Found by fuzzing: an empty one was decoded, and its text could not be parsed.
    #[test]
    fn ma_41_i2p_addresses_of_other_lengths_are_refused() {
        let garlic64 = (446, &[387, 391, 462][..], &[0, 1, 32, 386, 463, 600][..]);
        let garlic32 = (447, &[32, 35, 100][..], &[0, 1, 31, 33, 34][..]);
        for (code, allowed, refused) in [garlic64, garlic32] {
            let encoded = |len: usize| {
                let mut bytes = Vec::new();
                varint::encode(code, &mut bytes);
                varint::encode(len as u64, &mut bytes);
                bytes.resize(bytes.len() + len, 7);
                bytes
            };
            for len in allowed {
                let addr = decode_multiaddr(&encoded(*len)).expect("allowed");
                assert_eq!(parse_multiaddr(&addr.to_string()), Ok(addr), "{len}");
            }
            for len in refused {
                let error = decode_multiaddr(&encoded(*len)).expect_err("another length");
                let text = format!("no I2P address has {len} bytes");
                assert_eq!(error.problem, AddrProblem::Value(text));
            }
        }
    }

    #[test]
    fn the_length_is_bounded() {
        let long = format!("/dns/{}", "a".repeat(LEN_MAX - 3));
        assert_eq!(addr(&long).len(), LEN_MAX);
        let too_long = AddrProblem::TooLong { len: LEN_MAX + 1, max: LEN_MAX };
        let error = parse_multiaddr(&format!("{long}a")).expect_err("too long");
        assert_eq!(error.problem, too_long);
        let mut bytes = addr(&long).to_vec();
        bytes.push(0);
        assert_eq!(decode_multiaddr(&bytes).expect_err("too long").problem, too_long);
        let text = "/".repeat(TEXT_LEN_MAX + 1);
        let problem = parse_multiaddr(&text).expect_err("too long").problem;
        assert_eq!(problem, AddrProblem::TooLong { len: text.len(), max: TEXT_LEN_MAX });
    }

    #[test]
    fn ma_20_21_ip_addresses_reach_as_far_as_the_registries_say() {
        use Reach::{LinkLocal, Loopback, Private, Public, Unroutable};
        for (ip, reach) in [
            ("0.0.0.0", Unroutable),
            ("0.1.2.3", Unroutable),
            ("9.255.255.255", Public),
            ("10.0.0.0", Private),
            ("10.255.255.255", Private),
            ("11.0.0.0", Public),
            ("100.63.255.255", Public),
            ("100.64.0.0", Private),
            ("100.127.255.255", Private),
            ("100.128.0.0", Public),
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("128.0.0.1", Public),
            ("169.253.0.1", Public),
            ("169.254.0.1", LinkLocal),
            ("172.15.255.255", Public),
            ("172.16.0.0", Private),
            ("172.31.255.255", Private),
            ("172.32.0.0", Public),
            ("192.0.0.8", Unroutable),
            ("192.0.1.1", Public),
            ("192.0.2.1", Unroutable),
            ("192.88.99.1", Unroutable),
            ("192.167.255.255", Public),
            ("192.168.0.1", Private),
            ("192.169.0.0", Public),
            ("198.17.255.255", Public),
            ("198.18.0.0", Unroutable),
            ("198.19.255.255", Unroutable),
            ("198.20.0.0", Public),
            ("198.51.100.7", Unroutable),
            ("203.0.113.7", Unroutable),
            ("223.255.255.255", Public),
            ("224.0.0.1", Unroutable),
            ("240.0.0.1", Unroutable),
            ("255.255.255.255", Unroutable),
        ] {
            assert_eq!(addr(&format!("/ip4/{ip}/tcp/1")).reach(), reach, "{ip}");
            let mapped = addr(&format!("/ip6/::ffff:{ip}/tcp/1"));
            assert_eq!(mapped.reach(), reach, "{mapped}");
            assert!(mapped.to_string().starts_with(&format!("/ip6/::ffff:{ip}/")), "{mapped}");
            let through = if reach == Public { Public } else { Unroutable };
            assert_eq!(addr(&format!("/ip6/64:ff9b::{ip}/tcp/1")).reach(), through, "{ip}");
        }
        for (ip, reach) in [
            ("::", Unroutable),
            ("::1", Loopback),
            ("::2", Unroutable),
            ("::1.2.3.4", Unroutable),
            ("64:ff9b:1::1", Private),
            ("100::1", Unroutable),
            ("1fff::1", Unroutable),
            ("2000::1", Public),
            ("2001::1", Unroutable),
            ("2001:1ff::1", Unroutable),
            ("2001:200::1", Public),
            ("2001:db8::1", Unroutable),
            ("2002:102:304::1", Public),
            ("2002:a00:1::1", Unroutable),
            ("2002:7f00:1::1", Unroutable),
            ("2606:4700::1111", Public),
            ("3fff:fff::1", Unroutable),
            ("3fff:1000::1", Public),
            ("4000::1", Unroutable),
            ("5f00::1", Unroutable),
            ("fbff::1", Unroutable),
            ("fc00::1", Private),
            ("fdff::1", Private),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("fec0::1", Private),
            ("ff02::1", Unroutable),
        ] {
            assert_eq!(addr(&format!("/ip6/{ip}/udp/1/quic-v1")).reach(), reach, "{ip}");
        }
    }

    #[test]
    fn names_and_other_hosts_have_a_reach() {
        use Reach::{Loopback, Private, Process, Public, Unroutable};
        for (text, reach) in [
            ("/dns4/example.com/tcp/1", Public),
            ("/dns/EXAMPLE.com./tcp/1", Public),
            ("/dnsaddr/bootstrap.libp2p.io", Public),
            ("/dns6/localhost/tcp/1", Loopback),
            ("/dns/a.LocalHost./tcp/1", Loopback),
            ("/dns/printer.local/tcp/1", Private),
            ("/dns/db.internal/tcp/1", Private),
            ("/dns/nas.home.arpa/tcp/1", Private),
            ("/dns/1.0.0.10.in-addr.arpa/tcp/1", Unroutable),
            ("/dns/a.test/tcp/1", Private),
            ("/dns/a.invalid/tcp/1", Unroutable),
            ("/dns/container/tcp/1", Private),
            ("/dns/10.0.0.1/tcp/1", Private),
            ("/dns/127.0.0.1/tcp/1", Loopback),
            ("/memory/1", Process),
            ("/unix/socket", Process),
            ("/tcp/1", Unroutable),
            ("/p2p-circuit", Unroutable),
            (&format!("/onion3/{ONION}:80"), Public),
            (&format!("/p2p/{RELAY}/p2p-circuit"), Unroutable),
        ] {
            assert_eq!(addr(text).reach(), reach, "{text}");
        }
        assert_eq!(Multiaddr::empty().reach(), Unroutable);
    }

    #[test]
    fn ma_10_a_relayed_address_is_judged_by_its_relay() {
        for (host, reach) in [("127.0.0.1", Reach::Loopback), ("8.8.8.8", Reach::Public)] {
            let relayed = addr(&format!("/ip4/{host}/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{ID}"));
            assert_eq!(relayed.reach(), reach);
        }
        let behind = format!("/ip4/8.8.8.8/tcp/1/p2p/{RELAY}/p2p-circuit/ip4/10.0.0.1/tcp/1");
        assert_eq!(addr(&behind).reach(), Reach::Public);
    }

    #[test]
    fn ma_22_zones_are_stripped_on_either_side() {
        let bare = addr("/ip6/fe80::1/tcp/1");
        for text in ["/ip6zone/eth0/ip6/fe80::1/tcp/1", "/ip6/fe80::1/ip6zone/eth0/tcp/1"] {
            assert_eq!(addr(text).without_zone(), bare);
            assert_eq!(addr(text).reach(), Reach::LinkLocal);
        }
        assert_eq!(bare.without_zone(), bare);
    }

    #[test]
    fn ident_06_a_peer_hears_what_it_can_dial() {
        let ours = [
            "/memory/7",
            "/unix/socket",
            "/ip4/127.0.0.1/tcp/1",
            "/ip6zone/eth0/ip6/fe80::1/tcp/1",
            "/ip6/fe80::1/ip6zone/eth1/tcp/1",
            "/ip4/192.168.1.2/tcp/1",
            "/ip4/8.8.8.8/tcp/1",
            "/ip4/8.8.8.8/tcp/1",
            "/dns4/example.com/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/192.0.2.1/tcp/1",
        ]
        .map(addr);
        let all = [0, 1, 2, 3, 5, 6, 8].map(|i| ours[i].without_zone());
        for (remote, hidden) in [
            ("/memory/1", 0),
            ("/ip4/127.0.0.1/tcp/9", 2),
            ("/ip6/::1/tcp/9", 2),
            ("/ip6/fe80::2/tcp/9", 3),
            ("/ip4/10.0.0.1/tcp/9", 4),
            ("/ip4/10.0.0.1/tcp/9/p2p-circuit", 4),
            ("/ip4/1.1.1.1/tcp/9", 5),
            ("/ip4/198.51.100.1/tcp/9", 5),
        ] {
            assert_eq!(addrs_for(&addr(remote), &ours), all[hidden..], "{remote}");
        }
    }

    #[test]
    fn what_is_decoded_prints_and_parses_as_itself_and_nothing_panics() {
        let mut random = Random(3);
        // Codes of every shape of value, so that random bytes are often an address.
        let codes = [
            "04", "29", "2a", "2b", "06", "9102", "35", "36", "38", "c103", "c003", "dd03", "de03",
            "cd03", "d103", "d203", "a503", "a202", "e103", "9003", "8906", "bc03", "bd03", "a225",
        ]
        .map(hex);
        let (mut decoded, mut parsed) = (0, 0);
        for _ in 0..50_000 {
            let mut bytes = Vec::new();
            for _ in 0..=random.below(3) {
                bytes.extend_from_slice(&codes[random.below(codes.len())]);
                let value = random.bytes(20);
                if random.below(2) == 0 {
                    bytes.push(u8::try_from(value.len()).expect("short"));
                }
                bytes.extend(value.iter().map(|byte| byte % 128));
            }
            let Ok(addr) = decode_multiaddr(&bytes) else { continue };
            decoded += 1;
            assert_eq!(addr.to_vec(), bytes);
            let _ = (addr.reach(), addr.split_peer(), addr.without_zone());
            let text = addr.to_string();
            // A Unix path's text is not one component, which is local use only (MA-38).
            if text.contains("/unix/") || text.contains("/x-parity") {
                continue;
            }
            parsed += 1;
            assert_eq!(parse_multiaddr(&text), Ok(addr), "{text:?}");
        }
        assert!(decoded > 1000 && parsed > 500, "{decoded} {parsed}");
        let words =
            ["ip4", "ip6", "tcp", "p2p", "dns", "onion3", "certhash", "garlic64", ID, "", "1"];
        for _ in 0..20_000 {
            let mut text = String::from_utf8_lossy(&random.bytes(8)).into_owned();
            for _ in 0..random.below(6) {
                text = format!("/{}{text}", words[random.below(words.len())]);
            }
            if let Ok(addr) = parse_multiaddr(&text) {
                assert_eq!(decode_multiaddr(addr.as_ref()), Ok(addr));
            }
        }
    }
}
