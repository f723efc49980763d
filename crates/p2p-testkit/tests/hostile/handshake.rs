//! The handshake of Noise: slow, cut, forged, oversized; and the records and the negotiation
//! behind it.

use std::time::Duration;

use p2p::Keypair;
use p2p_testkit::hostile::{
    Script,
    noise::{RawHandshake, framed, payload},
    wire::{field as protobuf, multistream, yamux},
};

use crate::field::{CONNECTION, Field, INBOUND_MAX, PENDING, UNPROVEN, attack};

async fn ends_at_once(field: &Field, said: &[u8]) {
    let mut script = field.noise().await;
    let _ended_meanwhile = script.send(said).await.is_err();
    let end = field.ended_at_once(&mut script).await;
    assert!(end.said.is_empty(), "nothing is said to it: {:02x?}", end.said);
}

async fn ends_in_time(field: &Field, script: &mut Script) {
    assert_eq!(field.ended_within(script, INBOUND_MAX).await.after, INBOUND_MAX);
}

/// That a third message with this payload ends the connection at once, before it is registered.
async fn third_is_refused(field: &Field, payload: impl FnOnce(&RawHandshake) -> Vec<u8>) {
    let (mut script, mut handshake) = field.half_shaken().await;
    let payload = payload(&handshake);
    script.send(&framed(&handshake.message_3(&payload).unwrap())).await.unwrap();
    let end = field.ended_at_once(&mut script).await;
    assert!(end.said.is_empty(), "{:02x?}", end.said);
    assert_eq!(field.offenders(), 0);
}

fn identity() -> Keypair {
    Keypair::from_ed25519_seed(&[66; 32])
}

#[test]
fn the_raw_handshake_of_this_kit_is_one_that_the_victim_takes() {
    attack(CONNECTION, async |field| {
        let (mut script, mut handshake) = field.half_shaken().await;
        let payload = handshake.good_payload(&identity(), &[]).unwrap();
        script.send(&framed(&handshake.message_3(&payload).unwrap())).await.unwrap();
        field.honest_echo().await;
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(field.victim.usage().pending_inbound.count, 1, "it waits for a multiplexer");
        drop(script);
    });
}

#[test]
fn silence_before_the_first_message_has_what_is_left_of_ten_seconds() {
    attack(UNPROVEN, async |field| {
        let mut script = field.noise().await;
        ends_in_time(field, &mut script).await;
    });
}

#[test]
fn half_a_first_message_has_what_is_left_of_ten_seconds() {
    attack(UNPROVEN, async |field| {
        let mut script = field.noise().await;
        script.send(&[0, 32, 1, 2, 3]).await.unwrap();
        ends_in_time(field, &mut script).await;
    });
}

#[test]
fn silence_before_the_third_message_has_what_is_left_of_ten_seconds() {
    attack(UNPROVEN, async |field| {
        let (mut script, _handshake) = field.half_shaken().await;
        ends_in_time(field, &mut script).await;
    });
}

#[test]
fn a_third_message_byte_by_byte_buys_no_more_time() {
    attack(UNPROVEN, async |field| {
        let (mut script, mut handshake) = field.half_shaken().await;
        let payload = handshake.good_payload(&identity(), &[]).unwrap();
        for byte in framed(&handshake.message_3(&payload).unwrap()) {
            if script.send(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let end = field.ended_at_once(&mut script).await;
        assert!(end.after <= INBOUND_MAX + Duration::from_secs(1), "{:?}", end.after);
    });
}

#[test]
fn first_messages_of_impossible_lengths_are_refused_by_their_length() {
    attack(UNPROVEN, async |field| {
        for len in [0_u16, 1, 31, 33, 255, 65_535] {
            ends_at_once(field, &len.to_be_bytes()).await;
        }
    });
}

#[test]
fn third_messages_of_impossible_lengths_are_refused_by_their_length() {
    attack(UNPROVEN, async |field| {
        for len in [0_u16, 63, 16_385, 65_535] {
            let (mut script, _handshake) = field.half_shaken().await;
            script.send(&len.to_be_bytes()).await.unwrap();
            field.ended_at_once(&mut script).await;
        }
    });
}

#[test]
fn the_longest_third_message_without_its_last_byte_is_held_for_ten_seconds() {
    attack(UNPROVEN, async |field| {
        let (mut script, _handshake) = field.half_shaken().await;
        let mut message = 16_384_u16.to_be_bytes().to_vec();
        message.resize(2 + 16_383, 7);
        script.send(&message).await.unwrap();
        ends_in_time(field, &mut script).await;
    });
}

#[test]
fn cve_2024_27316_what_is_sent_behind_a_handshake_under_way_is_bounded() {
    attack(UNPROVEN, async |field| {
        let (mut script, mut handshake) = field.half_shaken().await;
        let payload = handshake.good_payload(&identity(), &[]).unwrap();
        let third = framed(&handshake.message_3(&payload).unwrap());
        let (last, begun) = third.split_last().unwrap();
        script.send(begun).await.unwrap();
        field.honest_echo().await;
        // What follows is not the message's end, which never comes.
        let wrong = [!last; 1024];
        let taken = tokio::time::timeout(Duration::from_secs(1), async {
            let mut taken = 0;
            while taken < 1 << 20 && script.send(&wrong).await.is_ok() {
                taken += 1024;
            }
            taken
        });
        assert!(taken.await.unwrap() < 64 << 10);
        field.ended_at_once(&mut script).await;
    });
}

#[test]
fn points_of_low_order_are_refused() {
    attack(UNPROVEN, async |field| {
        for first in [0_u8, 1] {
            let mut point = [0; 32];
            point[0] = first;
            ends_at_once(field, &framed(&point)).await;
        }
    });
}

#[test]
fn a_third_message_that_was_changed_in_any_byte_is_refused() {
    attack(UNPROVEN, async |field| {
        for at in (0..200).step_by(7) {
            let (mut script, mut handshake) = field.half_shaken().await;
            let payload = handshake.good_payload(&identity(), &[]).unwrap();
            let mut third = handshake.message_3(&payload).unwrap();
            if at >= third.len() {
                return;
            }
            third[at] ^= 1;
            script.send(&framed(&third)).await.unwrap();
            field.ended_at_once(&mut script).await;
        }
    });
}

#[test]
fn the_victims_own_message_sent_back_is_refused() {
    attack(UNPROVEN, async |field| {
        let mut script = field.noise().await;
        let mut handshake = RawHandshake::new(7);
        script.send(&framed(&handshake.message_1(&[]))).await.unwrap();
        let len = script.hear(2).await.unwrap();
        let second = script.hear(usize::from(u16::from_be_bytes([len[0], len[1]]))).await.unwrap();
        script.send(&framed(&second)).await.unwrap();
        field.ended_at_once(&mut script).await;
    });
}

#[test]
fn cve_2019_15545_a_signature_of_the_right_length_is_not_enough() {
    attack(UNPROVEN, async |field| {
        let key = identity().public().to_protobuf();
        third_is_refused(field, |_| payload(&key, &[7; 64], &[])).await;
        third_is_refused(field, |_| payload(&key, &[0; 64], &[])).await;
        third_is_refused(field, |_| payload(&key, &[], &[])).await;
    });
}

#[test]
fn somebody_elses_identity_is_not_taken() {
    attack(UNPROVEN, async |field| {
        // The right signature, of another key than the one that is claimed.
        let claimed = Keypair::from_ed25519_seed(&[1; 32]).public().to_protobuf();
        third_is_refused(field, |handshake| {
            let good = handshake.good_payload(&identity(), &[]).unwrap();
            let signature = good.get(good.len() - 64..).unwrap();
            payload(&claimed, signature, &[])
        })
        .await;
    });
}

#[test]
fn an_identity_cannot_be_taken_from_another_handshake() {
    attack(UNPROVEN, async |field| {
        // Signed for another static key.
        let other = RawHandshake::new(8).good_payload(&identity(), &[]).unwrap();
        third_is_refused(field, |_| other).await;
    });
}

#[test]
fn cve_2023_39533_rsa_keys_of_any_size_are_refused_before_they_are_used() {
    attack(UNPROVEN, async |field| {
        // Type RSA, and as much DER as fits the message.
        let der = [&[0x30, 0x82, 0x3f, 0x00][..], &[0xff; 14_000]].concat();
        let key = [&[0x08, 0x00][..], &protobuf(2, &der)].concat();
        third_is_refused(field, |_| payload(&key, &[7; 256], &[])).await;
    });
}

#[test]
fn rustsec_2020_0002_nested_groups_in_a_payload_are_refused() {
    attack(UNPROVEN, async |field| {
        third_is_refused(field, |_| vec![0x0b; 5_000]).await;
        third_is_refused(field, |_| payload(&[0x0b; 5_000], &[7; 64], &[])).await;
    });
}

#[test]
fn payloads_without_sense_are_refused() {
    attack(UNPROVEN, async |field| {
        for garbage in [vec![], vec![0xff; 100], vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]] {
            third_is_refused(field, |_| garbage).await;
        }
    });
}

#[test]
fn thousands_of_multiplexer_names_count_as_none() {
    attack(PENDING, async |field| {
        let (mut script, mut handshake) = field.half_shaken().await;
        let good = handshake.good_payload(&identity(), &[]).unwrap();
        let names: Vec<u8> = protobuf(2, b"/x").repeat(3_500);
        let third = handshake.message_3(&[good, protobuf(4, &names)].concat()).unwrap();
        script.send(&framed(&third)).await.unwrap();
        field.ended_within(&mut script, INBOUND_MAX).await;
    });
}

#[test]
fn a_peer_with_the_victims_own_identity_is_not_taken() {
    attack(UNPROVEN, async |field| {
        // Its public key is known to everybody, its signature to nobody.
        let own = field.victim.peer_id();
        let key = own.as_bytes().get(2..).unwrap().to_vec();
        third_is_refused(field, |_| payload(&key, &[7; 64], &[])).await;
    });
}

#[test]
fn no_multiplexer_in_common_ends_the_connection_at_once() {
    attack(PENDING, async |field| {
        let (mut script, mut handshake) = field.half_shaken().await;
        let payload = handshake.good_payload(&identity(), &["/none/1.0.0"]).unwrap();
        script.send(&framed(&handshake.message_3(&payload).unwrap())).await.unwrap();
        field.ended_at_once(&mut script).await;
    });
}

#[test]
fn silence_before_the_multiplexer_has_what_is_left_of_ten_seconds() {
    attack(PENDING, async |field| {
        let mut script = field.secured(&[]).await;
        ends_in_time(field, &mut script).await;
    });
}

#[test]
fn half_a_record_of_the_largest_size_is_held_for_ten_seconds() {
    attack(PENDING, async |field| {
        let mut script = field.secured(&[]).await;
        let record = script.sealed(&[7; 65_519]).unwrap();
        script.send(&record[..record.len() - 1]).await.unwrap();
        drop(record);
        ends_in_time(field, &mut script).await;
    });
}

#[test]
fn proposals_without_end_inside_of_the_channel_are_answered_sixty_four_times() {
    attack(PENDING, async |field| {
        let mut script = field.secured(&[]).await;
        script.say(&multistream::message(multistream::NAME)).await.unwrap();
        assert!(field.flood(&mut script, &multistream::message("/no"), 100_000).await < 100_000);
        field.ended_at_once(&mut script).await;
    });
}

#[test]
fn a_multiplexers_name_that_never_ends_is_bounded() {
    attack(PENDING, async |field| {
        let mut script = field.secured(&[]).await;
        let said = [multistream::message(multistream::NAME), vec![0xff; 64]].concat();
        script.say(&said).await.unwrap();
        field.ended_at_once(&mut script).await;
    });
}

#[test]
fn cve_2024_58265_cve_2021_4239_a_forged_record_ends_the_channel() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        script.send(&framed(&[7; 64])).await.unwrap();
        // A good one behind it is not opened.
        script.say(&yamux::frame(yamux::PING, yamux::SYN, 0, 1)).await.unwrap();
        let end = field.ended_within(&mut script, Duration::from_secs(1)).await;
        let pong = yamux::frame(yamux::PING, yamux::ACK, 0, 1);
        assert!(!end.said.windows(12).any(|part| part == pong));
        assert_eq!(field.offenders(), 0);
    });
}

#[test]
fn a_record_that_is_sent_twice_ends_the_channel() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        let ping = script.sealed(&yamux::frame(yamux::PING, yamux::SYN, 0, 1)).unwrap();
        script.send(&[ping.clone(), ping].concat()).await.unwrap();
        field.ended_within(&mut script, Duration::from_secs(1)).await;
    });
}

#[test]
fn records_in_another_order_end_the_channel() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        let ping = |value| yamux::frame(yamux::PING, yamux::SYN, 0, value);
        let [first, second] = [1, 2].map(|value| script.sealed(&ping(value)).unwrap());
        script.send(&[second, first].concat()).await.unwrap();
        field.ended_within(&mut script, Duration::from_secs(1)).await;
    });
}

#[test]
fn a_record_that_is_shorter_than_its_tag_ends_the_channel() {
    attack(CONNECTION, async |field| {
        for len in [0, 15] {
            let mut script = field.yamux().await;
            script.send(&framed(&vec![7; len])).await.unwrap();
            field.ended_within(&mut script, Duration::from_secs(1)).await;
        }
    });
}

#[test]
fn empty_records_without_end_end_the_channel() {
    attack(CONNECTION, async |field| {
        for muxers in [&[][..], &[yamux::NAME]] {
            let (mut script, mut handshake) = field.half_shaken().await;
            let payload = handshake.good_payload(&identity(), muxers).unwrap();
            script.send(&framed(&handshake.message_3(&payload).unwrap())).await.unwrap();
            let mut records = handshake.records();
            let mut sent = 0;
            while sent < 5_000 && script.send(&records.seal(&[]).unwrap()).await.is_ok() {
                sent += 1;
                if sent % 500 == 0 {
                    field.honest_echo().await;
                }
            }
            assert!((1_000..2_000).contains(&sent), "{sent}");
            field.ended_within(&mut script, Duration::from_secs(1)).await;
        }
    });
}
