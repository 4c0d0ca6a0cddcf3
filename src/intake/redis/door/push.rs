//! Appending: which list a request goes to, and one RPUSH a list with all that was gathered for it.
//!
//! A call goes to one shard whole. A list's elements are frames of many requests, bounded in bytes and number; all of
//! one list in a go share their fate, because they are one command. Behind them, if replicas are asked for, one WAIT,
//! and in a Cluster one a shard: those that go to one server wait one after the other, and share the time.

use std::collections::HashMap;
use std::sync::Arc;

use super::{DoorOptions, Replicas, refusal};
use crate::domain::Request;
use crate::intake::QueueId;
use crate::intake::desk::Refused;
use crate::intake::redis::element::encode_frame;
use crate::intake::redis::{Keys, UnitId};
use crate::redis::{Command, Failure, Link, Shape, Value, reply};

struct List<'a> {
    key: String,
    shard: UnitId,
    records: Vec<&'a [u8]>,
    /// Whether all in it stand registered.
    is_registered: bool,
}

/// The lists of a go.
pub struct Lists<'a> {
    keys: &'a Keys,
    options: &'a DoorOptions,
    numbers: HashMap<(UnitId, QueueId), usize>,
    lists: Vec<List<'a>>,
}

/// What became of the lists, by number.
pub struct Pushed {
    results: Vec<Result<(), Refused>>,
    shards: Vec<UnitId>,
    /// Replicas that confirmed each; none asked: `None`.
    replicas: Vec<Option<u32>>,
}

impl Pushed {
    /// Nothing is acknowledged that fewer replicas confirmed than must. It is appended: the retry asks again.
    pub fn require(&mut self, asked: Option<Replicas>) {
        let count_min = asked.map_or(0, |replicas| replicas.count_min);
        for (result, confirmed) in self.results.iter_mut().zip(&self.replicas) {
            let confirmed = confirmed.unwrap_or(0);
            if result.is_ok() && confirmed < count_min {
                *result = Err(refusal::too_few_replicas(confirmed, count_min));
            }
        }
    }

    /// The replicas that were asked follow another server than the one that has some of it.
    pub fn forget_replicas(&mut self) {
        self.replicas.fill(None);
    }

    /// How many replicas confirmed this list.
    pub fn replicas_of(&self, list: usize) -> Option<u32> {
        self.replicas[list]
    }

    pub fn shard_of(&self, list: usize) -> UnitId {
        self.shards[list]
    }

    pub fn of(&self, list: usize) -> Option<&Refused> {
        self.results[list].as_ref().err()
    }
}

impl<'a> Lists<'a> {
    pub fn new(keys: &'a Keys, options: &'a DoorOptions) -> Lists<'a> {
        Lists { keys, options, numbers: HashMap::new(), lists: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// Puts an accepted request in its list, whose number is answered.
    pub fn add(&mut self, place_hash: u64, record: &'a [u8], is_registered: bool) -> usize {
        let request = Request::decode(record).expect("it was accepted");
        let shard = self.keys.units().shard_of(place_hash);
        let queue = QueueId::of(request.lane, request.campaign, self.keys.units().fair_queue_count);
        let lists = &mut self.lists;
        let number = *self.numbers.entry((shard, queue)).or_insert_with(|| {
            let key = self.keys.list(shard, queue);
            lists.push(List { key, shard, records: Vec::new(), is_registered: true });
            lists.len() - 1
        });
        let list = &mut self.lists[number];
        list.records.push(record);
        list.is_registered &= is_registered;
        number
    }

    /// One RPUSH a list, then the WAITs.
    pub fn commands(&self, link: &Link) -> Vec<Command> {
        let mut commands: Vec<Command> = self.lists.iter().map(|list| self.rpush(list)).collect();
        if let Some(replicas) = self.options.replicas {
            let mut keys: Vec<String> =
                self.shards().into_iter().map(|shard| self.keys.owner(shard)).collect();
            if link.shape() != Shape::Cluster {
                keys.truncate(1);
            }
            let servers: Vec<_> = keys.iter().map(|key| link.server_of(key.as_bytes())).collect();
            let wait = |(key, timeout_ms): (String, u64)| {
                Command::routed("WAIT", key).arg(replicas.count).arg(timeout_ms)
            };
            commands.extend(keys.into_iter().zip(timeouts_ms(replicas.timeout_ms, &servers)).map(wait));
        }
        commands
    }

    /// Each once, in order.
    fn shards(&self) -> Vec<UnitId> {
        let mut shards: Vec<UnitId> = self.lists.iter().map(|list| list.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    fn rpush(&self, list: &List<'_>) -> Command {
        let mut command = Command::new("RPUSH", &list.key);
        let mut rest = &list.records[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(self.options.frame_count_max).take_while(|record| {
                bytes += record.len();
                bytes <= self.options.frame_bytes_max
            });
            // One that is larger than a frame goes alone; the gateway bounds it far below an element's bound.
            let (taken, after) = rest.split_at(fits.count().max(1));
            command.push(encode_frame(taken));
            rest = after;
        }
        command
    }

    /// Reads what the commands came to, in their order.
    pub fn pushed(&self, results: Vec<Result<Value, Failure>>) -> Pushed {
        let mut results = results.into_iter();
        let of_list = |list: &List<'_>, result: Option<Result<Value, Failure>>| {
            let result = result.unwrap_or_else(|| Err(Failure::Unknown("no reply".to_owned())));
            let told = result.and_then(|value| reply::int("RPUSH", value).map(drop));
            told.map_err(|failure| refusal::of_push(&failure, list.is_registered))
        };
        let of_lists = self.lists.iter().map(|list| of_list(list, results.next())).collect();
        let confirmed = results.map(|result| match result.and_then(|value| reply::int("WAIT", value)) {
            Ok(count) => u32::try_from(count).unwrap_or(0),
            // Appended it is, by its own reply; how many know of it is not known.
            Err(_) => 0,
        });
        let confirmed: Vec<u32> = confirmed.collect();
        let shards = self.shards();
        let replicas_of = |list: &List<'_>| match confirmed.as_slice() {
            [of_all] => Some(*of_all),
            of_shards => shards.binary_search(&list.shard).ok().and_then(|at| of_shards.get(at).copied()),
        };
        let replicas = self.lists.iter().map(replicas_of).collect();
        let shards = self.lists.iter().map(|list| list.shard).collect();
        Pushed { results: of_lists, shards, replicas }
    }
}

/// What each WAIT may take, by the server that it goes to: those at one server take no longer together than one alone. Where
/// it is not known, it may be the same for all. Never 0, which is for ever.
fn timeouts_ms(timeout_ms: u64, servers: &[Option<String>]) -> Vec<u64> {
    let is_known = servers.iter().all(Option::is_some);
    let beside =
        |server: &Option<String>| servers.iter().filter(|other| !is_known || *other == server).count() as u64;
    servers.iter().map(|server| (timeout_ms / beside(server)).max(1)).collect()
}

/// What an acceptance says of durability: the replicas that confirmed it where any did, else what holds of all.
pub fn durability(stated: &Arc<str>, replicas: Option<u32>) -> Arc<str> {
    match replicas {
        Some(count) if count > 0 => Arc::from(format!("replicated:{count}")),
        Some(_) | None => stated.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Amount, Currency, Kind, Lane};
    use crate::intake::redis::Units;
    use crate::redis::Target;

    fn request(campaign: &str, lane: Lane) -> Vec<u8> {
        let currency = Currency::parse("CNY").unwrap();
        let amount = Amount::new(1).unwrap();
        let request =
            Request { lane, ..Request::new(Kind::Disbursement, "s", "r", campaign, amount, currency) };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        bytes
    }

    #[test]
    fn one_command_a_list_in_bounded_frames() {
        let units = Units { shard_count: 4, fair_queue_count: 1, foreign: Vec::new() };
        let keys = Keys::new("h", units);
        let (real, bulk) = (request("c", Lane::Realtime), request("c", Lane::Bulk));
        let options = DoorOptions {
            frame_count_max: 3,
            frame_bytes_max: 2 * real.len(),
            replicas: Some(Replicas { count: 1, timeout_ms: 9, count_min: 1 }),
            ..DoorOptions::default()
        };
        let mut lists = Lists::new(&keys, &options);
        for _ in 0..5 {
            assert_eq!(lists.add(6, &real, true), 0);
        }
        assert_eq!(lists.add(2, &real, false), 0, "the same shard");
        assert_eq!(lists.add(2, &bulk, true), 1);
        assert_eq!(lists.add(3, &real, true), 2);
        let shown = |url: &str| {
            let commands = lists.commands(&Link::new(&Target::new(url)).unwrap());
            let shown = |command: &Command| {
                let key = String::from_utf8_lossy(command.key()).into_owned();
                let last = command.cmd().args_iter().last();
                let Some(redis::Arg::Simple(last)) = last else { panic!("{key}: {last:?}") };
                match command.cmd().args_iter().count() {
                    3 if key.ends_with(":owner") => format!("{key} {}", String::from_utf8_lossy(last)),
                    count => format!("{key} {count}"),
                }
            };
            commands.iter().map(shown).collect::<Vec<String>>()
        };
        // name, key and two a frame; behind them what to wait for, and how long
        let pushes = ["{h:2}:realtime.0 5", "{h:2}:bulk.0 3", "{h:3}:realtime.0 3"];
        let with = |waits: &[&'static str]| [&pushes[..], waits].concat();
        assert_eq!(shown("redis://h"), with(&["{h:2}:owner 9"]));
        assert_eq!(shown("redis+sentinel://h/m"), with(&["{h:2}:owner 9"]));
        assert_eq!(shown("redis+cluster://h"), with(&["{h:2}:owner 4", "{h:3}:owner 4"]));
        let oom = Failure::Refused { command: String::new(), code: "OOM".to_owned(), detail: String::new() };
        let pushed = |waits: &[i64]| {
            let pushed = [Ok(Value::Int(3)), Err(oom.clone()), Ok(Value::Int(1))];
            lists.pushed(pushed.into_iter().chain(waits.iter().map(|count| Ok(Value::Int(*count)))).collect())
        };
        let required = |waits: &[i64], count_min| {
            let mut pushed = pushed(waits);
            pushed.require(Some(Replicas { count: 2, timeout_ms: 9, count_min }));
            [0, 1, 2].map(|list| pushed.of(list).is_none())
        };
        let all = pushed(&[1, 2]);
        assert!(all.of(0).is_none());
        assert!(all.of(1).is_some_and(|refused| refused.accepted_unknown), "it stands registered");
        assert_eq!([0, 1, 2].map(|list| all.replicas_of(list)), [Some(1), Some(1), Some(2)]);
        // what each server says, how many must; whether each list is accepted
        let table: [(&[i64], u32, [bool; 3]); 6] = [
            (&[1, 2], 0, [true, false, true]),
            (&[1, 2], 1, [true, false, true]),
            (&[0, 2], 1, [false, false, true]),
            (&[2, 0], 1, [true, false, false]),
            (&[2], 2, [true, false, true]),
            (&[], 1, [false, false, false]),
        ];
        for (waits, count_min, expected) in table {
            assert_eq!(required(waits, count_min), expected, "{waits:?} {count_min}");
        }
        let mut elsewhere = pushed(&[2, 2]);
        elsewhere.forget_replicas();
        elsewhere.require(Some(Replicas { count: 2, timeout_ms: 9, count_min: 1 }));
        assert!(elsewhere.of(0).is_some_and(|refused| refused.accepted_unknown));
        let told = |replicas| durability(&Arc::from("fsync"), replicas).to_string();
        assert_eq!([told(None), told(Some(0)), told(Some(2))], ["fsync", "fsync", "replicated:2"]);
    }

    #[test]
    fn what_waits_at_one_server_shares_the_time() {
        let table: [(u64, &[&str], &[u64]); 6] = [
            (500, &["a"], &[500]),
            (500, &["a", "b", "c"], &[500, 500, 500]),
            (500, &["a", "b", "a"], &[250, 500, 250]),
            (500, &["a", "", "b", "c"], &[125, 125, 125, 125]),
            (1, &["a", "a"], &[1, 1]),
            (500, &[], &[]),
        ];
        for (timeout_ms, servers, expected) in table {
            let named: Vec<Option<String>> =
                servers.iter().map(|name| (!name.is_empty()).then(|| (*name).to_owned())).collect();
            assert_eq!(timeouts_ms(timeout_ms, &named), expected, "{servers:?}");
        }
    }
}
