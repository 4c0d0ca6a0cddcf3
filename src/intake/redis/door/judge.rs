//! Whether a request may be accepted, as far as it depends on nothing but its campaign and the outlook.
//!
//! Pure but for one thing: a campaign that is not known here is asked for once a gathering, because another instance
//! may have made it a moment ago. Absent: ids, and totals: a budget is kept by the campaign's account at the wallet.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::{DoorOptions, Outlook};
use crate::domain::{Campaign, Kind, Lane, Refusal, Request, UnixMs};
use crate::intake::QueueId;
use crate::intake::admission::{self, Ahead, Bounds};
use crate::intake::desk::{Refused, rules};
use crate::intake::redis::registry::CampaignRegistry;
use crate::shaping::Since;

/// What is accepted, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    pub lane: Lane,
    /// Of its queue, where that is paced.
    pub position: Option<usize>,
    pub estimated_completion_at: UnixMs,
}

/// The campaigns as of this gathering.
pub struct Book {
    registry: CampaignRegistry,
    campaigns: Vec<Arc<Campaign>>,
    numbers: HashMap<String, usize>,
    last: Option<(String, String, usize)>,
    has_asked: bool,
}

impl Book {
    pub fn new(registry: CampaignRegistry) -> Book {
        Book { registry, campaigns: Vec::new(), numbers: HashMap::new(), last: None, has_asked: false }
    }

    /// Takes over changed definitions: once a gathering.
    pub fn refresh(&mut self) {
        self.has_asked = false;
        self.take_over();
    }

    fn take_over(&mut self) {
        let shared = self.registry.registry().read().unwrap_or_else(PoisonError::into_inner);
        for (number, campaign) in shared.iter().enumerate() {
            match self.campaigns.get_mut(number) {
                Some(held) if Arc::ptr_eq(held, campaign) => {}
                Some(held) => *held = campaign.clone(),
                None => {
                    self.numbers.insert(format!("{}:{}", campaign.client, campaign.id), number);
                    self.campaigns.push(campaign.clone());
                }
            }
        }
    }

    fn known(&mut self, client: &str, id: &str) -> Option<usize> {
        // Few campaigns share a gathering; as a rule it is the one met last.
        if let Some((last_client, last_id, number)) = &self.last
            && last_client == client
            && last_id == id
        {
            return Some(*number);
        }
        let number = self.numbers.get(&format!("{client}:{id}")).copied()?;
        self.last = Some((client.to_owned(), id.to_owned(), number));
        Some(number)
    }

    fn find(&mut self, client: &str, id: &str) -> Result<Option<&Campaign>, Refused> {
        let mut number = self.known(client, id);
        if number.is_none() && !self.has_asked {
            self.has_asked = true;
            if let Err(error) = self.registry.catch_up() {
                let mut refused =
                    Refused::new(Refusal::NotAccepting, format!("{error}; retry with the same id"));
                refused.retry_after_s = Some(1);
                return Err(refused);
            }
            self.take_over();
            number = self.known(client, id);
        }
        Ok(number.map(|number| &*self.campaigns[number]))
    }
}

/// Judges one request; those of its gathering that came before it and fit are ahead of it.
pub fn judge(
    request: &Request<'_>,
    book: &mut Book,
    now: UnixMs,
    outlook: &Outlook,
    accepted: &Since,
    options: &DoorOptions,
) -> Result<Fit, Refused> {
    if let Some(reason) = &outlook.closed {
        return Err(super::refusal::closed(reason));
    }
    if request.kind == Kind::Cancel {
        if !options.can_cancel {
            let detail = "the wallet of this service cannot take an id out of use (stored_value.burn = false), so \
                          nothing can be canceled; ask for its status";
            return Err(Refused::new(Refusal::NotCancelable, detail));
        }
        return admit(request, Lane::Control, now, outlook, accepted, options);
    }
    let Some(campaign) = book.find(request.client, request.campaign)? else {
        let id = request.campaign;
        let detail = format!("there is no campaign {id}; PUT /v1/campaigns/{id} first");
        return Err(Refused::new(Refusal::CampaignUnknown, detail));
    };
    let terms = rules::terms(campaign, request, now, options.retention_ms);
    terms.map_err(|(code, detail)| Refused::new(code, detail))?;
    let lane = match request.kind {
        Kind::Fund | Kind::Defund | Kind::Cancel => Lane::Control,
        Kind::Disbursement | Kind::Collection | Kind::Reversal if request.lane == Lane::Control => {
            campaign.lane
        }
        Kind::Disbursement | Kind::Collection | Kind::Reversal => request.lane,
    };
    admit(request, lane, now, outlook, accepted, options)
}

/// Refuses what the backlog would keep too long, and what would have to park where there is no room.
fn admit(
    request: &Request<'_>,
    lane: Lane,
    now: UnixMs,
    outlook: &Outlook,
    accepted: &Since,
    options: &DoorOptions,
) -> Result<Fit, Refused> {
    let (position, wait_ms) = place(request, lane, outlook, accepted);
    let completion_at = admission::completion(request, now, wait_ms)?;
    let accepted = accepted.all();
    room(wait_ms, lane, outlook, accepted, options)?;
    if request.not_before > now.saturating_add(wait_ms) && outlook.is_parking_full {
        return Err(admission::backlog_full(ahead(wait_ms, outlook, accepted), 0));
    }
    Ok(Fit { lane, position, estimated_completion_at: completion_at })
}

/// Where it would stand, if it is paced, and how long that takes.
fn place(request: &Request<'_>, lane: Lane, outlook: &Outlook, accepted: &Since) -> (Option<usize>, u64) {
    let queue = QueueId::of(lane, request.campaign, outlook.fair_queue_count);
    let position = queue.paced_position(outlook.fair_queue_count);
    let wait_ms = position.map_or(0, |position| outlook.promises.wait_ms(position, accepted.to(position)));
    (position, wait_ms)
}

/// Whether one that stands registered may be appended again: where one that comes for the first time would be accepted.
pub fn room_again(request: &Request<'_>, outlook: &Outlook, options: &DoorOptions) -> Result<(), Refused> {
    let (_, wait_ms) = place(request, request.lane, outlook, &Since::default());
    room(wait_ms, request.lane, outlook, 0, options)
}

fn ahead(wait_ms: u64, outlook: &Outlook, accepted: u64) -> Ahead {
    let waiting = outlook.backlog.saturating_add(outlook.parked).saturating_add(accepted);
    Ahead { wait_ms, whole_ms: outlook.promises.whole_ms(accepted), waiting }
}

/// Refuses what there is no room for.
fn room(
    wait_ms: u64,
    lane: Lane,
    outlook: &Outlook,
    accepted: u64,
    options: &DoorOptions,
) -> Result<(), Refused> {
    if lane == Lane::Control {
        // Funding and cancels help a full Redis to drain.
        let is_over = outlook.control_backlog + accepted >= options.control_backlog_max;
        return if is_over { Err(admission::backlog_full(ahead(0, outlook, accepted), 0)) } else { Ok(()) };
    }
    let bounds = Bounds { wait_ms_max: options.wait_ms_max, backlog_max: options.backlog_max };
    if let Some(refused) = admission::overload(ahead(wait_ms, outlook, accepted), bounds) {
        return Err(refused);
    }
    if outlook.is_full { Err(super::refusal::full(false)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Amount, Currency};
    use crate::shaping::{Course as ForecastCourse, Forecast, Others, Promises, Seen};

    #[test]
    fn admission_by_precedence() {
        let options = DoorOptions {
            wait_ms_max: 1_000,
            backlog_max: 50,
            control_backlog_max: 5,
            ..DoorOptions::default()
        };
        let request = |not_before, not_after| Request {
            not_before,
            not_after,
            ..Request::new(
                Kind::Disbursement,
                "s",
                "r",
                "c",
                Amount::new(1).unwrap(),
                Currency::parse("CNY").unwrap(),
            )
        };
        let waits = |wait_ms| Arc::new(Promises::flat(wait_ms));
        let calm = Outlook { backlog: 10, promises: waits(100), ..Outlook::default() };
        let slow = Outlook { promises: waits(5_500), ..calm.clone() };
        let long = Outlook { backlog: 30, parked: 20, ..calm.clone() };
        let parked = Outlook { is_parking_full: true, ..calm.clone() };
        let full = Outlook { is_full: true, ..calm.clone() };
        let busy = Outlook { control_backlog: 5, ..calm.clone() };
        let fit = |at| Ok((Lane::Bulk, at));
        use Refusal::{BacklogFull, Expired};
        // outlook, not_before, not_after, lane, expected; the clock stands at 1000
        let table = [
            (&calm, 0, 0, Lane::Bulk, fit(1_100)),
            (&calm, 5_000, 0, Lane::Bulk, fit(5_000)),
            (&calm, 0, 1_000, Lane::Bulk, Err((Expired, None))),
            (&calm, 0, 1_050, Lane::Bulk, Err((Expired, None))),
            (&calm, 0, 1_100, Lane::Bulk, fit(1_100)),
            (&slow, 0, 0, Lane::Bulk, Err((BacklogFull, Some(5)))),
            (&slow, 0, 0, Lane::Control, Ok((Lane::Control, 1_001))),
            (&long, 0, 0, Lane::Bulk, Err((BacklogFull, Some(1)))),
            (&parked, 0, 0, Lane::Bulk, fit(1_100)),
            (&parked, 1_101, 0, Lane::Bulk, Err((BacklogFull, Some(1)))),
            (&full, 0, 0, Lane::Bulk, Err((BacklogFull, Some(2)))),
            (&full, 0, 0, Lane::Control, Ok((Lane::Control, 1_001))),
            (&busy, 0, 0, Lane::Control, Err((BacklogFull, Some(1)))),
        ];
        for (row, (outlook, before, after, lane, expected)) in table.into_iter().enumerate() {
            let told = admit(&request(before, after), lane, 1_000, outlook, &Since::default(), &options);
            let told = told
                .map(|fit| (fit.lane, fit.estimated_completion_at))
                .map_err(|refused| (refused.code, refused.retry_after_s));
            assert_eq!(told, expected, "row {row}");
        }
        let mut forty = Since::default();
        (0..40).for_each(|_| forty.add(None));
        let crowded = admit(&request(0, 0), Lane::Bulk, 1_000, &calm, &forty, &options);
        assert_eq!(crowded.unwrap_err().code, BacklogFull, "what came before in the gathering counts");
    }

    #[test]
    fn a_repeat_finds_room_where_a_first_one_would() {
        let options = DoorOptions { wait_ms_max: 1_000, backlog_max: 1_000, ..DoorOptions::default() };
        let (amount, currency) = (Amount::new(1).unwrap(), Currency::parse("CNY").unwrap());
        let request = Request::new(Kind::Disbursement, "s", "r", "c", amount, currency);
        let request = Request { lane: Lane::Bulk, ..request };
        let own = usize::from(QueueId::of(Lane::Bulk, "c", 2).fair);
        // what waits in its own queue and in the other one, at 100 a second; whether there is room
        for (waiting, other, has_room) in [(5, 150, true), (150, 5, false), (5, 250, false), (90, 5, true)] {
            let mut seen = [Seen::default(); 4];
            for (at, waiting) in [(2 + own, waiting), (3 - own, other)] {
                seen[at] = Seen { come: waiting, waiting, unread: waiting };
            }
            let course = ForecastCourse::paced(100);
            let promises = Forecast::new(2, course).look(1_000, &seen, Others::default(), course);
            let outlook = Outlook { promises: Arc::new(promises), fair_queue_count: 2, ..Outlook::default() };
            let first = admit(&request, Lane::Bulk, 1_000, &outlook, &Since::default(), &options);
            let again = room_again(&request, &outlook, &options);
            assert_eq!((first.is_ok(), again.is_ok()), (has_room, has_room), "{waiting} and {other}");
        }
    }
}
