//! What is sent: requests as a pure function of their number, and the bodies they travel in.
//!
//! What holds: a request's id, campaign, payee and amount follow from run, lane and number, so that nothing but a
//! state has to be remembered of it, and a retry writes the same bytes. A lane is one generator thread in one phase.
//! Absent: sending, and what became of it.

use std::io::Write;

use crate::dice::{self, Pick};
use crate::scenario::{Law, Load};

pub const CURRENCY: &str = "CNY";
const REMARK: &str = "Happy New Year! May all your wishes come true. ";

/// What tells the uses of a hash apart.
const CAMPAIGN: u64 = 1 << 60;
const PAYEE: u64 = 2 << 60;
const AMOUNT: u64 = 3 << 60;
const ODD: u64 = 4 << 60;

/// A request's place: the lane it was made in, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub lane: u32,
    pub number: u32,
}

/// What a request within a call is meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Must be acknowledged, and paid once.
    Fresh(u32),
    /// One that was acknowledged, word for word: must be acknowledged, and not paid again.
    Duplicate(u32),
    /// The id of one that was acknowledged, another amount: must be refused.
    Conflict(u32),
    /// Not valid: must be refused.
    Invalid(u32),
}

/// One call: fresh requests in a row, then odd ones.
#[derive(Clone, Debug)]
pub struct Call {
    pub first: u32,
    pub fresh: u32,
    pub odd: Vec<Item>,
    /// Number of the batch in its lane; none: a request alone.
    pub batch: Option<u32>,
    /// Microseconds since the run's start.
    pub due_us: u64,
    pub attempts: u32,
    /// An earlier attempt may have been accepted.
    pub is_doubtful: bool,
}

impl Call {
    pub fn items(&self) -> impl Iterator<Item = Item> + '_ {
        (self.first..self.first + self.fresh).map(Item::Fresh).chain(self.odd.iter().copied())
    }

    pub fn count(&self) -> u32 {
        self.fresh + self.odd.len() as u32
    }
}

#[derive(Debug)]
pub struct Traffic {
    /// In every id: no two runs share one.
    pub run: String,
    seed: u64,
    campaigns: Pick,
    payees: Pick,
    load: Load,
    remark: String,
}

impl Traffic {
    pub fn new(run: &str, seed: u64, load: &Load) -> Traffic {
        let pick = |law, count| match law {
            Law::Uniform => Pick::Uniform(count),
            Law::Zipf => Pick::zipf(count, load.zipf_exponent),
        };
        Traffic {
            run: run.to_owned(),
            seed,
            campaigns: pick(load.campaign_pick, load.campaigns),
            payees: pick(load.payee_pick, load.payees),
            load: load.clone(),
            remark: REMARK.chars().cycle().take(load.remark_bytes as usize).collect(),
        }
    }

    fn hash(&self, place: Place, purpose: u64) -> u64 {
        dice::mix(dice::mix(self.seed ^ purpose) ^ (u64::from(place.lane) << 32 | u64::from(place.number)))
    }

    pub fn id(&self, place: Place) -> String {
        format!("{}-{}-{}", self.run, place.lane, place.number)
    }

    /// The place of an id of this run.
    pub fn place(&self, id: &str) -> Option<Place> {
        let (lane, number) = id.strip_prefix(&self.run)?.strip_prefix('-')?.split_once('-')?;
        Some(Place { lane: lane.parse().ok()?, number: number.parse().ok()? })
    }

    pub fn campaign_count(&self) -> u32 {
        self.campaigns.count()
    }

    pub fn campaign_name(&self, index: u32) -> String {
        format!("lt-{}-{index}", self.run)
    }

    pub fn campaign(&self, place: Place) -> u32 {
        self.campaigns.of(self.hash(place, CAMPAIGN))
    }

    pub fn payee_name(&self, index: u32) -> String {
        format!("p-{}-{index}", self.run)
    }

    pub fn payee(&self, place: Place) -> u32 {
        self.payees.of(self.hash(place, PAYEE))
    }

    pub fn payee_count(&self) -> u32 {
        self.payees.count()
    }

    /// Minor units.
    pub fn amount(&self, place: Place) -> u64 {
        1 + self.hash(place, AMOUNT) % u64::from(self.load.amount_max)
    }

    /// Whether the request that would get this number is an odd one, and which; the target is one acknowledged.
    pub fn odd(&self, lane: u32, turn: u64, acknowledged: &[u32]) -> Option<Item> {
        let load = &self.load;
        let share = load.duplicates + load.conflicts + load.invalid;
        if share == 0.0 {
            return None;
        }
        let hash = dice::mix(dice::mix(self.seed ^ ODD ^ u64::from(lane)) ^ turn);
        let at = dice::unit(hash);
        if at >= share {
            return None;
        }
        if at < load.invalid {
            return Some(Item::Invalid(turn as u32));
        }
        let target = *acknowledged.get(dice::mix(hash) as usize % acknowledged.len().max(1))?;
        Some(if at < load.invalid + load.conflicts {
            Item::Conflict(target)
        } else {
            Item::Duplicate(target)
        })
    }

    /// Appends the whole HTTP call.
    pub fn write_http(
        &self,
        out: &mut Vec<u8>,
        head: &HttpHead,
        lane: u32,
        call: &Call,
        scratch: &mut Vec<u8>,
    ) {
        scratch.clear();
        match call.batch {
            None => {
                let item = call.items().next().expect("a call holds a request");
                self.write_request(scratch, lane, item, None);
            }
            Some(number) => self.write_batch(scratch, lane, number, call),
        }
        let path = if call.batch.is_some() { "/v1/batches" } else { "/v1/disbursements" };
        write!(out, "POST {path} HTTP/1.1\r\n{}content-length: {}\r\n\r\n", head.0, scratch.len())
            .expect(TO_MEMORY);
        out.extend_from_slice(scratch);
    }

    /// Appends one command of the Redis protocol that pushes the requests to a list, each an element.
    pub fn write_push(&self, out: &mut Vec<u8>, list: &str, lane: u32, call: &Call, scratch: &mut Vec<u8>) {
        write!(out, "*{}\r\n$5\r\nRPUSH\r\n${}\r\n{list}\r\n", call.count() + 2, list.len())
            .expect(TO_MEMORY);
        for item in call.items() {
            scratch.clear();
            self.write_request(scratch, lane, item, None);
            write!(out, "${}\r\n", scratch.len()).expect(TO_MEMORY);
            out.extend_from_slice(scratch);
            out.extend_from_slice(b"\r\n");
        }
    }

    fn write_batch(&self, out: &mut Vec<u8>, lane: u32, number: u32, call: &Call) {
        let first = call.items().next().expect("a batch holds requests");
        let campaign = self.campaign(self.target(lane, first));
        let total: u64 = call.items().map(|item| self.item_amount(lane, item)).sum();
        let (run, name) = (&self.run, self.campaign_name(campaign));
        write!(
            out,
            r#"{{"id":"{run}-b-{lane}-{number}","campaign":"{name}","currency":"{CURRENCY}","total_count":{},"total_amount":{total},"items":["#,
            call.count()
        )
        .expect(TO_MEMORY);
        for (index, item) in call.items().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write_request(out, lane, item, Some(campaign));
        }
        out.extend_from_slice(b"]}");
    }

    fn target(&self, lane: u32, item: Item) -> Place {
        let (Item::Fresh(number) | Item::Duplicate(number) | Item::Conflict(number) | Item::Invalid(number)) =
            item;
        Place { lane, number }
    }

    fn item_amount(&self, lane: u32, item: Item) -> u64 {
        match item {
            Item::Fresh(_) | Item::Duplicate(_) => self.amount(self.target(lane, item)),
            Item::Conflict(_) => self.amount(self.target(lane, item)) + 1,
            Item::Invalid(_) => 0,
        }
    }

    /// `within`: the campaign of the batch around it, which need not be named again, nor the currency.
    fn write_request(&self, out: &mut Vec<u8>, lane: u32, item: Item, within: Option<u32>) {
        let place = self.target(lane, item);
        let run = &self.run;
        let mark = if matches!(item, Item::Invalid(_)) { "invalid-" } else { "" };
        let (payee, amount) = (self.payee(place), self.item_amount(lane, item));
        write!(out, r#"{{"id":"{run}-{mark}{lane}-{}","#, place.number).expect(TO_MEMORY);
        let campaign = self.campaign(place);
        if within != Some(campaign) {
            write!(out, r#""campaign":"lt-{run}-{campaign}","#).expect(TO_MEMORY);
        }
        write!(out, r#""payee":"p-{run}-{payee}","amount":{amount}"#).expect(TO_MEMORY);
        if within.is_none() {
            write!(out, r#","currency":"{CURRENCY}""#).expect(TO_MEMORY);
        }
        if !self.remark.is_empty() {
            write!(out, r#","remark":"{}""#, self.remark).expect(TO_MEMORY);
        }
        out.push(b'}');
    }
}

const TO_MEMORY: &str = "writing to memory does not fail";

/// The lines of the head that are the same in every call.
#[derive(Clone, Debug)]
pub struct HttpHead(String);

impl HttpHead {
    pub fn new(host: &str, authorization: Option<&str>) -> HttpHead {
        let authorization =
            authorization.map_or_else(String::new, |value| format!("authorization: {value}\r\n"));
        HttpHead(format!("host: {host}\r\ncontent-type: application/json\r\n{authorization}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic() -> Traffic {
        let load =
            Load { duplicates: 0.2, conflicts: 0.1, invalid: 0.1, remark_bytes: 60, ..Load::default() };
        Traffic::new("0a1b2c3d", 9, &load)
    }

    fn body(traffic: &Traffic, call: &Call) -> serde_json::Value {
        let mut out = Vec::new();
        traffic.write_http(&mut out, &HttpHead::new("h", None), 3, call, &mut Vec::new());
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn bodies_are_json_and_add_up() {
        let traffic = traffic();
        let odd = vec![Item::Duplicate(1), Item::Conflict(2), Item::Invalid(77)];
        let call =
            Call { first: 10, fresh: 5, odd, batch: Some(4), due_us: 0, attempts: 0, is_doubtful: false };
        let json = body(&traffic, &call);
        let items = json["items"].as_array().unwrap();
        assert_eq!((items.len() as u64, json["total_count"].as_u64().unwrap()), (8, 8));
        let sum: u64 = items.iter().map(|item| item["amount"].as_u64().unwrap()).sum();
        assert_eq!(json["total_amount"], sum);
        assert_eq!(body(&traffic, &call), json, "the same each time");
        let place = Place { lane: 3, number: 11 };
        assert_eq!(items[1]["id"], traffic.id(place));
        assert_eq!(traffic.place(items[1]["id"].as_str().unwrap()), Some(place));
        assert_eq!(items[1]["amount"], traffic.amount(place));
        assert_eq!(items[6]["id"], traffic.id(Place { lane: 3, number: 2 }));
        assert_eq!(items[6]["amount"], traffic.amount(Place { lane: 3, number: 2 }) + 1);
        assert_eq!(traffic.place(items[7]["id"].as_str().unwrap()), None);
        assert_eq!(items[1]["remark"].as_str().unwrap().len(), 60);
    }

    #[test]
    fn odd_ones_come_as_often_as_asked_for() {
        let traffic = traffic();
        let mut counts = [0u32; 3];
        for turn in 0..20_000 {
            match traffic.odd(0, turn, &[1, 2, 3]) {
                Some(Item::Duplicate(number)) => {
                    assert!((1..=3).contains(&number));
                    counts[0] += 1;
                }
                Some(Item::Conflict(_)) => counts[1] += 1,
                Some(Item::Invalid(_)) => counts[2] += 1,
                Some(Item::Fresh(_)) | None => {}
            }
        }
        for (count, share) in counts.into_iter().zip([0.2, 0.1, 0.1]) {
            assert!((f64::from(count) / 20_000.0 - share).abs() < 0.01, "{counts:?}");
        }
        // Nothing is acknowledged yet: nothing to repeat.
        let early = (0..1_000).filter_map(|turn| traffic.odd(0, turn, &[]));
        assert!(early.clone().all(|item| matches!(item, Item::Invalid(_))) && early.count() > 50);
    }
}
