//! The fleet's board: who is live, which wallet and how many shards the fleet has.
//!
//! | key | what |
//! |---|---|
//! | `N:board:instances` | hash: incarnation to an [`Entry`] as JSON, written anew every heartbeat |
//! | `N:board:wallet` | a [`WalletRecord`] as JSON: set once, changed by an operator only, never expires |
//! | `N:board:shards` | `shards/fair queues`, set once |
//!
//! What holds: times are Redis's own; every command writes one key once; an entry says by itself which format it
//! has, and one of a newer format still counts as live. Pure but for making commands: who sends them is
//! the owner's thread. Absent: leases, shares.

use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::units::{ForeignList, Order, Units};
use crate::redis::{Command, Failure, Script, Value, reply};

/// Format of what this version writes.
pub const FORMAT: u32 = 1;

/// Stamps the entry with Redis's time and answers it, Unix ms.
static HEARTBEAT: Script = Script::new(
    "heartbeat",
    "#!lua flags=allow-oom
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], ARGV[1], '{\"seen_at\":' .. now .. ',' .. string.sub(ARGV[2], 2))
return tonumber(now)",
);

/// One instance, as it says of itself. Times are Unix ms by Redis's clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// Put in by the heartbeat's script.
    #[serde(skip_serializing)]
    pub seen_at: u64,
    pub format: u32,
    pub name: String,
    pub version: String,
    pub pid: u32,
    /// By its own clock.
    pub started_at: u64,
    /// It is live while it was seen within this time.
    pub ttl_ms: u64,
    /// Its first heartbeat; zero in that one itself.
    pub joined_at: u64,
    /// Since when it takes units; zero: it does not.
    pub member_since: u64,
    /// Why it does not, if for a reason that somebody must mend: a code, and a sentence.
    pub anomaly: Option<(String, String)>,
    /// It is about to end.
    pub is_stopping: bool,
    /// Names of the units it holds.
    pub units: Vec<String>,
    /// Names of the foreign lists it is configured with.
    pub lists: Vec<String>,
    /// How each of them is to be read, in words that are the same where it is the same; see [`list_marks`].
    pub list_marks: Vec<String>,
    pub accepted_per_s: u64,
    pub settled_per_s: u64,
    /// Accepted and not settled, of the units it holds.
    pub depth: u64,
    /// When the oldest of them was accepted, where that is known.
    pub oldest_at: Option<u64>,
    /// Identity of its wallet, once the wallet said it.
    pub wallet: Option<String>,
    /// Identity of its outcome view; none: the view is its own.
    pub view: Option<String>,
    /// Where its door is.
    pub http: Option<String>,
}

/// An entry as found: of an unknown format only what every format has can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    pub incarnation: String,
    pub seen_at: u64,
    pub entry: Result<Entry, UnknownFormat>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFormat(pub u32);

#[derive(Deserialize)]
struct AnyFormat {
    seen_at: u64,
    format: u32,
}

impl Peer {
    /// Nothing where it is no entry of any format.
    fn parse(incarnation: &str, json: &[u8]) -> Option<Peer> {
        let AnyFormat { seen_at, format } = serde_json::from_slice(json).ok()?;
        let entry = match format {
            FORMAT => Ok(serde_json::from_slice(json).ok()?),
            other => Err(UnknownFormat(other)),
        };
        Some(Peer { incarnation: incarnation.to_owned(), seen_at, entry })
    }

    /// Whether it takes units. Of an unknown format: believed, for it is left its share then.
    pub fn is_member(&self) -> bool {
        self.entry.as_ref().map_or(true, |entry| entry.member_since > 0)
    }

    /// What a person knows it by.
    pub fn shown(&self) -> String {
        match &self.entry {
            Ok(entry) => format!("{} ({})", entry.name, self.incarnation),
            Err(UnknownFormat(format)) => format!("{} (format {format})", self.incarnation),
        }
    }

    /// Whose outcome view counts first: members by how long, then the others by how long they are there.
    fn seniority(&self) -> (bool, u64, &str) {
        let (member_since, joined_at) =
            self.entry.as_ref().map_or((0, 0), |entry| (entry.member_since, entry.joined_at));
        match member_since {
            0 => (true, if joined_at == 0 { self.seen_at } else { joined_at }, &self.incarnation),
            since => (false, since, &self.incarnation),
        }
    }
}

/// The hash as read: peers in the order of their incarnations, and fields that are none.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    pub live: Vec<Peer>,
    /// Not seen for so long that they may be removed.
    pub dead: Vec<String>,
    pub unreadable: Vec<String>,
}

/// Heartbeats that may be missing before an entry is removed, in lives of a lease.
const DEAD_TTLS: u64 = 10;

/// `HGETALL` of the instances; `now` and `ttl_ms` in ms.
pub fn peers(value: Value, now: u64, ttl_ms: u64) -> Result<Peers, Failure> {
    let mut peers = Peers::default();
    for (incarnation, json) in pairs(value)? {
        match Peer::parse(&incarnation, &json) {
            Some(peer) if now.saturating_sub(peer.seen_at) <= ttl_ms => peers.live.push(peer),
            Some(peer) if now - peer.seen_at > DEAD_TTLS * ttl_ms => peers.dead.push(incarnation),
            Some(_) => {}
            None => peers.unreadable.push(incarnation),
        }
    }
    peers.live.sort_by(|a, b| a.incarnation.cmp(&b.incarnation));
    Ok(peers)
}

/// Every entry, the live and the others, by incarnation.
pub fn all_peers(value: Value) -> Result<Vec<Peer>, Failure> {
    let mut peers: Vec<Peer> =
        pairs(value)?.iter().filter_map(|(incarnation, json)| Peer::parse(incarnation, json)).collect();
    peers.sort_by(|a, b| a.incarnation.cmp(&b.incarnation));
    Ok(peers)
}

fn pairs(value: Value) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let strange = || Failure::Strange { command: "HGETALL".to_owned(), expected: "fields and values" };
    let flat = match value {
        Value::Map(pairs) => pairs.into_iter().flat_map(|(field, value)| [field, value]).collect(),
        other => reply::array("HGETALL", other)?,
    };
    let mut flat = flat.into_iter();
    let mut pairs = Vec::with_capacity(flat.len() / 2);
    while let Some(field) = flat.next() {
        let field = reply::text("HGETALL", field)?.ok_or_else(strange)?;
        let value = reply::bytes("HGETALL", flat.next().unwrap_or(Value::Nil))?.ok_or_else(strange)?;
        pairs.push((field, value));
    }
    Ok(pairs)
}

/// Who keeps `own` from taking part on account of outcome views, if anybody does.
///
/// Everybody sees the same board and goes through it in the same order: who is compatible with all taken before it is
/// taken. So of two that cannot go together exactly one goes on, and it is the one that was there first.
pub fn view_conflict<'a>(live: &'a [Peer], own: &str) -> Option<&'a Peer> {
    let mut in_order: Vec<&Peer> = live.iter().collect();
    in_order.sort_by_key(|peer| peer.seniority());
    let mut taken: Vec<&Peer> = Vec::new();
    for peer in in_order {
        let Ok(entry) = &peer.entry else { continue };
        let is_barred = entry.anomaly.as_ref().is_some_and(|(code, _)| !code.starts_with("view_"));
        if peer.incarnation != own && (is_barred || entry.is_stopping) {
            continue;
        }
        let goes_with = |other: &&Peer| match &other.entry {
            Ok(other) => entry.view.is_some() && other.view == entry.view,
            Err(_) => true,
        };
        let against = taken.iter().find(|other| !goes_with(other)).copied();
        match against {
            Some(against) if peer.incarnation == own => return Some(against),
            Some(_) => {}
            None => taken.push(peer),
        }
    }
    None
}

/// How each foreign list is to be read: whose it is, from which end, by which key (told by a hash of it).
pub fn list_marks(units: &Units) -> Vec<String> {
    let mark = |list: &ForeignList| {
        let order = match list.order {
            Order::Rpush => "rpush",
            Order::Lpush => "lpush",
        };
        let key = list.hmac_key.as_deref().map_or_else(
            || "none".to_owned(),
            |key| hex::encode(&blake3::derive_key("hongbao board: mark of a list's key", key)[..4]),
        );
        format!("client {}, order {order}, hmac_key {key}", list.client)
    };
    units.foreign.iter().map(mark).collect()
}

/// A list that two instances would read in two ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListConflict {
    pub list: String,
    pub ours: String,
    pub theirs: String,
    /// Who was there first.
    pub other: String,
}

/// Which list keeps `own` from taking part, if any does: in the same way as [`view_conflict`].
pub fn list_conflict(live: &[Peer], own: &str) -> Option<ListConflict> {
    let mut in_order: Vec<&Peer> = live.iter().collect();
    in_order.sort_by_key(|peer| peer.seniority());
    let mut taken: Vec<(&Peer, &Entry)> = Vec::new();
    for peer in in_order {
        let Ok(entry) = &peer.entry else { continue };
        let is_barred = entry.anomaly.as_ref().is_some_and(|(code, _)| code != "lists_differ");
        if peer.incarnation != own && (is_barred || entry.is_stopping) {
            continue;
        }
        let against = taken.iter().find_map(|(other, theirs)| Some((*other, differing(entry, theirs)?)));
        match against {
            Some((other, (list, ours, theirs))) if peer.incarnation == own => {
                let (list, ours, theirs) = (list.to_owned(), ours.to_owned(), theirs.to_owned());
                return Some(ListConflict { list, ours, theirs, other: other.shown() });
            }
            Some(_) => {}
            None => taken.push((peer, entry)),
        }
    }
    None
}

/// A list that both have and read differently, with how each reads it.
fn differing<'e>(ours: &'e Entry, theirs: &'e Entry) -> Option<(&'e str, &'e str, &'e str)> {
    let marks = |entry: &'e Entry| entry.lists.iter().zip(&entry.list_marks);
    marks(ours).find_map(|(list, mark)| {
        let (_, other) = marks(theirs).find(|(name, other)| *name == list && *other != mark)?;
        Some((list.as_str(), mark.as_str(), other.as_str()))
    })
}

/// The wallet that the fleet pays from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletRecord {
    pub format: u32,
    /// A UUID that was made with the wallet's data.
    pub identity: String,
    /// Unix ms.
    pub set_at: u64,
    /// The instance that was there first, or an operator.
    pub set_by: String,
    pub reason: String,
}

impl WalletRecord {
    pub fn new(identity: &str, set_at: u64, set_by: &str, reason: &str) -> WalletRecord {
        WalletRecord {
            format: FORMAT,
            identity: identity.to_owned(),
            set_at,
            set_by: set_by.to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("plain fields")
    }
}

/// `shards/fair queues`, as stored.
pub fn shards_text(units: &Units) -> String {
    format!("{}/{}", units.shard_count, units.fair_queue_count)
}

/// The reverse of [`shards_text`].
pub fn parse_shards(text: &str) -> Option<(u16, u8)> {
    let (shards, fair_queues) = text.split_once('/')?;
    Some((shards.parse().ok()?, fair_queues.parse().ok()?))
}

pub fn heartbeat(keys: &Keys, incarnation: &str, entry: &Entry) -> Command {
    let key = keys.board("instances");
    let json = serde_json::to_string(entry).expect("plain fields");
    Command::script(&HEARTBEAT, &[key.as_bytes()]).arg(incarnation).arg(json)
}

pub fn read_instances(keys: &Keys) -> Command {
    Command::new("HGETALL", keys.board("instances"))
}

/// Removes entries, all in one command.
pub fn remove(keys: &Keys, incarnations: &[String]) -> Command {
    Command::new("HDEL", keys.board("instances")).arg(incarnations)
}

pub fn read_wallet(keys: &Keys) -> Command {
    Command::new("GET", keys.board("wallet"))
}

/// Sets the fleet's wallet if none is set.
pub fn claim_wallet(keys: &Keys, record: &WalletRecord) -> Command {
    Command::new("SET", keys.board("wallet")).arg(record.json()).arg("NX")
}

/// Sets it whatever is set: an operator's decision.
pub fn set_wallet(keys: &Keys, record: &WalletRecord) -> Command {
    Command::new("SET", keys.board("wallet")).arg(record.json())
}

pub fn read_shards(keys: &Keys) -> Command {
    Command::new("GET", keys.board("shards"))
}

pub fn claim_shards(keys: &Keys) -> Command {
    Command::new("SET", keys.board("shards")).arg(shards_text(keys.units())).arg("NX")
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
