//! Every state of a stream against every frame and every command, as a table that is committed.

use std::fmt::Write;

use super::*;
use crate::table::assert_committed;

/// A session in some state, and the stream that the frames and commands are about.
struct Scene {
    rig: Rig,
    number: u32,
    /// The application holds both halves of it.
    held: bool,
}

type State = (&'static str, fn() -> Scene);

const STATES: [State; 22] = [
    ("ours: opened, nothing sent", || {
        let mut rig = Rig::server();
        rig.open();
        scene(rig, 2)
    }),
    ("ours: SYN sent, not acknowledged", || {
        let mut rig = Rig::server();
        rig.open();
        rig.frames();
        scene(rig, 2)
    }),
    ("ours: open", ours),
    ("theirs: not accepted", || {
        let mut rig = Rig::server();
        rig.hear(&bare(UPDATE, SYN, 1, 0)).unwrap();
        Scene { held: false, ..scene(rig, 1) }
    }),
    ("theirs: accepted, not acknowledged", || {
        let mut rig = Rig::server();
        rig.hear(&bare(UPDATE, SYN, 1, 0)).unwrap();
        rig.session.accept().unwrap();
        scene(rig, 1)
    }),
    ("theirs: open", theirs),
    ("open, both windows used up, all unread", || {
        let mut scene = theirs();
        while scene.rig.write(id(1), &[0; 100_000]) > 0 {
            scene.rig.frames();
        }
        scene.rig.hear(&data(0, 1, &vec![b'u'; 262_144])).unwrap();
        scene
    }),
    ("open, data waiting to be sent", || {
        let mut scene = theirs();
        scene.rig.write(id(1), b"queued");
        scene
    }),
    ("finished here, the end waiting behind data", || {
        let mut scene = theirs();
        scene.rig.write(id(1), b"queued");
        scene.rig.session.finish(id(1)).unwrap();
        scene
    }),
    ("finished here: half closed", || {
        let mut scene = theirs();
        scene.rig.session.finish(id(1)).unwrap();
        scene.rig.frames();
        scene
    }),
    ("ended by the peer: half closed, data unread", || {
        let mut scene = theirs();
        scene.rig.hear(&data(FIN, 1, b"unread")).unwrap();
        scene
    }),
    ("ended both ways, held by the application", || {
        let mut scene = theirs();
        scene.rig.session.finish(id(1)).unwrap();
        scene.rig.frames();
        scene.rig.hear(&bare(UPDATE, FIN, 1, 0)).unwrap();
        scene
    }),
    ("stopped: this side reads no more", || {
        let mut scene = theirs();
        scene.rig.session.stop(id(1), code(9));
        scene
    }),
    ("finished and released: lingers for the peer's end", || {
        let mut scene = theirs();
        scene.rig.session.finish(id(1)).unwrap();
        scene.rig.release(id(1));
        scene.rig.frames();
        Scene { held: false, ..scene }
    }),
    ("reset here, RST waiting to be sent", || {
        let mut scene = theirs();
        scene.rig.session.reset(id(1), code(9));
        scene
    }),
    ("reset here, RST sent, held", || {
        let mut scene = theirs();
        scene.rig.session.reset(id(1), code(9));
        scene.rig.frames();
        scene
    }),
    ("reset by the peer, held", || {
        let mut scene = theirs();
        scene.rig.hear(&bare(UPDATE, RST, 1, 8)).unwrap();
        scene
    }),
    ("over and forgotten", || {
        let mut scene = theirs();
        scene.rig.session.finish(id(1)).unwrap();
        scene.rig.hear(&bare(UPDATE, FIN, 1, 0)).unwrap();
        scene.rig.release(id(1));
        scene.rig.frames();
        Scene { held: false, ..scene }
    }),
    ("theirs: never opened", || Scene { held: false, ..scene(Rig::server(), 1) }),
    ("ours: never opened", || Scene { held: false, ..scene(Rig::server(), 2) }),
    ("session refuses streams; this one never opened", || {
        let mut rig = Rig::server();
        rig.session.refuse_inbound();
        Scene { held: false, ..scene(rig, 1) }
    }),
    ("session closes, this stream's data still waiting", || {
        let mut scene = theirs();
        scene.rig.write(id(1), b"queued");
        scene.rig.session.finish(id(1)).unwrap();
        scene.rig.session.close(ErrorCode::NONE);
        scene
    }),
];

fn scene(rig: Rig, number: u32) -> Scene {
    Scene { rig, number, held: true }
}

fn ours() -> Scene {
    let mut rig = Rig::server();
    rig.opened();
    scene(rig, 2)
}

fn theirs() -> Scene {
    let mut rig = Rig::server();
    rig.accepted(1);
    scene(rig, 1)
}

/// What happens, in words, and what came of it where a command gives something back.
type Event = (&'static str, fn(&mut Scene) -> Result<String, MuxError>);

const EVENTS: [Event; 42] = [
    ("nothing", |_| Ok(String::new())),
    ("data", |s| s.hear(data(0, s.number, b"abc"))),
    ("data ACK", |s| s.hear(data(ACK, s.number, b"abc"))),
    ("data FIN", |s| s.hear(data(FIN, s.number, b"abc"))),
    ("data RST", |s| s.hear(data(RST, s.number, b"abc"))),
    ("data FIN RST", |s| s.hear(data(FIN | RST, s.number, b"abc"))),
    ("data SYN", |s| s.hear(data(SYN, s.number, b"abc"))),
    ("data SYN ACK", |s| s.hear(data(SYN | ACK, s.number, b"abc"))),
    ("data SYN FIN", |s| s.hear(data(SYN | FIN, s.number, b"abc"))),
    ("data SYN RST", |s| s.hear(data(SYN | RST, s.number, b"abc"))),
    ("data, empty", |s| s.hear(data(0, s.number, b""))),
    ("data FIN, empty", |s| s.hear(data(FIN, s.number, b""))),
    ("data of 256 KiB and 1", |s| s.hear(bare(DATA, 0, s.number, 262_145))),
    ("data SYN of 256 KiB and 1", |s| s.hear(bare(DATA, SYN, s.number, 262_145))),
    ("data of 128 MiB and 1", |s| s.hear(bare(DATA, 0, s.number, (128 << 20) + 1))),
    ("credit", |s| s.hear(bare(UPDATE, 0, s.number, 5))),
    ("credit ACK", |s| s.hear(bare(UPDATE, ACK, s.number, 5))),
    ("credit FIN", |s| s.hear(bare(UPDATE, FIN, s.number, 5))),
    ("credit RST, code 5", |s| s.hear(bare(UPDATE, RST, s.number, 5))),
    ("credit SYN", |s| s.hear(bare(UPDATE, SYN, s.number, 5))),
    ("credit SYN RST, code 5", |s| s.hear(bare(UPDATE, SYN | RST, s.number, 5))),
    ("credit of 0", |s| s.hear(bare(UPDATE, 0, s.number, 0))),
    ("credit that overflows", |s| s.hear(bare(UPDATE, 0, s.number, u32::MAX))),
    ("credit SYN, overflows", |s| s.hear(bare(UPDATE, SYN, s.number, u32::MAX))),
    ("ping", |s| s.hear(bare(PING, SYN, 0, 5))),
    ("pong unasked", |s| s.hear(bare(PING, ACK, 0, 5))),
    ("ping on the stream", |s| s.hear(bare(PING, SYN, s.number, 5))),
    ("go away", |s| s.hear(bare(GO_AWAY, 0, 0, 0))),
    ("go away on the stream", |s| s.hear(bare(GO_AWAY, 0, s.number, 0))),
    ("type 4", |s| s.hear(bare(4, 0, s.number, 0))),
    ("version 1", |s| s.rig.hear_bytes(&[1; 12]).map(|()| String::new())),
    ("20 ms", |s| s.rig.pass(20 * MILLI).map(|()| String::new())),
    ("31 s", |s| s.rig.pass(31 * SECOND).map(|()| String::new())),
    ("write", |s| s.command(|rig, id| write_result(rig, id, b"abc"))),
    ("read", |s| s.command(read_result)),
    ("finish", |s| {
        s.command(|rig, id| match rig.session.finish(id) {
            Ok(()) => "done".into(),
            Err(error) => end_text(End::of(&error)),
        })
    }),
    ("reset, code 7", |s| s.done(|rig, id| rig.session.reset(id, code(7)))),
    ("stop, code 7", |s| s.done(|rig, id| rig.session.stop(id, code(7)))),
    ("stopped?", |s| s.command(|rig, id| rig.stopped(id).map_or("no".into(), end_text))),
    ("release the sending half", |s| s.done(|rig, id| rig.session.release_send(id))),
    ("release the receiving half", |s| s.done(|rig, id| rig.session.release_recv(id))),
    ("close the session", |s| {
        s.rig.session.close(ErrorCode::NONE);
        Ok(String::new())
    }),
];

impl Scene {
    fn hear(&mut self, frame: Frame) -> Result<String, MuxError> {
        self.rig.hear(&frame).map(|()| String::new())
    }

    /// A command that gives something back; `-` where the application has no handle for it.
    fn command(&mut self, work: fn(&mut Rig, StreamId) -> String) -> Result<String, MuxError> {
        Ok(if self.held { work(&mut self.rig, id(self.number)) } else { "-".into() })
    }

    fn done(&mut self, work: fn(&mut Rig, StreamId)) -> Result<String, MuxError> {
        if !self.held {
            return Ok("-".into());
        }
        work(&mut self.rig, id(self.number));
        Ok(String::new())
    }

    /// What came out, and what the application finds after it.
    fn outcome(mut self, result: &Result<String, MuxError>, released: bool) -> String {
        let mut out = String::new();
        let mut part = |name: &str, text: &str| {
            if !text.is_empty() {
                write!(out, "  {name} {text}").unwrap();
            }
        };
        match result {
            Ok(text) => part("=", text),
            Err(error) => part("DIES", &format!("{error:?}")),
        }
        part("sends", &list(self.rig.frames().iter().map(|frame| self.frame_text(frame))));
        if result.is_err() {
            return out;
        }
        part("tells", &list(self.rig.events().iter().map(event_text)));
        if self.held && !released {
            let id = id(self.number);
            part("reads", &read_result(&mut self.rig, id));
            part("writes", &write_result(&mut self.rig, id, b"x"));
        }
        if self.rig.session.is_closed() {
            part("session", "closed");
        }
        part("streams", &self.rig.session.stream_count().to_string());
        out
    }

    fn frame_text(&self, frame: &Frame) -> String {
        let flags: String = [(SYN, "SYN"), (ACK, "ACK"), (FIN, "FIN"), (RST, "RST")]
            .iter()
            .filter(|(flag, _)| frame.flags & flag != 0)
            .map(|(_, name)| format!(" {name}"))
            .collect();
        let length = match (frame.kind, frame.flags & RST) {
            (UPDATE, 0) => format!(" +{}", frame.length),
            (UPDATE, _) => format!(" code {}", frame.length),
            (DATA, _) => format!(" {}", bytes_text(&frame.body)),
            _ => format!(" {}", frame.length),
        };
        let kind = ["data", "credit", "ping", "go away"][usize::from(frame.kind)];
        let other = frame.stream != 0 && frame.stream != self.number;
        let stream = if other { format!(" on {}", frame.stream) } else { String::new() };
        format!("{kind}{flags}{length}{stream}")
    }
}

fn list(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}

fn bytes_text(bytes: &[u8]) -> String {
    if bytes.len() > 20 {
        format!("{} bytes", bytes.len())
    } else {
        format!("'{}'", bytes.escape_ascii())
    }
}

fn event_text(event: &MuxEvent) -> String {
    match event {
        MuxEvent::Readable(_) => "readable",
        MuxEvent::Writable(_) => "writable",
        MuxEvent::Ended(_) => "ended",
        MuxEvent::Acceptable => "acceptable",
        MuxEvent::Openable => "openable",
        _ => "?",
    }
    .into()
}

fn end_text(end: End) -> String {
    match end {
        End::Open => "pending".into(),
        End::Fin => "the end".into(),
        End::Reset(code) => format!("reset by the peer {code}"),
        End::ResetLocally(code) => format!("reset here {code}"),
        End::Finished => "finished".into(),
        End::Connection => "connection ended".into(),
    }
}

fn read_result(rig: &mut Rig, id: StreamId) -> String {
    let (all, end) = rig.read_all(id);
    let text = if all.is_empty() { String::new() } else { bytes_text(&all) + ", " };
    text + &end_text(end)
}

fn write_result(rig: &mut Rig, id: StreamId, text: &[u8]) -> String {
    match rig.session.write_slice(id, text) {
        Poll::Ready(Ok(count)) => format!("{count}"),
        Poll::Ready(Err(error)) => end_text(End::of(&error)),
        Poll::Pending => "pending".into(),
    }
}

fn table() -> String {
    let mut out = String::from(
        "What a yamux server does in each state of a stream, with each frame and each command.\n\
         sends: frames, those of other streams with `on`. tells: who is woken. reads, writes: what\n\
         the application finds after it. DIES: the connection ends. streams: how many live on.\n\
         A dot: as with nothing, the first line of the state.\n",
    );
    for (state, make) in STATES {
        writeln!(out, "\n== {state}").unwrap();
        let mut idle = String::new();
        for (event, happen) in EVENTS {
            let mut scene = make();
            scene.rig.events();
            let result = happen(&mut scene);
            let outcome = scene.outcome(&result, event.starts_with("release"));
            if event == "nothing" {
                idle.clone_from(&outcome);
            } else if outcome == idle {
                writeln!(out, "{event:<27}  .").unwrap();
                continue;
            }
            writeln!(out, "{event:<27}{outcome}").unwrap();
        }
    }
    out
}

#[test]
fn every_state_meets_every_frame_and_command_as_the_table_says() {
    assert_committed("yamux", &table());
}
