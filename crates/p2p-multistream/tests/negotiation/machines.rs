use std::slice::from_ref;

use bytes::BytesMut;
use p2p_core::ErrorCode;
use p2p_multistream::{ClosedAt, MESSAGE_LEN_MAX, PROPOSALS_MAX};

use super::*;

fn agreed(outcome: &Outcome) -> &ProtocolId {
    match outcome {
        Ok(Some(protocol)) => protocol,
        other => panic!("no agreement: {other:?}"),
    }
}

fn failure(outcome: Outcome) -> NegotiationError {
    outcome.expect_err("the negotiation must fail")
}

#[test]
fn mss_01_02_the_vectors_are_what_goes_over_the_wire() {
    for (name, bytes) in NAMES {
        let whole = hex(&format!("{HEADER}{bytes}"));
        for mut machine in [Machine::initiator(from_ref(&name)), Machine::responder(name.clone())] {
            let (outcome, out, left) = machine.feed(&whole, whole.len());
            assert_eq!(agreed(&outcome), &name);
            assert_eq!(out, whole);
            assert!(left.is_empty());
        }
    }
    let refused = hex(&format!("{HEADER}{NA}"));
    let (outcome, out, _) = Machine::responder(NOISE).feed(&flight(&["/tls/1.0.0"]), 100);
    assert!(matches!(outcome, Ok(None)));
    assert_eq!(out, refused);
}

#[test]
fn mss_12_the_first_call_sends_header_and_proposal_in_one() {
    let (outcome, out, _) = Machine::initiator(&[NOISE, TLS]).feed(&[], 1);
    assert!(matches!(outcome, Ok(None)));
    assert_eq!(out, hex("132f6d756c746973747265616d2f312e302e300a072f6e6f6973650a"));
}

#[test]
fn mss_10_t02_1_the_responder_says_nothing_before_the_initiators_header() {
    let (outcome, out, _) = Machine::responder(NOISE).feed(&hex(HEADER)[..19], 19);
    assert!(matches!(outcome, Ok(None)));
    assert!(out.is_empty());
}

/// py-libp2p sends its header alone and waits for ours.
#[test]
fn mss_12_a_header_alone_is_answered_with_the_header_alone() {
    let mut responder = Machine::responder(NOISE);
    let (mut wire, mut out) = (BytesMut::from(&*hex(HEADER)), BytesMut::new());
    assert!(matches!(responder.advance(&mut wire, &mut out), Ok(None)));
    assert_eq!(out.split(), hex(HEADER));
    wire.extend_from_slice(&msg("/noise"));
    assert_eq!(agreed(&responder.advance(&mut wire, &mut out)), &NOISE);
    assert_eq!(out, msg("/noise"));
}

#[test]
fn mss_13_14_exchange_b_after_na_the_next_name_goes_alone() {
    let mut initiator = Machine::initiator(&[TLS, NOISE]);
    let (mut wire, mut out) = (BytesMut::new(), BytesMut::new());
    assert!(matches!(initiator.advance(&mut wire, &mut out), Ok(None)));
    assert_eq!(out.split(), flight(&["/tls/1.0.0"]));
    wire.extend_from_slice(&flight(&["na"]));
    assert!(matches!(initiator.advance(&mut wire, &mut out), Ok(None)));
    assert_eq!(out.split(), msg("/noise"));
    wire.extend_from_slice(&msg("/noise"));
    assert_eq!(agreed(&initiator.advance(&mut wire, &mut out)), &NOISE);
    assert!(out.is_empty());

    let (outcome, out, _) = Machine::responder(NOISE).feed(&flight(&["/tls/1.0.0", "/noise"]), 1);
    assert_eq!(agreed(&outcome), &NOISE);
    assert_eq!(out, flight(&["na", "/noise"]));
}

#[test]
fn mss_18_exchange_c_all_refused_names_what_was_proposed() {
    let error = failure(Machine::initiator(&[TLS, NOISE]).feed(&flight(&["na", "na"]), 1).0);
    let NegotiationError::Unsupported { proposed } = &error else { panic!("{error}") };
    assert_eq!(*proposed, [TLS, NOISE]);
    assert_eq!(error.to_string(), "the peer supports none of [/tls/1.0.0, /noise]");
    assert_eq!(error.stream_code(), ErrorCode::STREAM_NEGOTIATION_FAILED);
}

#[test]
fn mss_07_exchange_e_payload_in_the_same_segment_stays_whole() {
    let payload: Vec<u8> = (0..32).collect();
    let mut segment = flight(&["na", "/noise"]);
    segment.extend_from_slice(&payload);
    let (outcome, _, left) = Machine::initiator(&[TLS, NOISE]).feed(&segment, segment.len());
    assert_eq!((agreed(&outcome), &*left), (&NOISE, &*payload));

    let mut segment = flight(&["/tls/1.0.0", "/noise"]);
    segment.extend_from_slice(&payload);
    let (outcome, _, left) = Machine::responder(NOISE).feed(&segment, segment.len());
    assert_eq!((agreed(&outcome), &*left), (&NOISE, &*payload));
}

/// Exchange (f), trap 2: one segment, two, or the header long before.
#[test]
fn t02_2_the_answer_may_come_in_any_segments() {
    let answer = flight(&["/noise"]);
    for cut in 0..=answer.len() {
        let (mut wire, mut out) = (BytesMut::from(&answer[..cut]), BytesMut::new());
        let mut initiator = Machine::initiator(&[NOISE]);
        let mut outcome = initiator.advance(&mut wire, &mut out);
        assert_eq!(out, answer, "the first flight, whatever is there already");
        if cut < answer.len() {
            assert!(matches!(outcome, Ok(None)), "{cut}");
            wire.extend_from_slice(&answer[cut..]);
            outcome = initiator.advance(&mut wire, &mut out);
        }
        assert_eq!(agreed(&outcome), &NOISE);
    }
}

/// Exchange (d), and a truncation at each byte: a prefix is never an error and never an end.
#[test]
fn mss_07_one_byte_at_a_time_and_truncated_at_each_byte() {
    for name in [NOISE, longest()] {
        let whole = flight(&["na", name.as_str()]);
        for len in 0..=whole.len() {
            for mut machine in
                [Machine::initiator(&[TLS, name.clone()]), Machine::responder(name.clone())]
            {
                let (outcome, _, left) = machine.feed(&whole[..len], 1);
                if len < whole.len() {
                    assert!(matches!(outcome, Ok(None)), "{len}");
                } else {
                    assert_eq!(agreed(&outcome), &name);
                    assert!(left.is_empty());
                }
            }
        }
    }
}

#[test]
fn mss_03_04_06_malformed_messages_end_the_negotiation() {
    for (bytes, expected) in MUST_FAIL {
        for size in [1, 100] {
            for mut machine in [Machine::initiator(&[NOISE]), Machine::responder(NOISE)] {
                let (outcome, ..) = machine.feed(&hex(&format!("{HEADER}{bytes}")), size);
                let error = failure(outcome);
                assert_eq!(variant(&error), expected, "{bytes}");
                assert_eq!(error.stream_code(), ErrorCode::STREAM_PROTOCOL_VIOLATION);
            }
        }
    }
}

#[test]
fn mss_11_any_other_first_message_ends_the_negotiation() {
    let firsts = MUST_FAIL.map(|(bytes, _)| hex(bytes)).into_iter().chain([
        hex(NA),
        hex(LS),
        msg("/noise"),
        msg("/multistream/2.0.0"),
        b"GET / HTTP/1.1\r\n".to_vec(),
    ]);
    for first in firsts {
        for size in [1, 100] {
            for mut machine in [Machine::initiator(&[NOISE]), Machine::responder(NOISE)] {
                let error = failure(machine.feed(&first, size).0);
                assert_eq!(variant(&error), "NotMultistream", "{first:?}");
            }
        }
    }
}

#[test]
fn mss_11_the_error_shows_what_the_peer_began_with() {
    let shown = |bytes: &[u8]| failure(Machine::responder(NOISE).feed(bytes, 1000).0).to_string();
    let text = |what: &str| {
        format!("the peer does not speak multistream-select 1.0.0: it began with \"{what}\"")
    };
    assert_eq!(shown(b"GET / HTTP/1.1\r\n"), text(r"GET / HTTP/1.1\r\n"));
    assert_eq!(shown(&[0x16, 0x03, 0x01]), text(r"\x16\x03\x01"));
    assert_eq!(shown(&[b'y'; 1000]), text(&"y".repeat(64)));
}

/// Trap 10, and what stopped finality of an Ethereum test network (teku-attack-0): zero bytes,
/// each answered `na`.
#[test]
fn t02_10_zero_bytes_are_one_error_and_no_answer() {
    let mut input = flight(&[]);
    input.extend([0; 4096]);
    let (outcome, out, _) = Machine::responder(NOISE).feed(&input, input.len());
    assert_eq!(variant(&failure(outcome)), "Empty");
    assert_eq!(out, hex(HEADER));
}

#[test]
fn mss_04_a_message_of_1024_bytes_is_taken_and_one_of_1025_is_not() {
    let name = longest();
    let whole = flight(&[name.as_str()]);
    assert_eq!(whole.len(), 20 + 2 + MESSAGE_LEN_MAX);
    for mut machine in [Machine::initiator(from_ref(&name)), Machine::responder(name.clone())] {
        let (outcome, out, _) = machine.feed(&whole, whole.len());
        assert_eq!(agreed(&outcome), &name);
        assert_eq!(out, whole);
    }
    for mut machine in [Machine::initiator(&[NOISE]), Machine::responder(NOISE)] {
        // The prefix alone is enough: the body is not waited for.
        let error = failure(machine.feed(&hex(&format!("{HEADER}8108")), 1).0);
        assert!(matches!(error, NegotiationError::MessageLen { len: 1025, max: 1024 }), "{error}");
    }
}

#[test]
fn mss_15_33_any_other_answer_is_an_error() {
    for answer in ["/tls/1.0.0", "/multistream/1.0.0", "/noise ", "", "ls", "NA", "noise"] {
        let error = failure(Machine::initiator(&[NOISE]).feed(&flight(&[answer]), 1).0);
        let NegotiationError::UnexpectedAnswer { expected, got } = error else { panic!("{error}") };
        assert_eq!((expected, &*got), (NOISE, answer));
    }
    let long = longest();
    let error = failure(Machine::initiator(&[NOISE]).feed(&flight(&[long.as_str()]), 1).0);
    let NegotiationError::UnexpectedAnswer { got, .. } = error else { panic!("{error}") };
    assert_eq!(got.len(), 64, "a long answer is shortened");
}

/// A plain TCP simultaneous open leaves two initiators.
#[test]
fn mss_33_two_initiators_fail_cleanly() {
    let (_, first_flight, _) = Machine::initiator(&[TLS]).feed(&[], 1);
    let error = failure(Machine::initiator(&[NOISE]).feed(&first_flight, 100).0);
    assert_eq!(error.to_string(), "the peer answered the proposal of /noise with \"/tls/1.0.0\"");
}

/// MSS-08, MSS-29, MSS-31, MSS-32, trap 5: what is a message, but no name, is refused without
/// asking and without an end.
#[test]
fn mss_29_31_32_t02_5_what_is_no_protocol_is_refused() {
    for text in
        ["ls", "", "na", "noise", "/multistream/1.0.0", "/libp2p/simultaneous-connect", "/a\nb"]
    {
        let mut asked = Vec::new();
        let mut wire = BytesMut::from(&*flight(&[text, "/noise"]));
        let mut out = BytesMut::new();
        let outcome = Responder::new().advance(&mut wire, &mut out, &mut |name| {
            asked.push(name.to_owned());
            true
        });
        assert_eq!(agreed(&outcome), &NOISE);
        assert_eq!(out, flight(&["na", "/noise"]), "{text}");
        assert_eq!(asked, ["/noise"]);
    }
}

#[test]
fn mss_16_a_loose_match_echoes_the_name_proposed() {
    let mut wire = BytesMut::from(&*flight(&["/noise/7"]));
    let mut out = BytesMut::new();
    let outcome = Responder::new().advance(&mut wire, &mut out, &mut |n| n.starts_with("/noise"));
    assert_eq!(agreed(&outcome).as_str(), "/noise/7");
    assert_eq!(out, flight(&["/noise/7"]));
}

#[test]
fn mss_17_the_64th_proposal_is_answered_and_the_65th_is_an_error() {
    let proposals = |refused: usize| {
        let mut texts = vec!["/other"; refused];
        texts.push("/noise");
        flight(&texts)
    };
    let (outcome, ..) = Machine::responder(NOISE).feed(&proposals(PROPOSALS_MAX - 1), 100);
    assert_eq!(agreed(&outcome), &NOISE);
    let error = failure(Machine::responder(NOISE).feed(&proposals(PROPOSALS_MAX), 100).0);
    assert!(matches!(error, NegotiationError::TooManyProposals(64)), "{error}");
    assert_eq!(error.stream_code(), ErrorCode::STREAM_RESOURCE_LIMIT);

    let ls = flight(&["ls"; PROPOSALS_MAX + 1]);
    let (outcome, out, _) = Machine::responder(NOISE).feed(&ls, ls.len());
    assert_eq!(variant(&failure(outcome)), "TooManyProposals");
    assert_eq!(out.len(), 20 + 4 * PROPOSALS_MAX, "and no more than that is queued");
}

#[test]
fn t02_9_an_empty_list_fails_before_anything_is_sent() {
    assert!(matches!(Initiator::new([]), Err(NegotiationError::NoProtocols)));
}

#[test]
fn mss_19_the_end_of_the_stream_says_how_far_it_had_come() {
    let mut responder = Responder::new();
    let ended = |responder: &Responder| {
        let NegotiationError::Closed(at) = responder.handle_end() else { panic!("not closed") };
        at
    };
    assert_eq!(ended(&responder), ClosedAt::Header);
    let mut wire = BytesMut::from(&*flight(&["ls"]));
    let outcome = responder.advance(&mut wire, &mut BytesMut::new(), &mut |_| true);
    assert!(matches!(outcome, Ok(None)));
    assert_eq!(ended(&responder), ClosedAt::Refused(1));
    assert_eq!(
        responder.handle_end().to_string(),
        "the peer ended the stream after its header and 1 refused proposal"
    );
}

/// The first flight with payload behind it goes out at once; the answer is fed much later.
#[test]
fn mss_20_24_optimistic_use() {
    let mut initiator = Machine::initiator(&[NOISE]);
    let (_, mut sent, _) = initiator.feed(&[], 1);
    sent.extend_from_slice(b"payload");

    let (outcome, answer, left) = Machine::responder(NOISE).feed(&sent, sent.len());
    assert_eq!(agreed(&outcome), &NOISE);
    assert_eq!(left, "payload");
    let mut behind = answer.to_vec();
    behind.extend_from_slice(b"reply");
    let (outcome, out, left) = initiator.feed(&behind, 1);
    assert_eq!(agreed(&outcome), &NOISE);
    assert_eq!((&*left, &*out), (&b"reply"[..], &b""[..]));
}

/// Refused, the payload reaches the responder where it expects proposals.
#[test]
fn mss_24_28_a_refused_optimistic_flight_fails_on_both_sides() {
    let mut initiator = Machine::initiator(&[NOISE]);
    let (_, mut sent, _) = initiator.feed(&[], 1);
    sent.extend_from_slice(&[0x00, 0x20, 0xaa]);

    let (outcome, answer, _) = Machine::responder(TLS).feed(&sent, sent.len());
    assert_eq!(variant(&failure(outcome)), "Empty");
    assert_eq!(variant(&failure(initiator.feed(&answer, 1).0)), "Unsupported");
}

/// A reader that takes what `wanted` allows meets the end exactly, at every fragmentation.
#[test]
fn mss_07_wanted_never_reaches_past_the_end() {
    for name in [NOISE, longest(), ProtocolId::from_static("/")] {
        let mut input = flight(&["na", name.as_str()]);
        let end = input.len();
        input.extend([0xee; 2000]);
        for most in [1, 2, 3, 7, 5000] {
            for mut machine in
                [Machine::initiator(&[TLS, name.clone()]), Machine::responder(name.clone())]
            {
                let (mut wire, mut out) = (BytesMut::new(), BytesMut::new());
                let mut at = 0;
                while machine.advance(&mut wire, &mut out).expect("well-formed").is_none() {
                    let wanted = machine.wanted(&wire);
                    assert!(wanted >= 1);
                    let next = at + wanted.min(most);
                    wire.extend_from_slice(&input[at..next]);
                    at = next;
                }
                assert_eq!((at, machine.wanted(&wire)), (end, 0));
                assert!(wire.is_empty());
            }
        }
    }
}

/// A reader must not stall on 0 bytes where `advance` was not asked first, or has an error to give.
#[test]
fn wanted_is_at_least_one_byte_until_the_end() {
    for buffered in
        [flight(&[]), flight(&["/noise", "na"]), flight(&["na"]), hex("00"), hex("ffff")]
    {
        for mut machine in [Machine::initiator(&[NOISE]), Machine::responder(NOISE)] {
            assert!(machine.wanted(&buffered) >= 1, "{buffered:?}");
            machine.feed(&flight(&[]), 1).0.expect("the header alone");
            assert!(machine.wanted(&buffered) >= 1, "{buffered:?}");
        }
    }
}

#[test]
fn calls_after_the_end_give_the_same_again_and_take_nothing() {
    let mut initiator = Machine::initiator(&[NOISE]);
    initiator.feed(&flight(&["/noise"]), 1).0.expect("agreed");
    let mut failed = Machine::responder(NOISE);
    failed.feed(&hex(NA), 1).0.expect_err("no header");

    let (mut wire, mut out) = (BytesMut::from("more"), BytesMut::new());
    assert_eq!(agreed(&initiator.advance(&mut wire, &mut out)), &NOISE);
    assert_eq!(variant(&failure(failed.advance(&mut wire, &mut out))), "NotMultistream");
    assert_eq!((&*wire, &*out), (&b"more"[..], &b""[..]));
}

/// Both machines against each other, over pipes that cut and join at random.
#[test]
fn pairs_agree_under_any_fragmentation() {
    let names = NAMES.map(|(name, _)| name);
    for seed in 1..2000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let first = random.below(names.len());
        let count = 1 + random.below(names.len());
        let proposed: Vec<_> = names.iter().cycle().skip(first).take(count).cloned().collect();
        let supported = names[random.below(names.len())].clone();
        let expected = proposed.contains(&supported).then_some(&supported);
        assert_eq!(run_pair(&proposed, &supported, &mut random).as_ref(), expected, "seed {seed}");
    }
}

/// What both sides agree on; `None` when the initiator runs out of names.
fn run_pair(
    proposed: &[ProtocolId],
    supported: &ProtocolId,
    random: &mut Random,
) -> Option<ProtocolId> {
    let mut machines = [Machine::initiator(proposed), Machine::responder(supported.clone())];
    let mut wires = [BytesMut::new(), BytesMut::new()];
    let mut pipes = [BytesMut::new(), BytesMut::new()];
    let mut ends = [None, None];
    loop {
        let side = random.below(2);
        let arrives = random.below(pipes[side].len() + 1);
        let arrived = pipes[side].split_to(arrives);
        wires[side].extend_from_slice(&arrived);
        if ends[side].is_none() {
            match machines[side].advance(&mut wires[side], &mut pipes[1 - side]) {
                Ok(end) => ends[side] = end,
                Err(NegotiationError::Unsupported { .. }) => return None,
                Err(other) => panic!("{other}"),
            }
        }
        if let [Some(a), Some(b)] = &ends {
            assert_eq!(a, b);
            return ends[0].take();
        }
    }
}

/// Whatever arrives, both machines end or wait, and send a bounded amount.
#[test]
fn random_bytes_neither_panic_nor_flood() {
    for seed in 1..3000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut input = if seed % 2 == 0 { flight(&[]) } else { Vec::new() };
        input.extend((0..random.below(300)).map(|_| {
            let bound = if seed % 3 == 0 { 12 } else { 256 };
            u8::try_from(random.below(bound)).expect("less than 256")
        }));
        let size = 1 + random.below(40);
        for mut machine in [Machine::initiator(&[NOISE, TLS]), Machine::responder(NOISE)] {
            let (_, out, _) = machine.feed(&input, size);
            assert!(out.len() <= 20 + 4 * PROPOSALS_MAX + 8);
        }
    }
}
