//! The wallet in PostgreSQL keeps the wallet's contract: against a table of cases, against the embedded ledger on
//! random batches, with two instances on the same ids, and across SIGKILL of the server under load.
//!
//! Every test has a private server. `HONGBAO_PG_KILLS` sets how often the server is killed (default 2).

mod support;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hongbao::domain::{PayoutCode, TransferKind, TransferStatus};
use hongbao::stored_value::ledger::state::{Records, State};
use hongbao::stored_value::postgres::{
    MigrateError, PostgresOptions, PostgresSetupError, PostgresWallet, VERSION, migrate,
};
use hongbao::stored_value::remote::{CallError, RemoteWallet};
use hongbao::stored_value::{StoredValueError, TransferBatch};
use support::cases::{CASES, DEADLINE, Words, answer_words, batch, send};
use support::postgres::{Postgres, Setup};
use support::{Dice, await_until, env_number, seed};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn wallet(url: &str, connections_max: usize) -> PostgresWallet {
    PostgresWallet::new(&PostgresOptions { url: url.to_owned(), connections_max }).expect("a wallet")
}

/// Money is neither made nor lost, nobody but funding accounts owes, and the balances are what the record says.
fn must_balance(server: &Postgres, database: &str) {
    let wrong = server.sql(
        database,
        "SELECT 'sum', currency, sum(balance) FROM hongbao_accounts GROUP BY currency HAVING sum(balance) <> 0;
        SELECT 'owes', name FROM hongbao_accounts WHERE balance < held AND name NOT LIKE 'funding:%';
        SELECT 'mark', name FROM hongbao_accounts WHERE may_go_below_zero <> (name LIKE 'funding:%');
        SELECT 'books', a.name, a.currency, a.balance, s.total FROM hongbao_accounts a FULL JOIN (
            SELECT name, currency, sum(change) AS total FROM (
                SELECT debit AS name, currency, -amount AS change FROM hongbao_transfers
                    WHERE code IS NULL AND kind IN (1, 3, 5)
                UNION ALL SELECT credit, currency, amount FROM hongbao_transfers
                    WHERE code IS NULL AND kind IN (1, 3, 5)) sides
            GROUP BY name, currency) s ON a.name = s.name AND a.currency = s.currency
        WHERE coalesce(a.balance, 0) <> coalesce(s.total, 0);
        SELECT 'held', a.name, a.held, s.total FROM hongbao_accounts a LEFT JOIN (
            SELECT debit AS name, currency, sum(amount) AS total FROM hongbao_transfers
            WHERE kind = 2 AND hold = 1 GROUP BY debit, currency) s ON a.name = s.name AND a.currency = s.currency
        WHERE a.held <> coalesce(s.total, 0);
        SELECT 'expiry', e.id FROM hongbao_expiries e LEFT JOIN hongbao_transfers t
            ON t.id = e.id AND t.hold = 1 AND t.debit = e.debit AND t.currency = e.currency
        WHERE t.id IS NULL",
    );
    assert_eq!(wrong, "", "the books are wrong");
}

#[test]
fn the_contract() {
    let server = Postgres::start(Setup::default());
    let runtime = runtime();
    for (number, (name, steps)) in CASES.iter().enumerate() {
        let database = format!("case{number}");
        let url = server.database(&database);
        runtime.block_on(async {
            migrate(&url).await.expect("migrated");
            let wallet = wallet(&url, 2);
            for (line, expected) in *steps {
                assert_eq!(answer_words(&wallet, line).await, *expected, "{name}: {line}");
            }
        });
        must_balance(&server, &database);
    }
    isolation(&server, &runtime);
}

/// The same cases hold where every transaction is serializable, as some of these databases have it.
fn isolation(server: &Postgres, runtime: &tokio::runtime::Runtime) {
    for (number, (name, steps)) in CASES.iter().enumerate() {
        let database = format!("serial{number}");
        let url = server.database(&database);
        server.sql(
            "postgres",
            &format!("ALTER DATABASE {database} SET default_transaction_isolation TO 'serializable'"),
        );
        runtime.block_on(async {
            migrate(&url).await.expect("migrated");
            let wallet = wallet(&url, 2);
            for (line, expected) in *steps {
                assert_eq!(answer_words(&wallet, line).await, *expected, "serializable, {name}: {line}");
            }
        });
        must_balance(server, &database);
    }
}

/// The embedded ledger's state machine with its record in memory: the model.
#[derive(Default)]
struct Model {
    state: State,
    record: Written,
}

#[derive(Default)]
struct Written(Vec<u8>);

impl Records for Written {
    fn transfer_at(&mut self, place: u64) -> Result<&[u8], StoredValueError> {
        Ok(&self.0[usize::try_from(place).expect("a place")..])
    }

    fn begins_at(&self) -> u64 {
        0
    }
}

impl Model {
    fn decide(&mut self, batch: &TransferBatch) -> Vec<TransferStatus> {
        let mut results = Vec::new();
        self.state.decide(batch, &|_| None, &mut self.record, &mut results).expect("decided");
        let place = self.record.0.len() as u64;
        self.record.0.extend_from_slice(&self.state.written);
        self.state.placed(place);
        results
    }

    fn balances(&self) -> BTreeMap<String, (i128, u64)> {
        let accounts = &self.state.accounts;
        let rows = (0..accounts.len()).map(|number| {
            let number = u32::try_from(number).expect("few");
            let account = accounts.get(number);
            let name = String::from_utf8_lossy(accounts.name(number)).into_owned();
            let key = format!("{name}|{}", accounts.currency(number));
            (key, (i128::from(account.credits) - i128::from(account.debits), account.held))
        });
        rows.filter(|(_, (balance, held))| *balance != 0 || *held != 0).collect()
    }
}

fn random_entry(dice: &mut Dice, sent: &[Words], case: u64, only_transfers: bool) -> Words {
    if !sent.is_empty() && dice.roll(5) == 0 {
        let mut again = sent[dice.roll(sent.len() as u64) as usize].clone();
        if dice.roll(4) == 0 {
            again.amount += 1;
        }
        return again;
    }
    let id = format!("s:{case}-{}", dice.roll(1 << 20));
    let campaign = format!("campaign:{}", dice.roll(2));
    let person = format!("person:{}", dice.roll(5));
    let amount = 1 + dice.roll(40);
    let currency = if dice.roll(6) == 0 { "USD" } else { "CNY" };
    let of = if sent.is_empty() {
        Words::transfer("none", "a", "b", 1)
    } else {
        sent[dice.roll(sent.len() as u64) as usize].clone()
    };
    let mut words = match if only_transfers { 3 + dice.roll(9) } else { dice.roll(12) } {
        0 => Words { kind: TransferKind::Hold, ..Words::transfer(&id, &campaign, &person, amount) },
        1 => {
            let amount = if dice.roll(4) == 0 { amount } else { of.amount };
            let kind = if dice.roll(2) == 0 { TransferKind::Post } else { TransferKind::Void };
            Words { kind, of: of.id, ..Words::transfer(&id, "", "", amount) }
        }
        2 => Words {
            kind: TransferKind::Reverse,
            of: of.id,
            ..Words::transfer(&id, &of.credit, &of.debit, 1 + dice.roll(of.amount + 2))
        },
        3 => Words::transfer(&id, "funding:s", &campaign, 3 * amount),
        4 if !only_transfers => Words::transfer(&id, &person, "merchant:m", amount),
        _ => Words::transfer(&id, &campaign, &person, amount),
    };
    words.currency = currency;
    words
}

/// Random batches give the same answers and the same balances as the embedded ledger.
#[test]
fn agrees_with_the_embedded_ledger() {
    let mut dice = Dice(seed());
    let server = Postgres::start(Setup::default());
    let runtime = runtime();
    for case in 0..env_number("HONGBAO_PG_CASES", 6) {
        let database = format!("model{case}");
        let url = server.database(&database);
        let mut model = Model::default();
        let mut sent: Vec<Words> = Vec::new();
        runtime.block_on(async {
            migrate(&url).await.expect("migrated");
            let wallet = wallet(&url, 1);
            for _ in 0..60 {
                let mut words = Vec::new();
                let only_transfers = dice.roll(2) == 0;
                for _ in 0..=dice.roll(12) {
                    let entry = random_entry(&mut dice, &sent, case, only_transfers);
                    sent.push(entry.clone());
                    words.push(entry);
                }
                let expected = model.decide(&batch(&words));
                let got = send(&wallet, &words).await.expect("answers");
                assert_eq!(got, expected, "{words:#?}");
            }
        });
        must_balance(&server, &database);
        let rows = server.sql(
            &database,
            "SELECT name, currency, balance, held FROM hongbao_accounts WHERE balance <> 0 OR held <> 0",
        );
        let rows = rows.lines().map(|row| {
            let fields: Vec<&str> = row.split('|').collect();
            let number = |at: usize| fields[at].parse::<i128>().expect("a number");
            (format!("{}|{}", fields[0], fields[1]), (number(2), number(3) as u64))
        });
        assert_eq!(rows.collect::<BTreeMap<_, _>>(), model.balances());
    }
}

/// Two instances send the same ids at the same time, in different orders and cuts, over one hot account that runs
/// low again and again: each id moves money once, and nobody waits in a circle.
#[test]
fn two_instances_on_the_same_ids() {
    let server = Postgres::start(Setup::default());
    let seed = seed();
    for isolation in ["read committed", "serializable"] {
        let database = isolation.replace(' ', "_");
        let url = server.database(&database);
        let set = format!("ALTER DATABASE {database} SET default_transaction_isolation TO '{isolation}'");
        server.sql("postgres", &set);
        runtime().block_on(async {
            migrate(&url).await.expect("migrated");
            let (one, two) = tokio::join!(instance(&url, seed ^ 1), instance(&url, seed ^ 2));
            println!("{isolation}: paid as seen by each: {one}, {two}");
        });
        must_balance(&server, &database);
    }
    let log = server.log();
    println!("serialization failures: {}", log.matches("could not serialize access").count());
    assert_eq!(log.matches("deadlock detected").count(), 0, "rows are locked in one order");
}

/// The money of an id, the same whoever asks: mostly from the campaign, some between persons, some to a merchant.
fn movement(id: u64) -> Words {
    let person = |number: u64| format!("person:{}", number % 12);
    let (payer, payee) = match id % 7 {
        0 | 1 => (person(id), "merchant:m".to_owned()),
        2 => (person(id + 2), person(id + 4)),
        _ => ("campaign:c".to_owned(), person(id)),
    };
    Words::transfer(&format!("t{id}"), &payer, &payee, 1 + id % 400)
}

/// One of two instances; how many ids it saw paid.
async fn instance(url: &str, seed: u64) -> usize {
    let wallet = Arc::new(wallet(url, 4));
    let mut dice = Dice(seed);
    let mut paid: HashSet<u64> = HashSet::new();
    for round in 0..30u64 {
        let mut calls = Vec::new();
        for _ in 0..4 {
            // Payouts alone, collections alone, or all sorts.
            let sort = dice.roll(3);
            let wanted = |id: &u64| match sort {
                0 => id % 7 > 2,
                1 => id % 7 < 2,
                _ => true,
            };
            let ids: Vec<u64> = (0..200).map(|_| round * 100 + dice.roll(300)).filter(wanted).collect();
            let words: Vec<Words> = ids.iter().map(|id| movement(*id)).collect();
            let wallet = wallet.clone();
            calls.push((ids, tokio::spawn(async move { send_until_answered(&wallet, &words).await })));
        }
        let fund = [Words::transfer(&format!("f{round}"), "funding:s", "campaign:c", 20_000)];
        assert_eq!(send_until_answered(&wallet, &fund).await, [TransferStatus::Succeeded]);
        for (ids, call) in calls {
            for (id, status) in ids.into_iter().zip(call.await.expect("no panic")) {
                let low = TransferStatus::Failed(PayoutCode::LowBalance);
                assert!([TransferStatus::Succeeded, low].contains(&status), "{status:?}");
                if status == TransferStatus::Succeeded {
                    paid.insert(id);
                } else {
                    // Calls of one round overlap; what an earlier round learnt stands.
                    assert!(!paid.contains(&id) || id >= round * 100, "t{id} was paid, and is refused now");
                }
            }
        }
    }
    paid.len()
}

/// The same ids and bodies until there is an answer.
async fn send_until_answered(wallet: &PostgresWallet, words: &[Words]) -> Vec<TransferStatus> {
    loop {
        match send(wallet, words).await {
            Ok(statuses) => return statuses,
            Err(CallError::Unknown(reason)) => {
                assert!(reason.contains("rolled every attempt back"), "{reason}")
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// A burn and a first attempt at the same moment: one of them wins, and both are told which.
#[test]
fn a_burn_races_a_first_attempt() {
    let server = Postgres::start(Setup::default());
    let url = server.database("race");
    runtime().block_on(async {
        migrate(&url).await.expect("migrated");
        let (one, two) = (wallet(&url, 2), wallet(&url, 2));
        send(&one, &[Words::transfer("f", "funding:s", "campaign:c", 1_000_000)]).await.expect("funded");
        let mut dice = Dice(seed());
        let mut burned = 0;
        for round in 0..60 {
            let ids: Vec<String> = (0..100).map(|n| format!("r{round}-{n}")).collect();
            // Transfers are claimed by one statement, holds under locks.
            let kind = if round % 2 == 0 { TransferKind::Transfer } else { TransferKind::Hold };
            let word = |id: &String| Words { kind, ..Words::transfer(id, "campaign:c", "person:p", 1) };
            let words: Vec<Words> = ids.iter().map(word).collect();
            let call = tokio::spawn(one.transfer(batch(&words), DEADLINE));
            tokio::time::sleep(Duration::from_micros(dice.roll(8_000))).await;
            let other = tokio::spawn(two.burn(ids.clone(), DEADLINE));
            let paid = call.await.expect("no panic").expect("answers");
            let burns = other.await.expect("no panic").expect("answers");
            for (paid, burn) in paid.iter().zip(&burns) {
                assert_eq!(paid.status, burn.status, "both are told the same");
                burned += u64::from(burn.status == TransferStatus::Failed(PayoutCode::Burned));
            }
        }
        println!("burned {burned} of 6000");
    });
    must_balance(&server, "race");
}

/// A hold that is posted and voided at the same moment ends once; reversals of one transfer at the same moment never
/// take back more than was paid.
#[test]
fn a_hold_ends_once_and_a_transfer_is_reversed_once() {
    let server = Postgres::start(Setup::default());
    let url = server.database("ends");
    runtime().block_on(async {
        migrate(&url).await.expect("migrated");
        let (one, two) = (Arc::new(wallet(&url, 2)), Arc::new(wallet(&url, 2)));
        send(&*one, &[Words::transfer("f", "funding:s", "campaign:c", 1_000_000)]).await.expect("funded");
        // More stays set aside and paid than the race is about, so that no bound of an account can help.
        let spare =
            Words { kind: TransferKind::Hold, ..Words::transfer("spare", "campaign:c", "person:p", 5_000) };
        send(&*one, &[spare, Words::transfer("rich", "campaign:c", "person:p", 5_000)])
            .await
            .expect("answers");
        for round in 0..40 {
            let hold = format!("h{round}");
            let paid = format!("t{round}");
            let held =
                Words { kind: TransferKind::Hold, ..Words::transfer(&hold, "campaign:c", "person:p", 10) };
            send(&*one, &[held, Words::transfer(&paid, "campaign:c", "person:p", 10)])
                .await
                .expect("answers");
            let end = |kind, id: &str, of: &str, debit: &str, credit: &str| Words {
                kind,
                of: of.to_owned(),
                ..Words::transfer(&format!("{id}{round}"), debit, credit, 10)
            };
            let ends = [
                (one.clone(), end(TransferKind::Post, "post", &hold, "", "")),
                (two.clone(), end(TransferKind::Void, "void", &hold, "", "")),
                (one.clone(), end(TransferKind::Reverse, "back", &paid, "person:p", "campaign:c")),
                (two.clone(), end(TransferKind::Reverse, "again", &paid, "person:p", "campaign:c")),
            ];
            let calls =
                ends.map(|(wallet, words)| tokio::spawn(async move { send(&*wallet, &[words]).await }));
            let mut done = Vec::new();
            for call in calls {
                done.push(call.await.expect("no panic").expect("answers")[0] == TransferStatus::Succeeded);
            }
            assert!(done[0] != done[1] && done[2] != done[3], "round {round}: {done:?}");
        }
    });
    must_balance(&server, "ends");
}

/// Holds end by themselves while two instances post and void them, and pay out of what they set aside: each ends
/// once, what is free is paid, and nobody waits in a circle. More are due than one transaction voids.
#[test]
fn holds_expire_while_they_are_posted() {
    let server = Postgres::start(Setup::default());
    let url = server.database("expiring");
    let runtime = runtime();
    runtime.block_on(async {
        migrate(&url).await.expect("migrated");
        let (one, two) = (Arc::new(wallet(&url, 4)), Arc::new(wallet(&url, 4)));
        let campaign = |n: usize| format!("campaign:{}", n % 2);
        let held = |kind, id: String, n: usize, expires_in_s| Words {
            kind,
            expires_in_s,
            ..Words::transfer(&id, &campaign(n), &format!("person:{}", n % 7), 1)
        };
        let fund = [0, 1].map(|n| Words::transfer(&format!("f{n}"), "funding:s", &campaign(n), 1_500));
        send(&*one, &fund).await.expect("funded");
        let holds: Vec<Words> = (0..3_000).map(|n| held(TransferKind::Hold, format!("h{n}"), n, 1)).collect();
        for part in holds.chunks(1_000) {
            let statuses = send(&*one, part).await.expect("answers");
            assert!(statuses.iter().all(|status| *status == TransferStatus::Succeeded));
        }
        // The first 600 are ended by hand about when they expire.
        let mut calls = Vec::new();
        for (round, part) in (0..600).collect::<Vec<usize>>().chunks(30).enumerate() {
            let end = |n: &usize| {
                let kind = if n.is_multiple_of(3) { TransferKind::Void } else { TransferKind::Post };
                Words { kind, of: format!("h{n}"), ..Words::transfer(&format!("e{n}"), "", "", 1) }
            };
            let mut words: Vec<Words> = part.iter().map(end).collect();
            words.push(Words::transfer(&format!("t{round}"), &campaign(round), "person:q", 40));
            let wallets =
                if round % 2 == 0 { [one.clone(), two.clone()] } else { [two.clone(), one.clone()] };
            for wallet in wallets {
                let words = words.clone();
                calls.push(tokio::spawn(async move { send_until_answered(&wallet, &words).await }));
            }
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        for call in calls {
            call.await.expect("no panic");
        }
    });
    let free = |campaign: &str| {
        let balance = format!("SELECT balance FROM hongbao_accounts WHERE name = '{campaign}'");
        server.sql("expiring", &balance).parse::<u64>().expect("a number")
    };
    let wallet = wallet(&url, 1);
    for n in 0..2 {
        let campaign = format!("campaign:{n}");
        let rest = Words::transfer(&format!("rest{n}"), &campaign, "person:q", free(&campaign));
        runtime.block_on(async {
            let paid = answer_until_paid(&wallet, &rest).await;
            assert_eq!(paid, TransferStatus::Succeeded);
        });
    }
    let left = "SELECT count(*) FROM hongbao_expiries; SELECT sum(held) FROM hongbao_accounts";
    assert_eq!(server.sql("expiring", left), "0\n0");
    // A hold is posted by as many entries as moved its money.
    let posts = "SELECT count(*) FROM hongbao_transfers WHERE kind = 3 AND code IS NULL
        UNION SELECT count(*) FROM hongbao_transfers WHERE hold = 2";
    let posted = server.sql("expiring", posts);
    println!("posted before they expired: {posted}");
    assert_eq!(posted.lines().count(), 1, "{posted}");
    assert_eq!(server.log().matches("deadlock detected").count(), 0, "rows are locked in one order");
    must_balance(&server, "expiring");
}

async fn answer_until_paid(wallet: &PostgresWallet, words: &Words) -> TransferStatus {
    let began = std::time::Instant::now();
    loop {
        let status = send(wallet, std::slice::from_ref(words)).await.expect("answers")[0];
        if status != TransferStatus::Failed(PayoutCode::LowBalance) || began.elapsed() > support::PATIENCE {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The server dies under load at random moments. Every id that was answered is there, once, and the books balance;
/// what was unknown is settled by sending it again.
#[test]
fn the_server_is_killed_under_load() {
    let mut server = Postgres::start(Setup { fsync: true, ..Setup::default() });
    let url = server.database("kill");
    let mut dice = Dice(seed());
    let runtime = runtime();
    runtime.block_on(async {
        migrate(&url).await.expect("migrated");
        send(&wallet(&url, 1), &[Words::transfer("f", "funding:s", "campaign:c", 1 << 50)])
            .await
            .expect("funded");
    });
    let wallet = Arc::new(wallet(&url, 4));
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let (wallet, stop, answered) = (wallet.clone(), stop.clone(), answered.clone());
            runtime.spawn(async move {
                let (mut sent, mut unknown) = (0u64, 0u64);
                while !stop.load(Ordering::Relaxed) {
                    let word = |n| {
                        Words::transfer(
                            &format!("k{worker}-{sent}-{n}"),
                            "campaign:c",
                            &format!("person:{n}"),
                            3,
                        )
                    };
                    let words: Vec<Words> = (0..50).map(word).collect();
                    // The same ids and bodies until there is an answer.
                    let began = std::time::Instant::now();
                    loop {
                        assert!(began.elapsed() < support::PATIENCE, "no answer for batch {worker}-{sent}");
                        match send(&*wallet, &words).await {
                            Ok(statuses) => {
                                assert!(statuses.iter().all(|status| *status == TransferStatus::Succeeded));
                                break;
                            }
                            Err(CallError::Unknown(_) | CallError::Overloaded { .. }) => unknown += 1,
                            Err(other) => panic!("{other:?}"),
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    sent += 1;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                (sent, unknown)
            })
        })
        .collect();
    for _ in 0..env_number("HONGBAO_PG_KILLS", 2) {
        let before = answered.load(Ordering::Relaxed);
        let wanted = before + 5 + dice.roll(60);
        await_until("transfers under way", support::PATIENCE, || {
            (answered.load(Ordering::Relaxed) >= wanted).then_some(())
        });
        std::thread::sleep(Duration::from_micros(dice.roll(20_000)));
        server.kill_hard();
        server.restart();
    }
    stop.store(true, Ordering::Relaxed);
    let (mut batches, mut unknown) = (0, 0);
    for worker in workers {
        let (sent, unsure) = runtime.block_on(worker).expect("no panic");
        batches += sent;
        unknown += unsure;
    }
    println!("{batches} batches answered, {unknown} attempts without an answer");
    must_balance(&server, "kill");
    let rows = server.sql("kill", "SELECT count(*), sum(amount) FROM hongbao_transfers WHERE id LIKE 'k%'");
    assert_eq!(rows, format!("{}|{}", batches * 50, batches * 150));
    let paid = server.sql("kill", "SELECT sum(balance) FROM hongbao_accounts WHERE name LIKE 'person:%'");
    assert_eq!(paid, (batches * 150).to_string());
}

/// A call that is given up leaves no transaction and no lock behind.
#[test]
fn a_dropped_call_leaves_nothing_behind() {
    let server = Postgres::start(Setup::default());
    let url = server.database("dropped");
    runtime().block_on(async {
        migrate(&url).await.expect("migrated");
        let wallet = wallet(&url, 2);
        send(&wallet, &[Words::transfer("f", "funding:s", "campaign:c", 100)]).await.expect("funded");
        send(&wallet, &[Words::transfer("a", "campaign:c", "person:p", 1)]).await.expect("paid");
        // Somebody else holds the account for a while.
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connected");
        tokio::spawn(connection);
        client.batch_execute("BEGIN; SELECT * FROM hongbao_accounts FOR UPDATE").await.expect("locked");
        let hold = Words { kind: TransferKind::Hold, ..Words::transfer("h", "campaign:c", "person:p", 1) };
        for words in [Words::transfer("b", "campaign:c", "person:p", 1), hold] {
            let short = Duration::from_millis(100);
            let result = wallet.transfer(batch(&[words]), short).await;
            assert!(matches!(result, Err(CallError::TimedOut { .. } | CallError::Unknown(_))), "{result:?}");
        }
        for kind in [TransferKind::Transfer, TransferKind::Hold] {
            let words = Words { kind, ..Words::transfer("c", "campaign:c", "person:p", 1) };
            let call = wallet.transfer(batch(&[words]), DEADLINE);
            assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
        }
        // Long before the server would have given them up by itself.
        let ours =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hongbao' AND state <> 'idle'";
        await_until("the end of what was given up", DEADLINE / 4, || {
            (server.sql("dropped", ours) == "0").then_some(())
        });
        client.batch_execute("ROLLBACK").await.expect("released");
        for id in ["b", "c"] {
            let paid = send(&wallet, &[Words::transfer(id, "campaign:c", "person:p", 1)]).await;
            assert_eq!(paid.expect("answers"), [TransferStatus::Succeeded]);
        }
    });
    must_balance(&server, "dropped");
}

fn migrate_command(url: &str) -> support::Said {
    support::run(&["migrate", "--set", &format!("stored_value.postgres.url={url}")])
}

/// What stood in a wallet before holds could expire stands in it after, and goes on.
fn version_1_goes_on_as_version_2(server: &Postgres, url: &str, runtime: &tokio::runtime::Runtime) {
    let must_answer = |steps: &[(&str, &str)]| {
        runtime.block_on(async {
            let wallet = wallet(url, 1);
            for (line, expected) in steps {
                assert_eq!(answer_words(&wallet, line).await, *expected, "{line}");
            }
        });
    };
    must_answer(&[
        ("transfer f funding:s campaign:c 100; transfer a campaign:c person:p 20", "ok ok"),
        (
            "hold h campaign:c person:p 30; hold g campaign:c person:p 50; transfer d campaign:c person:q 1",
            "ok ok low_balance",
        ),
    ]);
    let all = "SELECT * FROM hongbao_transfers ORDER BY id; SELECT * FROM hongbao_accounts ORDER BY 1, 2;
        SELECT identity FROM hongbao_schema";
    let before = server.sql("fresh", all);
    server.sql("fresh", "DROP TABLE hongbao_expiries; UPDATE hongbao_schema SET version = 1");
    let refused = runtime.block_on(wallet(url, 1).identity());
    assert!(
        matches!(&refused, Err(CallError::Rejected(text)) if text.contains("version 1") && text.contains("hongbao migrate")),
        "{refused:?}"
    );
    let refused =
        runtime.block_on(send(&wallet(url, 1), &[Words::transfer("b", "campaign:c", "person:p", 1)]));
    assert!(matches!(refused, Err(CallError::Rejected(_))), "{refused:?}");
    let report = runtime.block_on(migrate(url)).expect("migrated");
    assert_eq!((report.from, report.to), (1, VERSION));
    assert_eq!(server.sql("fresh", all), before);
    must_answer(&[
        ("transfer a campaign:c person:p 20; post p - - 30 CNY h; void v - - 50 CNY g", "ok ok ok"),
        ("hold e campaign:c person:p 50 CNY - 1", "ok"),
        ("until transfer b campaign:c person:p 50", "ok"),
    ]);
    // A release that knows nothing of expiries leaves the row of a hold that it ended.
    let stale = "INSERT INTO hongbao_expiries VALUES ('h', 'campaign:c', 'CNY', now() - interval '1 minute')";
    server.sql("fresh", stale);
    must_answer(&[("transfer c campaign:c person:p 1", "low_balance")]);
    must_balance(server, "fresh");
}

#[test]
fn migrations_and_refusals() {
    let server =
        Postgres::start(Setup { settings: vec!["max_connections=12".to_owned()], ..Setup::default() });
    let url = server.database("fresh");
    let runtime = runtime();
    let ask = |url: &str| runtime.block_on(wallet(url, 1).identity());
    assert!(matches!(ask(&url), Err(CallError::Rejected(text)) if text.contains("hongbao migrate")));
    assert!(
        matches!(ask(&server.url("absent")), Err(CallError::Rejected(text)) if text.contains("does not exist"))
    );

    let reports = runtime.block_on(async {
        let all = [(); 5].map(|()| {
            tokio::spawn({
                let url = url.clone();
                async move { migrate(&url).await }
            })
        });
        let mut reports = Vec::new();
        for one in all {
            reports.push(one.await.expect("no panic").expect("migrated"));
        }
        reports
    });
    assert_eq!(
        reports.iter().filter(|report| report.from == 0).count(),
        1,
        "one of them made it: {reports:?}"
    );
    assert!(reports.iter().all(|report| report.to == VERSION && report.identity == reports[0].identity));
    assert_eq!(ask(&url), Ok(reports[0].identity.clone()));

    let said = migrate_command(&url);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("already") && said.out.contains(&reports[0].identity), "{said:?}");
    let said = support::run(&["migrate"]);
    assert!(said.code == Some(2) && said.err.contains("stored_value.postgres.url"), "{said:?}");

    version_1_goes_on_as_version_2(&server, &url, &runtime);
    server.sql("fresh", "UPDATE hongbao_schema SET version = 0");
    assert!(matches!(ask(&url), Err(CallError::Rejected(text)) if text.contains("hongbao migrate")));
    server.sql("fresh", "UPDATE hongbao_schema SET version = 77");
    assert!(matches!(ask(&url), Err(CallError::Rejected(text)) if text.contains("77")));
    let newer = runtime.block_on(migrate(&url)).expect_err("a newer schema");
    assert!(matches!(newer, MigrateError::Newer { found: 77, .. }), "{newer:?}");
    assert!(!newer.to_string().contains("secret"), "{newer}");
    server.sql("fresh", &format!("UPDATE hongbao_schema SET version = {VERSION}"));

    server.sql(
        "postgres",
        "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'",
    );
    let latin = runtime.block_on(migrate(&server.url("latin"))).expect_err("another encoding");
    assert!(matches!(&latin, MigrateError::Encoding { found, .. } if found == "LATIN1"), "{latin:?}");

    // Every connection but those of superusers is taken; a role of ours gets none.
    server.sql("fresh", "CREATE ROLE payer LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO payer");
    let payer = url.replace("postgres:secret@", "payer:secret@");
    assert!(ask(&payer).is_ok());
    runtime.block_on(async {
        let mut held = Vec::new();
        while let Ok((client, connection)) = tokio_postgres::connect(&payer, tokio_postgres::NoTls).await {
            tokio::spawn(connection);
            held.push(client);
        }
        let refused = wallet(&payer, 1).identity().await;
        assert!(matches!(refused, Err(CallError::Overloaded { .. })), "{refused:?}");
    });
    server.sql("fresh", "ALTER DATABASE fresh SET default_transaction_read_only = on");
    let refused =
        runtime.block_on(send(&wallet(&url, 1), &[Words::transfer("a", "funding:s", "person:p", 1)]));
    assert!(matches!(&refused, Err(CallError::Unknown(text)) if text.contains("standby")), "{refused:?}");
}

#[test]
fn urls_are_refused_without_telling_the_password() {
    let table = [
        ("postgres://u:hunter2@h/d?sslmode=require", "sslmode=require"),
        ("postgres://u:hunter2@h:port/d", "port"),
        ("postgres://u:hunter2@h/d?sslmode=maybe", "sslmode"),
        ("user=u password=hunter2 huh dbname=d", "cannot be read"),
        ("postgres://u:hunter2@/d?hunter2=1", "cannot be read"),
        ("user=u password=hunter2", "no host"),
    ];
    for (url, expected) in table {
        let options = PostgresOptions { url: url.to_owned(), connections_max: 1 };
        assert!(!format!("{options:?}").contains("hunter2"));
        let error: PostgresSetupError =
            PostgresWallet::new(&options).err().unwrap_or_else(|| panic!("{url}"));
        let text = format!("{error} {error:?}");
        assert!(text.contains(expected) && !text.contains("hunter2"), "{url}: {text}");
    }
}
