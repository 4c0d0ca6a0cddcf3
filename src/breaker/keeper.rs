//! Keeps one instance and its board in step: sends the beats, takes the orders, writes what the policy decides, and
//! says so in the log with the numbers that decided it.
//!
//! One loop owns the time and the connection and calls [`Keeper::step`] when [`Keeper::due_at_ns`] has come; the
//! stage that sends batches shares the [`Governor`] behind a mutex, which is never held while the board is asked.
//! A board that cannot be reached is asked again with each beat, and logged once.

use std::sync::{Arc, Mutex, MutexGuard};

use super::board::{Board, BoardError, Workload};
use super::gate::{Governor, HELD_KINDS, Status, Tally};
use super::policy::{Change, Phase, State};
use crate::seldom::Seldom;
use crate::shaping::Moves;

const MS: u64 = 1_000_000;

pub type Shared = Arc<Mutex<Governor>>;

/// The governor, whatever became of whoever held it: each of its methods leaves it whole or panics on a bug.
pub fn lock(governor: &Shared) -> MutexGuard<'_, Governor> {
    governor.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

pub struct Keeper {
    governor: Shared,
    board: Box<dyn Board>,
    instance: String,
    /// Why the board is not heard, while it is not.
    lost: Option<String>,
    is_alone: bool,
    version_told: u64,
    /// The last change that was told.
    told_change: Option<Change>,
    /// What was last told of this instance.
    told: Told,
    /// The adaptive limit moves up to ten times a second, and a share with each beat.
    limit_lines: Seldom,
    share_lines: Seldom,
}

/// What was told of this instance: its decisions, and of what the last line of each kind was made.
#[derive(Default)]
struct Told {
    tally: Tally,
    limits: [Moves; 2],
    /// The limits of the last line for everybody, or what they have grown to since.
    limits_high: [Option<u64>; 2],
    share_per_s: u64,
}

/// Whether a limit appears, vanishes or has halved, of what it was at its highest since that was told.
fn is_limit_news(high: &mut Option<u64>, now: Option<u64>) -> bool {
    let is_news = match (*high, now) {
        (None, None) => false,
        (Some(high), Some(now)) => 2 * u128::from(now) <= u128::from(high),
        (None, Some(_)) | (Some(_), None) => true,
    };
    *high = if is_news { now } else { (*high).max(now) };
    is_news
}

impl Keeper {
    /// `instance`: the governor's.
    pub fn new(governor: Shared, board: Box<dyn Board>, instance: &str) -> Keeper {
        let instance = instance.to_owned();
        Keeper {
            governor,
            board,
            instance,
            lost: None,
            is_alone: false,
            version_told: 0,
            told_change: None,
            told: Told::default(),
            limit_lines: Seldom::default(),
            share_lines: Seldom::default(),
        }
    }

    pub fn due_at_ns(&self) -> u64 {
        lock(&self.governor).beat_at_ns()
    }

    /// Why the board is not heard, if it is not.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// One beat, whether it is due or not. `now_ns` is asked anew when the answer is there: it may have taken time.
    pub fn step(&mut self, now_ns: &dyn Fn() -> u64, work: Workload) {
        let report = lock(&self.governor).beat(now_ns(), work);
        match self.board.beat(&report) {
            Ok(orders) => {
                self.found();
                let proposal = lock(&self.governor).ordered(now_ns(), orders);
                if let Some((seen, next)) = proposal {
                    if next.version != seen.state.version + 1 {
                        let (had, has) = (seen.state.version, next.version);
                        tracing::warn!(
                            had,
                            has,
                            "the fleet's board had lost what was agreed; it is put back"
                        );
                    }
                    match self.board.replace(&seen, &next) {
                        Ok(true) => lock(&self.governor).heard(now_ns(), &next),
                        // Somebody was faster, and the next beat shows what it is now.
                        Ok(false) => {}
                        Err(error) => self.lose(&error),
                    }
                }
            }
            Err(error) => self.lose(&error),
        }
        self.tell(now_ns());
    }

    /// Gives lease and permit back. Nothing may be sent after it.
    pub fn leave(&mut self) {
        lock(&self.governor).retire();
        if let Err(error) = self.board.leave(&self.instance) {
            tracing::info!(%error, "the share of the budget is not given back, and lapses by itself");
        }
    }

    fn found(&mut self) {
        if self.lost.take().is_some() {
            tracing::info!("the fleet's board answers again");
        }
    }

    fn lose(&mut self, error: &BoardError) {
        let reason = error.to_string();
        if self.lost.is_none() {
            match error {
                BoardError::Unreachable(_) => {
                    tracing::warn!(reason, "this instance goes on with its part of its last share");
                }
                BoardError::Unreadable { .. } => {
                    tracing::error!(reason, "this instance goes on with its part of its last share");
                }
            }
        }
        self.lost = Some(reason);
    }

    fn tell(&mut self, now_ns: u64) {
        let governor = lock(&self.governor);
        let (is_alone, status) = (governor.wants_release(now_ns), governor.status(now_ns));
        let state = (governor.state().version > self.version_told).then(|| governor.state().clone());
        drop(governor);
        if let Some(state) = state {
            self.tell_changes(&state);
            self.version_told = state.version;
        }
        self.tell_own(&status);
        self.tell_limits(now_ns, &status);
        self.tell_share(now_ns, &status);
        if is_alone != self.is_alone {
            self.is_alone = is_alone;
            let (failed, of) = status.failing;
            match is_alone {
                true => tracing::error!(
                    failed,
                    of,
                    "this instance's calls to the wallet fail while the fleet's do not: look at its network; it \
                     tries one batch at a time, and leaves its units to others"
                ),
                false => tracing::info!("this instance's calls to the wallet succeed again"),
            }
        }
    }

    /// Every change since the last one that was told; at first, only the last, and the ramp's steps as they come.
    fn tell_changes(&mut self, state: &State) {
        let settings = &state.settings;
        if let Phase::Ramp { cap_permille, .. } = state.phase {
            let (cap_per_s, budget_per_s) = (state.terms().cap_rate_per_s, settings.rate_per_s);
            tracing::info!(cap_permille, cap_per_s, budget_per_s, "the ramp");
        }
        // By what it was and not by its time: the board's clock may go back.
        let told = self.told_change.take();
        let place = state.history.iter().rposition(|change| Some(change) == told.as_ref());
        let is_first = self.version_told == 0 || (told.is_some() && place.is_none());
        let from = match place {
            Some(place) => place + 1,
            None if is_first => state.history.len().saturating_sub(1),
            None => 0,
        };
        self.told_change = state.history.back().cloned();
        for change in state.history.iter().skip(from) {
            let Change { epoch, from, to, by, reason, .. } = change;
            match to.as_str() {
                "open" => {
                    tracing::warn!(
                        epoch,
                        by,
                        reason,
                        from,
                        "the breaker is open: nothing is sent to the wallet"
                    );
                }
                _ => tracing::info!(epoch, by, reason, from, to, "the breaker"),
            }
        }
    }

    /// What this instance tries, and that it begins or ceases to send nothing.
    fn tell_own(&mut self, status: &Status) {
        let Tally { holds, probes_ok, probes_failed, permits, permits_lost, .. } = status.tally;
        let before = std::mem::replace(&mut self.told.tally, status.tally);
        if permits > before.permits {
            tracing::info!(permits = permits - before.permits, "may try whether the wallet is well");
        }
        if permits_lost > before.permits_lost {
            let permits = permits_lost - before.permits_lost;
            tracing::info!(permits, "a permit to try was void before it was used");
        }
        if (probes_ok, probes_failed) != (before.probes_ok, before.probes_failed) {
            let (ok, failed) = (probes_ok - before.probes_ok, probes_failed - before.probes_failed);
            tracing::info!(ok, failed, "tried whether the wallet is well");
        }
        // Pace and calls under way hold each call a little.
        let lasting =
            |holds: Option<usize>| holds.filter(|kind| !matches!(HELD_KINDS[*kind], "paced" | "full"));
        let holds = lasting(holds);
        if holds != lasting(before.holds) {
            let (failed, of) = status.failing;
            let share_per_s = status.lease.rate_per_s;
            match holds {
                Some(kind) => {
                    tracing::info!(reason = HELD_KINDS[kind], share_per_s, failed, of, "holds what it has")
                }
                None => tracing::info!(share_per_s, "sends again"),
            }
        }
    }

    /// That the adaptive limit has moved, and what made it.
    fn tell_limits(&mut self, now_ns: u64, status: &Status) {
        let moved = |now: &Moves, before: &Moves| (now.down - before.down, now.up - before.up);
        let [(per_s, rate), (calls, under_way)] = &status.limits;
        let (rate_moved, calls_moved) =
            (moved(rate, &self.told.limits[0]), moved(under_way, &self.told.limits[1]));
        let (down, up) = (rate_moved.0 + calls_moved.0, rate_moved.1 + calls_moved.1);
        if down + up == 0 || self.limit_lines.note(now_ns / MS, 1).is_none() {
            return;
        }
        self.told.limits = [*rate, *under_way];
        let Moves { answered, overloaded, latency_ns, floor_ns, .. } = *rate;
        let (latency_ms, floor_ms, share_per_s) = (latency_ns / MS, floor_ns / MS, status.lease.rate_per_s);
        macro_rules! line {
            ($level:ident, $text:literal) => {
                tracing::$level!(
                    down,
                    up,
                    per_s,
                    calls,
                    share_per_s,
                    overloaded,
                    answered,
                    latency_ms,
                    floor_ms,
                    $text
                )
            };
        }
        let [rate_high, calls_high] = &mut self.told.limits_high;
        // Both are to be noted.
        match is_limit_news(rate_high, *per_s) | is_limit_news(calls_high, *calls) {
            true => line!(info, "the adaptive limit is another one; it went down last for these answers"),
            false => line!(debug, "the adaptive limit moves; it went down last for these answers"),
        }
    }

    /// That its share is another one. It is renewed with each beat: for whoever looks closely.
    fn tell_share(&mut self, now_ns: u64, status: &Status) {
        let share_per_s = status.lease.rate_per_s;
        if share_per_s != self.told.share_per_s && self.share_lines.note(now_ns / MS, 1).is_some() {
            let (before, fleet, spent_per_s) = (self.told.share_per_s, status.fleet, status.spent_per_s);
            tracing::debug!(
                before,
                share_per_s,
                fleet,
                spent_per_s,
                "its share of the budget is another one"
            );
            self.told.share_per_s = share_per_s;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::board::{self, Orders, Report, View};
    use super::super::classify::{Class, Counts};
    use super::super::local::LocalBoard;
    use super::super::policy::{Settings, Wish};
    use super::*;

    #[test]
    fn a_limit_is_news_when_it_appears_vanishes_or_has_halved() {
        let steps = [
            (None, false),
            (Some(100), true),
            (Some(60), false),
            (Some(120), false),
            (Some(61), false),
            (Some(60), true),
            (Some(31), false),
            (Some(30), true),
            (Some(200), false),
            (None, true),
            (None, false),
        ];
        let mut high = None;
        for (step, (now, expected)) in steps.into_iter().enumerate() {
            assert_eq!(is_limit_news(&mut high, now), expected, "step {step}: {now:?}");
        }
    }

    /// A board that can be cut off.
    struct Cut(LocalBoard, Arc<AtomicU64>);

    impl Cut {
        fn reached(&mut self) -> Result<&mut LocalBoard, BoardError> {
            match self.1.load(Ordering::Relaxed) {
                0 => Ok(&mut self.0),
                _ => Err(BoardError::Unreachable("cut".to_owned())),
            }
        }
    }

    impl Board for Cut {
        fn beat(&mut self, report: &Report) -> Result<Orders, BoardError> {
            self.reached()?.beat(report)
        }

        fn replace(&mut self, seen: &View, next: &State) -> Result<bool, BoardError> {
            self.reached()?.replace(seen, next)
        }

        fn leave(&mut self, instance: &str) -> Result<(), BoardError> {
            self.reached()?.leave(instance)
        }

        fn look(&mut self) -> Result<View, BoardError> {
            self.reached()?.look()
        }
    }

    #[test]
    fn beats_decides_and_goes_on_without_the_board() {
        let now_ms = Arc::new(AtomicU64::new(1_000_000));
        let clock = now_ms.clone();
        let settings = Settings { rate_per_s: 1_000, calls_max: 4, ..Settings::default() };
        let mut local = LocalBoard::new(settings.clone(), Arc::new(move || clock.load(Ordering::Relaxed)));
        let is_cut = Arc::new(AtomicU64::new(0));
        let governor: Shared = Arc::new(Mutex::new(Governor::new("one", 50, settings)));
        let cut = Cut(local.clone(), is_cut.clone());
        let mut keeper = Keeper::new(governor.clone(), Box::new(cut), "one");
        let now_ns = || now_ms.load(Ordering::Relaxed) * 1_000_000;
        let pass = |ms| now_ms.fetch_add(ms, Ordering::Relaxed);
        let phase = || lock(&governor).state().phase;

        keeper.step(&now_ns, Workload::waiting(100));
        while phase() == Phase::Closed {
            pass(10);
            let admitted = lock(&governor).admit(now_ns(), 50);
            if let Ok(ticket) = admitted {
                lock(&governor).answered(now_ns(), ticket, &Counts::of(Class::Overload, ticket.count));
            }
            keeper.step(&now_ns, Workload::waiting(100));
            assert!(now_ns() < 1_005_000_000_000, "it never stopped");
        }
        assert_eq!(local.look().expect("local").state, *lock(&governor).state(), "and wrote it");
        board::wish(&mut local, Wish::Close, "ann", "it was a drill").expect("local");
        keeper.step(&now_ns, Workload::waiting(100));
        assert_eq!(phase(), Phase::Closed);

        keeper.step(&now_ns, Workload::waiting(100));
        is_cut.store(1, Ordering::Relaxed);
        pass(400);
        keeper.step(&now_ns, Workload::waiting(100));
        assert!(keeper.lost().is_some_and(|reason| reason.contains("cut")));
        assert!(lock(&governor).is_cut_off(now_ns()));
        is_cut.store(0, Ordering::Relaxed);
        keeper.step(&now_ns, Workload::waiting(100));
        assert!(keeper.lost().is_none());
        keeper.leave();
        assert!(local.look().expect("local").members.is_empty());
    }
}
