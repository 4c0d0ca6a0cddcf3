//! The third round trip: what batches came to, then the lists; and the answers.
//!
//! What holds: a batch's items are written down before they are appended, so that whoever lists it misses none.

use std::sync::atomic::Ordering;

use super::gather::{Call, Fate, Ids, taken_of};
use super::push::{Lists, Pushed, durability};
use super::queue::Push;
use super::repeats::{self, Course};
use super::rounds::Clerk;
use super::{Dedupe, Finding, Outlook, refusal};
use crate::crash;
use crate::domain::{Request, UnixMs};
use crate::intake::desk::Guarantee;
use crate::intake::redis::UnitId;
use crate::intake::redis::identity::{KnownId, WITHDRAW, decode_head, encode_head, items_field};
use crate::redis::{Command, Failure, Shape, Value};

/// A command about a batch: whose it is, and whether the call rests on it.
struct Note {
    call: usize,
    is_needed: bool,
}

impl Clerk {
    pub fn finish(
        &mut self,
        mut calls: Vec<Call>,
        pushes: Vec<Push>,
        ids: &Ids,
        (now, outlook): (UnixMs, &Outlook),
    ) {
        let is_registered = self.options.dedupe == Dedupe::Strict;
        self.know_servers();
        self.ask_for_lists(&pushes);
        let began = self.lately.moment();
        let (notes, mut commands): (Vec<Note>, Vec<Command>) = self.notes(&calls).into_iter().unzip();
        let mut lists = Lists::new(&self.keys, &self.options);
        let mut placed = Vec::new();
        for (number, call) in calls.iter().enumerate().filter(|(_, call)| call.refused.is_none()) {
            for (at, item) in call.items.iter().enumerate() {
                if matches!(item.fate, Fate::New { .. }) {
                    placed.push((number, at, lists.add(call.place_hash, &item.record, is_registered)));
                }
            }
        }
        let courses = self.repeats(&pushes, &mut lists, now, outlook);
        if !lists.is_empty() {
            crash::point("accept::before_append");
        }
        commands.extend(lists.commands(&self.link));
        let redirected = self.link.redirected_count();
        let mut results = self.link.round(&commands);
        let is_redirected = self.link.redirected_count() != redirected;
        if !lists.is_empty() {
            crash::point("accept::after_append");
        }
        let mut pushed = lists.pushed(results.split_off(notes.len()));
        if is_redirected {
            pushed.forget_replicas();
        }
        pushed.require(self.options.replicas);
        drop(lists);
        self.know_servers();
        let stands = |list: usize| pushed.of(list).is_none();
        let new = placed.iter().filter(|(_, _, list)| stands(*list));
        let new = new
            .map(|(call, item, list)| (pushed.shard_of(*list), calls[*call].items[*item].record.as_slice()));
        self.lately.enter(began, new);
        let again = pushes.iter().zip(&courses).flat_map(|(push, courses)| push.repeats.iter().zip(courses));
        let again = again.filter_map(|(repeat, course)| match course {
            Course::Again(list) if stands(*list) => Some((pushed.shard_of(*list), repeat.record.as_slice())),
            Course::Again(_) | Course::Stands | Course::Refused(_) => None,
        });
        self.lately.enter(began, again);
        for (note, result) in notes.into_iter().zip(results) {
            read_note(&mut calls, &note, result);
        }
        for (call, item, list) in placed {
            calls[call].items[item].fate = Fate::New { list: Some(list) };
        }
        crash::point("accept::before_answer");
        let guarantee = |record: &[u8], replicas: Option<u32>| Guarantee {
            durability: Some(durability(&outlook.durability, replicas)),
            is_duplicate_check_deferred: !is_registered || self.is_listed(record),
        };
        self.answer(calls, ids, &pushed, now, guarantee);
        if courses.iter().flatten().any(|course| matches!(course, Course::Again(_))) {
            self.note_appended(&pushes, &courses, &pushed);
        }
        repeats::answer(pushes, courses, &pushed, &self.counts.refusals, now);
    }

    fn is_listed(&self, record: &[u8]) -> bool {
        Request::decode(record).is_ok_and(|request| self.listed.is_listed(request.client))
    }

    /// Connects before anything is served, as far as that is possible now: a connection that is made later may be to a
    /// server that lost what the other threads know of.
    pub fn connect(&mut self) {
        self.link.round(&self.servers.questions());
        self.servers.changed(&self.link);
    }

    /// What was appended is known for as long as the same servers are behind the same connections. What others noted up to
    /// now may be on the one that is gone.
    fn know_servers(&mut self) {
        for shard in self.servers.changed(&self.link) {
            self.lately.forget(shard, (self.now_ms)());
        }
    }

    /// In a Cluster an id was looked up at another node than the one that has the list, and that one may have lost
    /// what it confirmed. Which list a repeat stands in is not known before, so all shards are asked for. A node that does not
    /// answer says nothing of the others: were their notes given up as well, each repeat would be appended anew for as long
    /// as it is away.
    fn ask_for_lists(&mut self, pushes: &[Push]) {
        if pushes.is_empty() || self.link.shape() != Shape::Cluster {
            return;
        }
        let results = self.link.round(&self.servers.questions());
        self.know_servers();
        let failed = (0..).map(UnitId).zip(results).filter(|(_, result)| result.is_err());
        for (shard, _) in failed {
            self.lately.forget(shard, (self.now_ms)());
        }
    }

    /// What is written down about the batches: their items, or that nothing came of them.
    fn notes(&self, calls: &[Call]) -> Vec<(Note, Command)> {
        let mut notes = Vec::new();
        for (number, call) in calls.iter().enumerate().filter(|(_, call)| call.refused.is_none()) {
            let Some(state) = &call.batch else { continue };
            let key = self.keys.ids(state.hash);
            let taken = taken_of(calls, call, &state.head);
            let is_nothing = call.items.iter().all(|item| matches!(item.fate, Fate::Refused(_)));
            if is_nothing && state.before.is_none() {
                let command =
                    Command::script(&WITHDRAW, &[key.as_bytes()]).arg(&state.field).arg(&state.value);
                notes.push((Note { call: number, is_needed: false }, command));
                continue;
            }
            let stored = state.before.as_ref().unwrap_or(&state.value);
            let (batch, before) = decode_head(stored).expect("decoded or encoded a moment ago");
            // A repeat sees at least what was taken before, unless ids were forgotten meanwhile.
            if is_nothing || before.is_some_and(|before| before.count >= taken.total.count) {
                continue;
            }
            let command = Command::new("HSET", &key)
                .arg(&state.field)
                .arg(encode_head(&batch, Some(taken.total)))
                .arg(items_field(&state.head.client, &state.head.id))
                .arg(taken.ids.join("\n"));
            notes.push((Note { call: number, is_needed: true }, command));
        }
        notes
    }

    fn answer(
        &self,
        calls: Vec<Call>,
        ids: &Ids,
        pushed: &Pushed,
        now: UnixMs,
        guarantee: impl Fn(&[u8], Option<u32>) -> Guarantee,
    ) {
        let list = |item: &super::gather::Item| match item.fate {
            Fate::New { list } => list,
            Fate::Undecided | Fate::Known(_) | Fate::Behind(..) | Fate::Refused(_) => None,
        };
        let lists: Vec<Vec<Option<usize>>> =
            calls.iter().map(|call| call.items.iter().map(list).collect()).collect();
        let (mut counted, refusals) = ([0u64; 2], &self.counts.refusals);
        for call in calls {
            let Call { items, refused, answer, .. } = call;
            if let Some(refused) = refused {
                refusals.note(&refused, items.len() as u64, now);
                answer.send(Err(refused)).unwrap_or(());
                continue;
            }
            let mut findings = Vec::with_capacity(items.len());
            // All requests of a call are one client's, and go to one shard.
            let replicas = items.iter().find_map(list).and_then(|list| pushed.replicas_of(list));
            let guarantee = items.first().map(|item| guarantee(&item.record, replicas)).unwrap_or_default();
            for item in items {
                let of_list = |list: Option<usize>| list.and_then(|list| pushed.of(list)).cloned();
                let finding = match (item.fate, &item.fit) {
                    (Fate::New { list }, Ok(fit)) => match of_list(list) {
                        Some(refused) => Finding::Refused(refused),
                        None => Finding::Accepted {
                            accepted_at: now,
                            estimated_completion_at: fit.estimated_completion_at,
                            guarantee: guarantee.clone(),
                        },
                    },
                    (Fate::Known(held), _) => Finding::Known { held, is_fresh: false, record: item.record },
                    (Fate::Behind(call, at), _) => match of_list(lists[call][at]) {
                        Some(refused) => Finding::Refused(refused),
                        None => fresh(item.record, item.id, ids),
                    },
                    (Fate::Refused(refused), _) => Finding::Refused(refused),
                    (_, Err(refused)) => Finding::Refused(refused.clone()),
                    (Fate::Undecided, Ok(_)) => Finding::Refused(refusal::gone()),
                };
                match &finding {
                    Finding::Accepted { .. } => counted[0] += 1,
                    Finding::Known { .. } => counted[1] += 1,
                    Finding::Refused(refused) => refusals.note(refused, 1, now),
                }
                findings.push(finding);
            }
            answer.send(Ok(findings)).unwrap_or(());
        }
        self.counts.accepted.fetch_add(counted[0], Ordering::Relaxed);
        self.counts.repeated.fetch_add(counted[1], Ordering::Relaxed);
    }
}

/// A request that names the id of one accepted in the same go.
fn fresh(record: Vec<u8>, id: Option<usize>, ids: &Ids) -> Finding {
    let request = Request::decode(&record).expect("decoded when it was judged");
    let name = crate::intake::embedded::identity::known_id(&request);
    let value = id.map_or_else(Vec::new, |id| ids.ids[id].value.clone());
    match KnownId::new(request.client, name, value) {
        Ok(held) => Finding::Known { held, is_fresh: true, record },
        Err(error) => Finding::Refused(refusal::damaged(name, &error)),
    }
}

fn read_note(calls: &mut [Call], note: &Note, result: Result<Value, Failure>) {
    let Err(failure) = result else { return };
    if note.is_needed {
        // Its items may be in their lists; a repeat writes them down again.
        calls[note.call].refused = Some(refusal::of_push(&failure, true));
    } else if let Some(state) = &calls[note.call].batch {
        let batch = &state.head.id;
        tracing::warn!(%failure, batch, "a batch that was refused keeps its id: it can be sent again unchanged only");
    }
}
