//! Repeats of requests that have no outcome yet: which of them are appended again.
//!
//! Redelivery is harmless to money and not to the pace: each append of a paid request is one more question to the
//! wallet. So a repeat of what is known to stand in a list is told how it stands, and appended again only when it should
//! have been settled long since. Where nothing is known, because another instance took it in or a door died between
//! registering and appending, it is appended, to the shard that knows its id; and the id then says so to all, who know by
//! that which shard is meant. What holds: nobody is told that a request waits who cannot be sure that it stands in a list.

use std::collections::HashMap;

use super::judge;
use super::push::{Lists, Pushed};
use super::queue::Push;
use super::rounds::Clerk;
use super::{Outlook, Repeat, refusal};
use crate::domain::{Kind, Request, UnixMs, record};
use crate::intake::desk::Refused;
use crate::intake::embedded::identity::known_id;
use crate::intake::redis::identity::{self, REGISTER_COUNT_MAX, id_field};
use crate::intake::refusals::Refusals;
use crate::redis::Command;

/// The least time between two appends of one request. On top comes twice what the backlog should take.
const AGAIN_MS_MIN: u64 = 10_000;

/// What becomes of a repeat.
pub enum Course {
    /// It stands in a list.
    Stands,
    Refused(Refused),
    /// It is appended, in the list of this number.
    Again(usize),
}

impl Clerk {
    /// Decides about repeats, and puts those in their lists that are appended again: each request once.
    pub fn repeats<'p>(
        &self,
        pushes: &'p [Push],
        lists: &mut Lists<'p>,
        now: UnixMs,
        outlook: &Outlook,
    ) -> Vec<Vec<Course>> {
        let mut again: HashMap<&[u8], usize> = HashMap::new();
        let mut course = |repeat: &'p Repeat| {
            if let Some(refused) = self.stands(repeat, now, outlook) {
                return refused.map_or(Course::Stands, Course::Refused);
            }
            let identity = record::identity(&repeat.record);
            let place_hash = record::key_hash(&repeat.record);
            let list = again.entry(identity).or_insert_with(|| lists.add(place_hash, &repeat.record, true));
            Course::Again(*list)
        };
        let of_push = |push: &'p Push| push.repeats.iter().map(&mut course).collect::<Vec<Course>>();
        pushes.iter().map(of_push).collect()
    }

    /// Why a repeat is not appended again: because it stands in a list (`Some(None)`), or is refused; `None`: it is.
    fn stands(&self, repeat: &Repeat, now: UnixMs, outlook: &Outlook) -> Option<Option<Refused>> {
        let unknown = |refused: Refused| Some(Some(Refused { accepted_unknown: true, ..refused }));
        if let Some(reason) = &outlook.closed {
            // What Redis has lost is in no list, whatever was appended.
            return unknown(refusal::closed(reason));
        }
        let here = self.lately.age_ms(&repeat.record);
        // Whoever noted it has appended it there.
        let shard = self.keys.units().shard_of(record::key_hash(&repeat.record));
        let noted = repeat.appended_again_at.filter(|at| self.lately.believes(shard, *at));
        let lately = AGAIN_MS_MIN.saturating_add(outlook.promises.whole_ms(0).saturating_mul(2));
        if here.is_some_and(|age_ms| age_ms < lately) || noted.is_some_and(|at| now.abs_diff(at) < lately) {
            return Some(None);
        }
        let request = Request::decode(&repeat.record).expect("it was accepted");
        match judge::room_again(&request, outlook, &self.options) {
            Ok(()) => None,
            Err(_) if here.is_some() || noted.is_some() => Some(None),
            Err(refused) => unknown(refused),
        }
    }

    /// Has the ids say that these were appended again. Best effort: without it they are once more.
    pub fn note_appended(&mut self, pushes: &[Push], courses: &[Vec<Course>], pushed: &Pushed) {
        let mut fields: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
        let each = pushes.iter().zip(courses).flat_map(|(push, courses)| push.repeats.iter().zip(courses));
        for (repeat, course) in each {
            let Course::Again(list) = course else { continue };
            let request = Request::decode(&repeat.record).expect("it was accepted");
            // A cancel stands for nothing under the id that it burns.
            if pushed.of(*list).is_none() && request.kind != Kind::Cancel {
                let key = self.keys.ids(request.key_hash);
                fields.entry(key).or_default().push(id_field(request.client, known_id(&request)));
            }
        }
        let commands: Vec<Command> = fields
            .iter()
            .flat_map(|(key, fields)| fields.chunks(REGISTER_COUNT_MAX).map(move |chunk| (key, chunk)))
            .map(|(key, chunk)| identity::note(key, chunk.iter().map(Vec::as_slice)))
            .collect();
        for failure in self.link.round(&commands).into_iter().filter_map(Result::err) {
            tracing::debug!(%failure, "repeats that were appended are not noted");
        }
    }
}

/// Tells whoever asked, and has those counted that are refused.
pub fn answer(
    pushes: Vec<Push>,
    courses: Vec<Vec<Course>>,
    pushed: &Pushed,
    refusals: &Refusals,
    now: UnixMs,
) {
    for (push, courses) in pushes.into_iter().zip(courses) {
        let told = courses.into_iter().map(|course| match course {
            Course::Stands => None,
            Course::Refused(refused) => Some(refused),
            Course::Again(list) => pushed.of(list).cloned(),
        });
        let told: Vec<Option<Refused>> = told.collect();
        told.iter().flatten().for_each(|refused| refusals.note(refused, 1, now));
        push.answer.send(told).unwrap_or(());
    }
}
