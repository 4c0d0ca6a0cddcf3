//! The onlooker: samples the running service and keeps the screen up to date.
//!
//! It reads counters that the service keeps anyway and takes no part in anything. Absent: judgement.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::client::Halt;
use super::incident::Incident;
use super::meter::{Meter, Sample};
use super::picture::Scene;
use super::screen::Screen;
use super::tally::Tally;
use crate::app::Running;
use crate::app::breaker::Sight;
use crate::domain::Status;

const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// What a picture needs to know of the run besides the samples.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub packets: u64,
    pub wallet_per_s: u64,
    pub expected: Duration,
}

pub struct Watch<'a> {
    pub service: &'a Running,
    pub tally: &'a Tally,
    pub plan: Plan,
    pub halt: Halt,
    /// All times of the run count from here.
    pub began: Instant,
    /// Of the breaker, where the wallet is elsewhere.
    pub sight: Option<Sight>,
    /// Whether the wallet is browned out now, where it will be.
    brownout: Option<Arc<AtomicBool>>,
    doing: Mutex<&'static str>,
    ended: AtomicBool,
}

/// Final outcomes so far: all, succeeded, failed.
pub fn outcomes(service: &Running) -> (u64, u64, u64) {
    let count =
        |status: Status| service.pipeline().settled.by_status[status as usize - 1].load(Ordering::Relaxed);
    let succeeded = count(Status::Succeeded);
    let failed = count(Status::Failed) + count(Status::Canceled) + count(Status::Expired);
    (succeeded + failed, succeeded, failed)
}

impl<'a> Watch<'a> {
    pub fn new(service: &'a Running, tally: &'a Tally, plan: Plan, halt: Halt) -> Watch<'a> {
        Watch {
            service,
            tally,
            plan,
            halt,
            began: Instant::now(),
            sight: service.breaker(),
            brownout: None,
            doing: Mutex::new("starting"),
            ended: AtomicBool::new(false),
        }
    }

    /// Looks at what goes wrong with the wallet, too.
    pub fn with(self, incident: Option<&Incident>) -> Watch<'a> {
        Watch { brownout: incident.and_then(Incident::brownout), ..self }
    }

    pub fn now_doing(&self, what: &'static str) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Looks on until told to end; halts the run if the service fails.
    pub fn look(&self, mut screen: Screen) -> Meter {
        let began = self.began;
        let mut meter = Meter::default();
        let mut next = began;
        loop {
            let ended = self.ended.load(Ordering::Acquire);
            let now = Instant::now();
            meter.add(self.sample(now - began));
            let counts = self.tally.counts();
            let (_, succeeded, failed) = outcomes(self.service);
            let Plan { packets, wallet_per_s, expected } = self.plan;
            let doing = *self.doing.lock().unwrap_or_else(PoisonError::into_inner);
            let meter_now = &meter;
            let scene = Scene {
                meter: meter_now,
                counts: &counts,
                packets,
                wallet_per_s,
                succeeded,
                failed,
                expected,
                doing,
            };
            screen.show(now, &scene);
            if self.service.poison().is_set() {
                self.halt.set();
            }
            if ended {
                return meter;
            }
            next += SAMPLE_EVERY;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn sample(&self, at: Duration) -> Sample {
        let load = self.service.load();
        let (settled, _, _) = outcomes(self.service);
        Sample {
            at,
            accepted: load.accepted,
            settled,
            backlog: load.backlog + load.parked,
            drain_per_s: load.drain_per_s,
            breaker: self.sight.as_ref().map(Sight::phase),
            is_brown: self.brownout.as_ref().map(|is_on| is_on.load(Ordering::Relaxed)),
            ..Sample::default()
        }
    }
}
