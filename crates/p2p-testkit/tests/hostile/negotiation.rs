//! Before there is a channel: connections that say nothing, little, too much or nonsense.

use std::time::Duration;

use p2p_testkit::hostile::wire::{multistream, varint};

use crate::field::{Field, INBOUND_MAX, UNPROVEN, attack};

/// That a connection which has said this, and then nothing, ends when its time is up.
async fn ends_in_time(field: &Field, said: &[u8]) {
    let mut script = field.dial().await;
    script.send(said).await.unwrap();
    assert_eq!(field.ended_within(&mut script, INBOUND_MAX).await.after, INBOUND_MAX);
}

/// That a connection which has said this ends at once.
async fn ends_at_once(field: &Field, said: &[u8]) {
    let mut script = field.dial().await;
    // It may end before all of it is taken.
    let _ended_meanwhile = script.send(said).await.is_err();
    field.ended_at_once(&mut script).await;
}

fn header() -> Vec<u8> {
    multistream::message(multistream::NAME)
}

fn after_header(said: &[u8]) -> Vec<u8> {
    [&header(), said].concat()
}

#[test]
fn js_90cca822b_a_connection_that_says_nothing_has_ten_seconds() {
    attack(UNPROVEN, async |field| ends_in_time(field, b"").await);
}

#[test]
fn half_a_header_has_ten_seconds() {
    attack(UNPROVEN, async |field| ends_in_time(field, b"\x13/multi").await);
}

#[test]
fn a_header_without_a_proposal_has_ten_seconds() {
    attack(UNPROVEN, async |field| ends_in_time(field, &header()).await);
}

#[test]
fn half_a_proposal_has_ten_seconds() {
    attack(UNPROVEN, async |field| ends_in_time(field, &after_header(b"\x07/noi")).await);
}

#[test]
fn a_byte_a_second_buys_no_more_time() {
    attack(UNPROVEN, async |field| {
        let mut script = field.dial().await;
        for byte in header() {
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
fn another_protocol_is_not_waited_for() {
    attack(UNPROVEN, async |field| {
        ends_at_once(field, b"GET / HTTP/1.1\r\nHost: example\r\n\r\n").await;
        // A TLS client hello, and a line of SSH.
        ends_at_once(field, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await;
        ends_at_once(field, b"SSH-2.0-OpenSSH_9.9\r\n").await;
    });
}

#[test]
fn proposals_without_end_are_answered_sixty_four_times() {
    attack(UNPROVEN, async |field| {
        let mut script = field.dial().await;
        script.send(&header()).await.unwrap();
        assert_eq!(script.hear_message().await.unwrap(), multistream::NAME);
        for _ in 0..64 {
            script.send(&multistream::message("/no/1.0.0")).await.unwrap();
            assert_eq!(script.hear_message().await.unwrap(), "na");
            field.honest_echo().await;
        }
        script.send(&multistream::message("/noise")).await.unwrap();
        assert_eq!(field.ended_at_once(&mut script).await.said, b"");
    });
}

#[test]
fn endless_na_to_a_dialer_ends_the_dial() {
    attack(UNPROVEN, async |field| {
        let mut script = field.dial().await;
        // The answers of a responder, to one who is no initiator.
        let said = [header(), multistream::message("na").repeat(100)].concat();
        let _ended_meanwhile = script.send(&said).await.is_err();
        field.ended_at_once(&mut script).await;
    });
}

#[test]
fn cve_2019_9515_lists_are_refused_as_often_as_proposals() {
    attack(UNPROVEN, async |field| {
        let mut script = field.dial().await;
        script.send(&header()).await.unwrap();
        assert!(field.flood(&mut script, &multistream::message("ls"), 10_000).await < 10_000);
        field.ended_at_once(&mut script).await;
    });
}

#[test]
fn repeated_headers_are_proposals_like_any_other() {
    attack(UNPROVEN, async |field| {
        let mut script = field.dial().await;
        assert!(field.flood(&mut script, &header(), 10_000).await < 10_000);
        field.ended_at_once(&mut script).await;
    });
}

#[test]
fn proposals_whose_answers_nobody_reads_stop_the_reading() {
    attack(UNPROVEN, async |field| {
        let mut script = field.dial().await;
        script.send(&header()).await.unwrap();
        // The longest names, one at a time.
        let name = multistream::message(&format!("/{}", "x".repeat(1022)));
        for _ in 0..64 {
            script.send(&name).await.unwrap();
            field.honest_echo().await;
        }
        let _ended_meanwhile = script.send(&name).await.is_err();
        field.ended_at_once(&mut script).await;
    });
}

#[test]
fn teku_attack_0_zero_bytes_are_no_messages() {
    attack(UNPROVEN, async |field| {
        ends_at_once(field, &after_header(&[0; 4000])).await;
        ends_at_once(field, &[0; 4000]).await;
    });
}

#[test]
fn huge_varints_are_refused_before_anything_is_held_for_them() {
    attack(UNPROVEN, async |field| {
        for len in [1025, 65_536, u64::from(u32::MAX), u64::MAX >> 1] {
            ends_at_once(field, &after_header(&varint(len))).await;
        }
        ends_at_once(field, &after_header(&[0xff; 12])).await;
    });
}

#[test]
fn varints_that_are_not_minimal_are_refused() {
    attack(UNPROVEN, async |field| {
        ends_at_once(field, &after_header(&[0x87, 0x00])).await;
        ends_at_once(field, &after_header(&[0x80, 0x80, 0x80, 0x80])).await;
    });
}

#[test]
fn messages_that_are_no_text_are_refused() {
    attack(UNPROVEN, async |field| {
        ends_at_once(field, &after_header(b"\x04/\xff\xfe\n")).await;
        ends_at_once(field, &after_header(b"\x06/noise")).await;
    });
}

#[test]
fn the_end_in_the_middle_of_a_negotiation_frees_everything_at_once() {
    attack(UNPROVEN, async |field| {
        for said in [&b""[..], b"\x13/multi", &header(), &after_header(b"\x07/noi")] {
            for dropped in [false, true] {
                let mut script = field.dial().await;
                script.send(said).await.unwrap();
                field.honest_echo().await;
                if dropped {
                    drop(script);
                } else {
                    script.shutdown().await.unwrap();
                    field.ended_at_once(&mut script).await;
                }
                field.honest_echo().await;
                assert_eq!(field.victim.usage().pending_inbound.count, 0);
            }
        }
    });
}

#[test]
fn plaintext_is_not_spoken_by_a_host_that_has_not_asked_for_it() {
    attack(UNPROVEN, async |field| {
        let mut script = field.dial().await;
        script.send(&multistream::proposal("/plaintext/2.0.0")).await.unwrap();
        assert_eq!(script.hear_message().await.unwrap(), multistream::NAME);
        assert_eq!(script.hear_message().await.unwrap(), "na");
        field.ended_within(&mut script, INBOUND_MAX).await;
    });
}
