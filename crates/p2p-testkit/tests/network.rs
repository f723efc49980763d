//! The simulated network behaves as TCP does, and takes the same course in every run of a seed.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{future::Future, io::ErrorKind, time::Duration};

use p2p_core::{
    DialTarget, Link as CoreLink, ListenEvent, Listener, Pipe, Transport, TransportError,
};
use p2p_testkit::network::{Link, Machine, Network, for_each_seed, run};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, advance, sleep, timeout},
};

const MS: fn(u64) -> Duration = Duration::from_millis;

struct Case {
    network: Network,
    a: Machine,
    b: Machine,
    listener: Box<dyn Listener>,
}

impl Case {
    /// Two machines with 10 ms between them; `b` listens on port 4001.
    async fn new(network: Network) -> Self {
        let (a, b) = (network.machine(), network.machine());
        let listener = b.transport().listen(b.addr(4001)).await.unwrap();
        Self { network, a, b, listener }
    }

    async fn dial(&self, port: u16) -> Result<Pipe, TransportError> {
        let target = DialTarget::new(self.b.addr(port), None);
        self.a.transport().dial(target).await.map(pipe)
    }

    async fn accept(&mut self) -> Pipe {
        let ListenEvent::Incoming(incoming) = self.listener.next().await.unwrap() else {
            panic!("no link");
        };
        pipe(incoming.link().await.unwrap())
    }

    async fn pair(&mut self) -> (Pipe, Pipe) {
        let ours = self.dial(4001).await.unwrap();
        (ours, self.accept().await)
    }
}

fn pipe(link: CoreLink) -> Pipe {
    let CoreLink::Pipe(pipe) = link else { panic!("no pipe") };
    pipe
}

fn kind(error: &TransportError) -> ErrorKind {
    let TransportError::Dial { source, .. } = error else { panic!("{error}") };
    source.kind()
}

fn with_case<F: Future<Output = ()>>(test: impl FnOnce(Case) -> F) {
    run(1, |network| async { test(Case::new(network).await).await });
}

#[test]
fn bytes_arrive_in_order_after_the_latency_and_each_direction_ends_by_itself() {
    with_case(|mut case| async move {
        let begun = Instant::now();
        let (mut a, mut b) = case.pair().await;
        assert_eq!(begun.elapsed(), MS(20), "a round trip");
        a.write.write_all(b"hello").await.unwrap();
        a.write.shutdown().await.unwrap();
        let mut text = String::new();
        b.read.read_to_string(&mut text).await.unwrap();
        assert_eq!((text.as_str(), begun.elapsed()), ("hello", MS(30)));
        assert_eq!(b.read.read(&mut [0]).await.unwrap(), 0, "the end stays the end");
        b.write.write_all(b"you too").await.unwrap();
        drop(b);
        text.clear();
        a.read.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "you too");
        let error = a.write.write_all(b"more").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        drop(a);
        assert_eq!((case.network.connections(), case.network.buffered()), (0, 0));
    });
}

#[test]
fn a_port_refuses_an_address_does_not_answer_and_a_nat_lets_nobody_in() {
    with_case(|mut case| async move {
        let begun = Instant::now();
        let error = case.dial(9).await.unwrap_err();
        assert_eq!((kind(&error), begun.elapsed()), (ErrorKind::ConnectionRefused, MS(20)));
        let nowhere = DialTarget::new("/ip4/10.9.9.9/tcp/1".parse().unwrap(), None);
        let error = case.a.transport().dial(nowhere).await.unwrap_err();
        assert_eq!(kind(&error), ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(61));
        case.b.set_nat(true);
        assert_eq!(kind(&case.dial(4001).await.unwrap_err()), ErrorKind::TimedOut);
        let listener = case.a.transport().listen(case.a.addr(1)).await.unwrap();
        let outward = DialTarget::new(case.a.addr(1), None);
        assert!(case.b.transport().dial(outward).await.is_ok(), "outward it leads");
        drop(listener);
        case.b.set_nat(false);
        case.pair().await;
    });
}

#[test]
fn what_is_sent_into_a_cut_comes_when_it_is_healed() {
    with_case(|mut case| async move {
        let (mut a, mut b) = case.pair().await;
        a.write.write_all(b"before").await.unwrap();
        sleep(MS(10)).await;
        case.network.cut(&case.a, &case.b);
        a.write.write_all(b" after").await.unwrap();
        let mut text = [0; 12];
        b.read.read_exact(&mut text[..6]).await.unwrap();
        let rest = timeout(Duration::from_secs(15), b.read.read_exact(&mut text[6..])).await;
        assert!(rest.is_err(), "it passed the cut");
        case.network.heal(&case.a, &case.b);
        b.read.read_exact(&mut text[6..]).await.unwrap();
        assert_eq!(&text, b"before after");
    });
}

#[test]
fn a_side_that_is_not_answered_for_20_s_has_failed_and_the_other_learns_of_it_by_writing() {
    with_case(|mut case| async move {
        let (mut a, mut b) = case.pair().await;
        case.network.cut(&case.a, &case.b);
        a.write.write_all(b"lost").await.unwrap();
        let begun = Instant::now();
        let error = a.read.read(&mut [0]).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (ErrorKind::TimedOut, 20));
        drop(a);
        case.network.heal_all();
        let unheard = timeout(Duration::from_secs(1000), b.read.read(&mut [0])).await;
        assert!(unheard.is_err(), "half open");
        b.write.write_all(b"still there?").await.unwrap();
        let error = b.read.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        drop(b);
        assert_eq!(case.network.connections(), 0);
    });
}

#[test]
fn a_crash_resets_and_what_was_not_sent_yet_is_lost() {
    with_case(|mut case| async move {
        case.network.set_default_link(Link::new().bandwidth(16_384_000));
        let (mut a, mut b) = case.pair().await;
        // It takes 10 ms to be sent; half of it is when the machine crashes.
        a.write.write_all(&[7; 163_840]).await.unwrap();
        advance(MS(5)).await;
        case.a.crash();
        assert_eq!(a.write.write(b"more").await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
        let mut data = Vec::new();
        let error = b.read.read_to_end(&mut data).await.unwrap_err();
        assert_eq!((error.kind(), data.len()), (ErrorKind::ConnectionReset, 81_920));
    });
}

#[test]
fn a_crash_frees_ports_and_ends_what_is_of_the_life_before() {
    with_case(|mut case| async move {
        let before = case.b.transport();
        case.b.crash();
        assert!(case.listener.next().await.is_err());
        assert_eq!(kind(&case.dial(4001).await.unwrap_err()), ErrorKind::ConnectionRefused);
        assert!(before.listen(case.b.addr(4001)).await.is_err());
        let after = case.b.transport().listen(case.b.addr(4001)).await.unwrap();
        let former = std::mem::replace(&mut case.listener, after);
        drop(former);
        case.pair().await;
    });
}

#[test]
fn closing_with_unread_data_resets_and_closing_without_ends() {
    with_case(|mut case| async move {
        let (mut a, b) = case.pair().await;
        a.write.write_all(b"unread").await.unwrap();
        drop(b);
        let error = a.read.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let (mut a, b) = case.pair().await;
        drop(b);
        assert_eq!(a.read.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn a_reset_link_fails_both_ends() {
    with_case(|mut case| async move {
        let (mut a, mut b) = case.pair().await;
        case.network.reset(&case.a, &case.b);
        for end in [&mut a, &mut b] {
            let error = end.read.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn bandwidth_is_shared_by_connections() {
    with_case(|mut case| async move {
        case.network.set_default_link(Link::new().latency(MS(1)).bandwidth(10_000));
        let (mut a, mut b) = case.pair().await;
        let (mut c, mut d) = case.pair().await;
        let begun = Instant::now();
        a.write.write_all(&[1; 10_000]).await.unwrap();
        c.write.write_all(&[2; 10_000]).await.unwrap();
        let mut data = vec![0; 10_000];
        b.read.read_exact(&mut data).await.unwrap();
        assert_eq!(begun.elapsed(), MS(1001));
        d.read.read_exact(&mut data).await.unwrap();
        assert_eq!(begun.elapsed(), MS(2001));
    });
}

#[test]
fn writing_waits_while_the_buffer_is_full_and_slow_readers_keep_it_full() {
    with_case(|mut case| async move {
        case.network.set_default_link(Link::new().buffer(1000));
        let (mut a, mut b) = case.pair().await;
        assert_eq!(a.write.write(&[1; 5000]).await.unwrap(), 1000);
        assert!(timeout(Duration::from_secs(9), a.write.write(&[1])).await.is_err());
        assert_eq!(case.network.buffered(), 1000);
        case.b.set_read_rate(Some(10_000));
        let begun = Instant::now();
        let mut data = vec![0; 1000];
        b.read.read_exact(&mut data).await.unwrap();
        assert!((MS(80)..MS(110)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        a.write.write_all(&[2; 1000]).await.unwrap();
    });
}

#[test]
fn what_is_lost_comes_later_and_in_order_in_ragged_pieces() {
    run(1, |network| async move {
        network.set_default_link(Link::new().loss(300).jitter(MS(50)).ragged());
        let mut case = Case::new(network).await;
        let (mut a, mut b) = case.pair().await;
        let begun = Instant::now();
        let data: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0] ^ 0x5a).collect();
        a.write.write_all(&data).await.unwrap();
        a.write.shutdown().await.unwrap();
        let (mut received, mut pieces) = (Vec::new(), 0);
        while b.read.read_buf(&mut received).await.unwrap() > 0 {
            pieces += 1;
        }
        assert!(received == data);
        assert!(pieces > 5, "{pieces}");
        assert!(begun.elapsed() > MS(210), "nothing was lost: {:?}", begun.elapsed());
    });
}

#[test]
fn ports_are_taken_once_and_given_out() {
    with_case(|case| async move {
        let transport = case.b.transport();
        let port_0 = "/ip4/0.0.0.0/tcp/0".parse().unwrap();
        assert!(transport.listen(case.b.addr(4001)).await.is_err(), "in use");
        assert!(transport.listen(case.a.addr(4001)).await.is_err(), "somebody else's");
        let chosen = transport.listen(port_0).await.unwrap();
        assert_eq!(chosen.addrs(), [case.b.addr(4002)]);
        drop(case.listener);
        assert!(transport.listen(case.b.addr(4001)).await.is_ok());
    });
}

#[test]
fn connections_that_nobody_accepts_wait_up_to_the_backlog_and_are_reset_with_the_listener() {
    with_case(|case| async move {
        let mut waiting = Vec::new();
        for _ in 0..128 {
            waiting.push(case.dial(4001).await.unwrap());
        }
        assert_eq!(kind(&case.dial(4001).await.unwrap_err()), ErrorKind::TimedOut);
        drop(case.listener);
        let error = waiting[0].read.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        drop(waiting);
        assert_eq!(case.network.connections(), 0);
    });
}

#[test]
fn a_dial_that_is_dropped_leaves_nothing() {
    with_case(|mut case| async move {
        for after in 0..25 {
            drop(timeout(MS(after), case.dial(4001)).await);
        }
        while timeout(MS(100), case.accept()).await.is_ok() {}
        assert_eq!((case.network.connections(), case.network.buffered()), (0, 0));
    });
}

#[test]
fn a_seed_that_fails_is_named_with_how_to_run_it_alone() {
    let failing = || {
        for_each_seed(0..40, |network| async move {
            assert_ne!(network.seed(), 23, "an unlucky number");
        })
    };
    let panic = std::panic::catch_unwind(failing).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.starts_with("seed 23 failed: "), "{text}");
    assert!(text.contains("an unlucky number"), "{text}");
    assert!(text.ends_with("P2P_SEED=23 cargo test"), "{text}");
}

#[test]
#[should_panic(expected = "within a day of virtual time")]
fn a_scenario_that_hangs_fails_at_once() {
    run(1, |_| std::future::pending::<()>());
}

/// The trace is of bytes and of times: each makes another one.
#[test]
fn the_trace_tells_seeds_bytes_and_times_apart() {
    let trace = |seed, text: &'static [u8], after| {
        let outcome = run(seed, |network| async move {
            network.set_default_link(Link::new().jitter(MS(9)));
            let mut case = Case::new(network).await;
            let (mut a, mut b) = case.pair().await;
            sleep(MS(after)).await;
            a.write.write_all(text).await.unwrap();
            b.read.read_exact(&mut [0; 5]).await.unwrap();
        });
        assert_eq!(outcome.tasks, 0);
        outcome.trace_hash
    };
    let first = trace(1, b"hello", 0);
    assert_eq!(trace(1, b"hello", 0), first);
    assert_ne!(trace(2, b"hello", 0), first);
    assert_ne!(trace(1, b"hallo", 0), first);
    assert_ne!(trace(1, b"hello", 1), first);
}
