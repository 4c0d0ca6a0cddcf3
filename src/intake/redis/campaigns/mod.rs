//! The campaigns as the stream of decisions tells them: definitions, and what was promised of their budgets.
//!
//! Every instance applies the same entries in the same order, so all know the same campaigns under the same numbers
//! (the order of first appearance). Funding is decided here and not at the wallet, because the wallet knows no
//! budget: a reservation holds until it failed. Pure: no Redis, no clock. Absent: what was spent, which is the
//! wallet's to know and the outcome view's to tell.

mod entry;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError};

use self::entry::key;
pub use self::entry::{Entry, EntryError, Fold, Funding, Step};
use crate::domain::campaign::Books;
use crate::domain::{Campaign, CampaignState, Refusal, UnixMs, WaitReason};
use crate::intake::desk::campaigns::Registry;
use crate::intake::desk::{CampaignChange, Refused, rules};

/// What waits for a campaign and may be looked at again, on every instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub number: u32,
    pub client: String,
    pub campaign: String,
    pub reasons: &'static [WaitReason],
}

/// All campaigns, as far as the stream was read.
#[derive(Default)]
pub struct Campaigns {
    registry: Registry,
    by_name: HashMap<String, u32>,
    fundings: HashMap<String, Funding>,
    /// By campaign, so that nothing has to be added up anew.
    sums: HashMap<String, Sums>,
    /// Those reserved, by when; each once.
    open: BTreeMap<(UnixMs, String), ()>,
}

/// Funding of one campaign, added up.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// Reserved and done.
    promised: u128,
    /// Done.
    added: u128,
    /// Taken out again, done.
    taken: u128,
}

impl Sums {
    /// Those that a funding counts in.
    fn of(&mut self, funding: &Funding) -> [Option<&mut u128>; 2] {
        match (funding.is_defund, funding.step) {
            (false, Step::Reserved) => [Some(&mut self.promised), None],
            (false, Step::Done) => [Some(&mut self.promised), Some(&mut self.added)],
            (true, Step::Done) => [Some(&mut self.taken), None],
            (false, Step::Failed) | (true, Step::Reserved | Step::Failed) => [None, None],
        }
    }

    fn less(self, sum: u128) -> u64 {
        u64::try_from(sum.saturating_sub(self.taken)).unwrap_or(u64::MAX)
    }
}

impl Campaigns {
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    pub fn number(&self, client: &str, id: &str) -> Option<u32> {
        self.by_name.get(&key(client, id)).copied()
    }

    pub fn get(&self, client: &str, id: &str) -> Option<Arc<Campaign>> {
        let number = self.number(client, id)?;
        let shared = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        shared.get(number as usize).cloned()
    }

    /// Takes in the next entry. Answers what it sets free.
    pub fn apply(&mut self, entry: Entry) -> Vec<Release> {
        match entry {
            Entry::Campaign(campaign) => self.define(*campaign).into_iter().collect(),
            Entry::Funding(funding) => self.note(funding).into_iter().collect(),
            // On top of what it was made from it changes nothing; what was missed of that is made up for.
            Entry::Fold(fold) => {
                let Fold { campaigns, fundings, .. } = *fold;
                let mut released: Vec<Release> =
                    campaigns.into_iter().filter_map(|campaign| self.define(campaign)).collect();
                released.extend(fundings.into_iter().filter_map(|funding| self.note(funding)));
                released
            }
        }
    }

    /// All of it, for who begins behind the entry `through`.
    pub fn fold(&self, through: &str) -> Fold {
        let shared = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        let campaigns = shared.iter().map(|campaign| (**campaign).clone()).collect();
        let mut fundings: Vec<Funding> = self.fundings.values().cloned().collect();
        fundings.sort_unstable_by_key(|funding| (funding.at, funding.key()));
        Fold { through: through.to_owned(), campaigns, fundings }
    }

    /// Campaigns and fundings: what a fold of all has.
    pub fn count(&self) -> usize {
        self.by_name.len() + self.fundings.len()
    }

    fn define(&mut self, campaign: Campaign) -> Option<Release> {
        let name = key(&campaign.client, &campaign.id);
        let mut shared = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        let next = shared.len() as u32;
        let number = *self.by_name.entry(name).or_insert(next);
        let before = shared.get(number as usize).map(|held| held.state);
        let reasons: &'static [WaitReason] = match (before, campaign.state) {
            (Some(CampaignState::Paused), CampaignState::Active) => &[WaitReason::CampaignPaused],
            (Some(CampaignState::Active | CampaignState::Paused), CampaignState::Closed) => &WaitReason::ALL,
            _ => &[],
        };
        let (client, id) = (campaign.client.clone(), campaign.id.clone());
        let is_funded_whole = self.moved(&client, &id) >= campaign.budget.minor_units();
        let campaign = Arc::new(Campaign { is_funded_whole, ..campaign });
        match shared.get_mut(number as usize) {
            Some(held) => *held = campaign,
            None => shared.push(campaign),
        }
        (!reasons.is_empty()).then_some(Release { number, client, campaign: id, reasons })
    }

    fn note(&mut self, funding: Funding) -> Option<Release> {
        let name = funding.key();
        let before = self.fundings.remove(&name);
        if let Some(before) = &before {
            self.open.remove(&(before.at, name.clone()));
            let sums = self.sums.entry(key(&before.client, &before.campaign)).or_default();
            sums.of(before).into_iter().flatten().for_each(|sum| *sum -= u128::from(before.amount));
        }
        let sums = self.sums.entry(key(&funding.client, &funding.campaign)).or_default();
        sums.of(&funding).into_iter().flatten().for_each(|sum| *sum += u128::from(funding.amount));
        let is_news = before.is_none_or(|before| before.step != Step::Done);
        if funding.step == Step::Reserved {
            self.open.insert((funding.at, name.clone()), ());
        }
        let release = (is_news && funding.step == Step::Done && !funding.is_defund)
            .then(|| self.number(&funding.client, &funding.campaign))
            .flatten()
            .map(|number| Release {
                number,
                client: funding.client.clone(),
                campaign: funding.campaign.clone(),
                reasons: &[WaitReason::LowBalance],
            });
        let (client, campaign) = (funding.client.clone(), funding.campaign.clone());
        self.fundings.insert(name, funding);
        self.mark_funded(&client, &campaign);
        release
    }

    /// Notes with the definition whether the wallet holds the whole budget.
    fn mark_funded(&self, client: &str, id: &str) {
        let Some(number) = self.number(client, id) else { return };
        let moved = self.moved(client, id);
        let mut shared = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = shared.get_mut(number as usize) else { return };
        let is_funded_whole = moved >= held.budget.minor_units();
        if held.is_funded_whole != is_funded_whole {
            *held = Arc::new(Campaign { is_funded_whole, ..(**held).clone() });
        }
    }

    fn sums(&self, client: &str, campaign: &str) -> Sums {
        self.sums.get(&key(client, campaign)).copied().unwrap_or_default()
    }

    /// What the wallet has moved to a campaign's account, less what it moved back.
    fn moved(&self, client: &str, campaign: &str) -> u64 {
        let sums = self.sums(client, campaign);
        sums.less(sums.added)
    }

    /// What was promised of a campaign's budget: funding that did not fail, less what was taken out again.
    pub fn committed(&self, client: &str, campaign: &str) -> u64 {
        let sums = self.sums(client, campaign);
        sums.less(sums.promised)
    }

    /// Reserved before `until` and not concluded, the oldest first; of one campaign or of all, and only those behind
    /// `after`, where one is given.
    pub fn open(
        &self,
        of: Option<(&str, &str)>,
        after: Option<&Funding>,
        until: UnixMs,
        count_max: usize,
    ) -> Vec<Funding> {
        let from = after.map_or(Bound::Unbounded, |last| Bound::Excluded((last.at, last.key())));
        let reserved = self.open.range((from, Bound::Unbounded)).map(|(place, ())| place);
        let reserved = reserved.take_while(|(at, _)| *at < until);
        let reserved = reserved.filter_map(|(_, name)| self.fundings.get(name));
        let wanted = reserved.filter(|f| of.is_none_or(|of| of == (&f.client, &f.campaign)));
        wanted.take(count_max).cloned().collect()
    }

    /// The campaign after a change, or why it may not be.
    pub fn change(
        &self,
        client: &str,
        id: &str,
        change: CampaignChange,
        now: UnixMs,
    ) -> Result<Campaign, Refused> {
        if let CampaignChange::Put(campaign) = &change
            && (campaign.per_payee_count.is_some() || campaign.per_payee_amount.is_some())
        {
            let detail = "a limit per payee cannot be kept exactly by a fleet that accepts at many doors \
                          (intake.kind = redis): leave out per_payee_count and per_payee_amount and have the wallet \
                          enforce them (it answers payee_limit), or use the embedded intake";
            return Err(Refused::new(Refusal::InvalidField, detail));
        }
        let known = self.get(client, id);
        let mut campaign = match (known, change) {
            (None, CampaignChange::Put(campaign)) => Campaign { created_at: now, ..*campaign },
            (None, CampaignChange::Pause | CampaignChange::Resume | CampaignChange::Close) => {
                return Err(Refused::new(Refusal::NotFound, format!("there is no campaign {id}")));
            }
            (Some(held), change) => {
                let books = Books { funded: self.committed(client, id), ..Books::default() };
                rules::changed(&held, &books, change)?
            }
        };
        campaign.updated_at = now;
        if campaign.state == CampaignState::Closed && campaign.closed_at == 0 {
            campaign.closed_at = now;
        }
        Ok(campaign)
    }

    /// What is to be written before this funding may be asked of the wallet; `None` if nothing, because it is
    /// reserved, or was done.
    pub fn reserve(&self, funding: &Funding) -> Result<Option<Funding>, Refused> {
        let held = self.fundings.get(&funding.key());
        if let Some(held) = held
            && held.step != Step::Failed
        {
            // Another amount under this id is a conflict of ids, which is found where ids are known.
            return Ok(None);
        }
        let Some(campaign) = self.get(&funding.client, &funding.campaign) else {
            let detail = format!("there is no campaign {}", funding.campaign);
            return Err(Refused::new(Refusal::CampaignUnknown, detail));
        };
        if !funding.is_defund {
            let committed = self.committed(&funding.client, &funding.campaign);
            let room = campaign.budget.minor_units().saturating_sub(committed);
            if funding.amount > room {
                let detail = format!("funding stops at the budget: {room} may still be added");
                return Err(Refused::new(Refusal::BudgetExhausted, detail));
            }
        }
        Ok(Some(funding.clone()))
    }

    /// The end of a reservation, if it is open; and what the wallet has done is done, whoever gave it up before.
    pub fn conclude(&self, client: &str, id: &str, step: Step) -> Option<Funding> {
        let held = self.fundings.get(&key(client, id))?;
        let may_end = match held.step {
            Step::Reserved => step != Step::Reserved,
            Step::Failed => step == Step::Done,
            Step::Done => false,
        };
        if !may_end {
            return None;
        }
        Some(Funding { step, ..held.clone() })
    }
}

#[cfg(test)]
mod tests;
