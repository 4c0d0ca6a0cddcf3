//! Follows the stream of decisions, appends to it what is decided here, and keeps it short.
//!
//! Once it is long, what it came to is appended as one entry, a fold, in the same way as a decision, and what is before
//! the fold before that is trimmed: two commands, the second not before the first was read, and not where what it
//! goes by was lost since. So the entries behind the last fold but one are there, one by one, and whoever comes back finds
//! the one that it read last among them, or knows that it is lost: a fold cannot say so, because those who made it may
//! never have seen what is lost. Whoever was away for two folds cannot tell, and must be started anew. Something small is
//! appended behind a fold, on which those who poll stand.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::{Failing, OnRelease, RegistryError, read, write};
use crate::domain::Refusal;
use crate::intake::desk::Refused;
use crate::intake::redis::campaigns::{Campaigns, Entry};
use crate::redis::{Command, Failure, Link, Script, Value, reply};

/// Entries read in one command.
const PAGE_COUNT: usize = 1_000;
/// How often a decision is made again because others came first.
const DECIDE_COUNT_MAX: usize = 64;
const FIELD: &str = "e";
/// The stream is folded when it has so many entries more than it needs, and at least as many again as that.
pub const FOLD_COUNT_MIN: usize = 4_096;
/// A larger fold would hold up Redis and whoever reads it: the stream stays as long as it is.
pub const FOLD_BYTES_MAX: usize = 8 << 20;

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

/// Trims what is before a fold. One that was lost since it was read stands for nothing, and the trim would leave nothing. One
/// XTRIM.
static TRIM: Script = Script::new(
    "trim_campaigns",
    "#!lua flags=allow-oom
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then return redis.error_reply('GONE the fold ' .. ARGV[1] .. ' is not there any more') end
return redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])",
);

pub struct Follower {
    pub link: Link,
    pub key: String,
    pub cursor: String,
    /// The entry at the cursor was applied, and somebody has deleted it since.
    pub is_cursor_deleted: bool,
    /// Entries read behind the last fold.
    pub entry_count: usize,
    /// The last fold that was read.
    pub fold: Option<String>,
    /// The one before it: what is before that is to be trimmed.
    pub fold_before: Option<String>,
    /// Told once.
    pub is_fold_too_large: bool,
    pub is_loaded: bool,
    pub campaigns: Arc<RwLock<Campaigns>>,
    pub on_release: OnRelease,
    pub failure: Arc<Mutex<Option<Failing>>>,
}

impl Follower {
    fn take(&mut self, id: String, json: &[u8]) -> Result<(), RegistryError> {
        let entry = Entry::decode(json).map_err(|reason| {
            let error = RegistryError::Entry { key: self.key.clone(), id: id.clone(), reason };
            self.fail(&error);
            error
        })?;
        let is_fold = matches!(entry, Entry::Fold(_));
        let released = match &entry {
            // All of it was read here, one by one.
            Entry::Fold(fold) if fold.through == self.cursor => Vec::new(),
            Entry::Campaign(_) | Entry::Funding(_) | Entry::Fold(_) => write(&self.campaigns).apply(entry),
        };
        if is_fold {
            self.entry_count = 0;
            self.fold_before = self.fold.replace(id.clone());
        } else {
            self.entry_count += 1;
        }
        (self.cursor, self.is_cursor_deleted) = (id, false);
        if self.is_loaded {
            released.iter().for_each(|release| (self.on_release)(release));
        }
        Ok(())
    }

    /// Nothing is decided from here on: for good, or until an entry can be applied. Told once.
    fn fail(&mut self, error: &RegistryError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = error.to_string();
        if failure.as_ref().is_none_or(|held| !held.is_final && held.reason != reason) {
            tracing::error!(%error, "the campaigns of the fleet cannot be followed");
            let is_overtaken = matches!(error, RegistryError::Overtaken { .. });
            let is_final = is_overtaken || matches!(error, RegistryError::Lost { .. });
            *failure = Some(Failing { reason, is_final, is_overtaken });
        }
    }

    fn overtaken(&self) -> RegistryError {
        RegistryError::Overtaken { key: self.key.clone(), cursor: self.cursor.clone() }
    }

    /// All entries could be applied.
    fn succeed(&mut self) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.as_ref().is_some_and(|held| !held.is_final) {
            *failure = None;
        }
    }

    /// The last entry that was read is not there: a fold has it, or somebody deleted it, or Redis has lost the end of the
    /// stream. `first`: what stands behind it now.
    fn check_missing(&mut self, first: Option<&(String, Vec<u8>)>) -> Result<(), RegistryError> {
        if let Some(Ok(Entry::Fold(fold))) = first.map(|(_, json)| Entry::decode(json)) {
            let is_beyond = id_of(&fold.through) > id_of(&self.cursor);
            // A first load that was going on meanwhile: the fold has what was read of it, and the rest.
            if fold.through == self.cursor || is_beyond && !self.is_loaded {
                return Ok(());
            }
            if is_beyond {
                let overtaken = self.overtaken();
                self.fail(&overtaken);
                return Err(overtaken);
            }
        }
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

    /// Trims what is before the last fold but one, and makes one when the stream has become long. To be called now and
    /// then, when the stream was just read.
    pub fn keep_short(&mut self) -> Result<(), Failure> {
        if self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        if let Some(fold) = &self.fold_before {
            let trimmed = self.link.call(Command::script(&TRIM, &[self.key.as_bytes()]).arg(fold));
            if trimmed.is_ok() || trimmed.as_ref().is_err_and(|failure| failure.is_code("GONE")) {
                self.fold_before = None;
            }
            trimmed?;
        }
        if self.is_cursor_deleted {
            return Ok(());
        }
        let kept = if self.entry_count == 0 && self.cursor != "0-0" {
            // Whoever made the fold got no further.
            self.cover(&self.cursor.clone())
        } else {
            self.fold()
        };
        match kept {
            // Somebody decided meanwhile, or has done the same.
            Err(failure) if failure.is_code("BEHIND") => Ok(()),
            kept => kept,
        }
    }

    /// Appends what was read as one entry, where there is enough of it. It is read as any other, and then there is something
    /// to trim.
    fn fold(&mut self) -> Result<(), Failure> {
        let needed = read(&self.campaigns).count();
        if self.is_fold_too_large || self.entry_count < FOLD_COUNT_MIN.max(needed) + needed {
            return Ok(());
        }
        let fold = Entry::Fold(Box::new(read(&self.campaigns).fold(&self.cursor))).encode();
        if fold.len() > FOLD_BYTES_MAX {
            // It does not become less.
            self.is_fold_too_large = true;
            tracing::warn!(
                key = self.key,
                bytes = fold.len(),
                bytes_max = FOLD_BYTES_MAX,
                "the campaigns and their funding are too many for one entry: their stream is read in pages, and not \
                 shortened any more"
            );
            return Ok(());
        }
        match self.append(&self.cursor.clone(), &fold)? {
            Some(id) => self.cover(&id),
            None => Ok(()),
        }
    }

    /// Appends a definition as it stands behind a fold that is the last entry: whoever polls reads the last entry again each
    /// time, and that is to be a small one.
    fn cover(&mut self, fold: &str) -> Result<(), Failure> {
        let registry = read(&self.campaigns).registry();
        let first = registry.read().unwrap_or_else(PoisonError::into_inner).first().cloned();
        let Some(campaign) = first else { return Ok(()) };
        self.append(fold, &Entry::Campaign(Box::new((*campaign).clone())).encode()).map(drop)
    }

    /// Appends an entry on top of the one that is the last one, as far as is known; its id.
    fn append(&mut self, last: &str, json: &[u8]) -> Result<Option<String>, Failure> {
        let command = Command::script(&DECIDE, &[self.key.as_bytes()]).arg(last).arg(json);
        let command = command.arg(u8::from(self.is_cursor_deleted));
        self.link.call(command).and_then(|id| reply::text(DECIDE.name, id))
    }

    /// Reads what was appended since; how many entries that was.
    pub fn catch_up(&mut self) -> Result<usize, RegistryError> {
        let is_overtaken = |failing: &Failing| failing.is_overtaken;
        // Only a restart ends that; what stands there is large.
        if self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(is_overtaken) {
            return Err(self.overtaken());
        }
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
                self.check_missing(page.first())?;
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
    pub fn decide(
        &mut self,
        decide: &mut dyn FnMut(&Campaigns) -> Result<Option<Entry>, Refused>,
    ) -> Result<(), Refused> {
        let mut is_unknown = false;
        for _ in 0..DECIDE_COUNT_MAX {
            self.catch_up().map_err(|error| refused_by(&error, is_unknown))?;
            let Some(entry) = decide(&read(&self.campaigns))? else { return Ok(()) };
            let json = entry.encode();
            let appended = self.append(&self.cursor.clone(), &json);
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
