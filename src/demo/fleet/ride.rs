//! What goes wrong with the wallet before a fleet, in the middle of the burst; where it goes down, every instance is asked when it
//! stops.
//!
//! What holds: an instance counts as stopped when its `GET /readyz` first says that it sends nothing, so the time told is never
//! shorter than the true one; the wallet is put right again whatever becomes of the run.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use super::super::client::Connection;
use super::super::incident::{Incident, Kind};
use super::Run;
use crate::app::now_ms;
use crate::breaker::Phase;
use crate::domain::UnixMs;

/// How often every instance is asked from the beginning of the outage until it has stopped.
const ASK_EVERY: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(5);

/// What happened; times since the run's start.
pub struct Ride {
    pub kind: Kind,
    pub began: Duration,
    /// The same, as the doors tell their times.
    pub began_at: UnixMs,
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
    /// Makes it in its time; none where the run was over before.
    pub(super) async fn ride(&self, incident: &Incident) -> anyhow::Result<Option<Ride>> {
        let is_due = || self.progress.burst_at.get().is_some_and(|at| at.elapsed() >= incident.after);
        while !is_due() {
            if self.is_ending() {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
        }
        let mut wallet = Connection::new(incident.wallet, self.halt.clone());
        let (began, began_at, is_over) = (self.began.elapsed(), now_ms(), Cell::new(false));
        let ill = async {
            let begun = incident.begin(&mut wallet).await;
            while begun.is_ok() && self.began.elapsed() < began + incident.length && !self.is_ending() {
                tokio::time::sleep(LOOK).await;
            }
            let ended = incident.end(&mut wallet).await;
            is_over.set(true);
            begun.and(ended)
        };
        let asking = async {
            match incident.kind {
                Kind::Outage => self.ask_all(&is_over).await,
                Kind::Brownout { .. } => Vec::new(),
            }
        };
        let (stopped, ill) = tokio::join!(asking, ill);
        ill?;
        Ok(Some(Ride { kind: incident.kind, began, began_at, ended: self.began.elapsed(), stopped }))
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
