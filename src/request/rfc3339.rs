//! Times as they cross the border: RFC 3339 UTC with milliseconds, to and from Unix milliseconds.
//!
//! Written here because it is one format and two well-known formulas (Howard Hinnant, "chrono-compatible
//! low-level date algorithms"), and because it stands on the hot path. Deliberately absent: time zones by
//! name, local time, any clock.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::domain::UnixMs;

const DAY_MS: u64 = 86_400_000;
/// The last millisecond of the year 9999, past which the format has no room.
const LATEST_MS: UnixMs = 253_402_300_799_999;
pub const TEXT_BYTES: usize = 24;

/// A time that prints itself as `2026-01-31T08:00:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rfc3339(pub UnixMs);

impl Rfc3339 {
    pub fn text(self) -> [u8; TEXT_BYTES] {
        let at = self.0.min(LATEST_MS);
        let (year, month, day) = civil_from_days(at / DAY_MS);
        let within = at % DAY_MS;
        let mut text = *b"0000-00-00T00:00:00.000Z";
        digits(&mut text[0..4], year);
        digits(&mut text[5..7], month);
        digits(&mut text[8..10], day);
        digits(&mut text[11..13], within / 3_600_000);
        digits(&mut text[14..16], within / 60_000 % 60);
        digits(&mut text[17..19], within / 1_000 % 60);
        digits(&mut text[20..23], within % 1_000);
        text
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).expect("digits and punctuation are ASCII"))
    }
}

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.text()).expect("digits and punctuation are ASCII"))
    }
}

fn digits(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month, day of the day `days` after 1970-01-01.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Days from 1970-01-01 to a date in or after 1970.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let month_shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn days_in_month(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Reads a full RFC 3339 date-time. `None` if it is not one, or lies outside 1970 to 9999 (the first
/// millisecond of 1970 included, because zero means "not set"). Digits past the millisecond are dropped.
pub fn parse(text: &str) -> Option<UnixMs> {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || !matches!((bytes[4], bytes[7]), (b'-', b'-')) {
        return None;
    }
    if !matches!(bytes[10], b'T' | b't') || !matches!((bytes[13], bytes[16]), (b':', b':')) {
        return None;
    }
    let (year, month, day) = (number(&bytes[0..4])?, number(&bytes[5..7])?, number(&bytes[8..10])?);
    let (hour, minute) = (number(&bytes[11..13])?, number(&bytes[14..16])?);
    let second = number(&bytes[17..19])?;
    if year < 1970 || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    // A leap second is a real time of day; it counts as the first second of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (milliseconds, zone) = fraction(&bytes[19..])?;
    let local =
        days_from_civil(year, month, day) * DAY_MS + hour * 3_600_000 + minute * 60_000 + second * 1_000;
    let utc = i64::try_from(local + milliseconds).ok()? - offset_ms(zone)?;
    u64::try_from(utc).ok().filter(|at| (1..=LATEST_MS).contains(at))
}

fn number(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0')))
}

/// Milliseconds of an optional fraction, and what follows it.
fn fraction(rest: &[u8]) -> Option<(u64, &[u8])> {
    let Some(after) = rest.strip_prefix(b".") else { return Some((0, rest)) };
    let count = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 || count > 9 {
        return None;
    }
    let kept = count.min(3);
    Some((number(&after[..kept])? * 10u64.pow(3 - kept as u32), &after[count..]))
}

fn offset_ms(zone: &[u8]) -> Option<i64> {
    match zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            let offset = i64::try_from((hours * 60 + minutes) * 60_000).ok()?;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -offset } else { offset })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        let table: [(&str, Option<UnixMs>); 22] = [
            ("1970-01-01T00:00:00.001Z", Some(1)),
            ("2000-02-29T12:34:56.789Z", Some(951_827_696_789)),
            ("2026-01-01T00:00:00Z", Some(1_767_225_600_000)),
            ("2026-01-01t00:00:00z", Some(1_767_225_600_000)),
            ("2026-01-01T08:00:00+08:00", Some(1_767_225_600_000)),
            ("2025-12-31T19:00:00-05:00", Some(1_767_225_600_000)),
            ("2026-01-01T00:00:00.1Z", Some(1_767_225_600_100)),
            ("2026-01-01T00:00:00.123456789Z", Some(1_767_225_600_123)),
            ("2025-12-31T23:59:60Z", Some(1_767_225_600_000)),
            ("9999-12-31T23:59:59.999Z", Some(LATEST_MS)),
            ("1970-01-01T00:00:00Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("9999-12-31T23:59:59-01:00", None),
            ("2025-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01T00:00:00.Z", None),
            ("2026-01-01 00:00:00Z", None),
            ("2026-01-01T00:00:00+8:00", None),
            ("1767225600000", None),
            ("２０２６-01-01T00:00:00Z", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn comes_back_as_it_went() {
        // A step coprime to a day lands on every month, leap days and all times of day.
        let mut at = 1;
        while at < LATEST_MS {
            assert_eq!(parse(&Rfc3339(at).to_string()), Some(at));
            at += 7_919_000_777_777;
        }
        for at in (1..4_000_000_000_000).step_by(86_399_989 * 3) {
            assert_eq!(parse(&Rfc3339(at).to_string()), Some(at));
        }
        assert_eq!(Rfc3339(1_767_225_600_007).to_string(), "2026-01-01T00:00:00.007Z");
        assert_eq!(Rfc3339(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
