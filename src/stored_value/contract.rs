//! The wallet contract as JSON: the bodies that `stored_value.kind = "http"` sends and `hongbao wallet` serves.
//!
//! Requests borrow what they carry; results own it. Unknown fields are ignored on both sides, so that either can
//! grow. A status or a code that is not listed here is `unknown`, never `failed`.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /v1/identity` | | [`Identity`] |
//! | `POST /v1/transfers` | [`Transfers`] | [`Results`], one an entry, in order |
//! | `POST /v1/transfers/lookup` | [`Ids`] | [`Results`], status `not_found` where nothing is on record |
//! | `POST /v1/transfers/burn` | [`Ids`] | [`Results`] |

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Entries of one call that every wallet must take; a wallet may take more, or answer 413.
pub const ENTRIES_MAX: usize = 1_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// A UUID made with the wallet's data; another one means other data.
    pub identity: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfers<'a> {
    /// Milliseconds from receipt within which the caller wants the answer; what is undecided by then is
    /// `unknown`.
    pub deadline_ms: u64,
    #[serde(borrow)]
    pub transfers: Vec<Entry<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// `transfer`, `hold`, `post`, `void` or `reverse`.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// Account that pays; empty for `post` and `void`.
    #[serde(borrow, default)]
    pub debit: Cow<'a, str>,
    #[serde(borrow, default)]
    pub credit: Cow<'a, str>,
    /// Minor units.
    pub amount: u64,
    /// ISO 4217.
    #[serde(borrow)]
    pub currency: Cow<'a, str>,
    /// The transfer that `post`, `void` and `reverse` are about.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub of: Cow<'a, str>,
    /// For a `hold`: seconds after which it is released by itself; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    /// Free text for the person's statement.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub memo: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    pub ids: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    pub results: Vec<Outcome>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub id: String,
    /// `succeeded`, `failed` or `unknown`; for a burn also `burned`, for a lookup also `not_found`.
    pub status: String,
    /// Why, where it failed: a code of the README's list (`payee_frozen`, `low_balance`, …) or `burned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The wallet's own name for the movement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wallet_ref: Option<String>,
    /// Minor units of what is on record; wanted of a lookup, for reconciliation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<u64>,
}
