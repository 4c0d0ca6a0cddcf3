//! The names of all keys, in one place.
//!
//! Keys of one unit share a hash tag, so that a Cluster keeps them in one slot. `N` is the namespace (`hongbao`), `K`
//! a shard, `L` a foreign list.
//!
//! | key | type | what |
//! |---|---|---|
//! | `{N:K}:<lane>.<fair>` | list | requests of a lane and fair queue; `:a`, `:b` behind it: its sealed generations |
//! | `{N:K}:owner` | string | `epoch|incarnation|deadline` |
//! | `{N:K}:outcomes` | stream | frames of outcomes with their requests |
//! | `{N:K}:parked` | sorted set | what waits, by due time (Unix ms) |
//! | `{N:K}:dead` | list | elements that could not be read |
//! | `{N:K}:ids:<bucket>` | hash | `client:id` to what was registered |
//! | `L`, `{L}:a`, `{L}:b`, `{L}:owner`, `{L}:outcomes`, `{L}:parked`, `{L}:dead` | | the same for a foreign list |
//! | `N:campaigns` | stream | definitions and funding, in the order in which they were decided |
//! | `N:results:<client>` | stream | final states for producers that speak Redis only |
//! | `N:board:…` | | the fleet: instances, wallet, number of shards, crash suspects |

use crate::domain::Lane;
use crate::intake::QueueId;

use super::units::{Unit, UnitId, Units};

/// Buckets of identities in one shard.
pub const ID_BUCKETS: u64 = 4;

#[derive(Clone, Debug)]
pub struct Keys {
    namespace: String,
    units: Units,
}

impl Keys {
    pub fn new(namespace: &str, units: Units) -> Keys {
        Keys { namespace: namespace.to_owned(), units }
    }

    pub fn units(&self) -> &Units {
        &self.units
    }

    /// What is stored as the name of a unit.
    pub fn unit_name(&self, id: UnitId) -> String {
        match self.units.get(id) {
            Unit::Shard(number) => format!("{}:{number}", self.namespace),
            Unit::Foreign(list) => list.name.clone(),
        }
    }

    /// A key beside a unit's lists: `owner`, `outcomes`, `parked`, `dead`, `a`, `b`.
    fn beside(&self, id: UnitId, what: &str) -> String {
        match self.units.get(id) {
            Unit::Shard(number) => format!("{{{}:{number}}}:{what}", self.namespace),
            Unit::Foreign(list) => beside_foreign(&list.name, what),
        }
    }

    pub fn owner(&self, id: UnitId) -> String {
        self.beside(id, "owner")
    }

    pub fn outcomes(&self, id: UnitId) -> String {
        self.beside(id, "outcomes")
    }

    pub fn parked(&self, id: UnitId) -> String {
        self.beside(id, "parked")
    }

    pub fn dead(&self, id: UnitId) -> String {
        self.beside(id, "dead")
    }

    /// The list of a shard's queue, or the foreign list (which has one, whatever the queue).
    pub fn list(&self, id: UnitId, queue: QueueId) -> String {
        match self.units.get(id) {
            Unit::Shard(_) => self.beside(id, &format!("{}.{}", queue.lane.as_str(), queue.fair)),
            Unit::Foreign(list) => list.name.clone(),
        }
    }

    /// The sealed generations of a list.
    pub fn sealed(&self, id: UnitId, queue: QueueId) -> [String; 2] {
        match self.units.get(id) {
            Unit::Shard(_) => {
                let list = self.list(id, queue);
                [format!("{list}:a"), format!("{list}:b")]
            }
            Unit::Foreign(_) => [self.beside(id, "a"), self.beside(id, "b")],
        }
    }

    /// The queues of a unit that are lists of their own.
    pub fn queues(&self, id: UnitId) -> Vec<QueueId> {
        match self.units.get(id) {
            Unit::Shard(_) => {
                let fair = self.units.fair_queue_count;
                let of_lane = |lane| (0..fair).map(move |fair| QueueId { lane, fair });
                Lane::ALL.into_iter().flat_map(of_lane).collect()
            }
            Unit::Foreign(_) => vec![QueueId { lane: Lane::Realtime, fair: 0 }],
        }
    }

    /// The bucket that knows this key (`client:id`), by its hash.
    pub fn ids(&self, key_hash: u64) -> String {
        let shard = self.units.shard_of(key_hash);
        let bucket = key_hash / u64::from(self.units.shard_count) % ID_BUCKETS;
        self.beside(shard, &format!("ids:{bucket}"))
    }

    /// All buckets of a shard.
    pub fn id_buckets(&self, shard: UnitId) -> Vec<String> {
        (0..ID_BUCKETS).map(|bucket| self.beside(shard, &format!("ids:{bucket}"))).collect()
    }

    pub fn campaigns(&self) -> String {
        format!("{}:campaigns", self.namespace)
    }

    pub fn results(&self, client: &str) -> String {
        format!("{}:results:{client}", self.namespace)
    }

    pub fn board(&self, what: &str) -> String {
        board(&self.namespace, what)
    }
}

/// A key of the fleet's board, for who knows its namespace alone.
pub fn board(namespace: &str, what: &str) -> String {
    format!("{namespace}:board:{what}")
}

/// What decides the slot of a key, where that is not all of it.
fn hash_tag(key: &str) -> Option<&str> {
    let open = key.find('{')?;
    let length = key[open + 1..].find('}')?;
    (length > 0).then(|| &key[open + 1..open + 1 + length])
}

/// Whose keys a foreign list of this name, or what stands beside it, might be, if anybody's.
pub fn taken(namespace: &str, list: &str) -> Option<&'static str> {
    let own = |name: &str| {
        let rest = name.strip_prefix(namespace)?.strip_prefix(':')?;
        let is_of = |what: &str| rest == what || rest.strip_prefix(what).is_some_and(|r| r.starts_with(':'));
        match rest {
            number if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some("a shard")
            }
            "campaigns" => Some("the campaigns"),
            _ if is_of("results") => Some("the results"),
            _ if is_of("board") => Some("the board"),
            _ => None,
        }
    };
    own(list).or_else(|| hash_tag(list).and_then(own))
}

/// Whether `key` is one of those that a foreign list has beside it.
pub fn stands_beside(list: &str, key: &str) -> bool {
    ["a", "b", "owner", "outcomes", "parked", "dead"]
        .into_iter()
        .any(|what| beside_foreign(list, what) == key)
}

/// A key of the same slot as a foreign list, whose name may have a hash tag of its own.
fn beside_foreign(list: &str, what: &str) -> String {
    match hash_tag(list) {
        Some(tag) => format!("{{{tag}}}:{list}:{what}"),
        None => format!("{{{list}}}:{what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::beside_foreign;

    #[test]
    fn what_stands_beside_a_foreign_list_shares_its_slot() {
        let table = [
            ("hongbao:intake", "{hongbao:intake}:a"),
            ("{pay}:in", "{pay}:{pay}:in:a"),
            ("odd{x", "{odd{x}:a"),
        ];
        for (list, expected) in table {
            assert_eq!(beside_foreign(list, "a"), expected, "{list}");
        }
    }
}
