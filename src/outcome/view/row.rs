//! What the view is asked and what it answers, in plain values: whoever serves them converts.
//!
//! Absent: any knowledge of the store.

use crate::domain::{Kind, PayoutCode, Status, UnixMs, WaitReason};

/// The most rows one page may hold.
pub const LIMIT_MAX: u32 = 1_000;

/// Where one request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingRow {
    /// In the view's own order; zero where it has none.
    pub place: u64,
    pub client: String,
    pub id: String,
    pub kind: Kind,
    pub status: Status,
    pub reason: Option<WaitReason>,
    pub code: Option<PayoutCode>,
    pub campaign: String,
    /// Payee of a disbursement, payer of a collection.
    pub party: String,
    pub merchant: String,
    pub agreement: String,
    pub original: String,
    pub batch: String,
    pub amount: u64,
    pub currency: String,
    pub remark: String,
    pub metadata: String,
    pub accepted_at: UnixMs,
    pub updated_at: UnixMs,
    /// When it first became final; zero until then.
    pub settled_at: UnixMs,
    /// Zero unless waiting for a known time.
    pub next_attempt_at: UnixMs,
    pub attempts: u32,
    pub wallet_ref: String,
    /// What later reversals took back, minor units.
    pub reversed_amount: u64,
}

impl StandingRow {
    /// An id that is known by the cancel that burned it, and by nothing else.
    pub fn canceled(
        client: &str,
        id: &str,
        currency: String,
        accepted_at: UnixMs,
        at: UnixMs,
    ) -> StandingRow {
        StandingRow {
            place: 0,
            client: client.to_owned(),
            id: id.to_owned(),
            kind: Kind::Cancel,
            status: Status::Canceled,
            reason: None,
            code: None,
            campaign: String::new(),
            party: String::new(),
            merchant: String::new(),
            agreement: String::new(),
            original: String::new(),
            batch: String::new(),
            amount: 0,
            currency,
            remark: String::new(),
            metadata: String::new(),
            accepted_at,
            updated_at: at,
            settled_at: at,
            next_attempt_at: 0,
            attempts: 0,
            wallet_ref: String::new(),
            reversed_amount: 0,
        }
    }
}

/// Which requests to list, of one client. Times are Unix ms, inclusive, zero: no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRows {
    pub client: String,
    pub campaign: Option<String>,
    pub party: Option<String>,
    pub status: Option<Status>,
    pub batch: Option<String>,
    pub accepted_from: UnixMs,
    pub settled_from: UnixMs,
    /// `None`: everything but funding and defunding.
    pub kind: Option<Kind>,
    /// Held between 1 and [`LIMIT_MAX`].
    pub limit: u32,
    /// As an earlier page gave it.
    pub cursor: Option<String>,
}

/// In ascending order of acceptance. A page may be short, even empty, while `next_cursor` is there: a page
/// looks at a bounded number of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRows {
    pub data: Vec<StandingRow>,
    pub next_cursor: Option<String>,
}

/// Counts and amounts by state, in the order of `Status::ALL`. Amounts stop at `u64::MAX`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TallyRow {
    pub count: [u64; Status::ALL.len()],
    pub amount: [u64; Status::ALL.len()],
}

/// A batch as its items tell it: what its head said in total is not a fact of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRow {
    pub client: String,
    pub id: String,
    pub campaign: String,
    pub currency: String,
    /// Of the first item.
    pub accepted_at: UnixMs,
    pub tally: TallyRow,
}

/// What is not final yet, by state and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingRow {
    pub status: Status,
    pub reason: Option<WaitReason>,
    pub count: u64,
    pub amount: u64,
    /// When the longest waiting one was accepted.
    pub oldest_accepted_at: UnixMs,
}

/// How far the view has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Where in the log it goes on.
    pub cursor: u64,
    /// Facts met since the file was made.
    pub facts: u64,
    /// Facts about requests the view has never seen accepted; they changed nothing.
    pub skipped: u64,
}
