//! Stage two: may the request be paid now, later, or never?
//!
//! Looks at the campaign and the clock only. A request that may never be paid is not failed here: its id is
//! burned at the wallet first, and if the wallet says it was paid, paid it is.

use std::sync::{Arc, PoisonError};

use super::slot::{Origin, Slot, Verdict};
use super::suspects::{NOBODY, Suspects};
use super::{CatchUp, Parts};
use crate::domain::{Campaign, CampaignState, Kind, PayoutCode, Request, UnixMs, WaitReason};
use crate::intake::desk::campaigns::Registry;
use crate::ring::chain::StageError;
use crate::ring::{Batch, Stage};

pub struct Check {
    batch_count_max: u64,
    registry: Registry,
    /// The registry as of this batch, and where a name was found last.
    campaigns: Vec<Arc<Campaign>>,
    numbers: std::collections::HashMap<String, u32>,
    last: Option<(String, String, u32)>,
    catch_up: Option<CatchUp>,
    suspects: Arc<Suspects>,
    working_on: u64,
    now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
}

impl Check {
    pub fn new(batch_count_max: u64, parts: &Parts, suspects: Arc<Suspects>) -> Check {
        Check {
            batch_count_max,
            registry: parts.registry.clone(),
            campaigns: Vec::new(),
            numbers: std::collections::HashMap::new(),
            last: None,
            catch_up: parts.catch_up.clone(),
            suspects,
            working_on: NOBODY,
            now_ms: parts.now_ms.clone(),
        }
    }

    /// Takes over changed definitions: once a batch.
    fn refresh(&mut self) {
        let shared = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        for (number, campaign) in shared.iter().enumerate() {
            match self.campaigns.get_mut(number) {
                Some(held) if Arc::ptr_eq(held, campaign) => {}
                Some(held) => *held = campaign.clone(),
                None => {
                    self.numbers.insert(format!("{}:{}", campaign.client, campaign.id), number as u32);
                    self.campaigns.push(campaign.clone());
                }
            }
        }
    }

    fn number(&mut self, request: &Request<'_>) -> Option<u32> {
        if let Some((client, id, number)) = &self.last
            && client == request.client
            && id == request.campaign
        {
            return Some(*number);
        }
        let number = self.numbers.get(&format!("{}:{}", request.client, request.campaign)).copied()?;
        self.last = Some((request.client.to_owned(), request.campaign.to_owned(), number));
        Some(number)
    }

    /// The campaign's number. One that is not known may have been made through another instance a moment ago: it is
    /// looked for once a batch before anybody is told that there is none.
    fn find(&mut self, request: &Request<'_>, caught: &mut Caught) -> Option<u32> {
        let known = self.number(request);
        let Some(catch_up) = self.catch_up.as_ref().filter(|_| known.is_none() && *caught == Caught::NotYet)
        else {
            return known;
        };
        *caught = if catch_up() { Caught::Up } else { Caught::Failed };
        self.refresh();
        self.number(request)
    }
}

/// A batch's look at what others decided meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caught {
    NotYet,
    Up,
    Failed,
}

/// How long a request waits whose campaign cannot be looked for.
const UNREAD_LOOK_MS: u64 = 1_000;

/// How long a paused campaign's requests wait before they are looked at unasked.
const PAUSED_LOOK_MS: u64 = 3_600_000;

/// What check decides of one request.
pub fn verdict(
    request: &Request<'_>,
    campaign: Option<&Campaign>,
    condemned: bool,
    lacks_balance: bool,
    now: UnixMs,
) -> (Verdict, UnixMs) {
    if condemned {
        return (Verdict::Burn(PayoutCode::CrashSuspect), 0);
    }
    if request.kind == Kind::Cancel {
        return (Verdict::Pay, 0);
    }
    if request.not_after != 0 && now > request.not_after {
        return (Verdict::Burn(PayoutCode::Expired), 0);
    }
    let Some(campaign) = campaign else {
        return (Verdict::Burn(PayoutCode::CampaignClosed), 0);
    };
    let pays_out = matches!(request.kind, Kind::Disbursement | Kind::Collection);
    match campaign.state {
        CampaignState::Closed if pays_out => return (Verdict::Burn(PayoutCode::CampaignClosed), 0),
        CampaignState::Paused if pays_out => {
            // Resuming or closing the campaign releases it; its own expiry must not be slept through.
            let expires = if request.not_after == 0 { UnixMs::MAX } else { request.not_after + 1 };
            return (Verdict::Wait(WaitReason::CampaignPaused), (now + PAUSED_LOOK_MS).min(expires));
        }
        CampaignState::Active | CampaignState::Paused | CampaignState::Closed => {}
    }
    if lacks_balance && campaign.is_funded_whole && request.kind == Kind::Disbursement {
        // Its account was filled to the budget, and others had it all.
        return (Verdict::Burn(PayoutCode::BudgetExhausted), 0);
    }
    if request.not_before > now {
        return (Verdict::Wait(WaitReason::NotDue), request.not_before);
    }
    (Verdict::Pay, 0)
}

impl Stage<Slot> for Check {
    fn name(&self) -> &'static str {
        "check"
    }

    fn panicked(&mut self, reason: &str) {
        self.suspects.blame(self.working_on, &[], reason);
    }

    fn appetite(&mut self) -> u64 {
        self.batch_count_max
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, Slot>) -> Result<(), StageError> {
        self.refresh();
        let now = (self.now_ms)();
        let mut caught = Caught::NotYet;
        while let Some(slot) = batch.next_slot() {
            self.working_on = slot.mark;
            let request = Request::decode(&slot.record).map_err(|error| {
                StageError(format!("the request at {} is not readable: {error}", slot.place))
            })?;
            let number = self.find(&request, &mut caught);
            let campaign = number.map(|number| &*self.campaigns[number as usize]);
            let condemned = self.suspects.is_condemned(slot.mark);
            if !condemned {
                inject_panic(request.id);
            }
            let lacks_balance = matches!(slot.origin, Origin::Parked { lacks_balance: true, .. });
            let (verdict, due) = match verdict(&request, campaign, condemned, lacks_balance, now) {
                // Whether there is one is not known.
                (Verdict::Burn(PayoutCode::CampaignClosed), _)
                    if number.is_none() && caught == Caught::Failed =>
                {
                    (Verdict::Wait(WaitReason::Backlog), now + UNREAD_LOOK_MS)
                }
                decided => decided,
            };
            slot.set_verdict(verdict, number.unwrap_or(u32::MAX), due);
        }
        self.working_on = NOBODY;
        Ok(())
    }
}

/// For tests: panics on the request whose id the fail point names.
fn inject_panic(id: &str) {
    fail::fail_point!("check::item", |poisoned| assert!(poisoned.as_deref() != Some(id), "injected"));
    let _ = id;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Amount, Currency};
    use crate::pipeline::suspects::Nowhere;

    fn campaign(state: CampaignState) -> Campaign {
        let currency = Currency::parse("CNY").unwrap();
        Campaign { state, ..Campaign::new("s", "c", currency, Amount::new(100).unwrap()) }
    }

    #[test]
    fn verdicts_by_precedence() {
        use CampaignState::{Active, Closed, Paused};
        let burn = |code| (Verdict::Burn(code), 0);
        let wait = |reason, due| (Verdict::Wait(reason), due);
        let pay = (Verdict::Pay, 0);
        // kind, state, not_before, not_after, condemned, expected; the clock stands at 100.
        let table = [
            (Kind::Disbursement, Some(Active), 0, 0, false, pay),
            (Kind::Disbursement, Some(Active), 0, 0, true, burn(PayoutCode::CrashSuspect)),
            (Kind::Disbursement, Some(Active), 0, 99, false, burn(PayoutCode::Expired)),
            (Kind::Disbursement, Some(Active), 0, 100, false, pay),
            (Kind::Disbursement, Some(Closed), 0, 0, false, burn(PayoutCode::CampaignClosed)),
            (Kind::Collection, Some(Closed), 0, 0, false, burn(PayoutCode::CampaignClosed)),
            (Kind::Reversal, Some(Closed), 0, 0, false, pay),
            (Kind::Defund, Some(Closed), 0, 0, false, pay),
            (
                Kind::Disbursement,
                Some(Paused),
                0,
                0,
                false,
                wait(WaitReason::CampaignPaused, 100 + PAUSED_LOOK_MS),
            ),
            (Kind::Fund, Some(Paused), 0, 0, false, pay),
            (Kind::Disbursement, Some(Paused), 0, 99, false, burn(PayoutCode::Expired)),
            (Kind::Disbursement, Some(Active), 101, 0, false, wait(WaitReason::NotDue, 101)),
            (Kind::Disbursement, None, 0, 0, false, burn(PayoutCode::CampaignClosed)),
            (Kind::Cancel, None, 0, 0, false, pay),
        ];
        for (row, (kind, state, not_before, not_after, condemned, expected)) in table.into_iter().enumerate()
        {
            let amount = Amount::new(1).unwrap();
            let request = Request {
                not_before,
                not_after,
                ..Request::new(kind, "s", "r", "c", amount, Currency::parse("CNY").unwrap())
            };
            let campaign = state.map(campaign);
            assert_eq!(verdict(&request, campaign.as_ref(), condemned, false, 100), expected, "row {row}");
        }
    }

    #[test]
    fn what_a_whole_budget_does_not_cover_has_exhausted_it() {
        let exhausted = (Verdict::Burn(PayoutCode::BudgetExhausted), 0);
        // kind, funded to the budget, lacked the balance when it was tried, expected.
        let table = [
            (Kind::Disbursement, true, true, exhausted),
            (Kind::Disbursement, true, false, (Verdict::Pay, 0)),
            (Kind::Disbursement, false, true, (Verdict::Pay, 0)),
            // It is the payer who lacks it.
            (Kind::Collection, true, true, (Verdict::Pay, 0)),
        ];
        for (kind, is_funded_whole, lacks_balance, expected) in table {
            let campaign = Campaign { is_funded_whole, ..campaign(CampaignState::Active) };
            let currency = Currency::parse("CNY").unwrap();
            let request = Request::new(kind, "s", "r", "c", Amount::new(1).unwrap(), currency);
            assert_eq!(verdict(&request, Some(&campaign), false, lacks_balance, 100), expected, "{kind:?}");
        }
    }

    #[test]
    fn a_campaign_made_elsewhere_a_moment_ago_is_looked_for_once_a_batch() {
        // Whether it can be looked for, whether it is there then, whether it is found, what the looking came to.
        let table = [
            (true, true, true, Caught::Up),
            (true, false, false, Caught::Up),
            (false, false, false, Caught::Failed),
        ];
        for (can_look, is_there, is_found, expected) in table {
            let registry = Registry::default();
            let looks = Arc::new(std::sync::atomic::AtomicU64::new(0));
            let (theirs, counted) = (registry.clone(), looks.clone());
            let catch_up = move || {
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if is_there {
                    theirs.write().unwrap().push(Arc::new(campaign(CampaignState::Active)));
                }
                can_look
            };
            let mut check = Check {
                batch_count_max: 1,
                registry,
                campaigns: Vec::new(),
                numbers: std::collections::HashMap::new(),
                last: None,
                catch_up: Some(Arc::new(catch_up)),
                suspects: Arc::new(Suspects::none(Arc::new(Nowhere))),
                working_on: NOBODY,
                now_ms: Arc::new(|| 0),
            };
            let (amount, currency) = (Amount::new(1).unwrap(), Currency::parse("CNY").unwrap());
            let request = Request::new(Kind::Disbursement, "s", "r", "c", amount, currency);
            let mut caught = Caught::NotYet;
            let found = [check.find(&request, &mut caught), check.find(&request, &mut caught)];
            assert_eq!(found.map(|number| number.is_some()), [is_found; 2]);
            assert_eq!((caught, looks.load(std::sync::atomic::Ordering::Relaxed)), (expected, 1));
        }
    }
}
