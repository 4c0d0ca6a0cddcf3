//! Judgement of values: ids, amounts, currencies, lanes, times, and what a payout of each kind must carry.
//!
//! Both readers hand over to this one judge, so they cannot disagree on values. A request that passes leaves
//! as the stamped, encoded record that the accept side stores. Absent on purpose: whatever depends on state
//! or order (campaigns, budgets, identity) and the expiry of `not_after`, because a repeat of an accepted id
//! must get its state even when its time has passed, and only the accept side can tell a repeat.

use super::fault::{FaultCode, Faults, Place, nearest, shown};
use std::borrow::Cow;

use super::Submission;
use super::shape::{COLLECTION, DISBURSEMENT, ITEM, Shape};
use super::wire::{Payout, Text};
use super::{diagnose, rfc3339};
use crate::digest::Stamper;
use crate::domain::money::AMOUNT_MAX;
use crate::domain::record::{METADATA_BYTES_MAX, REMARK_BYTES_MAX};
use crate::domain::{Amount, Currency, Kind, Lane, Request, UnixMs, WaitReason, ids};

/// Which payouts are taken where it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Disbursement,
    Collection,
    /// In a batch: a collection if it has any field of one.
    Either,
}

impl Expect {
    pub const fn shape(self) -> &'static Shape {
        match self {
            Expect::Disbursement => &DISBURSEMENT,
            Expect::Collection => &COLLECTION,
            Expect::Either => &ITEM,
        }
    }
}

/// What the items of a batch inherit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inherited<'a> {
    pub batch: &'a str,
    pub campaign: Option<&'a str>,
    pub currency: Option<Currency>,
}

/// Where a judged value stands, and where its faults go.
pub struct Bench<'f> {
    pub place: Place,
    pub faults: &'f mut Faults,
}

impl Bench<'_> {
    fn fault(&mut self, field: &str, code: FaultCode, detail: impl Into<String>) {
        self.faults.add(self.place, field, code, detail);
    }

    /// Complains of a missing field, unless something worse was said of it already.
    pub fn need<T>(&mut self, field: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && !self.faults.names(self.place, field) && !self.faults.names(self.place, "") {
            self.fault(field, FaultCode::MissingField, "is missing");
        }
        value
    }

    pub fn id<'t>(&mut self, field: &str, text: Option<&'t str>) -> Option<&'t str> {
        let text = text?;
        match ids::check_id(text) {
            Ok(()) => Some(text),
            Err(error) => {
                self.fault(field, FaultCode::InvalidValue, error.to_string());
                None
            }
        }
    }

    pub fn amount(&mut self, field: &str, value: Option<u64>) -> Option<Amount> {
        match value? {
            0 => {
                self.fault(field, FaultCode::OutOfRange, "must be at least 1");
                None
            }
            value => {
                let amount = Amount::new(value);
                if amount.is_none() {
                    self.fault(field, FaultCode::OutOfRange, format!("must be at most {AMOUNT_MAX}"));
                }
                amount
            }
        }
    }

    pub fn count(&mut self, field: &str, value: Option<u64>) -> Option<u32> {
        let count = u32::try_from(value?).ok().filter(|count| *count > 0);
        if count.is_none() {
            self.fault(field, FaultCode::OutOfRange, format!("must be between 1 and {}", u32::MAX));
        }
        count
    }

    /// `known` is the code checked last: the list is long, and neighbours share a currency.
    pub fn currency(&mut self, text: Option<&str>, known: &mut Option<Currency>) -> Option<Currency> {
        let text = text?;
        if let Some(currency) = known.filter(|known| known.bytes() == text.as_bytes()) {
            return Some(currency);
        }
        // XXX is in the list and stands for "no currency".
        let listed = iso_currency::Currency::from_code(text).is_some() && text != "XXX";
        let currency = Currency::parse(text).filter(|_| listed);
        match currency {
            Some(_) => *known = currency,
            None => {
                let detail = "is not a currency code of ISO 4217 (three capital letters, such as CNY)";
                self.fault("currency", FaultCode::InvalidValue, detail);
            }
        }
        currency
    }

    pub fn lane(&mut self, text: Option<&str>) -> Option<Lane> {
        let lane = Lane::parse(text?);
        if lane.is_none() {
            self.fault("lane", FaultCode::InvalidValue, "must be \"realtime\" or \"bulk\"");
        }
        lane
    }

    /// Why a request is parked.
    pub fn reason(&mut self, field: &str, text: Option<&str>) -> Option<WaitReason> {
        let text = text?;
        let known = WaitReason::PARKED.map(|reason| reason.as_str());
        let reason = WaitReason::PARKED.into_iter().find(|reason| reason.as_str() == text);
        if reason.is_none() {
            let detail = match nearest(text, known.into_iter()) {
                Some(near) => format!("{:?} is no reason to wait; did you mean {near:?}?", shown(text)),
                None => format!("{:?} is no reason to wait; known are {}", shown(text), known.join(", ")),
            };
            self.fault(field, FaultCode::InvalidValue, detail);
        }
        reason
    }

    pub fn time(&mut self, field: &str, text: Option<&str>) -> Option<UnixMs> {
        let time = rfc3339::parse(text?);
        if time.is_none() {
            let detail = "must be an RFC 3339 time after 1970, such as 2026-01-31T08:00:00Z";
            self.fault(field, FaultCode::InvalidValue, detail);
        }
        time
    }

    pub fn order(&mut self, from: (&str, Option<UnixMs>), until: (&str, Option<UnixMs>)) {
        if let (Some(earlier), Some(later)) = (from.1, until.1)
            && earlier >= later
        {
            self.fault(from.0, FaultCode::Mismatch, format!("must lie before {}", until.0));
        }
    }

    pub fn remark<'t>(&mut self, field: &str, text: Option<&'t str>) -> &'t str {
        let text = text.unwrap_or("");
        if text.len() > REMARK_BYTES_MAX {
            let detail = format!("must be at most {REMARK_BYTES_MAX} bytes of UTF-8, not {}", text.len());
            self.fault(field, FaultCode::OutOfRange, detail);
        }
        text
    }

    fn metadata<'t>(&mut self, text: Option<&'t str>) -> &'t str {
        let text = text.unwrap_or("");
        if !text.is_empty() && !text.starts_with('{') {
            self.fault("metadata", FaultCode::WrongType, "must be an object");
        }
        if text.len() > METADATA_BYTES_MAX {
            let detail = format!("must be at most {METADATA_BYTES_MAX} bytes, not {}", text.len());
            self.fault("metadata", FaultCode::OutOfRange, detail);
        }
        text
    }

    /// Complains of each field that does not belong to a payout of this kind.
    fn foreign(&mut self, kind: Kind, payout: &Payout<'_>, expect: Expect) {
        let collection = kind == Kind::Collection;
        let fields = [
            ("payee", payout.payee.is_some(), collection),
            ("payer", payout.payer.is_some(), !collection),
            ("merchant", payout.merchant.is_some(), !collection),
            ("agreement", payout.agreement.is_some(), !collection),
        ];
        for (name, given, foreign) in fields {
            if given && foreign {
                let detail = match expect {
                    Expect::Either => "does not belong beside payer, merchant and agreement".to_owned(),
                    Expect::Disbursement | Expect::Collection => diagnose::unknown(name, expect.shape()),
                };
                self.fault(name, FaultCode::UnknownField, detail);
            }
        }
    }
}

/// Judges payouts of one client and turns them into records; keeps its buffers between them.
pub struct Judge<'c> {
    client: Cow<'c, str>,
    stamper: Stamper,
    currency: Option<Currency>,
}

fn given<'t>(text: &'t Option<Text<'_>>) -> Option<&'t str> {
    text.as_ref().map(|text| &*text.0)
}

impl<'c> Judge<'c> {
    pub fn new(client: impl Into<Cow<'c, str>>) -> Judge<'c> {
        Judge { client: client.into(), stamper: Stamper::default(), currency: None }
    }

    /// The record of a payout; `None` if there are faults, these and any that were there before.
    pub fn payout(
        &mut self,
        payout: &Payout<'_>,
        expect: Expect,
        inherited: Inherited<'_>,
        bench: Bench<'_>,
    ) -> Option<Submission> {
        let (request, lane_given) = self.request(payout, expect, inherited, bench)?;
        Some(submission(&request, lane_given))
    }

    /// The stamped request of a payout, and whether it chose its lane.
    pub fn request<'r>(
        &'r mut self,
        payout: &'r Payout<'_>,
        expect: Expect,
        inherited: Inherited<'r>,
        mut bench: Bench<'_>,
    ) -> Option<(Request<'r>, bool)> {
        let kind = kind(payout, expect);
        let collection = kind == Kind::Collection;
        bench.foreign(kind, payout, expect);
        let id = bench.need("id", given(&payout.id));
        let id = bench.id("id", id);
        let campaign = bench.need("campaign", given(&payout.campaign).or(inherited.campaign));
        let campaign = bench.id("campaign", campaign);
        let (name, party) = if collection { ("payer", &payout.payer) } else { ("payee", &payout.payee) };
        let party = bench.need(name, given(party));
        let party = bench.id(name, party);
        let (mut merchant, mut agreement) = (Some(""), Some(""));
        if collection {
            merchant = bench.need("merchant", given(&payout.merchant));
            merchant = bench.id("merchant", merchant);
            agreement = bench.need("agreement", given(&payout.agreement));
            agreement = bench.id("agreement", agreement);
        }
        let amount = bench.need("amount", payout.amount);
        let amount = bench.amount("amount", amount);
        let currency = self.currency_of(payout, inherited, &mut bench);
        let lane = bench.lane(given(&payout.lane));
        let not_before = bench.time("not_before", given(&payout.not_before));
        let not_after = bench.time("not_after", given(&payout.not_after));
        bench.order(("not_before", not_before), ("not_after", not_after));
        let remark = bench.remark("remark", given(&payout.remark));
        let metadata = bench.metadata(payout.metadata.map(|raw| raw.get()));
        if !bench.faults.is_empty() {
            return None;
        }
        let mut request = Request {
            lane: lane.unwrap_or(Lane::Realtime),
            not_before: not_before.unwrap_or(0),
            not_after: not_after.unwrap_or(0),
            party: party?,
            merchant: merchant?,
            agreement: agreement?,
            batch: inherited.batch,
            remark,
            metadata,
            ..Request::new(kind, &self.client, id?, campaign?, amount?, currency?)
        };
        self.stamper.stamp(&mut request);
        Some((request, lane.is_some()))
    }

    fn currency_of(
        &mut self,
        payout: &Payout<'_>,
        inherited: Inherited<'_>,
        bench: &mut Bench<'_>,
    ) -> Option<Currency> {
        let Some(text) = given(&payout.currency) else {
            return bench.need("currency", inherited.currency);
        };
        let currency = bench.currency(Some(text), &mut self.currency)?;
        match inherited.currency {
            // One total cannot be taken over two currencies.
            Some(whole) if whole != currency => {
                let detail = format!("must be the batch's currency, {whole}");
                bench.fault("currency", FaultCode::Mismatch, detail);
                None
            }
            _ => Some(currency),
        }
    }

    /// Stamps and encodes a request of this judge's client.
    pub fn record(&mut self, request: Request<'_>, lane_given: bool) -> Submission {
        let mut request = Request { client: &self.client, ..request };
        self.stamper.stamp(&mut request);
        submission(&request, lane_given)
    }
}

fn submission(request: &Request<'_>, lane_given: bool) -> Submission {
    let mut record = Vec::with_capacity(request.encoded_len());
    request.encode(&mut record);
    Submission { record, lane_given }
}

fn kind(payout: &Payout<'_>, expect: Expect) -> Kind {
    let collects = payout.payer.is_some() || payout.merchant.is_some() || payout.agreement.is_some();
    match expect {
        Expect::Disbursement => Kind::Disbursement,
        Expect::Collection => Kind::Collection,
        Expect::Either if collects => Kind::Collection,
        Expect::Either => Kind::Disbursement,
    }
}

/// The code of ISO 4217 for "no currency", for requests that move nothing.
pub fn no_currency() -> Currency {
    Currency::parse("XXX").expect("three capital letters")
}

/// A request of a kind, with nothing in it.
pub fn blank(kind: Kind) -> Request<'static> {
    Request {
        kind,
        lane: Lane::Realtime,
        digest: [0; 16],
        key_hash: 0,
        amount: Amount::ZERO,
        currency: no_currency(),
        accepted_at: 0,
        not_before: 0,
        not_after: 0,
        client: "",
        id: "",
        campaign: "",
        party: "",
        merchant: "",
        agreement: "",
        batch: "",
        original: "",
        remark: "",
        metadata: "",
    }
}
