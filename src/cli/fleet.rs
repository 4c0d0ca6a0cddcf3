//! `hongbao fleet`: who owns what in a fleet that shares a Redis, and changing the wallet that it pays from.
//!
//! Reads Redis itself, so that it answers whichever instances run, and none. Exit code 1: something needs a
//! hand (an instance owns nothing for a reason, a unit has no owner, a key could not be read).

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use hongbao::breaker::board::View;
use hongbao::config::Config;
use hongbao::config::redis::RedisConfig;
use hongbao::intake::redis::fleet::{self, InstanceRow, Picture, Site, UnitRow};
use hongbao::outcome::redis::trim;
use hongbao::redis::{Link, Target};
use hongbao::request::rfc3339::Rfc3339;

use super::Done;

const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// A unit's answer is a few hundred numbers.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct FleetArgs {
    #[command(subcommand)]
    command: Option<FleetCommand>,
    /// Print one line of JSON instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum FleetCommand {
    /// The wallet that the fleet pays from.
    Wallet {
        #[command(subcommand)]
        command: WalletCommand,
    },
    /// Keep outcomes no longer for a reader that is gone for good, such as a data folder that was deleted. Without a
    /// name: the readers, and when each was seen last.
    Forget {
        #[arg(value_name = "READER")]
        reader: Option<String>,
    },
}

#[derive(Subcommand)]
enum WalletCommand {
    /// Make another wallet the fleet's. Instances with any other own nothing from then on.
    Set {
        /// What the wallet answers to GET /v1/identity.
        #[arg(value_name = "UUID")]
        identity: uuid::Uuid,
        /// Why; it is kept with the wallet's identity.
        #[arg(long)]
        reason: String,
    },
}

fn link(target: &Target) -> anyhow::Result<Link> {
    let target =
        Target { connect_timeout: CONNECT_WAIT_MAX, response_timeout: ANSWER_WAIT_MAX, ..target.clone() };
    Ok(Link::new(&target)?)
}

/// Acts where the settings say that the fleet is.
fn at<T>(config: &Config, act: impl FnOnce(&mut Site<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let redis = RedisConfig::of(&config.raw)?;
    let mut to_lists = link(&redis.target)?;
    let mut to_board = if redis.board == redis.target { None } else { Some(link(&redis.board)?) };
    act(&mut Site { namespace: &redis.namespace, link: &mut to_lists, board: to_board.as_mut() })
}

pub fn run(args: &FleetArgs, config: &Config) -> anyhow::Result<Done> {
    match &args.command {
        None => {
            let picture = at(config, |site| fleet::read(site).context("the fleet cannot be read"))?;
            let view = super::breaker::view_of(config)?;
            if args.json {
                let mut picture = serde_json::to_value(&picture)?;
                picture["breaker"] = view.as_ref().map_or(serde_json::Value::Null, super::breaker::as_json);
                println!("{picture}");
            } else {
                print!("{}", text(&picture, view.as_ref())?);
            }
            Ok(if troubles(&picture).is_empty() { Done::Well } else { Done::FoundWrong })
        }
        Some(FleetCommand::Forget { reader: None }) => {
            let (readers, now) = at(config, |site| {
                trim::readers(site.link, site.namespace).context("the readers cannot be read")
            })?;
            for (reader, seen_at) in readers {
                let silent_ms = now.saturating_sub(seen_at);
                if args.json {
                    println!("{}", serde_json::json!({"reader": reader, "silent_ms": silent_ms}));
                } else {
                    println!("{reader}  seen {} ago", span(silent_ms));
                }
            }
            Ok(Done::Well)
        }
        Some(FleetCommand::Forget { reader: Some(reader) }) => {
            let count = at(config, |site| {
                trim::forget(site.link, site.namespace, reader).context("the reader was not forgotten")
            })?;
            if count == 0 {
                bail!("there is no reader {reader:?}; `hongbao fleet forget` names them");
            }
            println!("{reader} is forgotten: outcomes are kept for it no longer, in {count} units");
            Ok(Done::Well)
        }
        Some(FleetCommand::Wallet { command: WalletCommand::Set { identity, reason } }) => {
            if reason.trim().is_empty() {
                bail!("--reason is empty; say why the fleet pays from another wallet now");
            }
            let operator = std::env::var("USER").unwrap_or_else(|_| "an operator".to_owned());
            let identity = identity.to_string();
            let change = at(config, |site| {
                fleet::set_wallet(site, &identity, &operator, reason).context("the wallet was not changed")
            })?;
            let before = change.before.map_or_else(|| "none".to_owned(), |before| before.identity);
            if args.json {
                println!("{}", serde_json::json!({"before": before, "after": change.after}));
            } else {
                println!("the fleet's wallet is {identity} now; it was {before}");
            }
            Ok(Done::Well)
        }
    }
}

/// What needs somebody's hand, a sentence each.
fn troubles(picture: &Picture) -> Vec<String> {
    let mut troubles = Vec::new();
    for row in picture.instances.iter().filter(|row| is_live(row, picture.now)) {
        if let Some((name, (_, anomaly))) =
            row.entry.as_ref().and_then(|entry| Some((&entry.name, entry.anomaly.as_ref()?)))
        {
            troubles.push(format!("{name} owns nothing: {anomaly}"));
        }
        if let Some(format) = row.format_unknown {
            troubles.push(format!(
                "{} has the format {format}, which this version does not know",
                row.incarnation
            ));
        }
    }
    for unit in &picture.units {
        if let Some(error) = &unit.error {
            troubles.push(format!("{}: {error}", unit.name));
        } else if unit.incarnation.is_none() {
            troubles.push(format!("{} has no owner", unit.name));
        }
    }
    troubles
}

fn is_live(row: &InstanceRow, now: u64) -> bool {
    let ttl_ms = row.entry.as_ref().map_or(u64::MAX, |entry| entry.ttl_ms);
    now.saturating_sub(row.seen_at) <= ttl_ms
}

/// How an instance stands, in a word.
fn state(row: &InstanceRow, now: u64) -> String {
    match &row.entry {
        None => "newer".to_owned(),
        Some(_) if !is_live(row, now) => "silent".to_owned(),
        Some(entry) if entry.is_stopping => "stopping".to_owned(),
        Some(entry) => match &entry.anomaly {
            Some((code, _)) => code.clone(),
            None if entry.member_since > 0 => "owns".to_owned(),
            None if entry.wallet.is_none() => "no wallet yet".to_owned(),
            None => "joining".to_owned(),
        },
    }
}

/// A span in the unit that a person would say it in.
fn span(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        10_000..600_000 => format!("{} s", ms / 1_000),
        600_000..36_000_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

const NONE: &str = "-";

fn text(picture: &Picture, breaker: Option<&View>) -> anyhow::Result<String> {
    let mut text = String::new();
    let Picture { now, namespace, shards, fair_queues, wallet, instances, units } = picture;
    writeln!(text, "{namespace}: {shards} shards of {fair_queues} fair queues a lane")?;
    match wallet {
        Some(wallet) => writeln!(
            text,
            "wallet {} since {}, set by {}: {}",
            wallet.identity,
            Rfc3339(wallet.set_at),
            wallet.set_by,
            wallet.reason
        )?,
        None => writeln!(text, "wallet: none yet")?,
    }
    if let Some(view) = breaker {
        writeln!(text, "{}", super::breaker::headline(&view.state))?;
    }
    let mut rows = vec![
        [
            "INSTANCE",
            "STATE",
            "UP SINCE",
            "SEEN",
            "UNITS",
            "ACCEPTED/S",
            "SETTLED/S",
            "SHARE/S",
            "DEPTH",
            "OLDEST",
            "DOOR",
        ]
        .map(str::to_owned),
    ];
    rows.extend(instances.iter().map(|row| instance_cells(row, *now, breaker)));
    table(&mut text, &rows)?;
    let mut rows = vec![["UNIT", "OWNER", "EPOCH", "DEPTH", "PARKED", "DUE", "DEAD"].map(str::to_owned)];
    rows.extend(units.iter().map(|row| unit_cells(row, *now)));
    table(&mut text, &rows)?;
    let troubles = troubles(picture);
    if !troubles.is_empty() {
        writeln!(text)?;
        troubles.iter().try_for_each(|trouble| writeln!(text, "{trouble}"))?;
    }
    Ok(text)
}

fn instance_cells(row: &InstanceRow, now: u64, breaker: Option<&View>) -> [String; 11] {
    let seen = format!("{} ago", span(now.saturating_sub(row.seen_at)));
    let Some(entry) = &row.entry else {
        let none = || NONE.to_owned();
        let name = row.incarnation.clone();
        return [name, state(row, now), none(), seen, none(), none(), none(), none(), none(), none(), none()];
    };
    [
        entry.name.clone(),
        state(row, now),
        Rfc3339(entry.started_at).to_string(),
        seen,
        entry.units.len().to_string(),
        entry.accepted_per_s.to_string(),
        entry.settled_per_s.to_string(),
        share(&row.incarnation, breaker).map_or_else(|| NONE.to_owned(), |share| share.to_string()),
        entry.depth.to_string(),
        entry.oldest_at.map_or_else(|| NONE.to_owned(), |at| span(now.saturating_sub(at))),
        entry.http.clone().unwrap_or_else(|| NONE.to_owned()),
    ]
}

/// What an instance may send of the fleet's budget, transfers a second.
fn share(incarnation: &str, breaker: Option<&View>) -> Option<u64> {
    let view = breaker?;
    let lease = &view.members.get(incarnation)?.lease;
    (view.now_ms < lease.until_ms).then_some(lease.granted.rate_per_s)
}

fn unit_cells(row: &UnitRow, now: u64) -> [String; 7] {
    let owner = row.owner.as_ref().or(row.incarnation.as_ref());
    let due = |at: u64| match at.checked_sub(now) {
        Some(left) if left > 0 => format!("in {}", span(left)),
        _ => "now".to_owned(),
    };
    [
        row.name.clone(),
        owner.map_or_else(|| NONE.to_owned(), Clone::clone),
        row.epoch.to_string(),
        row.depth.to_string(),
        row.parked.to_string(),
        row.parked_due_at.map_or_else(|| NONE.to_owned(), due),
        row.dead.to_string(),
    ]
}

/// Columns as wide as they must be, after an empty line.
fn table<const N: usize>(text: &mut String, rows: &[[String; N]]) -> anyhow::Result<()> {
    let widths: [usize; N] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    writeln!(text)?;
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hongbao::intake::redis::board::{Entry, WalletRecord};

    #[test]
    fn a_fleet_in_two_tables_and_what_is_wrong_with_it() {
        let entry = Entry {
            name: "one".to_owned(),
            ttl_ms: 3_000,
            member_since: 1,
            units: vec!["hongbao:0".to_owned()],
            depth: 12,
            oldest_at: Some(80_000),
            http: Some("http://10.0.0.1:8080".to_owned()),
            wallet: Some("w".to_owned()),
            ..Entry::default()
        };
        let anomaly = Some(("wallet_differs".to_owned(), "its wallet is another".to_owned()));
        let other = Entry { name: "two".to_owned(), units: Vec::new(), anomaly, ..entry.clone() };
        let row = |entry: &Entry, seen_at| InstanceRow {
            incarnation: format!("i-{}", entry.name),
            seen_at,
            entry: Some(entry.clone()),
            format_unknown: None,
        };
        let unit = |name: &str, owner: Option<&str>| UnitRow {
            name: name.to_owned(),
            owner: owner.map(str::to_owned),
            incarnation: owner.map(|owner| format!("i-{owner}")),
            epoch: 3,
            depth: 7,
            parked_due_at: Some(101_500),
            ..UnitRow::default()
        };
        let mut picture = Picture {
            now: 100_000,
            namespace: "hongbao".to_owned(),
            shards: 2,
            fair_queues: 8,
            wallet: Some(WalletRecord::new("w", 0, "one", "first instance of the fleet")),
            instances: vec![row(&entry, 99_700), row(&other, 99_000)],
            units: vec![unit("hongbao:0", Some("one")), unit("hongbao:1", None)],
        };
        let expected = "\
hongbao: 2 shards of 8 fair queues a lane
wallet w since 1970-01-01T00:00:00.000Z, set by one: first instance of the fleet

INSTANCE  STATE           UP SINCE                  SEEN       UNITS  ACCEPTED/S  SETTLED/S  SHARE/S  DEPTH  OLDEST  DOOR
one       owns            1970-01-01T00:00:00.000Z  0.3 s ago  1      0           0          -        12     20 s    http://10.0.0.1:8080
two       wallet_differs  1970-01-01T00:00:00.000Z  1.0 s ago  0      0           0          -        12     20 s    http://10.0.0.1:8080

UNIT       OWNER  EPOCH  DEPTH  PARKED  DUE       DEAD
hongbao:0  one    3      7      0       in 1.5 s  0
hongbao:1  -      3      7      0       in 1.5 s  0

two owns nothing: its wallet is another
hongbao:1 has no owner
";
        assert_eq!(text(&picture, None).unwrap(), expected);
        picture.instances[1].seen_at = 1;
        picture.units.pop();
        assert!(troubles(&picture).is_empty(), "who is gone needs no hand");
        assert_eq!(state(&picture.instances[1], picture.now), "silent");
    }

    #[test]
    fn spans_are_short() {
        for (ms, expected) in
            [(0, "0.0 s"), (9_990, "9.9 s"), (61_000, "61 s"), (900_000, "15 min"), (90_000_000, "25 h")]
        {
            assert_eq!(span(ms), expected);
        }
    }
}
