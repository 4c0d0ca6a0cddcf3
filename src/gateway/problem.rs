//! Problems: every refusal of the door as `application/problem+json` (RFC 9457).
//!
//! `accepted` says whether the request may have been accepted all the same; it is "no" only where this
//! instance can be sure. Callers automate on `code`, never on `title` or `detail`. No problem is made
//! anywhere else, so no refusal can leave in another form.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{RefusedItem, with_body};
use super::port::Refused;
use crate::domain::Refusal;
use crate::request::NotJson;
use crate::request::fault::{Fault, Faults};

const RETRY_AFTER_S_DEFAULT: u32 = 1;

/// A refusal on its way out. Boxed, because it travels in the error arm of every handler.
#[derive(Clone, Debug)]
pub struct Problem(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    refused: Refused,
    errors: Vec<Fault>,
    items: Vec<RefusedItem>,
    close: bool,
}

/// The body of every problem.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// `urn:hongbao:problem:<code>`
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    /// "no" where this instance can be sure that nothing was accepted, "unknown" otherwise.
    accepted: &'static str,
    /// Every field at fault.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Fault],
    /// For `id_conflict`: the money fields that differ from what the id stands for.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    conflicts: &'a [&'static str],
    /// For a batch of which nothing was accepted: its items.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    refused: &'a [RefusedItem],
}

impl Problem {
    pub fn new(code: Refusal, detail: impl Into<String>) -> Problem {
        Problem::from(Refused {
            code,
            detail: detail.into(),
            conflicts: Vec::new(),
            retry_after_s: None,
            accepted_unknown: false,
        })
    }

    pub fn faults(faults: Faults) -> Problem {
        let mut problem = Problem::new(faults.refusal(), faults.summary());
        problem.0.errors = faults.into_list();
        problem
    }

    /// A problem with a code of its own and the fields it is about.
    pub fn with_faults(code: Refusal, faults: Faults) -> Problem {
        let mut problem = Problem::new(code, faults.summary());
        problem.0.errors = faults.into_list();
        problem
    }

    pub fn with_items(mut self, items: Vec<RefusedItem>) -> Problem {
        self.0.items = items;
        self
    }

    /// Says that the connection ends here, where the rest of the request is left unread.
    pub fn closing(mut self) -> Problem {
        self.0.close = true;
        self
    }

    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(Refusal::NotFound, detail)
    }

    /// The answer when the parts behind did not keep their word: what became of the request is not known.
    pub fn no_answer() -> Problem {
        let mut problem =
            Problem::new(Refusal::AppendUnknown, "no answer came for this request; send it again");
        problem.0.refused.accepted_unknown = true;
        problem
    }

    pub fn code(&self) -> Refusal {
        self.0.refused.code
    }

    fn body(&self) -> ProblemBody<'_> {
        let Refused { code, detail, conflicts, accepted_unknown, .. } = &self.0.refused;
        ProblemBody {
            r#type: format!("urn:hongbao:problem:{}", code.as_str()),
            title: title(*code),
            status: code.http_status(),
            detail,
            code: code.as_str(),
            accepted: if *accepted_unknown { "unknown" } else { "no" },
            errors: &self.0.errors,
            conflicts,
            refused: &self.0.items,
        }
    }
}

impl From<Refused> for Problem {
    fn from(mut refused: Refused) -> Problem {
        // An append whose outcome is unknown is never told as "no", whatever the flag says.
        refused.accepted_unknown |= refused.code == Refusal::AppendUnknown;
        Problem(Box::new(Inner { refused, errors: Vec::new(), items: Vec::new(), close: false }))
    }
}

impl From<NotJson> for Problem {
    fn from(not_json: NotJson) -> Problem {
        Problem::new(Refusal::MalformedJson, not_json.0)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = self.code();
        let status = StatusCode::from_u16(code.http_status()).expect("every refusal has a valid status code");
        let body = serde_json::to_vec(&self.body()).expect("a problem has only string keys");
        let mut response = with_body(status, "application/problem+json", body);
        let mut set = |name: HeaderName, value: HeaderValue| response.headers_mut().insert(name, value);
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let seconds = self.0.refused.retry_after_s.unwrap_or(RETRY_AFTER_S_DEFAULT);
            set(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            set(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"hongbao\""));
        }
        if self.0.close {
            set(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

const fn title(code: Refusal) -> &'static str {
    match code {
        Refusal::MalformedJson => "The body is not JSON",
        Refusal::Unauthorized => "Credentials are missing or wrong",
        Refusal::Forbidden => "Not allowed for this client",
        Refusal::NotFound => "Not found",
        Refusal::MethodNotAllowed => "The method is not allowed here",
        Refusal::IdConflict => "The id stands for something else",
        Refusal::AmountLimit => "Above what one request may move",
        Refusal::PayeeLimit => "The payee has had its share",
        Refusal::NotCancelable => "Too late to cancel",
        Refusal::BodyTooLarge => "The body is too large",
        Refusal::UnsupportedMediaType => "The body must be application/json",
        Refusal::RequestTimeout => "The request took too long to arrive",
        Refusal::InvalidField => "A field is not valid",
        Refusal::UnknownField => "A field is not known",
        Refusal::CampaignUnknown => "The campaign is not known",
        Refusal::CampaignClosed => "The campaign is closed",
        Refusal::CampaignPaused => "The campaign is paused",
        Refusal::BudgetExhausted => "The campaign's budget is exhausted",
        Refusal::TotalsMismatch => "The totals do not add up",
        Refusal::Expired => "The request has expired",
        Refusal::BacklogFull => "Too much is waiting already",
        Refusal::NotAccepting => "This instance is not accepting",
        Refusal::AppendUnknown => "It is not known whether the request was accepted",
    }
}
