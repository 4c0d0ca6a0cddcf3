//! The two vocabularies of refusal: what the door answers, and why a payout failed.
//!
//! Each is one enum, ordered by precedence (the first that applies is the one told), and each code is
//! classed without a wildcard arm, so that a new code does not compile until somebody has decided what it
//! means. Callers automate on these codes, never on messages.

/// Why the door refused a request. Ordered by precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    MalformedJson,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    IdConflict,
    NotCancelable,
    BodyTooLarge,
    UnsupportedMediaType,
    RequestTimeout,
    InvalidField,
    UnknownField,
    CampaignUnknown,
    CampaignClosed,
    CampaignPaused,
    BudgetExhausted,
    AmountLimit,
    PayeeLimit,
    TotalsMismatch,
    Expired,
    BacklogFull,
    NotAccepting,
    AppendUnknown,
}

impl Refusal {
    /// In order of precedence; each stands at its own number.
    pub const ALL: [Refusal; 23] = [
        Refusal::MalformedJson,
        Refusal::Unauthorized,
        Refusal::Forbidden,
        Refusal::NotFound,
        Refusal::MethodNotAllowed,
        Refusal::IdConflict,
        Refusal::NotCancelable,
        Refusal::BodyTooLarge,
        Refusal::UnsupportedMediaType,
        Refusal::RequestTimeout,
        Refusal::InvalidField,
        Refusal::UnknownField,
        Refusal::CampaignUnknown,
        Refusal::CampaignClosed,
        Refusal::CampaignPaused,
        Refusal::BudgetExhausted,
        Refusal::AmountLimit,
        Refusal::PayeeLimit,
        Refusal::TotalsMismatch,
        Refusal::Expired,
        Refusal::BacklogFull,
        Refusal::NotAccepting,
        Refusal::AppendUnknown,
    ];

    /// The code as it stands in a problem body.
    pub const fn as_str(self) -> &'static str {
        match self {
            Refusal::MalformedJson => "malformed_json",
            Refusal::Unauthorized => "unauthorized",
            Refusal::Forbidden => "forbidden",
            Refusal::NotFound => "not_found",
            Refusal::MethodNotAllowed => "method_not_allowed",
            Refusal::IdConflict => "id_conflict",
            Refusal::NotCancelable => "not_cancelable",
            Refusal::BodyTooLarge => "body_too_large",
            Refusal::UnsupportedMediaType => "unsupported_media_type",
            Refusal::RequestTimeout => "request_timeout",
            Refusal::InvalidField => "invalid_field",
            Refusal::UnknownField => "unknown_field",
            Refusal::CampaignUnknown => "campaign_unknown",
            Refusal::CampaignClosed => "campaign_closed",
            Refusal::CampaignPaused => "campaign_paused",
            Refusal::BudgetExhausted => "budget_exhausted",
            Refusal::AmountLimit => "amount_limit",
            Refusal::PayeeLimit => "payee_limit",
            Refusal::TotalsMismatch => "totals_mismatch",
            Refusal::Expired => "expired",
            Refusal::BacklogFull => "backlog_full",
            Refusal::NotAccepting => "not_accepting",
            Refusal::AppendUnknown => "append_unknown",
        }
    }

    /// The HTTP status code that carries it.
    pub const fn http_status(self) -> u16 {
        match self {
            Refusal::MalformedJson => 400,
            Refusal::Unauthorized => 401,
            Refusal::Forbidden => 403,
            Refusal::NotFound => 404,
            Refusal::MethodNotAllowed => 405,
            Refusal::RequestTimeout => 408,
            Refusal::IdConflict | Refusal::NotCancelable => 409,
            Refusal::BodyTooLarge => 413,
            Refusal::UnsupportedMediaType => 415,
            Refusal::InvalidField
            | Refusal::UnknownField
            | Refusal::CampaignUnknown
            | Refusal::CampaignClosed
            | Refusal::CampaignPaused
            | Refusal::BudgetExhausted
            | Refusal::AmountLimit
            | Refusal::PayeeLimit
            | Refusal::TotalsMismatch
            | Refusal::Expired => 422,
            Refusal::BacklogFull => 429,
            Refusal::NotAccepting | Refusal::AppendUnknown => 503,
        }
    }

    /// Whether the same request, unchanged, may be taken later (a paused campaign resumes, a budget grows).
    pub const fn may_pass(self) -> bool {
        match self {
            Refusal::CampaignUnknown
            | Refusal::CampaignPaused
            | Refusal::BudgetExhausted
            | Refusal::AmountLimit
            | Refusal::PayeeLimit
            | Refusal::BacklogFull
            | Refusal::NotAccepting
            | Refusal::RequestTimeout
            | Refusal::AppendUnknown => true,
            Refusal::MalformedJson
            | Refusal::Unauthorized
            | Refusal::Forbidden
            | Refusal::NotFound
            | Refusal::MethodNotAllowed
            | Refusal::IdConflict
            | Refusal::NotCancelable
            | Refusal::BodyTooLarge
            | Refusal::UnsupportedMediaType
            | Refusal::InvalidField
            | Refusal::UnknownField
            | Refusal::CampaignClosed
            | Refusal::TotalsMismatch
            | Refusal::Expired => false,
        }
    }
}

/// How the pipeline treats a payout code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Final; the wallet has it on record against the id.
    Recorded,
    /// Not recorded; the same id may be paid later.
    Retryable,
}

/// Why a payout did not succeed. Ordered by precedence; the number is the stored form and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PayoutCode {
    IdConflict = 1,
    CrashSuspect = 2,
    Burned = 3,
    Expired = 4,
    CampaignClosed = 5,
    BudgetExhausted = 6,
    AmountLimit = 7,
    PayeeLimit = 8,
    AgreementRevoked = 9,
    PayeeNotFound = 10,
    PayeeFrozen = 11,
    PayeeUnverified = 12,
    WalletRefused = 13,
    LowBalance = 14,
    WalletOverloaded = 15,
}

impl PayoutCode {
    pub const ALL: [PayoutCode; 15] = [
        PayoutCode::IdConflict,
        PayoutCode::CrashSuspect,
        PayoutCode::Burned,
        PayoutCode::Expired,
        PayoutCode::CampaignClosed,
        PayoutCode::BudgetExhausted,
        PayoutCode::AmountLimit,
        PayoutCode::PayeeLimit,
        PayoutCode::AgreementRevoked,
        PayoutCode::PayeeNotFound,
        PayoutCode::PayeeFrozen,
        PayoutCode::PayeeUnverified,
        PayoutCode::WalletRefused,
        PayoutCode::LowBalance,
        PayoutCode::WalletOverloaded,
    ];

    pub fn from_u8(byte: u8) -> Option<PayoutCode> {
        PayoutCode::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }

    pub fn parse(text: &str) -> Option<PayoutCode> {
        PayoutCode::ALL.into_iter().find(|code| code.as_str() == text)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            PayoutCode::IdConflict => "id_conflict",
            PayoutCode::CrashSuspect => "crash_suspect",
            PayoutCode::Burned => "burned",
            PayoutCode::Expired => "expired",
            PayoutCode::CampaignClosed => "campaign_closed",
            PayoutCode::BudgetExhausted => "budget_exhausted",
            PayoutCode::AmountLimit => "amount_limit",
            PayoutCode::PayeeLimit => "payee_limit",
            PayoutCode::AgreementRevoked => "agreement_revoked",
            PayoutCode::PayeeNotFound => "payee_not_found",
            PayoutCode::PayeeFrozen => "payee_frozen",
            PayoutCode::PayeeUnverified => "payee_unverified",
            PayoutCode::WalletRefused => "wallet_refused",
            PayoutCode::LowBalance => "low_balance",
            PayoutCode::WalletOverloaded => "wallet_overloaded",
        }
    }

    pub const fn class(self) -> Class {
        match self {
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
            | PayoutCode::WalletRefused => Class::Recorded,
            PayoutCode::LowBalance | PayoutCode::WalletOverloaded => Class::Retryable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_numbers_and_names_come_back() {
        for (position, code) in PayoutCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, position + 1, "the list stands in the order of the stored numbers");
            assert_eq!(PayoutCode::from_u8(code as u8), Some(code));
            assert_eq!(PayoutCode::parse(code.as_str()), Some(code));
        }
        assert_eq!(PayoutCode::from_u8(0), None);
        assert_eq!(PayoutCode::from_u8(16), None);
    }
}
