//! The picture: accepted and settled over time, one above the other on the same scale, and the numbers beside.
//!
//! ```text
//! ▁▃▆█▇▅▃▂▁                      the peak that the door takes
//! ▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂   what the wallet sees of it
//! ```
//!
//! Both charts have the same rows per unit, so the shaved peak is seen and not only told. Where a breaker stands
//! before the wallet, the backlog and how the breaker stood follow below, and when the wallet was browned out. Pure: what is known in, lines of text out. [`super::screen`] brings them to a terminal.

use std::time::Duration;

use super::meter::{Curve, Meter};
use super::tally::Counts;
use crate::breaker::Phase;

/// Columns of the whole; a chart takes what the margin leaves.
const WIDTH: usize = 80;
const MARGIN: usize = 2;
pub const CHART: usize = WIDTH - 2 * MARGIN;
const ACCEPTED_ROWS: u64 = 6;
const SETTLED_ROWS: u64 = 2;
/// The backlog has a scale of its own.
const BACKLOG_ROWS: u64 = 2;
/// Eighths of a cell, from none to full.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Colours of a terminal, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ink {
    pub(super) accepted: &'static str,
    pub(super) settled: &'static str,
    pub(super) waiting: &'static str,
    pub(super) faint: &'static str,
    pub(super) bold: &'static str,
    pub(super) off: &'static str,
}

impl Ink {
    pub const NONE: Ink = Ink { accepted: "", settled: "", waiting: "", faint: "", bold: "", off: "" };
    pub const ANSI: Ink = Ink {
        accepted: "\x1b[38;5;167m",
        settled: "\x1b[38;5;108m",
        waiting: "\x1b[38;5;179m",
        faint: "\x1b[38;5;245m",
        bold: "\x1b[1m",
        off: "\x1b[0m",
    };
}

/// What the picture shows besides the curves.
#[derive(Clone, Debug)]
pub struct Scene<'a> {
    pub meter: &'a Meter,
    pub counts: &'a Counts,
    pub packets: u64,
    pub wallet_per_s: u64,
    /// Outcomes by their end.
    pub succeeded: u64,
    pub failed: u64,
    /// How long the whole is thought to take.
    pub expected: Duration,
    /// What is being done, in a few words.
    pub doing: &'a str,
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `12.3 s`.
pub fn seconds(time: Duration) -> String {
    let tenths = (time.as_millis() + 50) / 100;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

/// One column's blocks, from the top row to the bottom one.
fn column(rate: u64, per_row: u64, rows: u64) -> impl Iterator<Item = char> {
    // Rounded up to an eighth, so that what is small is still seen.
    let eighths = (u128::from(rate) * 8).div_ceil(u128::from(per_row.max(1))) as u64;
    (0..rows).rev().map(move |row| BLOCKS[eighths.saturating_sub(row * 8).min(8) as usize])
}

pub(super) fn chart(rates: &[Option<u64>], per_row: u64, rows: u64) -> Vec<String> {
    let mut lines = vec![String::new(); rows as usize];
    for rate in rates {
        for (line, block) in lines.iter_mut().zip(column(rate.unwrap_or(0), per_row, rows)) {
            line.push(block);
        }
    }
    lines
}

/// Width of a column in time: the expected whole fits, and what takes longer is drawn closer together.
pub(super) fn column_width(meter: &Meter, expected: Duration) -> Duration {
    let whole = expected.max(meter.last().at).max(Duration::from_secs(1));
    let ms = whole.as_millis().div_ceil(CHART as u128) as u64;
    Duration::from_millis(ms.div_ceil(10) * 10)
}

impl Scene<'_> {
    pub fn lines(&self, ink: &Ink) -> Vec<String> {
        let width = column_width(self.meter, self.expected);
        let accepted = self.meter.rates(Curve::Accepted, CHART, width);
        let settled = self.meter.rates(Curve::Settled, CHART, width);
        let max = |rates: &[Option<u64>]| rates.iter().flatten().max().copied().unwrap_or(0);
        let (accepted_max, settled_max) = (max(&accepted), max(&settled));
        // The scale: both charts fit, and settling at its pace, with a little room, is one row high.
        let per_row = accepted_max
            .div_ceil(ACCEPTED_ROWS)
            .max(settled_max.div_ceil(SETTLED_ROWS))
            .max(self.wallet_per_s + self.wallet_per_s / 7)
            .max(1);
        let mut lines = vec![self.title(ink), String::new()];
        lines.push(label(ink.accepted, "accepted/s", &format!("peak {}", grouped(accepted_max)), ink));
        lines.extend(painted(chart(&accepted, per_row, ACCEPTED_ROWS), ink.accepted, ink));
        let pace = format!("pace {}", grouped(self.wallet_per_s));
        lines.push(label(ink.settled, "settled/s", &pace, ink));
        lines.extend(painted(chart(&settled, per_row, SETTLED_ROWS), ink.settled, ink));
        lines.extend(self.breaker(width, ink));
        lines.push(axis(width, ink));
        lines.extend(self.numbers(ink));
        lines
    }

    /// The backlog and the breaker, where there is one.
    fn breaker(&self, width: Duration, ink: &Ink) -> Vec<String> {
        let Some(now) = self.meter.last().breaker else { return Vec::new() };
        let backlogs = self.meter.backlogs(CHART, width);
        let most = backlogs.iter().flatten().max().copied().unwrap_or(0);
        let mut lines = vec![label(ink.waiting, "backlog", &format!("peak {}", grouped(most)), ink)];
        let rows = chart(&backlogs, most.div_ceil(BACKLOG_ROWS).max(1), BACKLOG_ROWS);
        lines.extend(painted(rows, ink.waiting, ink));
        let left = format!("breaker: {}", now.as_str().replace('_', " "));
        lines.push(label(ink.waiting, &left, "─ closed  █ open  ? half open  ╱ ramp", ink));
        let strip = self.meter.breaker(CHART, width).into_iter().flatten().map(mark).collect();
        lines.extend(painted(vec![strip], ink.waiting, ink));
        lines.extend(brownout(self.meter, width, ink));
        lines
    }

    fn title(&self, ink: &Ink) -> String {
        let left = format!("hongbao demo  {} red packets", grouped(self.packets));
        let right = format!("{}  {}", self.doing, seconds(self.meter.last().at));
        let gap = spaces(&[&left, &right]);
        format!("  {}{left}{}{gap}{}{right}{}", ink.bold, ink.off, ink.faint, ink.off)
    }

    fn numbers(&self, ink: &Ink) -> Vec<String> {
        let last = self.meter.last();
        let faint = |text: &str| format!("{}{text}{}", ink.faint, ink.off);
        let refused = self.counts.refused.iter().map(|(code, count)| format!("{} {code}", grouped(*count)));
        let refused: Vec<String> = refused.collect();
        let refused = if refused.is_empty() { "none".to_owned() } else { refused.join(", ") };
        vec![
            format!(
                "  {}  {:<24}{}  {}",
                faint("backlog  "),
                grouped(last.backlog),
                faint("expected wait"),
                seconds(self.meter.wait())
            ),
            format!(
                "  {}  {:<24}{}  {}",
                faint("succeeded"),
                grouped(self.succeeded),
                faint("failed       "),
                grouped(self.failed)
            ),
            format!(
                "  {}  {:<24}{}  {}",
                faint("accepted "),
                grouped(last.accepted),
                faint("repeats known"),
                grouped(self.counts.duplicates)
            ),
            format!("  {}  {refused}", faint("refused  ")),
        ]
    }
}

/// When the wallet bore less than it should, where it did or will.
pub(super) fn brownout(meter: &Meter, width: Duration, ink: &Ink) -> Vec<String> {
    let Some(is_brown) = meter.last().is_brown else { return Vec::new() };
    let left = if is_brown { "wallet: browned out" } else { "wallet: well" };
    let columns = meter.brownout(CHART, width).into_iter().flatten();
    let strip = columns.map(|is_brown| if is_brown { '▒' } else { '─' }).collect();
    let mut lines = vec![label(ink.waiting, left, "─ well  ▒ browned out", ink)];
    lines.extend(painted(vec![strip], ink.waiting, ink));
    lines
}

pub(super) fn mark(phase: Phase) -> char {
    match phase {
        Phase::Closed => '─',
        Phase::Open { .. } => '█',
        Phase::HalfOpen => '?',
        Phase::Ramp { .. } => '╱',
    }
}

/// What stands between the texts of a line, so that the last ends at the right margin.
pub(super) fn spaces(texts: &[&str]) -> String {
    let used: usize = texts.iter().map(|text| text.chars().count()).sum();
    " ".repeat(CHART.saturating_sub(used).max(1))
}

pub(super) fn label(colour: &str, left: &str, right: &str, ink: &Ink) -> String {
    format!("  {colour}{left}{}{}{}{right}{}", ink.off, spaces(&[left, right]), ink.faint, ink.off)
}

pub(super) fn painted(lines: Vec<String>, colour: &'static str, ink: &Ink) -> impl Iterator<Item = String> {
    let off = ink.off;
    lines.into_iter().map(move |line| format!("  {colour}{}{off}", line.trim_end()))
}

/// A rule with the time at its ends.
pub(super) fn axis(width: Duration, ink: &Ink) -> String {
    let end = format!(" {}", seconds(width * CHART as u32));
    let rule = "╌".repeat(CHART - 2 - end.chars().count());
    format!("  {}0 {rule}{end}{}", ink.faint, ink.off)
}

#[cfg(test)]
mod tests {
    use super::super::meter::Sample;
    use super::*;

    fn draw(meter: &Meter, expected_s: u64) -> Vec<String> {
        let mut counts = Counts { duplicates: 30, ..Counts::default() };
        counts.refused.insert("id_conflict".to_owned(), 30);
        counts.refused.insert("invalid_field".to_owned(), 1_030);
        let scene = Scene {
            meter,
            counts: &counts,
            packets: 6_000,
            wallet_per_s: 500,
            succeeded: 3_990,
            failed: 0,
            expected: Duration::from_secs(expected_s),
            doing: "settling",
        };
        scene.lines(&Ink::NONE)
    }

    fn meter() -> Meter {
        let mut meter = Meter::default();
        for tenth in 0..=80u64 {
            // Rises to 3,000/s over a second, falls over two more; settles at 500/s throughout.
            let accepted = match tenth {
                0..=10 => tenth * tenth * 15,
                11..=30 => 1_500 + 3_000 - (30 - tenth) * (30 - tenth) * 15 / 2,
                _ => 4_500,
            };
            let settled = (tenth * 50).min(accepted);
            let (at, backlog) = (Duration::from_millis(tenth * 100), accepted - settled);
            meter.add(Sample { at, accepted, settled, backlog, drain_per_s: 500, ..Sample::default() });
        }
        meter
    }

    #[test]
    fn an_outage_ridden_out() {
        let mut meter = Meter::default();
        for tenth in 0..=75u64 {
            // 500/s come and go; from 2 s to 4 s nothing goes, and what waited goes from 5 s on.
            let accepted = (tenth * 50).min(2_500);
            let settled = (50 * (tenth.min(20) + tenth.saturating_sub(40))).min(accepted);
            let breaker = Some(match tenth {
                21..=29 | 31..=39 => Phase::Open { until_ms: 0 },
                30 | 40 => Phase::HalfOpen,
                41..=60 => Phase::Ramp { cap_permille: 100, step_at_ms: 0 },
                _ => Phase::Closed,
            });
            let (at, backlog) = (Duration::from_millis(tenth * 100), accepted - settled);
            meter.add(Sample {
                at,
                accepted,
                settled,
                backlog,
                drain_per_s: 500,
                breaker,
                is_brown: Some((10..=15).contains(&tenth)),
                ..Sample::default()
            });
        }
        let drawn = draw(&meter, 7);
        let drawn: Vec<&str> = drawn[12..19].iter().map(|line| line.trim_end()).collect();
        let expected = "
  backlog                                                           peak 1,000
                                 ▁▂▃▄▄▅▆▇█████████████▇▆▅▄▄▃▂▁
                       ▁▂▃▄▄▅▆▇█████████████████████████████████▇▆▅▄▄▃▂▁
  breaker: closed                        ─ closed  █ open  ? half open  ╱ ramp
  ─────────────────────█████████?█████████?╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱───────────────
  wallet: well                                           ─ well  ▒ browned out
  ──────────▒▒▒▒▒▒────────────────────────────────────────────────────────────";
        let drawn = format!("\n{}", drawn.join("\n"));
        assert_eq!(drawn, expected, "{drawn}\n");
    }

    #[test]
    fn a_shaved_peak() {
        let drawn = draw(&meter(), 9);
        let expected = "
  hongbao demo  6,000 red packets                              settling  8.0 s

  accepted/s                                                        peak 2,900
          ▁
        ▁▆██▅▂
       ▅███████▆▃
     ▂▇███████████▆▃▁
    ▅████████████████▇▄▁
  ▃█████████████████████▇▄▂
  settled/s                                                           pace 500
    ▂
  ▃██████████████████████████████████████████████████████████████████
  0 ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 9.1 s
  backlog    500                     expected wait  1.0 s
  succeeded  3,990                   failed         0
  accepted   4,500                   repeats known  30
  refused    30 id_conflict, 1,030 invalid_field";
        let drawn: Vec<&str> = drawn.iter().map(|line| line.trim_end()).collect();
        let drawn = format!("\n{}", drawn.join("\n"));
        assert_eq!(drawn, expected, "{drawn}\n");
    }

    #[test]
    fn it_keeps_its_size() {
        for (meter, expected_s) in [(Meter::default(), 1), (meter(), 2), (meter(), 100)] {
            let drawn = draw(&meter, expected_s);
            assert_eq!(drawn.len(), 17);
            assert!(drawn.iter().all(|line| line.chars().count() <= WIDTH), "{drawn:?}");
        }
    }

    #[test]
    fn numbers_read_well() {
        let table = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        for (number, expected) in table {
            assert_eq!(grouped(number), expected);
        }
        assert_eq!(seconds(Duration::from_millis(12_349)), "12.3 s");
        assert_eq!(column(0, 8, 2).collect::<String>(), "  ");
        assert_eq!(column(9, 8, 2).collect::<String>(), "▁█");
    }
}
