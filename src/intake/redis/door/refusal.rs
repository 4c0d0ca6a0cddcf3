//! What is said when Redis did not do what was asked, by what is known of it.
//!
//! "no" is said only where nothing can have been registered or appended; everything else is "unknown", and the
//! caller's way out is the same in both: retry with the same id.

use crate::domain::Refusal;
use crate::intake::desk::Refused;
use crate::redis::Failure;

fn retry(code: Refusal, detail: String, is_unknown: bool) -> Refused {
    let mut refused = Refused::new(code, format!("{detail}; retry with the same id"));
    refused.accepted_unknown = is_unknown;
    refused.retry_after_s = Some(1);
    refused
}

/// The queue at the door is full, or the door is shut.
pub fn busy(is_stopped: bool) -> Refused {
    if is_stopped {
        retry(Refusal::NotAccepting, "this instance is stopping".to_owned(), false)
    } else {
        retry(Refusal::BacklogFull, "the accept queue is full".to_owned(), false)
    }
}

/// The thread that had the call is gone.
pub fn gone() -> Refused {
    retry(Refusal::AppendUnknown, "the service is stopping or has failed".to_owned(), true)
}

/// Nothing can be accepted, for a reason that a human must see to.
pub fn closed(reason: &str) -> Refused {
    Refused::new(Refusal::NotAccepting, format!("this instance accepts nothing: {reason}"))
}

/// Redis has no memory for it.
pub fn full(is_unknown: bool) -> Refused {
    let mut refused = retry(Refusal::BacklogFull, "Redis is full".to_owned(), is_unknown);
    refused.retry_after_s = Some(2);
    refused
}

/// Looking or registering failed: nothing was appended.
pub fn of_identity(failure: &Failure) -> Refused {
    match failure {
        _ if failure.is_code("OOM") => full(false),
        Failure::Refused { .. } | Failure::NotSent(_) => {
            retry(Refusal::NotAccepting, failure.to_string(), false)
        }
        // It may stand registered, and would be told as accepted by a look-up.
        Failure::Unknown(_) | Failure::Strange { .. } => {
            retry(Refusal::AppendUnknown, failure.to_string(), true)
        }
    }
}

/// A question was not answered; nothing was to be changed.
pub fn of_look(reason: &str) -> Refused {
    let mut refused = Refused::new(Refusal::NotAccepting, format!("it cannot be looked up now: {reason}"));
    refused.retry_after_s = Some(1);
    refused
}

/// Appending failed. What stands registered may be appended by a retry elsewhere, so "no" can be said of it only
/// where it does not.
pub fn of_push(failure: &Failure, is_registered: bool) -> Refused {
    match failure {
        _ if failure.is_code("OOM") => full(is_registered),
        Failure::Refused { .. } | Failure::NotSent(_) if !is_registered => {
            retry(Refusal::NotAccepting, failure.to_string(), false)
        }
        Failure::Refused { .. } | Failure::NotSent(_) | Failure::Unknown(_) | Failure::Strange { .. } => {
            retry(Refusal::AppendUnknown, failure.to_string(), true)
        }
    }
}

/// It is appended, and would be lost with the server.
pub fn too_few_replicas(confirmed: u32, count_min: u32) -> Refused {
    let detail = format!(
        "it was appended, and {confirmed} of the {count_min} replicas that intake.redis.durability_min asks for confirmed it in time"
    );
    retry(Refusal::AppendUnknown, detail, true)
}

/// What stands there cannot be read: nothing is decided on top of it.
pub fn damaged(what: &str, error: &dyn std::fmt::Display) -> Refused {
    let detail =
        format!("what Redis holds for {what} cannot be read: {error}; look for a newer release's data");
    Refused { accepted_unknown: true, ..Refused::new(Refusal::NotAccepting, detail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_is_said_only_where_it_is_sure() {
        let refused = |code: &str| Failure::Refused {
            command: "RPUSH".to_owned(),
            code: code.to_owned(),
            detail: String::new(),
        };
        let (unsent, silent) = (Failure::NotSent(String::new()), Failure::Unknown(String::new()));
        let strange = Failure::Strange { command: String::new(), expected: "x" };
        use Refusal::{AppendUnknown, BacklogFull, NotAccepting};
        // failure; code and whether unknown: at the look-up, at the push unregistered, at the push registered
        let table = [
            (refused("OOM"), (BacklogFull, false), (BacklogFull, false), (BacklogFull, true)),
            (refused("READONLY"), (NotAccepting, false), (NotAccepting, false), (AppendUnknown, true)),
            (unsent, (NotAccepting, false), (NotAccepting, false), (AppendUnknown, true)),
            (silent, (AppendUnknown, true), (AppendUnknown, true), (AppendUnknown, true)),
            (strange, (AppendUnknown, true), (AppendUnknown, true), (AppendUnknown, true)),
        ];
        for (failure, looked, unregistered, registered) in table {
            let told = |refused: Refused| {
                assert!(refused.retry_after_s.is_some());
                (refused.code, refused.accepted_unknown)
            };
            assert_eq!(told(of_identity(&failure)), looked, "{failure}");
            assert_eq!(told(of_push(&failure, false)), unregistered, "{failure}");
            assert_eq!(told(of_push(&failure, true)), registered, "{failure}");
        }
    }
}
