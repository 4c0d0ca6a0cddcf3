//! The onlooker: reads the counters of every instance and the history of the breaker's board, and keeps the screen up to date.
//!
//! What holds: how the breaker stood is what the board remembers of it, to the millisecond of its own clock, and not what a look
//! happened to see. Absent: taking part.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::super::client::Connection;
use super::super::incident::{Turn, ms};
use super::super::meter::{Meter, Sample};
use super::super::screen::Screen;
use super::Run;
use super::gauges::Gauges;
use super::instances::Instances;
use crate::breaker::board::View;
use crate::breaker::policy::PHASES;
use crate::breaker::{Phase, RedisBoard};
use crate::config::Config;
use crate::intake::redis::keys;
use crate::redis::Link;

const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// An instance that does not answer by then is looked at the next time.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What was seen so far.
pub struct Seen {
    pub meter: Meter,
    /// By instance, the newest.
    pub gauges: Vec<Gauges>,
    /// How the fleet's breaker stood from when on.
    pub turns: Vec<Turn>,
    /// Looks that got every instance's answer.
    pub look_count: u64,
}

impl Seen {
    pub fn new(count: usize) -> Seen {
        let turns = vec![Turn { at_ms: 0, to: Phase::Closed.as_str() }];
        Seen { meter: Meter::default(), gauges: vec![Gauges::default(); count], turns, look_count: 0 }
    }

    pub fn sum(&self) -> Gauges {
        self.gauges.iter().copied().fold(Gauges::default(), |sum, gauges| sum + gauges)
    }
}

/// The breaker's board, and what its clock is ahead of the run's.
pub struct Board {
    board: RedisBoard,
    ahead_ms: Option<(Duration, u64)>,
    since: Instant,
}

impl Board {
    pub fn open(config: &Config, since: Instant) -> anyhow::Result<Board> {
        let redis = config.redis.as_ref().context("the fleet's intake is not Redis")?;
        let key = keys::board(&redis.namespace, "breaker");
        let board = RedisBoard::new(Link::new(&redis.board)?, &key, config.breaker.clone());
        Ok(Board { board, ahead_ms: None, since })
    }

    /// What it shows now. The fastest answer tells its clock best.
    fn view(&mut self) -> Option<(View, u64)> {
        let asked = self.since.elapsed();
        // Where it is out of reach the instances say so; the next look asks again.
        let view = self.board.peek().ok().flatten()?;
        let took = self.since.elapsed() - asked;
        if self.ahead_ms.is_none_or(|(fastest, _)| took < fastest) {
            self.ahead_ms = Some((took, view.now_ms.saturating_sub(ms(asked + took / 2))));
        }
        let ahead_ms = self.ahead_ms?.1;
        Some((view, ahead_ms))
    }
}

/// The turns of a history, by the run's clock.
fn turns(view: &View, ahead_ms: u64) -> Vec<Turn> {
    let first = Turn { at_ms: 0, to: Phase::Closed.as_str() };
    let changes = view.state.history.iter().filter(|change| change.from != change.to);
    let later = changes.filter_map(|change| {
        let to = PHASES.into_iter().find(|phase| *phase == change.to)?;
        Some(Turn { at_ms: change.at_ms.saturating_sub(ahead_ms), to })
    });
    std::iter::once(first).chain(later).collect()
}

impl Run {
    /// Looks on until the run is over; an error if an instance has ended.
    pub(super) async fn look(
        &self,
        instances: &mut Instances,
        mut board: Board,
        mut screen: Screen,
    ) -> anyhow::Result<()> {
        let mut doors: Vec<Connection> =
            self.doors.iter().map(|door| Connection::new(*door, self.halt.clone())).collect();
        let mut next = Instant::now();
        loop {
            let is_last = self.progress.is_over.get();
            if let Some(fallen) = instances.fallen() {
                bail!(fallen);
            }
            let gauges = self.read(&mut doors).await;
            self.enter(gauges, board.view());
            screen.show(Instant::now(), &self.scene(&self.seen.borrow()));
            if is_last {
                return Ok(());
            }
            next += SAMPLE_EVERY;
            tokio::time::sleep_until(next.max(Instant::now()).into()).await;
        }
    }

    /// What every instance tells; nothing where one does not answer.
    async fn read(&self, doors: &mut [Connection]) -> Vec<Option<Gauges>> {
        let mut all = Vec::with_capacity(doors.len());
        for door in doors {
            let answer = tokio::time::timeout(ANSWER_MAX, door.get("/metrics")).await;
            all.push(match answer {
                Ok(Ok(settled)) => Some(Gauges::read(&String::from_utf8_lossy(&settled.answer.body))),
                Ok(Err(_)) | Err(_) => None,
            });
        }
        all
    }

    fn enter(&self, gauges: Vec<Option<Gauges>>, view: Option<(View, u64)>) {
        let mut seen = self.seen.borrow_mut();
        seen.look_count += u64::from(gauges.iter().all(Option::is_some));
        for (known, new) in seen.gauges.iter_mut().zip(gauges) {
            *known = new.unwrap_or(*known);
        }
        let sum = seen.sum();
        let phase = view.map_or(seen.meter.last().breaker, |(view, ahead_ms)| {
            seen.turns = turns(&view, ahead_ms);
            Some(view.state.phase)
        });
        seen.meter.add(Sample {
            at: self.began.elapsed(),
            offered: self.crowd.tally.counts().submitted,
            accepted: sum.accepted,
            sent: sum.sent,
            settled: sum.settled(),
            backlog: sum.accepted.saturating_sub(sum.settled()),
            drain_per_s: sum.drain_per_s,
            breaker: phase,
            is_brown: self.brownout.as_ref().map(|is_on| is_on.load(Ordering::Relaxed)),
        });
    }
}
