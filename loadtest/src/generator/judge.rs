//! What an answer says about each request of a call.
//!
//! What holds: a request is acknowledged only by 202, or by 200 for the same body; it is refused only by an answer
//! that says so definitely; everything else leaves it open, and the call is sent again. Pure.

use serde::Deserialize;

use crate::http::Answer;

/// What became of one request of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Acknowledged,
    Refused(String),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// All of them.
    Acknowledged { recognised: u64 },
    /// Definite, one by one.
    Each { said: Vec<Said>, recognised: u64 },
    /// Not definite; the cause by which it is counted, and whether at least this attempt was surely not accepted.
    Again { cause: String, surely_not: bool },
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    accepted: String,
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
    #[serde(default)]
    duplicate_count: u64,
    #[serde(default)]
    refused: Vec<RefusedItem>,
}

/// Whether a refusal passes by itself.
fn is_passing(code: &str) -> bool {
    matches!(code, "backlog_full" | "not_accepting" | "append_unknown" | "request_timeout")
}

pub fn judge(answer: &Answer, count: usize, is_batch: bool) -> Judgement {
    let problem = || serde_json::from_slice::<Problem>(&answer.body).ok();
    let again = || Judgement::Again {
        cause: answer.status.to_string(),
        surely_not: problem().is_some_and(|problem| problem.accepted == "no"),
    };
    match answer.status {
        200 | 202 if !is_batch => Judgement::Acknowledged { recognised: u64::from(answer.status == 200) },
        200 | 202 => match serde_json::from_slice::<BatchAccepted>(&answer.body) {
            Ok(batch) if batch.refused.is_empty() => {
                Judgement::Acknowledged { recognised: batch.duplicate_count }
            }
            Ok(batch) => each(count, batch.refused, batch.duplicate_count),
            Err(_) => doubtful("unreadable answer"),
        },
        408 | 429 | 500.. => again(),
        400..=499 => match problem() {
            Some(problem) if problem.refused.len() == count && is_batch => each(count, problem.refused, 0),
            Some(problem) if !problem.code.is_empty() => {
                Judgement::Each { said: vec![Said::Refused(problem.code); count], recognised: 0 }
            }
            _ => again(),
        },
        _ => again(),
    }
}

fn doubtful(cause: &str) -> Judgement {
    Judgement::Again { cause: cause.to_owned(), surely_not: false }
}

fn each(count: usize, refused: Vec<RefusedItem>, recognised: u64) -> Judgement {
    if let Some(item) = refused.iter().find(|item| is_passing(&item.code)) {
        return doubtful(&item.code);
    }
    let mut said = vec![Said::Acknowledged; count];
    for RefusedItem { index, code } in refused {
        match said.get_mut(index) {
            Some(place) => *place = Said::Refused(code),
            None => return doubtful("an answer about another call"),
        }
    }
    Judgement::Each { said, recognised }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(cause: &str) -> Judgement {
        doubtful(cause)
    }

    #[test]
    fn answers_and_what_they_say() {
        let no = |code: &str| Said::Refused(code.to_owned());
        let conflict = r#"{"status":409,"code":"id_conflict","accepted":"no"}"#;
        let part = r#"{"duplicate_count":1,"refused":[{"index":1,"code":"id_conflict"}]}"#;
        let full = r#"{"duplicate_count":0,"refused":[{"index":0,"code":"backlog_full"}]}"#;
        let none = r#"{"code":"invalid_field","refused":[{"index":0,"code":"a"},{"index":1,"code":"b"}]}"#;
        let sure = r#"{"code":"backlog_full","accepted":"no"}"#;
        let ok = Said::Acknowledged;
        let table = [
            (202, "{}", 1, false, Judgement::Acknowledged { recognised: 0 }),
            (200, "{}", 1, false, Judgement::Acknowledged { recognised: 1 }),
            (409, conflict, 1, false, Judgement::Each { said: vec![no("id_conflict")], recognised: 0 }),
            (429, "{}", 1, false, again("429")),
            (429, sure, 1, false, Judgement::Again { cause: "429".to_owned(), surely_not: true }),
            (503, "", 1, false, again("503")),
            (404, "<html>", 1, false, again("404")),
            (302, "", 1, false, again("302")),
            (
                202,
                "{\"duplicate_count\":0,\"refused\":[]}",
                2,
                true,
                Judgement::Acknowledged { recognised: 0 },
            ),
            (202, part, 2, true, Judgement::Each { said: vec![ok, no("id_conflict")], recognised: 1 }),
            (202, full, 2, true, again("backlog_full")),
            (202, "nonsense", 2, true, again("unreadable answer")),
            (422, none, 2, true, Judgement::Each { said: vec![no("a"), no("b")], recognised: 0 }),
        ];
        for (status, body, count, is_batch, expected) in table {
            let answer = Answer { status, retry_after_s: None, closes: false, body: body.into() };
            assert_eq!(judge(&answer, count, is_batch), expected, "{status} {body}");
        }
    }
}
