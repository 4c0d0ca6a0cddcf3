//! The bodies of the calls, as a campaign backend would write them.
//!
//! Written by hand, because the client shares two cores with the service it loads. Names and ids come from
//! alphabets in which nothing needs escaping. A body is the same each time it is written, which is what a
//! retry rests on. Absent: sending.

use std::fmt::Write;

use super::dice::Use;
use super::script::{CURRENCY, Call, Item, Script};

/// People who take packets; most take several.
const PACKETS_A_PERSON: u32 = 5;
pub const MERCHANT: &str = "merchant-tea";

/// One request as it will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub id: String,
    pub payee: String,
    pub amount: u64,
    pub currency: &'static str,
}

impl Script {
    pub fn campaign(&self) -> String {
        format!("spring-{}", self.run)
    }

    /// The campaign whose budget is too small.
    pub fn claims_campaign(&self) -> String {
        format!("flash-{}", self.run)
    }

    /// What collections are booked under.
    pub fn withholding_campaign(&self) -> String {
        format!("withholding-{}", self.run)
    }

    pub fn payee(&self, packet: u32) -> String {
        // A stride that spreads neighbours over the people.
        let people = u64::from(self.mix.packets / PACKETS_A_PERSON + 1);
        format!("person-{:07}", u64::from(packet) * 7_919 % people)
    }

    pub fn request(&self, item: Item) -> Request {
        let packet = |number: u32| Request {
            id: self.ids.id(Use::Packet, number),
            payee: self.payee(number),
            amount: self.amounts[number as usize].minor_units(),
            currency: CURRENCY,
        };
        match item {
            Item::Packet(number) | Item::Repeat(number) => packet(number),
            Item::Conflict(number) => {
                let packet = packet(number);
                Request { amount: packet.amount + 1, ..packet }
            }
            Item::Invalid(number) => {
                let id = self.ids.id(Use::Invalid, number);
                let (amount, currency) = if number.is_multiple_of(2) { (0, CURRENCY) } else { (1, "XYZ") };
                Request { id, payee: self.payee(number), amount, currency }
            }
            Item::Claim(number) => {
                let id = self.ids.id(Use::Claim, number);
                Request {
                    id,
                    payee: self.payee(number),
                    amount: self.claim.minor_units(),
                    currency: CURRENCY,
                }
            }
        }
    }

    /// Where a call goes, and what it says.
    pub fn write_call(&self, call: &Call) -> (&'static str, String) {
        let campaign = if call.is_claims() { self.claims_campaign() } else { self.campaign() };
        match call.batch {
            None => {
                let item = call.items().next().expect("a call has an item");
                let Request { id, payee, amount, currency } = self.request(item);
                let body = format!(
                    r#"{{"id":"{id}","campaign":"{campaign}","payee":"{payee}","amount":{amount},"currency":"{currency}"}}"#
                );
                ("/v1/disbursements", body)
            }
            Some(number) => ("/v1/batches", self.write_batch(call, number, &campaign)),
        }
    }

    fn write_batch(&self, call: &Call, number: u32, campaign: &str) -> String {
        let (mut items, mut total, mut count) = (String::with_capacity(call.packets.len() * 96), 0u64, 0u32);
        for item in call.items() {
            let Request { id, payee, amount, currency } = self.request(item);
            let comma = if count > 0 { "," } else { "" };
            write!(items, r#"{comma}{{"id":"{id}","payee":"{payee}","amount":{amount}"#)
                .expect("to a string");
            if currency != CURRENCY {
                write!(items, r#","currency":"{currency}""#).expect("to a string");
            }
            items.push('}');
            total += amount;
            count += 1;
        }
        let id = self.ids.id(Use::Batch, number);
        format!(
            r#"{{"id":"{id}","campaign":"{campaign}","currency":"{CURRENCY}","total_count":{count},"total_amount":{total},"items":[{items}]}}"#
        )
    }

    /// Takes back what a settled packet brought its payee, for a merchant: `(id, body)`.
    pub fn write_collection(&self, number: u32, packet: u32) -> (String, String) {
        let id = self.ids.id(Use::Collection, number);
        let (campaign, payer) = (self.withholding_campaign(), self.payee(packet));
        let amount = self.amounts[packet as usize].minor_units();
        let body = format!(
            r#"{{"id":"{id}","campaign":"{campaign}","payer":"{payer}","merchant":"{MERCHANT}","agreement":"agreement-{number}","amount":{amount},"currency":"{CURRENCY}"}}"#
        );
        (id, body)
    }

    /// Reverses a settled packet, every second one only in part: `(id, body, amount)`.
    pub fn write_reversal(&self, number: u32, packet: u32) -> (String, String, u64) {
        let id = self.ids.id(Use::Reversal, number);
        let whole = self.amounts[packet as usize].minor_units();
        let amount = if number.is_multiple_of(2) { whole } else { whole.div_ceil(2) };
        let body = format!(r#"{{"id":"{id}","amount":{amount},"reason":"not opened within a day"}}"#);
        (id, body, amount)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn bodies_are_json_whose_totals_add_up() {
        let script = Script::write(3_000, Duration::from_secs(1), [9; 32], "t".to_owned());
        for call in &script.calls {
            let (path, body) = script.write_call(call);
            let json: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(script.write_call(call), (path, body.clone()), "the same each time");
            let Some(items) = json["items"].as_array() else {
                assert_eq!(path, "/v1/disbursements");
                continue;
            };
            assert_eq!(json["total_count"], items.len());
            let total: u64 = items.iter().map(|item| item["amount"].as_u64().unwrap()).sum();
            assert_eq!(json["total_amount"], total);
            assert_eq!(items.len(), call.items().count());
        }
    }

    #[test]
    fn a_repeat_is_word_for_word_and_a_conflict_is_not() {
        let script = Script::write(100, Duration::from_secs(1), [9; 32], "t".to_owned());
        let packet = script.request(Item::Packet(3));
        assert_eq!(script.request(Item::Repeat(3)), packet);
        let conflict = script.request(Item::Conflict(3));
        assert_eq!((&conflict.id, conflict.amount), (&packet.id, packet.amount + 1));
        let (_, _, half) = script.write_reversal(1, 3);
        assert!(half <= packet.amount && half > 0);
    }
}
