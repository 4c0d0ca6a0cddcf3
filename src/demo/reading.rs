//! What an answer of the door says about each request of a call.
//!
//! What holds: a request counts as acknowledged only by 202, or by 200 for the same body; everything else is
//! refused with a code, or read as open and sent again. An answer that does not have the agreed form is an
//! error, never a guess. Pure.

use anyhow::{Context, ensure};
use hyper::StatusCode;
use serde::Deserialize;

use crate::domain::UnixMs;
use crate::request::rfc3339;

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Durable for the first time.
    Accepted,
    /// Recognised: the same body was accepted before.
    Recognised,
    /// Durable; the answer to a batch does not say of which of its items it is the first time.
    Acknowledged,
    Refused(String),
}

/// What became of all requests of a call.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    pub fates: Vec<Fate>,
    /// How many the door recognised, as it says.
    pub recognised: u64,
    /// Some were refused for now: the call is to be sent again as it is.
    pub send_again: bool,
    /// When the last of what was accepted will be done, as the door estimates.
    pub completion_at: Option<UnixMs>,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    refused: Vec<RefusedItem>,
}

#[derive(Deserialize)]
struct RefusedItem {
    index: usize,
    code: String,
}

#[derive(Deserialize)]
struct BatchAccepted {
    accepted_count: u64,
    duplicate_count: u64,
    refused: Vec<RefusedItem>,
}

#[derive(Deserialize)]
struct Estimated {
    estimated_completion_at: Option<String>,
}

/// When what an answer accepts will be done, as the door estimates.
pub fn completion_at(body: &[u8]) -> Option<UnixMs> {
    let Estimated { estimated_completion_at } = serde_json::from_slice(body).ok()?;
    rfc3339::parse(&estimated_completion_at?)
}

/// Whether a refusal passes by itself.
fn is_passing(code: &str) -> bool {
    matches!(code, "backlog_full" | "not_accepting" | "append_unknown" | "request_timeout")
}

/// Reads the answer to a request sent alone.
pub fn single(status: StatusCode, body: &[u8]) -> anyhow::Result<Fate> {
    match status {
        StatusCode::ACCEPTED => Ok(Fate::Accepted),
        StatusCode::OK => Ok(Fate::Recognised),
        _ => Ok(Fate::Refused(problem(status, body)?.code)),
    }
}

fn problem(status: StatusCode, body: &[u8]) -> anyhow::Result<Problem> {
    ensure!(status.is_client_error(), "the door answered {status}: {}", String::from_utf8_lossy(body));
    serde_json::from_slice(body)
        .with_context(|| format!("a {status} that is no problem body: {}", String::from_utf8_lossy(body)))
}

/// Reads the answer to a batch of `count` items.
pub fn batch(status: StatusCode, body: &[u8], count: usize) -> anyhow::Result<Read> {
    let (refused, recognised) = if status == StatusCode::ACCEPTED || status == StatusCode::OK {
        let read: BatchAccepted = serde_json::from_slice(body).context("the answer to a batch")?;
        let told = read.accepted_count + read.duplicate_count + read.refused.len() as u64;
        ensure!(told == count as u64, "the door tells of {told} items, not of {count}");
        (read.refused, read.duplicate_count)
    } else {
        let problem = problem(status, body)?;
        let code = problem.code;
        ensure!(problem.refused.len() == count, "a batch was refused whole: {code}");
        (problem.refused, 0)
    };
    let send_again = refused.iter().any(|item| is_passing(&item.code));
    let mut fates = vec![Fate::Acknowledged; count];
    for RefusedItem { index, code } in refused {
        let fate =
            fates.get_mut(index).with_context(|| format!("the door refuses item {index} of {count}"))?;
        *fate = Fate::Refused(code);
    }
    Ok(Read { fates, recognised, send_again, completion_at: completion_at(body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singles() {
        let problem = br#"{"type":"x","title":"t","status":409,"code":"id_conflict","accepted":"no"}"#;
        let table: [(u16, &[u8], Option<Fate>); 5] = [
            (202, b"{}", Some(Fate::Accepted)),
            (200, b"{}", Some(Fate::Recognised)),
            (409, problem, Some(Fate::Refused("id_conflict".to_owned()))),
            (404, b"<html>", None),
            (302, b"", None),
        ];
        for (status, body, expected) in table {
            let read = single(StatusCode::from_u16(status).unwrap(), body);
            assert_eq!(read.ok(), expected, "{status}");
        }
    }

    #[test]
    fn batches() {
        let check = |status: u16, body: &str, count| {
            batch(StatusCode::from_u16(status).unwrap(), body.as_bytes(), count).ok()
        };
        let some = r#"{"id":"b","accepted_count":2,"duplicate_count":1,"refused":[{"index":1,"code":"id_conflict"}]}"#;
        let read = check(202, some, 4).unwrap();
        let conflict = Fate::Refused("id_conflict".to_owned());
        let ack = Fate::Acknowledged;
        assert_eq!(read.fates, [ack.clone(), conflict, ack.clone(), ack]);
        assert_eq!((read.recognised, read.send_again, read.completion_at), (1, false, None));
        let told = some.replacen('{', r#"{"estimated_completion_at":"1970-01-01T00:00:01.500Z","#, 1);
        assert_eq!(check(202, &told, 4).unwrap().completion_at, Some(1_500));
        assert_eq!(check(202, some, 5), None, "an item it says nothing of");
        let passing =
            r#"{"accepted_count":0,"duplicate_count":1,"refused":[{"index":1,"code":"backlog_full"}]}"#;
        assert!(check(200, passing, 2).unwrap().send_again);
        let whole = r#"{"code":"budget_exhausted","refused":[{"index":0,"code":"budget_exhausted"}]}"#;
        assert_eq!(check(422, whole, 1).unwrap().fates, [Fate::Refused("budget_exhausted".to_owned())]);
        assert_eq!(check(422, r#"{"code":"totals_mismatch"}"#, 1), None);
    }
}
