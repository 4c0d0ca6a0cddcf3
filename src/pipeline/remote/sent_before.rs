//! What an earlier process may have sent: the answer to "was this provably never dispatched?".
//!
//! A process dies with calls under way, and what it had sent is written nowhere. But requests enter the ring in the
//! order of their queue, and no more than the ring holds are under way: after a start, only that many at the head
//! of each queue can have been sent, and what was parked. Everything accepted later cannot.

use std::collections::{HashMap, HashSet};

use crate::intake::QueueId;
use crate::pipeline::slot::Origin;

#[derive(Debug, Default)]
pub struct SentBefore {
    /// Of the earlier process's ring.
    slot_count: u64,
    /// What waited in each queue at the start.
    depths: HashMap<QueueId, u64>,
    /// In each queue of which an element was seen: below this index, it may have been sent.
    below: HashMap<QueueId, u64>,
    /// Outcomes below this place were written by an earlier process.
    began_at: u64,
    /// Requests of the queues' heads that have their final outcome already, by place.
    settled: HashSet<u64>,
}

impl SentBefore {
    pub fn new(
        slot_count: u64,
        depths: HashMap<QueueId, u64>,
        began_at: u64,
        settled: HashSet<u64>,
    ) -> SentBefore {
        SentBefore { slot_count, depths, below: HashMap::new(), began_at, settled }
    }

    /// Whether an earlier process, or an earlier attempt, may have sent it. Ask in the order of the queue.
    pub fn may_be_sent(&mut self, origin: Origin) -> bool {
        match origin {
            Origin::Queue { queue, index } => {
                let depth = self.depths.get(&queue).copied().unwrap_or(0);
                let first = || index + depth.min(self.slot_count);
                index < *self.below.entry(queue).or_insert_with(first)
            }
            Origin::Parked { entry_place, attempts, .. } => attempts > 0 || entry_place < self.began_at,
        }
    }

    /// Whether the request has its final outcome, and only its acknowledgement was lost.
    pub fn is_settled(&mut self, place: u64) -> bool {
        !self.settled.is_empty() && self.settled.remove(&place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Lane;

    #[test]
    fn only_the_head_of_a_queue_and_what_was_parked_may_have_been_sent() {
        let queue = QueueId { lane: Lane::Bulk, fair: 1 };
        let other = QueueId { lane: Lane::Bulk, fair: 2 };
        let depths = HashMap::from([(queue, 10), (other, 2)]);
        let mut sent = SentBefore::new(4, depths, 1_000, HashSet::from([77]));
        // queue, index, expected: the queues were acknowledged below 100 and 50.
        let table = [
            (queue, 100, true),
            (queue, 103, true),
            (queue, 104, false),
            (other, 50, true),
            (other, 51, true),
            (other, 52, false),
            (QueueId { lane: Lane::Realtime, fair: 0 }, 0, false),
        ];
        for (queue, index, expected) in table {
            assert_eq!(sent.may_be_sent(Origin::Queue { queue, index }), expected, "{index}");
        }
        for (entry_place, attempts, expected) in [(999, 0, true), (1_000, 0, false), (1_000, 1, true)] {
            assert_eq!(
                sent.may_be_sent(Origin::Parked {
                    entry_place,
                    attempts,
                    is_unknown: false,
                    lacks_balance: false
                }),
                expected
            );
        }
        assert!(sent.is_settled(77) && !sent.is_settled(77) && !sent.is_settled(78));
    }
}
