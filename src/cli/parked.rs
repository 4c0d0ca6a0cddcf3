//! `hongbao parked`: what waits in the parking of a running service, and letting it go on.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Context;
use clap::{Args, Subcommand};
use hongbao::config::Config;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Done;
use super::call::{Door, query};

/// What one page of the list holds at the most.
const PAGE_COUNT_MAX: u64 = 1_000;

#[derive(Args)]
pub struct Reach {
    /// Where the service is; gateway.listen of the settings if not given.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The client's key, if the service has clients.
    #[arg(long, env = "HONGBAO_KEY", hide_env_values = true, value_name = "KEY")]
    key: Option<String>,
}

#[derive(Subcommand)]
pub enum ParkedCommand {
    /// Show what waits, the oldest first, and how many wait for which reason.
    List {
        /// Only what waits for this: not_due, low_balance, campaign_paused, wallet_overloaded, no_answer.
        #[arg(long)]
        reason: Option<String>,
        #[arg(long)]
        campaign: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// Print one line of JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Make what waits due now. What still may not be paid is parked again.
    Release {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct What {
    /// This request; may be given often.
    #[arg(long = "id", value_name = "ID", conflicts_with = "all")]
    ids: Vec<String>,
    /// What waits for this reason.
    #[arg(long, conflicts_with = "all")]
    reason: Option<String>,
    /// What waits in this campaign.
    #[arg(long, conflicts_with = "all")]
    campaign: Option<String>,
    /// Everything that waits.
    #[arg(long)]
    all: bool,
}

#[derive(Serialize, Deserialize)]
struct Page {
    data: Vec<Value>,
    counts: BTreeMap<String, u64>,
    #[serde(skip_serializing)]
    next_cursor: Option<String>,
    has_more: bool,
}

#[derive(Deserialize)]
struct Released {
    released: u64,
}

impl Reach {
    fn door(&self, config: &Config) -> anyhow::Result<Door> {
        Door::new(self.url.as_deref(), config.listen, self.key.as_deref())
    }
}

pub fn run(command: &ParkedCommand, config: &Config) -> anyhow::Result<Done> {
    match command {
        ParkedCommand::List { reason, campaign, limit, json, reach } => {
            let page = read(&reach.door(config)?, reason.as_deref(), campaign.as_deref(), *limit)?;
            if *json {
                println!("{}", serde_json::to_string(&page)?);
            } else {
                print!("{}", table(&page)?);
            }
        }
        ParkedCommand::Release { what, reach } => {
            println!("released {}", release(&reach.door(config)?, what)?);
        }
    }
    Ok(Done::Well)
}

fn read(door: &Door, reason: Option<&str>, campaign: Option<&str>, limit: u64) -> anyhow::Result<Page> {
    let mut all: Option<Page> = None;
    loop {
        let had = all.as_ref().map_or(0, |page| page.data.len() as u64);
        let wanted = (limit - had).min(PAGE_COUNT_MAX).to_string();
        let cursor = all.as_ref().and_then(|page| page.next_cursor.clone());
        let filters = [
            ("reason", reason),
            ("campaign", campaign),
            ("limit", Some(wanted.as_str())),
            ("cursor", cursor.as_deref()),
        ];
        let next: Page = door.get(&format!("/v1/parked{}", query(&filters)))?;
        let page = match all.take() {
            None => next,
            Some(mut page) => {
                page.data.extend(next.data);
                Page { data: page.data, ..next }
            }
        };
        if page.next_cursor.is_none() || page.data.len() as u64 >= limit {
            return Ok(page);
        }
        all = Some(page);
    }
}

fn release(door: &Door, what: &What) -> anyhow::Result<u64> {
    let mut asked = Vec::new();
    if what.all {
        // By reason, for the service releases nothing that was not named.
        asked.extend(hongbao::domain::WaitReason::PARKED.map(|reason| json!({ "reason": reason.as_str() })));
    } else {
        let mut filter = json!({});
        for (name, value) in [("reason", &what.reason), ("campaign", &what.campaign)] {
            if let Some(value) = value {
                filter[name] = json!(value);
            }
        }
        let mut chunks = what.ids.chunks(1_000).peekable();
        if chunks.peek().is_none() {
            asked.push(filter.clone());
        }
        asked.extend(chunks.map(|ids| {
            let mut filter = filter.clone();
            filter["ids"] = json!(ids);
            filter
        }));
    }
    let mut released = 0;
    for body in asked {
        released += door.post::<Released>("/v1/parked/release", &body)?.released;
    }
    Ok(released)
}

/// Rows in columns as wide as they must be, and the counts by reason.
fn table(page: &Page) -> anyhow::Result<String> {
    const COLUMNS: [(&str, &str); 6] = [
        ("ID", "id"),
        ("CAMPAIGN", "campaign"),
        ("REASON", "reason"),
        ("SINCE", "waiting_since"),
        ("NEXT ATTEMPT", "next_attempt_at"),
        ("ATTEMPTS", "attempts"),
    ];
    let mut rows = vec![COLUMNS.map(|(title, _)| title.to_owned())];
    for row in &page.data {
        let row = row.as_object().context("the service answered something else than requests")?;
        rows.push(COLUMNS.map(|(_, name)| match row.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => "-".to_owned(),
        }));
    }
    let widths: [usize; COLUMNS.len()] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    if !page.data.is_empty() {
        for row in &rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        writeln!(text)?;
    }
    let total: u64 = page.counts.values().sum();
    let counts = page.counts.iter().map(|(reason, count)| format!("{reason} {count}"));
    if total > 0 {
        writeln!(text, "{total} wait: {}", counts.collect::<Vec<_>>().join(", "))?;
    } else if page.data.is_empty() {
        writeln!(text, "nothing waits")?;
    }
    if page.has_more {
        writeln!(text, "the oldest {} are shown; --limit shows more", page.data.len())?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_it_must_be() {
        let row = |id: &str, attempts: u64| {
            json!({"id": id, "campaign": "c", "reason": "low_balance", "attempts": attempts,
                "waiting_since": "2026-01-01T00:00:00.000Z"})
        };
        let counts = BTreeMap::from([("low_balance".to_owned(), 9), ("not_due".to_owned(), 2)]);
        let data = vec![row("r-1", 1), row("a-longer-one", 12)];
        let mut page = Page { data, counts, next_cursor: None, has_more: true };
        let expected = "\
ID            CAMPAIGN  REASON       SINCE                     NEXT ATTEMPT  ATTEMPTS
r-1           c         low_balance  2026-01-01T00:00:00.000Z  -             1
a-longer-one  c         low_balance  2026-01-01T00:00:00.000Z  -             12

11 wait: low_balance 9, not_due 2
the oldest 2 are shown; --limit shows more
";
        assert_eq!(table(&page).unwrap(), expected);
        (page.data, page.counts, page.has_more) = (Vec::new(), BTreeMap::new(), false);
        assert_eq!(table(&page).unwrap(), "nothing waits\n");
    }
}
