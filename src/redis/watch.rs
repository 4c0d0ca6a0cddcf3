//! What may be stated and what is to be done, as servers fill up, restart and rewrite their files.
//!
//! ```text
//! a run of a server that was not seen to be in order ──> wish a rewrite ──> it succeeded ──> in order
//! ```
//!
//! A server that starts from an append-only file that was cut off may append behind a dangling MULTI, and lose all
//! of that at its next start. A rewrite within the run replaces the file, whoever asked for it; until one has
//! succeeded, no `fsync` is stated for that run. A run that this watch meets first is doubted too: what was before
//! it is not known. Only `aof-load-truncated no` makes that needless.
//!
//! Pure: fed with facts now and then, and told the time. Facts are as old as the last look: who states a durability
//! looks again whenever a connection was made anew, because a restart always ends it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::durability::{Durability, durability_of};
use super::server::{ServerFacts, Servers};

/// Of its memory, in percent: full from here …
const FULL_PERCENT: u128 = 85;
/// … until it is below this again.
const EASED_PERCENT: u128 = 80;
/// A rewrite that failed, or was refused, is not wished again sooner.
pub const WISH_WAIT: Duration = Duration::from_secs(10);
/// Runs that were trusted and are gone are forgotten beyond this.
const TRUSTED_MAX: usize = 1024;

/// What someone should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `BGREWRITEAOF` at this server.
    Rewrite { server: String },
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// What an acknowledged write may be said to have, now.
    pub durability: Durability,
    /// Some server is short of memory: nothing new should be accepted.
    pub is_full: bool,
    /// Some server is still reading its data.
    pub is_loading: bool,
    pub wishes: Vec<Wish>,
}

#[derive(Debug, Default)]
pub struct Watch {
    /// Run ids whose append-only file is in order.
    trusted: HashSet<String>,
    wished_at: HashMap<String, Instant>,
    full: HashSet<String>,
}

impl Watch {
    /// Knows of runs that were found in order before, as [`Watch::trusted_runs`] told.
    pub fn new(trusted_runs: impl IntoIterator<Item = String>) -> Watch {
        Watch { trusted: trusted_runs.into_iter().collect(), ..Watch::default() }
    }

    pub fn trusted_runs(&self) -> impl Iterator<Item = &str> {
        self.trusted.iter().map(String::as_str)
    }

    /// `assumed` as in [`durability`](super::durability::durability).
    pub fn see(&mut self, servers: &Servers, assumed: Option<Durability>, now: Instant) -> Outlook {
        self.forget(servers);
        let mut outlook =
            Outlook { durability: Durability::Memory, is_full: false, is_loading: false, wishes: Vec::new() };
        let mut worst: Option<Durability> = None;
        for facts in &servers.each {
            let stated = self.stated(facts, assumed);
            worst = Some(worst.map_or(stated, |worst| worst.min(stated)));
            outlook.is_loading |= facts.is_loading;
            outlook.is_full |= self.is_full(facts);
            outlook.wishes.extend(self.wish(facts, now));
        }
        outlook.durability = worst.unwrap_or(Durability::Memory);
        outlook
    }

    fn stated(&mut self, facts: &ServerFacts, assumed: Option<Durability>) -> Durability {
        let rewrite = &facts.aof_rewrite;
        if rewrite.has_ended && rewrite.last_is_ok {
            self.trusted.insert(facts.run_id.clone());
        }
        let given = durability_of(facts, assumed);
        if self.is_doubted(facts) { given.min(Durability::FsyncEverySecond) } else { given }
    }

    fn is_doubted(&self, facts: &ServerFacts) -> bool {
        // Where it is not told, the operator's word has to cover this as well.
        let may_load_a_stump = facts.appendonly && facts.aof_load_truncated == Some(true);
        may_load_a_stump && !self.trusted.contains(&facts.run_id)
    }

    fn wish(&mut self, facts: &ServerFacts, now: Instant) -> Option<Wish> {
        if !self.is_doubted(facts) || facts.is_loading || facts.aof_rewrite.is_in_progress {
            return None;
        }
        if self.wished_at.get(&facts.run_id).is_some_and(|at| now.duration_since(*at) < WISH_WAIT) {
            return None;
        }
        self.wished_at.insert(facts.run_id.clone(), now);
        Some(Wish::Rewrite { server: facts.name.clone() })
    }

    fn is_full(&mut self, facts: &ServerFacts) -> bool {
        let (used, most) = (u128::from(facts.used_memory) * 100, u128::from(facts.maxmemory));
        let bound = if self.full.contains(&facts.run_id) { EASED_PERCENT } else { FULL_PERCENT };
        let is_full = most > 0 && used >= most * bound;
        if is_full {
            self.full.insert(facts.run_id.clone());
        } else {
            self.full.remove(&facts.run_id);
        }
        is_full
    }

    /// What is remembered of runs that are over.
    fn forget(&mut self, servers: &Servers) {
        let is_there = |run: &String| servers.each.iter().any(|facts| facts.run_id == *run);
        self.wished_at.retain(|run, _| is_there(run));
        self.full.retain(is_there);
        if self.trusted.len() > TRUSTED_MAX {
            self.trusted.retain(is_there);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::server::AppendFsync;
    use super::super::server::tests::{good, single};
    use super::Durability::{Fsync, FsyncEverySecond, Memory};
    use super::*;
    use crate::redis::Shape;

    /// A server that would load a file that is cut off.
    fn lax(run: &str) -> ServerFacts {
        ServerFacts { run_id: run.to_owned(), aof_load_truncated: Some(true), ..good("h:1") }
    }

    fn rewrites(outlook: &Outlook) -> usize {
        outlook.wishes.len()
    }

    #[test]
    fn fsync_is_stated_again_once_a_rewrite_of_this_run_succeeded() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let step = |run, change: fn(&mut ServerFacts)| {
            let mut facts = lax(run);
            change(&mut facts);
            single(facts)
        };
        let fresh: fn(&mut ServerFacts) = |_| ();
        let running: fn(&mut ServerFacts) = |facts| facts.aof_rewrite.is_in_progress = true;
        let done: fn(&mut ServerFacts) = |facts| facts.aof_rewrite.has_ended = true;
        let failed: fn(&mut ServerFacts) = |facts| {
            (facts.aof_rewrite.has_ended, facts.aof_rewrite.last_is_ok) = (true, false);
        };
        let loading: fn(&mut ServerFacts) = |facts| facts.is_loading = true;
        // When, which run, what it says, then: what is stated, how many wishes.
        let table = [
            (0, "one", loading, FsyncEverySecond, 0),
            (1, "one", fresh, FsyncEverySecond, 1),
            (2, "one", fresh, FsyncEverySecond, 0),
            (3, "one", running, FsyncEverySecond, 0),
            (20, "one", running, FsyncEverySecond, 0),
            (21, "one", failed, FsyncEverySecond, 1),
            (22, "one", failed, FsyncEverySecond, 0),
            (31, "one", failed, FsyncEverySecond, 1),
            (32, "one", done, Fsync, 0),
            (33, "one", failed, Fsync, 0),
            (34, "two", fresh, FsyncEverySecond, 1),
            (35, "two", done, Fsync, 0),
            (36, "one", fresh, Fsync, 0),
        ];
        let mut watch = Watch::new([]);
        for (seconds, run, change, durability, wishes) in table {
            let outlook = watch.see(&step(run, change), None, at(seconds));
            assert_eq!((outlook.durability, rewrites(&outlook)), (durability, wishes), "at {seconds}");
            assert_eq!(outlook.is_loading, change as usize == loading as usize);
        }
        let known: Vec<String> = watch.trusted_runs().map(str::to_owned).collect();
        assert_eq!(
            Watch::new(known).see(&step("two", fresh), None, start).durability,
            Fsync,
            "as remembered"
        );
    }

    #[test]
    fn no_doubt_without_reason() {
        let second = ServerFacts { appendfsync: Some(AppendFsync::EverySecond), ..lax("r") };
        let table = [
            (ServerFacts { aof_load_truncated: Some(false), ..lax("r") }, None, Fsync, 0),
            (ServerFacts { aof_load_truncated: None, appendfsync: None, ..lax("r") }, Some(Fsync), Fsync, 0),
            (ServerFacts { appendonly: false, ..lax("r") }, None, Memory, 0),
            (second, None, FsyncEverySecond, 1),
        ];
        for (facts, assumed, durability, wishes) in table {
            let outlook = Watch::new([]).see(&single(facts.clone()), assumed, Instant::now());
            assert_eq!((outlook.durability, rewrites(&outlook)), (durability, wishes), "{facts:?}");
        }
    }

    #[test]
    fn the_worst_of_several_counts_and_each_gets_its_wish() {
        let name = |name: &str, run| ServerFacts { name: name.to_owned(), ..lax(run) };
        let servers =
            Servers { shape: Shape::Cluster, each: vec![name("a:1", "a"), good("b:1"), name("c:1", "c")] };
        let outlook = Watch::new(["a".to_owned()]).see(&servers, None, Instant::now());
        assert_eq!(outlook.durability, FsyncEverySecond);
        assert_eq!(outlook.wishes, [Wish::Rewrite { server: "c:1".to_owned() }]);
    }

    #[test]
    fn full_from_85_percent_until_below_80() {
        let mut watch = Watch::new([]);
        let mut full = |used, maxmemory| {
            let facts = ServerFacts { used_memory: used, maxmemory, ..good("h:1") };
            watch.see(&single(facts), None, Instant::now()).is_full
        };
        let table =
            [(849, false), (850, true), (840, true), (800, true), (799, false), (849, false), (1200, true)];
        for (used, expect) in table {
            assert_eq!(full(used, 1000), expect, "{used}");
        }
        assert!(!full(u64::MAX, 0), "without a bound it is never full");
        assert!(full(u64::MAX, u64::MAX), "no overflow");
    }
}
