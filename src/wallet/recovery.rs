//! From the wallet's folder to its books and back: the snapshot of the last orderly stop, the journal behind it.
//!
//! A snapshot is taken when the wallet stops, and when a start had much to replay; while it runs, none is, so
//! that nothing holds up a reply. Its parts are written first and the manifest that names them last: a crash in
//! between leaves the one before in force. Everything can be read from the journal alone, of which nothing is
//! ever given up: ids are remembered for good.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::WalletError;
use super::teller::{Expiries, expiry_of};
use crate::domain::TransferKind;
use crate::domain::bytes::{TAG_TRANSFER, entries};
use crate::journal::index::PlaceIndex;
use crate::journal::snapshot::{list_blobs, read_blob, remove_blob, write_blob};
use crate::journal::{Frame, Journal, Options, Position, Storage};
use crate::stored_value::ledger::entry::{FRAME_TRANSFERS, TransferEntry};
use crate::stored_value::ledger::state::State;
use crate::stored_value::ledger::{Ledger, Restoring, snapshot};

const MANIFEST: &str = "manifest";
const VERSION: u32 = 1;
/// Part of the format; a call's frame must fit.
const SEGMENT_BYTES: u64 = 16 << 20;
/// A start that replayed more than this takes a snapshot at once.
const REPLAY_BYTES_MAX: u64 = 64 << 20;

/// Names the parts of a snapshot.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    offset: u64,
    sequence: u64,
    hash: [u8; 32],
}

impl Manifest {
    fn part(&self, name: &str) -> String {
        format!("{name}-{:016x}", self.offset)
    }

    fn start(&self) -> Position {
        Position { offset: self.offset, sequence: self.sequence, hash: self.hash }
    }
}

pub struct Recovered {
    pub ledger: Ledger,
    pub journal: Journal,
    pub expiries: Expiries,
    pub report: String,
}

fn damaged(name: &str, reason: impl Into<String>) -> WalletError {
    WalletError::Snapshot { name: name.to_owned(), reason: reason.into() }
}

fn part(storage: &dyn Storage, name: &str) -> Result<Vec<u8>, WalletError> {
    read_blob(storage, name)?.ok_or_else(|| damaged(name, "it is missing"))
}

/// The books as of the last snapshot, or empty ones.
fn restore(storage: &dyn Storage) -> Result<(Manifest, Restoring, Expiries), WalletError> {
    let Some(bytes) = read_blob(storage, MANIFEST)? else {
        return Ok((Manifest::default(), Restoring::default(), Expiries::new()));
    };
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|error| damaged(MANIFEST, error.to_string()))?;
    if manifest.version != VERSION {
        let reason = format!("version {} is unknown to this release", manifest.version);
        return Err(damaged(MANIFEST, reason));
    }
    let start = manifest.start();
    let name = manifest.part("state");
    let mut state = snapshot::restore(&part(storage, &name)?).map_err(|reason| damaged(&name, reason))?;
    let name = manifest.part("ids");
    state.ids = PlaceIndex::load(&part(storage, &name)?)?;
    let name = manifest.part("expiries");
    let expiries: Vec<(u64, Box<[u8]>)> =
        serde_json::from_slice(&part(storage, &name)?).map_err(|error| damaged(&name, error.to_string()))?;
    Ok((manifest, Restoring { state, written: start.offset }, expiries.into_iter().map(Reverse).collect()))
}

pub fn recover(storage: &Arc<dyn Storage>, identity: String) -> Result<Recovered, WalletError> {
    let began = std::time::Instant::now();
    let (manifest, mut restoring, mut expiries) = restore(&**storage)?;
    let start = manifest.start();
    let mut visit = |frame: Frame<'_>| -> Result<(), String> {
        restoring.visit(&frame).map_err(|error| error.to_string())?;
        if frame.kind == FRAME_TRANSFERS {
            note_expiries(frame.payload, &mut expiries)?;
        }
        Ok(())
    };
    let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::default() };
    let (journal, recovery) = Journal::open(storage.clone(), options, start, &mut visit)?;
    // Of a hold that was noted twice, or has ended since, only what is still open counts.
    expiries.retain(|Reverse((_, id))| restoring.state.holds.contains_key(id));
    let ledger = Ledger::new(restoring, identity, journal.clone());
    if journal.synced() - start.offset > REPLAY_BYTES_MAX {
        save(&**storage, &ledger, &journal, &expiries)?;
    }
    let report = format!("replayed {} frames in {} ms", recovery.frames, began.elapsed().as_millis());
    Ok(Recovered { ledger, journal, expiries, report })
}

/// Notes when the holds of a frame end by themselves.
fn note_expiries(payload: &[u8], expiries: &mut Expiries) -> Result<(), String> {
    for item in entries(payload) {
        let (_, tag, bytes) = item.map_err(|error| error.to_string())?;
        if tag != TAG_TRANSFER {
            continue;
        }
        let entry = TransferEntry::decode(bytes).map_err(|error| error.to_string())?;
        if entry.kind == TransferKind::Hold
            && entry.code.is_none()
            && let Some(at_ms) = expiry_of(entry.of)
        {
            expiries.push(Reverse((at_ms, entry.id.into())));
        }
    }
    Ok(())
}

/// Takes a snapshot. Nobody may be deciding meanwhile.
pub fn save(
    storage: &dyn Storage,
    ledger: &Ledger,
    journal: &Journal,
    expiries: &Expiries,
) -> Result<(), WalletError> {
    let capture = |state: &mut State, written: u64| (snapshot::save(state), state.ids.dump(), written);
    let (state, ids, written) = ledger.with_state(capture)?;
    journal.wait_synced(written)?;
    let Position { offset, sequence, hash } = journal.position();
    assert!(offset >= written, "what the state holds lies before the replay");
    let manifest = Manifest { version: VERSION, offset, sequence, hash };
    let expiries: Vec<&(u64, Box<[u8]>)> = expiries.iter().map(|Reverse(expiry)| expiry).collect();
    let expiries = serde_json::to_vec(&expiries).expect("numbers and bytes");
    let parts = [("state", state), ("ids", ids), ("expiries", expiries)];
    for (name, bytes) in &parts {
        write_blob(storage, &manifest.part(name), bytes)?;
    }
    write_blob(storage, MANIFEST, &serde_json::to_vec(&manifest).expect("plain fields"))?;
    let named = parts.map(|(name, _)| manifest.part(name));
    for blob in list_blobs(storage)? {
        if blob != MANIFEST && !named.contains(&blob) {
            remove_blob(storage, &blob)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Amount, Currency, Transfer};
    use crate::journal::FolderStorage;
    use crate::stored_value::{StoredValue, TransferBatch};

    fn pay(ledger: &Ledger, kind: TransferKind, id: &str, of: &str) {
        let mut batch = TransferBatch::default();
        let mut transfer = Transfer {
            kind,
            id: id.as_bytes(),
            key_hash: crate::digest::key_hash(id.as_bytes()),
            digest: [0; 16],
            debit: b"funding:x",
            credit: b"person:a",
            amount: Amount::new(5).unwrap(),
            currency: Currency::parse("CNY").unwrap(),
            of: of.as_bytes(),
        };
        if kind == TransferKind::Reverse {
            (transfer.debit, transfer.credit) = (transfer.credit, transfer.debit);
        }
        batch.push(&transfer);
        let mut results = Vec::new();
        ledger.transfer(&batch, &mut results).unwrap();
        assert_eq!(results.len(), 1);
    }

    /// Everything the books say, in an order of its own.
    fn all_of(recovered: &Recovered, ids: &[&str]) -> String {
        let ids: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes()).collect();
        let on_record = recovered.ledger.on_record(&ids).unwrap();
        let expiries = recovered.expiries.clone().into_sorted_vec();
        let state = recovered.ledger.with_state(|state, _| {
            let accounts: Vec<String> =
                (0..state.accounts.len() as u32).map(|n| format!("{:?}", state.accounts.get(n))).collect();
            let mut holds: Vec<String> = state.holds.iter().map(|hold| format!("{hold:?}")).collect();
            holds.sort();
            format!("{accounts:?} {holds:?} {:?}", state.reversed)
        });
        format!("{on_record:?} {expiries:?} {}", state.unwrap())
    }

    #[test]
    fn a_snapshot_and_its_tail_say_what_the_whole_journal_says() {
        use TransferKind::{Burn, Hold, Post, Reverse, Transfer, Void};
        // What happens, around the snapshot in the middle.
        let before = [
            (Transfer, "t1", ""),
            (Hold, "h1", "9000"),
            (Hold, "h2", "8000"),
            (Hold, "h3", ""),
            (Burn, "b1", ""),
        ];
        let behind = [
            (Reverse, "r1", "t1"),
            (Post, "p1", "h1"),
            (Void, "v1", "h3"),
            (Hold, "h4", "7000"),
            (Burn, "b2", ""),
        ];
        let ids: Vec<&str> = before.iter().chain(&behind).map(|(_, id, _)| *id).chain(["never"]).collect();
        let folder = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(FolderStorage::new(folder.path()).unwrap());
        let open = || recover(&storage, "id".to_owned()).unwrap();
        let first = open();
        before.iter().for_each(|(kind, id, of)| pay(&first.ledger, *kind, id, of));
        let expiries =
            [(8_000, "h2"), (9_000, "h1")].map(|(at, id)| std::cmp::Reverse((at, id.as_bytes().into())));
        save(&*storage, &first.ledger, &first.journal, &expiries.into_iter().collect()).unwrap();
        behind.iter().for_each(|(kind, id, of)| pay(&first.ledger, *kind, id, of));
        first.journal.shutdown().unwrap();
        drop(first);

        let from_snapshot = open();
        let said = all_of(&from_snapshot, &ids);
        assert_eq!(from_snapshot.expiries.len(), 2, "h2 and h4 are open: {said}");
        from_snapshot.journal.shutdown().unwrap();
        drop(from_snapshot);
        for name in list_blobs(&*storage).unwrap() {
            remove_blob(&*storage, &name).unwrap();
        }
        assert_eq!(all_of(&open(), &ids), said);
    }

    #[test]
    fn a_snapshot_that_lost_a_part_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(FolderStorage::new(folder.path()).unwrap());
        let first = recover(&storage, "id".to_owned()).unwrap();
        pay(&first.ledger, TransferKind::Transfer, "t1", "");
        save(&*storage, &first.ledger, &first.journal, &Expiries::new()).unwrap();
        first.journal.shutdown().unwrap();
        drop(first);
        let lost = list_blobs(&*storage).unwrap().into_iter().find(|name| name.starts_with("ids")).unwrap();
        remove_blob(&*storage, &lost).unwrap();
        let error = recover(&storage, "id".to_owned()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(&lost) && error.contains("snap-"), "{error}");
    }
}
