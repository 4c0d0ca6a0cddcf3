//! What waits in the parking, for the gateway: pages of it, and releases. Read from the parking itself, which is
//! never behind.
//!
//! The lock of the parking is held for a page or a step of a release at a time; the journal is read without it.

use std::collections::HashSet;
use std::sync::PoisonError;

use super::office::Office;
use crate::domain::{Refusal, WaitReason};
use crate::gateway::port::{Answer, ParkedFilter, ParkedPage, ParkedQuery, ParkedRow, Refused, Waiting};
use crate::intake::IntakeError;
use crate::intake::embedded::identity::held_from;
use crate::intake::embedded::parking::{Age, Group, Parked};

/// Campaigns that are released in one go.
const GROUPS_IN_A_STEP: usize = 1_000;
/// The number of no campaign: a cancel of an id that was never seen has none.
const NO_CAMPAIGN: u32 = u32::MAX;

impl Office {
    /// The groups that the client's campaigns have, and how many requests are in each.
    fn groups(&self, filter: &ParkedFilter) -> Vec<(Group, usize)> {
        let all: Vec<(Group, usize)> = self.desk.parking().groups().collect();
        let registry = self.desk.registry().read().unwrap_or_else(PoisonError::into_inner);
        let matches = |((number, reason), _): &(Group, usize)| {
            filter.reason.is_none_or(|wanted| wanted == *reason)
                && registry.get(*number as usize).is_some_and(|campaign| {
                    campaign.client == filter.client
                        && filter.campaign.as_ref().is_none_or(|wanted| *wanted == campaign.id)
                })
        };
        all.into_iter().filter(matches).collect()
    }

    fn parked_page(&self, query: &ParkedQuery) -> Result<ParkedPage, Refused> {
        let after = query.cursor.as_ref().map(|text| cursor::read(&query.filter, text)).transpose();
        let after = after.map_err(|detail| Refused::new(Refusal::InvalidField, detail))?;
        let groups = self.groups(&query.filter);
        let count = |reason: WaitReason| {
            groups.iter().filter(|((_, of), _)| *of == reason).map(|(_, count)| *count as u64).sum()
        };
        let counts = WaitReason::PARKED.map(|reason| (reason, count(reason)));
        let mut listed: Vec<Group> = groups.iter().map(|(group, _)| *group).collect();
        if query.filter.campaign.is_none() {
            // Whose they are shows when they are read.
            let reasons = WaitReason::PARKED.into_iter();
            let reasons = reasons.filter(|reason| query.filter.reason.is_none_or(|wanted| wanted == *reason));
            listed.extend(reasons.map(|reason| (NO_CAMPAIGN, reason)));
        }
        let limit = query.limit as usize;
        let mut found = self.desk.parking().page(&listed, after, limit + 1);
        let has_more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| has_more);
        let next_cursor = last.map(|last| cursor::write(&query.filter, (last.since, last.request_place)));
        let rows =
            found.iter().filter_map(|parked| self.parked_row(parked, &query.filter.client).transpose());
        let data = rows.collect::<Result<_, _>>();
        let damaged = |error: IntakeError| Refused::new(Refusal::NotAccepting, error.to_string());
        Ok(ParkedPage { data: data.map_err(damaged)?, next_cursor, counts: counts.to_vec() })
    }

    fn parked_row(&self, parked: &Parked, client: &str) -> Result<Option<ParkedRow>, IntakeError> {
        let held = held_from(&self.desk.entries(), parked.entry_place)?;
        Ok(held.filter(|held| held.request().client == client).map(|held| {
            let mut standing = self.standing(&held);
            standing.reason = Some(parked.reason);
            ParkedRow { standing, waiting_since: parked.since }
        }))
    }

    async fn release_ids(&self, filter: ParkedFilter, ids: Vec<String>) -> Result<u64, Refused> {
        let found = self.desk.find(&filter.client, &ids).await?;
        let wanted = found.iter().flatten().filter(|held| {
            filter.campaign.as_ref().is_none_or(|campaign| *campaign == held.request().campaign)
        });
        let places: HashSet<u64> = wanted.map(|held| held.request_place).collect();
        let mut parking = self.desk.parking();
        let matches = |parked: &Parked| filter.reason.is_none_or(|reason| reason == parked.reason);
        let released = places
            .into_iter()
            .filter(|place| parking.get(*place).is_some_and(matches) && parking.release_one(*place));
        Ok(released.count() as u64)
    }

    fn release_groups(&self, filter: &ParkedFilter) -> u64 {
        let groups = self.groups(filter);
        let steps = groups.chunks(GROUPS_IN_A_STEP).map(|step| {
            let mut parking = self.desk.parking();
            step.iter().map(|((number, reason), _)| parking.release(*reason, *number) as u64).sum::<u64>()
        });
        steps.sum()
    }
}

impl Waiting for Office {
    fn parked(&self, query: ParkedQuery) -> Answer<'_, Result<ParkedPage, Refused>> {
        let office = self.clone();
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || office.parked_page(&query)).await;
            read.unwrap_or_else(|_| Err(Refused::new(Refusal::NotAccepting, "the parking cannot be read")))
        })
    }

    fn release(&self, filter: ParkedFilter, ids: Option<Vec<String>>) -> Answer<'_, Result<u64, Refused>> {
        Box::pin(async move {
            let released = match ids {
                Some(ids) => self.release_ids(filter, ids).await?,
                None => self.release_groups(&filter),
            };
            self.desk.ring_feeder();
            Ok(released)
        })
    }
}

/// The cursor of the list: version (1), since and place of the last request (8 bytes each, little-endian), and 8 bytes
/// of a hash of these and the filters, in hexadecimal. It carries no right: every page is limited to who asks.
pub(super) mod cursor {
    use super::{Age, ParkedFilter};

    const VERSION: u8 = 1;
    const AGE_BYTES: usize = 17;
    const BYTES: usize = AGE_BYTES + 8;

    pub fn write(filter: &ParkedFilter, (since, place): Age) -> String {
        let mut bytes = [0; BYTES];
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&since.to_le_bytes());
        bytes[9..AGE_BYTES].copy_from_slice(&place.to_le_bytes());
        let seal = seal(filter, &bytes[..AGE_BYTES]);
        bytes[AGE_BYTES..].copy_from_slice(&seal);
        hex::encode(bytes)
    }

    pub fn read(filter: &ParkedFilter, text: &str) -> Result<Age, &'static str> {
        let strange = "cursor: it is not one that this list with these filters gives out; start without it";
        let mut bytes = [0; BYTES];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| strange)?;
        if bytes[0] != VERSION || bytes[AGE_BYTES..] != seal(filter, &bytes[..AGE_BYTES]) {
            return Err(strange);
        }
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Ok((word(1), word(9)))
    }

    fn seal(filter: &ParkedFilter, age: &[u8]) -> [u8; 8] {
        let mut hash = blake3::Hasher::new();
        hash.update(age);
        // No id holds a NUL, so no two filters read the same.
        let (campaign, reason) = (filter.campaign.as_deref(), filter.reason.map(|reason| reason.as_str()));
        for part in [Some(filter.client.as_str()), campaign, reason] {
            hash.update(part.unwrap_or("").as_bytes());
            hash.update(&[0]);
        }
        hash.finalize().as_bytes()[..8].try_into().expect("eight of thirty-two bytes")
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::domain::WaitReason;

        #[test]
        fn only_what_was_given_out_comes_back() {
            let filter = ParkedFilter { client: "shop".into(), campaign: Some("c".into()), reason: None };
            let given = write(&filter, (7, 9));
            let other_client = ParkedFilter { client: "mall".into(), ..filter.clone() };
            let other_reason = ParkedFilter { reason: Some(WaitReason::NotDue), ..filter.clone() };
            let changed = given.replacen("07", "08", 1);
            let table = [
                (&filter, given.as_str(), Some((7, 9))),
                (&other_client, &given, None),
                (&other_reason, &given, None),
                (&filter, &changed, None),
                (&filter, "", None),
                (&filter, "红包红包红包红包红包红包红包红包红", None),
                (&filter, &given[2..], None),
            ];
            for (filter, text, expected) in table {
                assert_eq!(read(filter, text).ok(), expected, "{text}");
            }
        }
    }
}
