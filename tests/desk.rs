//! What the desk must bear that no single HTTP call shows: cancels that meet in one group, a submission larger than a
//! frame, a paused campaign that neither starves others nor sleeps after it is resumed, money that collections do
//! not lock up.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hongbao::app::{Extras, Service, now_ms};
use hongbao::config::{Sources, load};
use hongbao::digest::Stamper;
use hongbao::domain::{Amount, Campaign, Currency, Kind, Lane, Refusal, Request, Status};
use hongbao::intake::desk::{CampaignChange, Decision};
use hongbao::intake::{Intake, QueueId};

struct Desk {
    service: Option<Service>,
    runtime: tokio::runtime::Runtime,
    stamper: Stamper,
    folder: tempfile::TempDir,
    sets: Vec<String>,
}

fn currency() -> Currency {
    Currency::parse("CNY").unwrap()
}

fn amount(minor_units: u64) -> Amount {
    Amount::new(minor_units).unwrap()
}

impl Desk {
    fn start(sets: &[&str]) -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let mut all = vec![
            format!("data.dir={}", folder.path().join("data").display()),
            "data.segment_bytes=8388608".to_owned(),
        ];
        all.extend(sets.iter().map(|set| (*set).to_owned()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let mut desk = Desk { service: None, runtime, stamper: Stamper::default(), folder, sets: all };
        desk.restart();
        desk
    }

    fn restart(&mut self) {
        if let Some(service) = self.service.take() {
            service.stop(Duration::from_secs(20)).unwrap();
        }
        let config = load(&Sources { sets: self.sets.clone(), ..Sources::default() }).unwrap();
        self.service = Some(Service::start(config, Extras::default()).unwrap());
        assert!(self.folder.path().exists());
    }

    fn service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }

    fn hold(&self, held: bool) {
        self.service().pipeline.counts.paused.store(held, Ordering::Release);
        self.service().pipeline.ring();
    }

    fn change(&self, id: &str, change: CampaignChange) {
        self.runtime.block_on(self.service().desk.campaign("shop", id, Some(change))).unwrap();
    }

    fn open(&mut self, id: &str, funded: u64) {
        let campaign = Campaign::new("shop", id, currency(), amount(1 << 40));
        self.change(id, CampaignChange::Put(Box::new(campaign)));
        let fund_id = format!("fund-{id}");
        let request = Request::new(Kind::Fund, "shop", &fund_id, id, amount(funded), currency());
        let fund = self.stamper.encode(request);
        self.submit(vec![fund]);
        self.await_status(&fund_id, Status::Succeeded);
    }

    fn pay(&mut self, campaign: &str, id: &str, metadata: &str) -> Vec<u8> {
        let request = Request::new(Kind::Disbursement, "shop", id, campaign, amount(1), currency());
        self.stamper.encode(Request { party: "ann", metadata, ..request })
    }

    fn cancel(&mut self, id: &str) -> Vec<u8> {
        let request =
            Request::new(Kind::Cancel, "shop", id, "", Amount::ZERO, Currency::parse("XXX").unwrap());
        self.stamper.encode(Request { original: id, lane: Lane::Control, ..request })
    }

    fn submit(&self, requests: Vec<Vec<u8>>) -> Vec<Decision> {
        self.runtime.block_on(self.service().desk.submit(None, requests)).unwrap()
    }

    fn status(&self, id: &str) -> Option<Status> {
        let ids = [id.to_owned()];
        let found = self.runtime.block_on(async { self.service().desk.find("shop", &ids).await }).unwrap();
        found[0].as_ref().map(|held| held.outcome().map_or(Status::Accepted, |outcome| outcome.status))
    }

    fn await_final(&self, id: &str) -> Status {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match self.status(id) {
                Some(status) if status.is_final() => return status,
                other => assert!(Instant::now() < deadline, "{id} is {other:?}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn await_status(&self, id: &str, status: Status) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.status(id) != Some(status) {
            assert!(Instant::now() < deadline, "{id} is {:?}, not {status:?}", self.status(id));
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn cancels_that_meet_in_one_group_harm_nobody() {
    let mut desk = Desk::start(&[]);
    desk.open("c", 1_000_000);
    // Many rounds: the harm needs a cancel to be decided while an earlier one's outcome is on its way.
    for round in 0..200 {
        let id = format!("x-{round}");
        desk.hold(true);
        let pay = desk.pay("c", &id, "");
        desk.submit(vec![pay]);
        let cancels: Vec<Vec<u8>> = (0..3).map(|_| desk.cancel(&id)).collect();
        desk.submit(vec![cancels[0].clone()]);
        desk.hold(false);
        let rest: Vec<_> = cancels[1..]
            .iter()
            .map(|cancel| {
                let (handle, cancel) = (desk.service().desk.clone(), cancel.clone());
                desk.runtime.spawn(async move { handle.submit(None, vec![cancel]).await })
            })
            .collect();
        for submitted in rest {
            desk.runtime.block_on(submitted).unwrap().expect("the desk lives");
        }
    }
    // A feed that had looked before it was held may pay one before its cancel arrives; most are canceled.
    let finals: Vec<Status> = (0..200).map(|round| desk.await_final(&format!("x-{round}"))).collect();
    let canceled = finals.iter().filter(|status| **status == Status::Canceled).count();
    assert!(canceled > 150, "{canceled} of 200 were canceled");
    assert!(finals.iter().all(|status| matches!(status, Status::Canceled | Status::Succeeded)), "{finals:?}");
    assert_eq!(desk.service().poison.reason(), None);
    desk.restart();
    let again: Vec<Status> = (0..200).map(|round| desk.await_final(&format!("x-{round}"))).collect();
    assert_eq!(again, finals, "a restart changes nothing");
}

#[test]
fn a_submission_larger_than_a_frame_or_a_segment_is_accepted_whole() {
    let mut desk = Desk::start(&[]);
    desk.open("c", 1_000_000);
    let metadata = format!("{{\"note\":\"{}\"}}", "x".repeat(3_000));
    let requests: Vec<Vec<u8>> = (0..4_000).map(|n| desk.pay("c", &format!("big-{n}"), &metadata)).collect();
    assert!(requests.iter().map(Vec::len).sum::<usize>() > 8 << 20);
    let decisions = desk.submit(requests);
    assert!(decisions.iter().all(|decision| matches!(decision, Decision::Accepted { .. })));
    desk.await_status("big-0", Status::Succeeded);
    desk.await_status("big-3999", Status::Succeeded);
    desk.restart();
    assert_eq!(desk.status("big-2000"), Some(Status::Succeeded));
}

#[test]
fn a_paused_campaign_starves_nobody_and_wakes_when_it_is_resumed() {
    let mut desk = Desk::start(&["shaping.transfers_per_s=2000"]);
    desk.open("paused", 1_000_000);
    desk.open("other", 1_000_000);
    desk.hold(true);
    let waiting: Vec<Vec<u8>> = (0..3_000).map(|n| desk.pay("paused", &format!("p-{n}"), "")).collect();
    desk.submit(waiting);
    desk.change("paused", CampaignChange::Pause);
    desk.hold(false);
    desk.await_status("p-2999", Status::Queued);
    let syncs = desk.service().journal.stats().frames;
    for n in 0..20 {
        let id = format!("o-{n}");
        let pay = desk.pay("other", &id, "");
        desk.submit(vec![pay]);
        desk.await_status(&id, Status::Succeeded);
    }
    let written = desk.service().journal.stats().frames - syncs;
    assert!(written < 400, "what waits for a resumption must not be tried over and over: {written} frames");
    desk.change("paused", CampaignChange::Resume);
    desk.await_status("p-0", Status::Succeeded);
    desk.await_status("p-2999", Status::Succeeded);
}

#[test]
fn what_waits_for_money_does_not_spoil_the_estimate_for_others() {
    let mut desk = Desk::start(&["parking.retry_ms=20"]);
    desk.open("poor", 1);
    desk.open("rich", 1_000_000);
    let requests: Vec<Vec<u8>> = (0..2_000).map(|n| desk.pay("poor", &format!("q-{n}"), "")).collect();
    desk.submit(requests);
    desk.await_status("q-1999", Status::Queued);
    let deadline = Instant::now() + Duration::from_millis(500);
    while Instant::now() < deadline {
        std::thread::yield_now();
    }
    let pay = desk.pay("rich", "r-1", "");
    match &desk.submit(vec![pay])[0] {
        Decision::Accepted { accepted_at, estimated_completion_at } => {
            let wait_ms = estimated_completion_at - accepted_at;
            assert!(wait_ms < 2_000, "an empty queue, and an estimate of {wait_ms} ms");
        }
        other => panic!("not accepted: {other:?}"),
    }
    desk.await_status("r-1", Status::Succeeded);
}

#[test]
fn a_flood_shuts_the_door_for_its_own_queue_and_what_cannot_be_done_in_time_is_refused() {
    let mut desk = Desk::start(&["shaping.transfers_per_s=1000", "accept.wait_s_max=10"]);
    let fair = desk.service().desk.intake.fair_queue_count();
    let queue = |campaign| QueueId::of(Lane::Bulk, campaign, fair);
    assert_ne!(queue("flood"), queue("calm"), "or the test shows nothing");
    desk.open("flood", 1_000_000);
    desk.open("calm", 1_000_000);
    desk.hold(true);
    let mut accepted = 0;
    for round in 0..12 {
        let pays = (0..1_000).map(|n| desk.pay("flood", &format!("f-{round}-{n}"), "")).collect();
        let decisions = desk.submit(pays);
        accepted += decisions.iter().filter(|told| matches!(told, Decision::Accepted { .. })).count();
        if let Some(Decision::Refused(refused)) = decisions.last() {
            assert_eq!((refused.code, refused.retry_after_s), (Refusal::BacklogFull, Some(1)), "{refused:?}");
        }
    }
    assert!((9_900..=10_100).contains(&accepted), "{accepted} in ten seconds at 1,000/s");

    let mut wait_ms = |campaign: &str, id: &str, in_ms: u64| {
        let not_after = if in_ms == 0 { 0 } else { now_ms() + in_ms };
        let request = Request::new(Kind::Disbursement, "shop", id, campaign, amount(1), currency());
        let pay = desk.stamper.encode(Request { party: "ann", not_after, ..request });
        match desk.submit(vec![pay]).remove(0) {
            Decision::Accepted { accepted_at, estimated_completion_at } => {
                Ok(estimated_completion_at - accepted_at)
            }
            Decision::Refused(refused) => Err(refused.code),
            Decision::Repeated(_) => panic!("{id} is new"),
        }
    };
    let calm = wait_ms("calm", "c-1", 5_000).expect("it is not the one that floods");
    assert!(calm <= 20, "in turns with the flood: {calm} ms");
    assert_eq!(wait_ms("flood", "f-soon", 5_000), Err(Refusal::Expired));
    assert_eq!(wait_ms("flood", "f-any", 0), Err(Refusal::BacklogFull));
    desk.hold(false);
    desk.await_status("c-1", Status::Succeeded);
}
