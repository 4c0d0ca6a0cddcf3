//! The first round trip: the heads of batches, registered before anything of their items is, and looked up for those
//! who ask.
//!
//! What holds: a batch id stands for one list of items. A head of which nothing comes is taken back in the end, so that
//! a batch refused whole can be mended and sent again under its id.

use std::collections::HashMap;

use super::gather::{Call, HeadState};
use super::queue::LookBatch;
use super::rounds::{Clerk, no_reply};
use super::{KnownBatch, Outlook, refusal};
use crate::domain::bytes::EntryError;
use crate::domain::{Currency, Refusal, UnixMs};
use crate::intake::desk::{BatchHead, Refused, rules};
use crate::intake::embedded::entry::Batch;
use crate::intake::embedded::identity::batch_key_hash;
use crate::intake::redis::identity::{self, batch_field, decode_head, encode_head, items_field};
use crate::redis::{Command, Failure, Value};

/// A head as a call would register it.
pub fn head_state(head: BatchHead, digest: [u8; 16], now: UnixMs) -> Result<HeadState, Refused> {
    let Some(currency) = Currency::parse(&head.currency) else {
        return Err(Refused::new(Refusal::InvalidField, format!("currency {:?}", head.currency)));
    };
    let hash = batch_key_hash(&head.client, &head.id);
    let stored = Batch {
        digest,
        key_hash: hash,
        count: head.total_count,
        amount: head.total_amount,
        accepted_at: now,
        currency,
        client: &head.client,
        id: &head.id,
        campaign: &head.campaign,
    };
    let value = encode_head(&stored, None);
    Ok(HeadState { field: batch_field(&head.client, &head.id), head, hash, digest, value, before: None })
}

impl Clerk {
    /// Registers the heads of batches (a closed door only looks), and answers who asks for one.
    pub fn heads(&mut self, calls: &mut [Call], looks: Vec<LookBatch>, outlook: &Outlook) {
        let (asked, behind) = firsts(calls);
        let is_open = outlook.closed.is_none();
        let mut commands: Vec<Command> = Vec::with_capacity(asked.len() + looks.len());
        commands.extend(asked.iter().map(|number| self.head_command(&calls[*number], is_open)));
        commands.extend(looks.iter().map(|look| {
            let fields = [batch_field(&look.client, &look.id), items_field(&look.client, &look.id)];
            let count = if look.with_items { 2 } else { 1 };
            let key = self.keys.ids(batch_key_hash(&look.client, &look.id));
            identity::look(&key, fields[..count].iter().map(Vec::as_slice))
        }));
        let mut results = self.link.round(&commands).into_iter();
        let mut full = Vec::new();
        for number in asked {
            let told = results.next().unwrap_or_else(no_reply);
            if told.as_ref().is_err_and(|failure| failure.is_code("OOM")) {
                full.push(number);
            } else {
                let closed = outlook.closed.as_deref();
                self.take_head(&mut calls[number], is_open, told, || {
                    refusal::closed(closed.unwrap_or_default())
                });
            }
        }
        for look in looks {
            let told = results.next().unwrap_or_else(no_reply);
            let count = if look.with_items { 2 } else { 1 };
            let found = told.and_then(|value| identity::looked(value, count));
            let found = found.map_err(|failure| refusal::of_look(&failure.to_string()));
            let found = found.and_then(|values| known_batch(&look, values));
            look.answer.send(found).unwrap_or(());
        }
        // A full Redis registers nothing; what stands registered is told all the same.
        let commands: Vec<Command> =
            full.iter().map(|number| self.head_command(&calls[*number], false)).collect();
        let results = self.link.round(&commands);
        for (number, told) in full.into_iter().zip(results) {
            self.take_head(&mut calls[number], false, told, || refusal::full(false));
        }
        for (number, first) in behind {
            follow(calls, number, first);
        }
    }

    fn head_command(&self, call: &Call, registers: bool) -> Command {
        let state = call.batch.as_ref().expect("only calls with a batch are asked for");
        let key = self.keys.ids(state.hash);
        if registers {
            identity::register(&key, [(state.field.as_slice(), state.value.as_slice())].into_iter())
        } else {
            identity::look(&key, [state.field.as_slice()].into_iter())
        }
    }

    /// Takes in what stood under a head. Where it was only looked for, its absence refuses the batch.
    fn take_head(
        &self,
        call: &mut Call,
        registers: bool,
        told: Result<Value, Failure>,
        absent: impl FnOnce() -> Refused,
    ) {
        let read =
            |value| if registers { identity::registered(value, 1) } else { identity::looked(value, 1) };
        match told.and_then(read) {
            Ok(mut found) => match found.pop().flatten() {
                Some(before) => check_head(call, before),
                None if registers => {}
                None => call.refused = Some(absent()),
            },
            Err(failure) => call.refused = Some(refusal::of_identity(&failure)),
        }
    }
}

/// The calls whose heads are asked for, and those that come behind one with the same batch id.
fn firsts(calls: &[Call]) -> (Vec<usize>, Vec<(usize, usize)>) {
    let (mut asked, mut behind) = (Vec::new(), Vec::new());
    let mut by_field: HashMap<&[u8], usize> = HashMap::new();
    for (number, call) in calls.iter().enumerate() {
        let Some(state) = &call.batch else { continue };
        match by_field.get(state.field.as_slice()) {
            Some(first) => behind.push((number, *first)),
            None => {
                by_field.insert(&state.field, number);
                asked.push(number);
            }
        }
    }
    (asked, behind)
}

fn follow(calls: &mut [Call], number: usize, first: usize) {
    let state = calls[first].batch.as_ref().expect("it has a batch");
    match (&state.before, &calls[first].refused) {
        (Some(before), _) => {
            let before = before.clone();
            check_head(&mut calls[number], before);
        }
        (None, Some(refused)) => calls[number].refused = Some(refused.clone()),
        (None, None) => {
            let registered = state.value.clone();
            check_head(&mut calls[number], registered);
        }
    }
}

fn check_head(call: &mut Call, before: Vec<u8>) {
    let state = call.batch.as_mut().expect("only calls with a batch have a head");
    let refused = match decode_head(&before) {
        Err(error) => Some(refusal::damaged(&format!("batch {}", state.head.id), &error)),
        Ok((held, _)) if held.digest == state.digest => None,
        Ok((held, _)) => Some(rules::batch_conflict(&held, &state.head)),
    };
    state.before = Some(before);
    call.refused = refused;
}

fn known_batch(look: &LookBatch, values: Vec<Option<Vec<u8>>>) -> Result<Option<KnownBatch>, Refused> {
    let damaged = |error: EntryError| refusal::damaged(&format!("batch {}", look.id), &error);
    let mut values = values.into_iter();
    let Some(head) = values.next().flatten() else { return Ok(None) };
    let (stored, taken) = decode_head(&head).map_err(damaged)?;
    let items = values.next().flatten().unwrap_or_default();
    let items = String::from_utf8(items).map_err(|_| damaged(EntryError::Field("items")))?;
    let head = BatchHead {
        client: stored.client.to_owned(),
        id: stored.id.to_owned(),
        campaign: stored.campaign.to_owned(),
        currency: stored.currency.to_string(),
        total_count: stored.count,
        total_amount: stored.amount,
    };
    let items = items.lines().map(str::to_owned).collect();
    Ok(Some(KnownBatch { head, accepted_at: stored.accepted_at, taken, items }))
}
