//! What was gathered for one go: the calls, their requests, and the ids these are about, each id once.
//!
//! Two requests of one gathering may name one id. Only the first that fits is registered; what comes after it is told
//! what came of it, as if it had come a moment later. Deciding is pure: the rounds in between fill in what Redis says.

use std::collections::{HashMap, HashSet};

use super::judge::Fit;
use super::queue::Answer;
use super::{Finding, refusal};
use crate::domain::{Kind, Refusal, Request, UnixMs, record};
use crate::intake::desk::{BatchHead, Refused, rules};
use crate::intake::embedded::identity::known_id;
use crate::intake::redis::identity::{KnownId, Taken, encode_known, id_field};

/// A batch's head, and how it was found.
pub struct HeadState {
    pub head: BatchHead,
    pub field: Vec<u8>,
    pub hash: u64,
    pub digest: [u8; 16],
    /// What this call would register, with nothing said of what was taken.
    pub value: Vec<u8>,
    /// What stood there; `None`: this call registered it.
    pub before: Option<Vec<u8>>,
}

pub struct Call {
    pub batch: Option<HeadState>,
    pub place_hash: u64,
    pub items: Vec<Item>,
    /// It is refused as a whole.
    pub refused: Option<Refused>,
    pub answer: Answer<Result<Vec<Finding>, Refused>>,
}

pub struct Item {
    pub record: Vec<u8>,
    pub fit: Result<Fit, Refused>,
    /// Its id among those of the gathering; none where ids are not looked up.
    pub id: Option<usize>,
    pub fate: Fate,
}

/// Where a request stands in the go.
pub enum Fate {
    Undecided,
    /// To be appended, in the list of this number once it has one.
    New {
        list: Option<usize>,
    },
    Known(KnownId),
    /// It names the id of a new one of this gathering: call and item.
    Behind(usize, usize),
    Refused(Refused),
}

/// An id of the gathering.
pub struct Id {
    pub field: Vec<u8>,
    pub key_hash: u64,
    /// The first request that fits: call and item. Without one, the id is only looked up.
    pub registrant: Option<(usize, usize)>,
    pub value: Vec<u8>,
    pub found: Found,
}

pub enum Found {
    /// Not asked yet, or asked and absent; registered, where there is a registrant.
    Nothing,
    Value(Vec<u8>),
    Failed(Refused),
}

/// The ids of a gathering.
#[derive(Default)]
pub struct Ids {
    by_field: HashMap<Vec<u8>, usize>,
    pub ids: Vec<Id>,
}

impl Ids {
    fn number(&mut self, field: Vec<u8>, key_hash: u64) -> usize {
        let next = self.ids.len();
        let ids = &mut self.ids;
        *self.by_field.entry(field).or_insert_with_key(|field| {
            let (field, value) = (field.clone(), Vec::new());
            ids.push(Id { field, key_hash, registrant: None, value, found: Found::Nothing });
            next
        })
    }

    /// Enters an id that is only asked for.
    pub fn look(&mut self, field: Vec<u8>, key_hash: u64) -> usize {
        self.number(field, key_hash)
    }

    /// Enters a request that was judged.
    pub fn enter(&mut self, item: &mut Item, place: (usize, usize), now: UnixMs) {
        let request = Request::decode(&item.record).expect("decoded when it was judged");
        let field = id_field(request.client, known_id(&request));
        let key_hash = request.key_hash;
        let number = self.number(field, key_hash);
        item.id = Some(number);
        let id = &mut self.ids[number];
        if let (Ok(fit), None) = (&item.fit, id.registrant) {
            record::set_acceptance(&mut item.record, now, fit.lane, true);
            let request = Request::decode(&item.record).expect("decoded before");
            encode_known(&request, &mut id.value);
            id.registrant = Some(place);
        }
    }
}

/// What is decided of a request, when its id was asked for. `at`: its call and item.
fn decide(item: &Item, at: (usize, usize), id: &Id, registrant: Option<&[u8]>) -> Fate {
    let request = Request::decode(&item.record).expect("decoded when it was judged");
    let client = request.client;
    let known = |value: &[u8]| {
        KnownId::new(client, known_id(&request), value.to_vec())
            .map_err(|error| refusal::damaged(&String::from_utf8_lossy(&id.field), &error))
    };
    match (&id.found, id.registrant) {
        (Found::Failed(refused), _) => Fate::Refused(refused.clone()),
        (Found::Value(value), _) => match known(value) {
            Ok(held) => match conflict(&held.request(), &request) {
                Some(refused) => Fate::Refused(refused),
                None => Fate::Known(held),
            },
            Err(refused) => Fate::Refused(refused),
        },
        (Found::Nothing, Some(first)) if first == at => Fate::New { list: None },
        (Found::Nothing, Some(first)) if first < at => {
            let before =
                Request::decode(registrant.expect("it is there")).expect("decoded when it was judged");
            match conflict(&before, &request) {
                Some(refused) => Fate::Refused(refused),
                None => Fate::Behind(first.0, first.1),
            }
        }
        (Found::Nothing, _) => match &item.fit {
            Err(refused) => Fate::Refused(refused.clone()),
            Ok(_) => unreachable!("the first that fits is the registrant"),
        },
    }
}

/// Why a request cannot have an id that stands for `before`. A cancel can have any.
fn conflict(before: &Request<'_>, request: &Request<'_>) -> Option<Refused> {
    let is_same = before.digest == request.digest || request.kind == Kind::Cancel;
    (!is_same).then(|| rules::conflict(before, request))
}

/// Decides every request of the calls that go on.
pub fn decide_all(calls: &mut [Call], ids: &Ids) {
    for call in 0..calls.len() {
        if calls[call].refused.is_some() {
            continue;
        }
        for item in 0..calls[call].items.len() {
            let entered = &calls[call].items[item];
            let fate = match (entered.id, &entered.fit) {
                (Some(number), _) => {
                    let id = &ids.ids[number];
                    let registrant = id.registrant.map(|(c, i)| &*calls[c].items[i].record);
                    decide(entered, (call, item), id, registrant)
                }
                (None, Ok(_)) => Fate::New { list: None },
                (None, Err(refused)) => Fate::Refused(refused.clone()),
            };
            calls[call].items[item].fate = fate;
        }
    }
}

/// A batch's items that were taken, now or before, each once.
pub struct TakenItems {
    pub ids: Vec<String>,
    pub total: Taken,
}

/// What was taken of the batch of a call. Under another batch, an item may have come in before.
pub fn taken_of(calls: &[Call], call: &Call, head: &BatchHead) -> TakenItems {
    let mut taken = TakenItems { ids: Vec::with_capacity(call.items.len()), total: Taken::default() };
    let mut met = HashSet::with_capacity(call.items.len());
    for item in &call.items {
        let is_taken = match &item.fate {
            Fate::New { .. } => true,
            Fate::Known(held) => held.request().batch == head.id,
            Fate::Behind(call, at) => {
                let first = Request::decode(&calls[*call].items[*at].record).expect("it was accepted");
                first.batch == head.id
            }
            Fate::Refused(_) | Fate::Undecided => false,
        };
        if !is_taken {
            continue;
        }
        let request = Request::decode(&item.record).expect("decoded when it was judged");
        if met.insert(request.key_hash) {
            taken.total.count += 1;
            taken.total.amount = taken.total.amount.saturating_add(request.amount.minor_units());
            taken.ids.push(request.id.to_owned());
        }
    }
    taken
}

/// A request that is not even one is the gateway's mistake; it is refused and nothing else is harmed.
pub fn undecodable(error: &dyn std::fmt::Display) -> Refused {
    Refused::new(Refusal::InvalidField, format!("the request cannot be read: {error}"))
}
