//! What an audit says: what it checked, with counts, what it found, and the verdict last.
//!
//! `Display` is for a person, about twenty lines; `to_json` is the same on one line. Names of requests are
//! looked up here, for the few that are named.

use std::fmt;

use serde::Serialize;

use super::Wallet;
use super::acks::AckCounts;
use super::base::Removed;
use super::books::Totals;
use super::breach::{Breach, BreachKind};
use super::chain::Walked;
use super::entry::{self, Entry, KINDS};
use super::frame::u32_at;
use super::ledger::TransferCounts;
use super::replay::Replay;
use super::requests::OutcomeCounts;
use super::segments::Segments;
use super::verdict::Tally;
use crate::domain::status::Status;

/// A name and how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    pub name: &'static str,
    pub count: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub segments: u64,
    pub frames: u64,
    pub entries: u64,
    /// Of all valid frames, padding included.
    pub bytes: u64,
    /// Sequence number that the next frame will have.
    pub next_sequence: u64,
    /// At the end: what is no valid frame and was never durable. Cut at the next start; not a breach.
    pub torn_tail_bytes: u64,
    pub from_checkpoint: bool,
    pub wallet: Wallet,
    pub removed: Removed,
    pub requests: u64,
    pub requests_by_kind: Vec<Count>,
    /// Requests under an id that had been accepted before.
    pub requests_again: u64,
    pub batches: u64,
    pub queues: u64,
    pub queued: u64,
    pub requests_by_state: Vec<Count>,
    pub outcomes: OutcomeCounts,
    pub transfers: TransferCounts,
    pub accounts: u64,
    pub campaigns: u64,
    pub totals: Vec<Totals>,
    pub succeeded: u64,
    /// Failed, canceled or expired.
    pub failed: u64,
    /// Not final.
    pub pending: u64,
    pub waiting_visibly: u64,
    /// Paid, and the outcome still to be written: a crash came between.
    pub paid_pending: u64,
    /// Refused without a record at the wallet.
    pub refused_unrecorded: u64,
    pub amount_succeeded: u128,
    pub acks: Option<AckCounts>,
    /// Acknowledged, and neither settled nor pending.
    pub lost: u64,
    pub double_paid: u64,
    pub books_balanced: bool,
    pub breaches: Vec<Breach>,
    pub breaches_total: u64,
}

/// What the report needs besides the replay.
pub struct Rest<'a> {
    pub tally: Tally,
    pub totals: Vec<Totals>,
    pub acks: Option<AckCounts>,
    pub from_checkpoint: bool,
    pub wallet: Wallet,
    pub walked: &'a Walked,
    pub segments: &'a Segments,
}

pub fn make(replay: Replay<'_>, rest: Rest<'_>) -> Report {
    let Rest { tally, totals, acks, from_checkpoint, wallet, walked, segments } = rest;
    let breaches_total = replay.breaches.total();
    let lost = replay.breaches.count(BreachKind::Lost);
    let books_balanced = replay.breaches.count(BreachKind::Unbalanced) == 0;
    let mut breaches = replay.breaches.into_list();
    for breach in &mut breaches {
        name_requests(&mut breach.ids, segments);
    }
    let state = |status: Status| tally.states[status as usize - 1];
    let states = Status::ALL.into_iter().map(|status| Count { name: status.as_str(), count: state(status) });
    let kinds = KINDS.iter().zip(tally.kinds).map(|((_, name), count)| Count { name, count });
    Report {
        segments: segments.count() as u64,
        frames: replay.frames,
        entries: replay.entries,
        bytes: replay.bytes,
        next_sequence: walked.link.sequence,
        torn_tail_bytes: walked.torn_bytes,
        from_checkpoint,
        wallet,
        removed: replay.removed,
        requests: replay.requests.rows().len() as u64,
        requests_by_kind: kinds.filter(|count| count.count > 0).collect(),
        requests_again: replay.requests.accepted_again.values().map(|rows| rows.len() as u64).sum(),
        batches: replay.batches,
        queues: replay.queues.count() as u64,
        queued: replay.queues.waiting(),
        requests_by_state: states.filter(|count| count.count > 0).collect(),
        outcomes: replay.requests.outcomes,
        transfers: replay.ledger.counts,
        accounts: replay.ledger.books.count() as u64,
        campaigns: replay.campaigns.count() as u64,
        totals,
        succeeded: state(Status::Succeeded) + state(Status::Reversed),
        failed: state(Status::Failed) + state(Status::Canceled) + state(Status::Expired),
        pending: tally.pending,
        waiting_visibly: tally.waiting_visibly,
        paid_pending: tally.paid_pending,
        refused_unrecorded: tally.refused_unrecorded,
        amount_succeeded: tally.amount_succeeded,
        acks,
        lost,
        double_paid: replay.ledger.double_paid,
        books_balanced,
        breaches,
        breaches_total,
    }
}

/// Puts `client:id` where a place in the journal stands for a request.
fn name_requests(ids: &mut [String], segments: &Segments) {
    for id in ids {
        let place = id.strip_prefix("place ").and_then(|place| place.parse().ok());
        if let Some(found) = place.and_then(|place| request_name(segments, place)) {
            *id = found;
        }
    }
}

pub fn request_name(segments: &Segments, place: u64) -> Option<String> {
    let head = segments.bytes_at(place, 8).filter(|head| head.len() == 8)?;
    let bytes = segments.bytes_at(place, u32_at(&head, 0) as usize)?;
    match entry::next(&bytes, &mut 0)? {
        Ok(Entry::Request(request)) => {
            let own = if request.id.is_empty() { request.original } else { request.id };
            Some(format!("{}:{}", String::from_utf8_lossy(request.client), String::from_utf8_lossy(own)))
        }
        _ => None,
    }
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.breaches_total == 0
    }

    /// The whole report as one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("counts and texts")
    }

    fn write_checked(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "journal    {} segments, {} frames, {} bytes: hash chain",
            self.segments, self.frames, self.bytes
        )?;
        if self.torn_tail_bytes > 0 {
            writeln!(f, "           a torn tail of {} bytes, never durable", self.torn_tail_bytes)?;
        }
        if self.from_checkpoint {
            let Removed { requests, final_count, .. } = self.removed;
            writeln!(
                f,
                "           from a checkpoint that stands for {requests} requests, {final_count} final"
            )?;
        }
        writeln!(f, "requests   {}{}", self.requests, list(&self.requests_by_kind))?;
        writeln!(
            f,
            "queues     {}, with {} requests in them; {} batches",
            self.queues, self.queued, self.batches
        )?;
        let OutcomeCounts { entries, repeated, late, .. } = self.outcomes;
        writeln!(f, "outcomes   {entries}, of them {repeated} repeated and {late} late")?;
        writeln!(f, "states     {} requests{}", self.requests, list(&self.requests_by_state))?;
        let Report { pending, waiting_visibly, paid_pending, .. } = self;
        writeln!(
            f,
            "pending    {pending}, of them {waiting_visibly} waiting for a told reason, {paid_pending} paid"
        )?;
        match self.wallet {
            Wallet::Here => self.write_ledger(f)?,
            Wallet::Elsewhere { asked } => {
                writeln!(f, "wallet     elsewhere: its record of {asked} ids compared")?
            }
            Wallet::NotAsked => writeln!(
                f,
                "wallet     elsewhere, NOT compared: give its settings, or run `hongbao reconcile`"
            )?,
        }
        if let Some(AckCounts { lines, settled, pending, removed, missing }) = self.acks {
            writeln!(
                f,
                "acks       {lines} lines: {settled} settled, {pending} pending, {removed} removed, {missing} missing"
            )?;
        }
        Ok(())
    }

    fn write_ledger(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TransferCounts { done, refused, burned, reverses, retryable, conflicts, .. } = self.transfers;
        writeln!(f, "transfers  {done} done ({reverses} reverses), {refused} refused ({burned} burned)")?;
        writeln!(f, "           {retryable} to be retried and {conflicts} conflicts, which record nothing")?;
        writeln!(f, "accounts   {}, and {} campaigns", self.accounts, self.campaigns)?;
        for Totals { currency, debits, credits, held, .. } in &self.totals {
            writeln!(f, "books      {currency}: debits {debits}, credits {credits}, held {held}")?;
        }
        Ok(())
    }
}

/// `: 3 of this, 4 of that`, or nothing.
fn list(counts: &[Count]) -> String {
    let each: Vec<String> = counts.iter().map(|count| format!("{} {}", count.count, count.name)).collect();
    if each.is_empty() { String::new() } else { format!(": {}", each.join(", ")) }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_checked(f)?;
        for breach in &self.breaches {
            let Breach { kind, count, detail, ids } = breach;
            writeln!(f, "BREACH     {} ×{count}: {detail}", label(*kind))?;
            if !ids.is_empty() {
                let rest = count.saturating_sub(ids.len() as u64);
                let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
                writeln!(f, "           {}{more}", ids.join(" "))?;
            }
        }
        if self.is_clean() {
            write!(f, "verdict    clean: nothing lost, nothing paid twice, the books balance")
        } else {
            write!(f, "verdict    {} breaches: this folder is not to be trusted", self.breaches_total)
        }
    }
}

/// The name of a kind, as it stands in the JSON.
fn label(kind: BreachKind) -> String {
    let quoted = serde_json::to_string(&kind).expect("a name");
    quoted.trim_matches('"').to_owned()
}
