//! The waiting line in front of the books: what the settings of `faults` make of a call, as a pure function of
//! time. Whoever runs it passes `now` (since the wallet's start) and does the waiting.
//!
//! A call goes through it like this: [`Line::arrive`] decides its fate and gives it a ticket; it is carried out
//! once [`Line::wait`] says that the work before it is done; its reply leaves at the time [`Line::leave_at`] says.
//! Work is done at the capacity in force, which changes with the settings, with their schedule, and after an
//! outage. Past `collapse_queue` an entry costs more than one unit of it, so that pushing harder gets less done,
//! as at a real service whose retries, locks and caches work against it when it is late.

use std::time::Duration;

use super::dice::Dice;
use super::faults::Faults;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// Too many wait already: 503.
    Overloaded,
    /// 500 or 503, nothing done.
    Error {
        is_500: bool,
    },
    /// Never answered, nothing done.
    Vanishes,
    /// The connection is closed, nothing done.
    CutBefore,
    Served {
        ticket: Ticket,
        reply_lost: bool,
    },
}

/// A place in the line: the work that must be done before the call is.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ticket(f64);

/// Capacity is taken as constant for this long; also the longest wait before it is looked at again.
const STEP_S: f64 = 0.01;
/// An entry costs at most this many units of work.
const COST_MAX: f64 = 50.0;
/// Where capacity begins after an outage, when it comes back slowly.
const RAMP_FROM: f64 = 0.1;
/// The 99th percentile of the standard normal distribution.
const NORMAL_P99: f64 = 2.326_347_9;

pub struct Line {
    faults: Faults,
    dice: Dice,
    /// When the times of the settings began.
    begin_s: f64,
    /// Work asked for and work done since the start, in units; up to when it was done.
    asked: f64,
    done: f64,
    done_at_s: f64,
    /// When each seat of a limited concurrency becomes free.
    seats: Vec<f64>,
}

impl Line {
    pub fn new(faults: Faults) -> Line {
        let dice = Dice::new(faults.seed);
        Line { faults, dice, begin_s: 0.0, asked: 0.0, done: 0.0, done_at_s: 0.0, seats: Vec::new() }
    }

    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Other settings from now on; what waits stays in the line.
    pub fn change(&mut self, now: Duration, faults: Faults, begins_anew: bool) {
        self.advance(now.as_secs_f64());
        if begins_anew {
            self.begin_s = now.as_secs_f64();
        }
        if faults.seed != self.faults.seed {
            self.dice = Dice::new(faults.seed);
        }
        if faults.concurrency != self.faults.concurrency {
            self.seats.clear();
        }
        self.faults = faults;
    }

    pub fn arrive(&mut self, now: Duration, entries: usize) -> Fate {
        let now_s = now.as_secs_f64();
        self.advance(now_s);
        let waiting = self.asked - self.done;
        if self.capacity(now_s).is_finite() && waiting + entries as f64 > f64::from(self.faults.queue_max) {
            return Fate::Overloaded;
        }
        let error_rate = self.error_rate(now_s);
        if self.dice.happens(error_rate) {
            return Fate::Error { is_500: self.dice.happens(0.5) };
        }
        if self.dice.happens(self.faults.timeout_rate) {
            return Fate::Vanishes;
        }
        if self.dice.happens(self.faults.drop_before_rate) {
            return Fate::CutBefore;
        }
        let reply_lost = self.dice.happens(self.faults.drop_after_rate);
        let bound = f64::from(self.faults.collapse_queue);
        let over = ((waiting - bound) / bound).max(0.0);
        let cost = (1.0 + self.faults.collapse_factor * over).min(COST_MAX);
        self.asked += entries as f64 * cost;
        Fate::Served { ticket: Ticket(self.asked), reply_lost }
    }

    /// How long until it is worth asking again; `None`: it is this call's turn.
    pub fn wait(&mut self, now: Duration, ticket: Ticket) -> Option<Duration> {
        let now_s = now.as_secs_f64();
        self.advance(now_s);
        // Sums of fractions are never quite whole.
        let left = ticket.0 - self.done - 1e-6;
        if left <= 0.0 {
            return None;
        }
        let estimate = left / self.capacity(now_s).max(1e-3);
        Some(Duration::from_secs_f64(estimate.clamp(0.000_2, 5.0 * STEP_S)))
    }

    /// When the reply of a call that was carried out at `now` leaves.
    pub fn leave_at(&mut self, now: Duration, names_slow_account: bool) -> Duration {
        let now_s = now.as_secs_f64();
        let latency_s = self.latency_s();
        let begin_s = match self.faults.concurrency {
            None => now_s,
            Some(seats) => {
                self.seats.resize(seats as usize, 0.0);
                let seat = self.seats.iter_mut().min_by(|a, b| a.total_cmp(b)).expect("at least one seat");
                let begin_s = seat.max(now_s);
                *seat = begin_s + latency_s;
                begin_s
            }
        };
        let slow_s = if names_slow_account { self.faults.slow_ms as f64 / 1e3 } else { 0.0 };
        Duration::from_secs_f64(begin_s + latency_s + slow_s)
    }

    /// How long the wallet stands still from now on, if it does.
    pub fn pause(&self, now: Duration) -> Option<Duration> {
        let left = self.begin_s + self.faults.pause_s - now.as_secs_f64();
        (left > 0.0).then(|| Duration::from_secs_f64(left))
    }

    fn latency_s(&mut self) -> f64 {
        let faults = &self.faults;
        let (fixed, jitter, p50, p99) =
            (faults.latency_ms, faults.jitter_ms, faults.latency_p50_ms, faults.latency_p99_ms);
        let mut latency_ms = fixed;
        if jitter > 0.0 {
            latency_ms += jitter * self.dice.unit();
        }
        if p50 > 0.0 {
            // A lognormal is given by its median and one more quantile.
            latency_ms += p50 * ((p99 / p50).ln() / NORMAL_P99 * self.dice.normal()).exp();
        }
        latency_ms / 1e3
    }

    fn error_rate(&self, now_s: f64) -> f64 {
        let since = now_s - self.begin_s;
        let on = self.faults.brownouts.iter().filter(|b| (b.after_s..b.after_s + b.for_s).contains(&since));
        on.map(|brownout| brownout.error_rate).fold(self.faults.error_rate, f64::max)
    }

    /// Units of work a second at this time.
    fn capacity(&self, now_s: f64) -> f64 {
        let faults = &self.faults;
        let since = now_s - self.begin_s;
        if since < faults.pause_s {
            return 0.0;
        }
        let step = faults.capacity_schedule.iter().take_while(|step| step.at_s <= since).last();
        let Some(base) = step.map(|step| step.transfers_per_s).or(faults.capacity_per_s) else {
            return f64::INFINITY;
        };
        let on = faults.brownouts.iter().filter(|b| (b.after_s..b.after_s + b.for_s).contains(&since));
        let factor: f64 = on.map(|brownout| brownout.capacity_factor).product();
        base * factor * self.ramp(since)
    }

    /// The share of the capacity that is back after the last outage.
    fn ramp(&self, since: f64) -> f64 {
        let outages = self.faults.brownouts.iter().filter(|b| b.capacity_factor == 0.0);
        let ends = outages.map(|b| b.after_s + b.for_s).chain([self.faults.pause_s]);
        let last = ends.filter(|end| *end > 0.0 && *end <= since).fold(f64::NEG_INFINITY, f64::max);
        let back = if self.faults.ramp_s > 0.0 { (since - last) / self.faults.ramp_s } else { 1.0 };
        if back >= 1.0 { 1.0 } else { RAMP_FROM + (1.0 - RAMP_FROM) * back }
    }

    /// Does the work between the last look and now. Capacity that nobody asked for is lost.
    fn advance(&mut self, now_s: f64) {
        while self.done < self.asked && self.done_at_s < now_s {
            let step_s = STEP_S.min(now_s - self.done_at_s);
            self.done = (self.done + self.capacity(self.done_at_s) * step_s).min(self.asked);
            self.done_at_s += step_s;
            if step_s < 1e-9 {
                break;
            }
        }
        if self.done_at_s < now_s {
            self.done_at_s = now_s;
        }
        if self.done < self.asked && self.capacity(now_s).is_infinite() {
            self.done = self.asked;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(args: &[&str]) -> Line {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Line::new(Faults::from_args(&args).unwrap())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn ticket(fate: Fate) -> Ticket {
        match fate {
            Fate::Served { ticket, .. } => ticket,
            other => panic!("{other:?}"),
        }
    }

    /// The first whole millisecond from `from` on at which it is this call's turn.
    fn turn(line: &mut Line, from: u64, ticket: Ticket) -> u64 {
        (from..).find(|now| line.wait(ms(*now), ticket).is_none()).unwrap()
    }

    #[test]
    fn a_call_waits_for_the_work_before_it() {
        // Settings, entries that arrive at 0, when it is the turn of the last.
        let table: [(&[&str], &[usize], u64); 6] = [
            (&[], &[1_000, 1_000], 0),
            (&["capacity_per_s=1000"], &[100], 100),
            (&["capacity_per_s=1000"], &[100, 100, 50], 250),
            (
                &["capacity_per_s=1000", "capacity_schedule=[{\"at_s\":0.1,\"transfers_per_s\":100}]"],
                &[110],
                200,
            ),
            (
                &["capacity_per_s=1000", "brownouts=[{\"after_s\":0.1,\"for_s\":1,\"capacity_factor\":0}]"],
                &[200],
                1_200,
            ),
            (&["capacity_per_s=1000", "pause_s=0.5"], &[100], 600),
        ];
        for (settings, arrivals, expected) in table {
            let mut line = line(settings);
            let tickets: Vec<Ticket> = arrivals.iter().map(|n| ticket(line.arrive(ms(0), *n))).collect();
            let got = turn(&mut line, 0, *tickets.last().unwrap());
            assert!(got.abs_diff(expected) <= 11, "{settings:?} {arrivals:?}: {got}, not {expected}");
        }
    }

    #[test]
    fn past_its_bound_it_gets_less_done_and_past_the_next_it_refuses() {
        let done_in_a_second = |offered_per_ms: usize| {
            let mut line = line(&["capacity_per_s=1000", "collapse_queue=100", "queue_max=5000"]);
            let tickets: Vec<Fate> = (0..1_000).map(|now| line.arrive(ms(now), offered_per_ms)).collect();
            let done = |fate: &&Fate| matches!(fate, Fate::Served { ticket, .. } if line.wait(ms(1_000), *ticket).is_none());
            let refused = tickets.contains(&Fate::Overloaded);
            (tickets.iter().filter(done).count() * offered_per_ms, refused)
        };
        let (at_capacity, _) = done_in_a_second(1);
        let (overloaded, _) = done_in_a_second(2);
        let (swamped, refused) = done_in_a_second(20);
        assert!(at_capacity > 950, "{at_capacity}");
        assert!(overloaded < at_capacity * 9 / 10, "{overloaded}");
        assert!(swamped < overloaded && refused, "{swamped} {refused}");
    }

    #[test]
    fn after_an_outage_it_comes_back_slowly() {
        let mut line = line(&["capacity_per_s=1000", "pause_s=1", "ramp_s=2"]);
        assert_eq!(line.pause(ms(400)), Some(ms(600)));
        assert_eq!(line.pause(ms(1_000)), None);
        let got = [500, 1_000, 2_000, 3_000, 9_000].map(|now| line.capacity(ms(now).as_secs_f64()).round());
        assert_eq!(got, [0.0, 100.0, 550.0, 1_000.0, 1_000.0]);
        // Idle time is not saved up.
        assert_eq!(line.wait(ms(5_000), Ticket(0.0)), None);
        let late = ticket(line.arrive(ms(9_000), 500));
        assert!(turn(&mut line, 9_000, late) >= 9_490);
    }

    #[test]
    fn fates_come_as_often_as_asked_for() {
        // Setting, share of the calls that are not served, or whose reply is lost.
        let table = [
            ("error_rate=0.2", 0.2),
            ("timeout_rate=0.3", 0.3),
            ("drop_before_rate=0.1", 0.1),
            ("drop_after_rate=0.4", 0.4),
            ("brownouts=[{\"after_s\":0,\"for_s\":10,\"error_rate\":0.5}]", 0.5),
            ("brownouts=[{\"after_s\":1,\"for_s\":10,\"error_rate\":0.5}]", 0.0),
        ];
        for (setting, share) in table {
            let mut line = line(&[setting]);
            let fates = (0..4_000).map(|_| line.arrive(ms(0), 1));
            let bad = fates.filter(|fate| !matches!(fate, Fate::Served { reply_lost: false, .. })).count();
            assert!((bad as f64 / 4_000.0 - share).abs() < 0.03, "{setting}: {bad}");
        }
    }

    #[test]
    fn latency_and_its_seats() {
        let table: [(&[&str], bool, u64); 4] = [
            (&[], false, 0),
            (&["latency_ms=20"], false, 20),
            (&["latency_ms=20", "slow_ms=100"], true, 120),
            (&["latency_ms=20", "concurrency=1"], false, 60),
        ];
        for (settings, slow, third) in table {
            let mut line = line(settings);
            let leave = (0..3).map(|_| line.leave_at(ms(0), slow)).last().unwrap();
            assert_eq!(leave.as_millis() as u64, third, "{settings:?}");
        }
        let mut line = line(&["latency_p50_ms=10", "latency_p99_ms=100"]);
        let mut drawn: Vec<Duration> = (0..10_000).map(|_| line.leave_at(ms(0), false)).collect();
        drawn.sort();
        assert!(drawn[5_000].abs_diff(ms(10)) < ms(1), "{:?}", drawn[5_000]);
        assert!(drawn[9_900].abs_diff(ms(100)) < ms(25), "{:?}", drawn[9_900]);
    }
}
