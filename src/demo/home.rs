//! Where a run keeps its data, and what is left of it afterwards.
//!
//! A folder that was named is kept. A temporary one is removed with its acks file when the run ends well, and
//! kept as evidence when it does not. A folder of an earlier run may be used again: what it holds already is
//! counted first, so that the two runs are not mistaken for each other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::audit::{Options, audit};

#[derive(Debug)]
pub struct Home {
    pub data: PathBuf,
    pub acks: PathBuf,
    /// Of a wallet in a process of its own.
    pub wallet_data: PathBuf,
    /// Of a Redis of its own.
    pub redis_data: PathBuf,
    is_temporary: bool,
    acks_are_temporary: bool,
}

/// What a folder held before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    pub requests: u64,
    pub succeeded: u64,
    pub failed: u64,
}

/// `<data>-acks.txt`, beside the folder and not in it.
fn acks_beside(data: &Path) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push("-acks.txt");
    data.with_file_name(name)
}

impl Home {
    pub fn new(data: Option<&Path>, acks: Option<&Path>, run: &str) -> Home {
        let is_temporary = data.is_none();
        let data =
            data.map_or_else(|| std::env::temp_dir().join(format!("hongbao-demo-{run}")), PathBuf::from);
        let acks_are_temporary = is_temporary && acks.is_none();
        let acks = acks.map_or_else(|| acks_beside(&data), PathBuf::from);
        let wallet_data = super::wallet::data_beside(&data, "-wallet");
        let redis_data = super::wallet::data_beside(&data, "-redis");
        Home { data, acks, wallet_data, redis_data, is_temporary, acks_are_temporary }
    }

    /// What is there already; nothing, as a rule.
    pub fn before(&self) -> anyhow::Result<Before> {
        if !self.data.join("journal").exists() {
            return Ok(Before::default());
        }
        let options = Options { data_dir: self.data.clone(), ..Options::default() };
        let report =
            audit(&options, None, &mut |_| {}).context("looking at what the folder holds already")?;
        Ok(Before {
            requests: report.requests + report.removed.requests,
            succeeded: report.succeeded,
            failed: report.failed,
        })
    }

    /// Removes what was only there for this run, if it ended well. True if the data is still there.
    pub fn leave(&self, ended_well: bool) -> bool {
        if !self.is_temporary || !ended_well {
            return true;
        }
        if self.acks_are_temporary {
            // Rubbish in the temporary folder is a nuisance, not a failure.
            let _ = fs::remove_file(&self.acks);
        }
        let _ = fs::remove_dir_all(&self.wallet_data);
        let _ = fs::remove_dir_all(&self.redis_data);
        fs::remove_dir_all(&self.data).is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_acks_stand_beside_the_data() {
        let home = Home::new(Some(Path::new("some/data")), None, "r");
        assert_eq!(home.acks, Path::new("some/data-acks.txt"));
        let home = Home::new(Some(Path::new("some/data/")), Some(Path::new("a.txt")), "r");
        assert_eq!(home.acks, Path::new("a.txt"));
        assert_eq!(acks_beside(Path::new("data/")), Path::new("data-acks.txt"));
    }

    #[test]
    fn only_a_temporary_home_is_removed_and_only_when_all_is_well() {
        let temp = tempfile::tempdir().unwrap();
        let named = Home::new(Some(&temp.path().join("d")), None, "r");
        assert_eq!(named.before().unwrap(), Before::default());
        assert!(named.leave(true));
        for (ended_well, is_kept) in [(false, true), (true, false)] {
            let home = Home {
                wallet_data: temp.path().join("none"),
                redis_data: temp.path().join("none"),
                is_temporary: true,
                acks_are_temporary: true,
                ..Home::new(Some(&temp.path().join("e")), None, "r")
            };
            fs::create_dir_all(&home.data).unwrap();
            fs::write(&home.acks, "").unwrap();
            assert_eq!(home.leave(ended_well), is_kept);
            assert_eq!((home.data.exists(), home.acks.exists()), (is_kept, is_kept));
        }
    }
}
