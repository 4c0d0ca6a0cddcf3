//! The yard against a sorted set that is a plain map: whatever is added, released, done with and lost sight of, all
//! that is due becomes known, each member once, and the counts come right.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::digest::Stamper;
use crate::domain::{Amount, Currency, Kind, Lane, Request, WaitReason};

const QUEUES: u64 = 3;

fn member(number: u64, attempts: u32) -> Bytes {
    let (amount, currency) = (Amount::new(1).unwrap(), Currency::parse("CNY").unwrap());
    let (id, campaign) = (format!("r-{number}"), format!("c-{}", number % QUEUES));
    let request = Request::new(Kind::Disbursement, "shop", &id, &campaign, amount, currency);
    let record = Bytes::from(Stamper::default().encode(request));
    let reason = WaitReason::LowBalance;
    Bytes::from(Member { reason, is_unknown: false, attempts, since: number, at: 0, record }.encode())
}

fn queue_of(member: &Member) -> QueueId {
    QueueId { lane: Lane::Bulk, fair: (member.since % QUEUES) as u8 }
}

/// The set on the server, and what was handed out of it.
struct Model {
    set: HashMap<Bytes, UnixMs>,
    yard: Yard,
    ready: BTreeSet<(UnixMs, u64)>,
    out: Vec<u64>,
    last_place: u64,
    last_number: u64,
    now: UnixMs,
}

#[derive(Clone, Debug)]
enum Step {
    /// Parks so many, due so long from now; by this process or by one before.
    Park {
        count: u64,
        wait: u64,
        is_ours: bool,
    },
    /// An unreadable one is due.
    Strange,
    Pass(u64),
    Look {
        count_max: usize,
    },
    Take(usize),
    /// Outcomes of some that are out; those with a wait are parked again.
    Done {
        count: usize,
        wait: Option<u64>,
    },
    /// The first of what waits are made due.
    Release(usize),
    PutBack,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..8u64, 0..6u64, any::<bool>()).prop_map(|(count, wait, is_ours)| Step::Park { count, wait, is_ours }),
        1 => Just(Step::Strange),
        2 => (0..4u64).prop_map(Step::Pass),
        5 => (0..6usize).prop_map(|count_max| Step::Look { count_max }),
        3 => (1..6usize).prop_map(Step::Take),
        3 => (1..5usize, prop::option::of(0..5u64)).prop_map(|(count, wait)| Step::Done { count, wait }),
        1 => (1..6usize).prop_map(Step::Release),
        1 => Just(Step::PutBack),
    ]
}

impl Model {
    fn by_rank(&self) -> Vec<(Bytes, UnixMs)> {
        let mut all: Vec<_> = self.set.iter().map(|(member, due)| (member.clone(), *due)).collect();
        all.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        all
    }

    fn look(&mut self, count_max: usize) -> bool {
        let ranks = self.yard.begin_look(count_max);
        let due: Vec<_> = self.by_rank().into_iter().filter(|(_, due)| *due <= self.now).collect();
        let read: Vec<_> = due.iter().skip(ranks.start).take(ranks.count).cloned().collect();
        self.yard.saw_total(self.set.len());
        let last = &mut self.last_place;
        let taken = self.yard.take_in(ranks, read, due.len(), queue_of, || {
            *last += 1;
            *last
        });
        self.ready.extend(taken.ready);
        if let Some(start) = self.yard.counts_from() {
            let page: Vec<_> = self.by_rank().into_iter().skip(start).take(2).collect();
            let counts =
                page.iter().map(|(bytes, _)| (Member::decode(bytes).ok().map(|one| queue_of(&one)), 1));
            self.yard.counted(2, page.len(), counts);
        }
        taken.has_more || self.yard.counts_from().is_some()
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Park { count, wait, is_ours } => {
                for _ in 0..count {
                    self.last_number += 1;
                    self.set.insert(member(self.last_number, 0), self.now + wait);
                    if is_ours {
                        self.yard
                            .added(QueueId { lane: Lane::Bulk, fair: (self.last_number % QUEUES) as u8 });
                    }
                }
            }
            Step::Strange => {
                self.last_number += 1;
                self.set.insert(Bytes::from(format!("\u{2}{}", self.last_number)), self.now);
            }
            Step::Pass(ms) => self.now += ms,
            Step::Look { count_max } => {
                self.look(count_max);
            }
            Step::Take(count) => {
                for _ in 0..count {
                    let Some((_, place)) = self.ready.pop_first() else { break };
                    let known = self.yard.hand_out(place).expect("what is ready is known");
                    assert!(self.set.contains_key(&known.bytes), "handed out, and not in the set");
                    self.out.push(place);
                }
            }
            Step::Done { count, wait } => {
                for place in self.out.drain(..count.min(self.out.len())) {
                    let known = self.yard.get(place).expect("what is out is known").clone();
                    self.set.remove(&known.bytes);
                    if let Some(wait) = wait {
                        // Every other one as the same member: only its time changes.
                        let attempts = known.member.attempts + (place % 2) as u32;
                        let again = Member { attempts, ..known.member };
                        self.set.insert(Bytes::from(again.encode()), self.now + wait);
                        self.yard.added(known.queue);
                    }
                    self.yard.removed(place);
                }
            }
            Step::Release(count) => {
                let now = self.now;
                if self.yard.counts_from().is_some() {
                    // It changes ranks and no number, so that counts may stay wrong by a few: known, and borne.
                    return;
                }
                let waiting: Vec<_> =
                    self.by_rank().into_iter().filter(|(_, due)| *due > now).take(count).collect();
                for (position, (bytes, _)) in waiting.into_iter().enumerate() {
                    self.set.insert(bytes, position as UnixMs);
                }
            }
            Step::PutBack => {
                if let Some((_, place)) = self.ready.pop_first() {
                    self.yard.put_back(place);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn all_that_is_due_becomes_known_once(steps in prop::collection::vec(step(), 0..60)) {
        let mut model = Model {
            set: HashMap::new(),
            yard: Yard::new(1),
            ready: BTreeSet::new(),
            out: Vec::new(),
            last_place: 0,
            last_number: 0,
            now: 1_000,
        };
        for step in steps {
            model.apply(step);
            let places: BTreeSet<u64> = model.ready.iter().map(|(_, place)| *place).chain(model.out.iter().copied()).collect();
            prop_assert_eq!(places.len(), model.ready.len() + model.out.len(), "one place, twice");
            let members: std::collections::HashSet<_> =
                places.iter().map(|place| model.yard.get(*place).expect("known").bytes.clone()).collect();
            prop_assert_eq!(members.len(), places.len(), "one member, twice");
        }
        // Looked at often enough, quietly: as often as it says there is more, and a few times for the counts.
        for _ in 0..8 {
            let mut looks = 0;
            while model.look(4) {
                looks += 1;
                prop_assert!(looks < 1_000, "it never says that this was all");
            }
        }
        let due = model.set.values().filter(|due| **due <= model.now).count();
        let strange = model.set.iter().filter(|(bytes, due)| bytes[0] == 2 && **due <= model.now).count();
        prop_assert_eq!(model.ready.len() + model.out.len() + strange, due);
        prop_assert_eq!(model.yard.total, model.set.len());
        let mut counts = HashMap::new();
        for bytes in model.set.keys() {
            if let Ok(one) = Member::decode(bytes) {
                *counts.entry(queue_of(&one)).or_default() += 1;
            }
        }
        prop_assert_eq!(&model.yard.by_queue, &counts);
    }
}

#[test]
fn what_was_done_with_during_a_look_is_not_taken_in_again() {
    let mut yard = Yard::new(1);
    let read = vec![(member(1, 0), 5)];
    let ranks = yard.begin_look(10);
    let taken = yard.take_in(ranks, read.clone(), 1, queue_of, || 7);
    assert_eq!(taken.ready, [(5, 7)]);
    let ranks = yard.begin_look(10);
    yard.hand_out(7);
    yard.removed(7);
    assert!(yard.take_in(ranks, read.clone(), 1, queue_of, || 8).ready.is_empty());
    // Seen again by a look that began later, it is there again.
    let ranks = yard.begin_look(10);
    assert_eq!(yard.take_in(ranks, read, 1, queue_of, || 9).ready, [(5, 9)]);
}
