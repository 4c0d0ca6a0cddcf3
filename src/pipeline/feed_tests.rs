//! The feed alone, over queues and a shelf that say what the test wants.

use super::*;
use crate::intake::IntakeError;
use crate::pipeline::suspects::Nowhere;

/// Queues with or without something to read, and a shelf on which something is due then.
struct Queues {
    has_unread: bool,
    due: Option<UnixMs>,
}

impl Intake for Queues {
    fn fair_queue_count(&self) -> u8 {
        2
    }

    fn read(&self, _: QueueId, _: usize, _: &mut Vec<Element>) -> Result<(), IntakeError> {
        Ok(())
    }

    fn has_unread(&self, queue: QueueId) -> bool {
        self.has_unread && queue.lane == Lane::Bulk && queue.fair == 1
    }

    fn ack(&self, _: QueueId, _: u64) -> Result<(), IntakeError> {
        Ok(())
    }

    fn depth(&self, _: QueueId) -> u64 {
        0
    }
}

impl Shelf for Queues {
    fn rooms(&self, queues: &[QueueId], _: usize, out: &mut Vec<usize>) {
        out.clear();
        out.resize(queues.len(), 1);
    }

    fn has_room(&self, _: &[QueueId], _: usize) -> bool {
        true
    }

    fn next_due(&self) -> Option<UnixMs> {
        self.due
    }

    fn take_due(&self, _: UnixMs, _: usize, _: &mut Vec<Due>) {}
}

fn feed(queues: Queues, transfers_per_s: u64) -> Feed {
    let queues = Arc::new(queues);
    let all = Lane::ALL.into_iter().flat_map(|lane| (0..2).map(move |fair| QueueId { lane, fair }));
    let all: Vec<QueueId> = all.collect();
    Feed {
        intake: queues.clone(),
        shelf: queues,
        paced: all.iter().copied().filter(|queue| queue.lane != Lane::Control).collect(),
        queues: all,
        suspects: Arc::new(Suspects::none(Arc::new(Nowhere))),
        counts: Arc::default(),
        pace: Pace::new(transfers_per_s),
        now_ms: Arc::new(|| 1_000),
        started: Instant::now(),
        turn: [0; Lane::ALL.len()],
        ready: VecDeque::new(),
        elements: Vec::new(),
        due: Vec::new(),
        rooms: Vec::new(),
        slot_count: 64,
        batch_count_max: 64,
        paced_until_ns: 0,
        linger_until: Instant::now(),
        isolated_count: 0,
    }
}

#[test]
fn only_what_waits_unread_is_held() {
    // Unread, due when; whether it is held.
    let table = [(false, None, 0), (false, Some(2_000), 0), (true, None, 1), (false, Some(999), 1)];
    for (has_unread, due, expected) in table {
        for (in_ring, ahead_max, why) in [(64, u64::MAX, Hold::Ring), (3, 3, Hold::Wallet)] {
            let feed = feed(Queues { has_unread, due }, 0);
            feed.counts.fed.store(in_ring, Ordering::Release);
            feed.counts.ahead_max.store(ahead_max, Ordering::Release);
            assert_eq!(feed.room(), 0);
            let held = feed.counts.held.each_ref().map(|held| held.load(Ordering::Relaxed));
            let mut only = [0; HOLD_KINDS.len()];
            only[why as usize] = expected;
            assert_eq!(held, only, "{has_unread} {due:?}, {in_ring} in the ring");
        }
        let mut feed = feed(Queues { has_unread, due }, 1);
        while feed.granted(feed.now_ns(), 64) > 0 {}
        feed.counts.held[Hold::Pace as usize].store(0, Ordering::Relaxed);
        feed.granted(feed.now_ns(), 64);
        assert_eq!(feed.counts.held[Hold::Pace as usize].load(Ordering::Relaxed), expected);
    }
}
