//! The queues: what was accepted follows on without a gap, and nothing leaves without an outcome.
//!
//! Sections number the requests of a queue; an ack says below which number all is done. Requests of a section
//! have consecutive rows, so a queue remembers one run a section. Absent: what an outcome is.

use std::collections::{BTreeMap, VecDeque};

use super::breach::{BreachKind, Breaches};
use super::entry::Queue;

/// Requests of one section that are not acknowledged.
struct Run {
    first_index: u64,
    first_row: u32,
    count: u32,
}

#[derive(Default)]
struct Line {
    /// Index that the next request will have.
    next: u64,
    /// Index below which all is acknowledged.
    acked: u64,
    runs: VecDeque<Run>,
}

pub struct Queues {
    lines: BTreeMap<Queue, Line>,
    /// From a checkpoint that does not tell the positions: a queue begins where it is first met.
    begins_anywhere: bool,
}

fn label(queue: Queue) -> String {
    format!("queue {}.{}", queue.0, queue.1)
}

impl Queues {
    pub fn new() -> Queues {
        Queues { lines: BTreeMap::new(), begins_anywhere: false }
    }

    pub fn count(&self) -> usize {
        self.lines.len()
    }

    /// The checkpoint tells where its queues stood, or, where it tells of none, they begin anywhere.
    pub fn carry(&mut self, positions: impl Iterator<Item = (Queue, u64, u64)>) {
        for (queue, next, acked) in positions {
            self.lines.insert(queue, Line { next, acked, runs: VecDeque::new() });
        }
        self.begins_anywhere = self.lines.is_empty();
    }

    fn line(&mut self, queue: Queue, index: u64) -> &mut Line {
        let start = if self.begins_anywhere { index } else { 0 };
        self.lines.entry(queue).or_insert(Line { next: start, acked: start, runs: VecDeque::new() })
    }

    /// A section head says that `count` requests follow, beginning with row `first_row`.
    pub fn section(
        &mut self,
        queue: Queue,
        first_index: u64,
        count: u32,
        first_row: u32,
        breaches: &mut Breaches,
    ) {
        let line = self.line(queue, first_index);
        if line.next != first_index {
            let next = line.next;
            breaches.add(
                BreachKind::QueueGap,
                || label(queue),
                || format!("{}: request {first_index} stands where {next} is next", label(queue)),
            );
        }
        line.next = first_index.saturating_add(u64::from(count));
        line.runs.push_back(Run { first_index, first_row, count });
    }

    /// Takes off what is acknowledged, and hands over the rows that leave.
    pub fn ack(
        &mut self,
        queue: Queue,
        below: u64,
        breaches: &mut Breaches,
        mut leave: impl FnMut(u32, &mut Breaches),
    ) {
        let line = self.line(queue, below);
        let (next, acked) = (line.next, line.acked);
        if below < acked || below > next {
            breaches.add(
                BreachKind::Ack,
                || label(queue),
                || format!("{}: acknowledged below {below}, after {acked}, of {next}", label(queue)),
            );
        }
        while let Some(run) = line.runs.front_mut() {
            if run.first_index >= below {
                break;
            }
            let count = (below - run.first_index).min(u64::from(run.count)) as u32;
            for row in run.first_row..run.first_row + count {
                leave(row, breaches);
            }
            run.first_index += u64::from(count);
            run.first_row += count;
            run.count -= count;
            if run.count == 0 {
                line.runs.pop_front();
            }
        }
        line.acked = acked.max(below.min(next));
    }

    /// Requests still in the queues.
    pub fn waiting(&self) -> u64 {
        self.lines.values().flat_map(|line| &line.runs).map(|run| u64::from(run.count)).sum()
    }
}
