//! The campaigns as the desk knows them: definitions, running totals, and limits per payee.
//!
//! Definitions are shared with the pipeline through [`Registry`]; totals stay with the desk, whose thread is
//! the only one that changes them. A total moves when a request is accepted and when it is final, each once.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use serde::{Deserialize, Serialize};

use crate::domain::campaign::Books;
use crate::domain::{
    Amount, Campaign, CampaignState, Currency, Kind, Lane, Refusal, Request, Status, UnixMs,
};

/// Campaigns by number, for those who read.
pub type Registry = Arc<RwLock<Vec<Arc<Campaign>>>>;

/// What one payee got, or may still get, under a campaign that limits it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PayeeUse {
    count: u32,
    amount: u64,
}

pub struct Entry {
    pub campaign: Arc<Campaign>,
    pub books: Books,
    payees: HashMap<String, PayeeUse>,
}

#[derive(Default)]
pub struct Campaigns {
    entries: Vec<Entry>,
    by_name: HashMap<String, u32>,
    registry: Registry,
    name: String,
}

impl Campaigns {
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    pub fn number(&mut self, client: &str, id: &str) -> Option<u32> {
        self.name.clear();
        self.name.push_str(client);
        self.name.push(':');
        self.name.push_str(id);
        self.by_name.get(&self.name).copied()
    }

    pub fn get(&self, number: u32) -> &Entry {
        &self.entries[number as usize]
    }

    pub fn find(&self, number: u32) -> Option<&Campaign> {
        self.entries.get(number as usize).map(|entry| &*entry.campaign)
    }

    pub fn books_mut(&mut self, number: u32) -> Option<&mut Books> {
        self.entries.get_mut(number as usize).map(|entry| &mut entry.books)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sets the definition of a number: the next one, or one that exists. The pipeline sees it once it is
    /// published.
    pub fn define(&mut self, number: u32, campaign: Campaign) {
        let campaign = Arc::new(campaign);
        if number as usize == self.entries.len() {
            self.by_name.insert(format!("{}:{}", campaign.client, campaign.id), number);
            self.entries.push(Entry { campaign, books: Books::default(), payees: HashMap::new() });
        } else {
            self.entries[number as usize].campaign = campaign;
        }
    }

    /// Shows a definition, now written, to the pipeline.
    pub fn publish(&mut self, number: u32) {
        let campaign = self.entries[number as usize].campaign.clone();
        let mut shared = self.registry.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        match shared.get_mut(number as usize) {
            Some(held) => *held = campaign,
            None => shared.push(campaign),
        }
    }

    /// Whether a request may be accepted under its campaign now.
    pub fn check(
        &self,
        number: u32,
        request: &Request<'_>,
        now: UnixMs,
        retention_ms: u64,
    ) -> Result<(), (Refusal, String)> {
        let Entry { campaign, books, payees } = self.get(number);
        let amount = request.amount.minor_units();
        super::rules::terms(campaign, request, now, retention_ms)?;
        let no = |code, detail: String| Err((code, detail));
        match request.kind {
            Kind::Disbursement | Kind::Collection => {
                let used = payees.get(request.party).copied().unwrap_or_default();
                if campaign.per_payee_count.is_some_and(|max| used.count >= max) {
                    return no(
                        Refusal::PayeeLimit,
                        "the payee has had the campaign's per_payee_count".to_owned(),
                    );
                }
                if campaign.per_payee_amount.is_some_and(|max| used.amount + amount > max.minor_units()) {
                    return no(
                        Refusal::PayeeLimit,
                        "the payee would pass the campaign's per_payee_amount".to_owned(),
                    );
                }
                let left = books.left(campaign.budget);
                if amount > left {
                    return no(
                        Refusal::BudgetExhausted,
                        format!("{left} of the budget is left, less than {amount}"),
                    );
                }
            }
            Kind::Fund => {
                let room = campaign.budget.minor_units().saturating_sub(books.funded + books.funding_pending);
                if amount > room {
                    let detail = format!("funding stops at the budget: {room} may still be added");
                    return no(Refusal::BudgetExhausted, detail);
                }
            }
            Kind::Defund => {
                let free = books.funded.saturating_sub(books.paid_out).saturating_sub(books.reserved);
                if amount > free {
                    let detail =
                        format!("{free} is neither spent nor reserved; {amount} cannot be taken out");
                    return no(Refusal::BudgetExhausted, detail);
                }
            }
            Kind::Reversal | Kind::Cancel => {}
        }
        Ok(())
    }

    /// Counts an accepted request.
    pub fn accepted(&mut self, number: u32, request: &Request<'_>) {
        let Some(entry) = self.entries.get_mut(number as usize) else { return };
        let amount = request.amount.minor_units();
        match request.kind {
            Kind::Disbursement | Kind::Collection => {
                entry.books.reserved += amount;
                entry.books.count[Status::Accepted as usize - 1] += 1;
                entry.books.amount[Status::Accepted as usize - 1] += amount;
                if entry.campaign.per_payee_count.is_some() || entry.campaign.per_payee_amount.is_some() {
                    let used = entry.payees.entry(request.party.to_owned()).or_default();
                    used.count += 1;
                    used.amount += amount;
                }
            }
            Kind::Fund => entry.books.funding_pending += amount,
            // Reserved so that it is not promised to a payee meanwhile.
            Kind::Defund => entry.books.reserved += amount,
            Kind::Reversal | Kind::Cancel => {}
        }
    }

    /// Whether the payee of a request that failed must be looked up to free its limit.
    pub fn limits_payees(&self, number: u32) -> bool {
        self.entries.get(number as usize).is_some_and(|entry| {
            entry.campaign.per_payee_count.is_some() || entry.campaign.per_payee_amount.is_some()
        })
    }

    /// Gives a payee back what a request that failed had taken of its limit.
    pub fn free_payee(&mut self, number: u32, party: &str, amount: u64) {
        let entry = self.entries.get_mut(number as usize);
        if let Some(used) = entry.and_then(|entry| entry.payees.get_mut(party)) {
            used.count = used.count.saturating_sub(1);
            used.amount = used.amount.saturating_sub(amount);
        }
    }

    /// Counts a request that became final (or went from succeeded to reversed).
    pub fn settled(&mut self, number: u32, kind: Kind, status: Status, amount: u64) {
        let Some(entry) = self.entries.get_mut(number as usize) else { return };
        let books = &mut entry.books;
        let succeeded = status == Status::Succeeded;
        let less =
            |total: &mut u64| *total = total.checked_sub(amount).expect("a total was counted up before");
        match kind {
            Kind::Disbursement | Kind::Collection if status == Status::Reversed => {
                books.count[Status::Succeeded as usize - 1] -= 1;
                less(&mut books.amount[Status::Succeeded as usize - 1]);
                books.count[Status::Reversed as usize - 1] += 1;
                books.amount[Status::Reversed as usize - 1] += amount;
            }
            Kind::Disbursement | Kind::Collection => {
                less(&mut books.reserved);
                books.count[Status::Accepted as usize - 1] -= 1;
                less(&mut books.amount[Status::Accepted as usize - 1]);
                books.count[status as usize - 1] += 1;
                books.amount[status as usize - 1] += amount;
                if succeeded {
                    books.spent += amount;
                    books.paid_out += if kind == Kind::Disbursement { amount } else { 0 };
                }
            }
            Kind::Fund => {
                less(&mut books.funding_pending);
                if succeeded {
                    books.funded += amount;
                }
            }
            Kind::Defund => {
                less(&mut books.reserved);
                if succeeded {
                    less(&mut books.funded);
                }
            }
            Kind::Reversal | Kind::Cancel => {}
        }
    }

    /// Counts what a reversal took back. Of a collection, nothing had left the campaign's account.
    pub fn reversed(&mut self, number: u32, amount: u64, of_disbursement: bool) {
        if let Some(entry) = self.entries.get_mut(number as usize) {
            entry.books.spent = entry.books.spent.saturating_sub(amount);
            if of_disbursement {
                entry.books.paid_out = entry.books.paid_out.saturating_sub(amount);
            }
        }
    }

    pub fn save(&self) -> Vec<SavedCampaign> {
        let saved = |entry: &Entry| SavedCampaign {
            definition: Definition::of(&entry.campaign),
            funded: entry.books.funded,
            funding_pending: entry.books.funding_pending,
            reserved: entry.books.reserved,
            spent: entry.books.spent,
            paid_out: entry.books.paid_out,
            count: entry.books.count.to_vec(),
            amount: entry.books.amount.to_vec(),
            payees: entry.payees.clone(),
        };
        self.entries.iter().map(saved).collect()
    }

    pub fn restore(&mut self, saved: Vec<SavedCampaign>) -> Result<(), String> {
        for saved in saved {
            let number = self.entries.len() as u32;
            self.define(number, saved.definition.campaign()?);
            self.publish(number);
            let entry = self.entries.last_mut().expect("set above");
            entry.books = Books {
                funded: saved.funded,
                funding_pending: saved.funding_pending,
                reserved: saved.reserved,
                spent: saved.spent,
                paid_out: saved.paid_out,
                count: saved.count.try_into().map_err(|_| "counts by state are cut short")?,
                amount: saved.amount.try_into().map_err(|_| "amounts by state are cut short")?,
            };
            entry.payees = saved.payees;
        }
        Ok(())
    }
}

/// A campaign in a snapshot.
#[derive(Serialize, Deserialize)]
pub struct SavedCampaign {
    definition: Definition,
    funded: u64,
    funding_pending: u64,
    reserved: u64,
    spent: u64,
    paid_out: u64,
    count: Vec<u64>,
    amount: Vec<u64>,
    payees: HashMap<String, PayeeUse>,
}

/// A campaign's definition in its stored form: JSON in a control frame.
#[derive(Serialize, Deserialize)]
pub struct Definition {
    client: String,
    id: String,
    currency: String,
    budget: u64,
    amount_max: Option<u64>,
    per_payee_count: Option<u32>,
    per_payee_amount: Option<u64>,
    starts_at: UnixMs,
    ends_at: UnixMs,
    lane: String,
    state: String,
    created_at: UnixMs,
    updated_at: UnixMs,
    closed_at: UnixMs,
}

impl Definition {
    pub fn of(campaign: &Campaign) -> Definition {
        Definition {
            client: campaign.client.clone(),
            id: campaign.id.clone(),
            currency: campaign.currency.to_string(),
            budget: campaign.budget.minor_units(),
            amount_max: campaign.amount_max.map(Amount::minor_units),
            per_payee_count: campaign.per_payee_count,
            per_payee_amount: campaign.per_payee_amount.map(Amount::minor_units),
            starts_at: campaign.starts_at,
            ends_at: campaign.ends_at,
            lane: campaign.lane.as_str().to_owned(),
            state: campaign.state.as_str().to_owned(),
            created_at: campaign.created_at,
            updated_at: campaign.updated_at,
            closed_at: campaign.closed_at,
        }
    }

    pub fn campaign(self) -> Result<Campaign, String> {
        let amount =
            |value: u64| Amount::new(value).ok_or_else(|| format!("amount {value} is out of bounds"));
        Ok(Campaign {
            currency: Currency::parse(&self.currency).ok_or_else(|| format!("currency {}", self.currency))?,
            budget: amount(self.budget)?,
            amount_max: self.amount_max.map(amount).transpose()?,
            per_payee_count: self.per_payee_count,
            per_payee_amount: self.per_payee_amount.map(amount).transpose()?,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            lane: Lane::parse(&self.lane).ok_or_else(|| format!("lane {}", self.lane))?,
            state: CampaignState::parse(&self.state).ok_or_else(|| format!("state {}", self.state))?,
            is_funded_whole: false,
            created_at: self.created_at,
            updated_at: self.updated_at,
            closed_at: self.closed_at,
            client: self.client,
            id: self.id,
        })
    }
}
