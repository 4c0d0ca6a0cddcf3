//! Durable named blobs beside the journal: the state snapshots of other rooms.
//!
//! What holds: a blob is whole or absent, old or new, never a mixture; what is read back was verified.
//! The file is `snap-NAME`: `"HBSNAP\r\n"`, u32 version, u32 zero, u64 length, blake3 of the rest, the bytes.
//! Absent: knowledge of what a blob holds, and any history of blobs: rooms choose names.

use std::io;

use super::error::JournalError;
use super::storage::Storage;

const PREFIX: &str = "snap-";
const PART: &str = ".part";
const MAGIC: [u8; 8] = *b"HBSNAP\r\n";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 56;
const PIECE_BYTES: usize = 1 << 20;

/// Does this file name belong to a blob, finished or not?
pub(super) fn is_blob_file(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Writes a blob, replacing the one of that name. It is durable when this returns.
pub fn write_blob(storage: &dyn Storage, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
    check_name(name)?;
    let target = format!("{PREFIX}{name}");
    let part = format!("{target}{PART}");
    let failed = |what| move |error| JournalError::storage(what, name, error);
    let file = storage.open(&part, true).map_err(failed("create"))?;
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    let sum = checksum(&header[..24], bytes);
    header[24..].copy_from_slice(sum.as_bytes());
    let whole = (HEADER_BYTES + bytes.len()) as u64;
    // A part left behind by a crash may be longer.
    file.set_len(0).map_err(failed("create"))?;
    file.write_at(&header, 0)
        .and_then(|()| {
            bytes.chunks(PIECE_BYTES).enumerate().try_for_each(|(index, piece)| {
                // Synced piece by piece: the journal's own syncs must not wait behind all of a large blob.
                file.write_at(piece, (HEADER_BYTES + index * PIECE_BYTES) as u64)?;
                if index > 0 { file.sync() } else { Ok(()) }
            })
        })
        .map_err(|error| JournalError::write(storage.folder(), &target, whole, error))?;
    file.sync().map_err(failed("sync"))?;
    storage.rename(&part, &target).map_err(failed("name"))?;
    storage.sync_folder().map_err(failed("sync the folder of"))
}

/// Reads a blob and verifies it; `None` where there is none of that name.
pub fn read_blob(storage: &dyn Storage, name: &str) -> Result<Option<Vec<u8>>, JournalError> {
    check_name(name)?;
    let failed = |error| JournalError::storage("read", name, error);
    let file = match storage.open(&format!("{PREFIX}{name}"), false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let wrong = |reason| Err(JournalError::Blob { name: name.to_owned(), reason });
    let len = usize::try_from(file.len().map_err(failed)?).unwrap_or(usize::MAX);
    if len < HEADER_BYTES {
        return wrong("it is shorter than its header");
    }
    let mut header = [0; HEADER_BYTES];
    let mut bytes = vec![0; len - HEADER_BYTES];
    for (buf, offset) in [(&mut header[..], 0), (&mut bytes[..], HEADER_BYTES)] {
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], (offset + done) as u64).map_err(failed)? {
                0 => return wrong("it ended while it was read"),
                count => done += count,
            }
        }
    }
    if header[..8] != MAGIC {
        return wrong("it is not a blob of this program");
    }
    if header[8..12] != VERSION.to_le_bytes() {
        return wrong("it has a format version this program does not know");
    }
    if header[16..24] != (bytes.len() as u64).to_le_bytes() {
        return wrong("its length is not what it says");
    }
    if header[24..] != *checksum(&header[..24], &bytes).as_bytes() {
        return wrong("its checksum does not match");
    }
    Ok(Some(bytes))
}

/// The names of all finished blobs, sorted.
pub fn list_blobs(storage: &dyn Storage) -> Result<Vec<String>, JournalError> {
    let files = storage.list().map_err(|error| JournalError::storage("list", &storage.folder(), error))?;
    let finished = files.iter().filter(|file| !file.ends_with(PART));
    let mut names: Vec<String> =
        finished.filter_map(|file| file.strip_prefix(PREFIX)).map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

/// Removes a blob; it is durably gone when this returns. Removing what is not there is no error.
pub fn remove_blob(storage: &dyn Storage, name: &str) -> Result<(), JournalError> {
    check_name(name)?;
    match storage.remove(&format!("{PREFIX}{name}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed
            .and_then(|()| storage.sync_folder())
            .map_err(|error| JournalError::storage("remove", name, error)),
    }
}

fn check_name(name: &str) -> Result<(), JournalError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if plain && !name.is_empty() && name.len() <= 200 && !name.ends_with(PART) {
        return Ok(());
    }
    let reason = "a name is 1 to 200 letters, digits, `-`, `_` or `.`, and does not end in `.part`";
    Err(JournalError::Blob { name: name.to_owned(), reason })
}

fn checksum(header: &[u8], bytes: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(header).update(bytes).finalize()
}
