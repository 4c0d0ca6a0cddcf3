//! One go of the door: the round trips for everything that was gathered. [`heads`](super::heads) is the first, this file
//! the second, [`finish`](super::finish) the third and the answers.
//!
//! Order matters: heads, then ids, then lists, each awaited. Whatever fails on the way is told to those it concerns;
//! nothing is tried again here, because the caller's retry does the same and knows whether it still wants it.

use std::sync::Arc;

use super::gather::{Call, Fate, Found, Ids, Item, decide_all, undecodable};
use super::heads::head_state;
use super::judge::{Book, judge};
use super::lately::Lately;
use super::listed::Listed;
use super::queue::{Look, LookBatch, Op, Push, Submit};
use super::{Dedupe, DoorCounts, DoorOptions, Outlook, place_hash, refusal};
use crate::domain::{Refusal, Request, UnixMs, record};
use crate::intake::desk::{Refused, rules};
use crate::intake::redis::Keys;
use crate::intake::redis::identity::{self, KnownId, REGISTER_COUNT_MAX, id_field};
use crate::intake::redis::keys::ID_BUCKETS;
use crate::intake::redis::servers::Servers;
use crate::redis::{Command, Failure, Link, Value};
use crate::shaping::Since;

/// What a go needs, besides what was gathered.
pub struct Clerk {
    pub link: Link,
    pub keys: Keys,
    pub options: DoorOptions,
    pub book: Book,
    pub counts: Arc<DoorCounts>,
    /// Of all threads.
    pub lately: Arc<Lately>,
    /// Behind the shards.
    pub servers: Servers,
    pub listed: Listed,
    pub now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
}

/// Everything gathered, by what it wants.
#[derive(Default)]
struct Gathered {
    calls: Vec<Call>,
    pushes: Vec<Push>,
    looks: Vec<(Look, Vec<usize>)>,
    batches: Vec<LookBatch>,
    ids: Ids,
}

impl Clerk {
    /// Serves what was gathered. `now` and `outlook` hold for all of it.
    pub fn serve(&mut self, ops: Vec<Op>, now: UnixMs, outlook: &Outlook) {
        self.book.refresh();
        let mut gathered = Gathered::default();
        for op in ops {
            match op {
                Op::Submit(submit) => gathered.calls.push(self.open(submit, now)),
                Op::Push(push) => gathered.pushes.push(push),
                Op::Look(look) => gathered.looks.push((look, Vec::new())),
                Op::Batch(batch) => gathered.batches.push(batch),
            }
        }
        self.heads(&mut gathered.calls, std::mem::take(&mut gathered.batches), outlook);
        self.judge_all(&mut gathered, now, outlook);
        self.identify(&mut gathered.ids);
        decide_all(&mut gathered.calls, &gathered.ids);
        answer_looks(std::mem::take(&mut gathered.looks), &gathered.ids);
        let Gathered { calls, pushes, ids, .. } = gathered;
        self.finish(calls, pushes, &ids, (now, outlook));
    }

    fn open(&self, submit: Submit, now: UnixMs) -> Call {
        let Submit { batch, requests, answer } = submit;
        let digest = batch.as_ref().map(|head| rules::batch_digest(head, &requests));
        let first = requests.first().map_or(0, |record| record::key_hash(record));
        let place_hash = place_hash(batch.as_ref(), first);
        let mut refused = None;
        let batch = batch.zip(digest).and_then(|(head, digest)| {
            let state = head_state(head, digest, now);
            state.map_err(|error| refused = Some(error)).ok()
        });
        let unread = || Err(Refused::new(Refusal::NotAccepting, "it was not judged"));
        let item = |record| Item { record, fit: unread(), id: None, fate: Fate::Undecided };
        Call { batch, place_hash, items: requests.into_iter().map(item).collect(), refused, answer }
    }

    fn judge_all(&mut self, gathered: &mut Gathered, now: UnixMs, outlook: &Outlook) {
        let mut accepted = Since::default();
        let Gathered { calls, ids, looks, .. } = gathered;
        for (number, call) in calls.iter_mut().enumerate().filter(|(_, call)| call.refused.is_none()) {
            for (at, item) in call.items.iter_mut().enumerate() {
                item.fit = match Request::decode(&item.record) {
                    Ok(request) => judge(&request, &mut self.book, now, outlook, &accepted, &self.options),
                    Err(error) => {
                        item.fit = Err(undecodable(&error));
                        continue;
                    }
                };
                if let Ok(fit) = &item.fit {
                    accepted.add(fit.position);
                }
                match (self.options.dedupe, &item.fit) {
                    (Dedupe::Strict, _) => ids.enter(item, (number, at), now),
                    (Dedupe::Owner, Ok(fit)) => {
                        record::set_acceptance(&mut item.record, now, fit.lane, true);
                    }
                    (Dedupe::Owner, Err(_)) => {}
                }
            }
        }
        for (look, numbers) in looks {
            let number = |id: &String| {
                let key_hash = crate::digest::key_hash_of(&look.client, id);
                ids.look(id_field(&look.client, id), key_hash)
            };
            *numbers = look.ids.iter().map(number).collect();
        }
    }

    /// Registers the ids of what fits, looks the others up.
    fn identify(&mut self, ids: &mut Ids) {
        let (register, look): (Vec<usize>, Vec<usize>) =
            (0..ids.ids.len()).partition(|number| ids.ids[*number].registrant.is_some());
        let (register, look) = (self.by_bucket(ids, &register), self.by_bucket(ids, &look));
        let mut commands = Vec::with_capacity(register.len() + look.len());
        commands.extend(register.iter().map(|numbers| {
            let pair =
                |number: &usize| (ids.ids[*number].field.as_slice(), ids.ids[*number].value.as_slice());
            identity::register(&self.key_of(ids, numbers), numbers.iter().map(pair))
        }));
        commands.extend(look.iter().map(|numbers| self.look_command(ids, numbers)));
        let asked = self.listed.ask(&self.keys, &mut commands);
        let mut results = self.link.round(&commands);
        self.listed.learn(results.split_off(results.len() - asked));
        let mut results = results.into_iter();
        let mut refused_for_memory = Vec::new();
        for numbers in register {
            let told = results.next().unwrap_or_else(no_reply);
            if told.as_ref().is_err_and(|failure| failure.is_code("OOM")) {
                refused_for_memory.push(numbers);
                continue;
            }
            fill(ids, &numbers, told.and_then(|value| identity::registered(value, numbers.len())));
        }
        for numbers in look {
            let told = results.next().unwrap_or_else(no_reply);
            fill(ids, &numbers, told.and_then(|value| identity::looked(value, numbers.len())));
        }
        self.look_when_full(ids, refused_for_memory);
    }

    /// A full Redis registers nothing; what stands registered is told all the same.
    fn look_when_full(&mut self, ids: &mut Ids, refused: Vec<Vec<usize>>) {
        let commands: Vec<Command> = refused.iter().map(|numbers| self.look_command(ids, numbers)).collect();
        let results = self.link.round(&commands);
        for (numbers, told) in refused.into_iter().zip(results) {
            fill(ids, &numbers, told.and_then(|value| identity::looked(value, numbers.len())));
            for number in numbers {
                let id = &mut ids.ids[number];
                if matches!(id.found, Found::Nothing) {
                    id.found = Found::Failed(refusal::full(false));
                }
            }
        }
    }

    fn key_of(&self, ids: &Ids, numbers: &[usize]) -> String {
        self.keys.ids(ids.ids[numbers[0]].key_hash)
    }

    fn look_command(&self, ids: &Ids, numbers: &[usize]) -> Command {
        let fields = numbers.iter().map(|number| ids.ids[*number].field.as_slice());
        identity::look(&self.key_of(ids, numbers), fields)
    }

    /// The numbers of each bucket, in pieces that one script can take.
    fn by_bucket(&self, ids: &Ids, numbers: &[usize]) -> Vec<Vec<usize>> {
        let bucket_count = u64::from(self.keys.units().shard_count) * ID_BUCKETS;
        let mut buckets = vec![Vec::new(); bucket_count as usize];
        for number in numbers {
            buckets[(ids.ids[*number].key_hash % bucket_count) as usize].push(*number);
        }
        let pieces = buckets.iter().flat_map(|bucket| bucket.chunks(REGISTER_COUNT_MAX));
        pieces.map(<[usize]>::to_vec).collect()
    }
}

pub fn no_reply() -> Result<Value, Failure> {
    Err(Failure::Unknown("there was no reply".to_owned()))
}

/// Enters what Redis said of these ids.
fn fill(ids: &mut Ids, numbers: &[usize], told: Result<Vec<Option<Vec<u8>>>, Failure>) {
    match told {
        Ok(values) => {
            for (number, value) in numbers.iter().zip(values) {
                ids.ids[*number].found = value.map_or(Found::Nothing, Found::Value);
            }
        }
        Err(failure) => {
            for number in numbers {
                ids.ids[*number].found = Found::Failed(refusal::of_identity(&failure));
            }
        }
    }
}

fn answer_looks(looks: Vec<(Look, Vec<usize>)>, ids: &Ids) {
    for (look, numbers) in looks {
        let held = |(id, number): (&String, &usize)| match &ids.ids[*number].found {
            Found::Nothing => Ok(None),
            Found::Failed(refused) => Err(refusal::of_look(&refused.detail)),
            Found::Value(value) => match KnownId::new(&look.client, id, value.clone()) {
                Ok(held) => Ok(Some(held)),
                Err(error) => Err(refusal::damaged(id, &error)),
            },
        };
        let found = look.ids.iter().zip(&numbers).map(held).collect();
        look.answer.send(found).unwrap_or(());
    }
}
