//! Requests that wait for a time: not due yet, an empty account, a paused campaign.
//!
//! A parked request was acknowledged in its queue; what makes it durable is its latest outcome, which says
//! QUEUED with a reason and a time. The desk parks and releases as outcomes become durable; the feeder takes
//! what is due and hands it out again. Bounded: past the bound the feeder stops feeding.

use std::collections::{BTreeSet, HashMap};

use crate::domain::{UnixMs, WaitReason};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    pub request_place: u64,
    /// The latest entry of the request: the outcome that parked it.
    pub entry_place: u64,
    pub due: UnixMs,
    pub since: UnixMs,
    pub reason: WaitReason,
    pub attempts: u32,
    pub campaign_number: u32,
}

#[derive(Debug, Default)]
pub struct Parking {
    by_place: HashMap<u64, Parked>,
    /// Those not handed out, by time.
    waiting: BTreeSet<(UnixMs, u64)>,
}

impl Parking {
    pub fn len(&self) -> usize {
        self.by_place.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// Parks a request, or changes what it waits for.
    pub fn park(&mut self, mut parked: Parked) {
        if let Some(before) = self.by_place.get(&parked.request_place) {
            self.waiting.remove(&(before.due, before.request_place));
            parked.since = before.since;
        }
        self.waiting.insert((parked.due, parked.request_place));
        self.by_place.insert(parked.request_place, parked);
    }

    /// The request needs to wait no more.
    pub fn remove(&mut self, request_place: u64) {
        if let Some(before) = self.by_place.remove(&request_place) {
            self.waiting.remove(&(before.due, request_place));
        }
    }

    /// Hands out what is due, oldest first; it stays parked until an outcome says otherwise.
    pub fn take_due(&mut self, now: UnixMs, count_max: usize, out: &mut Vec<Parked>) {
        while out.len() < count_max {
            match self.waiting.first() {
                Some((due, place)) if *due <= now => {
                    let place = *place;
                    self.waiting.pop_first();
                    out.push(self.by_place[&place]);
                }
                _ => break,
            }
        }
    }

    /// Whether this request is parked and not handed out.
    pub fn is_waiting(&self, request_place: u64) -> bool {
        self.by_place.get(&request_place).is_some_and(|p| self.waiting.contains(&(p.due, request_place)))
    }

    pub fn next_due(&self) -> Option<UnixMs> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// Makes everything that waits for this reason, in this campaign, due at once.
    pub fn release(&mut self, reason: WaitReason, campaign_number: u32) {
        let waiting = &mut self.waiting;
        for parked in self.by_place.values_mut() {
            if parked.reason == reason
                && parked.campaign_number == campaign_number
                && waiting.remove(&(parked.due, parked.request_place))
            {
                parked.due = 0;
                waiting.insert((0, parked.request_place));
            }
        }
    }

    /// Everything parked, for snapshots and listings.
    pub fn iter(&self) -> impl Iterator<Item = &Parked> {
        self.by_place.values()
    }

    /// Count and oldest wait by reason.
    pub fn by_reason(&self) -> HashMap<WaitReason, (u64, UnixMs)> {
        let mut out = HashMap::new();
        for parked in self.by_place.values() {
            let (count, oldest) = out.entry(parked.reason).or_insert((0, UnixMs::MAX));
            *count += 1;
            *oldest = (*oldest).min(parked.since);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(place: u64, due: UnixMs, reason: WaitReason) -> Parked {
        Parked {
            request_place: place,
            entry_place: place,
            due,
            since: due,
            reason,
            attempts: 0,
            campaign_number: 1,
        }
    }

    #[test]
    fn due_items_come_once_until_parked_again() {
        let mut parking = Parking::default();
        parking.park(parked(1, 10, WaitReason::NotDue));
        parking.park(parked(2, 5, WaitReason::LowBalance));
        let mut out = Vec::new();
        parking.take_due(4, 9, &mut out);
        assert!(out.is_empty() && parking.next_due() == Some(5));
        parking.take_due(10, 9, &mut out);
        assert_eq!(out.iter().map(|p| p.request_place).collect::<Vec<_>>(), [2, 1]);
        out.clear();
        parking.take_due(99, 9, &mut out);
        assert!(out.is_empty() && parking.len() == 2, "handed out, still parked");
        parking.park(parked(2, 50, WaitReason::LowBalance));
        parking.remove(1);
        assert_eq!((parking.len(), parking.next_due()), (1, Some(50)));
        parking.release(WaitReason::LowBalance, 2);
        assert_eq!(parking.next_due(), Some(50), "another campaign");
        parking.release(WaitReason::LowBalance, 1);
        assert_eq!(parking.next_due(), Some(0));
        assert_eq!(parking.by_reason()[&WaitReason::LowBalance], (1, 5));
    }
}
