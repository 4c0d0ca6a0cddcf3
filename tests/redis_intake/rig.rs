//! What the tests share: elements that are words, an instance with its reader, and a till that stands for the
//! pipeline.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hongbao::domain::{Amount, Currency, Kind, Lane, Request, UnixMs};
use hongbao::intake::redis::{
    Anomaly, Contents, Dead, DeadReason, Decoded, Elements, ForeignList, Graveyard, Held, Keys, Order,
    ReaderOptions, ReaderParts, RedisIntake, UnitId, Units,
};
use hongbao::intake::{Element, Intake, QueueId};
use hongbao::redis::{Command, Link, Script, Target};
use hongbao::ring::Poison;

use crate::support::redis::{Fsync, RedisServer, Setup};
use crate::support::{PATIENCE, await_until};

pub const FAIR: u8 = 2;

/// Redis with an append-only file.
pub fn server() -> RedisServer {
    RedisServer::start(Setup::new(Fsync::EverySecond))
}

/// Shards, then lists, each with the end that is pushed to.
pub fn keys(shard_count: u16, lists: &[(&str, Order)]) -> Keys {
    let foreign = lists.iter().map(|(name, order)| ForeignList {
        name: (*name).to_owned(),
        client: "shop".to_owned(),
        order: *order,
        hmac_key: None,
    });
    Keys::new("hongbao", Units { shard_count, fair_queue_count: FAIR, foreign: foreign.collect() })
}

/// An element is words between commas; `bad…` is unreadable as a whole, `!…` one word of it.
struct Words;

impl Elements for Words {
    fn decode(
        &self,
        unit: UnitId,
        element: &Bytes,
        now: UnixMs,
        out: &mut Contents,
    ) -> Result<(), DeadReason> {
        let text = std::str::from_utf8(element).expect("words");
        let reason = || DeadReason { code: "bad", detail: format!("unit {}", unit.0) };
        if text.starts_with("bad") {
            return Err(reason());
        }
        for word in text.split(',').filter(|word| !word.is_empty()) {
            if word.starts_with('!') {
                let element = Bytes::copy_from_slice(word.as_bytes());
                out.dead.push(Dead { element, cut_from: None, reason: reason() });
                continue;
            }
            let amount = Amount::new(1).expect("an amount");
            let currency = Currency::parse("CNY").expect("a currency");
            // A word is as long as it likes; its name is what stands before a dot.
            let name = word.split('.').next().unwrap_or(word);
            let mut request = Request::new(Kind::Disbursement, "shop", name, "c", amount, currency);
            request.accepted_at = now;
            let mut record = Vec::new();
            request.encode(&mut record);
            let fair = name.bytes().map(u64::from).sum::<u64>() % u64::from(FAIR);
            let lane = if name.starts_with("bulk") { Lane::Bulk } else { Lane::Realtime };
            let queue = QueueId { lane, fair: fair as u8 };
            out.requests.push(Decoded { queue, record: Bytes::from(record) });
        }
        Ok(())
    }
}

/// Room for as many as the argument says.
static BURY: Script = Script::new(
    "bury",
    r"#!lua flags=allow-oom
if redis.call('LLEN', KEYS[1]) + #ARGV - 1 > tonumber(ARGV[1]) then return redis.error_reply('FULL no room') end
return redis.call('RPUSH', KEYS[1], unpack(ARGV, 2))
",
);

struct Yard {
    keys: Keys,
    room: u64,
}

impl Graveyard for Yard {
    fn bury(&self, unit: UnitId, dead: &[Dead], _now: UnixMs) -> Command {
        let mut command = Command::script(&BURY, &[self.keys.dead(unit).as_bytes()]).arg(self.room);
        for dead in dead {
            let kept = &dead.element[..dead.element.len().min(40)];
            let cut = dead.cut_from.map(|bytes| format!(" of {bytes}")).unwrap_or_default();
            command.push(format!("{}{cut} {}", dead.reason.code, String::from_utf8_lossy(kept)));
        }
        command
    }
}

pub struct Instance {
    pub intake: Arc<RedisIntake>,
    pub held: Arc<Held>,
    pub poison: Poison,
    keys: Keys,
    anomalies: Arc<Mutex<Vec<(UnitId, Anomaly)>>>,
}

impl Instance {
    pub fn start(url: &str, keys: &Keys, incarnation: &str) -> Instance {
        Instance::start_with(url, keys, incarnation, ReaderOptions::default(), 1_000)
    }

    pub fn start_with(
        url: &str,
        keys: &Keys,
        incarnation: &str,
        options: ReaderOptions,
        dead_room: u64,
    ) -> Instance {
        let (connect_timeout, response_timeout) = (Duration::from_secs(2), Duration::from_secs(1));
        let link = Link::new(&Target {
            url: url.to_owned(),
            connect_timeout,
            response_timeout,
            ..Target::default()
        })
        .unwrap();
        let held = Arc::new(Held::new(incarnation.to_owned(), keys.units().len()));
        let anomalies: Arc<Mutex<Vec<(UnitId, Anomaly)>>> = Arc::default();
        let told = anomalies.clone();
        let parts = ReaderParts {
            elements: Arc::new(Words),
            graveyard: Arc::new(Yard { keys: keys.clone(), room: dead_room }),
            now_ms: Arc::new(|| 1_700_000_000_000),
            on_news: Box::new(|| ()),
            on_anomaly: Box::new(move |unit, what| told.lock().unwrap().push((unit, what.clone()))),
        };
        let poison = Poison::default();
        let nobody = Arc::new(|| ());
        let intake =
            RedisIntake::start(link, keys.clone(), held.clone(), options, parts, poison.clone(), nobody);
        let intake = Arc::new(intake.unwrap());
        Instance { intake, held, poison, keys: keys.clone(), anomalies }
    }

    /// Writes the owner's key and says so.
    pub fn own(&self, server: &RedisServer, unit: u16, epoch: u64) {
        let value = format!("{epoch}|{}|99999999999999", self.held.incarnation());
        server.cli(&["SET", &self.keys.owner(UnitId(unit)), &value]);
        self.held.gained(UnitId(unit), epoch);
        self.intake.wake();
    }

    pub fn anomalies(&self) -> Vec<(UnitId, Anomaly)> {
        self.anomalies.lock().unwrap().clone()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.intake.stop();
        if !std::thread::panicking() {
            assert_eq!(self.poison.reason(), None, "the reader panicked");
        }
    }
}

/// Takes requests and acknowledges them, as the pipeline does: each queue in order, the queues in any.
pub struct Till {
    intake: Arc<RedisIntake>,
    queues: Vec<QueueId>,
    out: HashMap<QueueId, VecDeque<(u64, String)>>,
    elements: Vec<Element>,
    /// In the order of reading, repeats included, and whether somebody may have sent it.
    pub taken: Vec<(String, bool)>,
    pub acked: HashSet<String>,
    next_index: BTreeMap<QueueId, u64>,
}

impl Till {
    pub fn new(instance: &Instance) -> Till {
        let of_lane = |lane| (0..FAIR).map(move |fair| QueueId { lane, fair });
        Till {
            intake: instance.intake.clone(),
            queues: Lane::ALL.into_iter().flat_map(of_lane).collect(),
            out: HashMap::new(),
            elements: Vec::new(),
            taken: Vec::new(),
            acked: HashSet::new(),
            next_index: BTreeMap::new(),
        }
    }

    /// Takes up to so many of each queue; how many there were.
    pub fn take(&mut self, count_max: usize) -> usize {
        let mut count = 0;
        for queue in &self.queues {
            self.elements.clear();
            self.intake.read(*queue, count_max, &mut self.elements).unwrap();
            for element in self.elements.drain(..) {
                let next = self.next_index.entry(*queue).or_default();
                assert_eq!(element.index, *next, "indexes without gaps");
                *next += 1;
                let id = Request::decode(&element.record).unwrap().id.to_owned();
                self.taken.push((id.clone(), element.may_be_sent));
                self.out.entry(*queue).or_default().push_back((element.index, id));
                count += 1;
            }
        }
        count
    }

    /// Acknowledges all but the last `kept` of each queue.
    pub fn ack(&mut self, kept: usize) {
        for queue in &self.queues {
            let Some(out) = self.out.get_mut(queue) else { continue };
            let count = out.len().saturating_sub(kept);
            if let Some((last, _)) = out.iter().take(count).next_back() {
                self.intake.ack(*queue, last + 1).unwrap();
            }
            self.acked.extend(out.drain(..count).map(|(_, id)| id));
        }
    }

    pub fn out(&self) -> usize {
        self.out.values().map(VecDeque::len).sum()
    }

    /// Takes and acknowledges until so many different ones are.
    pub fn run_until_acked(&mut self, count: usize, lag: usize) {
        await_until("requests to be read", PATIENCE, || {
            while self.take(256) > 0 {
                self.ack(lag);
            }
            self.ack(if self.acked.len() + self.out() >= count { 0 } else { lag });
            (self.acked.len() >= count).then_some(())
        });
    }

    /// The names that begin so, in the order in which they were taken.
    pub fn taken_of(&self, prefix: &str) -> Vec<&str> {
        self.taken.iter().map(|(id, _)| id.as_str()).filter(|id| id.starts_with(prefix)).collect()
    }
}

/// Everything that stands in the lists of a unit, live and sealed. Live first: elements move to the sealed ones only,
/// so one that moves meanwhile is seen twice and not missed.
pub fn standing(server: &RedisServer, keys: &Keys, unit: u16) -> Vec<String> {
    let (unit, mut connection) = (UnitId(unit), server.connect());
    let mut found = Vec::new();
    for queue in keys.queues(unit) {
        let sealed = keys.sealed(unit, queue);
        for key in std::iter::once(&keys.list(unit, queue)).chain(&sealed) {
            let elements: Vec<String> =
                redis::cmd("LRANGE").arg(key).arg(0).arg(-1).query(&mut connection).unwrap();
            found.extend(elements);
        }
    }
    found
}

pub fn await_empty(server: &RedisServer, keys: &Keys, unit: u16) {
    await_until("the lists to be empty", PATIENCE, || standing(server, keys, unit).is_empty().then_some(()));
}

/// Pushes names, some a command.
pub fn push(server: &RedisServer, how: &str, key: &str, names: impl IntoIterator<Item = String>) {
    let (mut connection, names) = (server.connect(), names.into_iter().collect::<Vec<_>>());
    for names in names.chunks(500) {
        redis::cmd(how).arg(key).arg(names).exec(&mut connection).unwrap();
    }
}
