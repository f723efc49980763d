//! Streams that negotiate badly, and the protocols that every host serves.

use std::time::Duration;

use p2p::{Event, Keypair};
use p2p_testkit::hostile::{
    Script,
    wire::{
        counted, field as protobuf, multistream, varint,
        yamux::{ACK, DATA, FIN, PING, RST, SYN, data, frame, frames},
    },
};

use crate::{
    common::next_event,
    field::{CONNECTION, Field, KIB, WINDOW, attack},
};

const IDENTIFY: &str = "/ipfs/id/1.0.0";
const PUSH: &str = "/ipfs/id/push/1.0.0";
/// The first stream that the victim opens: it asks who the offender is.
const ASKED: u32 = 2;

/// That the victim resets stream `id`, within `limit`, and nothing else.
async fn resets(field: &Field, script: &mut Script, id: u32, limit: Duration) {
    let begun = tokio::time::Instant::now();
    loop {
        let header = script.hear(12).await.unwrap();
        let (kind, flags, of, len) = frames(&header)[0];
        if kind == DATA {
            script.hear(usize::try_from(len).unwrap()).await.unwrap();
        }
        if of == id && flags & RST != 0 {
            break;
        }
        if (kind, flags) == (PING, SYN) {
            script.say(&frame(PING, ACK, 0, len)).await.unwrap();
        }
    }
    assert!(begun.elapsed() <= limit, "after {:?}", begun.elapsed());
    assert_eq!(field.offenders(), 1, "the connection lives");
    field.honest_echo().await;
}

/// That a stream on which this is said is reset at once.
async fn is_reset(field: &Field, said: &[u8]) {
    let mut script = field.yamux().await;
    script.say(&data(SYN, 1, said)).await.unwrap();
    resets(field, &mut script, 1, Duration::ZERO).await;
}

fn header_and(said: &[u8]) -> Vec<u8> {
    [&multistream::message(multistream::NAME), said].concat()
}

#[test]
fn a_stream_that_names_no_protocol_has_ten_seconds() {
    attack(CONNECTION, async |field| {
        for said in [&b""[..], b"\x13/multi", &header_and(b"\x07/ech")] {
            let mut script = field.yamux().await;
            script.say(&data(SYN, 1, said)).await.unwrap();
            resets(field, &mut script, 1, Duration::from_secs(10)).await;
        }
    });
}

#[test]
fn proposals_without_end_on_a_stream_are_answered_sixty_four_times() {
    attack(CONNECTION, async |field| {
        is_reset(field, &header_and(&multistream::message("/no/1.0.0").repeat(65))).await;
    });
}

#[test]
fn huge_varints_on_a_stream_reset_it() {
    attack(CONNECTION, async |field| {
        is_reset(field, &header_and(&varint(u64::MAX >> 1))).await;
        is_reset(field, &header_and(&[0xff; 12])).await;
        is_reset(field, &header_and(&varint(1025))).await;
    });
}

#[test]
fn teku_attack_0_zero_bytes_on_a_stream_reset_it() {
    attack(CONNECTION, async |field| is_reset(field, &[0; 1000]).await);
}

#[test]
fn cve_2022_23492_cve_2022_23486_cve_2022_23487_streams_that_negotiate_for_ever() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        for id in (1..1_025).step_by(2) {
            script.say(&data(SYN, id, b"\x13/multi")).await.unwrap();
        }
        field.honest_echo().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let usage = field.victim.usage();
        assert!(usage.streams_inbound.count <= 129, "{usage:?}");
    });
}

#[test]
fn a_handler_that_panics_ends_its_stream_only() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        script.say(&data(SYN, 1, &multistream::proposal("/panic/1.0.0"))).await.unwrap();
        resets(field, &mut script, 1, Duration::ZERO).await;
        field.open(&mut script, 3, "/echo/1.0.0").await;
    });
}

#[test]
fn a_handler_that_fails_ends_its_stream_only() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        script.say(&data(SYN, 1, &multistream::proposal("/error/1.0.0"))).await.unwrap();
        resets(field, &mut script, 1, Duration::ZERO).await;
        field.open(&mut script, 3, "/echo/1.0.0").await;
    });
}

#[test]
fn handlers_that_panic_by_the_hundred_leave_no_place_taken() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        for id in (1..801).step_by(2) {
            let proposal = multistream::proposal("/panic/1.0.0");
            script.say(&data(SYN, id, &proposal)).await.unwrap();
            resets(field, &mut script, id, Duration::ZERO).await;
        }
        field.honest_echo().await;
        assert_eq!(field.victim.usage().streams_inbound.count, 1);
    });
}

#[test]
fn a_handler_that_never_reads_costs_a_window() {
    attack(CONNECTION + WINDOW, async |field| {
        let mut script = field.stream(1, "/deaf/1.0.0").await;
        field.flood(&mut script, &data(0, 1, &[7; 1_000]), 262).await;
        field.open(&mut script, 3, "/echo/1.0.0").await;
        script.say(&data(0, 3, b"not held up")).await.unwrap();
        script.hear_until(b"not held up").await.unwrap();
    });
}

#[test]
fn more_streams_of_a_protocol_than_a_peer_may_have_are_reset() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        for id in [1, 3] {
            field.open(&mut script, id, "/ipfs/ping/1.0.0").await;
        }
        script.say(&data(SYN, 5, &multistream::proposal("/ipfs/ping/1.0.0"))).await.unwrap();
        resets(field, &mut script, 5, Duration::ZERO).await;
    });
}

#[test]
fn half_a_ping_keeps_neither_its_stream_nor_its_connection() {
    attack(CONNECTION, async |field| {
        let mut script = field.stream(1, "/ipfs/ping/1.0.0").await;
        script.say(&data(0, 1, &[7; 31])).await.unwrap();
        field.ended_within(&mut script, Duration::from_secs(62)).await;
    });
}

/// Takes the victim's question who this is, and answers with `answer`.
async fn answered(field: &Field, answer: &[u8]) -> Script {
    let mut script = field.yamux().await;
    script.hear_until(&multistream::message(IDENTIFY)).await.unwrap();
    script.say(&data(0, ASKED, &multistream::proposal(IDENTIFY))).await.unwrap();
    for piece in answer.chunks(8 * KIB) {
        script.say(&data(0, ASKED, piece)).await.unwrap();
    }
    script.say(&frame(DATA, FIN, ASKED, 0)).await.unwrap();
    field.honest_echo().await;
    script
}

/// What the victim has made of an answer.
async fn identified(field: &Field, answer: &[u8]) -> Option<p2p::identify::PeerInfo> {
    let mut events = field.victim.events();
    let _script = answered(field, answer).await;
    let heard = next_event(&mut events, |event| {
        if let Event::Identified { info, .. } = event { Some(info) } else { None }
    });
    let heard = tokio::time::timeout(Duration::from_secs(11), heard).await;
    heard.ok().map(|info| p2p::identify::PeerInfo::clone(&info))
}

fn own_key() -> Vec<u8> {
    protobuf(1, &Keypair::from_ed25519_seed(&[66; 32]).public().to_protobuf())
}

#[test]
fn cve_2016_6581_identify_bombs_of_empty_entries_are_no_larger_than_they_look() {
    attack(CONNECTION, async |field| {
        for number in [2_u64, 3] {
            let part = protobuf(number, b"").repeat(4_000);
            let answer = [counted(&own_key()), counted(&part).repeat(9)].concat();
            identified(field, &answer).await;
        }
    });
}

#[test]
fn go_3501_cve_2024_27316_identify_bombs_of_protocols_and_addresses_are_cut() {
    attack(CONNECTION, async |field| {
        let mut parts = counted(&own_key());
        for part in 0..9 {
            let names: Vec<u8> =
                (0..600).flat_map(|n| protobuf(3, format!("/{part}/{n}").as_bytes())).collect();
            parts.extend(counted(&names));
        }
        let info = identified(field, &parts).await.unwrap();
        assert_eq!(info.protocols.len(), 1024);
        let addr = p2p::Multiaddr::to_vec(&"/ip4/192.0.2.9/tcp/1".parse().unwrap());
        let part = protobuf(2, &addr).repeat(700);
        let info = identified(field, &[counted(&own_key()), counted(&part)].concat()).await;
        assert_eq!(info.unwrap().listen_addrs.len(), 64);
    });
}

#[test]
fn identify_answers_with_impossible_lengths_are_refused() {
    attack(CONNECTION, async |field| {
        for answer in [varint(u64::MAX >> 1), vec![0xff; 20], varint(8_193), varint(100)] {
            assert_eq!(identified(field, &answer).await, None);
        }
    });
}

#[test]
fn an_identify_answer_of_another_key_is_refused() {
    attack(CONNECTION, async |field| {
        let other = Keypair::from_ed25519_seed(&[1; 32]).public().to_protobuf();
        assert_eq!(identified(field, &counted(&protobuf(1, &other))).await, None);
    });
}

#[test]
fn rustsec_2022_0009_a_record_of_another_peer_counts_for_nothing() {
    attack(CONNECTION, async |field| {
        let signer = Keypair::from_ed25519_seed(&[1; 32]);
        let addr = ["/ip4/192.0.2.9/tcp/1".parse().unwrap()];
        for of in
            [signer.public().peer_id(), Keypair::from_ed25519_seed(&[66; 32]).public().peer_id()]
        {
            let record = p2p::core::PeerRecord::new(of, 1, addr.iter().cloned());
            let Ok(sealed) = record.seal(&signer) else { continue };
            let answer = counted(&[own_key(), protobuf(8, sealed.as_bytes())].concat());
            let info = identified(field, &answer).await.unwrap();
            assert_eq!((info.record_seq, info.listen_addrs.len()), (None, 0));
        }
    });
}

#[test]
fn rustsec_2020_0002_nested_groups_in_an_identify_answer_are_refused() {
    attack(CONNECTION, async |field| {
        assert_eq!(identified(field, &counted(&[0x0b; 8_000])).await, None);
    });
}

#[test]
fn an_identify_answer_without_end_has_ten_seconds_and_its_bytes() {
    attack(CONNECTION + WINDOW, async |field| {
        let mut script = field.yamux().await;
        script.hear_until(&multistream::message(IDENTIFY)).await.unwrap();
        script.say(&data(0, ASKED, &multistream::proposal(IDENTIFY))).await.unwrap();
        field.flood(&mut script, &data(0, ASKED, &[7; 1_000]), 200).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(field.victim.usage().streams_outbound.count, 0);
    });
}

#[test]
fn nim_460d962d7_who_asks_to_identify_and_never_reads_holds_nothing_for_long() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        for id in (1..33).step_by(2) {
            // No credit for the answer beyond the first window, and nothing read.
            script.say(&data(SYN, id, &multistream::proposal(IDENTIFY))).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(field.victim.usage().streams_inbound.count, 1);
    });
}

#[test]
fn cve_2023_40583_pushes_without_end_are_refused_after_ten() {
    attack(CONNECTION, async |field| {
        let mut script = answered(field, &counted(&own_key())).await;
        for id in (1..81).step_by(2) {
            let push = [&multistream::proposal(PUSH)[..], &counted(&own_key())].concat();
            script.say(&data(SYN | FIN, id, &push)).await.unwrap();
            field.honest_echo().await;
        }
        script.say(&frame(PING, SYN, 0, 0xffff)).await.unwrap();
        let said = script.hear_until(&frame(PING, ACK, 0, 0xffff)).await.unwrap();
        let refused = frames(&said).iter().filter(|(_, flags, ..)| flags & RST != 0).count();
        assert_eq!(refused, 30);
    });
}

#[test]
fn pushes_of_bombs_cost_no_more_than_one() {
    attack(CONNECTION, async |field| {
        let mut script = answered(field, &counted(&own_key())).await;
        let part = counted(&protobuf(3, b"").repeat(4_000)).repeat(9);
        for id in (1..21).step_by(2) {
            field.open(&mut script, id, PUSH).await;
            for piece in part.chunks(8 * KIB) {
                script.say(&data(0, id, piece)).await.unwrap();
            }
            script.say(&frame(DATA, FIN, id, 0)).await.unwrap();
            field.honest_echo().await;
        }
    });
}
