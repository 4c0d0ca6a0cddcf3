//! What goes wrong with the wallet of a demo in the middle of the burst, and who makes it so: for a few seconds it closes every
//! connection ([`super::outage`]), or bears no more than a part of the pace ([`super::brownout`]).
//!
//! What holds: the wallet is put right again whatever becomes of the run, also where it could not be said that it became ill, so
//! that the audit can ask it; how the breaker stood meanwhile is written down by one clock. Absent: judgement; a run is good
//! if every request was paid once, whatever went wrong.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hyper::StatusCode;
use serde::Serialize;

use super::client::{Connection, Halt};
use super::meter::{Curve, Meter};
use super::outage::{calls_while_open, received};
use super::picture::{grouped, seconds};
use super::{brownout, outage};
use crate::app::breaker::Sight;
use crate::app::now_ms;
use crate::breaker::Phase;
use crate::domain::UnixMs;

/// How often it is looked how the breaker stands.
const LOOK: Duration = Duration::from_millis(5);
/// What a wallet that is browned out bears of the pace, in percent.
const BROWNOUT_PERCENT: u64 = 50;
/// So much of the pace is the full rate, in percent, over so long: replies that are lost cost a part of it.
const FULL_PERCENT: u64 = 90;
const FULL_OVER: Duration = Duration::from_secs(1);

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
    /// Of an outage, by the wallet's own count.
    pub(super) calls_while_open: u64,
    pub(super) tries: u64,
}

/// What is told of either, as it stands in the last line of `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Since the run's start.
    pub began_ms: u64,
    pub ended_ms: u64,
    /// After the end: nine tenths of the pace are used over a second.
    pub full_rate_after_ms: Option<u64>,
    pub backlog_before: u64,
    pub backlog_max: u64,
    /// How the breaker stood from when on.
    pub breaker: Vec<Turn>,
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
        let calls_while_open = self.calls_while_open(&mut wallet, &turns, since).await?;
        let tries = sight.tries() - tries_before;
        Ok(Some(Ridden { kind: self.kind, began, began_at, ended, turns, calls_while_open, tries }))
    }

    async fn calls_while_open(
        &self,
        wallet: &mut Connection,
        turns: &[Turn],
        since: Instant,
    ) -> anyhow::Result<u64> {
        match self.kind {
            Kind::Outage => {
                let (received, ahead_ms) = received(wallet, since).await?;
                Ok(calls_while_open(&received, ahead_ms, turns, ms(since.elapsed())))
            }
            Kind::Brownout { .. } => Ok(0),
        }
    }

    pub(super) async fn begin(&self, wallet: &mut Connection) -> anyhow::Result<()> {
        self.is_on.store(true, Ordering::Relaxed);
        let begun = self.set(wallet, true).await;
        if begun.is_err() {
            // Only the answer may be lost. Why it could not begin says more than why it could not end either.
            let _ = self.end(wallet).await;
        }
        begun
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

    pub(super) fn report(&self, meter: &Meter, pace_per_s: u64) -> Report {
        let full_per_s = pace_per_s * FULL_PERCENT / 100;
        let full_at = meter.reaches(Curve::Settled, full_per_s, FULL_OVER, self.ended);
        Report {
            began_ms: ms(self.began),
            ended_ms: ms(self.ended),
            full_rate_after_ms: full_at.map(|at| ms(at - self.ended)),
            backlog_before: meter.backlog_at(self.began),
            backlog_max: meter.backlog_max(self.began),
            breaker: self.turns.clone(),
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

impl Report {
    /// For the summary: how long it lasted, and from when on.
    pub(super) fn times(&self) -> (String, String) {
        (told(self.ended_ms - self.began_ms), told(self.began_ms))
    }

    pub(super) fn backlog_words(&self) -> String {
        let (before, most) = (grouped(self.backlog_before), grouped(self.backlog_max));
        format!("             the backlog rose from {before} to {most}")
    }
}

pub(super) fn told(ms: u64) -> String {
    seconds(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    fn incident(kind: Kind, wallet: SocketAddr) -> Incident {
        let (after, length) = (Duration::ZERO, Duration::ZERO);
        Incident { kind, wallet, after, length, halt: Halt::default(), is_on: Arc::default() }
    }

    /// A wallet that answers each call of one connection with the next of these, and what it was asked.
    fn wallet(answers: &'static [&'static str]) -> (SocketAddr, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let answered = answers.iter().map(|answer| {
                let (mut asked, mut piece) = (String::new(), [0; 1_024]);
                while !asked.ends_with('}') {
                    let count = stream.read(&mut piece).unwrap();
                    assert!(count > 0, "closed after {asked:?}");
                    asked.push_str(&String::from_utf8_lossy(&piece[..count]));
                }
                write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").unwrap();
                asked
            });
            answered.collect()
        });
        (address, serving)
    }

    #[tokio::test]
    async fn a_wallet_that_may_have_become_ill_is_put_right_again() {
        for (kind, well) in [
            (Kind::Outage, r#"{"drop_before_rate":0}"#),
            (Kind::Brownout { per_s: 7 }, r#"{"capacity_per_s":null}"#),
        ] {
            let (address, serving) = wallet(&["400 Bad Request", "200 OK"]);
            let incident = incident(kind, address);
            let mut connection = Connection::new(address, Halt::default());
            let error = incident.begin(&mut connection).await.unwrap_err().to_string();
            assert!(error.contains("400"), "{error}");
            drop(connection);
            let asked = tokio::task::spawn_blocking(|| serving.join().unwrap()).await.unwrap();
            assert!(asked[1].ends_with(well), "{asked:?}");
            assert!(!incident.is_on.load(Ordering::Relaxed));
        }
    }

    #[tokio::test]
    async fn only_of_an_outage_is_the_wallet_asked_what_reached_it() {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // Whoever asks somebody who is not there gives up at once.
        let halt = Halt::default();
        halt.set();
        for (kind, asks) in [(Kind::Outage, true), (Kind::brownout(100), false)] {
            let mut connection = Connection::new(nobody, halt.clone());
            let counted = incident(kind, nobody).calls_while_open(&mut connection, &[], Instant::now()).await;
            assert_eq!(counted.is_err(), asks, "{kind:?}: {counted:?}");
        }
    }
}
