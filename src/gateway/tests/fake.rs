//! A fake of all three ports: a map of what was accepted, a few campaigns that behave by name, and answers
//! that a test may script. It keeps the ports' promises about repeats and order, and nothing else.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::domain::campaign::Books;
use crate::domain::{
    Amount, Campaign, CampaignState, Currency, Kind, Lane, Refusal, Request, Status, WaitReason,
};
use crate::gateway::port::*;

pub const DONE_AT: u64 = super::NOW + 60_000;

#[derive(Default)]
pub struct Fake {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: BTreeMap<(String, String), ([u8; 16], Standing)>,
    batches: BTreeMap<(String, String), BatchHead>,
    campaigns: BTreeMap<(String, String), Campaign>,
    records: Vec<Submission>,
    scripted: Option<Refused>,
    unready: bool,
    listed: Vec<ListQuery>,
}

pub fn refused(code: Refusal, detail: &str) -> Refused {
    Refused {
        code,
        detail: detail.to_owned(),
        conflicts: Vec::new(),
        retry_after_s: None,
        accepted_unknown: false,
    }
}

fn campaign(client: &str, id: &str) -> Campaign {
    Campaign {
        client: client.to_owned(),
        id: id.to_owned(),
        currency: Currency::parse("CNY").unwrap(),
        budget: Amount::new(1_000_000).unwrap(),
        amount_max: None,
        per_payee_count: None,
        per_payee_amount: None,
        starts_at: 0,
        ends_at: 0,
        lane: Lane::Bulk,
        state: CampaignState::Active,
        is_funded_whole: false,
        created_at: super::NOW,
        updated_at: super::NOW,
        closed_at: 0,
    }
}

fn standing(request: &Request<'_>, status: Status) -> Standing {
    Standing {
        id: request.id.to_owned(),
        kind: request.kind,
        status,
        reason: None,
        code: None,
        campaign: request.campaign.to_owned(),
        party: request.party.to_owned(),
        merchant: request.merchant.to_owned(),
        agreement: request.agreement.to_owned(),
        original: if request.kind == Kind::Cancel { "" } else { request.original }.to_owned(),
        batch: request.batch.to_owned(),
        amount: request.amount.minor_units(),
        currency: request.currency.to_string(),
        remark: request.remark.to_owned(),
        metadata: request.metadata.to_owned(),
        accepted_at: super::NOW,
        updated_at: super::NOW,
        settled_at: if status.is_final() { super::NOW + 1 } else { 0 },
        next_attempt_at: 0,
        attempts: 0,
        wallet_ref: String::new(),
    }
}

impl State {
    fn submit(&mut self, submission: Submission) -> Verdict {
        let record = submission.record.clone();
        let request = Request::decode(&record).expect("the door encodes what can be decoded");
        self.records.push(submission);
        let key = (request.client.to_owned(), request.id.to_owned());
        if let Some((digest, standing)) = self.known.get(&key) {
            if *digest == request.digest {
                return Verdict::Repeated(Box::new(standing.clone()));
            }
            let conflict = refused(Refusal::IdConflict, "the id stands for another body");
            return Verdict::Refused(Refused { conflicts: vec!["amount"], ..conflict });
        }
        let refusal = match request.campaign {
            "nowhere" => Some(Refusal::CampaignUnknown),
            "closed" => Some(Refusal::CampaignClosed),
            "paused" => Some(Refusal::CampaignPaused),
            "broke" => Some(Refusal::BudgetExhausted),
            "full" => Some(Refusal::BacklogFull),
            "torn" => Some(Refusal::AppendUnknown),
            _ if request.currency.as_str() != "CNY" => Some(Refusal::InvalidField),
            _ if (1..=super::NOW).contains(&request.not_after) => Some(Refusal::Expired),
            _ => None,
        };
        if let Some(code) = refusal {
            return Verdict::Refused(refused(code, "scripted by the campaign's name"));
        }
        self.known.insert(key, (request.digest, standing(&request, Status::Accepted)));
        // The campaign's name says how sure the intake is.
        let guarantee = match request.campaign {
            "hasty" => Guarantee { durability: None, is_duplicate_check_deferred: true },
            "copied" => {
                Guarantee { durability: Some("replicated:1".into()), is_duplicate_check_deferred: false }
            }
            _ => Guarantee::default(),
        };
        Verdict::Accepted { accepted_at: super::NOW, estimated_completion_at: DONE_AT, guarantee }
    }
}

impl Fake {
    /// Every call that changes state is refused so from now on.
    pub fn script(&self, refused: Refused) {
        self.state.lock().unwrap().scripted = Some(refused);
    }

    pub fn set_unready(&self) {
        self.state.lock().unwrap().unready = true;
    }

    pub fn set_status(&self, id: &str, status: Status) {
        let mut state = self.state.lock().unwrap();
        let known = state.known.values_mut().find(|(_, standing)| standing.id == id);
        known.expect("known").1.status = status;
    }

    pub fn records(&self) -> Vec<Submission> {
        self.state.lock().unwrap().records.clone()
    }

    pub fn listed(&self) -> Vec<ListQuery> {
        self.state.lock().unwrap().listed.clone()
    }
}

impl Accepting for Fake {
    fn submit(
        &self,
        head: Option<BatchHead>,
        requests: Vec<Submission>,
    ) -> Answer<'_, Result<Vec<Verdict>, Refused>> {
        let mut state = self.state.lock().unwrap();
        let head = head.map(|head| ((head.client.clone(), head.id.clone()), head));
        let known = head.as_ref().and_then(|(key, head)| Some((state.batches.get(key)?, head)));
        let other = known.is_some_and(|(known, head)| known != head);
        let answer = match state.scripted.clone() {
            Some(refused) => Err(refused),
            None if other => Err(refused(Refusal::IdConflict, "the id stands for another batch")),
            None => {
                state.batches.extend(head);
                Ok(requests.into_iter().map(|request| state.submit(request)).collect())
            }
        };
        Box::pin(async move { answer })
    }

    fn submit_and_wait(&self, submission: Submission) -> Answer<'_, Result<Standing, Refused>> {
        let mut state = self.state.lock().unwrap();
        let record = submission.record.clone();
        let request = Request::decode(&record).unwrap();
        state.records.push(submission);
        let key = (request.client.to_owned(), request.id.to_owned());
        let known = state.known.get(&key).map(|(_, known)| known.clone());
        let answer = match (state.scripted.clone(), request.kind, known) {
            (Some(refused), _, _) => Err(refused),
            (None, Kind::Cancel, Some(known)) if known.status.is_final() => Ok(known),
            // An item that the wallet holds is not decided within the wait.
            (None, Kind::Cancel, Some(known)) if known.status == Status::Unknown => Ok(known),
            (None, Kind::Cancel, Some(known)) => Ok(Standing { status: Status::Canceled, ..known }),
            (None, Kind::Cancel, None) => Ok(standing(&request, Status::Canceled)),
            (None, _, _) => Ok(standing(&request, Status::Succeeded)),
        };
        if let Ok(standing) = &answer {
            state.known.insert(key, (request.digest, standing.clone()));
        }
        Box::pin(async move { answer })
    }

    fn change_campaign(
        &self,
        client: String,
        id: String,
        change: CampaignChange,
    ) -> Answer<'_, Result<CampaignStanding, Refused>> {
        let mut state = self.state.lock().unwrap();
        let known = state.campaigns.get(&(client.clone(), id.clone())).cloned();
        let changed = match (change, known) {
            (CampaignChange::Put(campaign), _) => Ok(*campaign),
            (_, None) => Err(refused(Refusal::NotFound, "no such campaign")),
            (CampaignChange::Pause, Some(known)) => Ok(Campaign { state: CampaignState::Paused, ..known }),
            (CampaignChange::Resume, Some(known)) => Ok(Campaign { state: CampaignState::Active, ..known }),
            (CampaignChange::Close, Some(known)) => Ok(Campaign { state: CampaignState::Closed, ..known }),
        };
        let answer = changed.map(|campaign| {
            state.campaigns.insert((client, id), campaign.clone());
            CampaignStanding { campaign, books: Books::default() }
        });
        Box::pin(async move { answer })
    }
}

impl Looking for Fake {
    fn find(&self, client: String, ids: Vec<String>) -> Answer<'_, Result<Vec<Option<Standing>>, Refused>> {
        let state = self.state.lock().unwrap();
        let one = |id: String| state.known.get(&(client.clone(), id)).map(|(_, standing)| standing.clone());
        let found = ids.into_iter().map(one).collect();
        Box::pin(async move { Ok(found) })
    }

    /// Two a page, so that every test of a list turns pages.
    fn list(&self, query: ListQuery) -> Answer<'_, Result<Page, Refused>> {
        let mut state = self.state.lock().unwrap();
        let from: usize = query.cursor.as_deref().map_or(0, |cursor| cursor.parse().unwrap());
        let mine = state.known.iter().filter(|((client, _), _)| *client == query.client);
        let all: Vec<Standing> = mine
            .map(|(_, (_, standing))| standing.clone())
            .filter(|standing| query.batch.as_ref().is_none_or(|batch| *batch == standing.batch))
            .filter(|standing| query.status.is_none_or(|status| status == standing.status))
            .collect();
        let next_cursor = (from + 2 < all.len()).then(|| (from + 2).to_string());
        let data = all.into_iter().skip(from).take(2).collect();
        state.listed.push(query);
        Box::pin(async move { Ok(Page { data, next_cursor }) })
    }

    fn batch(&self, client: String, id: String) -> Answer<'_, Result<Option<BatchStanding>, Refused>> {
        let state = self.state.lock().unwrap();
        let head = state.batches.get(&(client.clone(), id.clone())).cloned();
        let mut tally = Tally::default();
        for ((owner, _), (_, standing)) in &state.known {
            if *owner == client && standing.batch == id {
                tally.count[standing.status as usize - 1] += 1;
                tally.amount[standing.status as usize - 1] += standing.amount;
            }
        }
        let standing =
            head.map(|head| BatchStanding { head, accepted_at: super::NOW, tally, is_complete: true });
        Box::pin(async move { Ok(standing) })
    }

    fn campaign(&self, client: String, id: String) -> Answer<'_, Result<Option<CampaignStanding>, Refused>> {
        let state = self.state.lock().unwrap();
        let known = state.campaigns.get(&(client.clone(), id.clone())).cloned();
        let known = known.or_else(|| (id == "spring").then(|| campaign(&client, &id)));
        let standing = known.map(|campaign| CampaignStanding { campaign, books: Books::default() });
        Box::pin(async move { Ok(standing) })
    }
}

impl Waiting for Fake {
    /// Everything known waits for money.
    fn parked(&self, query: ParkedQuery) -> Answer<'_, Result<ParkedPage, Refused>> {
        let state = self.state.lock().unwrap();
        let mine = state.known.iter().filter(|((client, _), _)| *client == query.filter.client);
        let data: Vec<ParkedRow> = mine
            .map(|(_, (_, standing))| ParkedRow { standing: standing.clone(), waiting_since: super::NOW })
            .collect();
        let counts = vec![(WaitReason::NotDue, 0), (WaitReason::LowBalance, data.len() as u64)];
        let next_cursor = query.cursor.is_none().then(|| query.limit.to_string());
        Box::pin(async move { Ok(ParkedPage { data, next_cursor, counts }) })
    }

    /// A thousand for a reason, a hundred for a campaign, one for an id.
    fn release(&self, filter: ParkedFilter, ids: Option<Vec<String>>) -> Answer<'_, Result<u64, Refused>> {
        let count = 1_000 * u64::from(filter.reason.is_some()) + 100 * u64::from(filter.campaign.is_some());
        let ids = ids.map_or(0, |ids| ids.len() as u64);
        Box::pin(async move { Ok(count + ids) })
    }
}

impl Vitals for Fake {
    fn readiness(&self) -> Readiness {
        let unready = self.state.lock().unwrap().unready;
        Readiness {
            ready: !unready,
            reason: unready.then(|| "the disk is full".to_owned()),
            facts: vec![("backlog", "7".to_owned())],
        }
    }

    fn metrics(&self) -> String {
        "# TYPE hongbao_up gauge\nhongbao_up 1\n# EOF\n".to_owned()
    }

    fn durability(&self) -> &'static str {
        "fsync"
    }
}
