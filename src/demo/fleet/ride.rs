//! The outage before a fleet: the wallet goes down in the middle of the burst, and every instance is asked when it stops.
//!
//! What holds: an instance counts as stopped when its `GET /readyz` first says that it sends nothing, so the time told is never
//! shorter than the true one; the wallet is put right again whatever becomes of the run.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use super::super::client::Connection;
use super::super::outage::{Outage, set};
use super::Run;
use crate::breaker::Phase;

/// How often every instance is asked from the beginning of the outage until it has stopped.
const ASK_EVERY: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(5);

/// What happened; times since the run's start.
pub struct Ride {
    pub began: Duration,
    pub ended: Duration,
    /// By instance.
    stopped: Vec<Option<Duration>>,
}

impl Ride {
    /// From the first that stopped to the last; none where one did not.
    pub fn spread(&self) -> Option<Duration> {
        let stopped: Option<Vec<Duration>> = self.stopped.iter().copied().collect();
        let stopped = stopped?;
        Some(*stopped.iter().max()? - *stopped.iter().min()?)
    }
}

#[derive(Deserialize)]
struct Ready {
    breaker: String,
}

impl Run {
    /// Makes the outage in its time; none where the run was over before.
    pub(super) async fn ride(&self, outage: &Outage) -> anyhow::Result<Option<Ride>> {
        let is_due = || self.progress.burst_at.get().is_some_and(|at| at.elapsed() >= outage.after);
        while !is_due() {
            if self.is_ending() {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
        }
        let mut wallet = Connection::new(outage.wallet, self.halt.clone());
        let (began, is_over) = (self.began.elapsed(), Cell::new(false));
        let down = async {
            let taken_down = set(&mut wallet, true).await;
            while taken_down.is_ok() && self.began.elapsed() < began + outage.length && !self.is_ending() {
                tokio::time::sleep(LOOK).await;
            }
            let put_right = set(&mut wallet, false).await;
            is_over.set(true);
            taken_down.and(put_right)
        };
        let (asked, down) = tokio::join!(self.ask_all(&is_over), down);
        down?;
        Ok(Some(Ride { began, ended: self.began.elapsed(), stopped: asked }))
    }

    fn is_ending(&self) -> bool {
        self.progress.is_over.get() || self.halt.is_set()
    }

    /// When each instance stopped.
    async fn ask_all(&self, is_over: &Cell<bool>) -> Vec<Option<Duration>> {
        let mut left: Vec<(usize, Connection)> =
            self.doors.iter().map(|door| self.connect(*door)).enumerate().collect();
        let mut stopped = vec![None; left.len()];
        while !is_over.get() && !left.is_empty() {
            let mut still = Vec::with_capacity(left.len());
            for (index, mut door) in left {
                // One that does not answer is asked again.
                match sends(&mut door).await {
                    Ok(false) => stopped[index] = Some(self.began.elapsed()),
                    Ok(true) | Err(_) => still.push((index, door)),
                }
            }
            left = still;
            tokio::time::sleep(ASK_EVERY).await;
        }
        stopped
    }

    fn connect(&self, door: SocketAddr) -> Connection {
        Connection::new(door, self.halt.clone())
    }
}

/// Whether an instance sends, by its own word.
async fn sends(door: &mut Connection) -> anyhow::Result<bool> {
    let answer = door.get("/readyz").await?.answer;
    let ready: Ready = serde_json::from_slice(&answer.body).context("/readyz")?;
    Ok(ready.breaker == Phase::Closed.as_str())
}
