//! Takes the frames in order and hands each entry to the part that keeps count of it.
//!
//! ```text
//! frame ─┬─ section, request ──> queues, requests, ids, campaigns
//!        ├─ account, transfer ─> ledger, ids
//!        ├─ outcome ───────────> requests, campaigns
//!        ├─ ack ───────────────> queues, requests
//!        └─ campaign, batch ───> campaigns
//! ```
//!
//! Absent: judgement at the end; see `verdict`.

use super::anchor::Anchor;
use super::base::{Base, Removed};
use super::breach::{BreachKind, Breaches, name};
use super::campaigns::Campaigns;
use super::chain::Visitor;
use super::entry::{self, Entry};
use super::frame::{Frame, KIND_MARK, KINDS_KNOWN};
use super::ids::{Fingerprints, Ids};
use super::ledger::Ledger;
use super::queues::Queues;
use super::requests::{Beside, Requests};
use super::table::Table;

/// The anchor, while its frame is looked for.
pub struct Watch {
    pub anchor: Anchor,
    /// Whether the frame that ends at the anchor was the one noted; `None`: none ended there.
    pub is_same: Option<bool>,
}

pub struct Replay<'a> {
    pub breaches: Breaches,
    pub ids: Ids,
    pub ledger: Ledger,
    pub requests: Requests,
    pub queues: Queues,
    pub campaigns: Campaigns,
    pub frames: u64,
    pub entries: u64,
    pub bytes: u64,
    pub batches: u64,
    pub watch: Option<Watch>,
    pub removed: Removed,
    /// Logical offset of the first frame kept.
    base: u64,
    fingerprints: Fingerprints,
    progress: &'a mut dyn FnMut(f64),
}

impl<'a> Replay<'a> {
    pub fn new(anchor: Option<Anchor>, progress: &'a mut dyn FnMut(f64)) -> Replay<'a> {
        Replay {
            breaches: Breaches::default(),
            ids: Table::new(),
            ledger: Ledger::new(),
            requests: Requests::default(),
            queues: Queues::new(),
            campaigns: Campaigns::new(),
            frames: 0,
            entries: 0,
            bytes: 0,
            batches: 0,
            watch: anchor.map(|anchor| Watch { anchor, is_same: None }),
            removed: Removed::default(),
            base: 0,
            fingerprints: Fingerprints::default(),
            progress,
        }
    }

    /// Begins where a checkpoint stands, in place of the genesis.
    pub fn begin_at(&mut self, base: Base) {
        self.base = base.link.end;
        self.removed = base.removed;
        for account in base.accounts {
            let (number, label) = (account.number, account.name.as_bytes());
            self.ledger.books.open(number, account.currency, label, &mut self.breaches);
            self.ledger.books.carry(number, account.debits, account.credits, account.held);
        }
        for (number, json) in base.campaigns {
            self.campaigns.define(number, &json, &mut self.breaches);
        }
        self.queues.carry(base.queues.into_iter());
        for (id, reversed) in base.ids {
            let (row, is_known) = self.ids.find_or_insert(id.key, || id.clone());
            if !is_known && reversed > 0 {
                self.ledger.carry_reversed(row, reversed);
            }
        }
    }

    /// One entry at `place`; answers how many requests of the section are still to come.
    fn entry(&mut self, entry: &Entry<'_>, place: u64, open: u32) -> u32 {
        let Replay { breaches, ids, ledger, requests, queues, campaigns, .. } = self;
        match *entry {
            Entry::Request(ref request) => {
                let beside = Beside { ids, campaigns, breaches };
                requests.accept(place, request, &self.fingerprints, beside);
                if open == 0 {
                    let id = || format!("{}:{}", name(request.client), name(request.id));
                    let detail = || format!("the request at {place} belongs to no section");
                    self.breaches.add(BreachKind::Malformed, id, detail);
                }
                return open.saturating_sub(1);
            }
            Entry::Section { queue, first_index, count } => {
                if open > 0 {
                    short_section(breaches, place, open);
                }
                queues.section(queue, first_index, count, requests.next_row(), breaches);
                return count;
            }
            Entry::Outcome(ref outcome) => {
                requests.settle(place, self.base, outcome, Beside { ids, campaigns, breaches });
            }
            Entry::Transfer(ref transfer) => ledger.apply(transfer, ids, &self.fingerprints, breaches),
            Entry::Account { number, currency, name } => ledger.books.open(number, currency, name, breaches),
            Entry::Ack { queue, below_index } => {
                queues.ack(queue, below_index, breaches, |row, breaches| requests.leave(row, breaches));
            }
            Entry::Batch => self.batches += 1,
            Entry::Campaign { number, json } => campaigns.define(number, json, breaches),
        }
        open
    }
}

fn short_section(breaches: &mut Breaches, place: u64, missing: u32) {
    let detail = || format!("the section that ends at {place} lacks {missing} of its requests");
    breaches.add(BreachKind::QueueGap, || format!("place {place}"), detail);
}

impl Visitor for Replay<'_> {
    fn frame(&mut self, frame: &Frame<'_>) {
        self.frames += 1;
        self.bytes += frame.end - frame.offset;
        if let Some(watch) = self.watch.as_mut().filter(|watch| watch.anchor.offset == frame.end) {
            watch.is_same = Some(watch.anchor.is_of(frame.sequence, &frame.hash));
        }
        if frame.kind != KIND_MARK && !KINDS_KNOWN.contains(&frame.kind) {
            let detail =
                || format!("the frame at {} is of kind {}, which is not known", frame.offset, frame.kind);
            self.breaches.add(BreachKind::Malformed, || format!("frame {}", frame.sequence), detail);
            return;
        }
        let (mut at, mut open) = (0, 0);
        loop {
            let place = frame.payload_place() + at as u64;
            match entry::next(frame.payload, &mut at) {
                None => break,
                Some(Ok(entry)) => {
                    self.entries += 1;
                    open = self.entry(&entry, place, open);
                }
                Some(Err(fault)) => {
                    let detail = || format!("at {place}: {fault}");
                    self.breaches.add(BreachKind::Malformed, || format!("frame {}", frame.sequence), detail);
                }
            }
        }
        if open > 0 {
            short_section(&mut self.breaches, frame.end, open);
        }
        self.ledger.books.end_frame(frame.offset, &mut self.breaches);
    }

    fn broken(&mut self, offset: u64, detail: String) {
        self.breaches.add(
            BreachKind::Chain,
            || format!("offset {offset}"),
            || format!("at {offset}: {detail}"),
        );
    }

    fn progress(&mut self, share: f64) {
        (self.progress)(share);
    }
}
