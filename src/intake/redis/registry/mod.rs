//! The campaigns of a fleet: one stream of decisions that every instance follows and any may append to.
//!
//! A decision is made on what was read, and appended only if nothing was appended meanwhile ([`follower`]); otherwise it
//! is read up and decided again. So decisions stand in one order, each on top of those before. The stream is the
//! only copy; it is trimmed only up to an entry that has all of what was before it. An entry that cannot be applied stops everything here, because a registry that
//! skipped it would number campaigns in another way than the rest of the fleet. Calls block; they are made from
//! threads that may.

mod follower;
mod reconcile;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::follower::Follower;
pub use self::reconcile::RegistryThread;
use super::Keys;
use super::campaigns::{Campaigns, Entry, EntryError, Funding, Release, Step};
use crate::domain::{Campaign, Refusal, Status, UnixMs};
use crate::intake::desk::campaigns::Registry;
use crate::intake::desk::{CampaignChange, Refused};
use crate::redis::{Failure, Link};

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
        "Redis has lost its data: {key} has lost entry {cursor}, a decision about campaigns that was read here; restore \
         its data, then restart this instance"
    )]
    Lost { key: String, cursor: String },
    #[error(
        "this instance was cut off from {key} while thousands of decisions about campaigns were made: {cursor}, the last \
         one that it read, is trimmed, and whether Redis has lost others since cannot be told any more. Restart this \
         instance"
    )]
    Overtaken { key: String, cursor: String },
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
    /// So many decisions were made without this instance that it cannot follow any more.
    is_overtaken: bool,
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
            entry_count: 0,
            fold: None,
            fold_before: None,
            is_fold_too_large: false,
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

    /// Keeps the stream short, where that is due. To be called behind a [`CampaignRegistry::catch_up`] that succeeded.
    pub fn keep_short(&self) -> Result<(), Failure> {
        self.lock().keep_short()
    }

    /// Why nothing can be decided, if so. It does not pass by itself.
    pub fn failure(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map(|failing| failing.reason.clone())
    }

    /// Whether others should have the units of this instance: until it is restarted it cannot know of new decisions.
    pub fn is_overtaken(&self) -> bool {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().is_some_and(|failing| failing.is_overtaken)
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
}

fn read(campaigns: &RwLock<Campaigns>) -> RwLockReadGuard<'_, Campaigns> {
    campaigns.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(campaigns: &RwLock<Campaigns>) -> RwLockWriteGuard<'_, Campaigns> {
    campaigns.write().unwrap_or_else(PoisonError::into_inner)
}
