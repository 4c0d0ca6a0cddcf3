//! The campaigns of a fleet: one stream of decisions that every instance follows and any may append to.
//!
//! A decision is made on what was read, and appended only if nothing was appended meanwhile ([`DECIDE`]); otherwise it
//! is read up and decided again. So decisions stand in one order, each on top of those before. The stream is never
//! trimmed: it is the only copy. An entry that cannot be applied stops everything here, because a registry that
//! skipped it would number campaigns in another way than the rest of the fleet. Calls block; they are made from
//! threads that may.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Keys;
use super::campaigns::{Campaigns, Entry, EntryError, Funding, Release, Step};
use crate::domain::{Campaign, Refusal, Status, UnixMs};
use crate::intake::desk::campaigns::Registry;
use crate::intake::desk::{CampaignChange, Refused};
use crate::redis::{Command, Failure, Link, Script, Value, reply};

/// How often the stream is looked at for what others decided.
const POLL: Duration = Duration::from_millis(100);
/// How often open funding is compared with what the wallet made of it.
const RECONCILE: Duration = Duration::from_secs(1);
/// Whoever asked for it concludes it as a rule; after this long somebody else does.
const FUNDING_OPEN_MS_MAX: u64 = 2_000;
/// Open funding looked at in one turn.
const RECONCILE_COUNT_MAX: usize = 100;
/// Entries read in one command.
const PAGE_COUNT: usize = 1_000;
/// How often a decision is made again because others came first.
const DECIDE_COUNT_MAX: usize = 64;
const FIELD: &str = "e";

/// Appends an entry if the stream still ends where the caller has read to. One XADD. A full Redis takes it all the
/// same: pausing and closing must work then, too.
static DECIDE: Script = Script::new(
    "decide",
    "#!lua flags=allow-oom
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local at = #last == 0 and '0-0' or last[1][1]
if at ~= ARGV[1] then return redis.error_reply('BEHIND the stream ends at ' .. at) end
return redis.call('XADD', KEYS[1], '*', 'e', ARGV[2])",
);

/// Why the campaigns cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("the campaigns cannot be read: {0}")]
    Redis(#[from] Failure),
    #[error(
        "entry {id} of {key} cannot be applied, so nothing is decided or accepted here until it can: {reason}. Run the \
         newer release if one wrote it; if it is no decision of hongbao's, remove it: XDEL {key} {id}"
    )]
    Entry { key: String, id: String, reason: EntryError },
    #[error(
        "Redis has lost campaigns that were decided: {key} ends before entry {cursor}, which was read here; restore \
         its data, then restart this instance"
    )]
    Lost { key: String, cursor: String },
}

/// How requests that move funds stand, by client and ids; `None` if it cannot be told now.
pub type FundingLook = Arc<dyn Fn(&str, &[String]) -> Option<Vec<Option<Status>>> + Send + Sync>;
/// Told of what may be looked at again. Called on threads of the registry; must not block.
pub type OnRelease = Box<dyn Fn(&Release) + Send + Sync>;

/// Why nothing is decided.
struct Failing {
    reason: String,
    /// Data is lost: it stays until a restart.
    is_final: bool,
}

struct Follower {
    link: Link,
    key: String,
    cursor: String,
    is_loaded: bool,
    campaigns: Arc<RwLock<Campaigns>>,
    on_release: OnRelease,
    failure: Arc<Mutex<Option<Failing>>>,
}

impl Follower {
    fn take(&mut self, id: String, json: &[u8]) -> Result<(), RegistryError> {
        let entry = Entry::decode(json).map_err(|reason| {
            let error = RegistryError::Entry { key: self.key.clone(), id: id.clone(), reason };
            self.fail(&error);
            error
        })?;
        let release = write(&self.campaigns).apply(entry);
        self.cursor = id;
        if let (true, Some(release)) = (self.is_loaded, release) {
            (self.on_release)(&release);
        }
        Ok(())
    }

    /// Nothing is decided from here on: for good, or until an entry can be applied. Told once.
    fn fail(&mut self, error: &RegistryError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = error.to_string();
        if failure.as_ref().is_none_or(|held| !held.is_final && held.reason != reason) {
            tracing::error!(%error, "the campaigns of the fleet cannot be followed");
            let is_final = matches!(error, RegistryError::Lost { .. });
            *failure = Some(Failing { reason, is_final });
        }
    }

    /// All entries could be applied.
    fn succeed(&mut self) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.as_ref().is_some_and(|held| !held.is_final) {
            *failure = None;
        }
    }

    /// Reads what was appended since; how many entries that was.
    fn catch_up(&mut self) -> Result<usize, RegistryError> {
        let mut count = 0;
        loop {
            let from = format!("({}", self.cursor);
            let from = if self.cursor == "0-0" { "-" } else { &from };
            let page = Command::new("XRANGE", &self.key).arg(from).arg("+").arg("COUNT").arg(PAGE_COUNT);
            let page = reply::array("XRANGE", self.link.call(page)?)?;
            let is_last = page.len() < PAGE_COUNT;
            count += page.len();
            for entry in page {
                let (id, json) = read_entry(entry)?;
                self.take(id, &json)?;
            }
            if is_last {
                self.is_loaded = true;
                self.succeed();
                return Ok(count);
            }
        }
    }

    /// Makes a decision on everything decided before, and appends it. `None` decides that nothing is to be said.
    fn decide(
        &mut self,
        decide: &mut dyn FnMut(&Campaigns) -> Result<Option<Entry>, Refused>,
    ) -> Result<(), Refused> {
        let (mut is_unknown, mut is_behind) = (false, false);
        for _ in 0..DECIDE_COUNT_MAX {
            let news = self.catch_up().map_err(|error| refused_by(&error, is_unknown))?;
            if is_behind && news == 0 {
                let lost = RegistryError::Lost { key: self.key.clone(), cursor: self.cursor.clone() };
                self.fail(&lost);
                return Err(refused_by(&lost, is_unknown));
            }
            let Some(entry) = decide(&read(&self.campaigns))? else { return Ok(()) };
            let json = entry.encode();
            let command =
                Command::script(&DECIDE, &[self.key.as_bytes()]).arg(&self.cursor).arg(json.as_slice());
            let appended = self.link.call(command).and_then(|id| reply::text(DECIDE.name, id));
            is_behind = appended.as_ref().is_err_and(|failure| failure.is_code("BEHIND"));
            match appended {
                Ok(Some(id)) => return self.take(id, &json).map_err(|error| refused_by(&error, true)),
                // It may stand in the stream, or still get there. Decided again on top of it, it changes nothing; and
                // of two attempts on the same end of the stream only one is taken.
                Ok(None) => is_unknown = true,
                Err(failure) if failure.is_unknown() => is_unknown = true,
                Err(_) if is_behind => {}
                Err(failure) => return Err(refused_by(&failure.into(), is_unknown)),
            }
        }
        let detail = "too many decide about campaigns at once; retry in a moment";
        let mut refused = Refused::new(Refusal::NotAccepting, detail);
        (refused.retry_after_s, refused.accepted_unknown) = (Some(1), is_unknown);
        Err(refused)
    }
}

fn read(campaigns: &RwLock<Campaigns>) -> RwLockReadGuard<'_, Campaigns> {
    campaigns.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(campaigns: &RwLock<Campaigns>) -> RwLockWriteGuard<'_, Campaigns> {
    campaigns.write().unwrap_or_else(PoisonError::into_inner)
}

fn read_entry(entry: Value) -> Result<(String, Vec<u8>), Failure> {
    let strange = || Failure::Strange { command: "XRANGE".to_owned(), expected: "an id and a field `e`" };
    let mut parts = reply::array("XRANGE", entry)?.into_iter();
    let id = reply::text("XRANGE", parts.next().ok_or_else(strange)?)?.ok_or_else(strange)?;
    let mut fields = reply::array("XRANGE", parts.next().ok_or_else(strange)?)?.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if reply::bytes("XRANGE", name)?.as_deref() == Some(FIELD.as_bytes()) {
            return Ok((id, reply::bytes("XRANGE", value)?.ok_or_else(strange)?));
        }
    }
    // Somebody else's entry stops us as one that cannot be read does.
    Ok((id, Vec::new()))
}

fn refused_by(error: &RegistryError, is_unknown: bool) -> Refused {
    let may_be_done = matches!(error, RegistryError::Redis(failure) if failure.is_unknown()) || is_unknown;
    let code = if may_be_done { Refusal::AppendUnknown } else { Refusal::NotAccepting };
    let mut refused = Refused::new(code, format!("{error}; retry, it changes nothing twice"));
    refused.accepted_unknown = may_be_done;
    refused.retry_after_s = Some(1);
    refused
}

/// The handle.
#[derive(Clone)]
pub struct CampaignRegistry {
    /// Held over round trips.
    follower: Arc<Mutex<Follower>>,
    /// Held for a moment only: whoever must not block reads here.
    campaigns: Arc<RwLock<Campaigns>>,
    failure: Arc<Mutex<Option<Failing>>>,
    registry: Registry,
}

impl CampaignRegistry {
    /// Knows nothing before the first [`CampaignRegistry::catch_up`]. The link is the registry's own.
    pub fn new(link: Link, keys: &Keys, on_release: OnRelease) -> CampaignRegistry {
        let campaigns = Campaigns::default();
        let registry = campaigns.registry();
        let (campaigns, failure) = (Arc::new(RwLock::new(campaigns)), Arc::new(Mutex::new(None)));
        let follower = Follower {
            link,
            key: keys.campaigns(),
            cursor: "0-0".to_owned(),
            is_loaded: false,
            campaigns: campaigns.clone(),
            on_release,
            failure: failure.clone(),
        };
        CampaignRegistry { follower: Arc::new(Mutex::new(follower)), campaigns, failure, registry }
    }

    fn lock(&self) -> MutexGuard<'_, Follower> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The definitions by number, for those who read.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Reads what others decided. One round trip where nothing is new.
    pub fn catch_up(&self) -> Result<usize, RegistryError> {
        self.lock().catch_up()
    }

    /// Why nothing can be decided, if so. It does not pass by itself.
    pub fn failure(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map(|failing| failing.reason.clone())
    }

    pub fn get(&self, client: &str, id: &str) -> Option<Arc<Campaign>> {
        read(&self.campaigns).get(client, id)
    }

    /// What was promised of a campaign's budget, in minor units.
    pub fn committed(&self, client: &str, id: &str) -> u64 {
        read(&self.campaigns).committed(client, id)
    }

    /// Changes or creates a campaign; answers it as it is then.
    pub fn change(
        &self,
        client: &str,
        id: &str,
        change: &CampaignChange,
        now: UnixMs,
    ) -> Result<Arc<Campaign>, Refused> {
        self.lock().decide(&mut |campaigns| {
            let campaign = campaigns.change(client, id, change.clone(), now)?;
            // What an attempt without a reply has done already is not said twice.
            let is_said = campaigns.get(client, id).is_some_and(|held| {
                *held == Campaign { is_funded_whole: held.is_funded_whole, ..campaign.clone() }
            });
            Ok((!is_said).then(|| Entry::Campaign(Box::new(campaign))))
        })?;
        let missing = || Refused::new(Refusal::NotFound, format!("there is no campaign {id}"));
        self.get(client, id).ok_or_else(missing)
    }

    /// Reserves what a request would move, before it is asked of the wallet. False: it is reserved, or was done.
    pub fn reserve(&self, funding: &Funding) -> Result<bool, Refused> {
        let mut is_reserved_here = false;
        self.lock().decide(&mut |campaigns| {
            let entry = campaigns.reserve(funding)?.map(Entry::Funding);
            is_reserved_here |= entry.is_some();
            Ok(entry)
        })?;
        Ok(is_reserved_here)
    }

    /// Tells how a reservation ended: the request is final, or was certainly not accepted.
    pub fn conclude(&self, client: &str, id: &str, step: Step) -> Result<(), Refused> {
        let conclude =
            &mut |campaigns: &Campaigns| Ok(campaigns.conclude(client, id, step).map(Entry::Funding));
        self.lock().decide(conclude)
    }

    /// Concludes open reservations by what the requests have become: of one campaign, or the oldest of all that were
    /// made before `until`. Answers how many it concluded.
    pub fn reconcile(
        &self,
        of: Option<(&str, &str)>,
        until: UnixMs,
        look: &FundingLook,
    ) -> Result<usize, Refused> {
        let open = read(&self.campaigns).open(of, until, RECONCILE_COUNT_MAX);
        let mut concluded = 0;
        for funding in open {
            let asked = [funding.id.clone()];
            let found = look(&funding.client, &asked).and_then(|found| found.into_iter().next().flatten());
            let step = match found {
                Some(Status::Succeeded | Status::Reversed) => Step::Done,
                Some(Status::Failed | Status::Canceled | Status::Expired) => Step::Failed,
                Some(Status::Accepted | Status::Queued | Status::Processing | Status::Unknown) | None => {
                    continue;
                }
            };
            self.conclude(&funding.client, &funding.id, step)?;
            concluded += 1;
        }
        Ok(concluded)
    }

    /// Follows the stream on a thread of its own.
    pub fn start(
        &self,
        look: FundingLook,
        now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    ) -> std::io::Result<RegistryThread> {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, registry) = (stop.clone(), self.clone());
        let handle = std::thread::Builder::new().name("campaigns".to_owned()).spawn(move || {
            let (mut was_well, mut reconciled_at) = (true, Instant::now());
            while !told.load(Ordering::Acquire) {
                let mut followed = registry.catch_up().map(drop).map_err(|error| error.to_string());
                if followed.is_ok() && reconciled_at.elapsed() >= RECONCILE {
                    reconciled_at = Instant::now();
                    let until = now_ms().saturating_sub(FUNDING_OPEN_MS_MAX);
                    followed = registry.reconcile(None, until, &look).map(drop).map_err(|r| r.detail);
                }
                match &followed {
                    Err(error) if was_well => tracing::warn!(error, "campaigns are not followed for now"),
                    Ok(()) if !was_well => tracing::info!("campaigns are followed again"),
                    Ok(()) | Err(_) => {}
                }
                was_well = followed.is_ok();
                std::thread::park_timeout(POLL);
            }
        })?;
        Ok(RegistryThread { stop, handle })
    }
}

/// The running thread.
pub struct RegistryThread {
    stop: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

impl RegistryThread {
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.handle.thread().unpark();
        // It holds nothing that is not in the stream.
        let _ = self.handle.join();
    }
}
