//! Space is given up, and ids are forgotten, once a campaign is closed and its retention has passed; what is
//! left can still be audited and restarted from.

use std::time::{Duration, Instant};

use hongbao::app::{Extras, Service};
use hongbao::audit::{self, audit};
use hongbao::config::{Sources, load};
use hongbao::digest::Stamper;
use hongbao::domain::{Amount, Campaign, Currency, Kind, Refusal, Request, Status};
use hongbao::intake::desk::{CampaignChange, Decision};

const BUDGET: u64 = 1 << 40;

struct Night {
    service: Service,
    runtime: tokio::runtime::Runtime,
    stamper: Stamper,
}

fn currency() -> Currency {
    Currency::parse("CNY").unwrap()
}

impl Night {
    fn start(folder: &std::path::Path) -> Night {
        let sets = vec![
            format!("data.dir={}", folder.display()),
            "data.segment_bytes=8388608".to_owned(),
            "data.checkpoint_bytes=1048576".to_owned(),
            "data.retention_s=0".to_owned(),
        ];
        let config = load(&Sources { sets, ..Sources::default() }).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        Night {
            service: Service::start(config, Extras::default()).unwrap(),
            runtime,
            stamper: Stamper::default(),
        }
    }

    fn change(&self, id: &str, change: CampaignChange) {
        self.runtime.block_on(self.service.desk.campaign("shop", id, Some(change))).unwrap();
    }

    fn submit(&mut self, requests: Vec<Vec<u8>>) -> Vec<Decision> {
        self.runtime.block_on(self.service.desk.submit(None, requests)).unwrap()
    }

    fn open(&mut self, id: &str) {
        let budget = Amount::new(BUDGET).unwrap();
        let campaign = Campaign::new("shop", id, currency(), budget);
        self.change(id, CampaignChange::Put(Box::new(campaign)));
        let fund_id = format!("fund-{id}");
        let fund = self.stamper.encode(Request::new(Kind::Fund, "shop", &fund_id, id, budget, currency()));
        self.submit(vec![fund]);
        await_true("funding is settled", || self.status(&fund_id) == Some(Status::Succeeded));
    }

    fn payout(&mut self, campaign: &str, number: u32) -> Vec<u8> {
        let (id, party) = (format!("{campaign}-{number}"), format!("p-{}", number % 100));
        let amount = Amount::new(u64::from(number) + 1).unwrap();
        let request = Request::new(Kind::Disbursement, "shop", &id, campaign, amount, currency());
        self.stamper.encode(Request { party: &party, ..request })
    }

    fn pay(&mut self, campaign: &str, count: u32) {
        for first in (0..count).step_by(1_000) {
            let requests =
                (first..count.min(first + 1_000)).map(|number| self.payout(campaign, number)).collect();
            let decisions = self.submit(requests);
            assert!(decisions.iter().all(|decision| matches!(decision, Decision::Accepted { .. })));
        }
        await_true("all is settled", || self.service.desk.counts().backlog == 0);
    }

    fn status(&self, id: &str) -> Option<Status> {
        let ids = [id.to_owned()];
        let found = self.runtime.block_on(async { self.service.desk.find("shop", &ids).await }).unwrap();
        found[0].as_ref().and_then(|held| held.outcome().map(|outcome| outcome.status))
    }
}

fn await_true(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_true() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_closed_campaign_is_forgotten_and_its_space_given_up() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let mut night = Night::start(&data);
    night.open("old");
    night.pay("old", 40_000);
    assert_eq!(night.status("old-7"), Some(Status::Succeeded));
    assert_eq!(night.service.journal.begins_at(), 0, "an open campaign keeps everything");
    night.change("old", CampaignChange::Close);
    night.open("new");
    let mut number = 0;
    await_true("space is given up", || {
        let requests = (0..500).map(|more| night.payout("new", number + more)).collect();
        night.submit(requests);
        number += 500;
        night.service.journal.begins_at() > 0
    });
    await_true("all is settled", || night.service.desk.counts().backlog == 0);

    assert_eq!(night.status("old-7"), None, "forgotten");
    let again = night.payout("old", 7);
    match &night.submit(vec![again])[0] {
        Decision::Refused(refused) => assert_eq!(refused.code, Refusal::CampaignClosed),
        other => panic!("a forgotten id of a closed campaign must be refused: {other:?}"),
    }
    // A repeat of a defund that was forgotten could not be told from a new one.
    let left = Request::new(Kind::Defund, "shop", "defund-1", "old", Amount::new(1).unwrap(), currency());
    let defund = night.stamper.encode(left);
    match &night.submit(vec![defund])[0] {
        Decision::Refused(refused) => assert_eq!(refused.code, Refusal::CampaignClosed),
        other => panic!("nothing moves in a campaign past its retention: {other:?}"),
    }
    assert_eq!(night.status("new-0"), Some(Status::Succeeded), "an open campaign is remembered");
    night.service.stop(Duration::from_secs(10)).unwrap();

    let options =
        audit::Options { data_dir: data.clone(), expect_drained: true, ..audit::Options::default() };
    let report = audit(&options, None, &mut |_| {}).unwrap();
    assert!(report.from_checkpoint && report.is_clean(), "{report}");

    let mut night = Night::start(&data);
    assert_eq!(night.status("new-0"), Some(Status::Succeeded));
    assert_eq!(night.status("old-7"), None);
    night.pay("new", 0);
    let repeat = night.payout("new", 0);
    assert!(matches!(night.submit(vec![repeat])[0], Decision::Repeated(_)));
    night.service.stop(Duration::from_secs(10)).unwrap();
}
