use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2p::{AddrExt, Host, PeerId, Stream, core::Reach};
use qrcode::render::unicode::Dense1x2;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::AsyncWriteExt,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

use super::{
    AHEAD_MAX, AHEAD_SIZE_MAX, DIGEST_LEN, PIECE_LEN, PIECES_MAX, PROTOCOL, hash_prefix,
    ticket::{ADDRS_MAX, Secret, Ticket},
    walk::{Entry, Root, State, Totals, Walk, What},
    wire::{ALL, Answer, Frame, Frames, TAKEN, WRONG_SECRET, ended, violation},
};
use crate::{
    args::SendArgs,
    failure::Failure,
    output::{Output, printable},
    peer,
    progress::{Progress, rate},
    stop::Stop,
};

/// How long a receiver may take to show its ticket.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// Receivers that wait to be told of.
const KNOCKS_MAX: usize = 16;

pub(crate) async fn run(args: &SendArgs, out: &Output, stop: &Stop) -> Result<u8, Failure> {
    let paths = args.path.clone();
    let scan = move || {
        let roots = Root::all(&paths)?;
        let totals = Totals::of(Walk::new(&roots))?;
        Ok::<_, Failure>((roots, totals))
    };
    let scanned = tokio::select! {
        biased;
        code = stop.requested() => return Ok(code),
        scanned = tokio::task::spawn_blocking(scan) => scanned,
    };
    let (roots, totals) = scanned.map_err(|error| Failure::new(error.to_string()))??;
    let host = peer::listener(args.listen.key.as_deref()).await?;
    let result = tokio::select! {
        biased;
        code = stop.requested() => Ok(code),
        result = offer(&host, args, &roots, &totals, out) => result.map(|()| 0),
    };
    host.close().await;
    result
}

/// Someone who has come with a ticket.
enum Knock {
    Right(Stream, OwnedSemaphorePermit),
    Wrong(PeerId),
}

/// Waits for receivers until one has all.
async fn offer(
    host: &Host,
    args: &SendArgs,
    roots: &[Root],
    totals: &Totals,
    out: &Output,
) -> Result<(), Failure> {
    let secret = Secret::generate().map_err(|error| {
        Failure::new(format!("the system gave no randomness for the ticket: {error}"))
    })?;
    let (knocks, mut knocked) = mpsc::channel(KNOCKS_MAX);
    let place = Arc::new(Semaphore::new(1));
    let handler = move |stream| let_in(stream, secret, Arc::clone(&place), knocks.clone());
    host.handle(PROTOCOL, handler)?;
    for addr in &args.listen.listen {
        host.listen(addr.to_string()).await?;
    }
    show_ticket(host, args, secret, totals, out)?;
    while let Some(knock) = knocked.recv().await {
        let (stream, permit) = match knock {
            Knock::Right(stream, permit) => (stream, permit),
            Knock::Wrong(peer) => {
                let fields = [("peer", json!(peer.to_string()))];
                out.event("refused", &fields, format_args!("refused: {peer} has no right ticket"));
                continue;
            }
        };
        let peer = stream.peer();
        let mut progress = Progress::new(out, totals.bytes);
        let fields = [("peer", json!(peer.to_string()))];
        progress.event("sending", &fields, format_args!("sending to {peer}"));
        let begun = Instant::now();
        let result = transfer(Frames::new(stream), roots, totals, &mut progress).await;
        drop(progress);
        drop(permit);
        match result {
            Ok(sent) => {
                let took = begun.elapsed();
                let fields = [
                    ("files", json!(totals.files)),
                    ("bytes", json!(sent)),
                    ("took_us", crate::round_trips::micros(took)),
                ];
                let text = format!(
                    "sent: the other side has all {} files; {sent} bytes went over, {}",
                    totals.files,
                    rate(sent, took)
                );
                out.event("sent", &fields, text);
                return Ok(());
            }
            Err(failure) => {
                let message = failure.one_line();
                let text = format_args!("interrupted: {message}\nthe ticket is still good");
                out.event("interrupted", &[("message", json!(message))], text);
            }
        }
    }
    Err(Failure::new("the host has ended"))
}

/// Asks for the ticket, and passes on who has it, one at a time.
async fn let_in(
    stream: Stream,
    secret: Secret,
    place: Arc<Semaphore>,
    knocks: mpsc::Sender<Knock>,
) -> Result<(), std::io::Error> {
    let peer = stream.peer();
    let mut frames = Frames::new(stream);
    let Ok(Frame::Hello { secret: shown }) = frames.read_within(HELLO_MAX).await else {
        return Ok(());
    };
    let refusal = if !secret.is(&Secret::from_bytes(shown)) {
        // Whoever tries many may go unheard.
        drop(knocks.try_send(Knock::Wrong(peer)));
        (WRONG_SECRET, "the ticket's secret is not the right one")
    } else if let Ok(permit) = place.try_acquire_owned() {
        // There is room for the one that has the permit, and otherwise the program ends.
        drop(knocks.send(Knock::Right(frames.stream, permit)).await);
        return Ok(());
    } else {
        (TAKEN, "another receiver is being served")
    };
    let (code, text) = (refusal.0, refusal.1.into());
    if frames.write(&Frame::Refused { code, text }).await.is_ok() {
        frames.stream.shutdown().await?;
    }
    Ok(())
}

fn show_ticket(
    host: &Host,
    args: &SendArgs,
    secret: Secret,
    totals: &Totals,
    out: &Output,
) -> Result<(), Failure> {
    let mut addrs: Vec<_> = args.announce.clone();
    let mut own = Vec::new();
    for addr in host.multiaddrs() {
        let (addr, _) = addr.split_peer().map_err(|error| Failure::new(error.to_string()))?;
        // One that is good on one link alone is of no use in a ticket.
        if addr.reach() != Reach::LinkLocal {
            own.push(addr);
        }
    }
    own.sort_by_key(|addr| std::cmp::Reverse(addr.reach()));
    addrs.extend(own);
    addrs.truncate(ADDRS_MAX);
    if addrs.is_empty() {
        return Err(Failure::new("this machine has no address that a ticket could name")
            .next("connect it to a network, or give one with --announce"));
    }
    let ticket = Ticket { secret, peer: host.peer_id(), addrs }.to_string();
    let Totals { files, folders, bytes, others } = *totals;
    let mut text = format!("{files} files, {bytes} bytes");
    if others > 0 {
        text += &format!("; {others} symbolic links and other things are left out");
    }
    text += &format!("\non the other machine: p2p recv {ticket}");
    let mut fields = vec![
        ("ticket", json!(ticket)),
        ("files", json!(files)),
        ("folders", json!(folders)),
        ("bytes", json!(bytes)),
        ("left_out", json!(others)),
    ];
    if args.qr {
        let code = qrcode::QrCode::new(&ticket)
            .map_err(|error| Failure::new(format!("the ticket has no QR code: {error}")))?;
        // Most terminals are dark: what is drawn is what is light on paper.
        let (dark, light) = (Dense1x2::Light, Dense1x2::Dark);
        let code = code.render::<Dense1x2>().dark_color(dark).light_color(light).build();
        fields.push(("qr", json!(code)));
        text += &format!("\n{code}");
    }
    out.event("ticket", &fields, text);
    Ok(())
}

/// Sends everything over one stream; gives the bytes of content that went over.
async fn transfer(
    mut frames: Frames,
    roots: &[Root],
    totals: &Totals,
    progress: &mut Progress<'_>,
) -> Result<u64, Failure> {
    let Totals { files, folders, bytes, .. } = *totals;
    frames.write(&Frame::Offer { files, folders, bytes }).await?;
    let mut ahead = Ahead::new(Walk::new(roots));
    let mut told = Totals::default();
    let mut pending: VecDeque<(Entry, State)> = VecDeque::new();
    let mut sent = 0u64;
    loop {
        while let Some(entry) = ahead.next(&pending).await? {
            told.add(&entry.what);
            if !told.within(totals) {
                ahead.end();
                break;
            }
            match entry.what {
                What::Folder => frames.write(&Frame::Folder { path: entry.path }).await?,
                What::File(state) => {
                    let State { size, executable, .. } = state;
                    let path = entry.path.clone();
                    frames.write(&Frame::File { size, executable, path }).await?;
                    pending.push_back((entry, state));
                }
                What::Other => {}
            }
        }
        let Some((entry, state)) = pending.pop_front() else { break };
        sent = sent.saturating_add(send_file(&mut frames, entry, state, progress).await?);
    }
    if !told.within(totals) {
        let why = "there is more to send than at the beginning";
        frames.write(&Frame::Failed { text: why.into() }).await?;
        drop(frames.stream.shutdown().await);
        return Err(Failure::new(why).next("end this, and run `p2p send` again"));
    }
    frames.write(&Frame::Done).await?;
    let Frame::Result { code, text } = frames.read().await? else {
        return Err(violation("a frame that has no place here"));
    };
    // The receiver has said all: its stream has ended too.
    drop(frames.stream.shutdown().await);
    if code == ALL { Ok(sent) } else { Err(ended(code, &text)) }
}

fn unexpected(frame: &Frame) -> Failure {
    if let Frame::Result { code, text } = frame {
        return ended(*code, text);
    }
    violation("a frame that has no place here")
}

/// What is told of ahead of its content, read from the file system in batches.
struct Ahead {
    walk: Option<Walk>,
    batch: VecDeque<Entry>,
}

impl Ahead {
    fn new(walk: Walk) -> Self {
        Self { walk: Some(walk), batch: VecDeque::new() }
    }

    /// The next thing to tell of, if it may be told of before what is pending is served. A large
    /// file stands alone: while its beginning is hashed nothing else moves.
    async fn next(&mut self, pending: &VecDeque<(Entry, State)>) -> Result<Option<Entry>, Failure> {
        let large = |state: &State| state.size > AHEAD_SIZE_MAX;
        if pending.len() >= AHEAD_MAX || pending.iter().any(|(_, state)| large(state)) {
            return Ok(None);
        }
        if self.batch.is_empty() {
            self.fill().await?;
        }
        let alone = |entry: &&Entry| matches!(&entry.what, What::File(state) if large(state));
        if !pending.is_empty() && self.batch.front().as_ref().is_some_and(alone) {
            return Ok(None);
        }
        Ok(self.batch.pop_front())
    }

    /// Tells of nothing more.
    fn end(&mut self) {
        self.walk = None;
        self.batch.clear();
    }

    async fn fill(&mut self) -> Result<(), Failure> {
        let Some(mut walk) = self.walk.take() else { return Ok(()) };
        let read = move || {
            let mut batch = VecDeque::new();
            while batch.len() < AHEAD_MAX {
                match walk.next()? {
                    Some(entry) => batch.push_back(entry),
                    None => return Ok((None, batch)),
                }
            }
            Ok::<_, Failure>((Some(walk), batch))
        };
        let read = tokio::task::spawn_blocking(read).await;
        (self.walk, self.batch) = read.map_err(|error| Failure::new(error.to_string()))??;
        Ok(())
    }
}

/// Answers to what the receiver wants of one file; gives the bytes of content that went over.
async fn send_file(
    frames: &mut Frames,
    entry: Entry,
    state: State,
    progress: &mut Progress<'_>,
) -> Result<u64, Failure> {
    let frame = frames.read().await?;
    let Frame::Answer(answer) = frame else { return Err(unexpected(&frame)) };
    let (have, sha256, only_compare) = match answer {
        Answer::Skip => {
            progress.skip(state.size);
            return Ok(0);
        }
        Answer::Want { have, sha256 } => (have, sha256, false),
        Answer::Compare { have, sha256 } => (have, sha256, true),
    };
    let local = entry.local.clone();
    let opened = frames.busy_until(move || Source::open(&local, state, have, sha256)).await?;
    let source = match opened {
        Ok(source) => source,
        Err(why) => return failed(frames, &entry, &why, progress).await.map(|()| 0),
    };
    if only_compare && (source.start != have || have != state.size) {
        frames.write(&Frame::Differs).await?;
        progress.skip(state.size);
        return Ok(0);
    }
    let start = source.start;
    frames.write(&Frame::Content { start }).await?;
    progress.skip(start);
    let (pieces, mut read) = mpsc::channel(PIECES_MAX);
    let reading = tokio::task::spawn_blocking(move || source.read(&pieces));
    let mut sent = 0u64;
    while let Some(piece) = read.recv().await {
        let len = piece.len() as u64;
        frames.check_result().await?;
        frames.write_content(piece).await?;
        sent = sent.saturating_add(len);
        progress.add(len);
    }
    match reading.await.map_err(|error| Failure::new(error.to_string()))? {
        Ok(sha256) => frames.write(&Frame::End { sha256 }).await?,
        Err(why) => failed(frames, &entry, &why, progress).await?,
    }
    Ok(sent)
}

async fn failed(
    frames: &mut Frames,
    entry: &Entry,
    why: &str,
    progress: &Progress<'_>,
) -> Result<(), Failure> {
    let fields = [("path", json!(entry.path)), ("message", json!(why))];
    let path = printable(&entry.path);
    progress.event("file_failed", &fields, format_args!("not sent: {path}: {}", printable(why)));
    frames.write(&Frame::Failed { text: why.into() }).await
}

/// A file that is being sent.
struct Source {
    file: File,
    path: PathBuf,
    state: State,
    /// Of what is before `start`.
    hash: Sha256,
    start: u64,
}

const CHANGED: &str = "it changed while it was sent";

impl Source {
    /// Opens a file, and goes past its first `have` bytes if that is their digest.
    fn open(
        path: &Path,
        state: State,
        have: u64,
        sha256: [u8; DIGEST_LEN],
    ) -> Result<Self, String> {
        let unreadable = |error: std::io::Error| format!("cannot read it: {error}");
        // Opening a named pipe would wait for its other end.
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(CHANGED.into());
        }
        let mut file = File::open(path).map_err(unreadable)?;
        let (mut hash, mut start) = (Sha256::new(), 0);
        if have > 0 && have <= state.size {
            let prefix = hash_prefix(&mut file, have).map_err(|error| {
                let is_shorter = error.kind() == std::io::ErrorKind::UnexpectedEof;
                if is_shorter { CHANGED.to_owned() } else { unreadable(error) }
            })?;
            if <[u8; DIGEST_LEN]>::from(prefix.clone().finalize()) == sha256 {
                (hash, start) = (prefix, have);
            } else {
                file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
            }
        }
        Ok(Self { file, path: path.into(), state, hash, start })
    }

    /// Reads the rest, and gives the digest of the whole.
    fn read(mut self, pieces: &mpsc::Sender<Bytes>) -> Result<[u8; DIGEST_LEN], String> {
        let unreadable = |error: std::io::Error| format!("cannot read it: {error}");
        let mut left = self.state.size.saturating_sub(self.start);
        while left > 0 {
            let mut piece = vec![0; usize::try_from(left).unwrap_or(PIECE_LEN).min(PIECE_LEN)];
            let len = self.file.read(&mut piece).map_err(unreadable)?;
            if len == 0 {
                return Err(CHANGED.into());
            }
            piece.truncate(len);
            self.hash.update(&piece);
            left = left.saturating_sub(len as u64);
            if pieces.blocking_send(piece.into()).is_err() {
                return Err("the receiver is gone".into());
            }
        }
        let now = fs::metadata(&self.path).map_err(unreadable)?;
        if State::of(&now) != self.state {
            return Err(CHANGED.into());
        }
        Ok(self.hash.finalize().into())
    }
}
