//! What the wallet saw, in tenths of a second, and what follows from it.

use std::time::Duration;

use serde_json::Value;

use crate::fleet::{is_asked, rate};
use crate::support::{PATIENCE, Server, await_until, call};

/// A tenth of a second at the wallet, by its own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    pub at_ms: u64,
    pub calls: u64,
    /// Entries of any kind: transfers, burns.
    pub entries: u64,
    pub executed: u64,
    pub refused: u64,
}

/// All that the wallet remembers, without gaps, from one moment on.
#[derive(Clone, Debug)]
pub struct Received {
    pub now_ms: u64,
    pub buckets: Vec<Bucket>,
}

/// The wallet's time now.
pub fn now_ms(wallet: &Server) -> u64 {
    wallet.must("GET /received", "", 200)["now_ms"].as_u64().expect("a time")
}

pub fn since(wallet: &Server, from_ms: u64) -> Received {
    // In a run of its own the connection may be slow; what was counted stays.
    let body: Value = call(&wallet.address, "GET /received", "").expect("the wallet answers").body;
    let now_ms = body["now_ms"].as_u64().expect("a time");
    let first = from_ms / 100 * 100;
    let count = (now_ms.saturating_sub(first) / 100 + 1) as usize;
    let mut buckets: Vec<Bucket> =
        (0..count).map(|n| Bucket { at_ms: first + 100 * n as u64, ..Bucket::default() }).collect();
    for said in body["buckets"].as_array().expect("buckets") {
        let number = |name: &str| said[name].as_u64().unwrap_or(0);
        let Some(place) = number("at_ms").checked_sub(first) else { continue };
        let bucket = &mut buckets[(place / 100) as usize];
        bucket.calls = number("calls");
        bucket.entries = number("transfers") + number("burns");
        bucket.executed = number("executed");
        bucket.refused = number("refused");
    }
    Received { now_ms, buckets }
}

/// Waits until the wallet's clock has come to a time.
pub fn await_time(wallet: &Server, at_ms: u64) -> Received {
    await_until("the time to pass", PATIENCE + Duration::from_millis(at_ms), || {
        let seen = since(wallet, 0);
        (seen.now_ms >= at_ms).then_some(seen)
    })
}

impl Received {
    /// The most entries in any second, in steps of a tenth.
    pub fn peak(&self) -> u64 {
        self.seconds(|bucket| bucket.entries).into_iter().max().unwrap_or(0)
    }

    /// Never more than the budget, in any second by steps of a tenth. On a busy machine a call may be held up on its way
    /// and arrive with those after it: a quarter of a second's worth, in any one, two and five seconds.
    pub fn must_keep_the_budget(&self) {
        let peak = self.peak() as f64 / rate() as f64;
        println!("peak {peak:.3} of the budget in any second");
        if is_asked() {
            assert!(peak <= 1.05, "{peak:.3} of the budget in a second\n{}", self.picture());
        }
        for window_s in [1, 2, 5] {
            let spans = self.buckets.windows(10 * window_s);
            let most =
                spans.map(|span| span.iter().map(|bucket| bucket.entries).sum::<u64>()).max().unwrap_or(0);
            let bound = rate() * (4 * window_s as u64 + 1) / 4;
            assert!(most <= bound, "{most} in {window_s} s, of {}/s\n{}", rate(), self.picture());
        }
    }

    pub fn seconds(&self, of: impl Fn(&Bucket) -> u64) -> Vec<u64> {
        self.buckets.windows(10).map(|second| second.iter().map(&of).sum()).collect()
    }

    pub fn sum(&self, from_ms: u64, to_ms: u64, of: impl Fn(&Bucket) -> u64) -> u64 {
        self.buckets.iter().filter(|b| b.at_ms >= from_ms && b.at_ms < to_ms).map(of).sum()
    }

    /// Entries a second between two times.
    pub fn rate(&self, from_ms: u64, to_ms: u64) -> f64 {
        self.sum(from_ms, to_ms, |bucket| bucket.entries) as f64 * 1e3 / (to_ms - from_ms) as f64
    }

    /// A line a second, for whoever looks at a failure.
    pub fn picture(&self) -> String {
        let seconds = self.buckets.chunks(10);
        let line = |second: &[Bucket]| {
            let sum = |of: fn(&Bucket) -> u64| second.iter().map(of).sum::<u64>();
            format!(
                "{} ms: {} entries, {} executed",
                second[0].at_ms,
                sum(|b| b.entries),
                sum(|b| b.executed)
            )
        };
        seconds.map(line).collect::<Vec<_>>().join("\n")
    }
}
