use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2p::{Host, OpenError};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncWriteExt, sync::mpsc, task::JoinHandle, time::timeout};

use super::{
    AHEAD_MAX, DIGEST_LEN, PIECE_LEN, PIECES_MAX, PROTOCOL, hash_prefix,
    names::local_path,
    wire::{ALL, Answer, Frame, Frames, GAVE_UP, PART, TAKEN, WRONG_SECRET, violation},
};
use crate::{
    args::RecvArgs,
    failure::Failure,
    output::{Output, printable},
    peer,
    progress::{Progress, rate},
    stop::Stop,
};

/// What a file is called until it is complete.
const PART_SUFFIX: &str = ".p2p.part";

/// A name that is longer, in bytes, gives way to its digest in the name of its part.
const PART_STEM_MAX: usize = 200;

/// Failures of single files whose text is kept for the end.
const FAILURES_MAX: usize = 10;

/// How long the sender may take to notice that all is done.
const GOODBYE_MAX: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: &RecvArgs, out: &Output, stop: &Stop) -> Result<u8, Failure> {
    let host = peer::dialer(args.timeout, None).await?;
    let result = tokio::select! {
        biased;
        code = stop.requested() => Ok(code),
        result = recv(&host, args, out) => result.map(|()| 0),
    };
    host.close().await;
    result
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else comes is a violation")]
async fn recv(host: &Host, args: &RecvArgs, out: &Output) -> Result<(), Failure> {
    let ticket = &args.ticket;
    let target = (ticket.peer, ticket.addrs.clone());
    let gone = "see that `p2p send` still runs there: a ticket is good as long as it does";
    let stream = host.connect(target.clone()).await;
    stream.map_err(|error| Failure::from(error).next(gone))?;
    let stream = host.open(target, PROTOCOL).await.map_err(|error| {
        if let OpenError::Unsupported { .. } = error {
            return Failure::new("the other side sends nothing").next(gone);
        }
        error.into()
    })?;
    let mut frames = Frames::new(stream);
    frames.write(&Frame::Hello { secret: *ticket.secret.as_bytes() }).await?;
    let offer = match frames.read().await? {
        Frame::Offer { files, folders, bytes } => Offer { files, folders, bytes },
        Frame::Refused { code: WRONG_SECRET, .. } => {
            return Err(Failure::new("the sender refused the ticket: its secret is not right")
                .next("copy the ticket that `p2p send` shows now"));
        }
        Frame::Refused { code: TAKEN, .. } => {
            return Err(Failure::new("the sender serves another receiver at this moment").next(
                "try again when that has ended; a connection that was cut is noticed within a \
                 minute",
            ));
        }
        Frame::Refused { text, .. } => {
            return Err(Failure::new(format!("the sender refused: {text}")));
        }
        _ => return Err(violation("a frame that has no place here")),
    };
    let fields = [
        ("files", json!(offer.files)),
        ("folders", json!(offer.folders)),
        ("bytes", json!(offer.bytes)),
    ];
    let text = format_args!("receiving {} files, {} bytes", offer.files, offer.bytes);
    out.event("offer", &fields, text);
    let into = args.into.clone();
    let made = frames.busy_until(move || fs::create_dir_all(&into)).await?;
    made.map_err(|error| {
        Failure::new(format!("cannot make the folder {}: {error}", args.into.display()))
            .next("give another with --into")
    })?;
    let begun = Instant::now();
    let mut receiver = Receiver {
        into: args.into.clone(),
        overwrite: args.overwrite,
        progress: Progress::new(out, offer.bytes),
        left: offer,
        pending: VecDeque::new(),
        tally: Tally::default(),
        failures: Vec::new(),
        synced: Synced::default(),
    };
    let result = receiver.receive(&mut frames).await;
    let Receiver { progress, tally, failures, .. } = receiver;
    drop(progress);
    let failure = match result {
        Ok(()) => sum_up(tally, &failures, begun.elapsed(), out),
        Err(failure) => Some((GAVE_UP, failure)),
    };
    let (code, text) = match &failure {
        None => (ALL, String::new()),
        Some((code, failure)) => (*code, failure.one_line()),
    };
    // What has come is here, whether the sender comes to know it or not.
    if frames.write(&Frame::Result { code, text }).await.is_ok() {
        drop(frames.stream.shutdown().await);
        // What is on its way is of no use any more, and may stand before the sender's end.
        frames.stream.set_read_deadline(None);
        let mut sink = tokio::io::sink();
        let rest = tokio::io::copy(&mut frames.stream, &mut sink);
        drop(timeout(GOODBYE_MAX, rest).await);
    }
    failure.map_or(Ok(()), |(_, failure)| Err(failure))
}

fn sum_up(
    tally: Tally,
    failures: &[String],
    took: Duration,
    out: &Output,
) -> Option<(u8, Failure)> {
    let Tally { received, there, resumed, bytes, failed } = tally;
    let fields = [
        ("received", json!(received)),
        ("already_there", json!(there)),
        ("failed", json!(failed)),
        ("bytes", json!(bytes)),
        ("resumed_bytes", json!(resumed)),
        ("took_us", crate::round_trips::micros(took)),
    ];
    let mut text = format!("received: {received} files, {bytes} bytes, {}", rate(bytes, took));
    if resumed > 0 {
        text += &format!("; {resumed} bytes were here from before");
    }
    if there > 0 {
        text += &format!("; {there} files were here already");
    }
    out.event("received", &fields, text);
    if failed == 0 {
        return None;
    }
    let mut cause = failures.join("; ");
    let untold = failed.saturating_sub(failures.len() as u64);
    if untold > 0 {
        cause += &format!("; and {untold} more");
    }
    let failure = Failure::new(format!("{failed} files were not received: {cause}")).next(
        "run the same again for those that changed; for those that exist give --overwrite, or \
         another folder with --into",
    );
    Some((PART, failure))
}

/// What the sender said there is, and what of it is to come.
#[derive(Clone, Copy)]
struct Offer {
    files: u64,
    folders: u64,
    bytes: u64,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    received: u64,
    there: u64,
    failed: u64,
    /// Bytes of content that went over, and that were here from before.
    bytes: u64,
    resumed: u64,
}

/// A file that the sender was asked for.
struct Pending {
    path: String,
    size: u64,
    executable: bool,
    target: PathBuf,
    part: PathBuf,
    /// How many bytes are here, and the hash of these.
    have: u64,
    hash: Sha256,
    /// They are the file itself and not its part.
    complete: bool,
}

/// What is to be done about a file that the sender has told of.
enum Decision {
    Ask(Box<Pending>, Answer),
    Refuse(String),
    /// The disk does not let it be known.
    Broken(Failure),
}

struct Receiver<'a> {
    into: PathBuf,
    overwrite: bool,
    progress: Progress<'a>,
    left: Offer,
    pending: VecDeque<Pending>,
    tally: Tally,
    failures: Vec<String>,
    synced: Synced,
}

impl Receiver<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else comes is a violation")]
    async fn receive(&mut self, frames: &mut Frames) -> Result<(), Failure> {
        loop {
            match frames.read().await? {
                Frame::Folder { path } => {
                    self.left.folders = less(self.left.folders, 1, "folders")?;
                    let into = self.into.clone();
                    let name = path.clone();
                    let made = frames.busy_until(move || make_folder(&into, &name)).await??;
                    if let Err(why) = made {
                        self.fail(&path, &why);
                    }
                }
                Frame::File { size, executable, path } => {
                    self.left.files = less(self.left.files, 1, "files")?;
                    self.left.bytes = less(self.left.bytes, size, "bytes")?;
                    self.decide(frames, size, executable, path).await?;
                }
                Frame::Content { start } => {
                    let file = self.next()?;
                    self.content(frames, file, start).await?;
                }
                Frame::Differs => {
                    let file = self.next()?;
                    if !file.complete {
                        return Err(violation("an answer to a question that was not asked"));
                    }
                    self.progress.skip(file.size);
                    self.fail(&file.path, "another file is there with this name");
                }
                Frame::Failed { text } => {
                    // Without a file it is about the whole.
                    let Some(file) = self.pending.pop_front() else {
                        return Err(Failure::new(format!("the sender gave up: {text}")));
                    };
                    self.progress.skip(file.size);
                    self.fail(&file.path, &text);
                }
                Frame::Done if self.pending.is_empty() => break,
                _ => return Err(violation("a frame that has no place here")),
            }
        }
        let synced = std::mem::take(&mut self.synced);
        let synced = tokio::task::spawn_blocking(move || synced.end()).await;
        synced.map_err(|error| Failure::new(error.to_string()))?
    }

    fn next(&mut self) -> Result<Pending, Failure> {
        self.pending.pop_front().ok_or_else(|| violation("content that was not asked for"))
    }

    fn fail(&mut self, path: &str, why: &str) {
        let fields = [("path", json!(path)), ("message", json!(why))];
        let text = format!("{}: {}", printable(path), printable(why));
        self.progress.event("file_failed", &fields, format_args!("not received: {text}"));
        self.tally.failed = self.tally.failed.saturating_add(1);
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(text);
        }
    }

    /// Looks at what is here of a file, and tells the sender.
    async fn decide(
        &mut self,
        frames: &mut Frames,
        size: u64,
        executable: bool,
        path: String,
    ) -> Result<(), Failure> {
        if self.pending.len() >= AHEAD_MAX {
            return Err(violation("too many files at a time"));
        }
        let (into, overwrite, name) = (self.into.clone(), self.overwrite, path.clone());
        let look = move || look_at(&into, overwrite, name, size, executable);
        match frames.busy_until(look).await? {
            Decision::Ask(file, answer) => {
                self.pending.push_back(*file);
                frames.write(&Frame::Answer(answer)).await
            }
            Decision::Refuse(why) => {
                frames.write(&Frame::Answer(Answer::Skip)).await?;
                self.progress.skip(size);
                self.fail(&path, &why);
                Ok(())
            }
            Decision::Broken(failure) => Err(failure),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else comes is a violation")]
    async fn content(
        &mut self,
        frames: &mut Frames,
        file: Pending,
        start: u64,
    ) -> Result<(), Failure> {
        if start != 0 && start != file.have {
            return Err(violation("content from a place that was not asked for"));
        }
        let Pending { path, size, executable, target, part, have, hash, complete } = file;
        self.progress.skip(start);
        if complete && start == size && start == have {
            // An end between two steps may have left it.
            drop(fs::remove_file(&part));
            return self.was_there(frames, &path, hash).await;
        }
        let hash = if start == 0 { Sha256::new() } else { hash };
        let (pieces, received) = mpsc::channel(PIECES_MAX);
        let writing = part.clone();
        let mut write =
            Some(tokio::task::spawn_blocking(move || write_part(&writing, start, hash, received)));
        let mut left = size.saturating_sub(start);
        let sha256 = loop {
            match frames.read().await? {
                Frame::Data { len } if len as u64 <= left => {
                    left = left.saturating_sub(len as u64);
                    self.tally.bytes = self.tally.bytes.saturating_add(len as u64);
                    if !pass_on(frames, len, &pieces).await? {
                        // The disk took it no more: the reason is where it was written.
                        break None;
                    }
                    self.progress.add(len as u64);
                }
                Frame::End { sha256 } if left == 0 => break Some(sha256),
                Frame::Failed { text } => {
                    drop(pieces);
                    drop(written(&mut write, &part).await);
                    // What changed is of no use.
                    drop(fs::remove_file(&part));
                    self.progress.skip(left);
                    self.fail(&path, &text);
                    return Ok(());
                }
                _ => return Err(violation("a frame that has no place here")),
            }
        };
        drop(pieces);
        let (file, digest) = written(&mut write, &part).await?;
        if sha256 != Some(digest) {
            drop(fs::remove_file(&part));
            self.fail(&path, "what has come is not what was sent");
            return Ok(());
        }
        let (overwrite, to) = (self.overwrite, target.clone());
        let mut synced = std::mem::take(&mut self.synced);
        let finish = move || {
            let finished = finish(&file, executable, &part, &to, overwrite);
            let synced = finished.and_then(|put| synced.enter(&to).map(|()| (put, synced)));
            synced.map_err(|error| cannot_write(&to, &error))
        };
        let (put, synced) = frames.busy_until(finish).await??;
        self.synced = synced;
        if !put {
            self.fail(&path, "another file came there with this name");
            return Ok(());
        }
        self.tally.received = self.tally.received.saturating_add(1);
        self.tally.resumed = self.tally.resumed.saturating_add(start);
        self.tell_file(&path, size, start, "received");
        Ok(())
    }

    /// The file is here from before: the sender has the same.
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else comes is a violation")]
    async fn was_there(
        &mut self,
        frames: &mut Frames,
        path: &str,
        hash: Sha256,
    ) -> Result<(), Failure> {
        match frames.read().await? {
            Frame::End { sha256 } if sha256 == <[u8; DIGEST_LEN]>::from(hash.finalize()) => {
                self.tally.there = self.tally.there.saturating_add(1);
                self.tell_file(path, 0, 0, "already_there");
                Ok(())
            }
            Frame::Failed { text } => {
                self.fail(path, &text);
                Ok(())
            }
            _ => Err(violation("a frame that has no place here")),
        }
    }

    /// Every file is an event; people see the bar, and the sum at the end.
    fn tell_file(&self, path: &str, bytes: u64, resumed_at: u64, state: &str) {
        let fields = [
            ("path", json!(path)),
            ("bytes", json!(bytes)),
            ("resumed_at", json!(resumed_at)),
            ("state", json!(state)),
        ];
        self.progress.event_json("file", &fields);
    }
}

fn less(left: u64, by: u64, what: &str) -> Result<u64, Failure> {
    left.checked_sub(by).ok_or_else(|| violation(format!("more {what} than it offered")))
}

/// Passes one piece of content on to where it is written; false where that has ended.
async fn pass_on(
    frames: &mut Frames,
    len: usize,
    pieces: &mpsc::Sender<Bytes>,
) -> Result<bool, Failure> {
    let mut left = len;
    while left > 0 {
        let piece = frames.read_content(left).await?;
        left = left.saturating_sub(piece.len());
        if pieces.send(piece).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

type Written = io::Result<(File, [u8; DIGEST_LEN])>;

async fn written(
    write: &mut Option<JoinHandle<Written>>,
    part: &Path,
) -> Result<(File, [u8; DIGEST_LEN]), Failure> {
    let Some(write) = write.take() else { return Err(Failure::new("nothing was written")) };
    let written = write.await.map_err(|error| Failure::new(error.to_string()))?;
    written.map_err(|error| cannot_write(part, &error))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(format!("cannot write {}: {error}", path.display()));
    let kind = error.kind();
    if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        failure.next("make room and run the same again: it goes on where it stopped")
    } else if kind == io::ErrorKind::FileTooLarge {
        failure.next(
            "raise the limit on the size of files and run the same again: it goes on where it \
             stopped",
        )
    } else if matches!(kind, io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) {
        failure.next("give a folder that you may write to with --into")
    } else if kind == io::ErrorKind::ResourceBusy {
        failure.next("let the other `p2p recv` end first, or give another folder with --into")
    } else {
        failure
    }
}

/// Makes the folder `path`; the inner error is about it alone.
fn make_folder(into: &Path, path: &str) -> Result<Result<(), String>, Failure> {
    match local_path(path) {
        Ok(local) => make_folders(into, &local),
        Err(why) => Ok(Err(refused_path(&why))),
    }
}

fn refused_path(why: &str) -> String {
    format!("the sender's path is refused: {why}")
}

/// Makes the folders of `local` below `into`, and sees that each is one: a symbolic link would
/// lead elsewhere.
fn make_folders(into: &Path, local: &Path) -> Result<Result<(), String>, Failure> {
    let mut folder = into.to_path_buf();
    for name in local {
        folder.push(name);
        let made = match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::symlink_metadata(&folder).map(|metadata| metadata.is_dir())
            }
            made => made.map(|()| true),
        };
        match made {
            Ok(true) => {}
            Ok(false) => {
                return Ok(Err(format!("{} is there and is no folder", folder.display())));
            }
            Err(error) => return Err(cannot_write(&folder, &error)),
        }
    }
    Ok(Ok(()))
}

fn look_at(into: &Path, overwrite: bool, path: String, size: u64, executable: bool) -> Decision {
    let local = match local_path(&path) {
        Ok(local) => local,
        Err(why) => return Decision::Refuse(refused_path(&why)),
    };
    match make_folders(into, local.parent().unwrap_or(Path::new(""))) {
        Ok(Ok(())) => {}
        Ok(Err(why)) => return Decision::Refuse(why),
        Err(failure) => return Decision::Broken(failure),
    }
    let target = into.join(&local);
    let part = part_of(&target);
    match look_at_target(&target, &part, overwrite, size) {
        Ok(Ok(Here { have, hash, complete })) => {
            let sha256 = hash.clone().finalize().into();
            let answer = if complete && !overwrite {
                Answer::Compare { have, sha256 }
            } else {
                Answer::Want { have, sha256 }
            };
            let file = Pending { path, size, executable, target, part, have, hash, complete };
            Decision::Ask(Box::new(file), answer)
        }
        Ok(Err(why)) => Decision::Refuse(why),
        Err(error) => {
            let cause = format!("cannot look at {}: {error}", target.display());
            Decision::Broken(Failure::new(cause).next("give another folder with --into"))
        }
    }
}

/// What is here of a file: itself, or a part.
struct Here {
    have: u64,
    hash: Sha256,
    complete: bool,
}

fn look_at_target(
    target: &Path,
    part: &Path,
    overwrite: bool,
    size: u64,
) -> io::Result<Result<Here, String>> {
    let exists = "a file is there with this name";
    match metadata(target)? {
        Some(there) if there.is_dir() => return Ok(Err("a folder is there with this name".into())),
        Some(there) if there.is_file() && there.len() == size => {
            let hash = hash_prefix(&mut File::open(target)?, size)?;
            return Ok(Ok(Here { have: size, hash, complete: true }));
        }
        Some(_) if !overwrite => return Ok(Err(exists.into())),
        _ => {}
    }
    match metadata(part)? {
        Some(there) if there.is_file() => {
            let have = if there.len() > size { 0 } else { there.len() };
            let hash = hash_prefix(&mut File::open(part)?, have)?;
            Ok(Ok(Here { have, hash, complete: false }))
        }
        Some(_) => Ok(Err(format!("{} is in the way", part.display()))),
        None => Ok(Ok(Here { have: 0, hash: Sha256::new(), complete: false })),
    }
}

/// What is there, a symbolic link as one.
fn metadata(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a file is until it is complete.
fn part_of(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let stem = if name.len() > PART_STEM_MAX {
        let digest = <[u8; DIGEST_LEN]>::from(Sha256::digest(name.as_bytes()));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    } else {
        name.into_owned()
    };
    target.with_file_name(stem + PART_SUFFIX)
}

/// Writes what comes, until its end; gives the digest of the whole.
fn write_part(
    part: &Path,
    start: u64,
    mut hash: Sha256,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Written {
    let mut file = open_part(part, start)?;
    let mut buffer = Vec::with_capacity(PIECE_LEN);
    while let Some(piece) = pieces.blocking_recv() {
        hash.update(&piece);
        buffer.extend_from_slice(&piece);
        if buffer.len() >= PIECE_LEN {
            file.write_all(&buffer)?;
            buffer.clear();
        }
    }
    file.write_all(&buffer)?;
    Ok((file, hash.finalize().into()))
}

/// Opens a part for this program alone, cut to its first `start` bytes. A symbolic link is not
/// followed.
fn open_part(part: &Path, start: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(start == 0).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NOFOLLOW.bits().cast_signed(),
    );
    let mut file = options.open(part)?;
    #[cfg(unix)]
    lock(&file, part)?;
    file.set_len(start)?;
    file.seek(SeekFrom::Start(start))?;
    Ok(file)
}

/// Two that write one part would put what neither has checked in its place.
#[cfg(unix)]
fn lock(file: &File, part: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let in_use = || io::Error::new(io::ErrorKind::ResourceBusy, "another program writes it");
    let locked = rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    // Not every file system has locks.
    if locked == Err(rustix::io::Errno::WOULDBLOCK) {
        return Err(in_use());
    }
    // Who had it before may have put it in its place meanwhile.
    let (opened, there) = (file.metadata()?, fs::symlink_metadata(part).map_err(|_| in_use())?);
    let is_same = (opened.dev(), opened.ino()) == (there.dev(), there.ino());
    if is_same { Ok(()) } else { Err(in_use()) }
}

/// Puts a complete part in its place, once it is on the disk; false when something is there.
fn finish(
    file: &File,
    executable: bool,
    part: &Path,
    target: &Path,
    overwrite: bool,
) -> io::Result<bool> {
    #[cfg(unix)]
    if executable {
        use std::os::unix::fs::PermissionsExt;
        let mut permissions = file.metadata()?.permissions();
        // Whoever may read it may run it.
        permissions.set_mode(permissions.mode() | (permissions.mode() & 0o444) >> 2);
        file.set_permissions(permissions)?;
    }
    #[cfg(not(unix))]
    let _ = executable;
    file.sync_all()?;
    if overwrite {
        fs::rename(part, target)?;
        return Ok(true);
    }
    // Unlike a rename, a link is never put over what is there.
    match fs::hard_link(part, target) {
        Ok(()) => fs::remove_file(part)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        // Not every file system has links.
        Err(_) if metadata(target)?.is_some() => return Ok(false),
        Err(_) => fs::rename(part, target)?,
    }
    Ok(true)
}

/// The folder whose new names are not yet known to be on the disk.
#[derive(Default)]
struct Synced(Option<PathBuf>);

impl Synced {
    /// A file was put at `target`.
    fn enter(&mut self, target: &Path) -> io::Result<()> {
        let folder = target.parent().map(Path::to_path_buf);
        if folder != self.0 {
            self.sync()?;
            self.0 = folder;
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), Failure> {
        self.sync().map_err(|error| Failure::new(format!("cannot write to the disk: {error}")))
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(folder) = self.0.take() else { return Ok(()) };
        #[cfg(unix)]
        File::open(folder)?.sync_all()?;
        #[cfg(not(unix))]
        drop(folder);
        Ok(())
    }
}
