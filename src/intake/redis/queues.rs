//! The local queues: what was read of all units, in order of reading, for the pipeline to take.
//!
//! The pipeline numbers what it takes of a queue from zero without gaps; a ticket leads back to the list that an
//! element stands in. Bounded by the reader's credit: nothing else adds to them. What holds: what is dropped with a
//! lost unit was never handed out, and what was handed out is told as done once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::domain::Lane;
use crate::intake::{Element, QueueId};
use crate::shaping::Seen;

/// Where a request came from: a list (by the reader's number), the life of its window, the position of its element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub list: u32,
    pub era: u32,
    pub position: u64,
}

/// A request that was read.
#[derive(Clone, Debug)]
pub struct Entry {
    pub ticket: Ticket,
    pub place: u64,
    pub mark: u64,
    pub may_be_sent: bool,
    pub record: Bytes,
}

#[derive(Default)]
struct Queue {
    unread: VecDeque<Entry>,
    /// Handed out and not acknowledged, from the index `acked` on.
    out: VecDeque<Ticket>,
    acked: u64,
}

pub struct Queues {
    fair_queue_count: u8,
    queues: Vec<Mutex<Queue>>,
    /// Tickets of what is done; the reader takes them.
    done: Mutex<Vec<Ticket>>,
    /// By queue: requests that wait in Redis, as far as known.
    waiting: Vec<AtomicU64>,
}

impl Queues {
    pub fn new(fair_queue_count: u8) -> Queues {
        let count = Lane::ALL.len() * usize::from(fair_queue_count);
        Queues {
            fair_queue_count,
            queues: (0..count).map(|_| Mutex::default()).collect(),
            done: Mutex::default(),
            waiting: (0..count).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub fn fair_queue_count(&self) -> u8 {
        self.fair_queue_count
    }

    /// How many queues there are.
    pub fn count(&self) -> usize {
        self.queues.len()
    }

    fn queue(&self, id: QueueId) -> MutexGuard<'_, Queue> {
        lock(&self.queues[id.position(self.fair_queue_count)])
    }

    /// Adds requests to the queue at this position, in order.
    pub fn add(&self, position: usize, entries: &mut Vec<Entry>) {
        lock(&self.queues[position]).unread.extend(entries.drain(..));
    }

    pub fn read(&self, id: QueueId, count_max: usize, out: &mut Vec<Element>) {
        let mut queue = self.queue(id);
        let count = count_max.min(queue.unread.len());
        let first = queue.acked + queue.out.len() as u64;
        let Queue { unread, out: handed, .. } = &mut *queue;
        out.reserve(count);
        for (entry, index) in unread.drain(..count).zip(first..) {
            let Entry { ticket, place, mark, may_be_sent, record } = entry;
            handed.push_back(ticket);
            out.push(Element { index, place, mark, may_be_sent, record });
        }
    }

    pub fn has_unread(&self, id: QueueId) -> bool {
        !self.queue(id).unread.is_empty()
    }

    /// Everything that was handed out below this index is done.
    ///
    /// # Panics
    /// If it was not handed out.
    pub fn ack(&self, id: QueueId, below_index: u64) {
        let mut queue = self.queue(id);
        let count = below_index.saturating_sub(queue.acked);
        assert!(count <= queue.out.len() as u64, "an ack past what was read: {below_index} of {id:?}");
        queue.acked += count;
        // In the order of the queues' locks first, the list of the done second, everywhere.
        lock(&self.done).extend(queue.out.drain(..count as usize));
    }

    pub fn has_done(&self) -> bool {
        !lock(&self.done).is_empty()
    }

    /// Takes what is done; what was in `into` is gone.
    pub fn take_done(&self, into: &mut Vec<Ticket>) {
        into.clear();
        std::mem::swap(&mut *lock(&self.done), into);
    }

    /// Drops what was not handed out yet and is not wanted, telling of each.
    pub fn drop_unread(&self, mut is_wanted: impl FnMut(Ticket) -> bool) {
        for queue in &self.queues {
            lock(queue).unread.retain(|entry| is_wanted(entry.ticket));
        }
    }

    /// Says how many requests wait in Redis for the queue at this position.
    pub fn set_waiting(&self, position: usize, requests: u64) {
        self.waiting[position].store(requests, Ordering::Relaxed);
    }

    /// How the queues from this position on stand, as far as known.
    pub fn look(&self, from: usize, out: &mut Vec<Seen>) {
        out.clear();
        out.extend(self.queues.iter().zip(&self.waiting).skip(from).map(|(queue, in_redis)| {
            let queue = lock(queue);
            let unread = queue.unread.len() as u64 + in_redis.load(Ordering::Relaxed);
            let waiting = unread + queue.out.len() as u64;
            Seen { come: queue.acked + waiting, waiting, unread }
        }));
    }

    /// Requests of a queue that are not acknowledged, as far as known.
    pub fn depth(&self, id: QueueId) -> u64 {
        let queue = self.queue(id);
        let in_memory = queue.unread.len() + queue.out.len();
        in_memory as u64 + self.waiting[id.position(self.fair_queue_count)].load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueId = QueueId { lane: Lane::Bulk, fair: 1 };

    fn entry(list: u32, position: u64) -> Entry {
        let ticket = Ticket { list, era: 1, position };
        Entry { ticket, place: position, mark: 7, may_be_sent: false, record: Bytes::new() }
    }

    #[test]
    fn indexes_have_no_gaps_and_done_is_told_once() {
        let queues = Queues::new(2);
        queues.add(
            QUEUE.position(2),
            &mut (0..6).map(|position| entry(position as u32 % 2, position)).collect(),
        );
        let mut out = Vec::new();
        queues.read(QUEUE, 2, &mut out);
        queues.drop_unread(|ticket| ticket.list != 1);
        queues.read(QUEUE, 9, &mut out);
        let taken: Vec<_> = out.iter().map(|element| (element.index, element.place)).collect();
        assert_eq!(taken, [(0, 0), (1, 1), (2, 2), (3, 4)]);
        assert!(!queues.has_unread(QUEUE) && !queues.has_done());
        queues.set_waiting(QUEUE.position(2), 10);
        assert_eq!(queues.depth(QUEUE), 14);
        let mut done = Vec::new();
        for (below, expected) in [(3, vec![0, 1, 2]), (3, vec![]), (2, vec![]), (4, vec![4])] {
            queues.ack(QUEUE, below);
            queues.take_done(&mut done);
            let positions: Vec<u64> = done.iter().map(|ticket| ticket.position).collect();
            assert_eq!(positions, expected, "below {below}");
        }
        assert_eq!(queues.depth(QUEUE), 10);
    }

    #[test]
    #[should_panic(expected = "an ack past what was read")]
    fn what_was_not_read_cannot_be_acknowledged() {
        let queues = Queues::new(2);
        queues.add(QUEUE.position(2), &mut vec![entry(0, 0)]);
        queues.ack(QUEUE, 1);
    }
}
