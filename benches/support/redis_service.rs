//! The complete service over a Redis of the bench's: a list, the pipeline, the embedded ledger, the outcome streams, the
//! results, the view.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hongbao::app::Extras;
use hongbao::app::redis::RedisService;
use hongbao::config::{Sources, load};
use hongbao::digest::Stamper;
use hongbao::domain::{Kind, Request, Status};
use hongbao::gateway::port::{Accepting, CampaignChange, Submission};

/// The client in whose name `hongbao:intake` is paid.
pub const CLIENT: &str = "default";

/// Starts it on a folder of its own, with the defaults and what is given, and funds the campaign `spring`.
pub fn start(redis: SocketAddr, folder: &std::path::Path, sets: &[&str]) -> RedisService {
    let mut all = vec![
        "intake.kind=redis".to_owned(),
        format!("intake.redis.url=redis://{redis}"),
        format!("data.dir={}", folder.join("data").display()),
    ];
    all.extend(sets.iter().map(|set| (*set).to_owned()));
    let config = load(&Sources { sets: all, ..Sources::default() }).expect("the settings are valid");
    let service = RedisService::start(config, Extras::default()).expect("the service starts");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let campaign = hongbao::domain::Campaign { client: CLIENT.to_owned(), ..super::campaign(1 << 50) };
    let fund = Request { client: CLIENT, ..super::request(Kind::Fund, "fund-1", "", 1 << 50) };
    let record = Stamper::default().encode(fund);
    runtime.expect("a runtime").block_on(async {
        let change = CampaignChange::Put(Box::new(campaign));
        let (client, id) = (CLIENT.to_owned(), "spring".to_owned());
        service.office.change_campaign(client, id, change).await.expect("the campaign is made");
        let fund = Submission { record, lane_given: false };
        let funded = service.office.submit_and_wait(fund).await.expect("it is funded");
        assert_eq!(funded.status, Status::Succeeded, "{funded:?}");
    });
    service
}

/// Requests that were paid, recorded and handed back to the lists so far.
pub fn settled(service: &RedisService) -> u64 {
    service.pipeline.settled.by_status[Status::Succeeded as usize - 1].load(Ordering::Relaxed)
}

pub fn stop(service: RedisService) {
    service.stop(Duration::from_secs(30)).expect("the service stops");
}
