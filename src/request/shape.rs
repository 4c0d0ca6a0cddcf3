//! The shapes of the bodies that the door takes: one table a body, of its fields and their forms.
//!
//! The diagnosing reader walks these tables, and the OpenAPI document is made from them, so the two cannot
//! drift apart. What a form means beyond its JSON type is in `judge`.

use crate::domain::record::{METADATA_BYTES_MAX, REMARK_BYTES_MAX};

/// Ids in one lookup.
pub const LOOKUP_IDS_MAX: usize = 1_000;
/// Items in one batch, whatever is configured.
pub const BATCH_ITEMS_MAX: usize = 10_000;

/// The form of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Id,
    /// Free text up to so many bytes.
    Text(usize),
    /// Minor units, 1 to 2^53 - 1.
    Amount,
    /// 1 to 2^32 - 1.
    Count,
    Currency,
    Lane,
    /// Why a request is parked.
    Reason,
    Time,
    /// A JSON object, kept as sent, up to so many bytes.
    Object(usize),
    Ids,
    Items,
}

impl Form {
    /// The JSON type, in words.
    pub const fn json_type(self) -> &'static str {
        match self {
            Form::Id | Form::Text(_) | Form::Currency | Form::Lane | Form::Reason | Form::Time => "a string",
            Form::Amount | Form::Count => "a whole number",
            Form::Object(_) => "an object",
            Form::Ids | Form::Items => "an array",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub required: bool,
    pub form: Form,
    pub says: &'static str,
}

/// A body: its name in the OpenAPI document, and its fields.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub fields: &'static [Field],
}

impl Shape {
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().map(|field| field.name)
    }
}

const fn must(name: &'static str, form: Form, says: &'static str) -> Field {
    Field { name, required: true, form, says }
}

const fn may(name: &'static str, form: Form, says: &'static str) -> Field {
    Field { name, required: false, form, says }
}

const ID: Field = must("id", Form::Id, "Minted by the caller. The same id is never paid twice.");
const CAMPAIGN: Field = must("campaign", Form::Id, "The campaign that the money belongs to.");
const PAYEE: Field = must("payee", Form::Id, "Who is paid.");
const PAYER: Field = must("payer", Form::Id, "Who pays.");
const MERCHANT: Field = must("merchant", Form::Id, "Who is paid.");
const AGREEMENT: Field = must("agreement", Form::Id, "The withholding agreement it rests on.");
const AMOUNT: Field = must("amount", Form::Amount, "Minor units.");
const CURRENCY: Field = must("currency", Form::Currency, "ISO 4217 code.");
const REMARK: Field = may("remark", Form::Text(REMARK_BYTES_MAX), "Free text.");
const LANE: Field = may("lane", Form::Lane, "The campaign's lane where unset.");
const NOT_BEFORE: Field = may("not_before", Form::Time, "Not settled before this time.");
const NOT_AFTER: Field =
    may("not_after", Form::Time, "Expires if not settled by this time; refused if that is to be expected.");
const METADATA: Field = may("metadata", Form::Object(METADATA_BYTES_MAX), "Kept as sent.");

const fn optional(field: Field) -> Field {
    Field { required: false, ..field }
}

pub const DISBURSEMENT: Shape = Shape {
    name: "Disbursement",
    fields: &[ID, CAMPAIGN, PAYEE, AMOUNT, CURRENCY, REMARK, LANE, NOT_BEFORE, NOT_AFTER, METADATA],
};

pub const COLLECTION: Shape = Shape {
    name: "Collection",
    fields: &[
        ID, CAMPAIGN, PAYER, MERCHANT, AGREEMENT, AMOUNT, CURRENCY, REMARK, LANE, NOT_BEFORE, NOT_AFTER,
        METADATA,
    ],
};

/// A disbursement, or a collection when it carries payer, merchant or agreement. It holds every field that
/// the reader of payouts knows.
pub const ITEM: Shape = Shape {
    name: "BatchItem",
    fields: &[
        ID,
        optional(CAMPAIGN),
        optional(PAYEE),
        optional(PAYER),
        optional(MERCHANT),
        optional(AGREEMENT),
        AMOUNT,
        optional(CURRENCY),
        REMARK,
        LANE,
        NOT_BEFORE,
        NOT_AFTER,
        METADATA,
    ],
};

pub const BATCH: Shape = Shape {
    name: "Batch",
    fields: &[
        ID,
        CAMPAIGN,
        optional(CURRENCY),
        must("total_count", Form::Count, "How many items there are."),
        must("total_amount", Form::Amount, "What their amounts add up to."),
        must("items", Form::Items, "They inherit campaign and currency."),
    ],
};

pub const LOOKUP: Shape = Shape { name: "Lookup", fields: &[must("ids", Form::Ids, "At most 1,000.")] };

/// At least one of them; all that are given must hold.
pub const PARKED_RELEASE: Shape = Shape {
    name: "ParkedRelease",
    fields: &[
        may("ids", Form::Ids, "At most 1,000."),
        may("reason", Form::Reason, "What waits for this reason."),
        may("campaign", Form::Id, "What waits in this campaign."),
    ],
};

pub const REVERSE: Shape = Shape {
    name: "Reverse",
    fields: &[
        must("id", Form::Id, "The id of the reversal, minted by the caller."),
        may("amount", Form::Amount, "All of it where unset."),
        must("reason", Form::Text(REMARK_BYTES_MAX), "Kept with the reversal."),
    ],
};

pub const FUNDING: Shape = Shape { name: "Funding", fields: &[ID, AMOUNT] };

pub const CAMPAIGN_PUT: Shape = Shape {
    name: "CampaignPut",
    fields: &[
        must("budget", Form::Amount, "The most that may be moved under it."),
        must("currency", Form::Currency, "ISO 4217 code; never changes."),
        may("amount_max", Form::Amount, "The most one request may move."),
        may("per_payee_count", Form::Count, "The most payouts one payee may get."),
        may("per_payee_amount", Form::Amount, "The most one payee may get in all."),
        may("starts_at", Form::Time, "Pays nothing before."),
        may("ends_at", Form::Time, "Pays nothing after."),
        may("lane", Form::Lane, "Where its requests go unless they say otherwise; realtime where unset."),
    ],
};

/// Calls that say everything in their path.
pub const NOTHING: Shape = Shape { name: "Nothing", fields: &[] };

/// Every body, for the OpenAPI document.
pub const ALL: [&Shape; 9] =
    [&DISBURSEMENT, &COLLECTION, &ITEM, &BATCH, &LOOKUP, &PARKED_RELEASE, &REVERSE, &FUNDING, &CAMPAIGN_PUT];
