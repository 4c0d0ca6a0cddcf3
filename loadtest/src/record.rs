//! Latencies on disk: HDR histogram logs, an interval a second, in the V2 format that the field's tools read.
//!
//! What holds: what is told in the report is what is in the logs; logs of several generators add up to one. Absent:
//! sending, and clocks other than the log's own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::generator::Interval;

/// Values in the logs are microseconds; the log's own column of maxima is in seconds.
const MAX_VALUE_DIVISOR: f64 = 1e6;

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the latency log {path} cannot be written: {detail}")]
    Write { path: PathBuf, detail: String },
    #[error("the latency log {path} cannot be read: {detail}")]
    Read { path: PathBuf, detail: String },
}

/// Latencies of one second, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SecondRow {
    /// Seconds since the run's start.
    pub at_s: u64,
    pub count: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// A whole distribution in figures, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    pub count: u64,
}

impl Percentiles {
    pub fn of(histogram: &Histogram<u64>) -> Percentiles {
        let at = |percentile| histogram.value_at_percentile(percentile);
        Percentiles {
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: histogram.max(),
            count: histogram.len(),
        }
    }
}

/// Points of a curve over the percentile axis: `(percentile, microseconds)`.
pub fn curve(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let mut points: Vec<(f64, u64)> = Vec::new();
    let mut rest = 1.0;
    // Halving the rest five times a decade: as fine as the axis is read.
    while rest * histogram.len() as f64 >= 1.0 && points.len() < 60 {
        let percentile = (1.0 - rest) * 100.0;
        points.push((percentile, histogram.value_at_percentile(percentile)));
        rest *= 0.63;
    }
    points.push(((1.0 - rest) * 100.0, histogram.max()));
    points
}

/// One measure: its log while it is written, and what it adds up to.
#[derive(Debug)]
pub struct Measure {
    pub total: Histogram<u64>,
    pub rows: Vec<SecondRow>,
    /// Finished intervals with their tags, until they are written.
    intervals: BTreeMap<(u64, &'static str), Histogram<u64>>,
}

impl Measure {
    pub fn new() -> Measure {
        Measure { total: crate::generator::latencies(), rows: Vec::new(), intervals: BTreeMap::new() }
    }

    pub fn add(&mut self, second: u64, tag: &'static str, histogram: &Histogram<u64>) {
        if histogram.is_empty() {
            return;
        }
        let mine = self.intervals.entry((second, tag)).or_insert_with(crate::generator::latencies);
        mine.add(histogram).expect("the same bounds");
        self.total.add(histogram).expect("the same bounds");
    }

    /// Takes out the intervals before this second, in order, and keeps their figures.
    fn drain(&mut self, before: u64) -> Vec<(u64, &'static str, Histogram<u64>)> {
        let later = self.intervals.split_off(&(before, ""));
        let done = std::mem::replace(&mut self.intervals, later);
        let mut seconds: BTreeMap<u64, Histogram<u64>> = BTreeMap::new();
        for ((second, _), histogram) in &done {
            let sum = seconds.entry(*second).or_insert_with(crate::generator::latencies);
            sum.add(histogram).expect("the same bounds");
        }
        self.rows.extend(seconds.iter().map(|(second, histogram)| row(*second, histogram)));
        done.into_iter().map(|((second, tag), histogram)| (second, tag, histogram)).collect()
    }
}

impl Default for Measure {
    fn default() -> Measure {
        Measure::new()
    }
}

pub fn row(second: u64, histogram: &Histogram<u64>) -> SecondRow {
    let Percentiles { p50, p90, p99, max, count, .. } = Percentiles::of(histogram);
    SecondRow { at_s: second, count, p50_us: p50, p90_us: p90, p99_us: p99, max_us: max }
}

/// What a log says of itself, and the tags of its two kinds of calls.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub comment: &'static str,
    pub tags: [&'static str; 2],
}

pub const ACCEPT: Kind = Kind {
    comment: "hongbao-loadtest: microseconds from the intended time until the acknowledgement",
    tags: ["single", "batch"],
};
pub const SETTLE: Kind = Kind {
    comment: "hongbao-loadtest: microseconds from the acknowledgement until a lookup said final; a sample",
    tags: ["alone", "batch"],
};

/// Writes latencies as they come, until the senders are gone.
pub fn record(
    path: &Path,
    kind: Kind,
    started: SystemTime,
    intervals: &Receiver<Interval>,
) -> Result<Measure, RecordError> {
    let failed = |detail: String| RecordError::Write { path: path.to_owned(), detail };
    let file = File::create(path).map_err(|error| failed(error.to_string()))?;
    let (mut out, mut serializer) = (BufWriter::new(file), V2DeflateSerializer::new());
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(kind.comment)
        .with_start_time(started)
        .with_max_value_divisor(MAX_VALUE_DIVISOR)
        .begin_log_with(&mut out, &mut serializer)
        .map_err(|error| failed(error.to_string()))?;
    let mut measure = Measure::new();
    let mut write = |measure: &mut Measure, before: u64| {
        for (second, tag, histogram) in measure.drain(before) {
            let (at, length) = (Duration::from_secs(second), Duration::from_secs(1));
            log.write_histogram(&histogram, at, length, Tag::new(tag))
                .map_err(|error| failed(format!("{error:?}")))?;
        }
        Ok(())
    };
    for Interval { second, single, batch } in intervals {
        measure.add(second, kind.tags[0], &single);
        measure.add(second, kind.tags[1], &batch);
        // Other threads may still bring theirs for a second or two.
        write(&mut measure, second.saturating_sub(3))?;
    }
    write(&mut measure, u64::MAX)?;
    drop(log);
    std::io::Write::flush(&mut out).map_err(|error| failed(error.to_string()))?;
    Ok(measure)
}

/// Start in seconds since 1970, then each interval with its second since then.
pub type Log = (f64, Vec<(u64, Histogram<u64>)>);

/// Reads a log.
pub fn read_log(path: &Path) -> Result<Log, RecordError> {
    let failed = |detail: String| RecordError::Read { path: path.to_owned(), detail };
    let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let mut deserializer = Deserializer::new();
    let (mut start_s, mut intervals) = (0.0, Vec::new());
    for entry in IntervalLogIterator::new(&bytes) {
        match entry.map_err(|error| failed(format!("{error:?}")))? {
            LogEntry::StartTime(at) => start_s = at.as_secs_f64(),
            LogEntry::BaseTime(_) => {}
            LogEntry::Interval(interval) => {
                let encoded = base64::decode(interval.encoded_histogram())
                    .ok_or_else(|| failed("an interval is not base64".to_owned()))?;
                let histogram = deserializer
                    .deserialize::<u64, _>(&mut encoded.as_slice())
                    .map_err(|error| failed(error.to_string()))?;
                intervals.push((interval.start_timestamp().as_secs(), histogram));
            }
        }
    }
    Ok((start_s, intervals))
}

/// Just enough of RFC 4648 to read what the log's writer wrote.
mod base64 {
    pub fn decode(text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
        let (mut bits, mut held) = (0u32, 0);
        for byte in text.trim_end_matches('=').bytes() {
            let six = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(six);
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held) as u8);
                bits &= (1 << held) - 1;
            }
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(second: u64, single: &[u64], batch: &[u64]) -> Interval {
        let of = |values: &[u64]| {
            let mut histogram = crate::generator::latencies();
            values.iter().for_each(|value| histogram.record(*value).unwrap());
            histogram
        };
        Interval { second, single: of(single), batch: of(batch) }
    }

    #[test]
    fn what_is_written_is_read_and_threads_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accept.hlog");
        let (tell, told) = std::sync::mpsc::channel();
        // Two threads, one of them late with its second.
        for interval in [
            interval(0, &[100, 200], &[]),
            interval(1, &[300], &[9_000]),
            interval(0, &[400], &[]),
            interval(9, &[50_000], &[]),
        ] {
            tell.send(interval).unwrap();
        }
        drop(tell);
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let measure = record(&path, ACCEPT, started, &told).unwrap();
        assert_eq!(measure.total.len(), 6);
        assert_eq!(
            measure.rows.iter().map(|row| (row.at_s, row.count)).collect::<Vec<_>>(),
            [(0, 3), (1, 2), (9, 1)]
        );
        let (start_s, intervals) = read_log(&path).unwrap();
        assert_eq!(start_s, 1_700_000_000.0);
        let mut sum = crate::generator::latencies();
        intervals.iter().for_each(|(_, histogram)| sum.add(histogram).unwrap());
        assert_eq!(Percentiles::of(&sum), Percentiles::of(&measure.total));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("Tag=batch,") && text.contains(",HISTF"), "{text}");
    }

    #[test]
    fn the_curve_ends_with_the_maximum() {
        let mut histogram = crate::generator::latencies();
        (1..=10_000u64).for_each(|value| histogram.record(value).unwrap());
        let points = curve(&histogram);
        assert!(points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{points:?}");
        assert_eq!(points.last().unwrap().1, histogram.max());
        assert!(points.len() > 15);
        assert!(curve(&crate::generator::latencies()).is_empty());
    }
}
