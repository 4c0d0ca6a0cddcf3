//! A thread that pushes, and what it and whoever drains tell each other.
//!
//! What holds: the producer keeps a bounded lead, so that what is drained is what could be taken in for ever and
//! nothing piles up in Redis.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::payouts::{BATCH, Form, Payouts};
use super::wire::Wire;

/// Connections of the producer, and batches that each sends before it reads their answers: `redis-benchmark -c -P`. With
/// four connections and one batch each, a single thread that waits for each answer in turn reached 0.7 of it.
pub const CONNECTIONS: usize = 2;
pub const DEPTH: usize = 4;
/// Requests that were pushed and not yet drained, at most, where nothing else is said.
pub const LEAD: u64 = 200_000;
const PAUSE: Duration = Duration::from_micros(100);

#[derive(Debug)]
pub struct Flow {
    pub pushed: AtomicU64,
    pub drained: AtomicU64,
    lead_max: u64,
    stop: AtomicBool,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow::with_lead(LEAD)
    }
}

impl Flow {
    /// One whose producer keeps so many ahead.
    pub fn with_lead(lead_max: u64) -> Flow {
        let (pushed, drained, stop) = Default::default();
        Flow { pushed, drained, lead_max, stop }
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits a little where there is nothing to do; not so long that anybody would starve.
    pub fn pause(&self) {
        std::thread::sleep(PAUSE);
    }

    /// What was drained before its reply was read counts as none.
    fn lead(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed).saturating_sub(self.drained.load(Ordering::Relaxed))
    }

    /// The producer is as far ahead as it may be.
    pub fn is_filled(&self) -> bool {
        self.lead() >= self.lead_max
    }
}

/// Ends the flow with whoever holds it, whatever the reason.
pub struct Ends<'a>(pub &'a Flow);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// How far the producer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Until the flow is stopped, never more ahead of whoever drains than the flow allows.
    Lead,
    /// So many batches, as fast as they go in.
    Batches(u64),
}

/// Pushes; the time from the first byte sent to the last reply.
///
/// Each connection sends its batches in one go and reads all their answers before it sends more, as `redis-benchmark`
/// does.
pub fn produce(redis: SocketAddr, form: Form, pace: Pace, flow: &Flow) -> std::io::Result<Duration> {
    let mut payouts = Payouts::new(form, 1);
    let mut wires = (0..CONNECTIONS).map(|_| Wire::connect(redis)).collect::<Result<Vec<_>, _>>()?;
    let mut under_way = [0usize; CONNECTIONS];
    let mut left = match pace {
        Pace::Lead => u64::MAX,
        Pace::Batches(count) => count,
    };
    let began = Instant::now();
    while left > 0 && !flow.is_stopped() {
        for (wire, under_way) in wires.iter_mut().zip(&mut under_way) {
            collect(wire, form, under_way, flow)?;
            while pace == Pace::Lead && flow.is_filled() && !flow.is_stopped() {
                flow.pause();
            }
            for _ in 0..left.min(DEPTH as u64) {
                wire.send(payouts.next())?;
                *under_way += 1;
                left -= 1;
            }
        }
    }
    for (wire, under_way) in wires.iter_mut().zip(&mut under_way) {
        collect(wire, form, under_way, flow)?;
    }
    Ok(began.elapsed())
}

/// Reads what the batches under way are answered.
fn collect(wire: &mut Wire, form: Form, under_way: &mut usize, flow: &Flow) -> std::io::Result<()> {
    let batches = std::mem::take(under_way);
    for _ in 0..batches * form.replies() {
        wire.skip()?;
    }
    flow.pushed.fetch_add((batches * BATCH) as u64, Ordering::Relaxed);
    Ok(())
}
