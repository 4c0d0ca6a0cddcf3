//! A status code other than 200 becomes a [`CallError`].
//!
//! The code alone decides the kind; the body gives words for the reason, where it is a problem (RFC 9457). In
//! every case the entries stay unknown: a refusal may have been made up on the way back.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};
use serde::Deserialize;

use super::exchange::Origin;
use crate::stored_value::remote::CallError;

/// The longest pause that a wallet can ask for; our own timers look again after that.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

pub(super) fn refusal(
    origin: &Origin<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    problem: &[u8],
    waited: Duration,
) -> CallError {
    let reason = || origin.says(&format!("answered {status}{}", words(headers, problem)));
    match status.as_u16() {
        401 | 403 => CallError::Unauthorized(reason()),
        408 => CallError::TimedOut { after_ms: waited.as_millis() as u64 },
        413 => CallError::TooLarge(reason()),
        429 | 503 => {
            let retry_after = retry_after(headers, SystemTime::now());
            CallError::Overloaded { reason: reason(), retry_after }
        }
        300..=499 => CallError::Rejected(reason()),
        // 5xx; and a 1xx or another 2xx, after which nothing can be said of any entry.
        _ => CallError::Unknown(reason()),
    }
}

#[derive(Deserialize)]
struct Problem<'a> {
    #[serde(borrow, default)]
    title: Cow<'a, str>,
    #[serde(borrow, default)]
    detail: Cow<'a, str>,
}

/// What the wallet says of its refusal: the problem's title and detail, or where it would send us.
fn words(headers: &HeaderMap, problem: &[u8]) -> String {
    if let Some(to) = headers.get(LOCATION) {
        return format!(", a redirect to {}; redirects are not followed", to.as_bytes().escape_ascii());
    }
    let Ok(problem) = serde_json::from_slice::<Problem<'_>>(problem) else { return String::new() };
    let said = [problem.title, problem.detail].into_iter().filter(|text| !text.is_empty());
    let said: Vec<Cow<'_, str>> = said.collect();
    if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) }
}

/// Seconds or an HTTP date (RFC 9110, 10.2.3); what is neither counts as not said. A date is held against the
/// wallet's own clock, where it tells that.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only a number past 2^64 does not parse, and that is past the bound.
        let asked = text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs);
        return Some(asked.min(RETRY_AFTER_MAX));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let theirs = headers.get(DATE).and_then(|value| value.to_str().ok()).and_then(date);
    let asked = date(text)?.duration_since(theirs.unwrap_or(now)).unwrap_or_default();
    Some(asked.min(RETRY_AFTER_MAX))
}
