//! The window against a model of Redis: whatever is lost on the way, late or done out of order, nothing is trimmed
//! before it is done, nothing is skipped, and nothing is read twice by one window.

use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;

/// Redis as far as one list goes; times are counted in steps.
#[derive(Default)]
struct Model {
    live: VecDeque<u32>,
    sides: [VecDeque<u32>; 2],
    now: UnixMs,
    epoch: u64,
    trimmed: Vec<u32>,
}

/// A command that was sent, under an epoch.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Ack { ack: Ack, deadline: UnixMs, epoch: u64 },
    Seal { side: Side, not_before: UnixMs, deadline: UnixMs, epoch: u64 },
    Append { side: Side, length: u64, deadline: UnixMs, epoch: u64 },
}

#[derive(Debug, PartialEq)]
enum Said {
    Done(u64),
    Refused,
    Length(u64),
}

impl Model {
    fn lengths(&self) -> [u64; 2] {
        Side::ALL.map(|side| self.sides[side as usize].len() as u64)
    }

    /// What the scripts do.
    fn execute(&mut self, sent: Sent) -> Said {
        match sent {
            Sent::Ack { epoch, deadline, .. }
            | Sent::Seal { epoch, deadline, .. }
            | Sent::Append { epoch, deadline, .. }
                if epoch != self.epoch || self.now > deadline =>
            {
                Said::Refused
            }
            Sent::Ack { ack, .. } => {
                let list = &mut self.sides[ack.side as usize];
                if list.len() as u64 != ack.expected {
                    return Said::Length(list.len() as u64);
                }
                self.trimmed.extend(list.drain(..ack.count as usize));
                Said::Done(list.len() as u64)
            }
            Sent::Seal { side, not_before, .. } => {
                let is_free = self.sides[side as usize].is_empty();
                if !is_free || self.live.is_empty() || self.now < not_before {
                    return Said::Refused;
                }
                self.sides[side as usize] = std::mem::take(&mut self.live);
                Said::Done(self.sides[side as usize].len() as u64)
            }
            Sent::Append { side, length, .. } => {
                let list = &mut self.sides[side as usize];
                if list.len() as u64 != length || self.live.is_empty() {
                    return Said::Refused;
                }
                list.extend(self.live.pop_front());
                Said::Done(list.len() as u64)
            }
        }
    }
}

/// What becomes of a command.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    NeverSent,
    LostBefore,
    LostAfter,
    /// No reply, and executed later, if ever.
    Late,
}

#[derive(Clone, Debug)]
enum Op {
    Push(u8),
    Read {
        count: u8,
        requests: u8,
    },
    Done(u8),
    Ack(Fate),
    Seal(Fate),
    Append(Fate),
    Learn,
    Deliver,
    Tick(u8),
    /// Another owner, or the same under a later epoch.
    Reacquire,
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::NeverSent),
        1 => Just(Fate::LostBefore),
        1 => Just(Fate::LostAfter),
        1 => Just(Fate::Late),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1..5u8).prop_map(Op::Push),
        6 => (1..6u8, 0..3u8).prop_map(|(count, requests)| Op::Read { count, requests }),
        9 => any::<u8>().prop_map(Op::Done),
        4 => fates().prop_map(Op::Ack),
        4 => fates().prop_map(Op::Seal),
        3 => fates().prop_map(Op::Append),
        3 => Just(Op::Learn),
        2 => Just(Op::Deliver),
        2 => (1..9u8).prop_map(Op::Tick),
        1 => Just(Op::Reacquire),
    ]
}

/// Little else than commands that are executed late, among generations of one or two elements: what proves by its
/// length alone that it is the right one is often wrong.
fn late_ops() -> impl Strategy<Value = Op> {
    let late = || prop_oneof![2 => Just(Fate::Answered), 1 => Just(Fate::Late)];
    prop_oneof![
        4 => (1..3u8).prop_map(Op::Push),
        4 => Just(Op::Read { count: 2, requests: 0 }),
        4 => late().prop_map(Op::Ack),
        4 => late().prop_map(Op::Seal),
        2 => late().prop_map(Op::Append),
        4 => Just(Op::Learn),
        2 => Just(Op::Deliver),
        1 => Just(Op::Tick(1)),
    ]
}

const TIME: UnixMs = 4;

#[derive(Default)]
struct Run {
    model: Model,
    window: Window,
    next: u32,
    /// Position and element of every request under way.
    under_way: Vec<(u64, u32)>,
    undone: HashMap<u32, usize>,
    done: HashSet<u32>,
    trimmed: HashSet<u32>,
    read_by_window: HashSet<u32>,
    late: VecDeque<Sent>,
}

impl Run {
    fn restart(&mut self, window: Window) {
        self.window = window;
        self.under_way.clear();
        self.undone.clear();
        self.read_by_window.clear();
    }

    fn learn(&mut self) {
        self.window.look_again(self.model.now);
        if self.window.is_known() {
            return;
        }
        if self.window.learn(self.model.lengths()).is_err() {
            self.restart(self.window.renewed());
        }
    }

    fn read(&mut self, count: u64, requests: u32) {
        let Some(read) = self.window.next_read() else { return };
        let list = &self.model.sides[read.side as usize];
        let taken: Vec<u32> =
            list.iter().skip(read.offset as usize).take(count.min(read.count) as usize).copied().collect();
        if taken.len() as u64 != count.min(read.count) {
            return self.restart(self.window.renewed());
        }
        for element in taken {
            let position = self.window.took(Flight { undone: requests, requests, bytes: 1 });
            // A late ack may have shifted what is read; then nothing read since may be trimmed at all.
            self.read_by_window.insert(element);
            self.under_way.extend((0..requests).map(|_| (position, element)));
            self.undone.insert(element, requests as usize);
            if requests == 0 {
                self.done.insert(element);
            }
        }
    }

    fn finish(&mut self, at: usize) {
        if self.under_way.is_empty() {
            return;
        }
        let (position, element) = self.under_way.swap_remove(at % self.under_way.len());
        self.window.done(position);
        let left = self.undone.get_mut(&element).unwrap();
        *left -= 1;
        if *left == 0 {
            self.done.insert(element);
        }
    }

    /// Sends it, and answers what the reader hears: nothing, if the reply is lost.
    fn send(&mut self, sent: Sent, fate: Fate) -> Option<Said> {
        match fate {
            Fate::Answered => Some(self.model.execute(sent)),
            Fate::NeverSent => Some(Said::Refused),
            Fate::LostBefore => None,
            Fate::LostAfter => {
                self.model.execute(sent);
                None
            }
            Fate::Late => {
                self.late.push_back(sent);
                None
            }
        }
    }

    fn ack(&mut self, fate: Fate) {
        let Some(ack) = self.window.next_ack() else { return };
        self.window.sending(ack);
        let deadline = self.model.now + TIME;
        match self.send(Sent::Ack { ack, deadline, epoch: self.model.epoch }, fate) {
            Some(Said::Done(_)) => self.window.acked(),
            Some(Said::Refused) => {
                self.window.ack_refused();
            }
            Some(Said::Length(_)) => self.restart(self.window.renewed()),
            None => self.window.ack_doubtful(deadline),
        }
    }

    fn seal(&mut self, fate: Fate) {
        let Some((side, not_before)) = self.window.next_seal() else { return };
        let is_free = self.model.sides[side as usize].is_empty();
        let deadline = self.model.now + TIME;
        match self.send(Sent::Seal { side, not_before, deadline, epoch: self.model.epoch }, fate) {
            Some(Said::Done(count)) => self.window.sealed(side, count),
            Some(_) if is_free => {}
            Some(_) => self.window.doubt(),
            None => self.window.seal_doubtful(side, deadline),
        }
    }

    fn append(&mut self, fate: Fate) {
        let Some((side, length)) = self.window.next_append() else { return };
        let deadline = self.model.now + TIME;
        let was = self.model.sides[side as usize].len() as u64;
        match self.send(Sent::Append { side, length, deadline, epoch: self.model.epoch }, fate) {
            Some(Said::Done(length)) => self.window.appended(side, length),
            Some(_) if was == length => {}
            Some(_) => self.window.doubt(),
            None => self.window.append_doubtful(side, 1, deadline),
        }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Push(count) => {
                self.model.live.extend(self.next..self.next + u32::from(count));
                self.next += u32::from(count);
            }
            Op::Read { count, requests } => self.read(u64::from(count), u32::from(requests)),
            Op::Done(at) => self.finish(usize::from(at)),
            Op::Ack(fate) => self.ack(fate),
            Op::Seal(fate) => self.seal(fate),
            Op::Append(fate) => self.append(fate),
            Op::Learn => self.learn(),
            Op::Deliver => {
                // Of several connections, in any order.
                if let Some(sent) =
                    if self.next.is_multiple_of(2) { self.late.pop_front() } else { self.late.pop_back() }
                {
                    self.model.execute(sent);
                }
            }
            Op::Tick(steps) => self.model.now += u64::from(steps),
            Op::Reacquire => {
                self.model.epoch += 1;
                self.restart(Window::new());
            }
        }
    }

    fn check(&mut self) {
        for element in &self.model.trimmed[self.trimmed.len()..] {
            assert!(self.trimmed.insert(*element), "{element} was trimmed twice");
            assert!(self.done.contains(element), "{element} was trimmed before it was done");
        }
    }

    /// Everything that was pushed is read, done and trimmed, once nothing is lost any more.
    fn drain(&mut self) {
        self.late.clear();
        for _ in 0..10_000 {
            self.model.now += 1;
            self.learn();
            self.read(8, 1);
            self.finish(0);
            self.ack(Fate::Answered);
            self.seal(Fate::Answered);
            self.check();
            if self.model.trimmed.len() == self.next as usize {
                return;
            }
        }
        panic!("{} of {} trimmed: stuck", self.model.trimmed.len(), self.next);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_whatever_becomes_of_the_commands(ops in prop::collection::vec(ops(), 1..200)) {
        let mut run = Run::default();
        for op in &ops {
            run.step(op);
            run.check();
        }
        run.drain();
    }

    #[test]
    fn nothing_is_lost_by_commands_that_come_late(ops in prop::collection::vec(late_ops(), 1..150)) {
        let mut run = Run::default();
        for op in &ops {
            run.step(op);
            run.check();
        }
        run.drain();
    }

    /// Where no command is late, and no ack in doubt twice, a window reads every element once, in order.
    #[test]
    fn every_element_is_read_once_and_in_order(ops in prop::collection::vec(ops(), 1..200)) {
        let mut run = Run::default();
        let mut seen = 0;
        let is_calm = |op: &&Op| {
            !matches!(
                op,
                Op::Reacquire
                    | Op::Ack(Fate::Late | Fate::LostBefore)
                    | Op::Seal(Fate::Late | Fate::LostAfter)
                    | Op::Append(Fate::Late)
            )
        };
        for op in ops.iter().filter(is_calm) {
            let before = run.read_by_window.len();
            run.step(op);
            let added = run.read_by_window.len() - before;
            prop_assert!((seen..seen + added as u32).all(|element| run.read_by_window.contains(&element)));
            seen += added as u32;
        }
        prop_assert_eq!(run.read_by_window.len() as u32, seen);
    }
}

#[test]
fn of_two_inherited_generations_a_is_read_first() {
    let mut window = Window::new();
    assert_eq!((window.next_read(), window.next_seal()), (None, None));
    window.learn([2, 3]).unwrap();
    let read = |side, offset, count| Some(Read { side, offset, count, is_inherited: true });
    assert_eq!(window.next_read(), read(Side::A, 0, 2));
    for _ in 0..3 {
        window.took(Flight { undone: 1, requests: 1, bytes: 10 });
    }
    assert_eq!(window.next_read(), read(Side::B, 1, 2));
    assert_eq!((window.held(), window.under_way()), (Weight { requests: 3, bytes: 30 }, 3));
    window.done(1);
    assert_eq!(window.next_ack(), None, "the first is not done");
    window.done(0);
    window.done(2);
    let ack = Ack { side: Side::A, expected: 2, count: 2 };
    assert_eq!(window.next_ack(), Some(ack));
    window.sending(ack);
    assert_eq!(window.next_ack(), None, "one at a time");
    window.acked();
    assert_eq!(window.next_ack(), Some(Ack { side: Side::B, expected: 3, count: 1 }));
    assert_eq!(window.next_seal(), None, "there is something to read");
    window.took(Flight::default());
    window.took(Flight::default());
    assert_eq!(window.next_seal(), Some((Side::A, 0)));
}

#[test]
fn what_is_sealed_first_may_have_been_sent_unless_there_was_nothing_before() {
    for (was_dry, expected) in [(false, true), (true, false)] {
        let mut window = Window::new();
        window.learn([0, 0]).unwrap();
        if was_dry {
            window.found_dry();
        }
        window.sealed(Side::A, 1);
        assert_eq!(window.next_read().map(|read| read.is_inherited), Some(expected), "dry: {was_dry}");
        window.took(Flight::default());
        window.sealed(Side::B, 1);
        assert_eq!(window.next_read().map(|read| read.is_inherited), Some(false), "what follows is new");
    }
}

#[test]
fn a_side_is_not_sealed_into_while_an_ack_of_it_may_come() {
    let mut window = Window::new();
    window.learn([1, 0]).unwrap();
    window.took(Flight::default());
    let ack = window.next_ack().unwrap();
    window.sending(ack);
    window.ack_doubtful(500);
    assert_eq!((window.next_ack(), window.next_read(), window.next_seal()), (None, None, None));
    window.learn([0, 0]).unwrap();
    assert_eq!(window.next_seal(), Some((Side::B, 0)), "the other one is free");
    window.sealed(Side::B, 4);
    (0..4).for_each(|_| assert!(window.took(Flight::default()) > 0));
    assert_eq!(window.next_seal(), Some((Side::A, 501)));
    assert_eq!(window.renewed().not_before, [501, 0]);
}
