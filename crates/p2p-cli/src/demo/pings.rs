use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use p2p::ping::Pinger;
use tokio::{task::JoinSet, time::sleep};

use crate::{failure::Failure, round_trips::RoundTrips};

/// How long the ping stream is silent between two pings while other streams are busy.
const PAUSE: Duration = Duration::from_millis(1);

/// The ping stream, used here or by a task that pings while something else goes on.
#[derive(Debug)]
pub(super) struct Pings {
    pinger: Option<Pinger>,
    /// At most one task, which gives the pinger back.
    task: JoinSet<Result<(Pinger, RoundTrips), Failure>>,
    enough: Arc<AtomicBool>,
}

impl Pings {
    pub(super) fn new(pinger: Pinger) -> Self {
        Self { pinger: Some(pinger), task: JoinSet::new(), enough: Arc::default() }
    }

    pub(super) async fn ping(&mut self) -> Result<Duration, Failure> {
        let pinger =
            self.pinger.as_mut().ok_or_else(|| Failure::new("the ping stream is in use"))?;
        Ok(pinger.ping().await?)
    }

    /// Pings `count` times in a row.
    pub(super) async fn take(&mut self, count: usize) -> Result<RoundTrips, Failure> {
        let mut trips = RoundTrips::default();
        for _ in 0..count {
            trips.push(self.ping().await?);
        }
        Ok(trips)
    }

    /// Begins to ping again and again, at least once.
    pub(super) fn begin(&mut self) {
        let Some(mut pinger) = self.pinger.take() else { return };
        self.enough.store(false, Ordering::Relaxed);
        let enough = Arc::clone(&self.enough);
        self.task.spawn(async move {
            let mut trips = RoundTrips::default();
            loop {
                trips.push(pinger.ping().await?);
                if enough.load(Ordering::Relaxed) {
                    return Ok((pinger, trips));
                }
                sleep(PAUSE).await;
            }
        });
    }

    /// Ends what [`Pings::begin`] began, and gives what was measured.
    pub(super) async fn end(&mut self) -> Result<RoundTrips, Failure> {
        self.enough.store(true, Ordering::Relaxed);
        let Some(done) = self.task.join_next().await else { return Ok(RoundTrips::default()) };
        let (pinger, trips) =
            done.map_err(|error| Failure::new(format!("the ping task failed: {error}")))??;
        self.pinger = Some(pinger);
        Ok(trips)
    }
}
