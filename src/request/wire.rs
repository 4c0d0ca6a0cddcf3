//! The fast reader: from a body's text straight to typed fields, with nothing in between.
//!
//! The plainest payouts are read in one pass ([`plain`]), all others by serde. It stops at the first thing it does not
//! expect and says nothing useful about it; `diagnose` reads the same body again and explains. The three must never
//! disagree on what is acceptable, which a property test (`readers_tests.rs`) holds them to. Judgement of values is absent here: both readers hand over to `judge`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::plain;
use super::shape::BATCH_ITEMS_MAX;

/// A string, borrowed from the body unless it holds escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'a, 'de: 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// One payout as sent: a disbursement, a collection, or an item of a batch, which may leave out what it
/// inherits. `None` where a field is absent or null.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payout<'a> {
    #[serde(borrow)]
    pub id: Option<Text<'a>>,
    #[serde(borrow)]
    pub campaign: Option<Text<'a>>,
    #[serde(borrow)]
    pub payee: Option<Text<'a>>,
    #[serde(borrow)]
    pub payer: Option<Text<'a>>,
    #[serde(borrow)]
    pub merchant: Option<Text<'a>>,
    #[serde(borrow)]
    pub agreement: Option<Text<'a>>,
    pub amount: Option<u64>,
    #[serde(borrow)]
    pub currency: Option<Text<'a>>,
    #[serde(borrow)]
    pub remark: Option<Text<'a>>,
    #[serde(borrow)]
    pub lane: Option<Text<'a>>,
    #[serde(borrow)]
    pub not_before: Option<Text<'a>>,
    #[serde(borrow)]
    pub not_after: Option<Text<'a>>,
    #[serde(borrow)]
    pub metadata: Option<&'a RawValue>,
}

/// A batch as sent.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch<'a> {
    #[serde(borrow)]
    pub id: Option<Text<'a>>,
    #[serde(borrow)]
    pub campaign: Option<Text<'a>>,
    #[serde(borrow)]
    pub currency: Option<Text<'a>>,
    pub total_count: Option<u64>,
    pub total_amount: Option<u64>,
    #[serde(borrow)]
    pub items: Option<Bounded<Object<Payout<'a>>>>,
}

/// A struct read from a JSON object only: what serde derives would also take the fields in an array.
#[derive(Debug, Default)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// An array of which no more than [`BATCH_ITEMS_MAX`] elements are kept: a small body can hold millions of
/// empty ones. `count` is how many there were.
#[derive(Debug)]
pub struct Bounded<T> {
    pub kept: Vec<T>,
    pub count: usize,
}

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Bounded { kept: Vec::new(), count: 0 }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BoundedVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedVisitor<T> {
            type Value = Bounded<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bounded<T>, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < BATCH_ITEMS_MAX {
                    match seq.next_element()? {
                        Some(element) => kept.push(element),
                        None => return Ok(Bounded { count: kept.len(), kept }),
                    }
                }
                let mut count = kept.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Bounded { kept, count })
            }
        }
        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

/// Reads a payout, or `None` if anything at all is out of order.
pub fn payout(text: &str) -> Option<Payout<'_>> {
    plain::payout(text).or_else(|| general(text))
}

/// The same, whatever form it has.
pub(super) fn general(text: &str) -> Option<Payout<'_>> {
    serde_json::from_str::<Object<Payout<'_>>>(text).ok().map(|object| object.0)
}

/// Reads a batch, or `None` if anything at all is out of order.
pub fn batch(text: &str) -> Option<Batch<'_>> {
    serde_json::from_str::<Object<Batch<'_>>>(text).ok().map(|object| object.0)
}
