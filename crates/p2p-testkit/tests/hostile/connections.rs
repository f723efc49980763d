//! Many connections; and victims that dial.

use std::time::Duration;

use p2p::{
    Keypair, OpenError,
    core::{Link, ListenEvent, Role, SecurityError, Transport as _},
};
use p2p_testkit::hostile::{
    Script,
    noise::{RawHandshake, framed},
    wire::{multistream, varint},
};
use tokio::{task::JoinHandle, time::Instant};

use crate::field::{Field, INBOUND_MAX, KIB, PENDING, UNPROVEN, attack};

/// What the list of connections and the network's own queue cost for each.
const EACH: usize = 8 * KIB;

#[test]
fn half_open_connections_are_a_hundred_and_twenty_eight_and_each_costs_what_it_may() {
    attack(128 * (UNPROVEN + EACH), async |field| {
        let mut kept = Vec::new();
        for number in 0..200 {
            let from = format!("/ip4/198.51.100.{number}/memory/1");
            let mut script = field.dial_from(&from).await;
            let _refused = script.send(&multistream::proposal("/noise")).await.is_err();
            let mut message = 16_384_u16.to_be_bytes().to_vec();
            message.resize(4_000, 7);
            let _refused = script.send(&message).await.is_err();
            kept.push(script);
            if number % 20 == 0 {
                field.honest_echo().await;
            }
        }
        field.honest_echo().await;
        assert!(field.victim.usage().pending_inbound.count <= 128);
        tokio::time::sleep(INBOUND_MAX).await;
        assert_eq!(field.victim.usage().pending_inbound.count, 0);
        assert_eq!(field.offenders(), 0);
    });
}

#[test]
fn nim_ac07d5229_silent_connections_do_not_keep_anybody_out_for_longer_than_ten_seconds() {
    attack(200 * EACH, async |field| {
        let mut kept = Vec::new();
        for number in 0..200 {
            kept.push(field.dial_from(&format!("/ip4/198.51.100.{number}/memory/1")).await);
        }
        field.honest_echo().await;
        assert_eq!(field.victim.usage().pending_inbound.count, 128);
        tokio::time::sleep(INBOUND_MAX).await;
        let mut late = field.dial().await;
        late.negotiate(Role::Initiator, "/noise").await.unwrap();
    });
}

#[test]
fn cve_2022_23486_one_address_has_sixty_four_connections() {
    attack(200 * EACH, async |field| {
        let mut kept = Vec::new();
        for _ in 0..200 {
            kept.push(field.dial().await);
        }
        field.honest_echo().await;
        assert_eq!(field.victim.usage().pending_inbound.count, 64);
        let mut last = kept.pop().unwrap();
        assert_eq!(field.ended_at_once(&mut last).await.said, b"");
    });
}

#[test]
fn connections_that_come_and_go_cost_nothing() {
    // Those that the network has queued, and nobody has taken yet.
    attack(UNPROVEN + 64 * EACH, async |field| {
        for number in 0..1_000 {
            drop(field.dial().await);
            if number % 50 == 0 {
                field.honest_echo().await;
            }
        }
        field.honest_echo().await;
        assert_eq!(field.victim.usage().pending_inbound.count, 0);
    });
}

#[test]
fn one_peer_has_eight_connections() {
    attack(9 * PENDING, async |field| {
        let mut kept = Vec::new();
        for _ in 0..8 {
            kept.push(field.yamux().await);
        }
        field.honest_echo().await;
        assert_eq!(field.offenders(), 8);
        let mut last = field.yamux().await;
        field.ended_within(&mut last, Duration::from_secs(1)).await;
        assert_eq!(field.offenders(), 8);
    });
}

/// Has the victim dial, as one who expects `expected` or anybody, and gives what it dials.
async fn dialed(
    field: &Field,
    expected: Option<&Keypair>,
) -> (Script, JoinHandle<Result<(), OpenError>>) {
    let transport = field.network.transport(None);
    let mut listener = transport.listen("/memory/66".parse().unwrap()).await.unwrap();
    let id = expected.map(|key| format!("/p2p/{}", key.public().peer_id())).unwrap_or_default();
    let victim = field.victim.clone();
    let dialing = tokio::spawn(async move {
        let begun = Instant::now();
        let outcome = victim.connect(format!("/memory/66{id}")).await.map(drop);
        assert!(begun.elapsed() <= Duration::from_secs(10), "{:?}", begun.elapsed());
        outcome
    });
    let ListenEvent::Incoming(incoming) = listener.next().await.unwrap() else { panic!() };
    let Link::Pipe(pipe) = incoming.link().await.unwrap() else { panic!() };
    (Script::new(pipe), dialing)
}

/// A listener's handshake that has come as far as the dialer's first message.
async fn heard_first(script: &mut Script) -> RawHandshake {
    script.negotiate(Role::Responder, "/noise").await.unwrap();
    let mut handshake = RawHandshake::new(9);
    let first = script.hear(34).await.unwrap();
    handshake.hear_1(&first[2..]).unwrap();
    handshake
}

/// That a dial fails within its ten seconds when the offender says this.
async fn dial_fails(field: &Field, said: &[u8]) -> String {
    let (mut script, dialing) = dialed(field, None).await;
    let _ended_meanwhile = script.send(said).await.is_err();
    field.honest_echo().await;
    let error = dialing.await.unwrap().unwrap_err();
    field.honest_echo().await;
    error.to_string()
}

#[test]
fn nim_a76db12ef_a_dial_to_one_who_says_nothing_or_half_fails_in_ten_seconds() {
    attack(UNPROVEN, async |field| {
        let header = multistream::message(multistream::NAME);
        for said in [&b""[..], b"\x13/mul", &header, &[&header[..], b"\x07/noi"].concat()] {
            dial_fails(field, said).await;
        }
        dial_fails(field, &[multistream::proposal("/noise"), vec![0, 200, 7]].concat()).await;
    });
}

#[test]
fn a_dial_to_one_who_answers_without_sense_fails() {
    attack(UNPROVEN, async |field| {
        let header = multistream::message(multistream::NAME);
        for answer in [
            multistream::message("na"),
            multistream::message("/other/1.0.0"),
            multistream::message("na").repeat(1_000),
            varint(u64::MAX >> 1),
            vec![0; 100],
            vec![0xff; 100],
        ] {
            dial_fails(field, &[&header[..], &answer].concat()).await;
        }
        dial_fails(field, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
}

#[test]
fn a_dialer_shows_itself_to_nobody_but_the_peer_that_it_expects() {
    attack(UNPROVEN, async |field| {
        let expected = Keypair::from_ed25519_seed(&[1; 32]);
        let (mut script, dialing) = dialed(field, Some(&expected)).await;
        let mut handshake = heard_first(&mut script).await;
        let own = Keypair::from_ed25519_seed(&[66; 32]);
        let payload = handshake.good_payload(&own, &[]).unwrap();
        script.send(&framed(&handshake.message_2(&payload).unwrap())).await.unwrap();
        let end = field.ended_at_once(&mut script).await;
        assert!(end.said.is_empty(), "the third message would say who it is");
        let text = dialing.await.unwrap().unwrap_err().to_string();
        assert!(text.contains(&own.public().peer_id().to_string()), "{text}");
    });
}

#[test]
fn a_dial_to_one_with_a_forged_identity_fails() {
    attack(UNPROVEN, async |field| {
        let expected = Keypair::from_ed25519_seed(&[1; 32]);
        let (mut script, dialing) = dialed(field, Some(&expected)).await;
        let mut handshake = heard_first(&mut script).await;
        // The right key, and no signature of its owner.
        let key = expected.public().to_protobuf();
        let payload = p2p_testkit::hostile::noise::payload(&key, &[7; 64], &[]);
        script.send(&framed(&handshake.message_2(&payload).unwrap())).await.unwrap();
        assert!(field.ended_at_once(&mut script).await.said.is_empty());
        let text = dialing.await.unwrap().unwrap_err().to_string();
        assert!(text.contains(&SecurityError::Signature.to_string()), "{text}");
    });
}
