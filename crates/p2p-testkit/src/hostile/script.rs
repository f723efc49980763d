use std::{fmt, io, time::Duration};

use bytes::BytesMut;
use p2p_core::{
    Keypair, Open, Opened, Pipe, ProtocolId, PublicKey, Role, Seal, Security, SecurityError,
};
use p2p_security_noise::Noise;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use super::wire::multistream;

/// One end of a pipe, which does what a test says.
///
/// Errors of the pipe are `io::Error`s; what the peer should not have said is one of the kind
/// `InvalidData`.
pub struct Script {
    pipe: Pipe,
    wire: BytesMut,
    plain: BytesMut,
    channel: Option<(Box<dyn Seal>, Box<dyn Open>)>,
    begun: Instant,
}

/// How a peer has ended its side, from [`Script::end`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct End {
    /// What it had still said: plain bytes where there is a channel.
    pub said: Vec<u8>,
    /// The error, where it was not an ordinary end.
    pub error: Option<io::ErrorKind>,
    /// When that was, from the script's beginning.
    pub after: Duration,
}

impl Script {
    /// Speaks over a pipe.
    #[must_use]
    pub fn new(pipe: Pipe) -> Self {
        let (wire, plain) = Default::default();
        Self { pipe, wire, plain, channel: None, begun: Instant::now() }
    }

    /// Speaks over a stream.
    #[must_use]
    pub fn over(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (read, write) = tokio::io::split(io);
        Self::new(Pipe::new(read, write))
    }

    /// How long ago the script began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Sends these bytes, as they are.
    ///
    /// # Errors
    /// The pipe's.
    ///
    /// # Cancel safety
    /// Dropped, it may have sent a part.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pipe.write.write_all(bytes).await?;
        self.pipe.write.flush().await
    }

    /// Sends these bytes through the channel that was made; as they are where there is none.
    ///
    /// # Errors
    /// The pipe's.
    ///
    /// # Cancel safety
    /// As [`Script::send`].
    pub async fn say(&mut self, plain: &[u8]) -> io::Result<()> {
        let sealed = self.sealed(plain)?;
        self.send(&sealed).await
    }

    /// What [`Script::say`] would send: to be cut, changed or sent twice.
    ///
    /// # Errors
    /// The channel's, when it is used up.
    pub fn sealed(&mut self, mut plain: &[u8]) -> io::Result<Vec<u8>> {
        let Some((seal, _)) = &mut self.channel else { return Ok(plain.to_vec()) };
        let mut out = BytesMut::new();
        seal.seal(&mut plain, &mut out).map_err(invalid)?;
        Ok(out.to_vec())
    }

    /// Reads exactly `len` bytes, through the channel where there is one.
    ///
    /// # Errors
    /// The pipe's; `UnexpectedEof` when it ends before.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn hear(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.plain.len() < len {
            if self.read_more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.plain.split_to(len).to_vec())
    }

    /// Reads on until `last` was said, and gives everything up to its end.
    ///
    /// # Errors
    /// As [`Script::hear`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn hear_until(&mut self, last: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            let found = self.plain.windows(last.len().max(1)).position(|part| part == last);
            if let Some(at) = found {
                return Ok(self.plain.split_to(at.saturating_add(last.len())).to_vec());
            }
            if self.read_more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads the next message of multistream-select, and gives its text.
    ///
    /// # Errors
    /// The pipe's; `InvalidData` when it is no message.
    ///
    /// # Cancel safety
    /// Not cancel safe: a part may have been taken.
    pub async fn hear_message(&mut self) -> io::Result<String> {
        // Those that are longer than 127 bytes are nobody's here.
        let len = self.hear(1).await?.first().copied().map_or(0, usize::from);
        let mut text = self.hear(len).await?;
        if text.pop() != Some(b'\n') {
            return Err(invalid("a message without its newline"));
        }
        String::from_utf8(text).map_err(invalid)
    }

    /// Reads to the end of what the peer says.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn end(&mut self) -> End {
        let error = loop {
            match self.read_more().await {
                Ok(0) => break None,
                Ok(_) => {}
                Err(error) => break Some(error.kind()),
            }
        };
        End { said: self.plain.split().to_vec(), error, after: self.elapsed() }
    }

    /// Ends this side's bytes.
    ///
    /// # Errors
    /// The pipe's.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.pipe.write.shutdown().await
    }

    /// Agrees on `protocol` by multistream-select, as either side, and as a good peer does.
    ///
    /// # Errors
    /// The pipe's; `InvalidData` when the peer says anything else.
    ///
    /// # Cancel safety
    /// Not cancel safe: a part may have been said.
    pub async fn negotiate(&mut self, role: Role, protocol: &str) -> io::Result<()> {
        if role == Role::Initiator {
            self.say(&multistream::proposal(protocol)).await?;
        }
        let header = self.hear_message().await?;
        let answer = self.hear_message().await?;
        if header != multistream::NAME || answer != protocol {
            return Err(invalid(format!("{header} and {answer} instead of {protocol}")));
        }
        match role {
            Role::Initiator => Ok(()),
            Role::Responder => self.say(&multistream::proposal(protocol)).await,
        }
    }

    /// Makes a Noise channel, as a good peer does, and gives the multiplexer that was agreed on in
    /// it. What is said and heard from then on goes through it.
    ///
    /// # Errors
    /// The pipe's; `InvalidData` when the handshake fails.
    ///
    /// # Cancel safety
    /// Not cancel safe: a part may have been said.
    pub async fn shake_hands(
        &mut self,
        role: Role,
        identity: &Keypair,
        muxers: &[ProtocolId],
    ) -> io::Result<(PublicKey, Option<ProtocolId>)> {
        let noise = Noise::new(identity).map_err(invalid)?;
        let mut handshake = noise.start(role, None, muxers).map_err(invalid)?;
        let mut out = BytesMut::new();
        self.wire.unsplit(self.plain.split());
        loop {
            let session = handshake.advance(&mut self.wire, &mut out).map_err(invalid)?;
            self.pipe.write.write_all_buf(&mut out).await?;
            if let Some(session) = session {
                self.secure(session.seal, session.open)?;
                return Ok((session.peer, session.muxer));
            }
            if self.pipe.read.read_buf(&mut self.wire).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Puts a channel of the test's own over the pipe.
    ///
    /// # Errors
    /// `InvalidData` when what was heard already is no record of it.
    pub fn secure(&mut self, seal: Box<dyn Seal>, open: Box<dyn Open>) -> io::Result<()> {
        self.channel = Some((seal, open));
        self.wire.unsplit(self.plain.split());
        self.open_records().map_err(invalid)
    }

    async fn read_more(&mut self) -> io::Result<usize> {
        let count = self.pipe.read.read_buf(&mut self.wire).await?;
        self.open_records().map_err(invalid)?;
        Ok(count)
    }

    fn open_records(&mut self) -> Result<(), SecurityError> {
        let Some((_, open)) = &mut self.channel else {
            self.plain.unsplit(self.wire.split());
            return Ok(());
        };
        while let Opened::Record(record) = open.open(&mut self.wire)? {
            self.plain.extend_from_slice(&record);
        }
        Ok(())
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("secured", &self.channel.is_some())
            .field("begun", &self.begun)
            .finish_non_exhaustive()
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
