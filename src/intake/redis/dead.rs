//! Dead elements: their stored form, and how they are buried.
//!
//! An entry of `keys.dead(unit)` is one JSON object, oldest first:
//! `{"version":1,"at":…,"unit":…,"reason":…,"detail":…,"element":…,"element_bytes":…}`; an element that is no text
//! stands in `element_base64`, and one that is too long is cut, with `"truncated":true`. What holds: whatever is
//! written here is whole enough to be pushed again as it is, unless it says that it was cut; burying is refused
//! (`FULL`) rather than anything pushed out, so a list that brings forth nothing but dead ones stops, visibly. An
//! element whose burial was of unknown fate may stand here twice.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::contents::{Dead, Graveyard};
use super::keys::Keys;
use super::units::UnitId;
use crate::domain::UnixMs;
use crate::redis::{Command, Script};
use crate::request::rfc3339::Rfc3339;

pub const VERSION: u32 = 1;
/// The most that one [`Cemetery::bury`] takes: they become arguments of one command.
pub const BURIAL_COUNT_MAX: usize = 1_000;

/// One RPUSH, or none. KEYS dead; ARGV count_max bytes_max entry…
static BURY: Script = Script::new(
    "bury",
    r"#!lua flags=allow-oom
local count, wanted = redis.call('LLEN', KEYS[1]), #ARGV - 2
if count + wanted > tonumber(ARGV[1]) then
  return redis.error_reply('FULL ' .. KEYS[1] .. ' holds ' .. count .. ' of at most ' .. ARGV[1])
end
local bytes = redis.call('MEMORY', 'USAGE', KEYS[1]) or 0
for at = 3, #ARGV do bytes = bytes + #ARGV[at] end
if bytes > tonumber(ARGV[2]) then
  return redis.error_reply('FULL ' .. KEYS[1] .. ' would take ' .. bytes .. ' bytes of at most ' .. ARGV[2])
end
return redis.call('RPUSH', KEYS[1], unpack(ARGV, 3))
",
);

/// Bounds of what is kept in each unit.
#[derive(Clone, Copy, Debug)]
pub struct DeadOptions {
    pub count_max: u64,
    /// About: Redis estimates what a list takes.
    pub bytes_max: u64,
    /// Bytes of an element that are kept.
    pub element_bytes_max: usize,
}

impl Default for DeadOptions {
    fn default() -> DeadOptions {
        DeadOptions { count_max: 100_000, bytes_max: 1 << 30, element_bytes_max: 1 << 20 }
    }
}

/// An entry, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<'a> {
    pub version: u32,
    pub at: Cow<'a, str>,
    /// The unit's name: `hongbao:3`, or a foreign list's.
    pub unit: Cow<'a, str>,
    pub reason: Cow<'a, str>,
    pub detail: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub element: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub element_base64: Option<Cow<'a, str>>,
    /// Of the whole element.
    pub element_bytes: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub truncated: bool,
}

/// Why an entry cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    #[error("version {0} is unknown to this release, which reads {VERSION}")]
    Version(u64),
    #[error("it is not what hongbao writes there: {0}")]
    Form(String),
}

impl Entry<'_> {
    pub fn read(bytes: &[u8]) -> Result<Entry<'static>, EntryFault> {
        #[derive(Deserialize)]
        struct Head {
            version: u64,
        }
        let form = |error: serde_json::Error| EntryFault::Form(error.to_string());
        let Head { version } = serde_json::from_slice(bytes).map_err(form)?;
        if version != u64::from(VERSION) {
            return Err(EntryFault::Version(version));
        }
        serde_json::from_slice(bytes).map_err(form)
    }

    /// The element as it was pushed; nothing if it was cut.
    pub fn whole_element(&self) -> Result<Option<Cow<'_, [u8]>>, EntryFault> {
        if self.truncated {
            return Ok(None);
        }
        match (&self.element, &self.element_base64) {
            (Some(text), None) => Ok(Some(Cow::Borrowed(text.as_bytes()))),
            (None, Some(text)) => {
                let bytes = BASE64.decode(&**text).map_err(|error| EntryFault::Form(error.to_string()))?;
                Ok(Some(Cow::Owned(bytes)))
            }
            _ => Err(EntryFault::Form("it holds no element, or two".to_owned())),
        }
    }
}

/// Buries what the reader could not read.
#[derive(Clone, Debug)]
pub struct Cemetery {
    keys: Keys,
    options: DeadOptions,
}

impl Cemetery {
    pub fn new(keys: Keys, options: DeadOptions) -> Cemetery {
        Cemetery { keys, options }
    }

    fn entry(&self, unit: &str, dead: &Dead, now: UnixMs) -> Vec<u8> {
        let given = &dead.element[..];
        let kept = &given[..given.len().min(self.options.element_bytes_max)];
        let whole_bytes = dead.cut_from.map_or(given.len(), |bytes| bytes as usize);
        let text = match std::str::from_utf8(kept) {
            Ok(text) => Some(text),
            // A character may have been cut in two.
            Err(error) if kept.len() < whole_bytes && error.error_len().is_none() => {
                std::str::from_utf8(&kept[..error.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        let entry = Entry {
            version: VERSION,
            at: Rfc3339(now).to_string().into(),
            unit: unit.into(),
            reason: dead.reason.code.into(),
            detail: dead.reason.detail.as_str().into(),
            element: text.map(Cow::Borrowed),
            element_base64: text.is_none().then(|| BASE64.encode(kept).into()),
            element_bytes: whole_bytes,
            truncated: kept.len() < whole_bytes,
        };
        serde_json::to_vec(&entry).expect("strings and numbers are JSON")
    }
}

impl Graveyard for Cemetery {
    /// # Panics
    /// If there are more than [`BURIAL_COUNT_MAX`].
    fn bury(&self, unit: UnitId, dead: &[Dead], now: UnixMs) -> Command {
        assert!(dead.len() <= BURIAL_COUNT_MAX, "{} are too many for one burial", dead.len());
        let (key, name) = (self.keys.dead(unit), self.keys.unit_name(unit));
        let mut command = Command::script(&BURY, &[key.as_bytes()]);
        command.push(self.options.count_max);
        command.push(self.options.bytes_max);
        dead.iter().for_each(|dead| command.push(self.entry(&name, dead, now)));
        command
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::contents::DeadReason;
    use super::super::units::Units;
    use super::*;

    fn cemetery(element_bytes_max: usize) -> Cemetery {
        let units = Units { shard_count: 4, fair_queue_count: 8, foreign: Vec::new() };
        Cemetery::new(
            Keys::new("hongbao", units),
            DeadOptions { element_bytes_max, ..DeadOptions::default() },
        )
    }

    fn written(element: &[u8], element_bytes_max: usize) -> Vec<u8> {
        let reason = DeadReason { code: "damaged", detail: "why \"so\"".to_owned() };
        let dead = Dead { element: Bytes::copy_from_slice(element), cut_from: None, reason };
        cemetery(element_bytes_max).entry("hongbao:3", &dead, 1_767_225_600_007)
    }

    #[test]
    fn the_stored_form_is_one_object() {
        let expected = r#"{"version":1,"at":"2026-01-01T00:00:00.007Z","unit":"hongbao:3","reason":"damaged","detail":"why \"so\"","element":"{\"id\":7","element_bytes":7}"#;
        assert_eq!(String::from_utf8(written(b"{\"id\":7", 100)).unwrap(), expected);
    }

    #[test]
    fn elements_come_back_as_they_went_unless_they_were_cut() {
        let table: [(&[u8], usize, Option<&str>, bool); 7] = [
            (b"", 8, Some(""), false),
            ("红包".as_bytes(), 6, Some("红包"), false),
            ("红包".as_bytes(), 5, Some("红"), true),
            ("红包".as_bytes(), 2, Some(""), true),
            (b"HB\x01\x00\xff", 8, None, false),
            (b"HB\x01\x00\xff\xff", 5, None, true),
            (b"a\xffb", 2, None, true),
        ];
        for (element, bytes_max, text, is_cut) in table {
            let read = Entry::read(&written(element, bytes_max)).unwrap();
            assert_eq!(read.element.as_deref(), text, "{element:?}");
            assert_eq!((read.truncated, read.element_bytes), (is_cut, element.len()), "{element:?}");
            let whole = read.whole_element().unwrap();
            assert_eq!(whole.as_deref(), (!is_cut).then_some(element), "{element:?}");
        }
    }

    #[test]
    fn what_is_no_entry_is_refused_by_name() {
        let newer = Entry::read(br#"{"version":2,"body":"x"}"#).unwrap_err();
        assert_eq!(newer.to_string(), "version 2 is unknown to this release, which reads 1");
        for strange in [&b"no"[..], b"{}", b"{\"version\":1}", b"\xff"] {
            assert!(matches!(Entry::read(strange), Err(EntryFault::Form(_))), "{strange:?}");
        }
    }
}
