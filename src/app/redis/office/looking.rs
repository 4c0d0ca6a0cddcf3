//! The calls that read.
//!
//! A listing by batch goes through the batch's own items, so it misses none however far the view lags; any other
//! listing has what has an outcome.

use super::RedisOffice;
use super::standing::{Tallies, of_row};
use crate::app::office::{rows_asked, standing_of_request};
use crate::domain::{Campaign, Refusal, Status};
use crate::gateway::port::{
    Answer, BatchStanding, CampaignStanding, ListQuery, Looking, Page, Refused, Standing, Tally,
};
use crate::intake::redis::door::Dedupe;

/// What a cursor into the items of a batch begins with. The view's own look otherwise.
const ITEMS_CURSOR: &str = "items-";

impl RedisOffice {
    async fn find_all(&self, client: &str, ids: Vec<String>) -> Result<Vec<Option<Standing>>, Refused> {
        let (name, asked) = (client.to_owned(), ids.clone());
        let rows = self.ask(move |view| view.find(&name, &asked)).await?;
        let mut standings: Vec<Option<Standing>> = rows.into_iter().map(|row| row.map(of_row)).collect();
        standings.resize(ids.len(), None);
        let missing: Vec<usize> = (0..ids.len()).filter(|at| standings[*at].is_none()).collect();
        if missing.is_empty() {
            return Ok(standings);
        }
        let asked: Vec<String> = missing.iter().map(|at| ids[*at].clone()).collect();
        let held = self.door.look(client, asked).await?;
        for (at, held) in missing.into_iter().zip(held) {
            standings[at] = held.map(|held| standing_of_request(&held.request()));
        }
        Ok(standings)
    }

    pub(super) async fn standing_of_campaign(
        &self,
        campaign: &Campaign,
    ) -> Result<CampaignStanding, Refused> {
        let (client, id) = (campaign.client.clone(), campaign.id.clone());
        let tallies = self.ask(move |view| Tallies::read(view, &client, &id)).await?;
        let books = tallies.books(self.registry.committed(&campaign.client, &campaign.id));
        Ok(CampaignStanding { campaign: campaign.clone(), books })
    }

    /// A page of a batch's items, in the order in which they were sent.
    async fn list_items(&self, query: &ListQuery, batch: &str) -> Result<Option<Page>, Refused> {
        let from = match query.cursor.as_deref().map(|cursor| cursor.strip_prefix(ITEMS_CURSOR)) {
            None => 0,
            Some(Some(from)) => from.parse().map_err(|_| {
                Refused::new(Refusal::InvalidField, "cursor: it is not one of this service's")
            })?,
            Some(None) => return Ok(None),
        };
        let Some(known) = self.door.batch(&query.client, batch, true).await? else { return Ok(None) };
        if known.taken.is_none() {
            let detail =
                "its items were not written down before the service failed; send the batch again as it was";
            return Err(Refused::new(Refusal::NotAccepting, detail));
        }
        let limit = query.limit.max(1) as usize;
        let asked: Vec<String> = known.items.iter().skip(from).take(limit).cloned().collect();
        let next = from + asked.len();
        let found = self.find_all(&query.client, asked).await?;
        if found.iter().any(Option::is_none) && self.door.dedupe() == Dedupe::Owner {
            let detail = "items that are not settled cannot be told while ids are not looked up \
                          (accept.dedupe = owner); retry later";
            let mut refused = Refused::new(Refusal::NotAccepting, detail);
            refused.retry_after_s = Some(5);
            return Err(refused);
        }
        let data = found.into_iter().flatten().filter(|standing| is_wanted(standing, query)).collect();
        let next_cursor = (next < known.items.len()).then(|| format!("{ITEMS_CURSOR}{next}"));
        Ok(Some(Page { data, next_cursor }))
    }

    async fn list_view(&self, query: ListQuery) -> Result<Page, Refused> {
        let asked = rows_asked(query);
        let page = self.ask(move |view| view.list(&asked)).await?;
        Ok(Page { data: page.data.into_iter().map(of_row).collect(), next_cursor: page.next_cursor })
    }

    async fn batch_standing(&self, client: String, id: String) -> Result<Option<BatchStanding>, Refused> {
        let Some(known) = self.door.batch(&client, &id, false).await? else { return Ok(None) };
        let row = self.ask(move |view| view.batch(&client, &id)).await?;
        let mut tally =
            row.map_or_else(Tally::default, |row| Tally { count: row.tally.count, amount: row.tally.amount });
        let told: (u64, u64) = (tally.count.iter().sum(), tally.amount.iter().sum());
        if let Some(taken) = known.taken {
            // What was taken and has no outcome yet.
            let at = Status::Accepted as usize - 1;
            tally.count[at] += u64::from(taken.count).saturating_sub(told.0);
            tally.amount[at] += taken.amount.saturating_sub(told.1);
        }
        let is_complete = known.taken.is_some_and(|taken| told.0 >= u64::from(taken.count));
        Ok(Some(BatchStanding { head: known.head, accepted_at: known.accepted_at, tally, is_complete }))
    }
}

fn is_wanted(standing: &Standing, query: &ListQuery) -> bool {
    let is_one =
        |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
    is_one(&query.campaign, &standing.campaign)
        && is_one(&query.party, &standing.party)
        && query.status.is_none_or(|status| status == standing.status)
        && query.kind.is_none_or(|kind| kind == standing.kind)
        && standing.accepted_at >= query.accepted_from
        && (query.settled_from == 0 || standing.settled_at >= query.settled_from)
}

impl Looking for RedisOffice {
    fn find(&self, client: String, ids: Vec<String>) -> Answer<'_, Result<Vec<Option<Standing>>, Refused>> {
        Box::pin(async move { self.find_all(&client, ids).await })
    }

    fn list(&self, query: ListQuery) -> Answer<'_, Result<Page, Refused>> {
        Box::pin(async move {
            if let Some(batch) = &query.batch
                && let Some(page) = self.list_items(&query, batch).await?
            {
                return Ok(page);
            }
            self.list_view(query).await
        })
    }

    fn batch(&self, client: String, id: String) -> Answer<'_, Result<Option<BatchStanding>, Refused>> {
        Box::pin(self.batch_standing(client, id))
    }

    fn campaign(&self, client: String, id: String) -> Answer<'_, Result<Option<CampaignStanding>, Refused>> {
        Box::pin(async move {
            let mut campaign = self.registry.get(&client, &id);
            if campaign.is_none() {
                // Another instance may have made it a moment ago.
                let names = (client, id);
                campaign = self
                    .with_registry(move |registry| {
                        let read = registry.catch_up();
                        read.map_err(|error| Refused::new(Refusal::NotAccepting, error.to_string()))?;
                        Ok(registry.get(&names.0, &names.1))
                    })
                    .await?;
            }
            match campaign {
                Some(campaign) => self.standing_of_campaign(&campaign).await.map(Some),
                None => Ok(None),
            }
        })
    }
}
