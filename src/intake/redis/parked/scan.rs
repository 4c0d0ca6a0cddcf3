//! Parked requests as anybody may see them: pages, counts, and releases, over the sets of all units.
//!
//! The sets are ordered by when their members are due, and asked for by how long they have waited: so a page of a list
//! reads all of them once, in scripts of [`PAGE`] members that answer counts and the few that are wanted. That takes
//! about a second for a million. What is parked or released meanwhile may be missed, or seen twice.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::member::Member;
use super::scripts::{self, Age, Filter, MEMBERS_MAX};
use crate::domain::{UnixMs, WaitReason};
use crate::intake::redis::Keys;
use crate::redis::{Command, Failure, Link, Value};

/// Members in one script: it holds Redis up for less than a millisecond.
pub const PAGE: usize = 500;

/// A page of a list.
#[derive(Debug, Default)]
pub struct Listed {
    /// The longest waiting first; when each is due: its score, less than a time where it was released.
    pub members: Vec<(Age, Member, UnixMs)>,
    pub has_more: bool,
    /// Of all that passes the filter.
    pub counts: BTreeMap<WaitReason, u64>,
    /// What this release cannot read, whatever the filter.
    pub unreadable_count: u64,
}

pub struct Scan<'l> {
    link: &'l mut Link,
    keys: &'l Keys,
}

impl<'l> Scan<'l> {
    pub fn new(link: &'l mut Link, keys: &'l Keys) -> Scan<'l> {
        Scan { link, keys }
    }

    /// Up to `limit` behind `after`, and the counts of all.
    pub fn list(&mut self, filter: &Filter, after: Age, limit: usize) -> Result<Listed, Failure> {
        // One more than is wanted says whether there is more.
        let mut found = Found { wanted: limit + 1, ..Found::default() };
        let ask = |found: &Found, key: &str, start: usize| {
            scripts::look(key, start, PAGE, filter, (after, found.until(), found.wanted))
        };
        self.walk(&mut found, ask, Found::take_in)?;
        let Found { first, mut listed, .. } = found;
        listed.has_more = first.len() > limit;
        for ((age, bytes), due) in first.into_iter().take(limit) {
            // The script picks none of another version.
            listed.members.extend(Member::decode(&bytes).ok().map(|member| (age, member, due)));
        }
        Ok(listed)
    }

    /// Makes due what passes the filter; of it, only `ids` if any are given. How many were waiting. Their units' owners
    /// notice within a second.
    pub fn release(&mut self, filter: &Filter, ids: Option<&[String]>) -> Result<u64, Failure> {
        let mut released = 0;
        let chunks: Vec<&[String]> = ids.map_or(vec![&[]], |ids| ids.chunks(MEMBERS_MAX).collect());
        for ids in chunks {
            let ask = |_: &u64, key: &str, start: usize| scripts::release(key, start, PAGE, filter, ids);
            self.walk(&mut released, ask, |released, reply| {
                let (member_count, count) = scripts::read_release(reply)?;
                *released += count as u64;
                Ok(member_count)
            })?;
        }
        Ok(released)
    }

    /// Goes through all sets at once, page by page: `ask` makes the command of a page, `saw` takes its reply and answers
    /// how many members the page had.
    fn walk<S>(
        &mut self,
        state: &mut S,
        ask: impl Fn(&S, &str, usize) -> Command,
        saw: impl Fn(&mut S, Value) -> Result<usize, Failure>,
    ) -> Result<(), Failure> {
        let keys = self.keys.units().ids().map(|unit| (self.keys.parked(unit), 0));
        let mut open: Vec<(String, usize)> = keys.collect();
        while !open.is_empty() {
            let commands: Vec<Command> = open.iter().map(|(key, start)| ask(state, key, *start)).collect();
            let replies = self.link.round(&commands);
            let mut still = Vec::new();
            for ((key, start), reply) in open.into_iter().zip(replies) {
                let count = saw(state, reply?)?;
                if count == PAGE {
                    still.push((key, start + count));
                }
            }
            open = still;
        }
        Ok(())
    }
}

/// What a list has come to so far.
#[derive(Default)]
struct Found {
    wanted: usize,
    first: BTreeMap<(Age, Bytes), UnixMs>,
    listed: Listed,
}

impl Found {
    /// What comes behind this is not wanted any more.
    fn until(&self) -> Age {
        let is_full = self.first.len() == self.wanted;
        self.first.last_key_value().filter(|_| is_full).map_or(Age::LAST, |((age, _), _)| *age)
    }

    fn take_in(&mut self, reply: Value) -> Result<usize, Failure> {
        let looked = scripts::read_look(reply)?;
        for (group, count) in looked.groups {
            match group.first().and_then(|reason| WaitReason::from_u8(*reason)) {
                Some(reason) => *self.listed.counts.entry(reason).or_default() += count as u64,
                None => self.listed.unreadable_count += count as u64,
            }
        }
        self.first.extend(looked.picked.into_iter().map(|(bytes, due)| ((Age::of(&bytes), bytes), due)));
        while self.first.len() > self.wanted {
            self.first.pop_last();
        }
        Ok(looked.member_count)
    }
}
