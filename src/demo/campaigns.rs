//! What comes before and after the burst: campaigns defined and funded, then collections and reversals of
//! packets that were paid, and how long the singles took to become final.
//!
//! All of it goes through the door like everything else. A collection takes from a person exactly what a
//! settled packet brought, so the money is always there. Absent: waiting for the backlog to drain.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use hyper::StatusCode;
use serde::Deserialize;

use super::client::Connection;
use super::crowd::Crowd;
use super::dice::Use;
use super::estimates::Errors;
use super::reading;
use super::script::CURRENCY;
use super::tally::{Entry, Expect, latencies};
use crate::domain::{Amount, UnixMs};
use crate::request::rfc3339;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Ids in one lookup.
const LOOKUP_COUNT: usize = 500;
/// The packets that are collected or reversed must be paid by then; they were among the first.
const PAID_WAIT_MAX: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Ready {
    durability: String,
}

#[derive(Deserialize)]
struct Found {
    data: Vec<Standing>,
}

#[derive(Deserialize)]
struct Standing {
    status: String,
    accepted_at: String,
    settled_at: Option<String>,
}

impl Standing {
    /// When it was accepted and when paid, as the service tells its times (to the millisecond); none if it was not, or
    /// was taken back later: its last time is another then.
    fn paid(&self) -> Option<(UnixMs, UnixMs)> {
        let settled_at = self.settled_at.as_deref().and_then(rfc3339::parse);
        let accepted_at = rfc3339::parse(&self.accepted_at);
        (self.status == "SUCCEEDED").then(|| accepted_at.zip(settled_at)).flatten()
    }
}

/// A call whose requests are counted one by one.
struct Single {
    path: String,
    body: String,
    id: String,
    amount: u64,
}

impl Crowd {
    /// Defines and funds the campaigns (the one for claims gets enough for half of them), and answers what
    /// durability the service promises.
    pub async fn open_campaigns(&self) -> anyhow::Result<String> {
        let script = &self.script;
        let mut connection = Connection::new(self.address, self.halt.clone());
        let ready = connection.get("/readyz").await?.answer;
        let ready: Ready = serde_json::from_slice(&ready.body).context("/readyz")?;
        let budgets = [
            (script.campaign(), script.budget(), true),
            (script.claims_campaign(), script.claims_budget(), true),
            // Money only passes from persons to a merchant under it: nothing is funded.
            (script.withholding_campaign(), script.budget(), false),
        ];
        for (number, (campaign, budget, is_funded)) in budgets.into_iter().enumerate() {
            let body = format!(r#"{{"budget":{budget},"currency":"{CURRENCY}"}}"#);
            let answer = connection.put(&format!("/v1/campaigns/{campaign}"), body).await?.answer;
            let text = String::from_utf8_lossy(&answer.body);
            ensure!(answer.status == StatusCode::OK, "campaign {campaign} was refused: {text}");
            if is_funded {
                self.fund(&mut connection, number as u32, &campaign, budget).await?;
            }
        }
        Ok(ready.durability)
    }

    async fn fund(
        &self,
        connection: &mut Connection,
        number: u32,
        campaign: &str,
        budget: Amount,
    ) -> anyhow::Result<()> {
        let id = self.script.ids.id(Use::Funding, number);
        let body = format!(r#"{{"id":"{id}","amount":{budget}}}"#);
        let path = format!("/v1/campaigns/{campaign}/fund");
        self.send_single(connection, Single { path, body, id, amount: budget.minor_units() }).await
    }

    async fn send_single(&self, connection: &mut Connection, call: Single) -> anyhow::Result<()> {
        let Single { path, body, id, amount } = call;
        let settled = match connection.post(&path, body).await {
            Ok(settled) => settled,
            Err(error) => {
                self.tally.note_given_up(1, &format!("{error:#}"));
                return Ok(());
            }
        };
        let fate = reading::single(settled.answer.status, &settled.answer.body)?;
        // A funding answers 200 once it is final, which is no repeat: acknowledged is what counts here.
        self.tally.enter(std::iter::once(Entry { id: &id, amount, expect: Expect::Acknowledged, fate }))
    }

    /// Waits for the first singles to be paid, then collects some of them and reverses others.
    pub async fn follow_up(&self) -> anyhow::Result<()> {
        let mix = self.script.mix;
        let wanted = (mix.collections + mix.reversals) as usize;
        let packets: Vec<u32> = self.script.singles().take(wanted).collect();
        let mut connection = Connection::new(self.address, self.halt.clone());
        self.wait_paid(&mut connection, &packets).await?;
        let collected = packets.len().saturating_sub(mix.reversals as usize);
        for (number, packet) in packets.iter().enumerate() {
            if self.halt.is_set() {
                return Ok(());
            }
            let call = if number < collected {
                let (id, body) = self.script.write_collection(number as u32, *packet);
                let amount = self.script.amounts[*packet as usize].minor_units();
                Single { path: "/v1/collections".to_owned(), body, id, amount }
            } else {
                let original = self.script.ids.id(Use::Packet, *packet);
                let (id, body, amount) = self.script.write_reversal((number - collected) as u32, *packet);
                Single { path: format!("/v1/disbursements/{original}/reverse"), body, id, amount }
            };
            self.send_single(&mut connection, call).await?;
        }
        Ok(())
    }

    async fn wait_paid(&self, connection: &mut Connection, packets: &[u32]) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let standings = self.look_up(connection, packets).await?;
            let paid = standings.iter().filter(|standing| standing.status == "SUCCEEDED").count();
            if paid == packets.len() || self.halt.is_set() {
                return Ok(());
            }
            if began.elapsed() > PAID_WAIT_MAX {
                bail!("{paid} of the first {} packets were paid in {PAID_WAIT_MAX:?}", packets.len());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a door knows how every single ended, whoever settled it.
    pub async fn await_told(&self, door: SocketAddr) -> anyhow::Result<()> {
        let packets: Vec<u32> = self.script.singles().collect();
        let mut connection = Connection::new(door, self.halt.clone());
        let began = Instant::now();
        loop {
            let standings = self.look_up(&mut connection, &packets).await?;
            let told = standings.iter().filter(|standing| standing.settled_at.is_some()).count();
            if told == packets.len() || self.halt.is_set() {
                return Ok(());
            }
            if began.elapsed() > PAID_WAIT_MAX {
                let count = packets.len();
                bail!("the door {door} knows how {told} of {count} singles ended after {PAID_WAIT_MAX:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a door knows every campaign.
    pub async fn await_campaigns(&self, door: SocketAddr) -> anyhow::Result<()> {
        let mut connection = Connection::new(door, self.halt.clone());
        let began = Instant::now();
        let script = &self.script;
        for campaign in [script.campaign(), script.claims_campaign(), script.withholding_campaign()] {
            while connection.get(&format!("/v1/campaigns/{campaign}")).await?.answer.status != StatusCode::OK
            {
                if self.halt.is_set() {
                    return Ok(());
                }
                ensure!(
                    began.elapsed() < PAID_WAIT_MAX,
                    "the door {door} does not know campaign {campaign} after {PAID_WAIT_MAX:?}"
                );
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    async fn look_up(&self, connection: &mut Connection, packets: &[u32]) -> anyhow::Result<Vec<Standing>> {
        let mut all = Vec::with_capacity(packets.len());
        for part in packets.chunks(LOOKUP_COUNT) {
            let ids: Vec<String> =
                part.iter().map(|packet| self.script.ids.id(Use::Packet, *packet)).collect();
            let body = serde_json::json!({ "ids": ids }).to_string();
            let answer = connection.post("/v1/disbursements/lookup", body).await?.answer;
            let text = || format!("a lookup: {}", String::from_utf8_lossy(&answer.body));
            ensure!(answer.status == StatusCode::OK, text());
            let found: Found = serde_json::from_slice(&answer.body).with_context(text)?;
            ensure!(
                found.data.len() == part.len(),
                "{} of {} acknowledged ids are known",
                found.data.len(),
                part.len()
            );
            all.extend(found.data);
        }
        Ok(all)
    }

    /// Microseconds from accepted to settled of every single that succeeded.
    pub async fn settle_latency(&self) -> anyhow::Result<Histogram<u64>> {
        let mut connection = Connection::new(self.address, self.halt.clone());
        let packets: Vec<u32> = self.script.singles().collect();
        let standings = self.look_up(&mut connection, &packets).await?;
        let mut latency = latencies();
        for (from, to) in standings.iter().filter_map(Standing::paid) {
            latency.saturating_record(to.saturating_sub(from) * 1_000);
        }
        Ok(latency)
    }

    /// How far off the door's estimates were: of the singles, and of the last packet of each batch.
    pub async fn estimate_errors(&self) -> anyhow::Result<Errors> {
        let mut connection = Connection::new(self.address, self.halt.clone());
        let estimates = self.tally.estimates();
        let packets: Vec<u32> = estimates.iter().map(|(packet, _)| *packet).collect();
        let standings = self.look_up(&mut connection, &packets).await?;
        let mut errors = Errors::default();
        for (standing, (_, told_at)) in standings.iter().zip(estimates) {
            if let Some((accepted_at, settled_at)) = standing.paid() {
                errors.note(accepted_at, told_at, settled_at);
            }
        }
        Ok(errors)
    }
}
