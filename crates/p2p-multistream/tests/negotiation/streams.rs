use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use p2p_multistream::{ClosedAt, initiate, respond};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};

use super::*;

/// A stream that reads from a script in segments and keeps what is written until it is flushed.
#[derive(Default)]
struct Script {
    input: Vec<u8>,
    segment: usize,
    reads: usize,
    unflushed: Vec<u8>,
    flights: Vec<Vec<u8>>,
    refuses_writes: bool,
}

impl Script {
    fn new(input: &[u8], segment: usize) -> Self {
        Self { input: input.to_vec(), segment, ..Self::default() }
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(self.unflushed.is_empty(), "reads while the peer waits for what is not flushed");
        let len = self.segment.min(buf.remaining()).min(self.input.len());
        buf.put_slice(&self.input.drain(..len).collect::<Vec<_>>());
        self.reads += 1;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.refuses_writes {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.unflushed.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flight = std::mem::take(&mut self.unflushed);
        self.flights.push(flight);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn only(supported: ProtocolId) -> impl FnMut(&str) -> bool {
    move |name| name == supported.as_str()
}

#[tokio::test]
async fn exchange_a_accepted_at_the_first_proposal() {
    let (mut ours, mut theirs) = duplex(64);
    let both = tokio::try_join!(initiate(&mut ours, [NOISE]), respond(&mut theirs, only(NOISE)));
    assert_eq!(both.expect("agreed"), (NOISE, NOISE));
}

/// Exchange (b), in the smallest pipe: it holds the header that the responder sends while the
/// initiator is still writing its proposal.
#[tokio::test]
async fn exchange_b_refused_then_accepted_in_a_pipe_of_20_bytes() {
    let (mut ours, mut theirs) = duplex(20);
    let both = tokio::try_join!(
        initiate(&mut ours, [TLS, longest(), NOISE]),
        respond(&mut theirs, only(NOISE))
    );
    assert_eq!(both.expect("agreed"), (NOISE, NOISE));
}

#[tokio::test]
async fn exchange_c_all_refused_and_the_stream_closed() {
    let (mut ours, mut theirs) = duplex(64);
    let initiator = async move {
        // Dropping the stream at the end is what tells the responder.
        initiate(&mut ours, [TLS, YAMUX]).await
    };
    let (a, b) = tokio::join!(initiator, respond(&mut theirs, only(NOISE)));
    assert_eq!(variant(&a.expect_err("refused")), "Unsupported");
    assert!(matches!(b, Err(NegotiationError::Closed(ClosedAt::Refused(2)))));
}

/// Exchanges (d) and (e), trap 3: whatever the segments, the payload is still in the stream.
#[tokio::test]
async fn mss_07_t02_3_not_one_byte_of_payload_is_taken() {
    let payload: Vec<u8> = (0..32).collect();
    for segment in [1, 2, 3, 21, 22, 23, 1000] {
        let mut input = flight(&["na", "/noise"]);
        input.extend_from_slice(&payload);
        let mut io = Script::new(&input, segment);
        assert_eq!(initiate(&mut io, [TLS, NOISE]).await.expect("agreed"), NOISE);
        assert_eq!(io.input, payload);

        let mut io = Script::new(&input, segment);
        assert_eq!(respond(&mut io, only(NOISE)).await.expect("agreed"), NOISE);
        assert_eq!(io.input, payload);
    }
}

/// Trap 4: each flight is flushed before the answer is waited for; `Script` checks that.
#[tokio::test]
async fn mss_12_t02_4_flights_are_whole_and_flushed() {
    let mut io = Script::new(&flight(&["na", "/noise"]), 1000);
    initiate(&mut io, [TLS, NOISE]).await.expect("agreed");
    assert_eq!(io.flights, [flight(&["/tls/1.0.0"]), msg("/noise")]);
    assert_eq!(io.reads, 4, "header with two bytes, the rest; then prefix, the rest");
}

#[tokio::test]
async fn truncation_at_each_byte_is_a_closed_stream() {
    let whole = flight(&["na", "/noise"]);
    for len in 0..whole.len() {
        let expected = match len {
            0..20 => ClosedAt::Header,
            20..24 => ClosedAt::Refused(0),
            _ => ClosedAt::Refused(1),
        };
        let mut io = Script::new(&whole[..len], 1000);
        let error = initiate(&mut io, [TLS, NOISE]).await.expect_err("truncated");
        assert!(matches!(error, NegotiationError::Closed(at) if at == expected), "{len}: {error}");
        let mut io = Script::new(&whole[..len], 1);
        let error = respond(&mut io, only(NOISE)).await.expect_err("truncated");
        assert!(matches!(error, NegotiationError::Closed(at) if at == expected), "{len}: {error}");
    }
}

#[tokio::test]
async fn mss_03_04_06_11_malformed_messages_end_the_negotiation() {
    for (bytes, expected) in MUST_FAIL {
        let behind = hex(&format!("{HEADER}{bytes}"));
        let error = initiate(&mut Script::new(&behind, 1), [NOISE]).await.expect_err("malformed");
        assert_eq!(variant(&error), expected);
        let error =
            respond(&mut Script::new(&behind, 1000), only(NOISE)).await.expect_err("malformed");
        assert_eq!(variant(&error), expected);
        let error =
            respond(&mut Script::new(&hex(bytes), 1), only(NOISE)).await.expect_err("no header");
        assert_eq!(variant(&error), "NotMultistream");
    }
}

/// The body of a message that is too long is left where it is.
#[tokio::test]
async fn mss_04_a_long_message_is_refused_before_its_body_is_read() {
    let mut input = hex(&format!("{HEADER}8108"));
    input.extend([b'x'; 1025]);
    let mut io = Script::new(&input, 5000);
    let error = respond(&mut io, only(NOISE)).await.expect_err("too long");
    assert_eq!(variant(&error), "MessageLen");
    assert_eq!(io.input.len(), 1025);
}

#[tokio::test]
async fn mss_04_a_message_of_1024_bytes_passes() {
    let (mut ours, mut theirs) = duplex(100);
    let both =
        tokio::try_join!(initiate(&mut ours, [longest()]), respond(&mut theirs, only(longest())));
    assert_eq!(both.expect("agreed"), (longest(), longest()));
}

/// Exchange (g), trap 6: the initiator half-closes right after its request.
#[tokio::test]
async fn t02_6_a_half_closed_stream_is_answered() {
    let (mut ours, mut theirs) = duplex(64);
    ours.write_all(&flight(&["/noise"])).await.expect("room");
    ours.shutdown().await.expect("open");
    assert_eq!(respond(&mut theirs, only(NOISE)).await.expect("agreed"), NOISE);
    drop(theirs);
    let mut answer = Vec::new();
    ours.read_to_end(&mut answer).await.expect("answered");
    assert_eq!(answer, flight(&["/noise"]));
}

/// Trap 7: the initiator has closed its read half, so no answer can be written.
#[tokio::test]
async fn mss_26_t02_7_a_request_counts_though_the_answer_cannot_be_written() {
    for segment in [1, 20, 1000] {
        let mut input = flight(&["/noise"]);
        input.extend_from_slice(b"request");
        let mut io = Script { refuses_writes: true, ..Script::new(&input, segment) };
        assert_eq!(respond(&mut io, only(NOISE)).await.expect("agreed"), NOISE);
        assert_eq!(io.input, b"request");
    }
}

#[tokio::test]
async fn mss_26_without_a_request_the_failure_to_write_is_the_error() {
    let mut io = Script { refuses_writes: true, ..Script::new(&flight(&["/other"]), 1000) };
    let error = respond(&mut io, only(NOISE)).await.expect_err("no request");
    assert!(
        matches!(&error, NegotiationError::Io(cause) if cause.kind() == io::ErrorKind::BrokenPipe),
        "{error}"
    );
    let mut io = Script { refuses_writes: true, ..Script::default() };
    let error = initiate(&mut io, [NOISE]).await.expect_err("cannot write");
    assert_eq!(variant(&error), "Io");
}

/// py-libp2p: the header alone, and the proposal only after ours has come.
#[tokio::test]
async fn mss_12_an_initiator_that_waits_for_the_header_goes_on() {
    let (mut ours, mut theirs) = duplex(64);
    let py = async {
        ours.write_all(&hex(HEADER)).await?;
        let mut header = [0; 20];
        ours.read_exact(&mut header).await?;
        assert_eq!(&header[..], hex(HEADER));
        ours.write_all(&msg("/noise")).await?;
        let mut echo = [0; 8];
        ours.read_exact(&mut echo).await?;
        assert_eq!(&echo[..], msg("/noise"));
        io::Result::Ok(())
    };
    let (py, ours) = tokio::join!(py, respond(&mut theirs, only(NOISE)));
    py.expect("answered");
    assert_eq!(ours.expect("agreed"), NOISE);
}

/// Trap 1, exchange (f): the header is sent without waiting, and taken whenever it comes.
#[tokio::test]
async fn t02_1_t02_2_go_sends_its_header_first() {
    let (mut ours, mut theirs) = duplex(64);
    theirs.write_all(&hex(HEADER)).await.expect("room");
    let go = async {
        let mut request = [0; 28];
        theirs.read_exact(&mut request).await?;
        assert_eq!(&request[..], flight(&["/noise"]));
        theirs.write_all(&msg("/noise")).await
    };
    let (go, ours) = tokio::join!(go, initiate(&mut ours, [NOISE]));
    go.expect("proposed");
    assert_eq!(ours.expect("agreed"), NOISE);
}

#[tokio::test]
async fn t02_9_an_empty_list_leaves_the_stream_untouched() {
    let mut io = Script::default();
    assert_eq!(variant(&initiate(&mut io, []).await.expect_err("empty")), "NoProtocols");
    assert!(io.flights.is_empty() && io.unflushed.is_empty() && io.reads == 0);
}

#[test]
fn the_futures_can_be_spawned() {
    fn send<T: Send>(_: &T) {}
    let (mut ours, mut theirs) = duplex(64);
    send(&initiate(&mut ours, [NOISE]));
    send(&respond(&mut theirs, only(NOISE)));
}
