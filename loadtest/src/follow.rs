//! From acknowledged to final: a sample of the acknowledged ids is looked up again and again until each is final.
//!
//! What holds: every acknowledged id is written to the acks file, sampled or not; a settle latency is the time from
//! the acknowledgement until a lookup first said "final", so it is never too short, and too long by at most the time
//! since the look before, whose distribution is told. Absent: the check that every id became final (`check`).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Deserialize;

use crate::generator::{Acknowledged, Interval, latencies};
use crate::http::Caller;
use crate::scenario::Follow;
use crate::target::Target;
use crate::traffic::{Place, Traffic};

/// Ids in one lookup at the door.
pub const LOOKUP_IDS_MAX: usize = 1_000;

struct Followed {
    place: Place,
    acknowledged_us: u64,
    looked_us: u64,
}

/// What was found out.
#[derive(Debug)]
pub struct Followings {
    /// Time between the look that saw it final and the one before, microseconds.
    pub resolution: Histogram<u64>,
    pub followed: u64,
    /// Followed, and never seen final.
    pub still_open: u64,
    pub acks_written: u64,
    /// Why the acks file or the lookups are not whole.
    pub failure: Option<String>,
}

/// Numbers for the screen.
#[derive(Debug, Default)]
pub struct FollowLive {
    pub open: AtomicU64,
    pub acks: AtomicU64,
}

pub struct Following<'a> {
    pub target: &'a Target,
    pub traffic: Arc<Traffic>,
    pub settings: Follow,
    pub epoch: Instant,
    pub acks_path: &'a Path,
    pub live: Arc<FollowLive>,
    /// Where settle latencies go.
    pub settle: Sender<Interval>,
    /// Set when waiting for the rest is over.
    pub stop: Arc<AtomicBool>,
}

#[derive(Deserialize)]
struct Found {
    data: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    id: String,
    r#final: bool,
}

/// Follows until the senders are gone and nothing is open, or told to stop.
pub fn follow(following: &Following<'_>, acknowledged: &Receiver<Vec<Acknowledged>>) -> Followings {
    let mut follower = Follower::new(following);
    let pause = Duration::from_millis(following.settings.poll_ms);
    let mut next = Instant::now() + pause;
    let mut is_over = false;
    loop {
        match acknowledged.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(runs) => runs.into_iter().for_each(|run| follower.take(run)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                is_over = true;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        }
        if Instant::now() >= next {
            next = Instant::now() + pause;
            follower.poll();
        }
        let stops = following.stop.load(Ordering::Relaxed);
        if is_over && (follower.open.is_empty() || stops) {
            return follower.finish();
        }
    }
}

struct Follower<'a, 'b> {
    following: &'a Following<'b>,
    callers: Vec<Caller>,
    turn: usize,
    open: VecDeque<Followed>,
    acks: Option<BufWriter<File>>,
    out: Followings,
    /// Ids that may still be sampled, refilled with time.
    allowance: f64,
    refilled_us: u64,
}

impl<'a, 'b> Follower<'a, 'b> {
    fn new(following: &'a Following<'b>) -> Follower<'a, 'b> {
        let mut out = Followings {
            resolution: latencies(),
            followed: 0,
            still_open: 0,
            acks_written: 0,
            failure: None,
        };
        let acks = File::create(following.acks_path).map(|file| BufWriter::with_capacity(1 << 20, file));
        let acks = acks
            .map_err(|error| out.failure = Some(format!("the acks file cannot be written: {error}")))
            .ok();
        let callers = following.target.instances.iter().map(|address| {
            Caller::new(*address, following.target.access.authorization.clone(), Duration::from_secs(2))
        });
        Follower {
            following,
            callers: callers.collect(),
            turn: 0,
            open: VecDeque::new(),
            acks,
            out,
            allowance: 1.0,
            refilled_us: 0,
        }
    }

    fn now_us(&self) -> u64 {
        self.following.epoch.elapsed().as_micros() as u64
    }

    fn take(&mut self, run: Acknowledged) {
        let Following { traffic, target, settings, live, .. } = self.following;
        let Acknowledged { lane, first, count, at_us } = run;
        for number in first..first + count {
            let place = Place { lane, number };
            if let Some(acks) = &mut self.acks {
                let (id, amount) = (traffic.id(place), traffic.amount(place));
                if let Err(error) = writeln!(acks, "{} {id} {amount}", target.access.client) {
                    self.out.failure = Some(format!("the acks file cannot be written: {error}"));
                }
            }
        }
        self.out.acks_written += u64::from(count);
        live.acks.store(self.out.acks_written, Ordering::Relaxed);
        let per_s = f64::from(settings.ids_per_s);
        let more = at_us.saturating_sub(self.refilled_us) as f64 / 1e6 * per_s;
        self.allowance = (self.allowance + more).min(per_s / 10.0 + 1.0);
        self.refilled_us = self.refilled_us.max(at_us);
        // One of a run stands for it: they were acknowledged together.
        let room = (settings.ids_max as usize).saturating_sub(self.open.len());
        let sample = (self.allowance as u32).min(count.div_ceil(10)).min(room as u32);
        for index in 0..sample {
            let place = Place { lane, number: first + index * (count / sample) };
            self.open.push_back(Followed { place, acknowledged_us: at_us, looked_us: at_us });
        }
        self.allowance -= f64::from(sample);
        self.out.followed += u64::from(sample);
    }

    /// Looks at the oldest, and goes on while most of them are final; then at some of the rest in turn.
    fn poll(&mut self) {
        let mut at = 0;
        while at < self.open.len() {
            let count = LOOKUP_IDS_MAX.min(self.open.len() - at);
            let Some(done) = self.look(at, count) else { break };
            if done * 2 < count {
                at = count - done;
                break;
            }
            at += count - done;
        }
        // What stands further back gets its turn as well: not all queues are first in, first out.
        let rest = self.open.len().saturating_sub(at);
        if rest > 0 {
            let count = LOOKUP_IDS_MAX.min(rest);
            self.turn = self.turn.wrapping_add(count);
            let from = at + self.turn % (rest - count + 1);
            self.look(from, count);
        }
        self.following.live.open.store(self.open.len() as u64, Ordering::Relaxed);
    }

    /// Looks up some of the open ones; how many of them are final, or none if nobody answered.
    fn look(&mut self, from: usize, count: usize) -> Option<usize> {
        let traffic = &self.following.traffic;
        let ids: Vec<String> = self.open.range(from..from + count).map(|f| traffic.id(f.place)).collect();
        let body = serde_json::json!({ "ids": ids }).to_string();
        let which = self.turn % self.callers.len();
        self.turn = self.turn.wrapping_add(1);
        let found: Found = self.callers[which].read("POST", "/v1/disbursements/lookup", &body).ok()?;
        let now_us = self.now_us();
        let is_final = |row: &Row| row.r#final.then(|| traffic.place(&row.id)).flatten();
        let finals: std::collections::HashSet<Place> = found.data.iter().filter_map(is_final).collect();
        let mut kept = VecDeque::with_capacity(self.open.len());
        let mut interval = latencies();
        for (index, mut followed) in std::mem::take(&mut self.open).into_iter().enumerate() {
            let looked = (from..from + count).contains(&index);
            if looked && finals.contains(&followed.place) {
                interval.saturating_record((now_us - followed.acknowledged_us).max(1));
                self.out.resolution.saturating_record((now_us - followed.looked_us).max(1));
                continue;
            }
            if looked {
                followed.looked_us = now_us;
            }
            kept.push_back(followed);
        }
        self.open = kept;
        if !interval.is_empty() {
            let interval = Interval { second: now_us / 1_000_000, single: interval, batch: latencies() };
            // Whoever records may be gone; the run then fails there.
            let _ = self.following.settle.send(interval);
        }
        Some(finals.len())
    }

    fn finish(mut self) -> Followings {
        self.out.still_open = self.open.len() as u64;
        if let Some(Err(error)) = self.acks.as_mut().map(Write::flush) {
            self.out.failure = Some(format!("the acks file cannot be written: {error}"));
        }
        self.out
    }
}
