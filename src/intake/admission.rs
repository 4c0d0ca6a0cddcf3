//! What is refused for want of time or room: one rule for both intakes.
//!
//! What holds: nothing is promised for later than its `not_after`; a request whose own place in line is past the horizon is
//! refused, and so is every request while all that waits together is past twice the horizon, or is more than may
//! wait. A campaign that fills its queue so shuts the door for that queue, and others come in at their own places. Pure;
//! the waits are the forecast's ([`crate::shaping::forecast`]), medians. Absent: what never waits (the control lane).

use super::desk::Refused;
use crate::domain::{Refusal, Request, UnixMs};

/// A forecast of longer is not relied upon: come and ask again.
const RETRY_AFTER_S_MAX: u64 = 60;
/// All that waits together, against the wait of one: a lane whose every queue is at its horizon holds no more.
const WHOLE_FACTOR: u64 = 2;

/// What may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The horizon of a place in line.
    pub wait_ms_max: u64,
    /// Requests in all, parked ones among them.
    pub backlog_max: u64,
}

/// What a request finds before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Until its own turn, in its own queue.
    pub wait_ms: u64,
    /// Until all is done that waits now.
    pub whole_ms: u64,
    /// Requests, in all.
    pub waiting: u64,
}

/// When it will be done, if that is soon enough.
pub fn completion(request: &Request<'_>, now: UnixMs, wait_ms: u64) -> Result<UnixMs, Refused> {
    let (not_before, not_after) = (request.not_before, request.not_after);
    if not_after != 0 && not_after <= now {
        return Err(Refused::new(Refusal::Expired, "not_after lies in the past"));
    }
    let completion_at = now.saturating_add(wait_ms.max(1)).max(not_before);
    if not_after != 0 && completion_at > not_after {
        let detail = format!("it would be settled in about {} ms, after its not_after", completion_at - now);
        return Err(Refused::new(Refusal::Expired, detail));
    }
    Ok(completion_at)
}

/// Why there is no room for it, if there is none.
pub fn overload(ahead: Ahead, bounds: Bounds) -> Option<Refused> {
    let Ahead { wait_ms, whole_ms, waiting } = ahead;
    let whole_ms_max = bounds.wait_ms_max.saturating_mul(WHOLE_FACTOR);
    let over_count = (waiting + 1).saturating_sub(bounds.backlog_max);
    let over_ms = wait_ms
        .saturating_sub(bounds.wait_ms_max)
        .max(whole_ms.saturating_sub(whole_ms_max))
        .max(whole_ms.saturating_mul(over_count) / (waiting + 1));
    let is_over = wait_ms > bounds.wait_ms_max || whole_ms > whole_ms_max || over_count > 0;
    is_over.then(|| backlog_full(ahead, over_ms))
}

/// The refusal; what is in its way will be gone in `over_ms`.
pub fn backlog_full(ahead: Ahead, over_ms: u64) -> Refused {
    let Ahead { wait_ms, waiting, .. } = ahead;
    let detail = format!("{waiting} requests wait, about {wait_ms} ms; come back later with the same id");
    let retry_after_s = over_ms.div_ceil(1_000).clamp(1, RETRY_AFTER_S_MAX) as u32;
    Refused { retry_after_s: Some(retry_after_s), ..Refused::new(Refusal::BacklogFull, detail) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Amount, Currency, Kind};

    #[test]
    fn nothing_is_promised_for_later_than_it_may_be_done() {
        let (amount, currency) = (Amount::new(1).unwrap(), Currency::parse("CNY").unwrap());
        let request = Request::new(Kind::Disbursement, "s", "r", "c", amount, currency);
        // not_before, not_after, wait; when, if ever; the clock stands at 1000
        let table = [
            (0, 0, 0, Some(1_001)),
            (0, 0, 100, Some(1_100)),
            (5_000, 0, 100, Some(5_000)),
            (0, 999, 0, None),
            (0, 1_000, 0, None),
            (0, 1_001, 0, Some(1_001)),
            (0, 1_099, 100, None),
            (0, 1_100, 100, Some(1_100)),
            (5_000, 5_001, 100, Some(5_000)),
            (5_000, 5_001, 6_000, None),
            (0, 0, u64::MAX, Some(u64::MAX)),
        ];
        for (not_before, not_after, wait_ms, expected) in table {
            let told = completion(&Request { not_before, not_after, ..request }, 1_000, wait_ms);
            assert_eq!(told.as_ref().ok(), expected.as_ref(), "{not_before} {not_after} {wait_ms}");
            assert!(told.is_ok() || told.is_err_and(|refused| refused.code == Refusal::Expired));
        }
    }

    #[test]
    fn past_the_horizon_of_one_or_of_all() {
        let bounds = Bounds { wait_ms_max: 10_000, backlog_max: 1_000 };
        // wait, all, count; the seconds after which to come again
        let table = [
            (10_000, 20_000, 999, None),
            (10_001, 10_001, 9, Some(1)),
            (12_001, 20_000, 9, Some(3)),
            (100, 20_001, 9, Some(1)),
            (100, 24_500, 9, Some(5)),
            (100, 10_000, 1_000, Some(1)),
            (100, 10_000, 1_999, Some(5)),
            (u64::MAX, u64::MAX, 9, Some(60)),
        ];
        for (wait_ms, whole_ms, waiting, expected) in table {
            let told = overload(Ahead { wait_ms, whole_ms, waiting }, bounds);
            let told = told.map(|refused| refused.retry_after_s.expect("it says when"));
            assert_eq!(told, expected, "{wait_ms} {whole_ms} {waiting}");
        }
    }
}
