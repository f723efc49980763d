//! A TCP proxy that delays each direction.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
    time::Instant,
};

/// What is read at once, in bytes.
const PIECE_LEN: usize = 256 << 10;
/// What is on its way in one direction at most, in bytes: more than any sender here fills.
const UNDERWAY_MAX: usize = 256 << 20;

/// Listens on loopback, and passes everything on to `to` after `delay`, also the connecting itself.
/// Each connection ends with its two ends.
///
/// # Errors
/// When there is no port.
pub async fn proxy(to: SocketAddr, delay: Duration) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let task = tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Err(error) = pass(near, to, delay).await {
                    eprintln!("proxy: {error}");
                }
            });
        }
    });
    Ok((addr, task))
}

/// The dialer's SYN was answered at once, and the listener has its connection already: what they
/// send first waits as long as both would have taken, too.
async fn pass(near: TcpStream, to: SocketAddr, delay: Duration) -> io::Result<()> {
    let accepted = Instant::now();
    let far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let _both = tokio::join!(
        one_way(near_read, far_write, delay, accepted + 2 * delay),
        one_way(far_read, near_write, delay, accepted + 3 * delay),
    );
    Ok(())
}

#[derive(Default)]
struct Underway {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

/// An empty piece is the end.
async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay: Duration,
    not_before: Instant,
) -> io::Result<()> {
    let underway = Arc::new(Mutex::new(Underway::default()));
    let (came, went) = (Notify::new(), Notify::new());
    let with = |work: &mut dyn FnMut(&mut Underway)| {
        work(&mut underway.lock().unwrap_or_else(PoisonError::into_inner));
    };
    let reading = async {
        loop {
            let mut piece = None;
            with(&mut |underway| {
                if underway.bytes < UNDERWAY_MAX {
                    piece = Some(underway.spare.pop().unwrap_or_default());
                }
            });
            let Some(mut piece) = piece else {
                went.notified().await;
                continue;
            };
            piece.clear();
            piece.reserve(PIECE_LEN);
            let len = from.read_buf(&mut piece).await.unwrap_or(0);
            let due = Instant::now().max(not_before) + delay;
            let mut piece = Some(piece);
            with(&mut |underway| {
                underway.bytes += len;
                underway.pieces.extend(piece.take().map(|piece| (due, piece)));
            });
            came.notify_one();
            if len == 0 {
                return;
            }
        }
    };
    let writing = async {
        loop {
            let mut next = None;
            with(&mut |underway| next = underway.pieces.pop_front());
            let Some((due, piece)) = next else {
                came.notified().await;
                continue;
            };
            // The clock of the timer has steps of a millisecond.
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            if piece.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&piece).await?;
            let mut piece = Some(piece);
            with(&mut |underway| {
                let piece = piece.take().unwrap_or_default();
                underway.bytes -= piece.len();
                underway.spare.push(piece);
            });
            went.notify_one();
        }
    };
    // Whoever cannot write any more ends the reading, too.
    tokio::select! {
        written = writing => written,
        () = async { reading.await; std::future::pending().await } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_comes_back_after_the_delays() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = socket.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let delay = Duration::from_millis(20);
        let (addr, _task) = proxy(to, delay).await.unwrap();
        let mut socket = TcpStream::connect(addr).await.unwrap();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|i| i as u8).collect();
        let begun = Instant::now();
        let (mut read, mut write) = socket.split();
        let mut got = Vec::new();
        let (written, _) = tokio::join!(
            async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await
            },
            read.read_to_end(&mut got),
        );
        written.unwrap();
        assert_eq!(got, sent);
        assert!(begun.elapsed() >= 4 * delay);
    }
}
