//! A wallet in virtual time: a queue with a capacity that may change, that refuses when it is full, that is slowed
//! down by refusing, that dies, hangs, and comes back slow.

use std::collections::VecDeque;

use super::world::CallId;

/// Work that may wait, in seconds of capacity.
const QUEUE_S: f64 = 0.25;
/// What refusing a transfer costs of what serving one does: this is how it collapses.
const REFUSAL_COST: f64 = 0.15;
/// From its return to its full capacity.
const WARM_MS: u64 = 3_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Up,
    /// Connections are refused at once.
    Down,
    /// Calls are taken and never answered.
    Hung,
}

pub enum Taken {
    Queued,
    Refused,
    Unreachable,
    Swallowed,
}

pub struct Wallet {
    pub capacity_per_s: f64,
    pub health: Health,
    up_since_ms: Option<u64>,
    queue: VecDeque<(CallId, f64)>,
    queued: f64,
    debt: f64,
}

impl Wallet {
    pub fn new(capacity_per_s: f64) -> Wallet {
        let queue = VecDeque::new();
        Wallet { capacity_per_s, health: Health::Up, up_since_ms: None, queue, queued: 0.0, debt: 0.0 }
    }

    pub fn set_health(&mut self, now_ms: u64, health: Health) {
        if health == Health::Up {
            self.up_since_ms = Some(now_ms);
        }
        (self.queued, self.debt, self.health) = (0.0, 0.0, health);
        self.queue.clear();
    }

    fn per_s(&self, now_ms: u64) -> f64 {
        let warmth = self
            .up_since_ms
            .map_or(1.0, |since| (0.25 + 0.75 * (now_ms - since) as f64 / WARM_MS as f64).min(1.0));
        self.capacity_per_s * warmth
    }

    pub fn take(&mut self, now_ms: u64, call: CallId, count: u64) -> Taken {
        match self.health {
            Health::Down => Taken::Unreachable,
            Health::Hung => Taken::Swallowed,
            Health::Up if self.queued + count as f64 > (self.per_s(now_ms) * QUEUE_S).max(50.0) => {
                self.debt += count as f64 * REFUSAL_COST;
                Taken::Refused
            }
            Health::Up => {
                self.queued += count as f64;
                self.queue.push_back((call, count as f64));
                Taken::Queued
            }
        }
    }

    /// Works for `ms`; what is done goes into `done`.
    pub fn work(&mut self, now_ms: u64, ms: u64, done: &mut Vec<CallId>) {
        let mut power = self.per_s(now_ms) * ms as f64 / 1e3;
        let repaid = self.debt.min(power);
        (self.debt, power) = (self.debt - repaid, power - repaid);
        while power > 0.0
            && let Some((call, left)) = self.queue.front_mut()
        {
            let part = left.min(power);
            (*left, power, self.queued) = (*left - part, power - part, self.queued - part);
            if *left <= 1e-9 {
                done.push(*call);
                self.queue.pop_front();
            }
        }
    }
}
