//! The states of a request, and the one function that moves between them.
//!
//! Facts about a request can come twice or late. Whoever applies a fact asks [`transition`]; if it answers
//! `None`, the fact changes nothing. No other code decides what may follow what.

/// Where a request stands. The number is the stored form and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Status {
    /// Durable; not yet looked at.
    Accepted = 1,
    /// Waiting for a reason and a time.
    Queued = 2,
    /// In the pipeline.
    Processing = 3,
    /// Sent to the wallet; the answer was lost. The same id and body is being sent again.
    Unknown = 4,
    Succeeded = 5,
    Failed = 6,
    Canceled = 7,
    Expired = 8,
    /// Paid, and all of it taken back by a later reversal.
    Reversed = 9,
}

impl Status {
    pub const ALL: [Status; 9] = [
        Status::Accepted,
        Status::Queued,
        Status::Processing,
        Status::Unknown,
        Status::Succeeded,
        Status::Failed,
        Status::Canceled,
        Status::Expired,
        Status::Reversed,
    ];

    pub fn from_u8(byte: u8) -> Option<Status> {
        Status::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }

    pub fn parse(text: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str() == text)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Accepted => "ACCEPTED",
            Status::Queued => "QUEUED",
            Status::Processing => "PROCESSING",
            Status::Unknown => "UNKNOWN",
            Status::Succeeded => "SUCCEEDED",
            Status::Failed => "FAILED",
            Status::Canceled => "CANCELED",
            Status::Expired => "EXPIRED",
            Status::Reversed => "REVERSED",
        }
    }

    /// Whether the request needs nothing more from anyone. A succeeded one is final even though it may later
    /// be reversed: the reversal is a request of its own.
    pub const fn is_final(self) -> bool {
        match self {
            Status::Accepted | Status::Queued | Status::Processing | Status::Unknown => false,
            Status::Succeeded | Status::Failed | Status::Canceled | Status::Expired | Status::Reversed => {
                true
            }
        }
    }
}

/// Why a request waits. The number is the stored form and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum WaitReason {
    /// Behind others in its queue.
    Backlog = 1,
    /// `not_before` lies ahead.
    NotDue = 2,
    /// The paying account does not hold enough yet.
    LowBalance = 3,
    /// Its campaign is paused.
    CampaignPaused = 4,
    /// The wallet asked to be spared; retried with backoff.
    WalletOverloaded = 5,
    /// The wallet answers others, and not for this one or its payee; retried with backoff.
    NoAnswer = 6,
}

impl WaitReason {
    pub const ALL: [WaitReason; 6] = [
        WaitReason::Backlog,
        WaitReason::NotDue,
        WaitReason::LowBalance,
        WaitReason::CampaignPaused,
        WaitReason::WalletOverloaded,
        WaitReason::NoAnswer,
    ];

    /// Those for which a request is parked.
    pub const PARKED: [WaitReason; 5] = [
        WaitReason::NotDue,
        WaitReason::LowBalance,
        WaitReason::CampaignPaused,
        WaitReason::WalletOverloaded,
        WaitReason::NoAnswer,
    ];

    pub fn from_u8(byte: u8) -> Option<WaitReason> {
        WaitReason::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            WaitReason::Backlog => "backlog",
            WaitReason::NotDue => "not_due",
            WaitReason::LowBalance => "low_balance",
            WaitReason::CampaignPaused => "campaign_paused",
            WaitReason::WalletOverloaded => "wallet_overloaded",
            WaitReason::NoAnswer => "no_answer",
        }
    }
}

/// The state after a fact that says `to`, or `None` if the fact changes nothing.
///
/// Waiting states may follow one another; a final state is left only by `Succeeded → Reversed`.
pub const fn transition(from: Status, to: Status) -> Option<Status> {
    let moves = match (from, to) {
        (Status::Succeeded, Status::Reversed) => true,
        (Status::Succeeded | Status::Failed | Status::Canceled | Status::Expired | Status::Reversed, _) => {
            false
        }
        (_, Status::Accepted | Status::Reversed) => false,
        (Status::Unknown | Status::Processing, Status::Processing) => false,
        // A fresh reason or time to wait is news. `Unknown → Queued` rests on the wallet's word: it refused the id and
        // left it free.
        (
            Status::Accepted | Status::Queued | Status::Processing | Status::Unknown,
            Status::Queued
            | Status::Processing
            | Status::Unknown
            | Status::Succeeded
            | Status::Failed
            | Status::Canceled
            | Status::Expired,
        ) => true,
    };
    if moves { Some(to) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_numbers_and_names_come_back() {
        for status in Status::ALL {
            assert_eq!(Status::from_u8(status as u8), Some(status));
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        for reason in WaitReason::ALL {
            assert_eq!(WaitReason::from_u8(reason as u8), Some(reason));
        }
    }

    #[test]
    fn transitions() {
        use Status::*;
        // One line a state: what it may become.
        let table: [(Status, &[Status]); 9] = [
            (Accepted, &[Queued, Processing, Unknown, Succeeded, Failed, Canceled, Expired]),
            (Queued, &[Queued, Processing, Unknown, Succeeded, Failed, Canceled, Expired]),
            (Processing, &[Queued, Unknown, Succeeded, Failed, Canceled, Expired]),
            (Unknown, &[Queued, Unknown, Succeeded, Failed, Canceled, Expired]),
            (Succeeded, &[Reversed]),
            (Failed, &[]),
            (Canceled, &[]),
            (Expired, &[]),
            (Reversed, &[]),
        ];
        for (from, allowed) in table {
            for to in Status::ALL {
                let expected = allowed.contains(&to).then_some(to);
                assert_eq!(transition(from, to), expected, "{from:?} -> {to:?}");
            }
        }
    }
}
