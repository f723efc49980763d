//! A stream as the scenarios see it.

use std::{future::Future, io};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::pattern::Pattern;

/// What bulk data are read into where a stream does not hand out its own buffers, in bytes.
const BUFFER_LEN: usize = 256 << 10;

/// Where a stream may put what it reads in bulk; takes no memory before that.
#[derive(Debug, Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    pub fn get(&mut self) -> &mut [u8] {
        if self.0.is_empty() {
            self.0.resize(BUFFER_LEN, 0);
        }
        &mut self.0
    }
}

pub trait Stream: Send + 'static {
    /// Sends a piece of bulk data.
    fn send(&mut self, piece: &'static [u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends a message, and sees that it goes out now.
    fn say(&mut self, message: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Reads what there is; 0 is the end.
    fn read(&mut self, into: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;

    /// Takes some bulk data, and compares them with the pattern; 0 is the end.
    fn take(
        &mut self,
        pattern: &mut Pattern,
        buffer: &mut Buffer,
    ) -> impl Future<Output = io::Result<usize>> + Send {
        async {
            let buffer = buffer.get();
            let len = self.read(buffer).await?;
            check(pattern, &buffer[..len])
        }
    }

    /// Ends this side's data.
    fn finish(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    fn read_exact(&mut self, into: &mut [u8]) -> impl Future<Output = io::Result<()>> + Send {
        async {
            let mut done = 0;
            while done < into.len() {
                match self.read(&mut into[done..]).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    len => done += len,
                }
            }
            Ok(())
        }
    }
}

/// How many bytes there are, if they are those of the pattern.
///
/// # Errors
/// When they are not.
pub fn check(pattern: &mut Pattern, bytes: &[u8]) -> io::Result<usize> {
    let at = pattern.at();
    if pattern.check(bytes) {
        return Ok(bytes.len());
    }
    Err(io::Error::other(format!("a wrong byte among the {} after {at}", bytes.len())))
}

/// Any byte stream.
#[derive(Debug)]
pub struct Plain<T>(pub T);

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for Plain<T> {
    async fn send(&mut self, piece: &'static [u8]) -> io::Result<()> {
        self.0.write_all(piece).await
    }

    async fn say(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.write_all(message).await?;
        self.0.flush().await
    }

    async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}
