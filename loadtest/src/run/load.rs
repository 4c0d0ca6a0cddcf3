//! The load and everything beside it, from the first call until nothing is open.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;

use super::{is_list, search};
use crate::check::Claim;
use crate::claims::{Claimed, Crowd};
use crate::follow::{self, FollowLive, Following, Followings};
use crate::generator::{self, Fate, Interval, LaneReport, Live, Outlets, Pace, Plan};
use crate::observe::{Watch, own_cpu_s};
use crate::record::{self, ACCEPT, Kind, Measure, RecordError, SETTLE};
use crate::result::SearchStep;
use crate::scenario::Scenario;
use crate::screen::Scene;
use crate::target::Target;
use crate::timeline::{self, Event};
use crate::traffic::{HttpHead, Place, Traffic};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks in a row at which nothing is open, before it is believed: gauges are a moment old.
const QUIET_LOOKS: u32 = 5;
/// Seen after the last was settled.
const TAIL: Duration = Duration::from_millis(500);

/// What the load is carried out with.
pub(super) struct Rig<'a> {
    pub scenario: &'a Scenario,
    pub target: Arc<Target>,
    pub traffic: Arc<Traffic>,
    pub folder: &'a Path,
    pub part: (u32, u32),
    pub epoch: Instant,
    pub begin: Instant,
    pub started: SystemTime,
    pub watch: Watch,
    pub live: Arc<Live>,
    pub scene: Arc<Scene>,
    pub stop: Arc<AtomicBool>,
    pub crowd: Option<Crowd<'a>>,
}

/// What came of it; times in seconds since the epoch.
pub(super) struct Loaded {
    pub lanes: Vec<LaneReport>,
    pub begin_s: f64,
    pub end_s: f64,
    pub drained_s: Option<f64>,
    pub watched_s: f64,
    pub accept: Measure,
    pub settle: Measure,
    pub followings: Followings,
    pub events: Vec<Event>,
    pub search: Vec<SearchStep>,
    pub generator_cores: f64,
    pub claimed: Option<(Claimed, Vec<Claim>)>,
}

impl Rig<'_> {
    fn since_epoch_s(&self) -> f64 {
        self.epoch.elapsed().as_secs_f64()
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A phase of the load.
    pub fn plan(&self, pace: Pace, begin: Instant, lane_first: u32) -> Arc<Plan> {
        let addresses = match self.target.redis.filter(|_| is_list(self.scenario)) {
            Some(redis) => vec![redis],
            None => self.target.instances.clone(),
        };
        let host = addresses.first().map_or_else(String::new, ToString::to_string);
        Arc::new(Plan {
            pace,
            traffic: self.traffic.clone(),
            load: self.scenario.load.clone(),
            settings: self.scenario.generator.clone(),
            head: HttpHead::new(&host, self.target.access.authorization.as_deref()),
            addresses,
            epoch: self.epoch,
            begin,
            part: self.part.0,
            parts: self.part.1,
            lane_first,
            live: self.live.clone(),
            stop: self.stop.clone(),
        })
    }

    fn show(&self) {
        let (settled, open) = self.watch.latest(|observed| observed.latest());
        self.scene.settled.store(settled, Ordering::Relaxed);
        self.scene.open.store(open, Ordering::Relaxed);
        let state = self.watch.latest(|observed| observed.wallet_state());
        *self.scene.wallet_state.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = state;
    }
}

/// Runs the load with followers, recorders and faults beside it, then waits until nothing is open.
pub(super) fn carry_out(rig: &Rig<'_>) -> anyhow::Result<Loaded> {
    let (tell_acks, told_acks) = mpsc::channel();
    let (tell_accept, told_accept) = mpsc::channel();
    let (tell_settle, told_settle) = mpsc::channel();
    let follow_live = Arc::new(FollowLive::default());
    let follow_stop = Arc::new(AtomicBool::new(false));
    let has_failed = AtomicBool::new(false);
    let lasting = AtomicUsize::new(0);
    let show_stop = AtomicBool::new(false);
    let acks_path = rig.folder.join("acks.txt");
    let following = Following {
        target: &rig.target,
        traffic: rig.traffic.clone(),
        settings: rig.scenario.follow.clone(),
        epoch: rig.epoch,
        acks_path: &acks_path,
        live: follow_live.clone(),
        settle: tell_settle,
        stop: follow_stop.clone(),
    };
    std::thread::scope(|scope| {
        let follower = scope.spawn(move || follow::follow(&following, &told_acks));
        let accept = scope.spawn(move || recorded(rig, "accept.hlog", ACCEPT, &told_accept));
        let settle = scope.spawn(move || recorded(rig, "settle.hlog", SETTLE, &told_settle));
        let named = std::thread::Builder::new().name(TIMELINE.to_owned());
        let faults = named.spawn_scoped(scope, || {
            let is_stopped = || rig.is_stopped() || has_failed.load(Ordering::Relaxed);
            timeline::follow(rig.scenario, &rig.target, rig.begin, rig.epoch, &lasting, &is_stopped)
        });
        let faults = faults.expect("there are threads enough for those beside it");
        let shower = scope.spawn(|| {
            while !show_stop.load(Ordering::Relaxed) {
                rig.show();
                std::thread::sleep(LOOK_EVERY);
            }
        });
        let crowd = rig.crowd.as_ref().map(|crowd| scope.spawn(|| crowd.drive(rig.begin, &rig.stop)));
        let outlets = Outlets { acknowledged: tell_acks, intervals: tell_accept };
        rig.scene.enter("load");
        let cpu_before = own_cpu_s();
        let generated = generate(rig, &outlets);
        let end_s = rig.since_epoch_s();
        let cores = (own_cpu_s() - cpu_before) / (end_s - LEAD_S).max(1e-3);
        drop(outlets);
        rig.scene.enter("settling");
        // No error is raised before every thread has been told to end.
        has_failed.store(generated.is_err(), Ordering::Relaxed);
        let begin_s = rig.begin.saturating_duration_since(rig.epoch).as_secs_f64();
        let load_end_s = if rig.scenario.search.is_some() {
            end_s
        } else {
            end_s.min(begin_s + rig.scenario.arrivals.arrivals().map_or(0.0, |arrivals| arrivals.length_s()))
        };
        let claimed = crowd.map(|crowd| crowd.join());
        let drained_s = generated.is_ok().then(|| drain(rig, &follow_live, &lasting, load_end_s)).flatten();
        // What is planned for later still happens; it is no part of the time that it took to settle the rest.
        let events = faults.join();
        std::thread::sleep(TAIL);
        follow_stop.store(true, Ordering::Relaxed);
        let followings = follower.join();
        show_stop.store(true, Ordering::Relaxed);
        let _ = shower.join();
        let panicked = |what: &'static str| move |_| anyhow::anyhow!("{what} panicked");
        let (lanes, search) = generated?;
        Ok(Loaded {
            lanes,
            search,
            begin_s,
            end_s: load_end_s,
            drained_s,
            watched_s: rig.since_epoch_s(),
            accept: accept.join().map_err(panicked("the recorder"))??,
            settle: settle.join().map_err(panicked("the recorder"))??,
            followings: followings.map_err(panicked("the follower"))?,
            events: events.map_err(panicked("the fault timeline"))?,
            generator_cores: cores,
            claimed: claimed.transpose().map_err(panicked("the crowd"))?.transpose()?,
        })
    })
}

/// Name of the thread that makes and mends faults.
const TIMELINE: &str = "timeline";
const LEAD_S: f64 = 0.5;

fn recorded(
    rig: &Rig<'_>,
    file: &str,
    kind: Kind,
    told: &Receiver<Interval>,
) -> Result<Measure, RecordError> {
    record::record(&rig.folder.join(file), kind, rig.started, told)
}

fn generate(rig: &Rig<'_>, outlets: &Outlets) -> anyhow::Result<(Vec<LaneReport>, Vec<SearchStep>)> {
    if let Some(wanted) = &rig.scenario.search {
        return search::search(rig, wanted, outlets);
    }
    let pace = Pace::Arrivals {
        arrivals: rig.scenario.arrivals.arrivals().map_err(anyhow::Error::msg)?,
        spacing: rig.scenario.arrivals.spacing(),
        seed: rig.scenario.seed,
    };
    let lane_first = rig.part.0 * rig.scenario.generator.threads;
    let length_s = pace.length_s();
    let plan = rig.plan(pace, rig.begin, lane_first);
    let done = AtomicBool::new(false);
    let lanes = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let share = rig.begin.elapsed().as_secs_f64() / length_s;
                rig.scene.progress.store((share * 1_000.0) as u64, Ordering::Relaxed);
                std::thread::sleep(LOOK_EVERY);
            }
        });
        let lanes = generator::generate(&plan, outlets);
        done.store(true, Ordering::Relaxed);
        lanes
    });
    Ok((lanes.context("the load")?, Vec::new()))
}

/// Waits until nothing is open anywhere, and no fault lasts that could hide it; when that was, if it came in time.
fn drain(rig: &Rig<'_>, live: &FollowLive, lasting: &AtomicUsize, load_end_s: f64) -> Option<f64> {
    let deadline_s = load_end_s + rig.scenario.setup.settle_within_s;
    let mut quiet = 0;
    let mut since_s = rig.since_epoch_s();
    let most = rig.watch.latest(|observed| observed.latest()).1.max(1);
    loop {
        let (_, open) = rig.watch.latest(|observed| observed.latest());
        let followed = live.open.load(Ordering::Relaxed);
        if open == 0 && followed == 0 && lasting.load(Ordering::Relaxed) == 0 {
            quiet += 1;
            if quiet >= QUIET_LOOKS {
                return Some(since_s);
            }
        } else {
            quiet = 0;
            since_s = rig.since_epoch_s();
        }
        let share = 1_000 - open.min(most) * 1_000 / most;
        rig.scene.progress.store(share, Ordering::Relaxed);
        if rig.since_epoch_s() > deadline_s || rig.is_stopped() {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What the callers of a lane remember.
pub(super) fn claims<'a>(traffic: &'a Traffic, lane: &'a LaneReport) -> impl Iterator<Item = Claim> + 'a {
    lane.fates.iter().enumerate().filter(|(_, fate)| **fate != Fate::Unsent).map(move |(number, fate)| {
        let place = Place { lane: lane.lane, number: number as u32 };
        Claim {
            id: traffic.id(place),
            amount: traffic.amount(place),
            fate: *fate,
            parties: Some((traffic.campaign(place), traffic.payee(place))),
        }
    })
}
