//! The service over a wallet in PostgreSQL: SIGKILL of either side at random moments, and what a missing schema says.

use serde_json::json;

use crate::support::postgres::{Postgres, Setup as Database};
use crate::support::{Dice, PATIENCE, Server, Setup, await_until, call, env_number, hongbao, seed};
use crate::{metric, must_be_paid};

fn migrate(url: &str) -> std::process::Output {
    let set = format!("stored_value.postgres.url={url}");
    hongbao()
        .args(["migrate", "--set", "stored_value.kind=postgres", "--set", &set])
        .args(["--set", "shaping.transfers_per_s=20000"])
        .output()
        .unwrap()
}

fn await_final(service: &Server) {
    await_until("everything to be final", PATIENCE, || {
        let ready = call(&service.address, "GET /readyz", "").ok()?.body;
        (ready["backlog"] == "0" && ready["parked"] == "0").then_some(())
    });
}

#[test]
fn kills_of_the_service_and_of_the_database() {
    let kills = env_number("HONGBAO_KILLS", 4);
    let mut dice = Dice(seed());
    let mut database = Postgres::start(Database { fsync: true, ..Database::default() });
    let url = database.database("wallet");
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(&folder.path().join("data"))
        .set("stored_value.kind=postgres")
        .set(&format!("stored_value.postgres.url={url}"))
        .set("stored_value.deadline_ms=1000")
        .set("stored_value.batch_count_max=100")
        .set("stored_value.calls_max=4")
        .set("shaping.transfers_per_s=20000")
        .set("log.filter=error")
        .set("parking.retry_ms=200");
    // Without its schema, the wallet says what to do, and the door is open all the same.
    let mut service = setup.start();
    service.must("PUT /v1/campaigns/k", r#"{"budget":1000000000,"currency":"CNY"}"#, 200);
    let migrated = migrate(&url);
    assert!(migrated.status.success(), "{migrated:?}");
    service.must("POST /v1/campaigns/k/fund", r#"{"id":"fund-k","amount":1000000000}"#, 200);
    let mut acks = Vec::new();
    for kill in 0..kills {
        let items: Vec<_> = (0..2_000)
            .map(|n| json!({"id": format!("k{kill}-{n}"), "payee": format!("p{}", n % 500), "amount": 3}))
            .collect();
        acks.extend((0..2_000).map(|n| (format!("k{kill}-{n}"), 3)));
        let body = json!({"id": format!("b{kill}"), "campaign": "k", "currency": "CNY", "total_count": 2_000,
            "total_amount": 6_000, "items": items});
        service.must("POST /v1/batches", &body.to_string(), 202);
        let paid = |service: &Server| metric(service, "hongbao_outcomes_total{status=\"SUCCEEDED\"}");
        let until = paid(&service) + dice.roll(1_500) as f64;
        await_until("some to be paid", PATIENCE, || (paid(&service) >= until).then_some(()));
        if dice.roll(2) == 0 {
            println!("kill {kill}: the service");
            service.kill();
            service = setup.start();
        } else {
            println!("kill {kill}: the database");
            database.kill_hard();
            database.restart();
        }
        await_final(&service);
    }
    service.end_well();
    must_be_paid(&setup, &acks);
    let sums = database.sql("wallet", "SELECT sum(balance) FROM hongbao_accounts");
    assert_eq!(sums.trim(), "0", "money came or went");
    let spent =
        database.sql("wallet", "SELECT balance FROM hongbao_accounts WHERE name = 'campaign:default:k'");
    assert_eq!(spent.trim(), (1_000_000_000 - 3 * acks.len()).to_string(), "paid twice?");
}
