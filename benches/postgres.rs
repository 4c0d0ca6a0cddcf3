//! The claim it backs: the PostgreSQL adapter, and the whole service that settles through it, cost little beside the
//! database, measured against `pgbench` that drives the very same statement with as many transfers a batch over as
//! many connections.
//!
//! `cargo bench --bench postgres`, with `HONGBAO_BENCH_PG_BATCHES` (a round and side, default 200),
//! `HONGBAO_BENCH_PG_ROUNDS` (default 5) and `HONGBAO_BENCH_PG_CONNECTIONS` (default `1,4`). Batches of 1,000 random
//! ids, one hot campaign, 100,000 payees, fsync on. Rounds of the sides alternate, each in a database of its
//! own on one server. `pgbench` fetches the arrays of a batch from a table, so that its client has nothing to make;
//! what the fetching alone takes is measured and taken off its time.

#[path = "support/mod.rs"]
mod campaign;
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hongbao::app::{Extras, Service};
use hongbao::config::{Sources, load};
use hongbao::digest::{key_hash, money_digest};
use hongbao::domain::{Amount, Currency, Transfer, TransferKind, TransferStatus};
use hongbao::stored_value::TransferBatch;
use hongbao::stored_value::postgres::{PostgresOptions, PostgresWallet, STATEMENT, migrate};
use hongbao::stored_value::remote::RemoteWallet;
use support::postgres::{Postgres, Setup, programs};
use support::{Dice, env_number};

const BATCH: u64 = 1_000;
const PAYEES: u64 = 100_000;
const DEADLINE: Duration = Duration::from_secs(60);
const FUNDS: u64 = 1 << 50;

/// The arrays of every batch, as the adapter would send them.
const ARRAYS: &str = "
CREATE SEQUENCE next_batch;
CREATE TABLE batches AS
SELECT n, array_agg(id ORDER BY id COLLATE \"C\") AS ids,
    array_agg(substr(decode(md5(id), 'hex'), 1, 16)) AS digests,
    array_agg('campaign:bench:spring'::text) AS debits,
    array_agg('person:p-' || floor(random() * 100000)::int) AS credits,
    array_agg(1 + floor(random() * 1000)::bigint) AS amounts,
    array_agg('CNY'::text) AS currencies
FROM (SELECT n, 'bench:' || substr(md5(random()::text || n || k), 1, 24) AS id
    FROM generate_series(1, BATCHES) n, generate_series(1, 1000) k) made
GROUP BY n;
ALTER TABLE batches ADD PRIMARY KEY (n)";

const FETCH: &str = "SELECT ids, digests, debits, credits, amounts, currencies, ARRAY[debits[1]] AS payers, \
     ARRAY[currencies[1]] AS payer_currencies, ARRAY[1000000::bigint] AS needs \
     FROM batches WHERE n = (SELECT nextval('next_batch')) \\gset\n";

fn main() {
    let pgbench = programs().join("pgbench");
    if !pgbench.is_file() {
        println!("no {}: install PostgreSQL's client programs (postgresql-contrib)", pgbench.display());
        return;
    }
    let rounds = env_number("HONGBAO_BENCH_PG_ROUNDS", 5);
    let batches = env_number("HONGBAO_BENCH_PG_BATCHES", 200);
    let connections = std::env::var("HONGBAO_BENCH_PG_CONNECTIONS").unwrap_or_else(|_| "1,4".to_owned());
    let settings = ["shared_buffers=512MB", "max_wal_size=8GB", "checkpoint_timeout=30min"];
    let settings = settings.map(str::to_owned).to_vec();
    let server = Postgres::start(Setup { fsync: true, settings });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    for (number, count) in connections.split(',').enumerate() {
        let count: u64 = count.trim().parse().expect("a number of connections");
        let names = [format!("sql{number}"), format!("adapter{number}")];
        let whole = Whole::new(&server, &runtime, &format!("service{number}"), count);
        for name in &names {
            let url = server.database(name);
            runtime.block_on(migrate(&url)).expect("migrated");
            server.sql(
                name,
                &format!(
                    "INSERT INTO hongbao_accounts VALUES ('funding:bench', 'CNY', -{FUNDS}, 0, true),
                    ('campaign:bench:spring', 'CNY', {FUNDS}, 0, false)"
                ),
            );
        }
        server.sql(&names[0], &ARRAYS.replace("BATCHES", &(rounds * batches).to_string()));
        let side = Sql::new(&server, &names[0], &pgbench, count, batches);
        measure(&server, &runtime, &side, &names[1], whole, rounds);
    }
}

/// The service, from a backlog to its outcomes.
struct Whole {
    service: Service,
    producer: campaign::Producer,
    _folder: tempfile::TempDir,
}

impl Whole {
    fn new(server: &Postgres, runtime: &tokio::runtime::Runtime, database: &str, connections: u64) -> Whole {
        let url = server.database(database);
        runtime.block_on(migrate(&url)).expect("migrated");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sets = vec![
            format!("data.dir={}", folder.path().join("data").display()),
            "stored_value.kind=postgres".to_owned(),
            format!("stored_value.postgres.url={url}"),
            format!("stored_value.batch_count_max={BATCH}"),
            format!("stored_value.calls_max={connections}"),
            // Above what it can do: the database is the bound.
            "shaping.transfers_per_s=200000".to_owned(),
            "parking.count_max=2000000".to_owned(),
        ];
        let config = load(&Sources { sets, ..Sources::default() }).expect("valid settings");
        let service = Service::start(config, Extras::default()).expect("the service starts");
        let mut producer = campaign::Producer::new(7);
        producer.open(&service);
        Whole { service, producer, _folder: folder }
    }

    /// Seconds from the first transfer to the last outcome.
    fn round(&mut self, count: u64) -> f64 {
        let counts = &self.service.pipeline.counts;
        counts.paused.store(true, Ordering::Release);
        self.producer.produce(&self.service, count);
        let before = campaign::settled(&self.service);
        let began = Instant::now();
        counts.paused.store(false, Ordering::Release);
        self.service.pipeline.ring();
        campaign::wait_settled(&self.service, before + count);
        began.elapsed().as_secs_f64()
    }
}

fn measure(
    server: &Postgres,
    runtime: &tokio::runtime::Runtime,
    sql: &Sql<'_>,
    database: &str,
    mut whole: Whole,
    rounds: u64,
) {
    let mut dice = Dice(7);
    let transfers = (sql.batches * BATCH) as f64;
    let (mut ratios, mut whole_ratios) = (Vec::new(), Vec::new());
    println!("{} connections, {} batches of {BATCH} a round", sql.connections, sql.batches);
    for round in 0..rounds {
        server.sql("postgres", "CHECKPOINT");
        let took = sql.round(round);
        server.sql("postgres", "CHECKPOINT");
        let adapter = transfers / adapter(server, runtime, database, sql.connections, sql.batches, &mut dice);
        server.sql("postgres", "CHECKPOINT");
        let service = transfers / whole.round(sql.batches * BATCH);
        let pgbench = transfers / took.without_fetch;
        println!(
            "round {round}: pgbench {pgbench:.0}/s (with the fetching {:.0}/s), adapter {adapter:.0}/s = {:.2}, \
             service {service:.0}/s = {:.2}",
            transfers / took.whole,
            adapter / pgbench,
            service / pgbench,
        );
        ratios.push(adapter / pgbench);
        whole_ratios.push(service / pgbench);
    }
    whole.service.stop(Duration::from_secs(30)).expect("the service stops");
    for name in [sql.database, database] {
        let sum = server
            .sql(name, "SELECT count(*), (SELECT sum(balance) FROM hongbao_accounts) FROM hongbao_transfers");
        assert_eq!(
            sum,
            format!("{}|0", rounds * sql.batches * BATCH),
            "{name}: transfers and the sum of balances"
        );
    }
    ratios.sort_by(f64::total_cmp);
    whole_ratios.sort_by(f64::total_cmp);
    let middle = ratios.len() / 2;
    println!(
        "median over {rounds} rounds: adapter {:.2}, service {:.2}",
        ratios[middle], whole_ratios[middle]
    );
}

struct Took {
    whole: f64,
    without_fetch: f64,
}

/// `pgbench` with the adapter's statement.
struct Sql<'a> {
    server: &'a Postgres,
    database: &'a str,
    pgbench: &'a Path,
    connections: u64,
    batches: u64,
    folder: tempfile::TempDir,
}

impl<'a> Sql<'a> {
    fn new(
        server: &'a Postgres,
        database: &'a str,
        pgbench: &'a Path,
        connections: u64,
        batches: u64,
    ) -> Sql<'a> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let names = [
            "ids",
            "digests",
            "debits",
            "credits",
            "amounts",
            "currencies",
            "payers",
            "payer_currencies",
            "needs",
        ];
        let mut statement = STATEMENT.to_owned();
        for (at, name) in names.iter().enumerate() {
            statement = statement.replace(&format!("${}::", at + 1), &format!(":{name}::"));
        }
        std::fs::write(folder.path().join("fetch"), FETCH).expect("a script");
        std::fs::write(folder.path().join("whole"), format!("{FETCH}{statement};\n")).expect("a script");
        let batches = batches / connections * connections;
        Sql { server, database, pgbench, connections, batches, folder }
    }

    fn round(&self, round: u64) -> Took {
        let restart = format!("ALTER SEQUENCE next_batch RESTART {}", round * self.batches + 1);
        let [fetch, whole] = ["fetch", "whole"].map(|script| {
            self.server.sql(self.database, &restart);
            self.run(script)
        });
        Took { whole, without_fetch: whole - fetch }
    }

    /// Seconds for all batches, without the making of connections.
    fn run(&self, script: &str) -> f64 {
        let mut command = Command::new(self.pgbench);
        command.args(["-n", "-M", "extended", "-h", "127.0.0.1", "-U", "postgres"]);
        command.args(["-p", &self.server.port().to_string(), "-c", &self.connections.to_string()]);
        command.args(["-j", &self.connections.min(2).to_string()]);
        command.args(["-t", &(self.batches / self.connections).to_string(), "-f"]);
        let said =
            command.arg(self.folder.path().join(script)).arg(self.database).output().expect("pgbench runs");
        let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(said.status.success(), "pgbench: {err}");
        let rate = out.lines().find_map(|line| line.strip_prefix("tps = "));
        let rate: f64 = rate.and_then(|text| text.split(' ').next()?.parse().ok()).expect("a rate");
        self.batches as f64 / rate
    }
}

fn random_batch(dice: &mut Dice) -> Arc<TransferBatch> {
    let mut batch = TransferBatch::default();
    for _ in 0..BATCH {
        let id = format!("bench:{:012x}{:012x}", dice.roll(1 << 48), dice.roll(1 << 48));
        let payee = format!("person:p-{}", dice.roll(PAYEES));
        let mut transfer = Transfer {
            kind: TransferKind::Transfer,
            id: id.as_bytes(),
            key_hash: key_hash(id.as_bytes()),
            digest: [0; 16],
            debit: b"campaign:bench:spring",
            credit: payee.as_bytes(),
            amount: Amount::new(1 + dice.roll(1_000)).expect("small"),
            currency: Currency::parse("CNY").expect("a currency"),
            of: b"",
            expires_in_s: 0,
        };
        transfer.digest = money_digest(&transfer, &mut Vec::new());
        batch.push(&transfer);
    }
    Arc::new(batch)
}

/// Seconds for all batches; as many calls under way as connections, which are made before.
fn adapter(
    server: &Postgres,
    runtime: &tokio::runtime::Runtime,
    database: &str,
    connections: u64,
    batches: u64,
    dice: &mut Dice,
) -> f64 {
    let made: VecDeque<_> = (0..batches).map(|_| random_batch(dice)).collect();
    let queue = Arc::new(Mutex::new(made));
    let options = PostgresOptions { url: server.url(database), connections_max: connections as usize };
    let wallet = Arc::new(PostgresWallet::new(&options).expect("a wallet"));
    runtime.block_on(async {
        let warm: Vec<_> =
            (0..connections).map(|_| tokio::spawn(wallet.lookup(vec!["x".to_owned()], DEADLINE))).collect();
        for call in warm {
            call.await.expect("no panic").expect("connected");
        }
        let began = Instant::now();
        let workers: Vec<_> = (0..connections)
            .map(|_| {
                let (queue, wallet) = (queue.clone(), wallet.clone());
                tokio::spawn(async move {
                    loop {
                        let batch = queue.lock().expect("no panic").pop_front();
                        let Some(batch) = batch else { break };
                        let answers = wallet.transfer(batch, DEADLINE).await.expect("answers");
                        assert!(answers.iter().all(|answer| answer.status == TransferStatus::Succeeded));
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.expect("no panic");
        }
        began.elapsed().as_secs_f64()
    })
}
