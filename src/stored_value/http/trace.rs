//! The W3C trace context of one call, so that a line in our log and one in the wallet's can be laid side by side.
//!
//! <https://www.w3.org/TR/trace-context/>: version 00, a trace id of 16 random bytes and a parent id of 8. Each
//! call is a trace of its own; no span is recorded here beyond the id in an error's text.

use uuid::Uuid;

pub(super) struct Trace {
    /// 32 lower-case hexadecimal digits.
    pub id: String,
    parent: u64,
}

impl Trace {
    pub fn new() -> Trace {
        // The low half of a version 4 UUID holds its variant bits, so neither id is ever all zeros, which the
        // recommendation calls invalid.
        let parent = Uuid::new_v4().as_u64_pair().1;
        Trace { id: Uuid::new_v4().simple().to_string(), parent }
    }

    /// The value of the `traceparent` header; flagged as sampled, because an error here names the trace.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{:016x}-01", self.id, self.parent)
    }
}
