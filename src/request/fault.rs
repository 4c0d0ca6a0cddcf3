//! Faults of a body: what is wrong with which field, by JSON pointer.
//!
//! A list of faults is bounded, because a hostile body can hold a million of them; a last entry says how many
//! were left out. An empty list costs nothing, which is what the hot path passes around.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::Refusal;

/// The most faults told of one body.
const FAULTS_MAX: usize = 1_000;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    MissingField,
    WrongType,
    InvalidValue,
    OutOfRange,
    /// Disagrees with another field or with a header.
    Mismatch,
    RepeatedField,
    UnknownField,
}

/// One fault, as it stands in a problem body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to the field; `?name` for a query parameter.
    pub pointer: String,
    pub code: FaultCode,
    pub detail: String,
}

/// Where in a body an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Top,
    Item(usize),
    /// In a batch to a wallet.
    Transfer(usize),
    /// In the list of a lookup.
    Id(usize),
    Query,
}

impl Place {
    /// The pointer to a field of the object here; the object itself with an empty name.
    pub fn pointer(self, field: &str) -> String {
        let prefix = match self {
            Place::Top => String::new(),
            Place::Item(index) => format!("/items/{index}"),
            Place::Transfer(index) => format!("/transfers/{index}"),
            Place::Id(index) => format!("/ids/{index}"),
            Place::Query => return format!("?{field}"),
        };
        if field.is_empty() { prefix } else { prefix + "/" + &escaped(field) }
    }
}

/// A name within a pointer. Long names are cut: they are the caller's, and may be megabytes.
fn escaped(name: &str) -> String {
    shown(name).replace('~', "~0").replace('/', "~1")
}

/// A name of the caller's, short enough to be told back.
pub fn shown(name: &str) -> String {
    if name.len() <= 64 {
        return name.to_owned();
    }
    name.chars().take(48).chain("…".chars()).collect()
}

/// The faults found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    list: Vec<Fault>,
    left_out: usize,
}

impl Faults {
    pub fn add(&mut self, place: Place, field: &str, code: FaultCode, detail: impl Into<String>) {
        if self.list.len() < FAULTS_MAX {
            self.list.push(Fault { pointer: place.pointer(field), code, detail: detail.into() });
        } else {
            self.left_out += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.list.len() >= FAULTS_MAX
    }

    /// Whether the field has been found at fault already; a second complaint would only confuse.
    pub fn names(&self, place: Place, field: &str) -> bool {
        if self.list.is_empty() {
            return false;
        }
        let pointer = place.pointer(field);
        self.list.iter().any(|fault| fault.pointer == pointer)
    }

    pub fn append(&mut self, other: Faults) {
        self.left_out += other.left_out;
        for fault in other.list {
            if self.is_full() {
                self.left_out += 1;
            } else {
                self.list.push(fault);
            }
        }
    }

    /// The refusal that the list amounts to: the first by precedence that applies.
    pub fn refusal(&self) -> Refusal {
        let only_unknown = self.list.iter().all(|fault| fault.code == FaultCode::UnknownField);
        if only_unknown && !self.list.is_empty() { Refusal::UnknownField } else { Refusal::InvalidField }
    }

    /// One sentence for the problem's `detail`.
    pub fn summary(&self) -> String {
        match self.list.as_slice() {
            [] => "the body is not valid".to_owned(),
            [only] if only.pointer.is_empty() => only.detail.clone(),
            [only] => format!("{}: {}", only.pointer, only.detail),
            [first, rest @ ..] => {
                let more = rest.len() + self.left_out;
                format!("{}: {} (and {more} more, see errors)", first.pointer, first.detail)
            }
        }
    }

    pub fn into_list(mut self) -> Vec<Fault> {
        if self.left_out > 0 {
            self.list.push(Fault {
                pointer: String::new(),
                code: FaultCode::InvalidValue,
                detail: format!("{} further faults are not listed", self.left_out),
            });
        }
        self.list
    }
}

/// The known name nearest to an unknown one, if it is near enough to be what was meant.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The distance is quadratic in the length; no known name is anywhere near this long.
    if unknown.len() > 64 {
        return None;
    }
    let lower = unknown.to_ascii_lowercase();
    known
        .map(|name| (strsim::jaro_winkler(&lower, name), name))
        // Of two equally near, the one that stands first in its shape.
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .filter(|(likeness, _)| *likeness >= 0.7)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_meant() {
        let known = ["id", "campaign", "payee", "amount", "currency", "not_after"];
        let table: [(&str, Option<&str>); 6] = [
            ("amout", Some("amount")),
            ("Amount", Some("amount")),
            ("payee_id", Some("payee")),
            ("notAfter", Some("not_after")),
            ("zzz", None),
            ("curency", Some("currency")),
        ];
        for (unknown, expected) in table {
            assert_eq!(nearest(unknown, known.into_iter()), expected, "{unknown}");
        }
        assert_eq!(nearest(&"amount".repeat(50), known.into_iter()), None);
    }

    #[test]
    fn lists_are_bounded_and_say_so() {
        let mut faults = Faults::default();
        for index in 0..FAULTS_MAX + 5 {
            faults.add(Place::Item(index), "a/b~c", FaultCode::UnknownField, "x");
        }
        assert_eq!(faults.refusal(), Refusal::UnknownField);
        let list = faults.into_list();
        assert_eq!(list.len(), FAULTS_MAX + 1);
        assert_eq!(list[7].pointer, "/items/7/a~1b~0c");
        assert_eq!(list[FAULTS_MAX].detail, "5 further faults are not listed");
    }
}
