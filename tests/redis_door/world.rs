//! One Redis, and instances that accept through it: a door, the campaigns, an office each. The outcome view is a map
//! that tests fill by settling what they find in the lists.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hongbao::app::redis::office::RedisOffice;
use hongbao::digest::Stamper;
use hongbao::domain::{Amount, Campaign, Currency, Kind, Lane, Request, Status};
use hongbao::gateway::port::{Accepting, BatchHead, CampaignChange, Refused, Standing, Submission, Verdict};
use hongbao::intake::redis::campaigns::Release;
use hongbao::intake::redis::door::{Dedupe, Door, DoorOptions, DoorParts, DoorThreads, Outlook};
use hongbao::intake::redis::element::frame;
use hongbao::intake::redis::registry::{CampaignRegistry, RegistryThread};
use hongbao::intake::redis::{Keys, UnitId, Units};
use hongbao::outcome::OutcomeView;
use hongbao::outcome::view::{BatchRow, ListRows, PageRows, Progress, StandingRow, TallyRow, ViewError};
use hongbao::redis::{Link, Target};

use crate::support::redis::{Fsync, RedisServer, Setup};

pub const SHARDS: u16 = 4;
pub const FAIR_QUEUES: u8 = 2;

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

pub fn keys() -> Keys {
    let units = Units { shard_count: SHARDS, fair_queue_count: FAIR_QUEUES, foreign: Vec::new() };
    Keys::new("h", units)
}

/// What is settled, for all instances of a world.
#[derive(Default)]
pub struct MapView {
    rows: Mutex<HashMap<(String, String), StandingRow>>,
}

impl MapView {
    pub fn put(&self, request: &Request<'_>, status: Status) {
        let row = StandingRow {
            place: 0,
            client: request.client.to_owned(),
            id: request.id.to_owned(),
            kind: request.kind,
            status,
            reason: None,
            code: None,
            campaign: request.campaign.to_owned(),
            party: request.party.to_owned(),
            merchant: String::new(),
            agreement: String::new(),
            original: request.original.to_owned(),
            batch: request.batch.to_owned(),
            amount: request.amount.minor_units(),
            currency: request.currency.to_string(),
            remark: String::new(),
            metadata: String::new(),
            accepted_at: request.accepted_at,
            updated_at: request.accepted_at + 1,
            settled_at: if status.is_final() { request.accepted_at + 1 } else { 0 },
            next_attempt_at: 0,
            attempts: 1,
            wallet_ref: "w".to_owned(),
            reversed_amount: 0,
        };
        self.rows.lock().unwrap().insert((row.client.clone(), row.id.clone()), row);
    }

    fn tally(&self, wanted: impl Fn(&StandingRow) -> bool) -> Option<TallyRow> {
        let rows = self.rows.lock().unwrap();
        let mut tally = TallyRow::default();
        let mut is_some = false;
        for row in rows.values().filter(|row| wanted(row)) {
            is_some = true;
            tally.count[row.status as usize - 1] += 1;
            tally.amount[row.status as usize - 1] += row.amount;
        }
        is_some.then_some(tally)
    }
}

impl OutcomeView for MapView {
    fn find(&self, client: &str, ids: &[String]) -> Result<Vec<Option<StandingRow>>, ViewError> {
        let rows = self.rows.lock().unwrap();
        Ok(ids.iter().map(|id| rows.get(&(client.to_owned(), id.clone())).cloned()).collect())
    }

    fn list(&self, _: &ListRows) -> Result<PageRows, ViewError> {
        Ok(PageRows { data: Vec::new(), next_cursor: None })
    }

    fn batch(&self, client: &str, id: &str) -> Result<Option<BatchRow>, ViewError> {
        let tally = self.tally(|row| row.client == client && row.batch == id);
        Ok(tally.map(|tally| BatchRow {
            client: client.to_owned(),
            id: id.to_owned(),
            campaign: String::new(),
            currency: String::new(),
            accepted_at: 0,
            tally,
        }))
    }

    fn campaign(&self, client: &str, id: &str, kind: Option<Kind>) -> Result<Option<TallyRow>, ViewError> {
        let pays = |kind| matches!(kind, Kind::Disbursement | Kind::Collection);
        Ok(self.tally(|row| {
            row.client == client && row.campaign == id && kind.map_or(pays(row.kind), |kind| kind == row.kind)
        }))
    }

    fn progress(&self) -> Progress {
        Progress::default()
    }
}

pub struct World {
    pub server: RedisServer,
    /// Where instances go in its place, if anywhere.
    pub url: Option<String>,
    pub view: Arc<MapView>,
    /// What doors go by.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl World {
    pub fn new() -> World {
        World::with(Setup::new(Fsync::Always))
    }

    pub fn with(setup: Setup) -> World {
        World { server: RedisServer::start(setup), url: None, view: Arc::default(), clock: Arc::new(now_ms) }
    }

    pub fn target(&self) -> Target {
        Target {
            response_timeout: Duration::from_secs(1),
            ..Target::new(self.url.clone().unwrap_or_else(|| self.server.url()))
        }
    }

    pub fn link(&self) -> Link {
        Link::new(&self.target()).unwrap()
    }

    pub fn instance(&self) -> Instance {
        self.instance_with(DoorOptions::default())
    }

    pub fn instance_with(&self, options: DoorOptions) -> Instance {
        let releases: Arc<Mutex<Vec<Release>>> = Arc::default();
        let told = releases.clone();
        let on_release = Box::new(move |release: &Release| told.lock().unwrap().push(release.clone()));
        let registry = CampaignRegistry::new(self.link(), &keys(), on_release);
        registry.catch_up().unwrap();
        let outlook = Arc::new(Mutex::new(Outlook { durability: Arc::from("fsync"), ..Outlook::default() }));
        let seen = outlook.clone();
        let parts = DoorParts {
            target: self.target(),
            keys: keys(),
            registry: registry.clone(),
            outlook: Arc::new(move || seen.lock().unwrap().clone()),
            on_pushed: Arc::new(|| {}),
            now_ms: self.clock.clone(),
            poison: hongbao::ring::Poison::default(),
            on_poison: Arc::new(|| {}),
        };
        let (door, threads) = Door::start(&options, &parts).unwrap();
        let accepting = Arc::new(AtomicBool::new(true));
        let (view, clock) = (self.view.clone(), Arc::new(now_ms));
        let office = RedisOffice::new(door.clone(), registry.clone(), view, accepting.clone(), clock);
        registry.on_stuck(office.resend());
        let following = registry.start(office.funding_look(), Arc::new(now_ms)).unwrap();
        Instance { door, office, registry, outlook, releases, accepting, threads: Some((threads, following)) }
    }

    /// Every request in every list, as often as it stands there.
    pub fn appended(&self) -> Vec<Bytes> {
        (0..SHARDS).flat_map(|shard| self.appended_to(UnitId(shard))).collect()
    }

    /// The same of one shard.
    pub fn appended_to(&self, shard: UnitId) -> Vec<Bytes> {
        let (keys, mut link, mut found) = (keys(), self.link(), Vec::new());
        for queue in keys.queues(shard) {
            let range = hongbao::redis::Command::new("LRANGE", keys.list(shard, queue)).arg(0).arg(-1);
            let elements = hongbao::redis::reply::array("LRANGE", link.call(range).unwrap()).unwrap();
            for element in elements {
                let element = hongbao::redis::reply::bytes("LRANGE", element).unwrap().unwrap();
                let mut out = Vec::new();
                frame::decode(&Bytes::from(element), FAIR_QUEUES, &mut out).unwrap();
                for decoded in out {
                    assert_eq!(decoded.queue, queue, "it stands in its own queue");
                    found.push(decoded.record);
                }
            }
        }
        found
    }

    pub fn appended_ids(&self) -> Vec<String> {
        let id = |record: &Bytes| Request::decode(record).unwrap().id.to_owned();
        self.appended().iter().map(id).collect()
    }

    /// Everything in the lists gets this state, as if it had been settled.
    pub fn settle(&self, status: Status) {
        for record in self.appended() {
            self.view.put(&Request::decode(&record).unwrap(), status);
        }
    }
}

pub struct Instance {
    pub door: Door,
    pub office: RedisOffice,
    pub registry: CampaignRegistry,
    pub outlook: Arc<Mutex<Outlook>>,
    pub releases: Arc<Mutex<Vec<Release>>>,
    accepting: Arc<AtomicBool>,
    threads: Option<(DoorThreads, RegistryThread)>,
}

impl Instance {
    pub async fn campaign(&self, id: &str, budget: u64) {
        let campaign = campaign(id, budget);
        self.change(id, CampaignChange::Put(Box::new(campaign))).await.unwrap();
    }

    pub async fn change(&self, id: &str, change: CampaignChange) -> Result<Campaign, Refused> {
        let standing = self.office.change_campaign("s".to_owned(), id.to_owned(), change).await;
        standing.map(|standing| standing.campaign)
    }

    /// In one call; the verdicts in words.
    pub async fn office_submit(&self, submissions: Vec<Submission>) -> Vec<String> {
        each(&self.office, submissions).await.iter().map(word).collect()
    }

    pub async fn submit(&self, submission: Submission) -> Verdict {
        each(&self.office, vec![submission]).await.pop().unwrap()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.accepting.store(false, Ordering::Release);
        if let Some((threads, following)) = self.threads.take() {
            threads.stop();
            following.stop();
        }
    }
}

/// A verdict for each, also where all are refused as one.
pub async fn each(office: &RedisOffice, submissions: Vec<Submission>) -> Vec<Verdict> {
    let count = submissions.len();
    let refused = |refused| vec![Verdict::Refused(refused); count];
    office.submit(None, submissions).await.unwrap_or_else(refused)
}

pub fn campaign(id: &str, budget: u64) -> Campaign {
    Campaign::new("s", id, Currency::parse("CNY").unwrap(), Amount::new(budget).unwrap())
}

/// A payout of `s` under `c`.
pub fn pay(id: &str, amount: u64) -> Request<'_> {
    let (amount, currency) = (Amount::new(amount).unwrap(), Currency::parse("CNY").unwrap());
    Request { party: "ann", ..Request::new(Kind::Disbursement, "s", id, "c", amount, currency) }
}

pub fn submission(request: Request<'_>) -> Submission {
    let is_control = matches!(request.kind, Kind::Cancel | Kind::Fund | Kind::Defund);
    let lane = if is_control { Lane::Control } else { request.lane };
    let record = Stamper::default().encode(Request { lane, ..request });
    Submission { record, lane_given: is_control }
}

pub fn cancel(id: &str) -> Submission {
    let zero = Amount::ZERO;
    let request = Request::new(Kind::Cancel, "s", id, "", zero, Currency::parse("XXX").unwrap());
    submission(Request { original: id, ..request })
}

pub fn fund(kind: Kind, id: &str, amount: u64) -> Submission {
    submission(Request { kind, party: "", ..pay(id, amount) })
}

pub fn batch(id: &str, items: &[(&str, u64)]) -> (BatchHead, Vec<Submission>) {
    let head = BatchHead {
        client: "s".to_owned(),
        id: id.to_owned(),
        campaign: "c".to_owned(),
        currency: "CNY".to_owned(),
        total_count: items.len() as u32,
        total_amount: items.iter().map(|(_, amount)| amount).sum(),
    };
    let item = |(name, amount): &(&str, u64)| submission(Request { batch: id, ..pay(name, *amount) });
    (head, items.iter().map(item).collect())
}

/// A verdict in a word or two.
pub fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accepted { .. } => "accepted".to_owned(),
        Verdict::Repeated(standing) => format!("repeated {}", standing.status.as_str()),
        Verdict::Refused(refused) => told(refused),
    }
}

pub fn told(refused: &Refused) -> String {
    let unknown = if refused.accepted_unknown { " unknown" } else { "" };
    format!("{}{unknown}", refused.code.as_str())
}

pub fn state(standing: Result<Standing, Refused>) -> String {
    standing.map_or_else(|refused| told(&refused), |standing| standing.status.as_str().to_owned())
}

pub fn owner_mode() -> DoorOptions {
    DoorOptions { dedupe: Dedupe::Owner, ..DoorOptions::default() }
}
