//! One request, one answer: each the whole of one direction of a stream, with limits of size
//! and time on both sides.
//!
//! ```text
//!   requester                                 responder
//!     │ ── request, end of data ──────────────▶  │
//!     │ ◀────────────────── answer, end of data ─│   or a reset: it failed, or is at a limit
//! ```
//!
//! There is no framing, so that rust-libp2p's `request_response` with its JSON and CBOR codecs
//! understands it, and whatever else reads a stream to its end.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use p2p_core::{ErrorCode, IoCause, PeerId, ProtocolId, ProtocolIdError, Stream, StreamError};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout_at},
};

use crate::{
    HandleError, Host, IntoTarget, OpenError, Opening,
    dispatch::{BoxError, Limits},
    ledger::Max,
};

/// The default of what one request and one answer may be, in bytes.
const LEN_MAX: usize = 1 << 20;
/// The default of how long a request may take, on either side.
const TIME_MAX: Duration = Duration::from_secs(10);
/// The default of how many requests of one peer are served at a time.
const OF_PEER_MAX: usize = 16;
/// The default of how many requests are served at a time.
const AT_ONCE_MAX: usize = 256;

/// Why a request has no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The peer could not be reached, or does not serve the protocol.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream failed. A peer that has failed, or is at a limit, resets it.
    #[error("the request failed: {0}")]
    Stream(IoCause),
    /// The answer is longer than this side allows.
    #[error("the answer is longer than {0} bytes; raise that with `Requesting::answer_max`")]
    TooLong(usize),
    /// There was no whole answer in time.
    #[error("no answer within {0:?}; raise that with `Requesting::timeout`")]
    TimedOut(Duration),
    /// A value could not be encoded, or the answer could not be decoded.
    #[error("{format}: {text}")]
    Format {
        /// The format's name.
        format: &'static str,
        /// What was wrong.
        text: String,
    },
}

impl From<StreamError> for RequestError {
    fn from(error: StreamError) -> Self {
        Self::Stream(std::io::Error::from(error).into())
    }
}

/// A request about to be made, from [`Host::request`]: await it.
///
/// # Cancel safety
/// Cancel safe: dropped at any point, it resets its stream, and the responder's handler is not
/// called, or its answer goes nowhere.
#[must_use = "nothing is asked until it is awaited"]
pub struct Requesting {
    opening: Opening,
    body: Bytes,
    answer_max: usize,
    limit: Duration,
}

impl Requesting {
    /// How long the answer may be, in bytes. Default 1 MiB. That much memory at most is held
    /// while it comes in.
    pub fn answer_max(mut self, len: usize) -> Self {
        self.answer_max = len;
        self
    }

    /// How long opening the stream may take once there is a connection, and then request and
    /// answer. Default 10 s each.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self.opening = self.opening.timeout(limit);
        self
    }

    /// Saves a round trip, for requests that may be repeated: see [`Opening::optimistic`].
    pub fn optimistic(mut self) -> Self {
        self.opening = self.opening.optimistic();
        self
    }

    async fn run(self) -> Result<Bytes, RequestError> {
        let mut stream = self.opening.await?;
        let by = deadline(self.limit);
        match timeout_at(by, ask(&mut stream, self.body, self.answer_max)).await {
            Ok(result) => result,
            Err(_) => {
                stream.reset(ErrorCode::NONE);
                Err(RequestError::TimedOut(self.limit))
            }
        }
    }
}

impl IntoFuture for Requesting {
    type Output = Result<Bytes, RequestError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Requesting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requesting").field("opening", &self.opening).finish_non_exhaustive()
    }
}

/// What a responder allows. Its memory is at most the number of requests at a time, times the
/// length of a request and of what the handler makes of it.
#[derive(Clone, Copy, Debug)]
pub struct Responding {
    request_max: usize,
    limit: Duration,
    of_peer_max: usize,
    at_once_max: usize,
}

impl Default for Responding {
    fn default() -> Self {
        Self {
            request_max: LEN_MAX,
            limit: TIME_MAX,
            of_peer_max: OF_PEER_MAX,
            at_once_max: AT_ONCE_MAX,
        }
    }
}

impl Responding {
    /// How long a request may be, in bytes; a longer one is reset. Default 1 MiB.
    #[must_use]
    pub fn request_max(mut self, len: usize) -> Self {
        self.request_max = len;
        self
    }

    /// How long a request may take from its stream to the last byte of the answer, the handler
    /// included. Default 10 s.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How many requests of one peer are served at a time; the next is reset. Default 16.
    #[must_use]
    pub fn of_peer_max(mut self, count: usize) -> Self {
        self.of_peer_max = count;
        self
    }

    /// How many requests are served at a time; the next is reset. Default 256.
    #[must_use]
    pub fn at_once_max(mut self, count: usize) -> Self {
        self.at_once_max = count;
        self
    }
}

/// A request, as its responder gets it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// Who asks, as the secure channel has verified it.
    pub peer: PeerId,
    /// What was asked, whole.
    pub body: Bytes,
}

impl Host {
    /// Sends `body` to a peer as one request, and gives the whole answer.
    ///
    /// What it gives is awaited, perhaps after [`Requesting::answer_max`] or
    /// [`Requesting::timeout`].
    pub fn request<P>(
        &self,
        target: impl IntoTarget,
        protocol: P,
        body: impl Into<Bytes>,
    ) -> Requesting
    where
        P: TryInto<ProtocolId>,
        P::Error: Into<ProtocolIdError>,
    {
        let opening = self.open(target, protocol).timeout(TIME_MAX);
        Requesting { opening, body: body.into(), answer_max: LEN_MAX, limit: TIME_MAX }
    }

    /// Has `handler` answer the requests that peers send for `protocol`, each in a task of its
    /// own. One that fails, panics, or is late resets its stream; nothing else is affected.
    ///
    /// # Errors
    /// [`HandleError`] when the name is not valid, or is served already.
    pub fn respond<P, F, Fut, E>(
        &self,
        protocol: P,
        limits: Responding,
        handler: F,
    ) -> Result<(), HandleError>
    where
        P: TryInto<ProtocolId>,
        P::Error: Into<ProtocolIdError>,
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Bytes, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let protocol = protocol.try_into().map_err(Into::into)?;
        let handler = std::sync::Arc::new(handler);
        let serve = move |stream: Stream| {
            let handler = std::sync::Arc::clone(&handler);
            async move {
                let answering = answer(stream, limits.request_max, &*handler);
                timeout_at(deadline(limits.limit), answering).await?
            }
        };
        let limits = Limits {
            streams_max: Some(Max::new(limits.at_once_max, "Responding::at_once_max")),
            streams_of_peer_max: Some(Max::new(limits.of_peer_max, "Responding::of_peer_max")),
            ..Limits::default()
        };
        self.inner.protocols.handle_within(protocol, limits, serve)
    }
}

async fn ask(stream: &mut Stream, body: Bytes, answer_max: usize) -> Result<Bytes, RequestError> {
    let mut body = body;
    stream.send(&mut body).await?;
    stream.shutdown().await.map_err(|error| RequestError::Stream(error.into()))?;
    match read_all(stream, answer_max).await? {
        Some(answer) => Ok(answer),
        None => {
            stream.reset(ErrorCode::STREAM_RESOURCE_LIMIT);
            Err(RequestError::TooLong(answer_max))
        }
    }
}

async fn answer<F, Fut, E>(
    mut stream: Stream,
    request_max: usize,
    handler: &F,
) -> Result<(), BoxError>
where
    F: Fn(Request) -> Fut,
    Fut: Future<Output = Result<Bytes, E>>,
    E: Into<BoxError>,
{
    let Some(body) = read_all(&mut stream, request_max).await? else {
        stream.reset(ErrorCode::STREAM_RESOURCE_LIMIT);
        return Err(format!("a request of more than {request_max} bytes").into());
    };
    let mut answer = handler(Request { peer: stream.peer(), body }).await.map_err(Into::into)?;
    stream.send(&mut answer).await?;
    Ok(stream.shutdown().await?)
}

/// What comes until the end, or `None` when it is more than `max` bytes. One piece is handed on
/// as it came.
async fn read_all(stream: &mut Stream, max: usize) -> Result<Option<Bytes>, StreamError> {
    let first = stream.chunk(usize::MAX).await?.unwrap_or_default();
    let mut rest = BytesMut::new();
    let mut len = first.len();
    while len <= max {
        let Some(more) = stream.chunk(usize::MAX).await? else {
            return Ok(Some(if rest.is_empty() { first } else { rest.freeze() }));
        };
        if rest.is_empty() {
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&more);
        len = rest.len();
    }
    Ok(None)
}

fn deadline(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or_else(|| now + Duration::from_secs(u64::from(u32::MAX)))
}

/// Requests and answers in JSON.
#[cfg(feature = "json")]
pub mod json {
    use bytes::Bytes;
    use serde::{Serialize, de::DeserializeOwned};

    use super::RequestError;

    /// Encodes a value for [`Host::request`](crate::Host::request), or as a responder's answer.
    ///
    /// # Errors
    /// [`RequestError::Format`] when the value has no JSON form.
    pub fn encode(value: &impl Serialize) -> Result<Bytes, RequestError> {
        serde_json::to_vec(value).map(Bytes::from).map_err(|error| format(&error))
    }

    /// Decodes an answer or a request.
    ///
    /// # Errors
    /// [`RequestError::Format`] says where it is not what `T` needs.
    pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RequestError> {
        serde_json::from_slice(bytes).map_err(|error| format(&error))
    }

    fn format(error: &serde_json::Error) -> RequestError {
        RequestError::Format { format: "JSON", text: error.to_string() }
    }
}
