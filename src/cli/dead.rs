//! `hongbao dead`: elements that could not be read, in Redis. It needs no running service.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use hongbao::config::Config;
use hongbao::config::redis::RedisConfig;
use hongbao::intake::redis::Keys;
use hongbao::intake::redis::dead::Entry;
use hongbao::intake::redis::letters::{Letter, LetterFilter, Letters};
use hongbao::redis::{Link, Target};
use serde_json::json;

use super::Done;

/// Letters that one command acts on.
const ACT_COUNT_MAX: usize = 100_000;
/// Characters of an element in the table.
const SHOWN_CHARS: usize = 60;

#[derive(Args)]
pub struct Filter {
    /// Only of this list, or of a shard such as hongbao:3.
    #[arg(long, value_name = "NAME")]
    list: Option<String>,
    /// Only what died of this: malformed_json, invalid_field, bad_signature, damaged, …
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct Which {
    /// This letter, as `dead list` names it; may be given often.
    #[arg(value_name = "ID", conflicts_with = "all")]
    ids: Vec<String>,
    /// All that the filters let through.
    #[arg(long)]
    all: bool,
}

#[derive(Subcommand)]
pub enum DeadCommand {
    /// Show dead elements, the oldest of each list first, and how many there are.
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many at most.
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
        /// Print a line of JSON for each instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Print one of them whole, as it is stored.
    Show { id: String },
    /// Push elements again, where they came from, and remove their letters.
    Requeue {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        filter: Filter,
        /// How many at most.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Remove letters for good. What was in them is never paid.
    Purge {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        filter: Filter,
        /// How many at most.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Yes, for good.
        #[arg(long)]
        yes: bool,
    },
}

/// The intake's Redis, as the settings have it; answers may be long.
fn open(config: &Config) -> anyhow::Result<(Link, Keys)> {
    let redis = RedisConfig::of(&config.raw)?;
    let target = Target {
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(30),
        ..redis.target
    };
    Ok((Link::new(&target)?, Keys::new(&redis.namespace, redis.units)))
}

impl Filter {
    fn of(&self, ids: &[String]) -> LetterFilter {
        LetterFilter { unit: self.list.clone(), reason: self.reason.clone(), ids: ids.to_vec() }
    }
}

pub fn run(command: &DeadCommand, config: &Config) -> anyhow::Result<Done> {
    let (mut link, keys) = open(config)?;
    let mut letters = Letters::new(&mut link, &keys);
    match command {
        DeadCommand::List { filter, limit, json, .. } => {
            let filter = filter.of(&[]);
            let found = letters.find(&filter, *limit)?;
            if *json {
                found.iter().for_each(|letter| println!("{}", as_json(letter, &keys)));
            } else {
                print!("{}", table(&found, &letters.counts(&filter)?, &keys)?);
            }
            Ok(Done::Well)
        }
        DeadCommand::Show { id, .. } => {
            let filter = LetterFilter { ids: vec![id.clone()], ..LetterFilter::default() };
            let found = letters.find(&filter, 1)?;
            let letter = found.first().with_context(|| format!("there is no dead letter {id}"))?;
            println!("{}", serde_json::to_string_pretty(&as_json(letter, &keys))?);
            Ok(Done::Well)
        }
        DeadCommand::Requeue { which, filter, limit, .. } => {
            let found = chosen(&mut letters, which, filter, *limit)?;
            Ok(requeue(&mut letters, &found))
        }
        DeadCommand::Purge { which, filter, limit, yes, .. } => {
            let found = chosen(&mut letters, which, filter, *limit)?;
            if !yes {
                bail!("{} dead letters would be removed for good; say so with --yes", found.len());
            }
            println!("removed {}", letters.remove(&found)?);
            Ok(Done::Well)
        }
    }
}

fn chosen(
    letters: &mut Letters<'_>,
    which: &Which,
    filter: &Filter,
    limit: Option<usize>,
) -> anyhow::Result<Vec<Letter>> {
    let found = letters.find(&filter.of(&which.ids), limit.unwrap_or(ACT_COUNT_MAX))?;
    if let Some(missing) = which.ids.iter().find(|id| found.iter().all(|letter| letter.id != **id)) {
        bail!("there is no dead letter {missing} that the filters let through");
    }
    Ok(found)
}

/// Goes on behind what cannot be pushed again, and says so.
fn requeue(letters: &mut Letters<'_>, found: &[Letter]) -> Done {
    let mut pushed = 0;
    for letter in found {
        match letters.requeue(letter) {
            Ok(_) => pushed += 1,
            Err(error) => eprintln!("{error}"),
        }
    }
    println!("pushed {pushed} again");
    if pushed == found.len() { Done::Well } else { Done::FoundWrong }
}

fn as_json(letter: &Letter, keys: &Keys) -> serde_json::Value {
    match &letter.entry {
        Ok(entry) => {
            let mut value = json!(entry);
            value["id"] = json!(letter.id);
            value
        }
        Err(fault) => {
            json!({ "id": letter.id, "unit": keys.unit_name(letter.unit), "fault": fault.to_string() })
        }
    }
}

/// Rows in columns as wide as they must be, and the counts by list.
fn table(found: &[Letter], counts: &[(String, u64)], keys: &Keys) -> anyhow::Result<String> {
    let mut rows = vec![["ID", "LIST", "AT", "REASON", "DETAIL", "ELEMENT"].map(str::to_owned)];
    for letter in found {
        let list = keys.unit_name(letter.unit);
        rows.push(match &letter.entry {
            Ok(entry) => {
                let cells = [&*entry.at, &*entry.reason, &*entry.detail].map(short);
                let [at, reason, detail] = cells;
                [letter.id.clone(), list, at, reason, detail, shown(entry)]
            }
            Err(fault) => [
                letter.id.clone(),
                list,
                "-".to_owned(),
                "-".to_owned(),
                short(&fault.to_string()),
                "-".to_owned(),
            ],
        });
    }
    let mut text = String::new();
    if !found.is_empty() {
        let widths: [usize; 6] =
            std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
        for row in &rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        writeln!(text)?;
    }
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    let counts: Vec<String> = counts.iter().map(|(list, count)| format!("{list} {count}")).collect();
    match total {
        0 => writeln!(text, "there are no dead letters")?,
        total => writeln!(text, "{total} dead: {}", counts.join(", "))?,
    }
    Ok(text)
}

fn shown(entry: &Entry<'_>) -> String {
    match &entry.element {
        Some(element) => short(element),
        None => format!("<{} bytes>", entry.element_bytes),
    }
}

/// One line of what others wrote: nothing in it may steer a terminal.
fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown.replace("\\\"", "\"").replace("\\'", "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_on_its_line() {
        let long = "x".repeat(61);
        let table = [
            (r#"{"id":"红包"}"#, r#"{"id":"红包"}"#),
            ("a\nb\u{1b}[2Jc", "a\\nb\\u{1b}[2Jc"),
            (long.as_str(), &format!("{}…", &long[..60])),
        ];
        for (text, expected) in table {
            assert_eq!(short(text), expected);
        }
    }
}
