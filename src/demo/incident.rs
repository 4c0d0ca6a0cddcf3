//! What goes wrong with the wallet of a demo in the middle of the burst, and who makes it so: for a few seconds it closes every
//! connection ([`super::outage`]), or bears no more than a part of the pace ([`super::brownout`]).
//!
//! What holds: the wallet is put right again whatever becomes of the run, so that the audit can ask it; how the breaker stood
//! meanwhile is written down by one clock. Absent: judgement; a run is good if every request was paid once, whatever went wrong.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hyper::StatusCode;
use serde::Serialize;

use super::client::{Connection, Halt};
use super::meter::Meter;
use super::outage::{calls_while_open, received};
use super::{brownout, outage};
use crate::app::breaker::Sight;
use crate::app::now_ms;
use crate::breaker::Phase;
use crate::domain::UnixMs;

/// How often it is looked how the breaker stands.
const LOOK: Duration = Duration::from_millis(5);
/// What a wallet that is browned out bears of the pace, in percent.
const BROWNOUT_PERCENT: u64 = 50;

/// Where a run stands, as far as an incident must know.
#[derive(Default)]
pub struct Progress {
    pub burst_at: Cell<Option<Instant>>,
    pub is_over: Cell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Outage,
    /// So many transfers a second are carried out, and no more.
    Brownout {
        per_s: u64,
    },
}

impl Kind {
    pub fn brownout(pace_per_s: u64) -> Kind {
        Kind::Brownout { per_s: (pace_per_s * BROWNOUT_PERCENT / 100).max(1) }
    }
}

/// What is to happen.
pub struct Incident {
    pub kind: Kind,
    pub wallet: SocketAddr,
    /// From the beginning of the burst.
    pub after: Duration,
    pub length: Duration,
    pub halt: Halt,
    /// It happens now.
    pub is_on: Arc<AtomicBool>,
}

/// The breaker from one moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Turn {
    pub at_ms: u64,
    pub to: &'static str,
}

/// What happened; times since the run's start.
#[derive(Clone, Debug)]
pub struct Ridden {
    pub(super) kind: Kind,
    pub(super) began: Duration,
    /// The same, as the doors tell their times.
    pub(super) began_at: UnixMs,
    pub(super) ended: Duration,
    pub(super) turns: Vec<Turn>,
    pub(super) calls_while_open: u64,
    pub(super) tries: u64,
}

pub(super) fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

impl Incident {
    /// Whether the wallet is browned out now, if it ever is.
    pub fn brownout(&self) -> Option<Arc<AtomicBool>> {
        matches!(self.kind, Kind::Brownout { .. }).then(|| self.is_on.clone())
    }

    /// Makes it in its time and looks on until the run is over; none where it was over before.
    pub async fn make(
        &self,
        since: Instant,
        progress: &Progress,
        sight: &Sight,
    ) -> anyhow::Result<Option<Ridden>> {
        let mut wallet = Connection::new(self.wallet, self.halt.clone());
        let mut turns = vec![Turn { at_ms: 0, to: Phase::Closed.as_str() }];
        let (mut began, mut ended, mut tries_before) = (None, None, 0);
        while !progress.is_over.get() && !self.halt.is_set() {
            let (at, phase) = (since.elapsed(), sight.phase());
            if turns.last().is_some_and(|last| last.to != phase.as_str()) {
                turns.push(Turn { at_ms: ms(at), to: phase.as_str() });
            }
            let is_due = progress.burst_at.get().is_some_and(|burst_at| burst_at.elapsed() >= self.after);
            match (began, ended) {
                (None, _) if is_due => {
                    tries_before = sight.tries();
                    began = Some((since.elapsed(), now_ms()));
                    self.begin(&mut wallet).await?;
                }
                (Some((began, _)), None) if at >= began + self.length => {
                    self.end(&mut wallet).await?;
                    ended = Some(since.elapsed());
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
        let Some((began, began_at)) = began else { return Ok(None) };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                self.end(&mut wallet).await?;
                since.elapsed()
            }
        };
        let (received, ahead_ms) = received(&mut wallet, since).await?;
        let calls_while_open = calls_while_open(&received, ahead_ms, &turns, ms(since.elapsed()));
        let tries = sight.tries() - tries_before;
        Ok(Some(Ridden { kind: self.kind, began, began_at, ended, turns, calls_while_open, tries }))
    }

    pub(super) async fn begin(&self, wallet: &mut Connection) -> anyhow::Result<()> {
        self.is_on.store(true, Ordering::Relaxed);
        self.set(wallet, true).await
    }

    pub(super) async fn end(&self, wallet: &mut Connection) -> anyhow::Result<()> {
        let ended = self.set(wallet, false).await;
        self.is_on.store(false, Ordering::Relaxed);
        ended
    }

    async fn set(&self, wallet: &mut Connection, is_on: bool) -> anyhow::Result<()> {
        let faults = match (self.kind, is_on) {
            (Kind::Outage, _) => format!(r#"{{"drop_before_rate":{}}}"#, u8::from(is_on)),
            (Kind::Brownout { per_s }, true) => format!(r#"{{"capacity_per_s":{per_s}}}"#),
            (Kind::Brownout { .. }, false) => r#"{"capacity_per_s":null}"#.to_owned(),
        };
        let answer = wallet.put("/faults", faults).await.context("the wallet's faults")?.answer;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == StatusCode::OK, "the wallet refuses the fault: {} {text}", answer.status);
        Ok(())
    }
}

impl Ridden {
    /// For the summary: what it was.
    pub(super) fn reports(
        &self,
        meter: &Meter,
        pace_per_s: u64,
    ) -> (Option<outage::Report>, Option<brownout::Report>) {
        match self.kind {
            Kind::Outage => (Some(outage::Report::of(self, meter, pace_per_s)), None),
            Kind::Brownout { per_s } => (None, Some(brownout::Report::of(self, per_s, meter, pace_per_s))),
        }
    }

    pub fn began_at(&self) -> UnixMs {
        self.began_at
    }

    /// When the breaker was first seen to become so, in ms from a time on.
    pub(super) fn first(&self, to: &str, from: Duration) -> Option<u64> {
        let turn = self.turns.iter().find(|turn| turn.to == to && turn.at_ms >= ms(from));
        turn.map(|turn| turn.at_ms - ms(from))
    }
}
