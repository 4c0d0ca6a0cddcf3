//! A wallet, instances of the service that pay from it over one Redis, and the check of ids and money at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Connection;
use serde_json::{Value, json};

use crate::support::postgres::{self, Postgres};
use crate::support::redis::RedisServer;
use crate::support::{PATIENCE, Said, Server, Setup, await_until, call, hongbao, run};

/// What the campaign `k` has.
const FUNDED: u64 = 1 << 50;
/// How long everything that was accepted may take to be final.
pub const SETTLE_MAX: Duration = Duration::from_secs(90);
/// Milliseconds of a lease.
pub const TTL_MS: u64 = 2_000;

/// One test at a time: each wants the machine for itself.
static TURN: Mutex<()> = Mutex::new(());

pub struct World {
    /// Those that were taken out are dead.
    pub instances: Vec<Option<Server>>,
    wallet: Option<Server>,
    setups: Vec<Setup>,
    postgres: Option<Postgres>,
    folder: tempfile::TempDir,
    /// What was acknowledged in the name of `default`: id and amount.
    pub acks: BTreeMap<String, u64>,
    _turn: MutexGuard<'static, ()>,
}

/// What an id is paid.
pub fn amount(n: u64) -> u64 {
    1 + n % 100
}

impl World {
    /// A wallet and so many instances; one campaign, funded. More than one share a view in PostgreSQL.
    pub fn start(url: &str, count: usize, sets: &[&str]) -> World {
        World::start_with(url, count, sets, &[])
    }

    /// With this in the environment of the instances.
    pub fn start_with(url: &str, count: usize, sets: &[&str], env: &[(&str, &str)]) -> World {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("wallet");
        let mut command = hongbao();
        command.args(["wallet", "--listen", "127.0.0.1:0", "--set", "log.filter=error", "--data"]).arg(&data);
        let wallet = Server::listening(command, &data).unwrap_or_else(|said| panic!("the wallet: {said:?}"));
        let mut shared: Vec<String> = vec![
            "intake.kind=redis".to_owned(),
            format!("intake.redis.url={url}"),
            format!("intake.redis.owner_ttl_ms={TTL_MS}"),
            "intake.redis.shards=8".to_owned(),
            "stored_value.kind=http".to_owned(),
            format!("stored_value.http.url=http://{}", wallet.address),
            "shaping.transfers_per_s=100000".to_owned(),
            "parking.retry_ms=200".to_owned(),
        ];
        shared.extend(sets.iter().map(|set| (*set).to_owned()));
        let postgres = (count > 1).then(|| Postgres::start(postgres::Setup::default()));
        if let Some(postgres) = &postgres {
            let view = [
                "outcome.view=postgres".to_owned(),
                format!("outcome.postgres_url={}", postgres.database("view")),
            ];
            let said = run(&["migrate", "--set", &view[0], "--set", &view[1]]);
            assert_eq!(said.code, Some(0), "{said:?}");
            shared.extend(view);
        }
        let setup = |n: usize| {
            let mut setup =
                Setup::new(&folder.path().join(format!("data-{n}"))).set(&format!("instance.name=i{n}"));
            setup.sets.extend(shared.iter().cloned());
            setup.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            setup
        };
        let setups: Vec<Setup> = (0..count).map(setup).collect();
        let instances = setups.iter().map(|setup| Some(setup.start())).collect();
        let world = World {
            instances,
            wallet: Some(wallet),
            setups,
            postgres,
            folder,
            acks: BTreeMap::new(),
            _turn: turn,
        };
        await_until("the instances to share the units", PATIENCE, || {
            (0..count)
                .all(|n| world.fact(n, "units") != "0" && world.fact(n, "fleet") == count.to_string())
                .then_some(())
        });
        world.at(0).campaign("k", FUNDED, FUNDED);
        world
    }

    /// A single instance.
    pub fn at(&self, n: usize) -> &Server {
        self.instances[n].as_ref().expect("it runs")
    }

    pub fn take(&mut self, n: usize) -> Server {
        self.instances[n].take().expect("it runs")
    }

    pub fn start_again(&mut self, n: usize) {
        self.instances[n] = Some(self.setups[n].start());
    }

    /// Where an instance keeps what is its own.
    pub fn data(&self, n: usize) -> &Path {
        &self.setups[n].data
    }

    /// Runs a command of the binary with the settings of an instance.
    pub fn run(&self, n: usize, words: &[&str]) -> Said {
        let data = format!("data.dir={}", self.data(n).display());
        let sets = self.setups[n].sets.iter().map(String::as_str);
        let sets = sets.chain([data.as_str()]).flat_map(|set| ["--set", set]);
        let args: Vec<&str> = words.iter().copied().chain(sets).collect();
        run(&args)
    }

    pub fn addresses(&self) -> Vec<String> {
        self.instances.iter().flatten().map(|instance| instance.address.clone()).collect()
    }

    /// What /readyz says of it.
    pub fn ready(&self, n: usize) -> Value {
        self.at(n).call("GET /readyz", "").body
    }

    /// Waits until its door is open.
    pub fn await_ready(&self, n: usize) {
        let is_ready = || call(&self.at(n).address, "GET /readyz", "").is_ok_and(|reply| reply.code == 200);
        await_until("the door to be open", PATIENCE, || is_ready().then_some(()));
    }

    /// One of the facts there, as text.
    pub fn fact(&self, n: usize, name: &str) -> String {
        let ready = self.ready(n);
        ready[name].as_str().map_or_else(|| panic!("no {name} in {ready}"), str::to_owned)
    }

    pub fn metric(&self, n: usize, name: &str) -> u64 {
        let text = self.at(n).call("GET /metrics", "").text;
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_else(|| panic!("{name}: {text}"))
    }

    /// Outcomes that an instance recorded as paid.
    pub fn paid(&self, n: usize) -> u64 {
        self.metric(n, "hongbao_outcomes_total{status=\"SUCCEEDED\"}")
    }

    pub fn wallet(&self) -> &Server {
        self.wallet.as_ref().expect("the wallet runs")
    }

    pub fn set_faults(&self, faults: &Value) {
        self.wallet().must("PUT /faults", &faults.to_string(), 200);
    }

    /// Acknowledged ids that the wallet has not paid.
    pub fn unpaid(&self) -> Vec<String> {
        let ids: Vec<&String> = self.acks.keys().collect();
        let mut unpaid = Vec::new();
        for chunk in ids.chunks(1_000) {
            let names: Vec<String> = chunk.iter().map(|id| format!("default:{id}")).collect();
            let said =
                self.wallet().must("POST /v1/transfers/lookup", &json!({"ids": names}).to_string(), 200);
            let results = said["results"].as_array().unwrap_or_else(|| panic!("{said}"));
            assert_eq!(results.len(), chunk.len());
            let open = chunk.iter().zip(results).filter(|(_, result)| result["status"] != "succeeded");
            unpaid.extend(open.map(|(id, _)| (*id).clone()));
        }
        unpaid
    }

    /// Waits until nothing waits: in no list, parked nowhere, in no instance.
    pub fn await_drained(&self, servers: &[&RedisServer]) {
        let mut last = String::new();
        let deadline = std::time::Instant::now() + SETTLE_MAX;
        await_until("everything to be final", SETTLE_MAX + PATIENCE, || {
            let mut waits = waiting(servers);
            // Dead letters wait for nobody.
            waits.retain(|key, _| !key.ends_with(":dead"));
            let mut open: Vec<String> = waits.iter().map(|(key, count)| format!("{key}: {count}")).collect();
            for instance in self.instances.iter().flatten() {
                let ready = call(&instance.address, "GET /readyz", "").ok()?.body;
                if ready["backlog"] != "0" || ready["parked"] != "0" {
                    open.push(ready.to_string());
                }
            }
            last = open.join("\n");
            if std::time::Instant::now() > deadline {
                let said: Vec<String> = self.instances.iter().flatten().map(Server::stderr).collect();
                panic!("still open after {SETTLE_MAX:?}:\n{last}\n{}", said.join("\n---\n"));
            }
            last.is_empty().then_some(())
        });
    }

    /// Drains, stops every instance in order, and audits the wallet's folder against what was acknowledged.
    pub fn must_agree(mut self, servers: &[&RedisServer]) {
        self.await_drained(servers);
        for instance in self.instances.iter_mut().filter_map(Option::take) {
            let said = instance.stderr();
            let status = instance.terminate();
            assert!(status.success(), "{status}: {said}");
        }
        assert_eq!(waiting(servers), BTreeMap::new(), "something is left in Redis");
        assert_eq!(self.unpaid(), Vec::<String>::new(), "acknowledged, and not paid");
        let paid: u64 = self.acks.values().sum();
        let accounts = self.wallet().must("GET /balances?account=campaign:default:k", "", 200);
        assert_eq!(accounts["accounts"][0]["balance"], FUNDED - paid, "paid twice? {accounts}");
        self.wallet.take().expect("the wallet runs").end_well();
        self.audit();
    }

    fn audit(&self) {
        let file: PathBuf = self.folder.path().join("acks");
        let lines: String = self.acks.iter().map(|(id, amount)| format!("default {id} {amount}\n")).collect();
        std::fs::write(&file, lines).unwrap();
        let (code, report, said) =
            crate::support::audit(&self.folder.path().join("wallet"), Some(&file), false);
        assert_eq!(code, Some(0), "the audit found a breach: {report:#} {said}");
        assert_eq!((&report["lost"], &report["double_paid"]), (&json!(0), &json!(0)), "{report:#}");
        assert_eq!(report["books_balanced"], true, "{report:#}");
        assert_eq!(report["acks"]["missing"], 0, "{report:#}");
        assert_eq!(report["acks"]["settled"], self.acks.len(), "{report:#}");
    }

    /// Units whose lease is this instance's, as its neighbours see it: by the owner keys in Redis.
    pub fn owners(&self, server: &RedisServer) -> BTreeMap<String, String> {
        let mut connection = server.connect();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*:owner").query(&mut connection).unwrap();
        let owner = |key: String| {
            let lease: String = redis::cmd("GET").arg(&key).query(&mut connection).unwrap();
            let mut fields = lease.split('|').skip(1);
            let incarnation = fields.next().unwrap().to_owned();
            // A deadline of zero: released.
            let is_free = fields.next() == Some("0");
            (key, if is_free { String::new() } else { incarnation })
        };
        keys.into_iter().map(owner).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for instance in self.instances.iter().flatten() {
                let said = instance.stderr();
                let lines: Vec<&str> = said.lines().collect();
                let last = &lines[lines.len().saturating_sub(30)..];
                eprintln!("{} said at last:\n{}", instance.address, last.join("\n"));
            }
        }
        // Instances first: they hold connections.
        self.instances.clear();
        self.postgres.take();
    }
}

/// Every list with something in it (a probe's own aside), every parked set, with how much.
pub fn waiting(servers: &[&RedisServer]) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for server in servers.iter().filter(|server| server.is_running()) {
        let Ok(mut connection) = server.try_connect() else {
            found.insert(server.url(), 0);
            continue;
        };
        for (kind, count) in [("list", "LLEN"), ("zset", "ZCARD")] {
            let keys: Vec<String> = keys_of(&mut connection, kind);
            for key in keys.into_iter().filter(|key| !key.starts_with("probe")) {
                let length: u64 = redis::cmd(count).arg(&key).query(&mut connection).unwrap_or(0);
                if length > 0 && (kind == "list" || key.ends_with(":parked")) {
                    found.insert(key, length);
                }
            }
        }
    }
    found
}

fn keys_of(connection: &mut Connection, kind: &str) -> Vec<String> {
    let (mut cursor, mut found) = (0u64, Vec::new());
    loop {
        let page: redis::RedisResult<(u64, Vec<String>)> =
            redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(1_000).arg("TYPE").arg(kind).query(connection);
        let Ok((next, keys)) = page else {
            found.push("(Redis does not answer)".to_owned());
            return found;
        };
        found.extend(keys);
        cursor = next;
        if cursor == 0 {
            return found;
        }
    }
}
