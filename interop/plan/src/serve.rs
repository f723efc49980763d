//! The answering sides of echo and perf, over any stream.

use tokio::io::{self, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The protocol of echo: everything comes back, and the end comes after it.
pub const ECHO: &str = "/echo/1.0.0";
/// The protocol of perf (specs, perf/perf.md).
pub const PERF: &str = "/perf/1.0.0";
/// The answer is the protocols that the asker is known to support, one on each line.
pub const KNOWN: &str = "/known/1.0.0";
/// What a dialer begins to serve while it is connected.
pub const LATE: &str = "/late/1.0.0";

/// Sends back what comes until the other side ends.
///
/// # Errors
/// Those of the stream.
pub async fn answer_echo(stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let (mut read, mut write) = io::split(stream);
    io::copy(&mut read, &mut write).await?;
    write.shutdown().await
}

/// Reads to the end, and then sends as many bytes as the first eight have asked for.
///
/// # Errors
/// Those of the stream.
pub async fn answer_perf(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let wanted = stream.read_u64().await?;
    io::copy(&mut stream, &mut io::sink()).await?;
    io::copy(&mut io::repeat(0).take(wanted), &mut stream).await?;
    stream.shutdown().await
}

/// Says which protocols the asker is known to support.
///
/// # Errors
/// Those of the stream.
pub async fn answer_known(
    mut stream: impl AsyncWrite + Unpin,
    names: impl IntoIterator<Item = String>,
) -> io::Result<()> {
    for name in names {
        stream.write_all(format!("{name}\n").as_bytes()).await?;
    }
    stream.shutdown().await
}
