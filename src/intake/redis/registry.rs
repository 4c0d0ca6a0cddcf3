//! The campaigns of a fleet: one stream of decisions that every instance follows and any may append to.
//!
//! A decision is made on what was read, and appended only if nothing was appended meanwhile ([`DECIDE`]); otherwise it
//! is read up and decided again. So decisions stand in one order, each on top of those before. The stream is never
//! trimmed: it is the only copy. An entry that cannot be applied stops everything here, because a registry that
//! skipped it would number campaigns in another way than the rest of the fleet. Calls block; they are made from
//! threads that may.

use std::collections::HashMap;
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
/// Open funding looked at in one turn; the next one goes on behind it.
const RECONCILE_COUNT_MAX: usize = 100;
/// Funding of which no outcome is known for so long is asked for again, and then as often.
const RESEND_MS: u64 = 60_000;
/// Entries read in one command.
const PAGE_COUNT: usize = 1_000;
/// How often a decision is made again because others came first.
const DECIDE_COUNT_MAX: usize = 64;
const FIELD: &str = "e";

/// Appends an entry if the stream still has the one that the caller has read to, unless that was deleted (`ARGV[3]`),
/// and none behind it. One XADD. A full Redis takes it all the same: pausing and closing must work then, too.
static DECIDE: Script = Script::new(
    "decide",
    "#!lua flags=allow-oom
local rest = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', 2)
local held = #rest > 0 and rest[1][1] == ARGV[1]
if not held and ARGV[1] ~= '0-0' and ARGV[3] == '0' then return redis.error_reply('BEHIND ' .. ARGV[1] .. ' is gone') end
if #rest > (held and 1 or 0) then return redis.error_reply('BEHIND there are entries after ' .. ARGV[1]) end
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
/// Asks again for funding that was reserved and of which nothing is known, as its caller could. May block.
pub type Resend = Box<dyn Fn(&CampaignRegistry, &Funding) + Send + Sync>;
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
    /// The entry at the cursor was applied, and somebody has deleted it since.
    is_cursor_deleted: bool,
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
        (self.cursor, self.is_cursor_deleted) = (id, false);
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

    /// The last entry that was read is not there: somebody deleted it, or Redis has lost the end of the stream.
    fn check_deleted(&mut self) -> Result<(), RegistryError> {
        let info = Command::routed("XINFO", &self.key).arg("STREAM").arg(&self.key);
        let deleted = match self.link.call(info) {
            Ok(info) => last_deleted(info)?,
            // There is no such key.
            Err(failure) if failure.is_code("ERR") => None,
            Err(failure) => return Err(failure.into()),
        };
        if deleted < id_of(&self.cursor) {
            let lost = RegistryError::Lost { key: self.key.clone(), cursor: self.cursor.clone() };
            self.fail(&lost);
            return Err(lost);
        }
        self.is_cursor_deleted = true;
        tracing::error!(
            key = self.key,
            entry = self.cursor,
            "somebody deleted a decision about a campaign; it holds here and not in instances that start from now on: \
             decide it again"
        );
        Ok(())
    }

    /// Reads what was appended since; how many entries that was.
    fn catch_up(&mut self) -> Result<usize, RegistryError> {
        let mut count = 0;
        loop {
            // From the last one on that was read: it must still be there, or what followed it may be gone too.
            let page =
                Command::new("XRANGE", &self.key).arg(&self.cursor).arg("+").arg("COUNT").arg(PAGE_COUNT);
            let page = reply::array("XRANGE", self.link.call(page)?)?;
            let is_last = page.len() < PAGE_COUNT;
            let mut page = page.into_iter().map(read_entry).collect::<Result<Vec<_>, Failure>>()?;
            if page.first().is_some_and(|(id, _)| *id == self.cursor) {
                page.remove(0);
            } else if self.cursor != "0-0" && !self.is_cursor_deleted {
                self.check_deleted()?;
            }
            count += page.len();
            for (id, json) in page {
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
        let mut is_unknown = false;
        for _ in 0..DECIDE_COUNT_MAX {
            self.catch_up().map_err(|error| refused_by(&error, is_unknown))?;
            let Some(entry) = decide(&read(&self.campaigns))? else { return Ok(()) };
            let json = entry.encode();
            let command =
                Command::script(&DECIDE, &[self.key.as_bytes()]).arg(&self.cursor).arg(json.as_slice());
            let command = command.arg(u8::from(self.is_cursor_deleted));
            let appended = self.link.call(command).and_then(|id| reply::text(DECIDE.name, id));
            let is_behind = appended.as_ref().is_err_and(|failure| failure.is_code("BEHIND"));
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

/// `ms-number`, to compare.
fn id_of(text: &str) -> Option<(u64, u64)> {
    let (ms, number) = text.split_once('-')?;
    Some((ms.parse().ok()?, number.parse().ok()?))
}

/// The largest id that was ever deleted of a stream, by what XINFO says of it.
fn last_deleted(info: Value) -> Result<Option<(u64, u64)>, Failure> {
    let mut fields = reply::array("XINFO", info)?.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if reply::text("XINFO", name)?.as_deref() == Some("max-deleted-entry-id") {
            return Ok(reply::text("XINFO", value)?.and_then(|id| id_of(&id)));
        }
    }
    Ok(None)
}

fn refused_by(error: &RegistryError, is_unknown: bool) -> Refused {
    let may_be_done = matches!(error, RegistryError::Redis(failure) if failure.is_unknown()) || is_unknown;
    let code = if may_be_done { Refusal::AppendUnknown } else { Refusal::NotAccepting };
    let mut refused = Refused::new(code, format!("{error}; retry, it changes nothing twice"));
    refused.accepted_unknown = may_be_done;
    refused.retry_after_s = Some(1);
    refused
}

/// Where looking at open funding stands.
#[derive(Default)]
struct Turn {
    /// The last one that was looked at.
    last: Option<Funding>,
    concluded: usize,
    /// Of these nothing is known.
    unseen: Vec<Funding>,
    /// When it was asked for again, by client and id.
    resent_at: HashMap<(String, String), UnixMs>,
}

/// The handle.
#[derive(Clone)]
pub struct CampaignRegistry {
    /// Held over round trips.
    follower: Arc<Mutex<Follower>>,
    /// Held for a moment only: whoever must not block reads here.
    campaigns: Arc<RwLock<Campaigns>>,
    failure: Arc<Mutex<Option<Failing>>>,
    resend: Arc<Mutex<Option<Resend>>>,
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
            is_cursor_deleted: false,
            is_loaded: false,
            campaigns: campaigns.clone(),
            on_release,
            failure: failure.clone(),
        };
        let (follower, resend) = (Arc::new(Mutex::new(follower)), Arc::new(Mutex::new(None)));
        CampaignRegistry { follower, campaigns, failure, resend, registry }
    }

    /// Who asks for funding again that came to nothing; until the thread is stopped.
    pub fn on_stuck(&self, resend: Resend) {
        *self.resend.lock().unwrap_or_else(PoisonError::into_inner) = Some(resend);
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
        let mut turn = Turn::default();
        loop {
            let count = self.reconcile_some(of, until, look, &mut turn)?;
            if of.is_none() || count < RECONCILE_COUNT_MAX {
                return Ok(turn.concluded);
            }
        }
    }

    /// The next few behind those of the turn before; how many those were.
    fn reconcile_some(
        &self,
        of: Option<(&str, &str)>,
        until: UnixMs,
        look: &FundingLook,
        turn: &mut Turn,
    ) -> Result<usize, Refused> {
        let open = read(&self.campaigns).open(of, turn.last.as_ref(), until, RECONCILE_COUNT_MAX);
        // At the end it begins anew.
        turn.last = if open.len() < RECONCILE_COUNT_MAX { None } else { open.last().cloned() };
        for funding in &open {
            let asked = [funding.id.clone()];
            let Some(found) = look(&funding.client, &asked) else { continue };
            let step = match found.into_iter().next().flatten() {
                Some(Status::Succeeded | Status::Reversed) => Step::Done,
                Some(Status::Failed | Status::Canceled | Status::Expired) => Step::Failed,
                Some(Status::Accepted | Status::Queued | Status::Processing | Status::Unknown) => continue,
                None => {
                    turn.unseen.push(funding.clone());
                    continue;
                }
            };
            self.conclude(&funding.client, &funding.id, step)?;
            turn.concluded += 1;
        }
        Ok(open.len())
    }

    /// Asks again for what was seen to be stuck, each now and then.
    fn resend(&self, turn: &mut Turn, now: UnixMs) {
        let unseen = std::mem::take(&mut turn.unseen);
        let resend = self.resend.lock().unwrap_or_else(PoisonError::into_inner);
        turn.resent_at.retain(|_, at| now.saturating_sub(*at) < RESEND_MS);
        for funding in unseen {
            let name = (funding.client.clone(), funding.id.clone());
            let is_stuck = now.saturating_sub(funding.at) >= RESEND_MS && !turn.resent_at.contains_key(&name);
            if let (true, Some(resend)) = (is_stuck, &*resend) {
                tracing::warn!(
                    client = funding.client,
                    id = funding.id,
                    "funding was reserved and nothing came of it; it is asked for again under its id"
                );
                turn.resent_at.insert(name, now);
                resend(self, &funding);
            }
        }
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
            let mut turn = Turn::default();
            while !told.load(Ordering::Acquire) {
                let mut followed = registry.catch_up().map(drop).map_err(|error| error.to_string());
                if followed.is_ok() && reconciled_at.elapsed() >= RECONCILE {
                    reconciled_at = Instant::now();
                    let now = now_ms();
                    let until = now.saturating_sub(FUNDING_OPEN_MS_MAX);
                    let looked = registry.reconcile_some(None, until, &look, &mut turn);
                    followed = looked.map(drop).map_err(|refused| refused.detail);
                    registry.resend(&mut turn, now);
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
        Ok(RegistryThread { stop, handle, resend: self.resend.clone() })
    }
}

/// The running thread.
pub struct RegistryThread {
    stop: Arc<AtomicBool>,
    handle: JoinHandle<()>,
    resend: Arc<Mutex<Option<Resend>>>,
}

impl RegistryThread {
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.handle.thread().unpark();
        // It holds nothing that is not in the stream.
        let _ = self.handle.join();
        // Who resends knows the registry: let go, lest they keep each other.
        self.resend.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
