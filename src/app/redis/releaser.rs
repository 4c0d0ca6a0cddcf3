//! Makes due what waits for a campaign that was resumed, closed or funded: on a thread of its own, because a release
//! walks what waits, and whoever follows the campaigns must not.
//!
//! Bounded by what can be told apart: a release that is still to be carried out is not noted twice.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::parked::RedisWaiting;
use crate::domain::WaitReason;
use crate::gateway::port::ParkedFilter;
use crate::intake::redis::campaigns::Release;

/// Before a release that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Wanted {
    /// Client, campaign, and the stored number of the reason.
    releases: BTreeSet<(String, String, u8)>,
    is_stopped: bool,
}

#[derive(Default)]
struct Shared {
    wanted: Mutex<Wanted>,
    bell: Condvar,
}

/// Ends its thread when it is dropped.
pub struct Releaser {
    shared: Arc<Shared>,
}

impl Releaser {
    pub fn start(waiting: RedisWaiting) -> std::io::Result<Releaser> {
        let shared = Arc::new(Shared::default());
        let its = shared.clone();
        std::thread::Builder::new().name("releases".to_owned()).spawn(move || run(&its, &waiting))?;
        Ok(Releaser { shared })
    }

    pub fn release(&self, release: &Release) {
        let mut wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        for reason in release.reasons {
            wanted.releases.insert((release.client.clone(), release.campaign.clone(), *reason as u8));
        }
        self.shared.bell.notify_all();
    }
}

impl Drop for Releaser {
    fn drop(&mut self) {
        self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).is_stopped = true;
        self.shared.bell.notify_all();
    }
}

fn run(shared: &Shared, waiting: &RedisWaiting) {
    loop {
        let held = shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |wanted: &mut Wanted| wanted.releases.is_empty() && !wanted.is_stopped;
        let mut held = shared.bell.wait_while(held, idle).unwrap_or_else(PoisonError::into_inner);
        if held.is_stopped {
            return;
        }
        let Some(next) = held.releases.pop_first() else { continue };
        drop(held);
        let (client, campaign, reason) = next.clone();
        let filter = ParkedFilter { client, campaign: Some(campaign), reason: WaitReason::from_u8(reason) };
        if let Err(refused) = waiting.release_now(&filter, None) {
            tracing::warn!(reason = refused.detail, "what waits for a campaign is released later");
            shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).releases.insert(next);
            std::thread::sleep(RETRY);
        }
    }
}
