//! hongbao's client: sends payouts until the answer is definite, and looks up what became of them.
//!
//! What holds: nothing is sent that is not on disk, and no answer is taken for more than it says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::books::{self, Books, LOOKUP_MAX};

const CURRENCY: &str = "CNY";
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// What hongbao's answer to a batch means.
#[derive(Debug, PartialEq)]
enum Meaning {
    /// For each item that was refused, its place and why; the others are accepted.
    Definite(HashMap<usize, String>),
    /// Nothing is known of any of them.
    Open,
}

fn meaning(status: u16, body: &[u8], count: usize) -> Meaning {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Meaning::Open };
    let entry = |item: &Value| {
        let at = usize::try_from(item["index"].as_u64()?).ok().filter(|at| *at < count)?;
        Some((at, item["code"].as_str()?.to_owned()))
    };
    let Some(items) = body["refused"].as_array() else { return Meaning::Open };
    let Some(refused) = items.iter().map(entry).collect::<Option<HashMap<_, _>>>() else {
        return Meaning::Open;
    };
    match status {
        200 | 202 => Meaning::Definite(refused),
        422 if refused.len() == count => Meaning::Definite(refused),
        _ => Meaning::Open,
    }
}

/// Refusals that pass by themselves: the payout is sent again, under its own id, in another batch.
fn is_passing(code: &str) -> bool {
    matches!(code, "backlog_full" | "not_accepting" | "append_unknown")
}

pub struct Payer {
    hongbao: String,
    campaign: String,
    books: Books,
    client: reqwest::Client,
    claimed: Arc<Notify>,
}

impl Payer {
    /// `claimed` is notified when there is something to pay.
    pub fn new(hongbao: &str, campaign: &str, books: Books, claimed: Arc<Notify>) -> anyhow::Result<Payer> {
        let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).no_proxy().build()?;
        let hongbao = hongbao.trim_end_matches('/').to_owned();
        Ok(Payer { hongbao, campaign: campaign.to_owned(), books, client, claimed })
    }

    /// Calls hongbao; status, seconds to wait if it said so, body.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> anyhow::Result<(u16, Option<u64>, Vec<u8>)> {
        let url = format!("{}/v1/{path}", self.hongbao);
        let call = self.client.request(method, url).header("content-type", "application/json").body(body);
        let answer = call.send().await?;
        let wait = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        Ok((answer.status().as_u16(), wait, answer.bytes().await?.to_vec()))
    }

    /// The golden rule: the same call until `read` finds its answer definite.
    async fn insist<T>(
        &self,
        method: Method,
        path: &str,
        body: &str,
        read: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> T {
        let mut pause = BACKOFF;
        loop {
            let told = self.call(method.clone(), path, body.to_owned()).await;
            let wait = match &told {
                Ok((status, wait, body)) => match read(*status, body) {
                    Some(read) => return read,
                    None => {
                        eprintln!("campaign_backend: {path} was answered {status}: again");
                        wait.map(Duration::from_secs)
                    }
                },
                Err(error) => {
                    eprintln!("campaign_backend: {path} was not answered: {error:#}: again");
                    None
                }
            };
            tokio::time::sleep(wait.unwrap_or(pause)).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    /// Makes the campaign and funds it. The fund's id follows from the campaign, so it is funded once, ever.
    pub async fn open_campaign(&self, budget: i64) {
        let name = &self.campaign;
        let is_done = |status: u16, _: &[u8]| (200..300).contains(&status).then_some(());
        let made = json!({ "budget": budget, "currency": CURRENCY }).to_string();
        self.insist(Method::PUT, &format!("campaigns/{name}"), &made, is_done).await;
        let fund = json!({ "id": format!("fund-{name}"), "amount": budget }).to_string();
        self.insist(Method::POST, &format!("campaigns/{name}/fund"), &fund, is_done).await;
    }

    /// Sends what was claimed, batch by batch.
    pub async fn pay(&self) -> anyhow::Result<()> {
        loop {
            let Some(bundle) = self.books.write(books::next_bundle).await? else {
                self.claimed.notified().await;
                continue;
            };
            let items: Vec<Value> = bundle
                .items
                .iter()
                .map(|(payout, user, amount)| json!({ "id": payout, "payee": user, "amount": amount }))
                .collect();
            let body = json!({
                "id": bundle.batch, "campaign": self.campaign, "currency": CURRENCY,
                "total_count": items.len(), "total_amount": bundle.items.iter().map(|item| item.2).sum::<i64>(),
                "items": items,
            });
            let count = bundle.items.len();
            let definite = |status: u16, body: &[u8]| match meaning(status, body, count) {
                Meaning::Definite(refused) => Some(refused),
                Meaning::Open => None,
            };
            let refused = self.insist(Method::POST, "batches", &body.to_string(), definite).await;
            let has_passing = refused.values().any(|code| is_passing(code));
            self.books.write(move |db| books::record(db, &bundle, &refused, is_passing)).await?;
            if has_passing {
                tokio::time::sleep(BACKOFF_MAX).await;
            }
        }
    }

    /// Looks up what was accepted, over and over, until it is final.
    pub async fn follow(&self) -> anyhow::Result<()> {
        let mut after = 0;
        loop {
            let open = self.books.write(move |db| books::unsettled(db, after)).await?;
            // From the first again, once the last was seen.
            after = open.last().filter(|_| open.len() as i64 == LOOKUP_MAX).map_or(0, |(number, _)| *number);
            if !open.is_empty() {
                let ids: Vec<&String> = open.iter().map(|(_, payout)| payout).collect();
                let body = json!({ "ids": ids }).to_string();
                let read =
                    |status: u16, body: &[u8]| serde_json::from_slice(body).ok().filter(|_| status == 200);
                let found: Value = self.insist(Method::POST, "disbursements/lookup", &body, read).await;
                self.books.write(move |db| books::settle(db, &found)).await?;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_definite_answer_is_one() {
        let all = r#"{"refused":[{"index":0,"code":"payee_limit"},{"index":1,"code":"payee_limit"}]}"#;
        let one = r#"{"refused":[{"index":1,"code":"payee_limit"}]}"#;
        let definite = |indices: &[usize]| {
            Meaning::Definite(indices.iter().map(|index| (*index, "payee_limit".to_owned())).collect())
        };
        let table = [
            (202, r#"{"refused":[]}"#, definite(&[])),
            (200, one, definite(&[1])),
            (422, all, definite(&[0, 1])),
            // Refused as a whole for a reason that has nothing to do with its items.
            (422, r#"{"code":"campaign_paused"}"#, Meaning::Open),
            (422, one, Meaning::Open),
            (202, r#"{"refused":[{"index":2,"code":"payee_limit"}]}"#, Meaning::Open),
            (202, "{", Meaning::Open),
            (202, "{}", Meaning::Open),
            (429, all, Meaning::Open),
            (500, r#"{"refused":[]}"#, Meaning::Open),
        ];
        for (status, body, expected) in table {
            assert_eq!(meaning(status, body.as_bytes(), 2), expected, "{status} {body}");
        }
    }
}
