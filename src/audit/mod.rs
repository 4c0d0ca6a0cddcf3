//! The audit: reads a data folder with eyes of its own and says whether hongbao kept its promises.
//!
//! ```text
//! segments ─> chain (frames, hashes) ─> replay ─┬─ queues, requests, campaigns ─┐
//!                 ▲                             └─ ids, ledger, books ──────────┼─> verdict ─> Report
//!        base, or genesis                                       acks, anchor ───┘
//! ```
//!
//! What holds: nothing here comes from the code that settles. Frames and entries are decoded from the words
//! that describe them, balances are added up from nothing, and expected transfers are computed from the stored
//! requests. The folder is only read. Memory grows with ids (about 100 bytes a request), never with strings or
//! the length of the journal. Absent: repair.

mod acks;
mod anchor;
mod base;
mod books;
mod breach;
mod campaigns;
mod chain;
mod elsewhere;
mod entry;
mod error;
mod frame;
mod ids;
mod ledger;
mod queues;
mod replay;
mod report;
mod requests;
mod segments;
mod table;
mod verdict;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use acks::AckCounts;
pub use base::Removed;
pub use books::Totals;
pub use breach::{Breach, BreachKind};
pub use elsewhere::{Ask, WalletRecord, wallet_kind};
pub use error::AuditError;
pub use ledger::TransferCounts;
pub use report::Report;
pub use requests::OutcomeCounts;

use anchor::Anchor;
use breach::Breaches;
use chain::{Link, Walked};
use replay::{Replay, Watch};
use segments::Segments;

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The folder that holds `journal/`.
    pub data_dir: PathBuf,
    /// The clients' list of what was acknowledged to them: a line each, `client id amount`.
    pub acks: Option<PathBuf>,
    /// A note of the newest frame, kept outside the folder; made if it does not exist, advanced if all is well.
    pub anchor: Option<PathBuf>,
    /// Whether anything that is not final is a breach.
    pub expect_drained: bool,
}

/// Audits a data folder. What it finds stands in the report; an error means that it could not look.
/// `progress` is told the share of the journal walked, 0 to 1. A wallet that is kept elsewhere is compared if there
/// is a way to `ask` it; if not, the report says so.
pub fn audit(
    options: &Options,
    ask: Option<&mut Ask<'_>>,
    progress: &mut dyn FnMut(f64),
) -> Result<Report, AuditError> {
    let mut segments = Segments::open(&options.data_dir)?;
    let anchor = match &options.anchor {
        Some(path) => Anchor::read(path, &options.data_dir)?,
        None => None,
    };
    let mut replay = Replay::new(anchor, progress);
    let mut start = Link::default();
    let first = segments.index(0);
    let base = if first > 0 { base::read(segments.folder(), first)? } else { None };
    let from_checkpoint = base.is_some();
    let knows_ids = base.as_ref().is_some_and(|base| !base.ids.is_empty());
    match base {
        Some(base) => {
            start = base.link;
            replay.begin_at(base);
        }
        None if first > 0 => {
            let detail =
                || format!("the journal begins with segment {first}, and no checkpoint stands for the rest");
            replay.breaches.add(BreachKind::NoCheckpoint, String::new, detail);
        }
        None => {}
    }
    let walked = chain::walk(&mut segments, start, &mut replay)?;
    check_anchor(replay.watch.as_ref(), &start, &walked, &mut replay.breaches);
    let unlisted = if knows_ids { 0 } else { replay.removed.requests };
    let wallet = match (wallet_kind(&options.data_dir).as_str(), ask) {
        ("embedded", _) => Wallet::Here,
        (_, None) => Wallet::NotAsked,
        (_, Some(ask)) => {
            let Replay { requests, ids, .. } = &mut replay;
            Wallet::Elsewhere { asked: elsewhere::enter(requests, ids, &segments, ask)? }
        }
    };
    let end = End { walked: &walked, from_checkpoint, unlisted, wallet };
    let report = conclude(options, replay, &segments, &end)?;
    if let (Some(path), 0) = (&options.anchor, report.breaches_total) {
        advance_anchor(path, &walked.link, &segments)?;
    }
    Ok(report)
}

/// Where the transfers were looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wallet {
    /// In the journal.
    Here,
    /// At the wallet, by this many ids.
    Elsewhere { asked: u64 },
    /// Nowhere: what was paid is not compared.
    NotAsked,
}

/// What is known when the walk is over.
struct End<'a> {
    walked: &'a Walked,
    from_checkpoint: bool,
    unlisted: u64,
    wallet: Wallet,
}

/// Judges what the walk has gathered, and reports.
fn conclude(
    options: &Options,
    mut replay: Replay<'_>,
    segments: &Segments,
    end: &End<'_>,
) -> Result<Report, AuditError> {
    let End { walked, from_checkpoint, unlisted, wallet } = *end;
    let Replay { breaches, ids, ledger, requests, campaigns, .. } = &mut replay;
    let tally = verdict::judge(requests, ids, ledger, wallet, breaches);
    // A journal that only serves as a wallet has no requests, and one with a checkpoint may have lost them.
    if !requests.rows().is_empty() && !from_checkpoint {
        breaches.add_all(ledger.not_requested.clone());
    }
    let totals = ledger.books.totals(breaches);
    campaigns.finish(breaches);
    if options.expect_drained && tally.pending > 0 {
        let detail = || format!("{} requests are not final", tally.pending);
        breaches.add(BreachKind::NotDrained, String::new, detail);
    }
    let acks = match &options.acks {
        Some(path) => Some(acks::check(path, &acks::Accepted { ids, requests, unlisted }, breaches)?),
        None => None,
    };
    Ok(report::make(replay, report::Rest { tally, totals, acks, from_checkpoint, wallet, walked, segments }))
}

/// The frame that was noted must be here and unchanged, unless it was reclaimed.
fn check_anchor(watch: Option<&Watch>, start: &Link, walked: &Walked, breaches: &mut Breaches) {
    let Some(Watch { anchor, is_same }) = watch else { return };
    let is_same = if anchor.offset < start.end {
        // Reclaimed; the checkpoint stands for it.
        true
    } else if anchor.offset == start.end && start.sequence > 0 {
        anchor.is_of(start.sequence - 1, &start.hash)
    } else {
        is_same.unwrap_or(false)
    };
    if !is_same {
        let detail = || {
            let (sequence, offset, end) = (anchor.sequence, anchor.offset, walked.link.end);
            format!(
                "frame {sequence} ended at {offset} when it was noted; it is not here as it was (the journal ends at {end})"
            )
        };
        breaches.add(BreachKind::HistoryRewritten, || format!("frame {}", anchor.sequence), detail);
    }
}

fn advance_anchor(path: &Path, link: &Link, segments: &Segments) -> Result<(), AuditError> {
    let Some(anchor) = Anchor::of(link) else { return Ok(()) };
    segments.sync()?;
    anchor.write(path)
}
