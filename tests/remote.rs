//! Settlement at a wallet elsewhere, over the whole service and a wallet in this test that can be made to fail:
//! replies lost after execution, requests lost before it, silence, a payee that holds up its batch, a bound on the
//! batch. However it fails, every request is paid once, and the service's books are the wallet's.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hongbao::app::{Extras, Service};
use hongbao::config::{Sources, load};
use hongbao::digest::Stamper;
use hongbao::domain::{
    Amount, Campaign, Currency, Kind, Lane, PayoutCode, Refusal, Request, Status, TransferKind,
    TransferStatus,
};
use hongbao::intake::desk::{CampaignChange, Decision};
use hongbao::stored_value::TransferBatch;
use hongbao::stored_value::remote::{Answer, CallError, OnRecord, RemoteWallet, Reply};

/// How the wallet behaves; changed while it runs.
#[derive(Clone, Default)]
struct Mood {
    /// Calls in a hundred that execute and whose reply is lost.
    lost_after: u64,
    /// Calls in a hundred that are lost before they execute.
    lost_before: u64,
    silent: bool,
    unauthorized: bool,
    /// Does not say who it is.
    anonymous: bool,
    /// Burns are never answered; whether they are carried out all the same.
    burns_silent: bool,
    /// A call with this payee answers never.
    slow_payee: Option<String>,
    entries_max: usize,
    latency: Duration,
}

#[derive(Default)]
struct Books {
    /// By id: what moved, or `None` for a burned one.
    records: HashMap<String, Option<(String, u64)>>,
    balances: HashMap<String, i64>,
    executions: HashMap<String, u32>,
}

#[derive(Clone, Default)]
struct TestWallet {
    mood: Arc<Mutex<Mood>>,
    books: Arc<Mutex<Books>>,
    calls: Arc<AtomicU64>,
    entries: Arc<AtomicU64>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl TestWallet {
    fn mood(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut self.mood.lock().unwrap());
    }

    fn execute(&self, batch: &TransferBatch) -> Vec<Answer> {
        let mut books = self.books.lock().unwrap();
        let mut decide = |transfer: hongbao::domain::Transfer<'_>| {
            let (id, amount) = (text(transfer.id), transfer.amount.minor_units());
            match books.records.get(&id) {
                Some(None) => return TransferStatus::Failed(PayoutCode::Burned),
                Some(Some((_, held))) if *held != amount => {
                    return TransferStatus::Failed(PayoutCode::IdConflict);
                }
                Some(Some(_)) => return TransferStatus::Succeeded,
                None => {}
            }
            let (debit, credit) = (text(transfer.debit), text(transfer.credit));
            let balance = books.balances.entry(debit.clone()).or_default();
            if *balance < amount as i64 && !debit.starts_with("funding:") {
                return TransferStatus::Failed(PayoutCode::LowBalance);
            }
            *balance -= amount as i64;
            *books.balances.entry(credit.clone()).or_default() += amount as i64;
            *books.executions.entry(id.clone()).or_default() += 1;
            books.records.insert(id, Some((credit, amount)));
            TransferStatus::Succeeded
        };
        batch
            .iter()
            .map(|transfer| {
                assert_ne!(transfer.kind, TransferKind::Burn, "burns have a call of their own");
                let wallet_ref = format!("w-{}", text(transfer.id));
                Answer { status: decide(transfer), wallet_ref }
            })
            .collect()
    }
}

impl RemoteWallet for TestWallet {
    fn identity(&self) -> Reply<String> {
        let anonymous = self.mood.lock().unwrap().anonymous;
        Box::pin(async move {
            if anonymous {
                return Err(CallError::Unknown("refused".to_owned()));
            }
            Ok("7a2c3c7e-0000-4000-8000-000000000001".to_owned())
        })
    }

    fn transfer(&self, batch: Arc<TransferBatch>, deadline: Duration) -> Reply<Vec<Answer>> {
        let wallet = self.clone();
        Box::pin(async move {
            let mood = wallet.mood.lock().unwrap().clone();
            let number = wallet.calls.fetch_add(1, Ordering::Relaxed);
            wallet.entries.fetch_add(batch.len() as u64, Ordering::Relaxed);
            let timed_out = CallError::TimedOut { after_ms: deadline.as_millis() as u64 };
            // Spread over the hundred, the same in every run.
            let dice = number.wrapping_mul(37) % 100;
            if mood.unauthorized {
                return Err(CallError::Unauthorized("401".to_owned()));
            }
            if mood.entries_max > 0 && batch.len() > mood.entries_max {
                return Err(CallError::TooLarge("413".to_owned()));
            }
            if mood.silent || dice < mood.lost_before {
                tokio::time::sleep(deadline).await;
                return Err(timed_out);
            }
            tokio::time::sleep(mood.latency).await;
            let answers = wallet.execute(&batch);
            let slow = mood.slow_payee.map(|payee| format!("person:{payee}"));
            let held_up = batch.iter().any(|t| slow.as_ref().is_some_and(|s| s.as_bytes() == t.credit));
            if held_up {
                tokio::time::sleep(deadline).await;
                return Err(timed_out);
            }
            if dice >= 100 - mood.lost_after {
                return Err(CallError::Unknown("the connection was reset".to_owned()));
            }
            Ok(answers)
        })
    }

    fn burn(&self, ids: Vec<String>, deadline: Duration) -> Reply<Vec<Answer>> {
        let wallet = self.clone();
        Box::pin(async move {
            if wallet.mood.lock().unwrap().burns_silent {
                tokio::time::sleep(deadline).await;
                return Err(CallError::TimedOut { after_ms: deadline.as_millis() as u64 });
            }
            let mut books = wallet.books.lock().unwrap();
            let answers = ids.into_iter().map(|id| {
                let status = match books.records.entry(id).or_insert(None) {
                    None => TransferStatus::Failed(PayoutCode::Burned),
                    Some(_) => TransferStatus::Succeeded,
                };
                Answer { status, wallet_ref: String::new() }
            });
            Ok(answers.collect())
        })
    }

    fn lookup(&self, _ids: Vec<String>, _deadline: Duration) -> Reply<Vec<Option<OnRecord>>> {
        Box::pin(async { Err(CallError::Unknown("not offered".to_owned())) })
    }
}

struct Scene {
    service: Option<Service>,
    wallet: TestWallet,
    runtime: tokio::runtime::Runtime,
    stamper: Stamper,
    sets: Vec<String>,
    _folder: tempfile::TempDir,
}

fn amount(minor_units: u64) -> Amount {
    Amount::new(minor_units).unwrap()
}

impl Scene {
    fn start(sets: &[&str]) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let mut all = vec![
            format!("data.dir={}", folder.path().join("data").display()),
            "data.segment_bytes=8388608".to_owned(),
            "stored_value.kind=http".to_owned(),
            "stored_value.http.url=http://unused".to_owned(),
            "stored_value.batch_count_max=100".to_owned(),
            "stored_value.deadline_ms=300".to_owned(),
            "shaping.transfers_per_s=50000".to_owned(),
            "parking.retry_ms=50".to_owned(),
        ];
        all.extend(sets.iter().map(|set| (*set).to_owned()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let wallet = TestWallet::default();
        wallet.mood(|mood| mood.latency = Duration::from_millis(1));
        let mut scene =
            Scene { service: None, wallet, runtime, stamper: Stamper::default(), sets: all, _folder: folder };
        scene.restart();
        scene
    }

    fn restart(&mut self) {
        if let Some(service) = self.service.take() {
            service.stop(Duration::from_secs(20)).unwrap();
        }
        let config = load(&Sources { sets: self.sets.clone(), ..Sources::default() }).unwrap();
        let extras = Extras { wallet: Some(Arc::new(self.wallet.clone())), ..Extras::default() };
        self.service = Some(Service::start(config, extras).unwrap());
    }

    fn service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }

    fn open(&mut self, funded: u64) {
        let currency = Currency::parse("CNY").unwrap();
        let campaign = Campaign::new("shop", "c", currency, amount(1 << 40));
        let change = CampaignChange::Put(Box::new(campaign));
        self.runtime.block_on(self.service().desk.campaign("shop", "c", Some(change))).unwrap();
        self.fund("fund", funded);
        self.await_status("fund", Status::Succeeded);
    }

    fn fund(&mut self, id: &str, funded: u64) {
        let request =
            Request::new(Kind::Fund, "shop", id, "c", amount(funded), Currency::parse("CNY").unwrap());
        let fund = self.stamper.encode(request);
        self.submit(vec![fund]);
    }

    fn request(&mut self, id: &str, party: &str) -> Vec<u8> {
        let currency = Currency::parse("CNY").unwrap();
        let request = Request::new(Kind::Disbursement, "shop", id, "c", amount(2), currency);
        self.stamper.encode(Request { party, ..request })
    }

    fn pay(&mut self, from: u64, count: u64) {
        let requests: Vec<Vec<u8>> =
            (from..from + count).map(|n| self.request(&format!("r-{n}"), &format!("p-{n}"))).collect();
        for batch in requests.chunks(1_000) {
            self.submit(batch.to_vec());
        }
    }

    fn submit(&self, requests: Vec<Vec<u8>>) {
        let decisions = self.runtime.block_on(self.service().desk.submit(None, requests)).unwrap();
        assert!(decisions.iter().all(|decision| matches!(decision, Decision::Accepted { .. })));
    }

    fn status(&self, id: &str) -> Option<Status> {
        let ids = [id.to_owned()];
        let found = self.runtime.block_on(async { self.service().desk.find("shop", &ids).await }).unwrap();
        found[0].as_ref().map(|held| held.outcome().map_or(Status::Accepted, |outcome| outcome.status))
    }

    fn await_status(&self, id: &str, status: Status) {
        self.await_that(&format!("{id} to be {status:?}"), |scene| scene.status(id) == Some(status));
    }

    fn await_that(&self, what: &str, mut holds: impl FnMut(&Scene) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    fn succeeded(&self) -> u64 {
        let counts = &self.service().pipeline.settled.by_status;
        counts[Status::Succeeded as usize - 1].load(Ordering::Relaxed)
    }

    fn await_drained(&self) {
        self.await_that("everything to be final", |scene| {
            scene.service().desk.counts().backlog == 0 && scene.service().desk.parking().is_empty()
        });
    }

    /// Every id of `0..count` was paid exactly once, at the wallet and in our books.
    fn check_paid(&self, count: u64) {
        let books = self.wallet.books.lock().unwrap();
        for n in 0..count {
            assert_eq!(books.executions.get(&format!("shop:r-{n}")), Some(&1), "r-{n} at the wallet");
        }
        assert_eq!(books.balances.values().sum::<i64>(), 0);
        let paid: i64 =
            books.balances.iter().filter(|(name, _)| name.starts_with("person:")).map(|(_, b)| b).sum();
        drop(books);
        let wrong: HashSet<_> = (0..count)
            .map(|n| (n, self.status(&format!("r-{n}"))))
            .filter(|(_, s)| *s != Some(Status::Succeeded))
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        let standing = self.runtime.block_on(self.service().desk.campaign("shop", "c", None)).unwrap();
        assert_eq!(standing.books.spent, paid as u64, "our books are the wallet's");
    }
}

#[test]
fn lost_replies_and_lost_requests_pay_everybody_once_with_few_touches() {
    let mut scene = Scene::start(&[]);
    scene.open(1_000_000);
    scene.wallet.mood(|mood| (mood.lost_after, mood.lost_before) = (10, 5));
    let before = scene.wallet.entries.load(Ordering::Relaxed);
    scene.pay(0, 20_000);
    scene.await_drained();
    scene.check_paid(20_000);
    let touches = (scene.wallet.entries.load(Ordering::Relaxed) - before) as f64 / 20_000.0;
    assert!(touches > 1.05 && touches < 1.35, "{touches} touches a transfer");
}

#[test]
fn silence_holds_everything_back_and_loses_nothing() {
    let mut scene = Scene::start(&[]);
    scene.open(1_000_000);
    scene.wallet.mood(|mood| mood.silent = true);
    scene.pay(0, 3_000);
    let calls = scene.wallet.calls.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(3));
    let made = scene.wallet.calls.load(Ordering::Relaxed) - calls;
    assert!(made <= 30, "{made} calls in three seconds at a wallet that is silent");
    assert!(scene.service().desk.parking().is_empty(), "an outage parks nothing");
    scene.wallet.mood(|mood| mood.silent = false);
    scene.await_drained();
    scene.check_paid(3_000);
}

#[test]
fn refused_credentials_stop_the_feed_until_they_are_mended() {
    let mut scene = Scene::start(&[]);
    scene.open(1_000_000);
    scene.wallet.mood(|mood| mood.unauthorized = true);
    scene.pay(0, 500);
    scene.await_that("the stop to be told", |scene| {
        matches!(
            scene.service().pipeline.remote.state(),
            hongbao::pipeline::remote::gate::GateState::Stopped(_)
        )
    });
    scene.wallet.mood(|mood| mood.unauthorized = false);
    scene.await_drained();
    scene.check_paid(500);
}

#[test]
fn one_payee_that_holds_up_its_batch_waits_alone() {
    let mut scene = Scene::start(&["stored_value.batch_count_max=50"]);
    scene.open(1_000_000);
    scene.pay(0, 500);
    scene.await_drained();
    scene.wallet.mood(|mood| mood.slow_payee = Some("p-777".to_owned()));
    scene.pay(500, 5_000);
    scene.await_that("all others to be paid", |scene| scene.succeeded() > 5_499);
    scene.await_status("r-777", Status::Unknown);
    let by_reason = scene.service().desk.parking().by_reason();
    assert_eq!(by_reason.keys().map(|reason| reason.as_str()).collect::<Vec<_>>(), ["no_answer"]);
    assert_eq!(scene.status("r-777"), Some(Status::Unknown), "it was sent: only the wallet knows");
    scene.wallet.mood(|mood| mood.slow_payee = None);
    scene.await_drained();
    scene.check_paid(5_500);
}

#[test]
fn an_empty_account_waits_and_is_paid_when_funded() {
    let mut scene = Scene::start(&["parking.retry_ms=60000"]);
    scene.open(100);
    scene.pay(0, 100);
    scene.await_that("those without money to be parked", |scene| {
        scene.service().desk.counts().backlog == 0 && scene.service().desk.parking().len() == 50
    });
    scene.fund("fund-2", 100);
    scene.await_drained();
    scene.check_paid(100);
}

#[test]
fn what_got_no_answer_is_looked_at_when_it_expires() {
    let mut scene = Scene::start(&["parking.retry_ms=3600000", "parking.retry_ms_max=3600000"]);
    scene.open(1_000);
    scene.wallet.mood(|mood| mood.slow_payee = Some("slow".to_owned()));
    let currency = Currency::parse("CNY").unwrap();
    let request = Request::new(Kind::Disbursement, "shop", "late", "c", amount(2), currency);
    let not_after = hongbao::app::now_ms() + 6_000;
    let late = scene.stamper.encode(Request { party: "slow", not_after, ..request });
    scene.submit(vec![late]);
    // Others succeed meanwhile, so that the wallet is known to be well.
    let mut round = 0;
    scene.await_that("it to wait for an answer", |scene| {
        let mut stamper = Stamper::default();
        let id = format!("other-{round}");
        round += 1;
        let other = Request::new(Kind::Disbursement, "shop", &id, "c", amount(2), currency);
        scene.submit(vec![stamper.encode(Request { party: "ann", ..other })]);
        !scene.service().desk.parking().is_empty()
    });
    let parked = scene.service().desk.parking().iter().next().copied();
    assert_eq!(parked.map(|parked| (parked.reason.as_str(), parked.due)), Some(("no_answer", not_after + 1)));
    // The wallet had it: what it was asked to burn turns out to be paid.
    scene.await_status("late", Status::Succeeded);
}

#[test]
fn smaller_batches_are_sent_to_a_wallet_that_takes_no_more() {
    let mut scene = Scene::start(&[]);
    scene.open(1_000_000);
    scene.wallet.mood(|mood| mood.entries_max = 7);
    scene.pay(0, 1_000);
    scene.await_drained();
    scene.check_paid(1_000);
}

#[test]
fn a_restart_sends_again_what_was_under_way_and_pays_it_once() {
    let mut scene = Scene::start(&[]);
    scene.open(1_000_000);
    for round in 0..4 {
        scene.wallet.mood(|mood| (mood.lost_after, mood.latency) = (30, Duration::from_millis(20)));
        scene.pay(round * 1_000, 1_000);
        scene.restart();
    }
    scene.await_drained();
    scene.check_paid(4_000);
}

#[test]
fn a_wallet_that_cannot_burn_lets_expire_only_what_was_never_sent() {
    let mut scene = Scene::start(&["stored_value.burn=false"]);
    scene.open(1_000_000);
    let expired = |scene: &mut Scene, id: &str| {
        let currency = Currency::parse("CNY").unwrap();
        let request = Request::new(Kind::Disbursement, "shop", id, "c", amount(2), currency);
        let not_after = hongbao::app::now_ms() + 400;
        scene.stamper.encode(Request { party: "ann", not_after, ..request })
    };
    // Never fed before it expires: closed without the wallet.
    scene.service().pipeline.counts.paused.store(true, Ordering::Release);
    let first = expired(&mut scene, "never-sent");
    scene.submit(vec![first]);
    std::thread::sleep(Duration::from_millis(500));
    scene.service().pipeline.counts.paused.store(false, Ordering::Release);
    scene.service().pipeline.ring();
    scene.await_status("never-sent", Status::Expired);
    assert!(!scene.wallet.books.lock().unwrap().records.contains_key("shop:never-sent"));
    let currency = Currency::parse("XXX").unwrap();
    let cancel = Request::new(Kind::Cancel, "shop", "never-sent", "", Amount::ZERO, currency);
    let cancel = scene.stamper.encode(Request { original: "other", lane: Lane::Control, ..cancel });
    let decisions = scene.runtime.block_on(scene.service().desk.submit(None, vec![cancel])).unwrap();
    assert!(
        matches!(&decisions[0], Decision::Refused(refused) if refused.code == Refusal::NotCancelable),
        "what could not be kept is not promised: {decisions:?}"
    );
    // Sent, its reply lost, and expired meanwhile, across a restart: paid, however late.
    scene.wallet.mood(|mood| mood.lost_after = 100);
    let second = expired(&mut scene, "sent");
    scene.submit(vec![second]);
    scene.await_that("it to be executed", |scene| {
        scene.wallet.books.lock().unwrap().executions.contains_key("shop:sent")
    });
    scene.restart();
    std::thread::sleep(Duration::from_millis(500));
    scene.wallet.mood(|mood| mood.lost_after = 0);
    scene.await_status("sent", Status::Succeeded);
}

#[test]
fn a_restart_before_the_wallet_ever_answered_is_no_other_wallet() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("data.dir={}", folder.path().join("own").display());
    let mut scene = Scene::start(&["stored_value.burn=true"]);
    scene.service.take().unwrap().stop(Duration::from_secs(5)).unwrap();
    scene.sets.push(data);
    scene.wallet.mood(|mood| mood.anonymous = true);
    scene.restart();
    let campaign = Campaign::new("shop", "c", Currency::parse("CNY").unwrap(), amount(1 << 40));
    let change = CampaignChange::Put(Box::new(campaign));
    scene.runtime.block_on(scene.service().desk.campaign("shop", "c", Some(change))).unwrap();
    scene.fund("fund", 1_000);
    scene.pay(0, 100);
    assert_eq!(scene.wallet.calls.load(Ordering::Relaxed), 0, "nothing is paid to who knows whom");
    scene.restart();
    scene.wallet.mood(|mood| mood.anonymous = false);
    scene.await_drained();
    scene.check_paid(100);
}

#[test]
fn a_cancel_whose_burn_is_not_answered_is_carried_out_in_the_end() {
    let mut scene = Scene::start(&[]);
    scene.open(100);
    // Without money, it waits; and is canceled.
    scene.wallet.mood(|mood| mood.burns_silent = true);
    let poor = scene.request("poor", "ann");
    scene.fund("more", 0x1_0000);
    scene.service().pipeline.counts.paused.store(true, Ordering::Release);
    scene.submit(vec![poor]);
    let cancel =
        Request::new(Kind::Cancel, "shop", "poor", "", Amount::ZERO, Currency::parse("XXX").unwrap());
    let cancel = scene.stamper.encode(Request { original: "poor", lane: Lane::Control, ..cancel });
    let decisions = scene.runtime.block_on(scene.service().desk.submit(None, vec![cancel])).unwrap();
    assert!(matches!(decisions[0], Decision::Accepted { .. }), "{decisions:?}");
    scene.wallet.mood(|mood| mood.lost_before = 100);
    scene.service().pipeline.counts.paused.store(false, Ordering::Release);
    scene.service().pipeline.ring();
    scene.await_that("the burn to be tried", |scene| {
        scene.service().pipeline.remote.failures[0].load(Ordering::Relaxed) >= 2
    });
    scene.wallet.mood(|mood| (mood.lost_before, mood.burns_silent) = (0, false));
    scene.await_that("the request to be final", |scene| scene.status("poor").is_some_and(Status::is_final));
    scene.await_drained();
    let books = scene.wallet.books.lock().unwrap();
    let burned = books.records.get("shop:poor") == Some(&None);
    drop(books);
    // Whichever came first at the wallet: the two agree, and nothing is left over.
    let expected = if burned { Status::Canceled } else { Status::Succeeded };
    assert_eq!(scene.status("poor"), Some(expected));
}

#[test]
fn without_burns_a_pause_does_not_make_a_sent_request_unsent() {
    let mut scene = Scene::start(&["stored_value.burn=false"]);
    scene.open(1_000_000);
    scene.wallet.mood(|mood| mood.lost_after = 100);
    scene.pay(0, 1);
    scene.await_that("it to be executed", |scene| {
        scene.wallet.books.lock().unwrap().executions.contains_key("shop:r-0")
    });
    scene.runtime.block_on(scene.service().desk.campaign("shop", "c", Some(CampaignChange::Pause))).unwrap();
    scene.service.take().unwrap().stop(Duration::from_millis(100)).unwrap();
    scene.restart();
    // What comes again after the restart is not sent: its campaign is paused.
    scene.await_that("it to wait", |scene| scene.service().desk.parking().len() == 1);
    scene.runtime.block_on(scene.service().desk.campaign("shop", "c", Some(CampaignChange::Close))).unwrap();
    scene.wallet.mood(|mood| mood.lost_after = 0);
    scene.await_status("r-0", Status::Succeeded);
}
