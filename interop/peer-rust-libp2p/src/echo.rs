//! The two sides of `/echo/1.0.0`.

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use interop_plan::Pattern;
use libp2p::{Stream, StreamProtocol};

use crate::report::Failure;

/// The name of the protocol.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/echo/1.0.0");

const CHUNK: usize = 16 * 1024;

/// Sends every byte back as it comes, and ends the write half after the peer ended its own.
pub(crate) async fn answer(mut stream: Stream) -> std::io::Result<()> {
    let mut buf = vec![0; CHUNK];
    loop {
        let n = stream.read(&mut buf).await?;
        if n == 0 {
            return stream.close().await;
        }
        stream.write_all(&buf[..n]).await?;
        stream.flush().await?;
    }
}

/// Sends `total` bytes of the sequence of `seed` while it compares what comes back.
pub(crate) async fn exercise(stream: Stream, seed: u64, total: u64) -> Result<(), Failure> {
    let (reader, writer) = stream.split();
    futures::try_join!(
        send(writer, Pattern::new(seed), total),
        compare(reader, Pattern::new(seed), total),
    )?;
    Ok(())
}

/// Writes `total` bytes, then half-closes.
async fn send(
    mut writer: impl AsyncWrite + Unpin,
    mut pattern: Pattern,
    total: u64,
) -> Result<(), Failure> {
    let mut buf = vec![0; CHUNK];
    let mut left = total;
    while left > 0 {
        let n = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        pattern.fill(&mut buf[..n]);
        writer.write_all(&buf[..n]).await.map_err(|error| Failure::during("write", &error))?;
        left -= n as u64;
    }
    writer.close().await.map_err(|error| Failure::during("half-close", &error))
}

/// Reads until the end and fails unless exactly the `total` expected bytes came.
async fn compare(
    mut reader: impl AsyncRead + Unpin,
    mut pattern: Pattern,
    total: u64,
) -> Result<(), Failure> {
    let (mut buf, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut seen = 0;
    loop {
        let n = reader
            .read(&mut buf)
            .await
            .map_err(|error| Failure::during(&format!("read after {seen} bytes"), &error))?;
        if n == 0 && seen == total {
            return Ok(());
        }
        if n == 0 {
            return Err(Failure::new(format!("the stream ended after {seen} of {total} bytes")));
        }
        let expected = &mut expected[..n];
        pattern.fill(expected);
        if seen + n as u64 > total {
            return Err(Failure::new(format!("bytes came after the last of {total}")));
        }
        if let Some(at) = (0..n).find(|&i| buf[i] != expected[i]) {
            let offset = seen + at as u64;
            return Err(Failure::new(format!("wrong byte at offset {offset}")));
        }
        seen += n as u64;
    }
}
