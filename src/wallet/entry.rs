//! From the bodies of the contract to what the ledger is asked: reads, checks every field, stamps.
//!
//! What holds: one field that is not valid refuses the whole body (422, with a pointer to each), and then
//! nothing of it is decided; what passes is something the ledger can store. Unknown fields are ignored, as the
//! contract says.

use serde_json::{Map, Value};

use crate::digest::{key_hash, money_digest};
use crate::domain::money::AMOUNT_MAX;
use crate::domain::{Amount, Currency, Refusal, Transfer, TransferKind};
use crate::gateway::problem::Problem;
use crate::request::fault::{FaultCode, Faults, Place};
use crate::stored_value::TransferBatch;
use crate::stored_value::contract::{Entry, Ids, Transfers};

/// Entries of one call; more are 413.
pub const ENTRIES_MAX: usize = 10_000;
/// Bytes of an id and of an account's name.
pub const NAME_BYTES_MAX: usize = 200;
pub const DEADLINE_MS_MAX: u64 = 300_000;
const MEMO_BYTES_MAX: usize = 1_024;
/// A hundred years.
const EXPIRES_S_MAX: u32 = 3_155_760_000;

/// A body of `POST /v1/transfers` that can be decided.
#[derive(Default)]
pub struct Asked {
    pub deadline_ms: u64,
    pub ids: Vec<String>,
    pub batch: TransferBatch,
}

/// Reads and checks `POST /v1/transfers`.
pub fn transfers(text: &str) -> Result<Asked, Problem> {
    let body: Transfers<'_> = read(text, diagnose_transfers)?;
    check_count(body.transfers.len())?;
    let mut faults = Faults::default();
    if !(1..=DEADLINE_MS_MAX).contains(&body.deadline_ms) {
        let detail = format!("must be from 1 to {DEADLINE_MS_MAX}");
        faults.add(Place::Top, "deadline_ms", FaultCode::OutOfRange, detail);
    }
    let mut asked = Asked { deadline_ms: body.deadline_ms, ..Asked::default() };
    let mut scratch = Vec::new();
    for (index, entry) in body.transfers.iter().enumerate() {
        let mut check = Check { place: Place::Transfer(index), faults: &mut faults };
        let Some(mut transfer) = check.entry(entry) else { continue };
        transfer.key_hash = key_hash(transfer.id);
        transfer.digest = money_digest(&transfer, &mut scratch);
        asked.batch.push(&transfer);
        asked.ids.push(entry.id.clone().into_owned());
    }
    if faults.is_empty() { Ok(asked) } else { Err(Problem::faults(faults)) }
}

/// Reads and checks the body of a lookup or a burn.
pub fn ids(text: &str) -> Result<Vec<String>, Problem> {
    let body: Ids = read(text, diagnose_ids)?;
    check_count(body.ids.len())?;
    let mut faults = Faults::default();
    for (index, id) in body.ids.iter().enumerate() {
        Check { place: Place::Id(index), faults: &mut faults }.name("", id);
    }
    if faults.is_empty() { Ok(body.ids) } else { Err(Problem::faults(faults)) }
}

/// The burns of these ids.
pub fn burns(ids: &[String]) -> TransferBatch {
    let mut batch = TransferBatch::default();
    for id in ids {
        batch.push(&Transfer {
            kind: TransferKind::Burn,
            id: id.as_bytes(),
            key_hash: key_hash(id.as_bytes()),
            digest: [0; 16],
            debit: b"",
            credit: b"",
            amount: Amount::ZERO,
            // A burn is about no money; the stored form wants three letters.
            currency: Currency::parse("XXX").expect("three capital letters"),
            of: b"",
            expires_in_s: 0,
        });
    }
    batch
}

fn check_count(count: usize) -> Result<(), Problem> {
    if count <= ENTRIES_MAX {
        return Ok(());
    }
    let detail = format!("{count} entries; a call may hold at most {ENTRIES_MAX}");
    Err(Problem::new(Refusal::BodyTooLarge, detail))
}

/// Reads a body fast; where that fails over a field, slowly again to find out which.
fn read<'a, T: serde::Deserialize<'a>>(
    text: &'a str,
    diagnose: fn(&Value, &mut Faults),
) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| {
        let malformed = |error: &serde_json::Error| Problem::new(Refusal::MalformedJson, error.to_string());
        if !error.is_data() {
            return malformed(&error);
        }
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(error) => return malformed(&error),
        };
        let mut faults = Faults::default();
        diagnose(&value, &mut faults);
        if faults.is_empty() {
            faults.add(Place::Top, "", FaultCode::InvalidValue, error.to_string());
        }
        Problem::faults(faults)
    })
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Whole,
    List,
}

/// Name, form, and whether it must be there.
const ENTRY_FIELDS: [(&str, Form, bool); 9] = [
    ("id", Form::Text, true),
    ("kind", Form::Text, true),
    ("debit", Form::Text, false),
    ("credit", Form::Text, false),
    ("amount", Form::Whole, true),
    ("currency", Form::Text, true),
    ("of", Form::Text, false),
    ("expires_in_s", Form::Whole, false),
    ("memo", Form::Text, false),
];

fn diagnose_transfers(body: &Value, faults: &mut Faults) {
    let fields = [("deadline_ms", Form::Whole, true), ("transfers", Form::List, true)];
    let Some(body) = diagnose_object(body, Place::Top, &fields, faults) else { return };
    let entries = body.get("transfers").and_then(Value::as_array);
    for (index, entry) in entries.into_iter().flatten().enumerate() {
        diagnose_object(entry, Place::Transfer(index), &ENTRY_FIELDS, faults);
    }
}

fn diagnose_ids(body: &Value, faults: &mut Faults) {
    let Some(body) = diagnose_object(body, Place::Top, &[("ids", Form::List, true)], faults) else { return };
    for (index, id) in body.get("ids").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if !id.is_string() {
            faults.add(Place::Id(index), "", FaultCode::WrongType, "must be a string");
        }
    }
}

fn diagnose_object<'v>(
    value: &'v Value,
    place: Place,
    fields: &[(&str, Form, bool)],
    faults: &mut Faults,
) -> Option<&'v Map<String, Value>> {
    let Some(object) = value.as_object() else {
        faults.add(place, "", FaultCode::WrongType, "must be an object");
        return None;
    };
    for (name, form, required) in fields {
        let Some(value) = object.get(*name) else {
            if *required {
                faults.add(place, name, FaultCode::MissingField, format!("`{name}` is missing"));
            }
            continue;
        };
        let nullable = matches!(*name, "expires_in_s" | "memo") && value.is_null();
        let (fits, wanted) = match form {
            Form::Text => (value.is_string(), "a string"),
            Form::Whole => (value.is_u64(), "a whole number, not negative"),
            Form::List => (value.is_array(), "an array"),
        };
        if !fits && !nullable {
            faults.add(place, name, FaultCode::WrongType, format!("must be {wanted}"));
        }
    }
    Some(object)
}

/// Checks one entry and notes what is wrong with it.
struct Check<'f> {
    place: Place,
    faults: &'f mut Faults,
}

impl Check<'_> {
    fn wrong(&mut self, field: &str, code: FaultCode, detail: impl Into<String>) {
        self.faults.add(self.place, field, code, detail);
    }

    fn name(&mut self, field: &str, text: &str) {
        if text.is_empty() {
            self.wrong(field, FaultCode::InvalidValue, "must not be empty");
        } else if text.len() > NAME_BYTES_MAX {
            self.wrong(field, FaultCode::OutOfRange, format!("must be at most {NAME_BYTES_MAX} bytes"));
        } else if text.chars().any(char::is_control) {
            self.wrong(field, FaultCode::InvalidValue, "must not hold control characters");
        }
    }

    fn absent(&mut self, field: &str, text: &str, kind: &str) {
        if !text.is_empty() {
            self.wrong(field, FaultCode::InvalidValue, format!("a {kind} has none: leave it out"));
        }
    }

    /// `None` where a field is wrong, which is noted then.
    fn entry<'e>(&mut self, entry: &'e Entry<'_>) -> Option<Transfer<'e>> {
        let kind = match &*entry.kind {
            "transfer" => TransferKind::Transfer,
            "hold" => TransferKind::Hold,
            "post" => TransferKind::Post,
            "void" => TransferKind::Void,
            "reverse" => TransferKind::Reverse,
            _ => {
                self.wrong("kind", FaultCode::InvalidValue, "must be transfer, hold, post, void or reverse");
                return None;
            }
        };
        self.name("id", &entry.id);
        if matches!(kind, TransferKind::Post | TransferKind::Void) {
            self.absent("debit", &entry.debit, &entry.kind);
            self.absent("credit", &entry.credit, &entry.kind);
        } else {
            self.name("debit", &entry.debit);
            self.name("credit", &entry.credit);
            if entry.debit == entry.credit {
                self.wrong("credit", FaultCode::Mismatch, "must not be the debit account");
            }
        }
        if matches!(kind, TransferKind::Transfer | TransferKind::Hold) {
            self.absent("of", &entry.of, &entry.kind);
        } else {
            self.name("of", &entry.of);
        }
        if !(1..=AMOUNT_MAX).contains(&entry.amount) {
            self.wrong("amount", FaultCode::OutOfRange, format!("must be from 1 to {AMOUNT_MAX}"));
        }
        match entry.expires_in_s {
            Some(_) if kind != TransferKind::Hold => {
                self.wrong("expires_in_s", FaultCode::InvalidValue, "only a hold expires: leave it out");
            }
            Some(seconds) if !(1..=u64::from(EXPIRES_S_MAX)).contains(&seconds) => {
                let detail = format!("must be from 1 to {EXPIRES_S_MAX}");
                self.wrong("expires_in_s", FaultCode::OutOfRange, detail);
            }
            _ => {}
        }
        if entry.memo.as_ref().is_some_and(|memo| memo.len() > MEMO_BYTES_MAX) {
            self.wrong("memo", FaultCode::OutOfRange, format!("must be at most {MEMO_BYTES_MAX} bytes"));
        }
        let Some(currency) = Currency::parse(&entry.currency) else {
            self.wrong("currency", FaultCode::InvalidValue, "must be three capital letters (ISO 4217)");
            return None;
        };
        Some(Transfer {
            kind,
            id: entry.id.as_bytes(),
            key_hash: 0,
            digest: [0; 16],
            debit: entry.debit.as_bytes(),
            credit: entry.credit.as_bytes(),
            amount: Amount::new(entry.amount)?,
            currency,
            of: entry.of.as_bytes(),
            expires_in_s: entry.expires_in_s.map_or(Some(0), |seconds| u32::try_from(seconds).ok())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Stamper;
    use crate::domain::Request;
    use crate::domain::record::Kind;
    use crate::domain::transfer::Names;

    fn body(entry: &str) -> String {
        let whole = format!(
            r#"{{"id":"s:1","kind":"transfer","debit":"a","credit":"b","amount":5,"currency":"CNY"{entry}}}"#
        );
        format!(r#"{{"deadline_ms":1000,"transfers":[{whole}]}}"#)
    }

    fn problem(error: Problem) -> String {
        use axum::response::IntoResponse;
        use http_body_util::BodyExt;
        let response = error.into_response();
        let status = response.status().as_u16();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        format!("{status} {}", String::from_utf8_lossy(&body))
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let replaced = |from: &str, to: &str| body("").replace(from, to);
        // Body, what the refusal says.
        let table: [(String, &str, &str); 22] = [
            ("{".to_owned(), "400", ""),
            ("nonsense".to_owned(), "400", ""),
            ("[]".to_owned(), "422", "object"),
            ("{}".to_owned(), "422", "\"/deadline_ms\""),
            (replaced("\"id\":\"s:1\",", ""), "422", "\"/transfers/0/id\""),
            (replaced("s:1", ""), "422", "\"/transfers/0/id\""),
            (replaced("s:1", &long), "422", "\"/transfers/0/id\""),
            (replaced("s:1", "s\\u0001"), "422", "\"/transfers/0/id\""),
            (replaced("\"transfer\"", "\"gift\""), "422", "\"/transfers/0/kind\""),
            (replaced("\"a\"", "\"\""), "422", "\"/transfers/0/debit\""),
            (replaced("\"a\"", "\"b\""), "422", "\"/transfers/0/credit\""),
            (replaced("\"b\"", &format!("\"{long}\"")), "422", "\"/transfers/0/credit\""),
            (replaced(":5", ":0"), "422", "\"/transfers/0/amount\""),
            (replaced(":5", ":9007199254740992"), "422", "\"/transfers/0/amount\""),
            (replaced(":5", ":-5"), "422", "\"/transfers/0/amount\""),
            (replaced(":5", ":1.5"), "422", "\"/transfers/0/amount\""),
            (replaced("CNY", "yuan"), "422", "\"/transfers/0/currency\""),
            (replaced("1000", "0"), "422", "\"/deadline_ms\""),
            (body(r#","of":"x""#), "422", "\"/transfers/0/of\""),
            (body(r#","expires_in_s":5"#), "422", "\"/transfers/0/expires_in_s\""),
            (replaced("\"transfer\"", "\"reverse\""), "422", "\"/transfers/0/of\""),
            (replaced("\"transfer\"", "\"post\""), "422", "\"/transfers/0/debit\""),
        ];
        for (body, status, says) in table {
            let said = problem(transfers(&body).map(|_| ()).unwrap_err());
            assert!(said.starts_with(status) && said.contains(says), "{body}: {said}");
        }
        assert!(transfers(&body(r#","memo":"hi","colour":"red""#)).is_ok());
        assert!(problem(ids(r#"{"ids":["a",""]}"#).unwrap_err()).contains("\"/ids/1\""));
        assert!(problem(ids(r#"{"ids":["a",7]}"#).unwrap_err()).contains("\"/ids/1\""));
        let many = format!(r#"{{"ids":[{}]}}"#, vec!["\"x\""; ENTRIES_MAX + 1].join(","));
        assert!(problem(ids(&many).unwrap_err()).starts_with("413"));
    }

    #[test]
    fn a_transfer_is_stamped_as_the_settle_path_stamps_it() {
        let cny = Currency::parse("CNY").unwrap();
        let mut request = Request {
            party: "p",
            ..Request::new(Kind::Disbursement, "s", "1", "c", Amount::new(5).unwrap(), cny)
        };
        Stamper::default().stamp(&mut request);
        let mut names = Names::default();
        names.fill(&request);
        let text = body("").replace("\"a\"", "\"campaign:s:c\"").replace("\"b\"", "\"person:p\"");
        let asked = transfers(&text).unwrap();
        assert_eq!(asked.batch.iter().next().unwrap(), names.transfer(&request));
    }
}
