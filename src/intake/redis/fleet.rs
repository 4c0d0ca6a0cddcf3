//! A picture of the whole fleet, read from Redis alone: for operators, whichever instances run.
//!
//! Reads and changes nothing, but for [`set_wallet`]. What holds: a few rounds of commands, whose number rests on shards and
//! queues and never on depth. Depths are in elements: one of ours is a frame of many requests.

use serde::Serialize;

use super::anomaly::Anomaly;
use super::board::{self, Entry, UnknownFormat, WalletRecord};
use super::keys::Keys;
use super::lease::{Lease, redis_ms};
use super::membership::read_wallet;
use super::units::{ForeignList, Order, UnitId, Units};
use crate::redis::{Command, Failure, Link, Value, reply};

/// Where the fleet is.
pub struct Site<'a> {
    pub namespace: &'a str,
    /// Redis of the intake, and of the board where it is another one.
    pub link: &'a mut Link,
    pub board: Option<&'a mut Link>,
}

#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error(transparent)]
    Redis(#[from] Failure),
    #[error("the key {key} is not there: no fleet has run in the namespace {namespace} of this Redis")]
    NoFleet { key: String, namespace: String },
    #[error(transparent)]
    Board(Anomaly),
}

#[derive(Debug, Serialize)]
pub struct Picture {
    /// Unix ms by Redis's clock, as all times here.
    pub now: u64,
    pub namespace: String,
    pub shards: u16,
    pub fair_queues: u8,
    pub wallet: Option<WalletRecord>,
    pub instances: Vec<InstanceRow>,
    pub units: Vec<UnitRow>,
}

#[derive(Debug, Serialize)]
pub struct InstanceRow {
    pub incarnation: String,
    pub seen_at: u64,
    /// None: of a format that this version does not know.
    #[serde(flatten)]
    pub entry: Option<Entry>,
    pub format_unknown: Option<u32>,
}

#[derive(Debug, Default, Serialize)]
pub struct UnitRow {
    pub name: String,
    /// Who holds its lease, by name where the board knows it; none: nobody.
    pub owner: Option<String>,
    pub incarnation: Option<String>,
    pub epoch: u64,
    /// Elements in its lists, sealed ones included.
    pub depth: u64,
    pub parked: u64,
    /// When the first of the parked is due.
    pub parked_due_at: Option<u64>,
    pub dead: u64,
    /// What Redis said instead, where something of it could not be read.
    pub error: Option<String>,
}

pub fn read(site: &mut Site<'_>) -> Result<Picture, FleetError> {
    let nothing = Units { shard_count: 1, fair_queue_count: 1, foreign: Vec::new() };
    let keys = Keys::new(site.namespace, nothing);
    let board = site.board.as_deref_mut().unwrap_or(site.link);
    let commands = [
        Command::routed("TIME", keys.board("instances")),
        board::read_shards(&keys),
        board::read_wallet(&keys),
        board::read_instances(&keys),
    ];
    let mut answers = board.round(&commands).into_iter();
    let mut next = || answers.next().expect("one result a command");
    let now = redis_ms(next()?)?;
    let stored = reply::text("GET", next()?)?;
    let wallet = reply::text("GET", next()?)?;
    let peers = board::all_peers(next()?)?;
    let Some(stored) = stored else {
        let (key, namespace) = (keys.board("shards"), site.namespace.to_owned());
        return Err(FleetError::NoFleet { key, namespace });
    };
    let Some((shards, fair_queues)) = board::parse_shards(&stored) else {
        return Err(FleetError::Board(Anomaly::Unreadable { key: keys.board("shards"), found: stored }));
    };
    let wallet = wallet.map(|json| read_wallet(&json, &keys.board("wallet"))).transpose();
    let instances: Vec<InstanceRow> = peers.into_iter().map(row).collect();
    let foreign = lists(&instances);
    let keys =
        Keys::new(site.namespace, Units { shard_count: shards, fair_queue_count: fair_queues, foreign });
    let units = keys.units().ids().map(|unit| read_unit(site.link, &keys, unit, now, &instances));
    let units = units.collect::<Result<_, _>>()?;
    Ok(Picture {
        now,
        namespace: site.namespace.to_owned(),
        shards,
        fair_queues,
        wallet: wallet.map_err(FleetError::Board)?,
        instances,
        units,
    })
}

fn row(peer: board::Peer) -> InstanceRow {
    let board::Peer { incarnation, seen_at, entry } = peer;
    let (entry, format_unknown) = match entry {
        Ok(entry) => (Some(entry), None),
        Err(UnknownFormat(format)) => (None, Some(format)),
    };
    InstanceRow { incarnation, seen_at, entry, format_unknown }
}

/// Foreign lists that any instance reads.
fn lists(instances: &[InstanceRow]) -> Vec<ForeignList> {
    let mut names: Vec<&String> =
        instances.iter().filter_map(|row| row.entry.as_ref()).flat_map(|entry| &entry.lists).collect();
    names.sort_unstable();
    names.dedup();
    let list = |name: &&String| ForeignList {
        name: (*name).clone(),
        client: String::new(),
        order: Order::default(),
        hmac_key: None,
    };
    names.iter().map(list).collect()
}

/// One round a unit: a unit's keys are in one slot, and a round of all units could be large.
fn read_unit(
    link: &mut Link,
    keys: &Keys,
    unit: UnitId,
    now: u64,
    instances: &[InstanceRow],
) -> Result<UnitRow, Failure> {
    let parked = keys.parked(unit);
    let mut commands = vec![
        Command::new("GET", keys.owner(unit)),
        Command::new("ZCARD", &parked),
        Command::new("ZRANGE", &parked).arg(0).arg(0).arg("WITHSCORES"),
        Command::new("LLEN", keys.dead(unit)),
    ];
    for queue in keys.queues(unit) {
        let [a, b] = keys.sealed(unit, queue);
        commands.extend([keys.list(unit, queue), a, b].map(|list| Command::new("LLEN", list)));
    }
    let mut row = UnitRow { name: keys.unit_name(unit), ..UnitRow::default() };
    let mut answers = link.round(&commands).into_iter();
    // A key of another type spoils its own figure only.
    let mut next = || match answers.next().expect("one result a command") {
        Err(Failure::Refused { command, code, detail }) if code == "WRONGTYPE" => {
            row.error = Some(format!("{command}: {code} {detail}"));
            Ok(Value::Nil)
        }
        answer => answer,
    };
    let count = |value: Value| match value {
        Value::Nil => Ok(0),
        value => reply::int("LLEN", value).map(|count| count as u64),
    };
    let lease = reply::text("GET", next()?)?;
    let parked = count(next()?)?;
    let first = reply::array("ZRANGE", next()?)?;
    let dead = count(next()?)?;
    let mut depth = 0;
    for _ in 4..commands.len() {
        depth += count(next()?)?;
    }
    (row.parked, row.dead, row.depth) = (parked, dead, depth);
    row.parked_due_at = first.into_iter().nth(1).and_then(due);
    match lease.as_deref().map(Lease::parse) {
        None => {}
        Some(None) => row.error = Some(format!("{} holds no lease", keys.owner(unit))),
        Some(Some(lease)) => {
            row.epoch = lease.epoch;
            if lease.deadline_ms > now {
                let known = instances.iter().find(|row| row.incarnation == lease.incarnation);
                row.owner = known.and_then(|row| row.entry.as_ref()).map(|entry| entry.name.clone());
                row.incarnation = Some(lease.incarnation);
            }
        }
    }
    Ok(row)
}

/// A score; what is released is due since ever.
fn due(score: Value) -> Option<u64> {
    match score {
        Value::Double(score) => Some(score as u64),
        other => reply::text("ZRANGE", other).ok()??.parse::<f64>().ok().map(|score| score as u64),
    }
}

/// What changing the wallet came to.
#[derive(Debug, Serialize)]
pub struct WalletChange {
    pub before: Option<WalletRecord>,
    pub after: WalletRecord,
}

/// Makes another wallet the fleet's: an operator's decision, with their reason.
pub fn set_wallet(
    site: &mut Site<'_>,
    identity: &str,
    operator: &str,
    reason: &str,
) -> Result<WalletChange, FleetError> {
    let nothing = Units { shard_count: 1, fair_queue_count: 1, foreign: Vec::new() };
    let keys = Keys::new(site.namespace, nothing);
    let board = site.board.as_deref_mut().unwrap_or(site.link);
    let mut answers =
        board.round(&[Command::routed("TIME", keys.board("wallet")), board::read_wallet(&keys)]).into_iter();
    let mut next = || answers.next().expect("one result a command");
    let now = redis_ms(next()?)?;
    let before = reply::text("GET", next()?)?;
    let before = before.map(|json| read_wallet(&json, &keys.board("wallet"))).transpose();
    let before = before.map_err(FleetError::Board)?;
    let after = WalletRecord::new(identity, now, operator, reason);
    board.call(board::set_wallet(&keys, &after))?;
    Ok(WalletChange { before, after })
}
