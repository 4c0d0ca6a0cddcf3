//! The diagnosing reader: walks a body along its shape and collects every fault of form, with pointers.
//!
//! It reads bodies that the fast reader gave up on, and the bodies of calls that are not hot. Values are kept
//! as raw text until their form is known, so a number is judged as it was written (`1.0`, `-1` and `"1"` each
//! get their own sentence), a repeated name is seen, and nothing recurses into what the caller nested.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::NotJson;
use super::fault::{FaultCode, Faults, Place, nearest, shown};
use super::shape::{self, Form, Shape};
use super::wire::{Batch, Bounded, Object, Payout, Text};
use crate::domain::money::AMOUNT_MAX;

/// Members of one object that are looked at; more than any shape has, and enough to complain about.
const MEMBERS_MAX: usize = 1_000;

/// The members of a JSON object in the order they stand, repeated names included.
struct Members<'a>(Vec<(Text<'a>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while members.len() < MEMBERS_MAX {
                    match map.next_entry()? {
                        Some(member) => members.push(member),
                        None => return Ok(Members(members)),
                    }
                }
                while map.next_entry::<Text<'de>, IgnoredAny>()?.is_some() {}
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// What a field held.
#[derive(Clone, Debug)]
enum Slot<'a> {
    Text(Text<'a>),
    Whole(u64),
    Raw(&'a RawValue),
}

/// The fields of an object that have the form their shape asks for. A field that is absent, null or at fault
/// is `None`; whether it may be is the judge's to say.
#[derive(Debug)]
pub struct Reading<'a> {
    shape: &'static Shape,
    slots: Vec<Option<Slot<'a>>>,
}

impl<'a> Reading<'a> {
    fn slot(&mut self, name: &str) -> Option<Slot<'a>> {
        self.slots[self.shape.position(name)?].take()
    }

    pub fn text(&mut self, name: &str) -> Option<Text<'a>> {
        match self.slot(name)? {
            Slot::Text(text) => Some(text),
            Slot::Whole(_) | Slot::Raw(_) => None,
        }
    }

    pub fn whole(&mut self, name: &str) -> Option<u64> {
        match self.slot(name)? {
            Slot::Whole(value) => Some(value),
            Slot::Text(_) | Slot::Raw(_) => None,
        }
    }

    pub fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        match self.slot(name)? {
            Slot::Raw(raw) => Some(raw),
            Slot::Text(_) | Slot::Whole(_) => None,
        }
    }

    fn into_payout(mut self) -> Payout<'a> {
        Payout {
            id: self.text("id"),
            campaign: self.text("campaign"),
            payee: self.text("payee"),
            payer: self.text("payer"),
            merchant: self.text("merchant"),
            agreement: self.text("agreement"),
            amount: self.whole("amount"),
            currency: self.text("currency"),
            remark: self.text("remark"),
            lane: self.text("lane"),
            not_before: self.text("not_before"),
            not_after: self.text("not_after"),
            metadata: self.raw("metadata"),
        }
    }
}

fn not_an_object(raw: &str, place: Place, faults: &mut Faults) {
    faults.add(place, "", FaultCode::WrongType, format!("must be an object, not {}", json_type(raw)));
}

/// Reads the members of the whole body. Not JSON is an error of its own; JSON of another kind is a fault.
fn top<'a>(text: &'a str, faults: &mut Faults) -> Result<Option<Members<'a>>, NotJson> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| NotJson(error.to_string()))?;
    if !raw.get().starts_with('{') {
        not_an_object(raw.get(), Place::Top, faults);
        return Ok(None);
    }
    // A name can hold an escape that stands for no character, which only shows when it is read.
    serde_json::from_str(text).map(Some).map_err(|error| NotJson(error.to_string()))
}

/// Walks a body along `shape`.
pub fn object<'a>(text: &'a str, shape: &'static Shape, faults: &mut Faults) -> Result<Reading<'a>, NotJson> {
    let members = top(text, faults)?.unwrap_or(Members(Vec::new()));
    Ok(walk(members, shape, shape, Place::Top, faults))
}

/// Reads a payout that should have the fields of `told`.
pub fn payout<'a>(text: &'a str, told: &'static Shape, faults: &mut Faults) -> Result<Payout<'a>, NotJson> {
    let members = top(text, faults)?.unwrap_or(Members(Vec::new()));
    Ok(walk(members, &shape::ITEM, told, Place::Top, faults).into_payout())
}

/// Reads a batch: its head, and the faults of each item beside the item.
pub fn batch<'a>(text: &'a str, faults: &mut Faults) -> Result<(Batch<'a>, Vec<Faults>), NotJson> {
    let members = top(text, faults)?.unwrap_or(Members(Vec::new()));
    let mut head = walk(members, &shape::BATCH, &shape::BATCH, Place::Top, faults);
    let mut item_faults = Vec::new();
    let items = head.raw("items").and_then(|raw| {
        let raws: Bounded<&'a RawValue> = serde_json::from_str(raw.get()).ok()?;
        item_faults = vec![Faults::default(); raws.kept.len()];
        let numbered = raws.kept.iter().zip(&mut item_faults).enumerate();
        let kept = numbered.map(|(index, (raw, faults))| Object(item(raw, Place::Item(index), faults)));
        Some(Bounded { kept: kept.collect(), count: raws.count })
    });
    let batch = Batch {
        id: head.text("id"),
        campaign: head.text("campaign"),
        currency: head.text("currency"),
        total_count: head.whole("total_count"),
        total_amount: head.whole("total_amount"),
        items,
    };
    Ok((batch, item_faults))
}

fn item<'a>(raw: &'a RawValue, place: Place, faults: &mut Faults) -> Payout<'a> {
    if !raw.get().starts_with('{') {
        not_an_object(raw.get(), place, faults);
        return Payout::default();
    }
    match serde_json::from_str(raw.get()) {
        Ok(members) => walk(members, &shape::ITEM, &shape::ITEM, place, faults).into_payout(),
        Err(error) => {
            faults.add(place, "", FaultCode::InvalidValue, error.to_string());
            Payout::default()
        }
    }
}

/// Reads what `shape` knows; `told` is what the caller is told is known here.
fn walk<'a>(
    members: Members<'a>,
    shape: &'static Shape,
    told: &'static Shape,
    place: Place,
    faults: &mut Faults,
) -> Reading<'a> {
    let mut slots: Vec<Option<Slot<'a>>> = vec![None; shape.fields.len()];
    let mut seen = vec![false; shape.fields.len()];
    for (name, raw) in members.0 {
        if faults.is_full() {
            break;
        }
        let name: &str = &name.0;
        let Some(position) = shape.position(name) else {
            faults.add(place, name, FaultCode::UnknownField, unknown(name, told));
            continue;
        };
        if std::mem::replace(&mut seen[position], true) {
            faults.add(place, name, FaultCode::RepeatedField, "stands here more than once");
            continue;
        }
        let field = &shape.fields[position];
        if raw.get() != "null" {
            slots[position] = read(raw, field.form, field.name, place, faults);
        }
    }
    Reading { shape, slots }
}

/// What to say of a name that is not known here.
pub fn unknown(name: &str, told: &Shape) -> String {
    match nearest(name, told.names()) {
        Some(near) => format!("{:?} is not known here; did you mean {near:?}?", shown(name)),
        None if told.fields.is_empty() => format!("{:?} is not known; nothing is expected here", shown(name)),
        None => {
            let known: Vec<&str> = told.names().collect();
            format!("{:?} is not known here; known are {}", shown(name), known.join(", "))
        }
    }
}

fn read<'a>(
    raw: &'a RawValue,
    form: Form,
    field: &str,
    place: Place,
    faults: &mut Faults,
) -> Option<Slot<'a>> {
    let text = raw.get();
    let first = text.as_bytes().first().copied().unwrap_or_default();
    let fits = match form {
        Form::Id | Form::Text(_) | Form::Currency | Form::Lane | Form::Reason | Form::Time => first == b'"',
        Form::Amount | Form::Count => first == b'-' || first.is_ascii_digit(),
        Form::Ids | Form::Items => first == b'[',
        // Any value is kept here; the judge asks for an object, on both paths.
        Form::Object(_) => true,
    };
    if !fits {
        let detail = format!("must be {}, not {}", form.json_type(), json_type(text));
        faults.add(place, field, FaultCode::WrongType, detail);
        return None;
    }
    match form {
        Form::Amount | Form::Count => whole(text, form, field, place, faults).map(Slot::Whole),
        Form::Object(_) | Form::Ids | Form::Items => Some(Slot::Raw(raw)),
        Form::Id | Form::Text(_) | Form::Currency | Form::Lane | Form::Reason | Form::Time => {
            let read = serde_json::from_str(text).map(Slot::Text);
            if read.is_err() {
                let detail = "holds an escape that stands for no character";
                faults.add(place, field, FaultCode::InvalidValue, detail);
            }
            read.ok()
        }
    }
}

fn whole(text: &str, form: Form, field: &str, place: Place, faults: &mut Faults) -> Option<u64> {
    if text.contains(['.', 'e', 'E']) {
        let detail = "must be a whole number, written without a fraction or an exponent";
        let unit = if form == Form::Amount { "; amounts are in minor units" } else { "" };
        faults.add(place, field, FaultCode::InvalidValue, format!("{detail}{unit}"));
        return None;
    }
    if text.starts_with('-') {
        faults.add(place, field, FaultCode::OutOfRange, "must not be negative");
        return None;
    }
    let value = text.parse().ok();
    if value.is_none() {
        let bound = if form == Form::Amount { AMOUNT_MAX } else { u64::from(u32::MAX) };
        faults.add(place, field, FaultCode::OutOfRange, format!("must be at most {bound}"));
    }
    value
}

fn json_type(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// The ids of a lookup. Each must be a string; what else an id must be is the judge's.
pub fn ids<'a>(raw: &'a RawValue, faults: &mut Faults) -> Bounded<Cow<'a, str>> {
    match serde_json::from_str::<Bounded<Text<'a>>>(raw.get()) {
        Ok(ids) => Bounded { kept: ids.kept.into_iter().map(|id| id.0).collect(), count: ids.count },
        Err(_) => {
            faults.add(Place::Top, "ids", FaultCode::WrongType, "must be an array of strings");
            Bounded::default()
        }
    }
}
