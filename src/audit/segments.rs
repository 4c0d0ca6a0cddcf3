//! The journal's files, as the auditor finds them: which segments there are, one of them in memory at a time.
//!
//! Logical offset = index × segment bytes + position. Segments are read-only here, and all have one size; a
//! file that is shorter was cut, and reads as if zeros followed. Absent: frames.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::AuditError;

struct Segment {
    index: u64,
    path: PathBuf,
}

pub struct Segments {
    folder: PathBuf,
    list: Vec<Segment>,
    segment_bytes: u64,
    buffer: Vec<u8>,
    loaded: Option<usize>,
}

impl Segments {
    /// Lists `<data_dir>/journal/*.seg`.
    pub fn open(data_dir: &Path) -> Result<Segments, AuditError> {
        let folder = data_dir.join("journal");
        let mut list = Vec::new();
        let mut segment_bytes = 0;
        let failed = AuditError::io("list", &folder);
        let files: Vec<_> = fs::read_dir(&folder).and_then(Iterator::collect).map_err(failed)?;
        for file in files {
            let Some(index) = file.file_name().to_str().and_then(segment_index) else { continue };
            let path = file.path();
            let length = file.metadata().map_err(AuditError::io("examine", &path))?.len();
            segment_bytes = length.max(segment_bytes);
            list.push(Segment { index, path });
        }
        if list.is_empty() || segment_bytes == 0 {
            return Err(AuditError::NoJournal(folder));
        }
        list.sort_by_key(|segment| segment.index);
        Ok(Segments { folder, list, segment_bytes, buffer: Vec::new(), loaded: None })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// The number in the name of the segment at this position of the list.
    pub fn index(&self, position: usize) -> u64 {
        self.list[position].index
    }

    /// Logical offset of the first byte of the segment at this position of the list.
    pub fn base(&self, position: usize) -> u64 {
        self.list[position].index.saturating_mul(self.segment_bytes)
    }

    /// Reads a segment into memory, unless it is there already.
    pub fn load(&mut self, position: usize) -> Result<(), AuditError> {
        if self.loaded == Some(position) {
            return Ok(());
        }
        self.loaded = None;
        let path = &self.list[position].path;
        let mut file = File::open(path).map_err(AuditError::io("open", path))?;
        self.buffer.clear();
        file.read_to_end(&mut self.buffer).map_err(AuditError::io("read", path))?;
        self.buffer.resize(self.segment_bytes as usize, 0);
        self.loaded = Some(position);
        Ok(())
    }

    /// The loaded segment, from `position` on.
    pub fn bytes(&self, position: usize) -> &[u8] {
        self.buffer.get(position..).unwrap_or_default()
    }

    /// Reads up to `length` bytes at a logical offset, outside the walk; fewer at the end of a segment.
    pub fn bytes_at(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        let index = offset / self.segment_bytes;
        let segment = self.list.iter().find(|segment| segment.index == index)?;
        let file = File::open(&segment.path).ok()?;
        let position = offset % self.segment_bytes;
        let mut bytes = vec![0; length.min((self.segment_bytes - position) as usize)];
        let read = file.read_at(&mut bytes, position).ok()?;
        bytes.truncate(read);
        Some(bytes)
    }

    /// Makes durable what was read, before anything outside the folder is made to rest on it.
    pub fn sync(&self) -> Result<(), AuditError> {
        for segment in &self.list {
            let file = File::open(&segment.path).map_err(AuditError::io("open", &segment.path))?;
            file.sync_data().map_err(AuditError::io("sync", &segment.path))?;
        }
        Ok(())
    }
}

/// The index in `%016x.seg`; `None` for any other name.
fn segment_index(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let index = u64::from_str_radix(digits, 16).ok()?;
    (format!("{index:016x}") == digits).then_some(index)
}
