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
    for text in [format!("{direct}/p2p-circuit/p2p/{ID}"), format!("/dns/x/tcp/1/ws/p2p/{ID}")] {
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
fn ma_01_02_20_21_22_24_25_26_27_28_30_31_32_33_35_36_37_40_42_vectors_are_parsed_and_printed() {
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
        ("/tcp/1234/http/http-path/api%2Fv0%2Flogin", "0604d2e003e1030c6170692f76302f6c6f67696e"),
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
        ("/ip4/1.2.3.4/tcp/80/ip4/1.2.3.4/tcp/80/ws", "/tcp/80", "/ip4/1.2.3.4/tcp/80/ip4/1.2.3.4"),
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
    let words = ["ip4", "ip6", "tcp", "p2p", "dns", "onion3", "certhash", "garlic64", ID, "", "1"];
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
