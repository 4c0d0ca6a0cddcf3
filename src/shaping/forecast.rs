//! When a request that is accepted now will be done: its place in line, over the pace at which the line will move.
//!
//! The estimate is a median (p50): as many are done before it as after it, as long as the wallet goes on as it does and the
//! breaker as it has decided. What it is made of:
//!
//! - *The place* in line ([`super::line`]). What came in over the last moments is taken to come on for [`COMES_ON_MS`].
//! - *The pace.* The measured drain rate ([`super::drain`]); one below the usual for as long again as it has been
//!   ([`super::slump`]); never above what may go ([`Course`]): nothing while the breaker is open, then the steps of its ramp.
//! - *The fleet.* Where others take from the same lists, their backlog and their rate count as ours do.
//!
//! Pure: `now` is passed in. Absent: what waits for a time of its own, and what its coming due will take from the others;
//! that a brownout or an outage is about to begin, and how long an outage will last, of which nobody knows more than when it is
//! tried again.

use super::drain::DrainRate;
use super::line::{Line, Load};
use super::slump::{Outlook, Slump};

/// What is assumed where nothing is configured and nothing was measured yet.
const RATE_UNKNOWN_PER_S: f64 = 100_000.0;
/// For how long what comes in is taken to come on: about as long as it was watched.
const COMES_ON_MS: f64 = 2_000.0;
/// What comes in is counted over windows of so long, and fades to 1/e within so long.
const COMING_WINDOW_MS: u64 = 250;
const COMING_FADE_MS: f64 = 1_000.0;
/// Looked at again no sooner.
const LOOK_MS: u64 = 10;
/// The longer a wait, the more comes before its end: rounds of finding the wait that fits.
const ROUNDS: usize = 3;
/// Past it a wait is not told apart: a year.
const WAIT_MS_MAX: f64 = 31_536_000_000.0;
/// Steps of a ramp that are looked at, at the most.
const STEPS_MAX: usize = 64;

/// How fast work may go from now on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Course {
    /// Nothing goes for so long.
    pub held_ms: u64,
    /// At most so many a second; `None`: no limit.
    pub cap_per_s: Option<u64>,
    /// The cap is reached in steps.
    pub ramp: Option<Ramp>,
    /// What a call to the wallet takes at the least.
    pub call_ms: u64,
    /// Nothing is held back: what is done tells how fast the wallet is.
    pub is_free: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// What may go at first, and for how long.
    pub per_s: f64,
    pub first_ms: f64,
    pub step_ms: f64,
    /// What each step multiplies it by.
    pub growth: f64,
}

impl Course {
    /// A pace and nothing else; 0: none.
    pub fn paced(transfers_per_s: u64) -> Course {
        let cap_per_s = (transfers_per_s > 0).then_some(transfers_per_s);
        Course { held_ms: 0, cap_per_s, ramp: None, call_ms: 0, is_free: true }
    }

    /// How fast it goes where this was measured; the cap, where nothing was.
    fn within(&self, measured: Option<Outlook>) -> Outlook {
        let cap = self.cap_per_s.map(|cap| cap as f64);
        let bounded = |per_s: f64| per_s.min(cap.unwrap_or(f64::MAX)).max(1.0);
        let Outlook { per_s, lasts_ms, usual_per_s } =
            measured.unwrap_or(Outlook::steady(cap.unwrap_or(RATE_UNKNOWN_PER_S)));
        Outlook { per_s: bounded(per_s), lasts_ms, usual_per_s: bounded(usual_per_s) }
    }

    /// Milliseconds until so many are done, where they may go.
    fn wait_ms(&self, ahead: f64, outlook: Outlook) -> f64 {
        let (mut left, mut at_ms) = (ahead, self.held_ms as f64);
        let rate_per_s = outlook.usual_per_s;
        if let Some(Ramp { mut per_s, first_ms, step_ms, growth }) = self.ramp {
            let mut span_ms = first_ms;
            for _ in 0..STEPS_MAX {
                let goes = per_s * span_ms / 1_000.0;
                if per_s >= rate_per_s || goes >= left {
                    break;
                }
                (left, at_ms) = (left - goes, at_ms + span_ms);
                (per_s, span_ms) = (per_s * growth, step_ms);
            }
            at_ms += left * 1_000.0 / per_s.clamp(1.0, rate_per_s);
        } else {
            let slow = left.min(outlook.per_s * outlook.lasts_ms / 1_000.0);
            at_ms += slow * 1_000.0 / outlook.per_s + (left - slow) * 1_000.0 / rate_per_s;
        }
        at_ms.max((self.held_ms + self.call_ms) as f64).min(WAIT_MS_MAX)
    }
}

/// A queue as it is seen: realtime ones first, then bulk, by fair queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests that ever came.
    pub come: u64,
    /// Of these, those that are not done; and those that nobody has taken yet.
    pub waiting: u64,
    pub unread: u64,
}

/// What the others of a fleet have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    pub waiting: u64,
    /// What they settle a second, those of them that have work.
    pub per_s: u64,
    /// It was measured while one of them had more work than could be done.
    pub is_measured: bool,
}

impl Others {
    pub fn add(&mut self, waiting: u64, per_s: u64, is_measured: bool) {
        self.waiting = self.waiting.saturating_add(waiting);
        if waiting > 0 {
            self.per_s = self.per_s.saturating_add(per_s);
            self.is_measured |= is_measured && per_s > 0;
        }
    }
}

/// What may be promised, until it is looked at again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Promises {
    queues: Vec<Promise>,
    whole: Promise,
}

/// What was accepted since the last look: in all, and to each queue that is paced.
#[derive(Clone, Debug, Default)]
pub struct Since {
    all: u64,
    by_queue: Vec<u64>,
}

impl Since {
    /// One more, to the queue at this position; none, where it is not paced.
    pub fn add(&mut self, position: Option<usize>) {
        self.all += 1;
        let Some(position) = position else { return };
        if self.by_queue.len() <= position {
            self.by_queue.resize(position + 1, 0);
        }
        self.by_queue[position] += 1;
    }

    pub fn all(&self) -> u64 {
        self.all
    }

    pub fn to(&self, position: usize) -> u64 {
        self.by_queue.get(position).copied().unwrap_or(0)
    }

    pub fn clear(&mut self) {
        self.all = 0;
        self.by_queue.clear();
    }
}

/// A wait, and what each that gets in line meanwhile adds to it, in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Promise {
    wait_ms: f64,
    each_ms: f64,
}

impl Promise {
    fn after(&self, count: u64) -> u64 {
        (self.wait_ms + self.each_ms * count as f64).min(WAIT_MS_MAX) as u64
    }
}

impl Promises {
    /// How long a request waits that comes to the queue at this position, `since` others having come to it.
    pub fn wait_ms(&self, position: usize, since: u64) -> u64 {
        self.queues.get(position).unwrap_or(&self.whole).after(since)
    }

    /// How long all that waits will take, and `since` more.
    pub fn whole_ms(&self, since: u64) -> u64 {
        self.whole.after(since)
    }

    /// The same wait everywhere.
    pub fn flat(wait_ms: u64) -> Promises {
        Promises { queues: Vec::new(), whole: Promise { wait_ms: wait_ms as f64, each_ms: 0.0 } }
    }
}

#[derive(Clone, Debug)]
pub struct Forecast {
    fair_queue_count: usize,
    drain: DrainRate,
    slump: Slump,
    course: Course,
    seen: Vec<Seen>,
    coming: Vec<Coming>,
    counted_at_ms: u64,
    /// Other units are held since it was counted last: what is in line came to somebody else.
    has_changed_hands: bool,
    others: Others,
    looked_at_ms: Option<u64>,
}

/// What comes to a queue.
#[derive(Clone, Copy, Debug, Default)]
struct Coming {
    before: u64,
    per_s: f64,
}

impl Forecast {
    /// `course` holds until the first look.
    pub fn new(fair_queue_count: u8, course: Course) -> Forecast {
        Forecast {
            fair_queue_count: usize::from(fair_queue_count),
            drain: DrainRate::default(),
            slump: Slump::default(),
            course,
            seen: Vec::new(),
            coming: Vec::new(),
            counted_at_ms: 0,
            has_changed_hands: false,
            others: Others::default(),
            looked_at_ms: None,
        }
    }

    /// `count` requests were finished, while so much was waiting to be taken.
    pub fn done(&mut self, now_ms: u64, count: u64, unread: u64, course: Course) {
        if self.course.is_free != course.is_free {
            self.looked_at_ms = None;
        }
        self.course = course;
        if course.is_free {
            self.drain.done(now_ms, count, unread);
            self.note_pace(now_ms);
        } else {
            self.hold();
        }
    }

    fn note_pace(&mut self, now_ms: u64) {
        if let Some(per_s) = self.measured_per_s() {
            self.slump.note(now_ms, per_s);
        }
    }

    fn hold(&mut self) {
        self.drain.hold();
        self.slump.end();
    }

    /// Whether it is time to look at the queues again.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.looked_at_ms.is_none_or(|at| now_ms >= at + LOOK_MS || now_ms < at)
    }

    /// Looks at the queues, and says what may be promised.
    pub fn look(&mut self, now_ms: u64, seen: &[Seen], others: Others, course: Course) -> Promises {
        if !course.is_free {
            self.hold();
        }
        (self.course, self.looked_at_ms) = (course, Some(now_ms));
        self.seen.clear();
        self.seen.extend_from_slice(seen);
        self.count_coming(now_ms);
        let before = self.measured_per_s();
        // What others do while they are held back is no measure.
        self.others = if course.is_free { others } else { Others { waiting: others.waiting, ..self.others } };
        if course.is_free && self.measured_per_s() != before {
            self.note_pace(now_ms);
        }
        let outlook = self.outlook();
        let own: u64 = seen.iter().map(|queue| queue.waiting).sum();
        let all = own as f64 + others.waiting as f64;
        let whole =
            Promise { wait_ms: course.wait_ms(all + 1.0, outlook), each_ms: 1_000.0 / outlook.usual_per_s };
        let loads = self.seen.iter().zip(&self.coming);
        let loads =
            loads.map(|(seen, coming)| Load { waiting: seen.waiting as f64, coming_per_s: coming.per_s });
        let mut line = Line::new(loads, self.fair_queue_count, COMES_ON_MS / 1_000.0);
        let queues = (0..seen.len()).map(|at| self.promise(&mut line, at, (own, all), outlook)).collect();
        Promises { queues, whole }
    }

    /// Other units are held from now on: what stands in them has not just come.
    pub fn change_hands(&mut self, now_ms: u64) {
        // What is in them is learnt within the window that begins now.
        (self.has_changed_hands, self.counted_at_ms) = (true, now_ms);
    }

    fn count_coming(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.counted_at_ms);
        let is_first = self.coming.len() != self.seen.len() || now_ms < self.counted_at_ms;
        if !is_first && elapsed_ms < COMING_WINDOW_MS {
            return;
        }
        self.coming.resize(self.seen.len(), Coming::default());
        if std::mem::take(&mut self.has_changed_hands) {
            self.coming.iter_mut().zip(&self.seen).for_each(|(coming, seen)| coming.before = seen.come);
            self.counted_at_ms = now_ms;
            return;
        }
        let keep = (-(elapsed_ms as f64) / COMING_FADE_MS).exp();
        for (coming, seen) in self.coming.iter_mut().zip(&self.seen) {
            let came = if is_first { 0 } else { seen.come.saturating_sub(coming.before) };
            let per_s = came as f64 * 1_000.0 / elapsed_ms.max(1) as f64;
            *coming = Coming { before: seen.come, per_s: coming.per_s * keep + per_s * (1.0 - keep) };
        }
        self.counted_at_ms = now_ms;
    }

    /// The pace of all who take from the same lists, now.
    pub fn rate_per_s(&self) -> f64 {
        self.course.within(self.measured_per_s().map(Outlook::steady)).per_s
    }

    /// What this instance does, as far as that was measured.
    pub fn own_per_s(&self) -> u64 {
        self.drain.per_s().map_or(0, |per_s| per_s as u64)
    }

    /// Nothing before anybody was measured.
    fn measured_per_s(&self) -> Option<f64> {
        let own = self.drain.per_s();
        let is_known = own.is_some() || self.others.is_measured;
        is_known.then(|| own.unwrap_or(0.0) + self.others.per_s as f64)
    }

    fn outlook(&self) -> Outlook {
        self.course.within(self.measured_per_s().map(|per_s| self.slump.outlook(per_s)))
    }

    fn promise(&self, line: &mut Line, at: usize, (own, all): (u64, f64), outlook: Outlook) -> Promise {
        // What the others have is in the same queues, in about the same parts; in which is not known where there is
        // nothing here.
        let unknown = if own == 0 { all } else { 0.0 };
        let scale = if own == 0 { 1.0 } else { all / own as f64 };
        let mut wait_ms = 0.0;
        let mut turns = 1.0;
        for _ in 0..ROUNDS {
            let place = line.ahead(at, f64::min(wait_ms, COMES_ON_MS) / 1_000.0);
            turns = place.turns;
            wait_ms = self.course.wait_ms(place.ahead * scale + unknown, outlook);
        }
        // One more here is one more in all, whatever others have.
        Promise { wait_ms, each_ms: turns * 1_000.0 / outlook.usual_per_s }
    }
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
