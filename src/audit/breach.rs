//! What an audit can find: kinds of breach, and a bounded collection of them.
//!
//! Every breach is counted; of each kind the first is told in words and the first [`IDS_MAX`] are named, so a
//! journal with ten million faults still makes a short report.

use serde::Serialize;

/// Ids named for each kind of breach.
pub const IDS_MAX: usize = 20;

/// Ordered as the report tells them: the later ones often follow from the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreachKind {
    /// A frame is damaged or missing, or does not follow the one before it.
    Chain,
    /// The anchor tells of a frame that is not here, or not as it was.
    HistoryRewritten,
    /// The front of the journal is missing and no checkpoint stands for it.
    NoCheckpoint,
    /// A valid frame holds something that is no entry, or one that contradicts itself.
    Malformed,
    /// An acknowledged request is not here, or was taken off its queue without an outcome.
    Lost,
    /// An id has two recorded results at the wallet.
    Double,
    /// Debits and credits differ.
    Unbalanced,
    /// An account was used before it was opened, or opened out of turn.
    AccountGap,
    /// An account that may not has gone below zero.
    Overdrawn,
    /// A transfer in one currency on an account in another.
    CurrencyMixed,
    /// More was taken back than was moved, or from somebody else.
    Reverse,
    /// A post or void of what was not held.
    Hold,
    /// Money moved for an id that was never accepted here.
    NotRequested,
    /// A request has two final states that exclude each other.
    TwoOutcomes,
    /// An outcome of no request, or with another amount, kind or name than its request.
    OutcomeMismatch,
    /// Succeeded, and no transfer.
    SucceededUnpaid,
    /// Failed, canceled or expired, and a transfer.
    RefusedPaid,
    /// The transfer is not the one that the request asks for.
    TransferMismatch,
    /// The requests of a queue do not follow one another.
    QueueGap,
    /// An acknowledgement that goes backwards, or past what was accepted.
    Ack,
    /// Spent and reserved are more than the budget, or the campaign is not known.
    Overspent,
    /// Everything should be settled, and something is not.
    NotDrained,
}

/// All breaches of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Breach {
    pub kind: BreachKind,
    /// How many there are.
    pub count: u64,
    /// The first of them, in words.
    pub detail: String,
    /// The first [`IDS_MAX`]: request ids as `client:id`, or the names of whatever else is at fault.
    pub ids: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Breaches {
    list: Vec<Breach>,
}

impl Breaches {
    /// Counts a breach; `id` and `detail` are only made where they are kept.
    pub fn add(&mut self, kind: BreachKind, id: impl FnOnce() -> String, detail: impl FnOnce() -> String) {
        let position = self.list.iter().position(|breach| breach.kind == kind).unwrap_or_else(|| {
            self.list.push(Breach { kind, count: 0, detail: detail(), ids: Vec::new() });
            self.list.len() - 1
        });
        let breach = &mut self.list[position];
        breach.count += 1;
        if breach.ids.len() < IDS_MAX {
            let id = id();
            if !id.is_empty() && !breach.ids.contains(&id) {
                breach.ids.push(id);
            }
        }
    }

    /// Takes in all breaches of one kind at once.
    pub fn add_all(&mut self, breach: Breach) {
        if breach.count > 0 {
            self.list.push(breach);
        }
    }

    pub fn count(&self, kind: BreachKind) -> u64 {
        self.list.iter().find(|breach| breach.kind == kind).map_or(0, |breach| breach.count)
    }

    pub fn total(&self) -> u64 {
        self.list.iter().map(|breach| breach.count).sum()
    }

    pub fn into_list(mut self) -> Vec<Breach> {
        self.list.sort_by_key(|breach| breach.kind);
        self.list
    }
}

/// A name for a report; what is not text is shown as such.
pub fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
