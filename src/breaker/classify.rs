//! What an answer of the wallet says about the wallet's health.
//!
//! A refusal for a reason of business is an answer like another: a frozen payee, or a campaign without money, may
//! fail every transfer of an hour and trips nothing. Overload, silence and the unknown are the wallet's. What our own
//! settings bring about (credentials, a URL, too large a batch) says nothing of it, and counts for neither side.

use crate::domain::{PayoutCode, TransferStatus};
use crate::stored_value::remote::CallError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Healthy,
    Overload,
    Timeout,
    Unknown,
    /// Our own doing.
    Ours,
}

/// The class of one transfer's answer.
pub fn of_answer(status: TransferStatus) -> Class {
    match status {
        TransferStatus::Succeeded => Class::Healthy,
        TransferStatus::Failed(code) => of_code(code),
        TransferStatus::Unknown => Class::Unknown,
    }
}

fn of_code(code: PayoutCode) -> Class {
    match code {
        PayoutCode::IdConflict
        | PayoutCode::CrashSuspect
        | PayoutCode::Burned
        | PayoutCode::Expired
        | PayoutCode::CampaignClosed
        | PayoutCode::BudgetExhausted
        | PayoutCode::AmountLimit
        | PayoutCode::PayeeLimit
        | PayoutCode::AgreementRevoked
        | PayoutCode::PayeeNotFound
        | PayoutCode::PayeeFrozen
        | PayoutCode::PayeeUnverified
        | PayoutCode::WalletRefused
        | PayoutCode::LowBalance => Class::Healthy,
        PayoutCode::WalletOverloaded => Class::Overload,
    }
}

/// The class of a call that gave no answers.
pub fn of_error(error: &CallError) -> Class {
    match error {
        CallError::TimedOut { .. } => Class::Timeout,
        CallError::Unknown(_) => Class::Unknown,
        CallError::Overloaded { .. } => Class::Overload,
        CallError::Unauthorized(_) | CallError::TooLarge(_) | CallError::Rejected(_) => Class::Ours,
    }
}

/// Transfers by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub healthy: u64,
    pub overload: u64,
    pub timeout: u64,
    pub unknown: u64,
}

impl Counts {
    pub fn of(class: Class, count: u64) -> Counts {
        let mut counts = Counts::default();
        counts.add(class, count);
        counts
    }

    pub fn add(&mut self, class: Class, count: u64) {
        match class {
            Class::Healthy => self.healthy += count,
            Class::Overload => self.overload += count,
            Class::Timeout => self.timeout += count,
            Class::Unknown => self.unknown += count,
            Class::Ours => {}
        }
    }

    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            healthy: self.healthy.saturating_add(other.healthy),
            overload: self.overload.saturating_add(other.overload),
            timeout: self.timeout.saturating_add(other.timeout),
            unknown: self.unknown.saturating_add(other.unknown),
        }
    }

    pub fn unhealthy(&self) -> u64 {
        self.overload.saturating_add(self.timeout).saturating_add(self.unknown)
    }

    pub fn total(&self) -> u64 {
        self.healthy.saturating_add(self.unhealthy())
    }

    /// Whether so many percent of at least `volume` failed.
    pub fn fails(&self, volume: u64, percent: u64) -> bool {
        let (failed, total) = (u128::from(self.unhealthy()), u128::from(self.total()));
        self.total() >= volume.max(1) && failed * 100 >= total * u128::from(percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_overload_silence_and_the_unknown_count_against_the_wallet() {
        for code in PayoutCode::ALL {
            let expected =
                if code == PayoutCode::WalletOverloaded { Class::Overload } else { Class::Healthy };
            assert_eq!(of_answer(TransferStatus::Failed(code)), expected, "{code:?}");
        }
        assert_eq!(of_answer(TransferStatus::Succeeded), Class::Healthy);
        assert_eq!(of_answer(TransferStatus::Unknown), Class::Unknown);
        let text = String::new;
        let table = [
            (CallError::TimedOut { after_ms: 1 }, Class::Timeout),
            (CallError::Unknown(text()), Class::Unknown),
            (CallError::Overloaded { reason: text(), retry_after: None }, Class::Overload),
            (CallError::Unauthorized(text()), Class::Ours),
            (CallError::TooLarge(text()), Class::Ours),
            (CallError::Rejected(text()), Class::Ours),
        ];
        for (error, expected) in table {
            assert_eq!(of_error(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn what_is_our_own_doing_counts_for_neither_side() {
        let mut counts = Counts::of(Class::Ours, 100);
        assert_eq!(counts.total(), 0);
        counts.add(Class::Healthy, 5);
        counts.add(Class::Timeout, 5);
        assert!(counts.fails(10, 50) && !counts.fails(11, 50) && !counts.fails(10, 51));
    }
}
