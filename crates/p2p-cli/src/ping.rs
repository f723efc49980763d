use std::time::Duration;

use p2p::{Host, Multiaddr, ping::Pinger};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::{
    args::PingArgs,
    failure::{Failure, within},
    output::Output,
    peer,
    round_trips::{RoundTrips, micros, millis},
    stop::Stop,
};

pub(crate) async fn run(args: &PingArgs, out: &Output, stop: &Stop) -> Result<u8, Failure> {
    let host = peer::dialer(args.peer.timeout, None).await?;
    let mut pings = Pings { answered: RoundTrips::default(), sent: 0, out };
    let result = tokio::select! {
        biased;
        _ = stop.requested() => Ok(()),
        result = pings.run(&host, args) => result,
    };
    let result = result.and_then(|()| pings.sum_up(&args.peer.addr));
    host.close().await;
    result.map(|()| 0)
}

struct Pings<'a> {
    answered: RoundTrips,
    /// Pings that were answered or lost; one that was interrupted is neither.
    sent: u32,
    out: &'a Output,
}

impl Pings<'_> {
    async fn run(&mut self, host: &Host, args: &PingArgs) -> Result<(), Failure> {
        peer::connect(host, &args.peer.addr, self.out).await?;
        let mut pinger = host.pinger(&args.peer.addr).map_err(Failure::from)?;
        while self.sent < args.count {
            let next = Instant::now() + args.interval;
            let answer = answer(&mut pinger, args.peer.timeout).await;
            self.sent += 1;
            self.tell(answer);
            if self.sent < args.count {
                sleep_until(next).await;
            }
        }
        Ok(())
    }

    fn tell(&mut self, answer: Result<Duration, Failure>) {
        let seq = self.sent;
        match answer {
            Ok(time) => {
                self.answered.push(time);
                let fields = [("seq", json!(seq)), ("rtt_us", micros(time))];
                self.out.event("ping", &fields, format_args!("ping {seq}: {}", millis(time)));
            }
            Err(failure) => {
                let message = failure.one_line();
                let fields = [("seq", json!(seq)), ("message", json!(message))];
                self.out.event("lost", &fields, format_args!("ping {seq}: lost: {message}"));
            }
        }
    }

    fn sum_up(&self, addr: &Multiaddr) -> Result<(), Failure> {
        let (sent, answered) = (self.sent, self.answered.len());
        let lost = usize::try_from(sent).unwrap_or(usize::MAX) - answered;
        let mut fields =
            vec![("sent", json!(sent)), ("answered", json!(answered)), ("lost", json!(lost))];
        let mut text = format!("{sent} sent, {answered} answered, {lost} lost");
        if let Some(spread) = self.answered.spread() {
            fields.extend(spread.fields());
            text += &format!("; {spread}");
        }
        self.out.event("summary", &fields, text);
        let cause = match (lost, answered) {
            (0, 0) => "interrupted before the first answer".to_owned(),
            (0, _) => return Ok(()),
            (lost, _) => format!("{lost} of {sent} pings were lost"),
        };
        Err(Failure::new(cause).tried(addr.to_string()))
    }
}

async fn answer(pinger: &mut Pinger, limit: Duration) -> Result<Duration, Failure> {
    within(limit, "the ping", async { pinger.ping().await.map_err(Failure::from) }).await
}
