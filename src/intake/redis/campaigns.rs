//! The campaigns as the stream of decisions tells them: definitions, and what was promised of their budgets.
//!
//! Every instance applies the same entries in the same order, so all know the same campaigns under the same numbers
//! (the order of first appearance). Funding is decided here and not at the wallet, because the wallet knows no
//! budget: a reservation holds until it failed. Pure: no Redis, no clock. Absent: what was spent, which is the
//! wallet's to know and the outcome view's to tell.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};

use crate::domain::campaign::Books;
use crate::domain::{Campaign, CampaignState, Kind, Refusal, Request, UnixMs, WaitReason};
use crate::intake::desk::campaigns::{Definition, Registry};
use crate::intake::desk::{CampaignChange, Refused, rules};

const VERSION: u32 = 1;

/// Why an entry of the stream cannot be applied. Whoever meets one must decide nothing any more: its numbers would
/// not be those of the others.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("it has version {0}, and this release knows version {VERSION} only: run the newer release")]
    Version(u32),
    #[error("it is not valid: {0}")]
    Damaged(String),
}

/// What became of a promise to fund or defund.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Reserved,
    Done,
    Failed,
}

/// One move between a client's funding account and a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funding {
    pub client: String,
    pub campaign: String,
    pub id: String,
    /// Whether it takes money out of the campaign.
    pub is_defund: bool,
    /// Minor units.
    pub amount: u64,
    pub step: Step,
    pub at: UnixMs,
}

impl Funding {
    /// `None` for a request that moves no funds.
    pub fn of(request: &Request<'_>, now: UnixMs) -> Option<Funding> {
        let is_defund = match request.kind {
            Kind::Fund => false,
            Kind::Defund => true,
            Kind::Disbursement | Kind::Collection | Kind::Reversal | Kind::Cancel => return None,
        };
        Some(Funding {
            client: request.client.to_owned(),
            campaign: request.campaign.to_owned(),
            id: request.id.to_owned(),
            is_defund,
            amount: request.amount.minor_units(),
            step: Step::Reserved,
            at: now,
        })
    }

    fn key(&self) -> String {
        key(&self.client, &self.id)
    }
}

fn key(client: &str, id: &str) -> String {
    format!("{client}:{id}")
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// An entry of the stream: JSON.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign: Option<Definition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    funding: Option<Funding>,
}

/// A decision on its way into the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Campaign(Box<Campaign>),
    Funding(Funding),
}

impl Entry {
    pub fn encode(&self) -> Vec<u8> {
        let stored = match self {
            Entry::Campaign(campaign) => {
                Stored { version: VERSION, campaign: Some(Definition::of(campaign)), funding: None }
            }
            Entry::Funding(funding) => {
                Stored { version: VERSION, campaign: None, funding: Some(funding.clone()) }
            }
        };
        serde_json::to_vec(&stored).expect("plain fields")
    }

    pub fn decode(bytes: &[u8]) -> Result<Entry, EntryError> {
        let damaged = |error: serde_json::Error| EntryError::Damaged(error.to_string());
        let Versioned { version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if version != VERSION {
            return Err(EntryError::Version(version));
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(damaged)?;
        match (stored.campaign, stored.funding) {
            (Some(campaign), None) => {
                Ok(Entry::Campaign(Box::new(campaign.campaign().map_err(EntryError::Damaged)?)))
            }
            (None, Some(funding)) => Ok(Entry::Funding(funding)),
            _ => Err(EntryError::Damaged("neither a campaign nor funding".to_owned())),
        }
    }
}

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
    pub fn apply(&mut self, entry: Entry) -> Option<Release> {
        match entry {
            Entry::Campaign(campaign) => self.define(*campaign),
            Entry::Funding(funding) => self.note(funding),
        }
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
mod tests {
    use super::*;
    use crate::domain::{Amount, Currency};

    fn campaign(id: &str, budget: u64) -> Campaign {
        Campaign::new("s", id, Currency::parse("CNY").unwrap(), Amount::new(budget).unwrap())
    }

    fn funding(id: &str, amount: u64, is_defund: bool, step: Step) -> Funding {
        let (client, campaign) = ("s".to_owned(), "c".to_owned());
        Funding { client, campaign, id: id.to_owned(), is_defund, amount, step, at: amount }
    }

    #[test]
    fn a_campaign_is_funded_whole_while_the_wallet_holds_its_budget() {
        let mut campaigns = Campaigns::default();
        campaigns.apply(Entry::Campaign(Box::new(campaign("c", 10))));
        let is_whole = |campaigns: &Campaigns| campaigns.get("s", "c").unwrap().is_funded_whole;
        let steps = [
            (funding("f-1", 6, false, Step::Done), false),
            (funding("f-2", 4, false, Step::Reserved), false),
            (funding("f-2", 4, false, Step::Done), true),
            (funding("d-1", 1, true, Step::Done), false),
        ];
        for (step, expected) in steps {
            campaigns.apply(Entry::Funding(step));
            assert_eq!(is_whole(&campaigns), expected);
        }
        campaigns.apply(Entry::Campaign(Box::new(campaign("c", 9))));
        assert!(is_whole(&campaigns), "what is there covers the lower budget");
    }

    #[test]
    fn entries_come_back_and_unknown_ones_are_refused_by_name() {
        for entry in
            [Entry::Campaign(Box::new(campaign("c", 9))), Entry::Funding(funding("f", 1, true, Step::Failed))]
        {
            assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
        }
        let table = [
            (&b"{\"version\":2,\"else\":1}"[..], "it has version 2"),
            (b"{\"version\":1}", "neither"),
            (b"[]", "not valid"),
        ];
        for (bytes, expected) in table {
            let told = Entry::decode(bytes).unwrap_err().to_string();
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn funding_stops_at_the_budget_and_failures_give_room_back() {
        let mut known = Campaigns::default();
        known.apply(Entry::Campaign(Box::new(campaign("c", 100))));
        let put = |known: &mut Campaigns, f: Funding| known.apply(Entry::Funding(f));
        // what was noted, what is committed then
        let table = [
            (funding("a", 60, false, Step::Reserved), 60),
            (funding("b", 40, false, Step::Reserved), 100),
            (funding("b", 40, false, Step::Failed), 60),
            (funding("a", 60, false, Step::Done), 60),
            (funding("d", 50, true, Step::Reserved), 60),
            (funding("d", 50, true, Step::Done), 10),
        ];
        for (noted, committed) in table {
            put(&mut known, noted.clone());
            assert_eq!(known.committed("s", "c"), committed, "{noted:?}");
        }
        assert_eq!(known.committed("s", "other"), 0);
        let reserve = |known: &Campaigns, f: Funding| known.reserve(&f).map_err(|r| r.code);
        let ask = |id: &str, amount| funding(id, amount, false, Step::Reserved);
        assert_eq!(reserve(&known, ask("e", 91)), Err(Refusal::BudgetExhausted));
        assert_eq!(reserve(&known, ask("e", 90)), Ok(Some(ask("e", 90))));
        assert_eq!(reserve(&known, ask("a", 60)), Ok(None), "it was done");
        assert_eq!(reserve(&known, ask("b", 40)), Ok(Some(ask("b", 40))), "it failed before");
        assert_eq!(known.conclude("s", "a", Step::Failed), None, "what is done stays done");
        put(&mut known, ask("e", 90));
        assert_eq!(known.open(None, None, 91, 9).len(), 1);
        assert_eq!(known.open(Some(("s", "other")), None, 91, 9).len(), 0);
        assert_eq!(known.conclude("s", "e", Step::Failed).map(|f| f.step), Some(Step::Failed));
    }

    #[test]
    fn many_fundings_are_taken_in_as_fast_as_few() {
        let mut known = Campaigns::default();
        known.apply(Entry::Campaign(Box::new(campaign("c", 1 << 40))));
        let began = std::time::Instant::now();
        for n in 0..20_000 {
            for step in [Step::Reserved, Step::Done] {
                known.apply(Entry::Funding(funding(&format!("f-{n}"), 3, false, step)));
            }
        }
        assert_eq!((known.committed("s", "c"), known.moved("s", "c")), (60_000, 60_000));
        // Adding all of them up for each took a minute in a build without optimisation, and takes a fraction of a second.
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    }

    #[test]
    fn sums_follow_every_step_and_what_was_done_is_never_given_up() {
        let mut known = Campaigns::default();
        known.apply(Entry::Campaign(Box::new(campaign("c", 100))));
        let mut note = |f: Funding| known.apply(Entry::Funding(f));
        note(funding("a", 60, false, Step::Reserved));
        note(funding("a", 60, false, Step::Failed));
        note(funding("a", 40, false, Step::Reserved));
        assert_eq!((known.committed("s", "c"), known.moved("s", "c")), (40, 0));
        known.apply(Entry::Funding(funding("a", 40, false, Step::Failed)));
        let done = known.conclude("s", "a", Step::Done).expect("the wallet has done it after all");
        known.apply(Entry::Funding(done));
        assert_eq!((known.committed("s", "c"), known.moved("s", "c")), (40, 40));
        assert_eq!(known.conclude("s", "a", Step::Failed), None);
        // Whoever looks goes on behind the last one.
        for n in 0..5 {
            known.apply(Entry::Funding(funding(&format!("o-{n}"), n + 1, false, Step::Reserved)));
        }
        let first = known.open(None, None, 91, 3);
        let rest = known.open(None, first.last(), 91, 3);
        let ids = |found: &[Funding]| found.iter().map(|f| f.id.clone()).collect::<Vec<_>>().join(" ");
        assert_eq!((ids(&first), ids(&rest)), ("o-0 o-1 o-2".to_owned(), "o-3 o-4".to_owned()));
    }

    #[test]
    fn what_waits_is_set_free_when_its_reason_is_gone() {
        let mut known = Campaigns::default();
        let mut put = |state: CampaignState| {
            let released = known.apply(Entry::Campaign(Box::new(Campaign { state, ..campaign("c", 1) })));
            released.map(|release| release.reasons.len())
        };
        assert_eq!(put(CampaignState::Active), None);
        assert_eq!(put(CampaignState::Paused), None);
        assert_eq!(put(CampaignState::Active), Some(1));
        assert_eq!(put(CampaignState::Closed), Some(WaitReason::ALL.len()));
        assert_eq!(put(CampaignState::Closed), None);
        let done = known.apply(Entry::Funding(funding("f", 1, false, Step::Done)));
        assert_eq!(done.map(|release| release.reasons), Some(&[WaitReason::LowBalance][..]));
        assert_eq!(known.apply(Entry::Funding(funding("f", 1, false, Step::Done))), None, "told once");
    }

    #[test]
    fn changes_follow_the_rules_of_the_desk() {
        let mut known = Campaigns::default();
        let missing = known.change("s", "c", CampaignChange::Pause, 5).unwrap_err();
        assert_eq!(missing.code, Refusal::NotFound);
        let first = known.change("s", "c", CampaignChange::Put(Box::new(campaign("c", 100))), 5).unwrap();
        assert_eq!((first.created_at, first.updated_at), (5, 5));
        known.apply(Entry::Campaign(Box::new(first)));
        known.apply(Entry::Funding(funding("a", 60, false, Step::Reserved)));
        let put = |budget| CampaignChange::Put(Box::new(campaign("c", budget)));
        assert_eq!(known.change("s", "c", put(59), 6).unwrap_err().conflicts, ["budget"]);
        assert_eq!(known.change("s", "c", put(60), 6).unwrap().created_at, 5);
        let limited = Campaign { per_payee_count: Some(1), ..campaign("c", 100) };
        let limited = known.change("s", "c", CampaignChange::Put(Box::new(limited)), 6).unwrap_err();
        assert_eq!(limited.code, Refusal::InvalidField);
        let closed = known.change("s", "c", CampaignChange::Close, 7).unwrap();
        assert_eq!(closed.closed_at, 7);
        known.apply(Entry::Campaign(Box::new(closed)));
        let again = known.change("s", "c", CampaignChange::Resume, 8).unwrap_err();
        assert_eq!(again.code, Refusal::CampaignClosed);
    }
}
