//! What every event does in every state of a stream: a table that is committed.

use std::fmt::Write;

use super::*;
use crate::table::assert_committed;

const STATES: [&str; 14] = [
    "unknown",
    "ours, not sent",
    "ours",
    "theirs, not accepted",
    "theirs",
    "closed by us",
    "closed by them",
    "closed by both",
    "stopped",
    "stopped, closed by us",
    "reset by us",
    "reset by them",
    "closed, then reset by them",
    "overflowed",
];

const EVENTS: [&str; 12] = [
    "hear open",
    "hear message",
    "hear empty",
    "hear close",
    "hear reset",
    "write",
    "finish",
    "stop",
    "reset",
    "release send",
    "release recv",
    "close session",
];

/// A session with a stream in `state`, with nothing left to send but what belongs to the state.
fn bring_to(state: &str) -> (Rig, StreamId, Flags) {
    let mut rig = Rig::with(brisk().stream_received_max(0));
    if state == "unknown" {
        return (rig, theirs(0), THEIRS_ON_THEIRS);
    }
    if state == "ours, not sent" {
        let id = rig.open();
        return (rig, id, THEIRS_ON_OURS);
    }
    if state == "theirs, not accepted" {
        rig.take(OPEN, 0, b"");
        rig.events();
        return (rig, theirs(0), THEIRS_ON_THEIRS);
    }
    if state == "ours" {
        let id = rig.opened();
        return (rig, id, THEIRS_ON_OURS);
    }
    let id = rig.accepted(0);
    match state {
        "theirs" => {}
        "closed by us" => rig.session.finish(id).unwrap(),
        "closed by them" => rig.take(4, 0, b""),
        "closed by both" => {
            rig.take(4, 0, b"");
            rig.session.finish(id).unwrap();
        }
        "stopped" => rig.session.stop(id, ErrorCode::new(4)),
        "stopped, closed by us" => {
            rig.session.stop(id, ErrorCode::new(4));
            rig.session.finish(id).unwrap();
        }
        "reset by us" => rig.session.reset(id, ErrorCode::new(3)),
        "reset by them" => rig.take(6, 0, b""),
        "closed, then reset by them" => {
            rig.take(4, 0, b"");
            rig.take(6, 0, b"");
        }
        "overflowed" => {
            while rig.writing(id) == End::Open {
                rig.take(2, 0, &[0; 4000]);
            }
            rig.read(id);
        }
        other => panic!("no way to {other}"),
    }
    rig.frames();
    rig.events();
    (rig, id, THEIRS_ON_THEIRS)
}

/// Does `event`, and gives what it gave.
fn happen(rig: &mut Rig, id: StreamId, flags: &Flags, event: &str) -> String {
    let heard =
        |result: Result<(), MuxError>| result.map_or_else(|e| e.to_string(), |()| "ok".into());
    match event {
        "hear open" => heard(rig.hear(&frame(OPEN, 0, b""))),
        "hear message" => heard(rig.hear(&frame(flags.message, 0, b"x"))),
        "hear empty" => heard(rig.hear(&frame(flags.message, 0, b""))),
        "hear close" => heard(rig.hear(&frame(flags.close, 0, b""))),
        "hear reset" => heard(rig.hear(&frame(flags.reset, 0, b""))),
        "write" => match rig.session.write_slice(id, b"x") {
            Poll::Ready(Ok(count)) => format!("took {count}"),
            Poll::Ready(Err(error)) => error.to_string(),
            Poll::Pending => "pending".into(),
        },
        "finish" => rig.session.finish(id).map_or_else(|e| e.to_string(), |()| "ok".into()),
        "stop" => {
            rig.session.stop(id, ErrorCode::new(4));
            String::new()
        }
        "reset" => {
            rig.session.reset(id, ErrorCode::new(3));
            String::new()
        }
        "release send" => {
            rig.session.release_send(id);
            String::new()
        }
        "release recv" => {
            rig.session.release_recv(id);
            String::new()
        }
        "close session" => {
            rig.session.close(ErrorCode::NONE);
            String::new()
        }
        other => panic!("no such event: {other}"),
    }
}

#[test]
fn the_table_of_states_and_events_is_the_one_that_is_kept() {
    let mut table = String::from(
        "state | event | result | events | frames sent (flag) | then reading | then writing | live\n",
    );
    for state in STATES {
        for event in EVENTS {
            // Nobody has the stream yet.
            let local = !event.starts_with("hear") && event != "close session";
            if state == "theirs, not accepted" && local {
                continue;
            }
            let (mut rig, id, flags) = bring_to(state);
            let result = happen(&mut rig, id, &flags, event);
            let events: Vec<String> = rig
                .events()
                .iter()
                .map(|event| format!("{event:?}").split('(').next().unwrap().to_lowercase())
                .collect();
            let frames: Vec<String> =
                rig.frames().iter().map(|(flag, _, _)| flag.to_string()).collect();
            let (data, end) = rig.read(id);
            let read = if data.is_empty() { String::new() } else { format!("{} + ", data.len()) };
            let (write, live) = (rig.writing(id), rig.session.stream_count());
            writeln!(
                table,
                "{state} | {event} | {result} | {} | {} | {read}{end:?} | {write:?} | {live}",
                events.join(" "),
                frames.join(" "),
            )
            .unwrap();
            assert_eq!(rig.session.counters(), rig.session.recount());
        }
    }
    assert_committed("mplex", &table);
}
