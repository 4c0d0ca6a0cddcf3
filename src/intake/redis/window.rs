//! How far one list is read, done and acknowledged: its sealed generations and what of them is under way. Pure.
//!
//! Elements have positions, counted through all generations of a window. What holds: positions are read once each and
//! in order; a generation is trimmed by exactly the elements at its head whose requests are all done; a length that is
//! not what it must be is never explained away: the window is given up, and a fresh one reads everything again
//! (redelivery changes nothing, an ack of something unread would lose it). Absent: keys, connections, requests.

use std::collections::VecDeque;

use crate::domain::UnixMs;

/// One of the two keys a live list is sealed into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

impl Side {
    pub const ALL: [Side; 2] = [Side::A, Side::B];

    pub fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Generation {
    side: Side,
    /// The position behind its last element.
    end: u64,
    /// It was found there: somebody may have sent its requests.
    is_inherited: bool,
}

/// An element that was read and is not trimmed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flight {
    /// Requests, and dead parts, of which nothing final is recorded.
    pub undone: u32,
    pub requests: u32,
    /// Memory that it takes.
    pub bytes: u32,
}

/// Elements to be read next: `offset` from the oldest of what is left of the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub side: Side,
    pub offset: u64,
    /// How many there are.
    pub count: u64,
    pub is_inherited: bool,
}

/// The oldest `count` elements of a generation that has `expected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub side: Side,
    pub expected: u64,
    pub count: u64,
}

/// A generation does not have the length that it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} elements where {expected} must be")]
pub struct Mismatch {
    pub side: Side,
    pub expected: u64,
    pub found: u64,
}

/// Requests in memory and the bytes they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    pub requests: u64,
    pub bytes: u64,
}

#[derive(Debug)]
pub struct Window {
    /// In the order in which they are read; two at the most.
    generations: VecDeque<Generation>,
    /// What was read, from the position `acked` on.
    flights: VecDeque<Flight>,
    /// How many of the first flights are done.
    done: usize,
    acked: u64,
    /// Sent and not answered.
    ack: Option<Ack>,
    /// Whether the lengths are what was counted, or must be looked at first.
    is_known: bool,
    held: Weight,
    under_way: u64,
    /// Appends that may have been executed: the side, and how many.
    appends: Option<(Side, u64)>,
    /// By side: nothing is sealed into it before this time of the server, as an ack may still be on its way.
    not_before: [UnixMs; 2],
    /// By side: a seal into it or an append may be executed until then without our being told; then one more look
    /// tells. It is not trimmed before, as its length would prove nothing.
    look_again_at: [Option<UnixMs>; 2],
    /// The live list may hold what a restart brought back: what is sealed next may have been sent before.
    may_be_restored: bool,
    /// An ack that was not executed when we looked may be, and have what is read since begin too late. So a length
    /// that another ack would explain is not explained by it.
    is_ack_late: bool,
}

impl Default for Window {
    fn default() -> Window {
        Window::new()
    }
}

impl Window {
    pub fn new() -> Window {
        Window {
            generations: VecDeque::new(),
            flights: VecDeque::new(),
            done: 0,
            acked: 0,
            ack: None,
            appends: None,
            is_known: false,
            held: Weight::default(),
            under_way: 0,
            not_before: [0; 2],
            look_again_at: [None; 2],
            // Whoever owned it before may have sent what a restart has put back into the live list.
            may_be_restored: true,
            is_ack_late: false,
        }
    }

    /// A fresh one of the same list and epoch. Commands of the old one may still be on their way.
    pub fn renewed(&self) -> Window {
        let Window { not_before, look_again_at, may_be_restored, .. } = *self;
        let is_ack_late = self.is_ack_late || self.ack.is_some();
        Window { not_before, look_again_at, may_be_restored, is_ack_late, ..Window::new() }
    }

    /// Whether the lengths are known; if not, [`learn`](Window::learn) comes first.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// Something may have happened that we were not told of: look before anything else.
    pub fn doubt(&mut self) {
        self.is_known = false;
    }

    /// The server may have been restarted, and have taken back what it did last.
    pub fn restored(&mut self) {
        self.may_be_restored = true;
        self.doubt();
    }

    /// Takes in the lengths as they are, of `a` and `b`. Of two that nothing is known of, `a` is read first.
    pub fn learn(&mut self, lengths: [u64; 2]) -> Result<(), Mismatch> {
        if let Some(ack) = self.ack.take() {
            let is_done = lengths[ack.side as usize] == ack.expected - ack.count;
            if is_done && !self.is_ack_late {
                // It was executed, its reply lost.
                self.advance(ack.count);
            } else {
                self.is_ack_late = true;
            }
        }
        if let Some((side, count)) = self.appends.take() {
            let more = lengths[side as usize].saturating_sub(self.length_of(side)).min(count);
            self.grow(side, more);
        }
        for side in Side::ALL {
            let (expected, found) = (self.length_of(side), lengths[side as usize]);
            if expected == 0 && found > 0 {
                // Left by another owner, brought back by a restart, or sealed by a command whose reply was lost.
                self.append(side, found, true);
            } else if expected != found {
                return Err(Mismatch { side, expected, found });
            }
        }
        self.is_known = true;
        Ok(())
    }

    /// What a generation must have in Redis.
    fn length_of(&self, side: Side) -> u64 {
        let mut start = self.acked;
        for generation in &self.generations {
            if generation.side == side {
                return generation.end - start;
            }
            start = generation.end;
        }
        0
    }

    fn append(&mut self, side: Side, count: u64, is_inherited: bool) {
        assert!(self.generations.iter().all(|generation| generation.side != side), "sealed over elements");
        let end = self.end() + count;
        self.generations.push_back(Generation { side, end, is_inherited });
    }

    /// The position behind the last element known of.
    fn end(&self) -> u64 {
        self.generations.back().map_or(self.acked, |generation| generation.end)
    }

    fn read_position(&self) -> u64 {
        self.acked + self.flights.len() as u64
    }

    /// Elements known of and not read.
    pub fn unread(&self) -> u64 {
        self.end() - self.read_position()
    }

    /// Elements of the generations, read or not.
    pub fn length(&self) -> u64 {
        self.end() - self.acked
    }

    /// What can be read, before any ack that is not confirmed.
    pub fn next_read(&self) -> Option<Read> {
        let position = self.read_position();
        let mut start = self.acked;
        for generation in self.generations.iter().filter(|_| self.is_known) {
            if position < generation.end {
                let Generation { side, end, is_inherited } = *generation;
                return Some(Read { side, offset: position - start, count: end - position, is_inherited });
            }
            start = generation.end;
        }
        None
    }

    /// The next element was read; answers its position.
    pub fn took(&mut self, flight: Flight) -> u64 {
        let position = self.read_position();
        assert!(position < self.end(), "read past what is sealed");
        self.held.requests += u64::from(flight.requests);
        self.held.bytes += u64::from(flight.bytes);
        self.under_way += u64::from(flight.undone);
        self.flights.push_back(flight);
        self.count_done();
        position
    }

    /// One more request (or dead part) of an element is done.
    pub fn done(&mut self, position: u64) {
        let at = position.checked_sub(self.acked).expect("an element that is trimmed already");
        let flight = self.flights.get_mut(at as usize).expect("an element that was not read");
        flight.undone = flight.undone.checked_sub(1).expect("more done than there was to do");
        self.under_way -= 1;
        if at as usize == self.done {
            self.count_done();
        }
    }

    fn count_done(&mut self) {
        while self.flights.get(self.done).is_some_and(|flight| flight.undone == 0) {
            self.done += 1;
        }
    }

    /// Requests that were read and will never be done by this window.
    pub fn forget(&mut self, requests: u64) {
        self.under_way -= requests;
    }

    /// Requests (and dead parts) that were read and are not done.
    pub fn under_way(&self) -> u64 {
        self.under_way
    }

    /// What it holds in memory.
    pub fn held(&self) -> Weight {
        self.held
    }

    /// What can be acknowledged, if nothing is being.
    pub fn next_ack(&self) -> Option<Ack> {
        let can_ack = |front: &&Generation| {
            self.is_known && self.ack.is_none() && self.look_again_at[front.side as usize].is_none()
        };
        let generation = self.generations.front().filter(can_ack)?;
        let expected = generation.end - self.acked;
        let count = expected.min(self.done as u64);
        (count > 0).then_some(Ack { side: generation.side, expected, count })
    }

    pub fn is_acking(&self) -> bool {
        self.ack.is_some()
    }

    /// It is being sent.
    pub fn sending(&mut self, ack: Ack) {
        assert_eq!(self.next_ack(), Some(ack), "an ack of something else");
        self.ack = Some(ack);
    }

    /// It was executed.
    pub fn acked(&mut self) {
        let ack = self.ack.take().expect("an ack under way");
        self.advance(ack.count);
    }

    /// It was certainly not executed.
    pub fn ack_refused(&mut self) -> Ack {
        self.ack.take().expect("an ack under way")
    }

    /// It may have been executed, or may be, until `deadline`.
    pub fn ack_doubtful(&mut self, deadline: UnixMs) {
        let side = self.ack.expect("an ack under way").side;
        let not_before = &mut self.not_before[side as usize];
        *not_before = (*not_before).max(deadline + 1);
        self.doubt();
    }

    fn advance(&mut self, count: u64) {
        for flight in self.flights.drain(..count as usize) {
            assert_eq!(flight.undone, 0, "trimmed before it was done");
            self.held.requests -= u64::from(flight.requests);
            self.held.bytes -= u64::from(flight.bytes);
        }
        self.done -= count as usize;
        self.acked += count;
        // Whatever ack of this generation is late, it expects more elements than there ever are again.
        self.is_ack_late = false;
        if self.generations.front().is_some_and(|generation| generation.end == self.acked) {
            self.generations.pop_front();
        }
    }

    /// Where the live list may be sealed into, and from which time of the server on: everything is read, and a side
    /// is free.
    pub fn next_seal(&self) -> Option<(Side, UnixMs)> {
        if !self.is_known || self.unread() > 0 {
            return None;
        }
        let is_free = |side: &Side| self.generations.iter().all(|generation| generation.side != *side);
        let free = Side::ALL.into_iter().filter(is_free).map(|side| (side, self.not_before[side as usize]));
        free.min_by_key(|(side, not_before)| (*not_before, self.look_again_at[*side as usize]))
    }

    /// Which generation may be appended to, and how many elements it has: everything is read, and no side is free.
    pub fn next_append(&self) -> Option<(Side, u64)> {
        let can_append = self.is_known && self.unread() == 0 && self.generations.len() == Side::ALL.len();
        let last = self.generations.back().filter(|_| can_append)?;
        let is_settled = self.look_again_at[last.side as usize].is_none();
        is_settled.then(|| (last.side, self.length_of(last.side)))
    }

    /// One element was appended, and the generation has so many now.
    pub fn appended(&mut self, side: Side, length: u64) {
        self.grow(side, length.saturating_sub(self.length_of(side)));
    }

    /// Up to so many may have been appended, or may be, until `deadline`.
    pub fn append_doubtful(&mut self, side: Side, count: u64, deadline: UnixMs) {
        self.appends = Some((side, count));
        self.may_grow(side, deadline);
    }

    fn grow(&mut self, side: Side, count: u64) {
        if count > 0 {
            let last = self.generations.back_mut().expect("a generation that was appended to");
            assert_eq!(last.side, side, "appended to another than the last");
            last.end += count;
            last.is_inherited |= self.may_be_restored;
        }
    }

    /// The live list may have been sealed, or may be, until `deadline`.
    pub fn seal_doubtful(&mut self, side: Side, deadline: UnixMs) {
        self.may_grow(side, deadline);
    }

    fn may_grow(&mut self, side: Side, deadline: UnixMs) {
        let at = &mut self.look_again_at[side as usize];
        *at = (*at).max(Some(deadline + 1));
        self.doubt();
    }

    /// Doubts what is known once it is too late for what was sent and not answered.
    pub fn look_again(&mut self, server_ms: UnixMs) {
        for at in &mut self.look_again_at {
            if at.is_some_and(|at| at <= server_ms) {
                (*at, self.is_known) = (None, false);
            }
        }
    }

    /// The live list was sealed into a side.
    pub fn sealed(&mut self, side: Side, count: u64) {
        let is_inherited = std::mem::take(&mut self.may_be_restored);
        self.append(side, count, is_inherited);
    }

    /// There was nothing in the live list to be sealed: what comes is new.
    pub fn found_dry(&mut self) {
        self.may_be_restored = false;
    }

    /// Nothing is known of that is not acknowledged.
    pub fn is_empty(&self) -> bool {
        self.is_known && self.generations.is_empty()
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
