//! Open funding: what the wallet made of it is looked up now and then, and what is stuck is asked for again; and the
//! thread that does so while it follows the stream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{CampaignRegistry, FundingLook, Resend, read};
use crate::domain::{Status, UnixMs};
use crate::intake::desk::Refused;
use crate::intake::redis::campaigns::{Funding, Step};

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

impl CampaignRegistry {
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
                    // First, because it goes by what was just read.
                    if let Err(failure) = registry.keep_short() {
                        tracing::warn!(%failure, "the campaigns' stream could not be folded or trimmed for now");
                    }
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
