//! Violations of yamux, and floods of it.

use std::time::Duration;

use p2p_testkit::hostile::wire::yamux::{
    ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW_UPDATE, data, frame,
};

use crate::field::{CONNECTION, Field, KIB, WINDOW, attack};

/// Go-away codes.
const PROTOCOL_ERROR: u32 = 1;
const INTERNAL_ERROR: u32 = 2;

/// That the victim goes away with a protocol error when it is sent this.
async fn violates(field: &Field, said: &[u8]) {
    let mut script = field.yamux().await;
    script.say(said).await.unwrap();
    field.goes_away(&mut script, PROTOCOL_ERROR).await;
}

#[test]
fn a_frame_of_another_version_is_a_protocol_error() {
    attack(CONNECTION, async |field| violates(field, &[1; 12]).await);
}

#[test]
fn a_frame_of_an_unknown_type_is_a_protocol_error() {
    attack(CONNECTION, async |field| violates(field, &frame(4, 0, 0, 0)).await);
}

#[test]
fn frames_on_the_wrong_kind_of_stream_are_protocol_errors() {
    attack(CONNECTION, async |field| {
        violates(field, &frame(DATA, 0, 0, 1)).await;
        violates(field, &frame(WINDOW_UPDATE, 0, 0, 1)).await;
        violates(field, &frame(PING, SYN, 5, 1)).await;
        violates(field, &frame(GO_AWAY, 0, 3, 0)).await;
    });
}

#[test]
fn a_stream_of_the_victims_parity_is_a_protocol_error() {
    attack(CONNECTION, async |field| violates(field, &frame(DATA, SYN, 1000, 0)).await);
}

#[test]
fn a_stream_that_is_opened_twice_is_a_protocol_error() {
    attack(CONNECTION, async |field| violates(field, &frame(DATA, SYN, 1, 0).repeat(2)).await);
}

#[test]
fn data_after_the_end_of_a_stream_are_a_protocol_error() {
    attack(CONNECTION, async |field| {
        violates(field, &[frame(DATA, SYN | FIN, 1, 0), data(0, 1, b"x")].concat()).await;
    });
}

#[test]
fn cve_2026_32314_a_stream_that_begins_with_more_than_its_window() {
    attack(CONNECTION, async |field| violates(field, &frame(DATA, SYN, 1, 262_145)).await);
}

#[test]
fn more_than_the_window_is_refused_by_its_header() {
    attack(CONNECTION + WINDOW, async |field| {
        let mut script = field.stream(1, "/deaf/1.0.0").await;
        field.flood(&mut script, &data(0, 1, &[7; 8 * KIB - 12]), 32).await;
        script.say(&frame(DATA, 0, 1, 4096)).await.unwrap();
        field.goes_away(&mut script, PROTOCOL_ERROR).await;
    });
}

#[test]
fn cve_2026_31814_credit_that_overflows_a_window() {
    attack(CONNECTION, async |field| {
        violates(field, &frame(WINDOW_UPDATE, SYN, 1, u32::MAX)).await;
        let twice = frame(WINDOW_UPDATE, 0, 1, 0x8000_0000).repeat(2);
        violates(field, &[frame(DATA, SYN, 1, 0), twice].concat()).await;
    });
}

#[test]
fn ghsa_hmj8_5xmh_5573_a_length_of_four_gibibytes_is_not_believed() {
    attack(CONNECTION, async |field| {
        violates(field, &frame(DATA, SYN, 1, u32::MAX)).await;
        violates(field, &frame(DATA, 0, 99, u32::MAX)).await;
    });
}

#[test]
fn ghsa_hmj8_5xmh_5573_a_body_that_never_comes_ends_with_the_keep_alive() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        script.say(&frame(DATA, SYN, 1, 100_000)).await.unwrap();
        field.ended_within(&mut script, Duration::from_secs(95)).await;
    });
}

#[test]
fn half_a_header_ends_with_the_keep_alive() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        script.say(&[0, 0, 0]).await.unwrap();
        field.ended_within(&mut script, Duration::from_secs(95)).await;
    });
}

#[test]
fn a_peer_that_never_says_anything_ends_with_the_keep_alive() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        field.ended_within(&mut script, Duration::from_secs(95)).await;
    });
}

#[test]
fn cve_2024_32984_cve_2019_9512_pings_whose_answers_nobody_reads() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        field.flood(&mut script, &frame(PING, SYN, 0, 7), 500_000).await;
        // Ten seconds after the pipe took nothing more, and one for the end.
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(field.offenders(), 0);
    });
}

#[test]
fn go_yamux_203f9c9_pings_are_answered_one_by_one() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        for value in 0..1_000 {
            script.say(&frame(PING, SYN, 0, value)).await.unwrap();
            script.hear_until(&frame(PING, ACK, 0, value)).await.unwrap();
        }
        field.honest_echo().await;
    });
}

#[test]
fn go_yamux_f55df18_more_streams_than_may_be_are_reset_and_then_a_flood() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        let opens: Vec<u8> = (0..2_000).flat_map(|n| frame(DATA, SYN, 2 * n + 1, 0)).collect();
        for piece in opens.chunks(1_200) {
            let _ended_meanwhile = script.say(piece).await.is_err();
            field.honest_echo().await;
        }
        field.goes_away(&mut script, INTERNAL_ERROR).await;
    });
}

#[test]
fn cve_2023_44487_rapid_reset() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        for id in (1..2_401).step_by(2) {
            let pair = [frame(DATA, SYN, id, 0), frame(WINDOW_UPDATE, RST, id, 0)].concat();
            let _ended_meanwhile = script.say(&pair).await.is_err();
            if id % 500 == 1 {
                field.honest_echo().await;
            }
        }
        field.goes_away(&mut script, INTERNAL_ERROR).await;
    });
}

#[test]
fn cve_2025_8671_cve_2019_9514_the_victim_is_made_to_reset() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        let mut id = 1;
        // A negotiation that fails makes it reset the stream.
        while script.say(&data(SYN, id, b"\x00\x00")).await.is_ok() {
            while let Ok(Ok(_)) = tokio::time::timeout(Duration::ZERO, script.hear(1)).await {}
            id += 2;
            if id > 20_000 {
                break;
            }
            if id % 500 == 1 {
                field.honest_echo().await;
            }
        }
        field.honest_echo().await;
    });
}

#[test]
fn cve_2019_9518_rustsec_2026_0258_frames_that_carry_nothing() {
    attack(CONNECTION, async |field| {
        for empty in [frame(DATA, 0, 1, 0), frame(WINDOW_UPDATE, 0, 1, 0)] {
            let mut script = field.yamux().await;
            script.say(&frame(DATA, SYN, 1, 0)).await.unwrap();
            field.flood(&mut script, &empty, 200).await;
            field.goes_away(&mut script, INTERNAL_ERROR).await;
        }
    });
}

#[test]
fn rust_yamux_0_14_a_window_of_one_byte_frames_costs_no_more_than_one_of_large_ones() {
    attack(CONNECTION + WINDOW, async |field| {
        let mut script = field.stream(1, "/deaf/1.0.0").await;
        assert_eq!(field.flood(&mut script, &data(0, 1, b"x"), 200_000).await, 200_000);
    });
}

#[test]
fn sixteen_unread_windows_cost_sixteen_windows() {
    attack(CONNECTION + 16 * WINDOW, async |field| {
        let mut script = field.yamux().await;
        for id in (1..33).step_by(2) {
            field.open(&mut script, id, "/deaf/1.0.0").await;
            field.flood(&mut script, &data(0, id, &[7; 1_000]), 255).await;
        }
    });
}

#[test]
fn cve_2019_9511_credit_a_byte_at_a_time() {
    attack(CONNECTION, async |field| {
        let mut script = field.stream(1, "/echo/1.0.0").await;
        let sent = field.flood(&mut script, &frame(WINDOW_UPDATE, 0, 1, 1), 100_000).await;
        assert_eq!(sent, 100_000);
    });
}

#[test]
fn cve_2019_9517_echoes_that_nobody_reads() {
    attack(CONNECTION + WINDOW, async |field| {
        let mut script = field.stream(1, "/echo/1.0.0").await;
        // The victim's window ends it, or its pipe: never its memory.
        let _taken = field.flood(&mut script, &data(0, 1, &[7; 1_000]), 262).await;
        field.honest_echo().await;
    });
}

#[test]
fn frames_of_no_stream_cost_nothing() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        field.flood(&mut script, &data(0, 99, &[7; 500]), 5_000).await;
        field.flood(&mut script, &frame(WINDOW_UPDATE, RST, 99, 7), 50_000).await;
        field.flood(&mut script, &frame(DATA, FIN, 99, 0), 50_000).await;
        field.flood(&mut script, &frame(PING, ACK, 0, 7), 50_000).await;
    });
}

#[test]
fn cve_2019_9513_streams_that_come_and_go_cost_nothing() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        for id in (1..1_200).step_by(2) {
            field.open(&mut script, id, "/echo/1.0.0").await;
            script.say(&frame(DATA, FIN, id, 0)).await.unwrap();
            script.hear_until(&frame(DATA, FIN, id, 0)).await.unwrap();
            if id % 100 == 1 {
                field.honest_echo().await;
            }
        }
    });
}

#[test]
fn whoever_has_gone_away_is_not_served_any_more() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        let late = data(SYN, 1, b"\x13/multistream/1.0.0\n\x0c/echo/1.0.0\n");
        script.say(&[frame(GO_AWAY, 0, 0, 0), late].concat()).await.unwrap();
        let end = field.ended_within(&mut script, Duration::from_secs(1)).await;
        assert!(!end.said.windows(11).any(|part| part == b"/echo/1.0.0"));
    });
}

#[test]
fn nothing_is_answered_after_a_violation() {
    attack(CONNECTION, async |field| {
        let mut script = field.yamux().await;
        let late = frame(PING, SYN, 0, 7).repeat(10);
        script.say(&[frame(4, 0, 0, 0), late].concat()).await.unwrap();
        field.goes_away(&mut script, PROTOCOL_ERROR).await;
    });
}

#[test]
fn a_reset_in_the_middle_of_a_body_is_a_part_of_the_body() {
    attack(CONNECTION + WINDOW, async |field| {
        let mut script = field.stream(1, "/echo/1.0.0").await;
        let mut said = frame(DATA, 0, 1, 24);
        said.extend(frame(WINDOW_UPDATE, RST, 1, 0).repeat(2));
        script.say(&said).await.unwrap();
        script.hear_until(&frame(WINDOW_UPDATE, RST, 1, 0).repeat(2)).await.unwrap();
    });
}

#[test]
fn a_connection_that_is_cut_in_the_middle_of_anything_frees_everything_at_once() {
    attack(CONNECTION + WINDOW, async |field| {
        let echo = b"\x13/multistream/1.0.0\n\x0c/echo/1.0.0\n";
        for said in [
            vec![0, 0],
            frame(DATA, SYN, 1, 0),
            frame(DATA, SYN, 1, 1_000),
            data(SYN, 1, &echo[..25]),
            data(SYN, 1, echo),
            [data(SYN, 1, echo), frame(DATA, 0, 1, 1_000), vec![7; 500]].concat(),
            [data(SYN, 1, echo), frame(DATA, FIN, 1, 0)].concat(),
            frame(GO_AWAY, 0, 0, 0),
        ] {
            for dropped in [false, true] {
                let mut script = field.yamux().await;
                script.say(&said).await.unwrap();
                field.honest_echo().await;
                if dropped {
                    drop(script);
                } else {
                    script.shutdown().await.unwrap();
                    field.ended_within(&mut script, Duration::from_secs(1)).await;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert_eq!(field.offenders(), 0, "{said:02x?}");
            }
        }
    });
}

#[test]
fn ghsa_29qp_crvh_w22m_a_peer_that_takes_nothing_is_given_up_after_ten_seconds() {
    attack(CONNECTION + WINDOW, async |field| {
        let mut script = field.stream(1, "/echo/1.0.0").await;
        field.flood(&mut script, &data(0, 1, &[7; 1_000]), 100).await;
        // It asks for an answer and reads none of it.
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(field.offenders(), 0);
    });
}
