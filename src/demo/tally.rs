//! The client's own books: what it asked for, what it was told, and the file of what was acknowledged.
//!
//! What holds: a request is counted once, when the answer that says what became of it was read; its line is in
//! the acks file then. An answer other than the one a request must get is a surprise, and spoils the verdict.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use hdrhistogram::Histogram;

use super::reading::Fate;
use crate::domain::UnixMs;
use crate::gateway::DEFAULT_CLIENT;

/// The longest time that is told apart, in microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// An empty histogram of microseconds.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the bounds are in order")
}

/// What a request must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Acknowledged,
    /// Recognised, and nothing new accepted.
    Recognised,
    Refused(&'static str),
    /// Acknowledged, or refused with this code.
    AcknowledgedOr(&'static str),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub submitted: u64,
    /// Different requests that were acknowledged.
    pub accepted: u64,
    /// Repeats that were recognised.
    pub duplicates: u64,
    pub refused: BTreeMap<String, u64>,
    /// Calls that were sent more than once.
    pub retried: u64,
    /// Requests without an answer in the end.
    pub given_up: u64,
    pub surprises: u64,
    pub first_surprise: Option<String>,
}

impl Counts {
    pub fn refused_total(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Counts a request; true if it was acknowledged for the first time.
    fn count(&mut self, expect: Expect, fate: Fate) -> Result<bool, String> {
        self.submitted += 1;
        let acknowledged = !matches!(fate, Fate::Refused(_));
        let told = match (expect, &fate) {
            (Expect::Refused(code) | Expect::AcknowledgedOr(code), Fate::Refused(told)) if told == code => {
                Ok(())
            }
            (Expect::Acknowledged | Expect::AcknowledgedOr(_), _) if acknowledged => Ok(()),
            (Expect::Recognised, Fate::Recognised | Fate::Acknowledged) => Ok(()),
            _ => Err(format!("expected {expect:?}, the door said {fate:?}")),
        };
        let is_new = acknowledged && !(expect == Expect::Recognised && fate != Fate::Accepted);
        match fate {
            Fate::Refused(code) => *self.refused.entry(code).or_default() += 1,
            _ if is_new => self.accepted += 1,
            _ => self.duplicates += 1,
        }
        told.map(|()| is_new)
    }
}

/// A request, as it is entered.
pub struct Entry<'a> {
    pub id: &'a str,
    pub amount: u64,
    pub expect: Expect,
    pub fate: Fate,
}

struct Inner {
    counts: Counts,
    accept_us: Histogram<u64>,
    /// Packets, and when they would be done as the door told.
    estimates: Vec<(u32, UnixMs)>,
    acks: BufWriter<File>,
}

pub struct Tally(Mutex<Inner>);

impl Tally {
    /// Adds to the file, so that a folder used again keeps the promises of earlier runs.
    pub fn open(acks: &Path) -> anyhow::Result<Tally> {
        let file = OpenOptions::new().create(true).append(true).open(acks);
        let file = file.with_context(|| format!("the acks file {} cannot be written", acks.display()))?;
        let accept_us = latencies();
        let acks = BufWriter::with_capacity(1 << 16, file);
        Ok(Tally(Mutex::new(Inner { counts: Counts::default(), accept_us, estimates: Vec::new(), acks })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters the requests of one call.
    pub fn enter<'a>(&self, entries: impl Iterator<Item = Entry<'a>>) -> anyhow::Result<()> {
        let mut inner = self.lock();
        let Inner { counts, acks, .. } = &mut *inner;
        for Entry { id, amount, expect, fate } in entries {
            match counts.count(expect, fate) {
                Ok(true) => writeln!(acks, "{DEFAULT_CLIENT} {id} {amount}").context("the acks file")?,
                Ok(false) => {}
                Err(surprise) => self.surprise(counts, format!("request {id}: {surprise}")),
            }
        }
        Ok(())
    }

    fn surprise(&self, counts: &mut Counts, what: String) {
        counts.surprises += 1;
        counts.first_surprise.get_or_insert(what);
    }

    /// Something about a whole call was not as it should be.
    pub fn note_surprise(&self, what: String) {
        let mut inner = self.lock();
        self.surprise(&mut inner.counts, what);
    }

    pub fn note_given_up(&self, requests: u64, why: &str) {
        let mut inner = self.lock();
        inner.counts.submitted += requests;
        inner.counts.given_up += requests;
        inner.counts.first_surprise.get_or_insert_with(|| why.to_owned());
    }

    pub fn note_retried(&self) {
        self.lock().counts.retried += 1;
    }

    /// One call was acknowledged so long after it was due.
    pub fn note_latency(&self, us: u64) {
        self.lock().accept_us.saturating_record(us);
    }

    pub fn note_estimate(&self, packet: u32, at: UnixMs) {
        self.lock().estimates.push((packet, at));
    }

    pub fn estimates(&self) -> Vec<(u32, UnixMs)> {
        self.lock().estimates.clone()
    }

    pub fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// The counts at the end, with everything in the file.
    pub fn close(&self) -> anyhow::Result<(Counts, Histogram<u64>)> {
        let mut inner = self.lock();
        inner.acks.flush().context("the acks file")?;
        inner.acks.get_ref().sync_all().context("the acks file")?;
        Ok((inner.counts.clone(), inner.accept_us.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_expectation_meets_each_fate() {
        let refused = |code: &str| Fate::Refused(code.to_owned());
        use Expect::{Acknowledged, AcknowledgedOr, Recognised, Refused};
        // expectation, fate, whether it is new (None: a surprise)
        let table = [
            (Acknowledged, Fate::Accepted, Some(true)),
            // The first answer was lost, the retry was recognised: acknowledged all the same.
            (Acknowledged, Fate::Recognised, Some(true)),
            (Acknowledged, Fate::Acknowledged, Some(true)),
            (Acknowledged, refused("id_conflict"), None),
            (Recognised, Fate::Recognised, Some(false)),
            (Recognised, Fate::Acknowledged, Some(false)),
            (Recognised, Fate::Accepted, None),
            (Refused("id_conflict"), refused("id_conflict"), Some(false)),
            (Refused("id_conflict"), refused("invalid_field"), None),
            (Refused("id_conflict"), Fate::Accepted, None),
            (AcknowledgedOr("budget_exhausted"), Fate::Accepted, Some(true)),
            (AcknowledgedOr("budget_exhausted"), refused("budget_exhausted"), Some(false)),
            (AcknowledgedOr("budget_exhausted"), refused("id_conflict"), None),
        ];
        for (expect, fate, expected) in table {
            let mut counts = Counts::default();
            assert_eq!(counts.count(expect, fate.clone()).ok(), expected, "{expect:?} {fate:?}");
            let Counts { submitted, accepted, duplicates, .. } = &counts;
            assert_eq!(*submitted, accepted + duplicates + counts.refused_total(), "each is counted once");
        }
    }

    #[test]
    fn the_acks_file_holds_what_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acks.txt");
        for id in ["a", "b"] {
            let tally = Tally::open(&path).unwrap();
            let entry = |expect, fate| Entry { id, amount: 5, expect, fate };
            let sent = [
                entry(Expect::Acknowledged, Fate::Accepted),
                entry(Expect::Recognised, Fate::Recognised),
                entry(Expect::Refused("x"), Fate::Refused("x".to_owned())),
            ];
            tally.enter(sent.into_iter()).unwrap();
            assert_eq!(tally.close().unwrap().0.accepted, 1);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "default a 5\ndefault b 5\n");
    }
}
