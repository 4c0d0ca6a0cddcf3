//! What a lane makes of answers: fates of requests, retries, giving up.

use std::sync::atomic::Ordering;

use super::{FLUSH_COUNT, KNOWN_MAX, Lane, Later, RETRY_FIRST_US, RETRY_MAX_US};
use crate::generator::judge::{Judgement, Said, judge};
use crate::generator::{Acknowledged, Fate, Live};
use crate::http::Answer;
use crate::traffic::{Call, Item};

impl Lane<'_> {
    pub(super) fn answered(&mut self, call: Call, answer: &Answer, now: u64) {
        let is_batch = call.batch.is_some() && !self.plan.is_list();
        match judge(answer, call.count() as usize, is_batch) {
            Judgement::Again { cause, surely_not } => {
                let call = Call { is_doubtful: call.is_doubtful || !surely_not, ..call };
                self.again(call, cause, answer.retry_after_s, now);
            }
            Judgement::Acknowledged { recognised } => {
                self.tally.counts.duplicates_recognised += recognised;
                self.definite(&call, |_| &Said::Acknowledged, now);
            }
            Judgement::Each { said, recognised } => {
                self.tally.counts.duplicates_recognised += recognised;
                self.definite(&call, |index| &said[index], now);
            }
        }
    }

    /// Writes down what a definite answer says of each request.
    fn definite<'s>(&mut self, call: &Call, said: impl Fn(usize) -> &'s Said, now: u64) {
        let mut acknowledged = 0;
        for (index, item) in call.items().enumerate() {
            match (item, said(index)) {
                (Item::Fresh(number), Said::Acknowledged) => {
                    acknowledged += 1;
                    self.fates[number as usize] = Fate::Acknowledged;
                    self.remember(number, now);
                }
                (Item::Fresh(number), Said::Refused(code)) => self.refused(number, code, now),
                (Item::Duplicate(_), Said::Acknowledged) => {}
                (Item::Duplicate(number), Said::Refused(code)) => {
                    let lane = self.lane;
                    self.tally.counts.violations.add(|| {
                        format!("request {lane}-{number} was acknowledged, and its repeat refused: {code}")
                    });
                }
                (Item::Conflict(number), Said::Acknowledged) => {
                    let lane = self.lane;
                    self.tally
                        .counts
                        .violations
                        .add(|| format!("request {lane}-{number} was accepted again with another amount"));
                }
                (Item::Conflict(_), Said::Refused(_)) => self.tally.counts.conflicts_refused += 1,
                (Item::Invalid(number), Said::Acknowledged) => {
                    let lane = self.lane;
                    self.tally
                        .counts
                        .violations
                        .add(|| format!("invalid request {lane}-{number} was accepted"));
                }
                (Item::Invalid(_), Said::Refused(_)) => self.tally.counts.invalid_refused += 1,
            }
        }
        if acknowledged > 0 {
            self.tally.counts.accepted += u64::from(acknowledged);
            self.tally.bin(now).accepted += acknowledged;
            Live::add(&self.plan.live.accepted, u64::from(acknowledged));
            if let Some(done) = self.tally.acknowledged(call.due_us, now, call.batch.is_some()) {
                // Whoever records may be gone; the run then fails there.
                let _ = self.outlets.intervals.send(done);
            }
        }
    }

    fn remember(&mut self, number: u32, now: u64) {
        if self.known.len() < KNOWN_MAX {
            self.known.push(number);
        } else {
            self.known[number as usize % KNOWN_MAX] = number;
        }
        match self.acknowledged.last_mut() {
            Some(last) if last.first + last.count == number && last.at_us == now => last.count += 1,
            _ => {
                self.acknowledged.push(Acknowledged { lane: self.lane, first: number, count: 1, at_us: now })
            }
        }
        if self.acknowledged.len() >= FLUSH_COUNT {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        if !self.acknowledged.is_empty() {
            let _ = self.outlets.acknowledged.send(std::mem::take(&mut self.acknowledged));
        }
    }

    fn refused(&mut self, number: u32, code: &str, now: u64) {
        self.fates[number as usize] = Fate::Refused;
        *self.tally.counts.refused.entry(code.to_owned()).or_default() += 1;
        self.tally.bin(now).refused += 1;
        Live::add(&self.plan.live.refused, 1);
    }

    /// The golden rule: the same call once more, after a pause.
    pub(super) fn again(&mut self, call: Call, cause: String, retry_after_s: Option<u64>, now: u64) {
        if now > self.give_up_us() || self.is_stopped() {
            return self.give_up(call, &cause, now);
        }
        let doubled = RETRY_FIRST_US << call.attempts.min(10).saturating_sub(1);
        let pause = retry_after_s.map_or(doubled.min(RETRY_MAX_US), |seconds| seconds * 1_000_000);
        if now + pause > self.give_up_us() {
            return self.give_up(call, &cause, now);
        }
        let counts = &mut self.tally.counts;
        counts.retried += 1;
        counts.retry_after_honoured += u64::from(retry_after_s.is_some());
        *counts.retried_by_cause.entry(cause).or_default() += 1;
        self.tally.bin(now).retried += 1;
        Live::add(&self.plan.live.retried, 1);
        self.later.push(Later { at_us: now + pause, call });
    }

    pub(super) fn give_up_us(&self) -> u64 {
        self.end_us + (self.plan.settings.persist_s * 1e6) as u64
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.plan.stop.load(Ordering::Relaxed)
    }

    pub(super) fn give_up(&mut self, call: Call, cause: &str, now: u64) {
        if call.attempts == 0 {
            self.tally.counts.unsent += u64::from(call.count());
            return;
        }
        for item in call.items() {
            match item {
                Item::Fresh(number) if self.fates[number as usize] != Fate::Acknowledged => {
                    if call.is_doubtful {
                        self.tally.counts.unanswered += 1;
                    } else {
                        self.refused(number, cause, now);
                    }
                }
                _ => {}
            }
        }
    }
}
