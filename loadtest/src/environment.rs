//! Where a run took place: the machine, its disk and how long one sync takes, the programs.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::generator::latencies;
use crate::record::Percentiles;
use crate::result::Environment;
use crate::target::Target;

const SYNCS: usize = 100;
const BLOCK: [u8; 4096] = [0x5A; 4096];

pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// RFC 3339, UTC, to the second (days to a date after Howard Hinnant, `civil_from_days`).
pub fn rfc3339(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let z = days as i64 + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn first_line(path: &str, key: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.map_or_else(String::new, |line| line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

/// Time of one 4 KiB write with `fdatasync` in this folder, in place, many times; microseconds. Fewer where it is told to
/// `stop`.
pub fn fdatasync_us(folder: &Path, syncs: usize, stop: &AtomicBool) -> std::io::Result<Percentiles> {
    let path = folder.join("sync-probe");
    let file = File::create(&path)?;
    file.write_all_at(&BLOCK, 0)?;
    file.sync_all()?;
    let mut histogram = latencies();
    for _ in (0..syncs).take_while(|_| !stop.load(Ordering::Relaxed)) {
        let began = Instant::now();
        file.write_all_at(&BLOCK, 0)?;
        file.sync_data()?;
        histogram.saturating_record((began.elapsed().as_micros() as u64).max(1));
    }
    fs::remove_file(&path)?;
    Ok(Percentiles::of(&histogram))
}

/// Device and kind of the file system that holds the folder.
fn disk(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<&str>>());
    let holding = fields.filter(|fields| fields.len() > 2 && folder.starts_with(fields[1]));
    let nearest = holding.max_by_key(|fields| fields[1].len());
    nearest.map_or_else(String::new, |fields| format!("{} on {}", fields[2], fields[0]))
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub fn describe(target: &Target, folder: &Path, durability: &str, stop: &AtomicBool) -> Environment {
    let kernel = rustix::system::uname();
    let memory_kib: u64 =
        first_line("/proc/meminfo", "MemTotal").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let hongbao = target.hongbao.as_deref();
    let is_debug = hongbao.is_some_and(|path| path.iter().any(|part| part == "debug"));
    Environment {
        at: rfc3339(unix_ms()),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory_bytes: memory_kib * 1_024,
        kernel: format!("{} {}", kernel.sysname().to_string_lossy(), kernel.release().to_string_lossy()),
        cpu: first_line("/proc/cpuinfo", "model name"),
        disk: disk(folder),
        fdatasync_us: fdatasync_us(folder, SYNCS, stop).unwrap_or_default(),
        durability: durability.to_owned(),
        hongbao: hongbao.map_or_else(|| "not started here".to_owned(), version),
        harness: format!("hongbao-loadtest {}", env!("CARGO_PKG_VERSION")),
        build: match hongbao {
            None => "unknown".to_owned(),
            Some(_) if is_debug => "debug, not optimised: its rates say nothing of production".to_owned(),
            Some(_) => "release".to_owned(),
        },
        settings: target.settings.clone(),
        target: if target.is_external() {
            target.instances.iter().map(|address| format!("http://{address}")).collect::<Vec<_>>().join(", ")
        } else {
            "started by the harness, all on this machine".to_owned()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_795_371_752_123, "2026-11-22T18:22:32Z"),
        ];
        for (ms, text) in table {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn a_sync_takes_time() {
        let folder = tempfile::tempdir().unwrap();
        let syncs = fdatasync_us(folder.path(), 5, &AtomicBool::new(false)).unwrap();
        assert!(syncs.count == 5 && syncs.p50 > 0);
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is left behind");
    }
}
