//! What waits in Redis, for the gateway: pages of it, and releases, over the units of the whole fleet.
//!
//! Read from the sets themselves, by a connection of its own that one call at a time uses: a call may take a second
//! where a million wait. It differs from the embedded parking in that what is handed out and not settled yet is told
//! among what waits.

use std::sync::{Arc, Mutex, PoisonError};

use crate::app::office::standing_of_request;
use crate::app::parked::cursor;
use crate::domain::{Refusal, Request, Status, UnixMs, WaitReason};
use crate::gateway::port::{
    Answer, ParkedFilter, ParkedPage, ParkedQuery, ParkedRow, Refused, Standing, Waiting,
};
use crate::intake::redis::Keys;
use crate::intake::redis::parked::scan::Scan;
use crate::intake::redis::parked::scripts::{Age, Filter};
use crate::intake::redis::parked::{Member, ParkedShelf};
use crate::redis::{Failure, Link};

#[derive(Clone)]
pub struct RedisWaiting {
    link: Arc<Mutex<Link>>,
    keys: Keys,
    /// Ours: it looks at once, where other instances' look within a second.
    shelf: ParkedShelf,
}

impl RedisWaiting {
    pub fn new(link: Link, keys: Keys, shelf: ParkedShelf) -> RedisWaiting {
        RedisWaiting { link: Arc::new(Mutex::new(link)), keys, shelf }
    }

    fn scan<T>(&self, work: impl FnOnce(&mut Scan<'_>) -> Result<T, Failure>) -> Result<T, Refused> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut Scan::new(&mut link, &self.keys)).map_err(|failure| {
            Refused::new(Refusal::NotAccepting, format!("what waits cannot be read: {failure}"))
        })
    }

    fn page(&self, query: &ParkedQuery) -> Result<ParkedPage, Refused> {
        let after = query.cursor.as_ref().map(|text| cursor::read(&query.filter, text)).transpose();
        let after = after.map_err(|detail| Refused::new(Refusal::InvalidField, detail))?;
        let after = after.map_or(Age::FIRST, |(since, tie)| Age { since, tie });
        let listed = self.scan(|scan| scan.list(&filter(&query.filter), after, query.limit as usize))?;
        let last = listed.members.last().filter(|_| listed.has_more);
        let next_cursor = last.map(|(age, ..)| cursor::write(&query.filter, (age.since, age.tie)));
        let count = |reason| (reason, listed.counts.get(&reason).copied().unwrap_or(0));
        let data = listed.members.iter().filter_map(|(_, member, due)| row(member, *due)).collect();
        Ok(ParkedPage { data, next_cursor, counts: WaitReason::PARKED.map(count).to_vec() })
    }

    /// Makes due what the filter lets through; how many were waiting. For whoever resumes, closes or funds a
    /// campaign, too.
    pub fn release_now(&self, wanted: &ParkedFilter, ids: Option<&[String]>) -> Result<u64, Refused> {
        let released = self.scan(|scan| scan.release(&filter(wanted), ids))?;
        self.shelf.wake();
        Ok(released)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&RedisWaiting) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let waiting = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&waiting)).await;
        done.unwrap_or_else(|_| Err(Refused::new(Refusal::NotAccepting, "what waits cannot be read")))
    }
}

fn filter(wanted: &ParkedFilter) -> Filter {
    Filter {
        client: wanted.client.clone(),
        reason: wanted.reason,
        campaign: wanted.campaign.clone().unwrap_or_default(),
    }
}

/// A released one is due at once: it has no next time.
fn row(member: &Member, due: UnixMs) -> Option<ParkedRow> {
    let request = Request::decode(&member.record).ok()?;
    let standing = Standing {
        status: if member.is_unknown { Status::Unknown } else { Status::Queued },
        reason: Some(member.reason),
        updated_at: member.at,
        next_attempt_at: if due < member.at { 0 } else { due },
        attempts: member.attempts,
        ..standing_of_request(&request)
    };
    Some(ParkedRow { standing, waiting_since: member.since })
}

impl Waiting for RedisWaiting {
    fn parked(&self, query: ParkedQuery) -> Answer<'_, Result<ParkedPage, Refused>> {
        Box::pin(self.blocking(move |waiting| waiting.page(&query)))
    }

    fn release(&self, filter: ParkedFilter, ids: Option<Vec<String>>) -> Answer<'_, Result<u64, Refused>> {
        Box::pin(self.blocking(move |waiting| waiting.release_now(&filter, ids.as_deref())))
    }
}
