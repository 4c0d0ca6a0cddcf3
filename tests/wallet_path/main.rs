//! The real service and the real reference wallet, two processes and what goes wrong between them: replies lost,
//! requests lost, black holes, a wallet that freezes, a payee that holds up its batch, kills on either side, and the
//! race of a late first attempt against a burn.
//!
//! However it goes, the audit asks the wallet for every id: nothing acknowledged is lost, nobody is paid twice. Counts
//! come from the environment: `HONGBAO_WALLET_COUNT` (20,000), `HONGBAO_KILLS` (4), `HONGBAO_FREEZE_S` (3).

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod kills;
mod postgres;
mod race;
mod reconcile;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Server, Setup, await_until, call, hongbao};

/// How long everything that was accepted may take to be final.
const SETTLE_MAX: Duration = Duration::from_secs(600);

/// A wallet and a service that pays through it.
pub struct Scene {
    folder: tempfile::TempDir,
    pub wallet: Option<Server>,
    pub service: Option<Server>,
    pub setup: Setup,
    /// What was acknowledged: id and amount.
    pub acks: Vec<(String, u64)>,
}

pub fn start_wallet(data: &Path, listen: &str, faults: &[&str]) -> Server {
    let mut command = hongbao();
    command.args(["wallet", "--listen", listen, "--set", "log.filter=error", "--data"]).arg(data);
    for fault in faults {
        command.args(["--fault", fault]);
    }
    Server::listening(command, data).unwrap_or_else(|said| panic!("the wallet did not start: {said:?}"))
}

impl Scene {
    /// A wallet, and a service that reaches it at `address` if given (a proxy), else directly; one funded campaign.
    pub fn start(faults: &[&str], sets: &[&str], proxy: impl FnOnce(&str) -> String) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let wallet = start_wallet(&folder.path().join("wallet"), "127.0.0.1:0", faults);
        let url = format!("http://{}", proxy(&wallet.address));
        let mut setup = Setup::new(&folder.path().join("data"))
            .set("stored_value.kind=http")
            .set(&format!("stored_value.http.url={url}"))
            .set("shaping.transfers_per_s=50000")
            .set("parking.retry_ms=200")
            .set("log.filter=error");
        for set in sets {
            setup = setup.set(set);
        }
        let service = setup.start();
        let scene = Scene { folder, wallet: Some(wallet), service: Some(service), setup, acks: Vec::new() };
        scene.service().campaign("k", 1 << 50, 1 << 50);
        scene
    }

    pub fn service(&self) -> &Server {
        self.service.as_ref().expect("the service runs")
    }

    pub fn wallet(&self) -> &Server {
        self.wallet.as_ref().expect("the wallet runs")
    }

    pub fn wallet_data(&self) -> PathBuf {
        self.folder.path().join("wallet")
    }

    pub fn set_faults(&self, faults: Value) {
        self.wallet().must("PUT /faults", &faults.to_string(), 200);
    }

    pub fn received(&self) -> Value {
        self.wallet().must("GET /received", "", 200)["totals"].clone()
    }

    /// Has `count` payouts accepted, to a payee each as `payee` says, in batches.
    pub fn pay(&mut self, prefix: &str, count: u64, payee: impl Fn(u64) -> String) {
        let mut sent = 0;
        while sent < count {
            let size = (count - sent).min(5_000);
            let items: Vec<Value> = (sent..sent + size)
                .map(|n| json!({"id": format!("{prefix}-{n}"), "payee": payee(n), "amount": 1 + n % 100}))
                .collect();
            let total: u64 = (sent..sent + size).map(|n| 1 + n % 100).sum();
            let body = json!({"id": format!("b-{prefix}-{sent}"), "campaign": "k", "currency": "CNY",
                "total_count": size, "total_amount": total, "items": items});
            let answer = self.service().must("POST /v1/batches", &body.to_string(), 202);
            assert_eq!(answer["refused_count"], 0, "{answer}");
            self.acks.extend((sent..sent + size).map(|n| (format!("{prefix}-{n}"), 1 + n % 100)));
            sent += size;
        }
    }

    pub fn await_final(&self) {
        await_until("everything to be final", SETTLE_MAX, || {
            let ready = call(&self.service().address, "GET /readyz", "").ok()?.body;
            (ready["backlog"] == "0" && ready["parked"] == "0").then_some(())
        });
    }

    /// Stops the service in order, and audits its folder against the wallet.
    pub fn must_agree(mut self) {
        self.service.take().unwrap().end_well();
        self.set_faults(
            json!({"drop_after_rate": 0, "drop_before_rate": 0, "timeout_rate": 0, "error_rate": 0}),
        );
        let url = format!("stored_value.http.url=http://{}", self.wallet().address);
        must_be_paid(&self.setup.clone().set(&url), &self.acks);
        let paid: u64 = self.acks.iter().map(|(_, amount)| amount).sum();
        let accounts = self.wallet().must("GET /balances?account=campaign:default:k", "", 200);
        assert_eq!(accounts["accounts"][0]["balance"], (1u64 << 50) - paid, "paid twice? {accounts}");
    }
}

/// Audits a folder at rest against the wallet of its settings: every acknowledged request, and the funding, succeeded.
pub fn must_be_paid(setup: &Setup, acks: &[(String, u64)]) {
    let file = setup.data.with_extension("acks");
    let lines: String = acks.iter().map(|(id, amount)| format!("default {id} {amount}\n")).collect();
    std::fs::write(&file, lines).unwrap();
    let mut audit = hongbao();
    audit.args(["audit", "--json", "--drained", "--data"]).arg(&setup.data).arg("--acks").arg(&file);
    for set in &setup.sets {
        audit.args(["--set", set]);
    }
    let output = audit.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "the audit found a breach: {text} {said}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["wallet"]["elsewhere"]["asked"], acks.len() + 1, "{report:#}");
    assert_eq!(report["acks"]["missing"], 0, "{report:#}");
    assert_eq!(report["succeeded"], acks.len() + 1, "a payable item failed: {report:#}");
}

/// What a metric of the service says.
pub fn metric(server: &Server, name: &str) -> f64 {
    let text = server.call("GET /metrics", "").text;
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_else(|| panic!("{name}: {text}"))
}

/// Seconds since `began`, for the figures that tests print.
pub fn seconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64()
}
