use std::{io, pin::pin, sync::Arc, time::Duration};

use p2p_core::{
    AddrExt as _, DialTarget, Link, ListenEvent, Listener, Multiaddr, Muxed, Pipe, Transport,
    TransportError,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::{
    Check, STILL, UNREAD_MAX, Violation, connection, difference, pattern, poll_from_elsewhere,
};

/// How much passes each way where bytes are compared.
const SENT_LEN: usize = 300_000;
/// How long after a pipe had nothing it is asked again: it tells nobody when there is something, which is
/// what is checked.
const ASK_INTERVAL: Duration = Duration::from_millis(1);
/// Dials at a time.
const DIALS: usize = 16;

/// Checks a transport, its listener, and its links: pipes as such, and links that are born
/// multiplexed by [`connection`](super::connection()).
///
/// `listen` is an address that can be bound again and again, with port 0 where there are ports.
/// `foreign` is one that the transport does not support.
///
/// # Errors
/// The first [`Violation`].
///
/// # Cancel safety
/// Dropped, it leaves nothing behind that the transport does not.
pub async fn transport(
    transport: Arc<dyn Transport>,
    listen: Multiaddr,
    foreign: Multiaddr,
) -> Result<(), Violation> {
    let suite = Suite { transport, listen };
    suite.addresses().await?;
    suite.foreign_addresses(&foreign).await?;
    suite.silent_dialer().await?;
    suite.cancelled_accept().await?;
    suite.dropped_dial().await?;
    suite.many_at_once().await?;
    suite.dropped_incoming().await?;
    suite.dropped_listener().await?;
    match suite.links(Check("links")).await? {
        (Link::Pipe(_), Link::Pipe(_)) => {
            suite.half_close().await?;
            suite.both_ways().await?;
            suite.asked_directly().await?;
            suite.last_waker().await?;
            suite.back_pressure().await?;
            suite.halves().await?;
            suite.dropped_link().await
        }
        (Link::Muxed(_), Link::Muxed(_)) => connection(async || suite.muxed().await).await,
        (dialed, accepted) => {
            let seen = format!("one side has {dialed:?}, the other {accepted:?}");
            Err(Check("links").seen(seen))
        }
    }
}

/// Asks a pipe that can be asked, until it has something.
async fn ask(pipe: &mut Pipe, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match pipe.read.try_read(buf) {
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Some(said) => return said,
            None => return Err(io::Error::other("it could be asked before")),
        }
        sleep(ASK_INTERVAL).await;
    }
}

struct Suite {
    transport: Arc<dyn Transport>,
    listen: Multiaddr,
}

/// A listener and the first address under which it can be reached.
struct Bound {
    listener: Box<dyn Listener>,
    addr: Multiaddr,
}

impl Suite {
    async fn bind(&self, check: Check) -> Result<Bound, Violation> {
        let listening = self.transport.listen(self.listen.clone());
        let listener = check.succeeds("listening", listening).await?;
        let addr = listener.addrs().into_iter().next();
        let addr = addr.ok_or_else(|| check.seen("a listener has no address"))?;
        Ok(Bound { listener, addr })
    }

    async fn dial(&self, addr: &Multiaddr) -> Result<Link, TransportError> {
        self.transport.dial(DialTarget::new(addr.clone(), None)).await
    }

    /// Both ends of a new link.
    async fn links(&self, check: Check) -> Result<(Link, Link), Violation> {
        let mut bound = self.bind(check).await?;
        let addr = bound.addr.clone();
        let both = async {
            let accept = async {
                let incoming = bound.incoming(check).await?;
                check.ok("accepting", incoming.link().await)
            };
            let dial = async { check.ok("dialing", self.dial(&addr).await) };
            tokio::try_join!(dial, accept)
        };
        check.soon("a link", both).await?
    }

    async fn pipes(&self, check: Check) -> Result<(Pipe, Pipe), Violation> {
        match self.links(check).await? {
            (Link::Pipe(dialed), Link::Pipe(accepted)) => Ok((dialed, accepted)),
            (dialed, _) => Err(check.seen(format!("a pipe before, and now {dialed:?}"))),
        }
    }

    async fn muxed(&self) -> Result<(Muxed, Muxed), Violation> {
        let check = Check("links");
        match self.links(check).await? {
            (Link::Muxed(dialed), Link::Muxed(accepted)) => Ok((dialed, accepted)),
            (dialed, _) => {
                Err(check.seen(format!("a multiplexed link before, and now {dialed:?}")))
            }
        }
    }

    /// A listener names addresses that the transport supports, without `/p2p`.
    async fn addresses(&self) -> Result<(), Violation> {
        let check = Check("addresses");
        let supported = self.transport.supports(&self.listen);
        check.that(supported, || format!("{} is not supported", self.listen))?;
        let bound = self.bind(check).await?;
        for addr in bound.listener.addrs() {
            check.that(self.transport.supports(&addr), || {
                format!("it listens on {addr}, which it does not support")
            })?;
            let bare = addr.split_peer().is_ok_and(|(_, peer)| peer.is_none());
            check.that(bare, || format!("{addr} is not an address without a peer"))?;
        }
        Ok(())
    }

    /// What is not supported is refused, by an error that names the address.
    async fn foreign_addresses(&self, foreign: &Multiaddr) -> Result<(), Violation> {
        let check = Check("foreign addresses");
        let supported = self.transport.supports(foreign);
        check.that(!supported, || format!("{foreign} is supported"))?;
        let dialed = check.soon("the refusal of a dial", self.dial(foreign)).await?;
        let listened = self.transport.listen(foreign.clone());
        let listened = check.soon("the refusal of a listener", listened).await?;
        for error in [dialed.err(), listened.err()] {
            let error = error.ok_or_else(|| check.seen(format!("{foreign} works")))?;
            check.that(error.to_string().contains(&foreign.to_string()), || {
                format!("the error does not name {foreign}: {error}")
            })?;
        }
        Ok(())
    }

    /// `next` that is dropped, again and again, loses nobody.
    async fn cancelled_accept(&self) -> Result<(), Violation> {
        let check = Check("cancelled accept");
        let mut bound = self.bind(check).await?;
        let addr = bound.addr.clone();
        for _ in 0..4 {
            let mut dialing = pin!(self.dial(&addr));
            let mut dialed = None;
            for _ in 0..20 {
                // What a poll gives is the answer; what it does not give must not be lost.
                let taken = poll_from_elsewhere(&mut pin!(bound.listener.next())).await;
                if let Some(event) = taken {
                    return bound.check_event(check, event).map(drop);
                }
                if dialed.is_none() {
                    dialed = poll_from_elsewhere(&mut dialing).await;
                }
                tokio::task::yield_now().await;
            }
            let accepted = async {
                let incoming = bound.incoming(check).await?;
                check.ok("accepting", incoming.link().await)
            };
            let mut accepted = pin!(accepted);
            let what = "the link whose accept was cancelled";
            let link = async {
                if dialed.is_some() {
                    return accepted.await;
                }
                tokio::select! {
                    link = &mut accepted => link,
                    _link = &mut dialing => accepted.await,
                }
            };
            check.soon(what, link).await??;
        }
        Ok(())
    }

    /// A dialer that says nothing does not keep the next from being accepted.
    async fn silent_dialer(&self) -> Result<(), Violation> {
        let check = Check("silent dialer");
        let mut bound = self.bind(check).await?;
        let addr = bound.addr.clone();
        let dials = async { tokio::join!(self.dial(&addr), self.dial(&addr)) };
        // Their links are left alone.
        let accepts = async {
            let first = bound.incoming(check).await?;
            let second = bound.incoming(check).await?;
            Ok::<_, Violation>((first, second))
        };
        let (mut dials, mut accepts) = (pin!(dials), pin!(accepts));
        let accepted = async {
            tokio::select! {
                accepted = &mut accepts => accepted,
                _links = &mut dials => accepts.await,
            }
        };
        check.soon("the second of two silent dialers", accepted).await?.map(drop)
    }

    /// A dial that is given up leaves a listener that works.
    async fn dropped_dial(&self) -> Result<(), Violation> {
        let check = Check("dropped dial");
        let mut bound = self.bind(check).await?;
        for _ in 0..4 {
            poll_from_elsewhere(&mut pin!(self.dial(&bound.addr))).await;
        }
        let addr = bound.addr.clone();
        let mut dialing = pin!(self.dial(&addr));
        let what = "a dial after those that were dropped";
        let dialed = async {
            loop {
                // Those that were given up may come out as links that are dead.
                let accept = async {
                    let incoming = bound.incoming(check).await?;
                    Ok::<_, Violation>(incoming.link().await.is_ok())
                };
                tokio::select! {
                    dialed = &mut dialing => return check.ok(what, dialed).map(drop),
                    accepted = accept => accepted.map(drop)?,
                }
            }
        };
        check.soon(what, dialed).await?
    }

    /// Links that are made at the same time are as many, and each leads to its own other end.
    async fn many_at_once(&self) -> Result<(), Violation> {
        let check = Check("many at once");
        let mut bound = self.bind(check).await?;
        let addr = bound.addr.clone();
        let mut dials = tokio::task::JoinSet::new();
        for _ in 0..DIALS {
            let (transport, addr) = (Arc::clone(&self.transport), addr.clone());
            dials.spawn(async move { transport.dial(DialTarget::new(addr, None)).await });
        }
        let mut links = tokio::task::JoinSet::new();
        for number in 0..DIALS {
            let what = format!("link {number} of {DIALS} at once");
            let incoming = check.soon(&what, bound.incoming(check)).await??;
            links.spawn(incoming.link());
        }
        for mut made in [dials, links] {
            while let Some(link) = check.soon("a link of many", made.join_next()).await? {
                let link = check.ok("a task", link)?;
                check.ok("a link of many", link)?;
            }
        }
        Ok(())
    }

    /// An inbound link that is not taken is closed, and the dialer notices.
    async fn dropped_incoming(&self) -> Result<(), Violation> {
        let check = Check("dropped incoming");
        let mut bound = self.bind(check).await?;
        let addr = bound.addr.clone();
        let dial = self.dial(&addr);
        let refuse = async { bound.incoming(check).await.map(drop) };
        let (dialed, refused) =
            check.soon("a dial that is refused", async { tokio::join!(dial, refuse) }).await?;
        refused?;
        if let Ok(Link::Pipe(mut pipe)) = dialed {
            check.soon("the end of a link that was refused", ends(&mut pipe)).await?;
        }
        Ok(())
    }

    /// Once the listener is dropped, nobody is let in, and the address can be bound again.
    async fn dropped_listener(&self) -> Result<(), Violation> {
        let check = Check("dropped listener");
        let bound = self.bind(check).await?;
        let addr = bound.addr.clone();
        drop(bound);
        match check.soon("the refusal of a dial to nobody", self.dial(&addr)).await? {
            Err(error) => check.that(error.to_string().contains(&addr.to_string()), || {
                format!("the error does not name {addr}: {error}")
            })?,
            Ok(Link::Pipe(mut pipe)) => {
                check.soon("the end of a link to nobody", ends(&mut pipe)).await?;
            }
            Ok(_) => return Err(check.seen("a dial to nobody gives a connection")),
        }
        let again = self.transport.listen(addr.clone());
        check.succeeds("binding an address that was given up", again).await.map(drop)
    }

    /// Every byte arrives, once and in order, while both sides send.
    async fn both_ways(&self) -> Result<(), Violation> {
        let check = Check("both ways");
        let (dialed, accepted) = self.pipes(check).await?;
        let sent = pattern(SENT_LEN);
        let exchange = async |pipe: Pipe| {
            let Pipe { mut read, mut write, .. } = pipe;
            let send = async {
                for piece in sent.chunks(7_777) {
                    write.write_all(piece).await?;
                }
                write.flush().await?;
                write.shutdown().await
            };
            let mut received = Vec::new();
            let (sent, read) = tokio::join!(send, read.read_to_end(&mut received));
            sent.and(read).map(|_| received)
        };
        let both = async { tokio::try_join!(exchange(dialed), exchange(accepted)) };
        let (ours, theirs) = check.succeeds("an exchange", both).await?;
        for received in [ours, theirs] {
            check.that(received == sent, || difference(&sent, &received))?;
        }
        Ok(())
    }

    /// `shutdown` ends one direction, behind everything that was written; the other goes on.
    async fn half_close(&self) -> Result<(), Violation> {
        let check = Check("half-close");
        for swapped in [false, true] {
            let (mut one, mut other) = self.pipes(check).await?;
            if swapped {
                (one, other) = (other, one);
            }
            let question = async {
                one.write.write_all(b"question").await?;
                one.write.shutdown().await
            };
            check.succeeds("a half-close", question).await?;
            let mut heard = Vec::new();
            let reading = other.read.read_to_end(&mut heard);
            check.succeeds("the end of a direction that was shut down", reading).await?;
            check.that(heard == b"question", || difference(b"question", &heard))?;
            let answer = async {
                other.write.write_all(b"answer").await?;
                other.write.shutdown().await
            };
            check.succeeds("writing towards a half that was shut down", answer).await?;
            let mut heard = Vec::new();
            check.succeeds("the answer", one.read.read_to_end(&mut heard)).await?;
            check.that(heard == b"answer", || difference(b"answer", &heard))?;
        }
        Ok(())
    }

    /// What a pipe says when it is asked is what a read that waits would give, and no byte of it comes
    /// twice or not at all. Most cannot be asked.
    async fn asked_directly(&self) -> Result<(), Violation> {
        let check = Check("asked directly");
        let (mut one, mut other) = self.pipes(check).await?;
        let mut asked = [0; 100];
        match one.read.try_read(&mut asked) {
            None => return Ok(()),
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Some(said) => return Err(check.seen(format!("{said:?} before anything was sent"))),
        }
        let sent = pattern(1000);
        let mut heard = Vec::new();
        // The first is waited for: the runtime knows of what is asked for later.
        for (piece, waits) in sent.chunks(250).zip([true, false, true, false]) {
            check.succeeds("a write", other.write.write_all(piece)).await?;
            check.succeeds("a flush", other.write.flush()).await?;
            if waits {
                heard.push(check.succeeds("a read", one.read.read_u8()).await?);
            }
            let said = check.soon("what was sent", ask(&mut one, &mut asked)).await?;
            let len = check.ok("asking for what was sent", said)?;
            heard.extend(asked.iter().take(len));
        }
        check.succeeds("a shutdown", other.write.shutdown()).await?;
        check.succeeds("a read", one.read.read_to_end(&mut heard)).await?;
        check.that(heard == sent, || difference(&sent, &heard))?;
        let said = check.soon("the end", ask(&mut one, &mut asked)).await?;
        let len = check.ok("asking for the end", said)?;
        check.that(len == 0, || format!("{len} bytes after the end"))
    }

    /// A read that waits holds up no write, and the reverse.
    async fn halves(&self) -> Result<(), Violation> {
        let check = Check("halves");
        let (one, mut other) = self.pipes(check).await?;
        let Pipe { mut read, mut write, .. } = one;
        let reader = tokio::spawn(async move {
            let mut byte = [0];
            read.read_exact(&mut byte).await.map(|_| read)
        });
        tokio::task::yield_now().await;
        check.succeeds("a write while a read waits", write.write_all(b"x")).await?;
        check.succeeds("a flush while a read waits", write.flush()).await?;
        check.succeeds("what was written while a read waits", other.read.read_u8()).await?;
        check.succeeds("a write", other.write.write_all(b"y")).await?;
        check.succeeds("a flush", other.write.flush()).await?;
        let read = check.soon("a read that waited while another task wrote", reader).await?;
        let read = check.ok("a task", read)?;
        let mut read = check.ok("a read", read)?;
        fill(check, &mut write, &[0; 1 << 12]).await?;
        check.succeeds("a write", other.write.write_all(b"z")).await?;
        check.succeeds("a flush", other.write.flush()).await?;
        check.succeeds("a read while a write waits", read.read_u8()).await.map(drop)
    }

    /// Of several tasks that have waited, it is the last that is woken.
    async fn last_waker(&self) -> Result<(), Violation> {
        let check = Check("last waker");
        let (mut one, mut other) = self.pipes(check).await?;
        let mut byte = [0];
        poll_from_elsewhere(&mut pin!(one.read.read(&mut byte))).await;
        let reader = tokio::spawn(async move { one.read.read_u8().await.map(|_| one) });
        tokio::task::yield_now().await;
        check.succeeds("a write", other.write.write_all(b"x")).await?;
        check.succeeds("a flush", other.write.flush()).await?;
        let what = "a read that another task had begun and given up";
        let read = check.soon(what, reader).await?;
        let read = check.ok("a task", read)?;
        check.ok("a read", read).map(drop)
    }

    /// A writer waits for a reader that is slow, and nothing is lost of what it has written.
    async fn back_pressure(&self) -> Result<(), Violation> {
        let check = Check("back-pressure");
        let (mut one, mut other) = self.pipes(check).await?;
        let sent = pattern(1 << 16);
        let written = fill(check, &mut one.write, &sent).await?;
        let mut received = 0_usize;
        let mut buffer = vec![0; 1 << 16];
        let end = one.write.shutdown();
        let mut end = pin!(end);
        let mut ended = false;
        let drain = async {
            loop {
                tokio::select! {
                    result = &mut end, if !ended => {
                        check.ok("a shutdown behind what waits", result)?;
                        ended = true;
                    }
                    read = other.read.read(&mut buffer) => match check.ok("a read", read)? {
                        0 => return Ok::<_, Violation>(()),
                        len => {
                            let good = (0..len).all(|i| buffer.get(i) == sent.get((received + i) % sent.len()));
                            check.that(good, || format!("bytes after the first {received} are not those that were sent"))?;
                            received += len;
                        }
                    },
                }
            }
        };
        check.soon("the rest of what was written", drain).await??;
        check.that(received == written, || {
            format!("{written} bytes were written and {received} received")
        })
    }

    /// Dropping both halves ends the link for the peer.
    async fn dropped_link(&self) -> Result<(), Violation> {
        let check = Check("dropped link");
        let (one, mut other) = self.pipes(check).await?;
        drop(one);
        check.soon("the end of a link that the peer has dropped", ends(&mut other)).await
    }
}

impl Bound {
    async fn incoming(&mut self, check: Check) -> Result<p2p_core::Incoming, Violation> {
        loop {
            let event = self.listener.next().await;
            if let Some(incoming) = self.check_event(check, event)? {
                return Ok(incoming);
            }
        }
    }

    fn check_event(
        &self,
        check: Check,
        event: Result<ListenEvent, TransportError>,
    ) -> Result<Option<p2p_core::Incoming>, Violation> {
        match check.ok("a listener", event)? {
            ListenEvent::Incoming(incoming) => Ok(Some(incoming)),
            ListenEvent::Failed(error) => Err(check.seen(format!("an accept fails: {error}"))),
            ListenEvent::AddrAdded(_) | ListenEvent::AddrRemoved(_) | _ => Ok(None),
        }
    }
}

/// Waits until nothing comes of a link any more.
async fn ends(pipe: &mut Pipe) {
    let mut buffer = [0; 1024];
    while let Ok(1..) = pipe.read.read(&mut buffer).await {}
}

/// Writes `data` over and over until the pipe takes no more. Gives how many bytes it has taken.
async fn fill(
    check: Check,
    write: &mut (dyn tokio::io::AsyncWrite + Unpin + Send),
    data: &[u8],
) -> Result<usize, Violation> {
    let mut written = 0;
    while written < UNREAD_MAX {
        let piece = data.get(written % data.len()..).unwrap_or(data);
        match timeout(STILL, write.write(piece)).await {
            Ok(result) => written += check.ok("a write", result)?,
            Err(_) => return Ok(written),
        }
    }
    Err(check.seen(format!("it takes {written} bytes that nobody reads")))
}
