//! Was every payment made exactly once? Counted at the wallet by this program alone.
//!
//! ```text
//! claims (what the caller was told) ─> lookup at hongbao ─> lookup at the wallet ─> balances of every account
//! ```
//!
//! What holds: every acknowledged id must be known, final, and paid with its own amount if it is said to be paid;
//! nothing else may be paid; every payee's balance and every campaign's must be what the paid ids add up to, which
//! finds a second payment under whatever id; where requests are still open, between that and what they would make of it.
//! What could not be looked at is a gap, never a pass. Absent: trust in
//! hongbao's own counts.

mod accounts;
mod audit;

use std::collections::HashMap;

use serde::Deserialize;

pub use audit::run_audit;

use crate::generator::Fate;
use crate::http::{Caller, HttpError};
use crate::result::{Check, Witness, add};

/// Ids in one lookup.
const AT_HONGBAO: usize = 1_000;
const AT_WALLET: usize = 1_000;
const TOLD_MAX: usize = 20;

/// A request as its caller remembers it.
#[derive(Clone, Debug)]
pub struct Claim {
    pub id: String,
    pub amount: u64,
    pub fate: Fate,
    /// Number of the campaign and of the payee, where the accounts are to be checked.
    pub parties: Option<(u32, u32)>,
}

#[derive(Deserialize)]
struct Found {
    data: Vec<Standing>,
}

#[derive(Deserialize)]
struct Standing {
    id: String,
    status: String,
    r#final: bool,
    #[serde(default)]
    amount: Option<u64>,
}

#[derive(Deserialize)]
struct Records {
    results: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    id: String,
    status: String,
    #[serde(default)]
    amount: Option<u64>,
}

/// The names of the accounts, and what each campaign was funded with.
pub struct Books<'a> {
    pub campaign: &'a dyn Fn(u32) -> String,
    pub payee: &'a dyn Fn(u32) -> String,
    pub campaigns: u32,
    pub payees: u32,
    pub funded: u64,
}

/// Where to look.
pub struct Sources<'a> {
    pub hongbao: Caller,
    /// The reference wallet.
    pub wallet: Option<Caller>,
    pub client: &'a str,
    /// `None`: only the ids are checked.
    pub books: Option<Books<'a>>,
}

/// Minor units that were paid, and that may be paid while the accounts are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    paid: u64,
    open: u64,
}

#[derive(Default)]
struct Sums {
    by_campaign: HashMap<u32, Sum>,
    by_payee: HashMap<u32, Sum>,
    /// Paid by hongbao's word, and of these unknown at the wallet.
    said_paid: u64,
    unknown_at_wallet: u64,
}

/// Checks all claims; `progress` is told how many are done.
pub fn check(
    claims: impl Iterator<Item = Claim>,
    mut sources: Sources<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Check, HttpError> {
    let mut check = Check::default();
    let mut sums = Sums::default();
    let mut done = 0;
    let mut claims = claims.filter(|claim| claim.fate != Fate::Unsent).peekable();
    while claims.peek().is_some() {
        let chunk: Vec<Claim> = claims.by_ref().take(AT_HONGBAO).collect();
        let standings = ask_hongbao(&mut sources.hongbao, &chunk)?;
        let records = match &mut sources.wallet {
            Some(wallet) => Some(ask_wallet(wallet, sources.client, &chunk)?),
            None => None,
        };
        // Looked up: what is not found from here on is none, and no longer nothing.
        check.ids_mut();
        check.lost.get_or_insert(0);
        for claim in &chunk {
            let standing = standings.get(&claim.id);
            let record = records.as_ref().and_then(|records| records.get(&claim.id));
            compare(claim, standing, records.is_some().then_some(record), &mut check, &mut sums);
        }
        done += chunk.len() as u64;
        progress(done);
    }
    check.evidence.push(format!("{} ids looked up at hongbao, one by one", done));
    if sources.wallet.is_some() {
        check.counted_at = Witness::Wallet;
        check.evidence.push(format!("the same {done} ids looked up at the wallet"));
    }
    if sums.said_paid > 0 && sums.unknown_at_wallet == sums.said_paid {
        let words = format!(
            "the wallet knows none of the {} payments that hongbao says it made: is it the one that hongbao pays from \
             (its setting stored_value.http.url), and is {:?} the caller's name there (--client)?",
            sums.said_paid, sources.client
        );
        check.told.insert(0, words);
    }
    if let Some(books) = &sources.books {
        match &mut sources.wallet {
            Some(wallet) => accounts::at_wallet(wallet, sources.client, books, &sums, &mut check),
            None => accounts::at_hongbao(&mut sources.hongbao, books, &sums, &mut check),
        }
    }
    Ok(check)
}

fn ask_hongbao(caller: &mut Caller, chunk: &[Claim]) -> Result<HashMap<String, Standing>, HttpError> {
    let ids: Vec<&str> = chunk.iter().map(|claim| claim.id.as_str()).collect();
    let body = serde_json::json!({ "ids": ids }).to_string();
    // Looking up changes nothing: a second try is safe.
    let found: Found = caller
        .read("POST", "/v1/disbursements/lookup", &body)
        .or_else(|_| caller.read("POST", "/v1/disbursements/lookup", &body))?;
    Ok(found.data.into_iter().map(|standing| (standing.id.clone(), standing)).collect())
}

fn ask_wallet(
    caller: &mut Caller,
    client: &str,
    chunk: &[Claim],
) -> Result<HashMap<String, Record>, HttpError> {
    let mut records = HashMap::with_capacity(chunk.len());
    for part in chunk.chunks(AT_WALLET) {
        let ids: Vec<String> = part.iter().map(|claim| format!("{client}:{}", claim.id)).collect();
        let body = serde_json::json!({ "ids": ids }).to_string();
        let told: Records = caller
            .read("POST", "/v1/transfers/lookup", &body)
            .or_else(|_| caller.read("POST", "/v1/transfers/lookup", &body))?;
        for record in told.results {
            if let Some(id) = record.id.strip_prefix(client).and_then(|id| id.strip_prefix(':')) {
                records.insert(id.to_owned(), record);
            }
        }
    }
    Ok(records)
}

pub(super) fn tell(check: &mut Check, words: impl FnOnce() -> String) {
    if check.told.len() < TOLD_MAX {
        let words = words();
        check.told.push(words);
    }
}

/// `record`: none if there is no wallet to ask; some none if the wallet did not answer about this id.
fn compare(
    claim: &Claim,
    standing: Option<&Standing>,
    record: Option<Option<&Record>>,
    check: &mut Check,
    sums: &mut Sums,
) {
    let id = &claim.id;
    let is_acknowledged = claim.fate == Fate::Acknowledged;
    let status = standing.map(|standing| standing.status.as_str());
    if is_acknowledged {
        check.acknowledged += 1;
        match standing {
            None => {
                add(&mut check.lost, 1);
                tell(check, || format!("{id} was acknowledged, and hongbao does not know it"));
            }
            Some(standing) => count_status(claim, standing, check),
        }
    }
    let said_paid = status == Some("SUCCEEDED");
    let is_paid = match record {
        None => said_paid,
        Some(record) => record.is_some_and(|record| record.status == "succeeded"),
    };
    let amount_at_wallet = record.flatten().and_then(|record| record.amount);
    if is_paid && amount_at_wallet.is_some_and(|amount| amount != claim.amount) {
        check.ids_mut().altered += 1;
        tell(check, || format!("{id} was paid {amount_at_wallet:?}, not {}", claim.amount));
    }
    sums.said_paid += u64::from(said_paid);
    if said_paid && !is_paid {
        let is_unknown = record.flatten().is_none_or(|record| record.status == "not_found");
        sums.unknown_at_wallet += u64::from(is_unknown);
        add(&mut check.lost, 1);
        tell(check, || format!("{id} is SUCCEEDED at hongbao, and not paid at the wallet"));
    }
    let is_final_unpaid = standing.is_some_and(|standing| standing.r#final) && !said_paid;
    if is_paid && (is_final_unpaid || claim.fate == Fate::Refused) {
        check.ids_mut().paid_unasked += 1;
        tell(check, || format!("{id} was paid, though {}", status.unwrap_or("refused")));
    }
    if claim.fate == Fate::Open {
        check.ids_mut().unanswered += 1;
        check.ids_mut().unanswered_paid += u64::from(is_paid);
    }
    let is_open = match standing {
        Some(standing) => !standing.r#final,
        // It may still be on its way.
        None => claim.fate == Fate::Open,
    };
    let (paid, open) = match (is_paid, is_open) {
        (true, _) => (claim.amount, 0),
        (false, true) => (0, claim.amount),
        (false, false) => return,
    };
    check.ids_mut().amount_paid += paid;
    check.ids_mut().amount_open += open;
    if let Some((campaign, payee)) = claim.parties {
        for sum in [sums.by_campaign.entry(campaign).or_default(), sums.by_payee.entry(payee).or_default()] {
            sum.paid += paid;
            sum.open += open;
        }
    }
}

fn count_status(claim: &Claim, standing: &Standing, check: &mut Check) {
    *check.ids_mut().by_status.entry(standing.status.clone()).or_default() += 1;
    if let Some(stands_with) = standing.amount.filter(|amount| *amount != claim.amount) {
        check.ids_mut().altered += 1;
        tell(check, || format!("{} stands with {stands_with}, not {}", claim.id, claim.amount));
    }
    match standing.status.as_str() {
        "SUCCEEDED" => check.ids_mut().succeeded += 1,
        "UNKNOWN" => check.ids_mut().unknown += 1,
        _ if standing.r#final => check.ids_mut().failed += 1,
        _ => {}
    }
    if !standing.r#final {
        check.ids_mut().pending += 1;
        tell(check, || format!("{} is still {}", claim.id, standing.status));
    }
}

#[cfg(test)]
mod tests;
