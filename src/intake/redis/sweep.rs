//! Forgetting ids: those of campaigns that are closed, and have been for the retention, are taken out of the buckets.
//!
//! Safe, because a closed campaign refuses everything at the door and at settlement, and the wallet remembers its ids
//! longer than we do. Slow on purpose: a page, one command to remove what of it may go, a pause. A unit is swept by its
//! owner only, and only when there is a campaign to forget that its last sweep did not cover. A cancel of an id that
//! was never seen names no campaign; it is forgotten once it is older than the retention, for the wallet has burned the
//! id. Interrupted or done twice, it does no harm.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::identity::{decode_head, decode_known, items_field};
use super::{Held, Keys, UnitId};
use crate::domain::{CampaignState, Kind, UnixMs};
use crate::intake::desk::campaigns::Registry;
use crate::redis::{Command, Failure, Link, reply};

#[derive(Clone, Debug)]
pub struct SweepOptions {
    /// How long the ids of a closed campaign are remembered.
    pub retention_ms: u64,
    /// Between looks for something to forget.
    pub interval: Duration,
    /// Between pages.
    pub pause: Duration,
    /// Fields in a page.
    pub page_count: usize,
}

impl Default for SweepOptions {
    fn default() -> SweepOptions {
        SweepOptions {
            retention_ms: 7 * 86_400_000,
            interval: Duration::from_secs(600),
            pause: Duration::from_millis(20),
            page_count: 500,
        }
    }
}

/// Campaigns whose ids may be forgotten, as `client:campaign`.
fn expired(registry: &Registry, now: UnixMs, retention_ms: u64) -> HashSet<String> {
    let shared = registry.read().unwrap_or_else(PoisonError::into_inner);
    let is_over = |closed_at: UnixMs| closed_at.saturating_add(retention_ms) <= now;
    let over = shared.iter().filter(|c| c.state == CampaignState::Closed && is_over(c.closed_at));
    over.map(|c| format!("{}:{}", c.client, c.id)).collect()
}

/// Whether a field may be forgotten. What cannot be read is kept.
fn may_go(field: &[u8], value: &[u8], expired: &HashSet<String>, before: UnixMs) -> bool {
    let Ok(field) = std::str::from_utf8(field) else { return false };
    let Some((client, name)) = field.split_once(':') else { return false };
    if name.starts_with("#batch:") {
        return decode_head(value)
            .is_ok_and(|(head, _)| expired.contains(&format!("{client}:{}", head.campaign)));
    }
    let Ok(request) = decode_known(value, client, name) else { return false };
    match request.kind {
        Kind::Cancel => request.accepted_at < before,
        _ => expired.contains(&format!("{client}:{}", request.campaign)),
    }
}

/// The sweeper of one instance.
pub struct Sweeper {
    pub link: Link,
    pub keys: Keys,
    pub held: Arc<Held>,
    pub registry: Registry,
    pub options: SweepOptions,
    /// Of each unit: the epoch and the number of campaigns its last full sweep covered.
    swept: HashMap<UnitId, (u64, usize)>,
    forgotten: Arc<AtomicU64>,
}

impl Sweeper {
    pub fn new(
        link: Link,
        keys: Keys,
        held: Arc<Held>,
        registry: Registry,
        options: SweepOptions,
    ) -> Sweeper {
        let (swept, forgotten) = (HashMap::new(), Arc::new(AtomicU64::new(0)));
        Sweeper { link, keys, held, registry, options, swept, forgotten }
    }

    /// Ids forgotten so far.
    pub fn forgotten(&self) -> Arc<AtomicU64> {
        self.forgotten.clone()
    }

    /// Sweeps every unit that is held and has something to forget. Ends early when told to, or when a unit is lost.
    pub fn sweep(&mut self, now: UnixMs, is_stopped: &dyn Fn() -> bool) -> Result<(), Failure> {
        let expired = expired(&self.registry, now, self.options.retention_ms);
        if expired.is_empty() {
            return Ok(());
        }
        let before = now.saturating_sub(self.options.retention_ms);
        for unit in (0..self.keys.units().shard_count).map(UnitId) {
            let Some(epoch) = self.held.epoch(unit) else { continue };
            if self.swept.get(&unit) == Some(&(epoch, expired.len())) {
                continue;
            }
            for key in self.keys.id_buckets(unit) {
                let mut cursor = b"0".to_vec();
                loop {
                    if is_stopped() || self.held.epoch(unit) != Some(epoch) {
                        return Ok(());
                    }
                    cursor = self.page(&key, &cursor, &expired, before)?;
                    if cursor == b"0" {
                        break;
                    }
                    std::thread::park_timeout(self.options.pause);
                }
            }
            self.swept.insert(unit, (epoch, expired.len()));
        }
        Ok(())
    }

    /// Looks at a page and removes what of it may go; answers the cursor of the next.
    fn page(
        &mut self,
        key: &str,
        cursor: &[u8],
        expired: &HashSet<String>,
        before: UnixMs,
    ) -> Result<Vec<u8>, Failure> {
        let strange = || Failure::Strange { command: "HSCAN".to_owned(), expected: "a cursor and fields" };
        let scan = Command::new("HSCAN", key).arg(cursor).arg("COUNT").arg(self.options.page_count);
        let mut parts = reply::array("HSCAN", self.link.call(scan)?)?.into_iter();
        let next = reply::bytes("HSCAN", parts.next().ok_or_else(strange)?)?.ok_or_else(strange)?;
        let mut fields = reply::array("HSCAN", parts.next().ok_or_else(strange)?)?.into_iter();
        let mut remove = Command::new("HDEL", key);
        let mut count = 0;
        while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
            let field = reply::bytes("HSCAN", field)?.ok_or_else(strange)?;
            let value = reply::bytes("HSCAN", value)?.ok_or_else(strange)?;
            if may_go(&field, &value, expired, before) {
                remove.push(field.as_slice());
                count += 1;
                if let Some(items) = items_of(&field) {
                    remove.push(items);
                }
            }
        }
        if count > 0 {
            reply::int("HDEL", self.link.call(remove)?)?;
            self.forgotten.fetch_add(count, Ordering::Relaxed);
        }
        Ok(next)
    }

    /// Sweeps now and then on a thread of its own.
    pub fn start(mut self, now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>) -> std::io::Result<SweepThread> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let handle = std::thread::Builder::new().name("sweep".to_owned()).spawn(move || {
            while !told.load(Ordering::Acquire) {
                // What is left over is found by the next sweep.
                if let Err(failure) = self.sweep(now_ms(), &|| told.load(Ordering::Acquire)) {
                    tracing::warn!(%failure, "ids of closed campaigns cannot be forgotten for now");
                }
                std::thread::park_timeout(self.options.interval);
            }
        })?;
        Ok(SweepThread { stop, handle })
    }
}

/// The items that stand beside a batch's head.
fn items_of(field: &[u8]) -> Option<Vec<u8>> {
    let (client, batch) = std::str::from_utf8(field).ok()?.split_once(":#batch:")?;
    Some(items_field(client, batch))
}

/// The running thread.
pub struct SweepThread {
    stop: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

impl SweepThread {
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.handle.thread().unpark();
        // It leaves nothing half done.
        let _ = self.handle.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Amount, Campaign, Currency, Request};
    use crate::intake::embedded::entry::Batch;
    use crate::intake::redis::identity::{batch_field, encode_head, encode_known, id_field};

    #[test]
    fn only_what_belongs_to_a_campaign_past_its_retention_may_go() {
        let currency = Currency::parse("CNY").unwrap();
        let amount = Amount::new(1).unwrap();
        let campaign = |id: &str, state, closed_at| {
            Arc::new(Campaign { state, closed_at, ..Campaign::new("s", id, currency, amount) })
        };
        let registry = Registry::default();
        registry.write().unwrap().extend([
            campaign("open", CampaignState::Active, 0),
            campaign("late", CampaignState::Closed, 900),
            campaign("over", CampaignState::Closed, 500),
        ]);
        let expired = expired(&registry, 1_000, 400);
        assert_eq!(expired.len(), 1);
        let known = |kind, campaign, accepted_at| {
            let mut value = Vec::new();
            let request = Request { accepted_at, ..Request::new(kind, "s", "r", campaign, amount, currency) };
            encode_known(&request, &mut value);
            (id_field("s", "r"), value)
        };
        let head = |campaign| {
            let (digest, key_hash, count, amount, accepted_at) = ([0; 16], 0, 1, 1, 1);
            let (client, id) = ("s", "b");
            let batch =
                Batch { digest, key_hash, count, amount, accepted_at, currency, client, id, campaign };
            (batch_field("s", "b"), encode_head(&batch, None))
        };
        let table = [
            (known(Kind::Disbursement, "over", 1), true),
            (known(Kind::Reversal, "over", 1), true),
            (known(Kind::Disbursement, "late", 1), false),
            (known(Kind::Disbursement, "open", 1), false),
            (known(Kind::Disbursement, "unheard", 1), false),
            (known(Kind::Cancel, "", 599), true),
            (known(Kind::Cancel, "", 600), false),
            (head("over"), true),
            (head("open"), false),
            ((id_field("s", "r"), b"what is this".to_vec()), false),
        ];
        for (row, ((field, value), expected)) in table.into_iter().enumerate() {
            assert_eq!(may_go(&field, &value, &expired, 600), expected, "row {row}");
        }
        assert_eq!(items_of(&batch_field("s", "b")), Some(items_field("s", "b")));
        assert_eq!(items_of(&id_field("s", "b")), None);
    }
}
