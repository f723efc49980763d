//! Violations of mplex, and floods of it.

use std::time::Duration;

use p2p_testkit::hostile::wire::{
    mplex::{CLOSE, MESSAGE, OPEN, RESET, frame, header},
    multistream,
};

use crate::field::{CONNECTION, Field, KIB, attack};

/// That the victim ends the connection when it is sent this. The wire knows no goodbye.
async fn violates(field: &Field, said: &[u8]) {
    let mut script = field.mplex().await;
    script.say(said).await.unwrap();
    field.ended_within(&mut script, Duration::from_secs(1)).await;
}

#[test]
fn a_flag_that_is_not_defined_ends_the_connection() {
    attack(CONNECTION, async |field| violates(field, &header(0, 7, 0)).await);
}

#[test]
fn a_body_beyond_a_mebibyte_is_refused_by_its_header() {
    attack(CONNECTION, async |field| {
        violates(field, &header(0, MESSAGE, (1 << 20) + 1)).await;
        violates(field, &header(0, OPEN, u64::MAX >> 1)).await;
    });
}

#[test]
fn varints_that_are_no_varints_end_the_connection() {
    attack(CONNECTION, async |field| {
        violates(field, &[0xff; 20]).await;
        violates(field, &[0x80, 0x00, 0x00]).await;
    });
}

#[test]
fn a_stream_that_is_opened_twice_ends_the_connection() {
    attack(CONNECTION, async |field| violates(field, &frame(0, OPEN, b"0").repeat(2)).await);
}

#[test]
fn cve_2019_9518_messages_that_carry_nothing() {
    attack(CONNECTION, async |field| {
        let mut script = field.mplex().await;
        script.say(&frame(0, OPEN, b"")).await.unwrap();
        field.flood(&mut script, &frame(0, MESSAGE, b""), 1_000).await;
        field.ended_within(&mut script, Duration::from_secs(1)).await;
    });
}

#[test]
fn cve_2023_44487_rapid_reset() {
    attack(CONNECTION, async |field| {
        let mut script = field.mplex().await;
        for number in 0..1_100 {
            let pair = [frame(number, OPEN, b""), frame(number, RESET, b"")].concat();
            // It may be over already.
            let _ended_meanwhile = script.say(&pair).await.is_err();
            if number % 250 == 0 {
                field.honest_echo().await;
            }
        }
        field.ended_within(&mut script, Duration::from_secs(1)).await;
    });
}

#[test]
fn streams_without_end_are_refused_and_then_a_flood() {
    attack(CONNECTION, async |field| {
        let mut script = field.mplex().await;
        for number in 0..1_700 {
            let _ended_meanwhile = script.say(&frame(number, OPEN, b"")).await.is_err();
            while let Ok(Ok(_)) = tokio::time::timeout(Duration::ZERO, script.hear(1)).await {}
        }
        field.ended_within(&mut script, Duration::from_secs(1)).await;
    });
}

#[test]
fn frames_of_no_stream_without_end_are_a_flood() {
    attack(CONNECTION, async |field| {
        let mut script = field.mplex().await;
        field.flood(&mut script, &frame(9, CLOSE, b""), 70_000).await;
        field.ended_within(&mut script, Duration::from_secs(1)).await;
    });
}

#[test]
fn ghsa_hmj8_5xmh_5573_a_body_that_never_comes_holds_nothing() {
    attack(CONNECTION, async |field| {
        let mut script = field.mplex().await;
        let said = [frame(0, OPEN, b""), header(0, MESSAGE, 1 << 20), vec![7; 100]].concat();
        script.say(&said).await.unwrap();
        // Its stream ends with its negotiation, the connection when nothing uses it.
        field.ended_within(&mut script, Duration::from_secs(80)).await;
    });
}

#[test]
fn mplex_itself_data_that_nobody_reads_reset_their_stream_at_eight_mebibytes() {
    attack(CONNECTION + 8 * 1024 * KIB + 16 * KIB, async |field| {
        let mut script = field.mplex().await;
        script.say(&frame(0, OPEN, b"")).await.unwrap();
        script.say(&frame(0, MESSAGE, &multistream::proposal("/deaf/1.0.0"))).await.unwrap();
        script.hear_until(&multistream::message("/deaf/1.0.0")).await.unwrap();
        field.flood(&mut script, &frame(0, MESSAGE, &[7; 4_000]), 2_200).await;
        // The reset of a stream that the offender has opened.
        script.hear_until(&[5, 0]).await.unwrap();
        assert_eq!(field.offenders(), 1, "the connection lives");
    });
}

#[test]
fn one_byte_messages_cost_no_more_memory_than_large_ones() {
    attack(CONNECTION + 512 * KIB, async |field| {
        let mut script = field.mplex().await;
        script.say(&frame(0, OPEN, b"")).await.unwrap();
        script.say(&frame(0, MESSAGE, &multistream::proposal("/deaf/1.0.0"))).await.unwrap();
        field.flood(&mut script, &frame(0, MESSAGE, b"x"), 200_000).await;
    });
}

#[test]
fn a_connection_that_is_cut_in_the_middle_of_anything_frees_everything_at_once() {
    attack(CONNECTION, async |field| {
        for said in [
            vec![0x80],
            frame(0, OPEN, b"name"),
            [frame(0, OPEN, b""), header(0, MESSAGE, 1_000), vec![7; 10]].concat(),
            [frame(0, OPEN, b""), frame(0, MESSAGE, &multistream::proposal("/echo/1.0.0"))]
                .concat(),
        ] {
            let mut script = field.mplex().await;
            script.say(&said).await.unwrap();
            field.honest_echo().await;
            script.shutdown().await.unwrap();
            field.ended_within(&mut script, Duration::from_secs(1)).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(field.offenders(), 0, "{said:02x?}");
        }
    });
}
