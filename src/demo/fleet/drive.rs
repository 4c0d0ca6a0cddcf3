//! The client's part before a fleet: what one instance is asked, asked of several doors.
//!
//! What holds: nothing begins before the instances share the work and all doors know the campaigns; it is over when nothing
//! waits anywhere and every door knows how the singles ended, whoever settled them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use serde::Deserialize;

use super::super::client::Connection;
use super::super::estimates::Errors;
use super::super::tally::latencies;
use super::Run;
use crate::config::Config;

/// So long may the instances take to share the work.
const SHARE_MAX: Duration = Duration::from_secs(60);
/// One that is not ready is asked anew after so long.
const READY_MAX: Duration = Duration::from_millis(500);
/// Settling that makes no progress for so long has failed.
const STALL_MAX: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// What the client side of a run learnt.
pub struct Driven {
    pub burst: (u64, Duration),
    pub durability: String,
    pub settle_us: Histogram<u64>,
    pub estimates: Errors,
}

/// The part of `GET /readyz` that is needed.
#[derive(Deserialize)]
struct Ready {
    units: String,
    fleet: String,
}

impl Run {
    /// The client's part, from the first campaign to the last look.
    pub(super) async fn drive(&self, config: &Config) -> anyhow::Result<Driven> {
        let crowd = &self.crowd;
        self.await_shared(config).await.context("waiting for the instances to share the work")?;
        let durability = crowd.open_campaigns().await.context("opening the campaigns")?;
        for door in &self.doors {
            crowd.await_campaigns(*door).await?;
        }
        self.doing.set("burst");
        self.progress.burst_at.set(Some(Instant::now()));
        let before = crowd.tally.counts().accepted;
        let took = crowd.clone().burst().await?;
        let burst = (crowd.tally.counts().accepted - before, took);
        let mut driven = Driven { burst, durability, settle_us: latencies(), estimates: Errors::default() };
        if self.halt.is_set() {
            return Ok(driven);
        }
        self.doing.set("settling");
        crowd.follow_up().await.context("collections and reversals")?;
        self.await_drained().await?;
        for door in &self.doors {
            crowd.await_told(*door).await.context("what each instance knows of the others' work")?;
        }
        if !self.halt.is_set() {
            driven.settle_us = crowd.settle_latency().await.context("how long settling took")?;
            driven.estimates = crowd.estimate_errors().await.context("how far off the estimates were")?;
        }
        Ok(driven)
    }

    /// The lists of an instance that knows of all others; none where it is not ready.
    async fn units(&self, door: SocketAddr) -> anyhow::Result<Option<usize>> {
        let mut connection = Connection::new(door, self.halt.clone());
        let Ok(answered) = tokio::time::timeout(READY_MAX, connection.get("/readyz")).await else {
            return Ok(None);
        };
        let ready: Ready = serde_json::from_slice(&answered?.answer.body).context("/readyz")?;
        let knows_all = ready.fleet.parse() == Ok(self.doors.len());
        Ok(ready.units.parse().ok().filter(|_| knows_all))
    }

    /// Waits until every instance has its part of the lists.
    async fn await_shared(&self, config: &Config) -> anyhow::Result<()> {
        let redis = config.redis.as_ref().context("the fleet's intake is not Redis")?;
        let (units, count) = (redis.units.len(), self.doors.len());
        let began = Instant::now();
        loop {
            let mut owned = Vec::with_capacity(count);
            for door in &self.doors {
                owned.push(self.units(*door).await?);
            }
            let sum: usize = owned.iter().flatten().sum();
            let is_even = owned.iter().all(|owned| owned.is_some_and(|owned| owned >= units / count));
            if (is_even && sum == units) || self.halt.is_set() {
                return Ok(());
            }
            ensure!(
                began.elapsed() < SHARE_MAX,
                "after {} s they own {owned:?} of {units} lists",
                SHARE_MAX.as_secs()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until nothing waits, neither in Redis nor in any instance.
    async fn await_drained(&self) -> anyhow::Result<()> {
        let (mut settled, mut moved_at) = (0, Instant::now());
        // What was seen before the last request was answered says nothing.
        let from = self.seen.borrow().look_count + 2;
        loop {
            let (sum, look_count) = {
                let seen = self.seen.borrow();
                (seen.sum(), seen.look_count)
            };
            let is_drained = sum.waiting == 0 && sum.settled() >= sum.accepted;
            if (is_drained && look_count >= from) || self.halt.is_set() {
                return Ok(());
            }
            if sum.settled() > settled {
                (settled, moved_at) = (sum.settled(), Instant::now());
            }
            ensure!(
                moved_at.elapsed() < STALL_MAX,
                "nothing was settled for {} s: {} of {} accepted are final, {} wait",
                STALL_MAX.as_secs(),
                sum.settled(),
                sum.accepted,
                sum.waiting
            );
            tokio::time::sleep(LOOK).await;
        }
    }
}
