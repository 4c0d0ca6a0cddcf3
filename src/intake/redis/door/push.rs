//! Appending: which list a request goes to, and one RPUSH a list with all that was gathered for it.
//!
//! A call goes to one shard whole. A list's elements are frames of many requests, bounded in bytes and number; all of
//! one list in a go share their fate, because they are one command. Behind them, if replicas are asked for, one WAIT
//! a shard.

use std::collections::HashMap;
use std::sync::Arc;

use super::{DoorOptions, Replicas, refusal};
use crate::domain::Request;
use crate::intake::QueueId;
use crate::intake::desk::Refused;
use crate::intake::redis::element::encode_frame;
use crate::intake::redis::{Keys, UnitId};
use crate::redis::{Command, Failure, Value, reply};

struct List<'a> {
    key: String,
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
    /// Replicas that confirmed everything; none asked: `None`.
    pub replicas: Option<u32>,
}

impl Pushed {
    /// Nothing is acknowledged that fewer replicas confirmed than must. It is appended: the retry asks again.
    pub fn require(&mut self, asked: Option<Replicas>) {
        let count_min = asked.map_or(0, |replicas| replicas.count_min);
        let confirmed = self.replicas.unwrap_or(0);
        if confirmed < count_min {
            self.results.iter_mut().filter(|result| result.is_ok()).for_each(|result| {
                *result = Err(refusal::too_few_replicas(confirmed, count_min));
            });
        }
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
            lists.push(List { key, records: Vec::new(), is_registered: true });
            lists.len() - 1
        });
        let list = &mut self.lists[number];
        list.records.push(record);
        list.is_registered &= is_registered;
        number
    }

    /// One RPUSH a list, then one WAIT a shard.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = self.lists.iter().map(|list| self.rpush(list)).collect();
        if let Some(replicas) = self.options.replicas {
            let mut shards: Vec<UnitId> = self.numbers.keys().map(|(shard, _)| *shard).collect();
            shards.sort_unstable();
            shards.dedup();
            let wait = |shard: &UnitId| {
                let command = Command::routed("WAIT", self.keys.owner(*shard));
                command.arg(replicas.count).arg(replicas.timeout_ms)
            };
            commands.extend(shards.iter().map(wait));
        }
        commands
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
        Pushed { results: of_lists, replicas: confirmed.min() }
    }
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
        let commands = lists.commands();
        let shown: Vec<String> = commands
            .iter()
            .map(|command| {
                format!("{} {}", String::from_utf8_lossy(command.key()), command.cmd().args_iter().count())
            })
            .collect();
        // name, key and two a frame; behind them a WAIT for either shard
        let expected =
            ["{h:2}:realtime.0 5", "{h:2}:bulk.0 3", "{h:3}:realtime.0 3", "{h:2}:owner 3", "{h:3}:owner 3"];
        assert_eq!(shown, expected);
        let oom = Failure::Refused { command: String::new(), code: "OOM".to_owned(), detail: String::new() };
        let results =
            vec![Ok(Value::Int(3)), Err(oom.clone()), Err(oom), Ok(Value::Int(1)), Ok(Value::Int(2))];
        let mut pushed = lists.pushed(results);
        assert!(pushed.of(0).is_none());
        assert!(pushed.of(1).is_some_and(|refused| refused.accepted_unknown), "it stands registered");
        assert_eq!(pushed.replicas, Some(1), "the fewest");
        pushed.require(options.replicas);
        assert!(pushed.of(0).is_none(), "as many as must");
        pushed.require(Some(Replicas { count: 2, timeout_ms: 9, count_min: 1 }));
        assert!(pushed.of(0).is_none(), "it says less");
        pushed.require(Some(Replicas { count: 2, timeout_ms: 9, count_min: 2 }));
        assert!(pushed.of(0).is_some_and(|refused| refused.accepted_unknown));
        let told = |replicas| durability(&Arc::from("fsync"), replicas).to_string();
        assert_eq!([told(None), told(Some(0)), told(Some(2))], ["fsync", "fsync", "replicated:2"]);
    }
}
