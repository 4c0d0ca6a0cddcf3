//! The picture of a fleet: what was offered to its doors, what all instances sent to the wallet, what waited meanwhile, and how the
//! breaker stood.
//!
//! Offered and sent have the same rows per unit. The strip of the breaker is drawn from its history: in each column the rarest
//! state that it was in stands for all of it. Pure.

use std::time::Duration;

use super::super::incident::{Turn, ms};
use super::super::meter::Curve;
use super::super::picture::{
    CHART, Ink, axis, brownout, chart, column_width, grouped, label, painted, seconds, spaces,
};
use super::super::screen::Shown;
use super::super::watch::Plan;
use super::look::Seen;
use crate::breaker::Phase;

const OFFERED_ROWS: u64 = 6;
const SENT_ROWS: u64 = 2;
/// The backlog has a scale of its own.
const BACKLOG_ROWS: u64 = 2;
/// States by how rare they are, and their marks.
const MARKS: [(&str, char); 4] = [("closed", '─'), ("ramp", '╱'), ("open", '█'), ("half_open", '?')];

/// What the picture is drawn from.
pub struct FleetScene<'a> {
    pub seen: &'a Seen,
    pub names: &'a [String],
    pub plan: Plan,
    /// What is being done, in a few words.
    pub doing: &'a str,
}

/// How the breaker stood in each column, up to `over`.
fn strip(turns: &[Turn], over: Duration, width: Duration) -> String {
    let rarity = |turn: &Turn| MARKS.iter().position(|(state, _)| *state == turn.to).unwrap_or(0);
    let column = |column: u32| {
        let (from, to) = (ms(width * column), ms(width * (column + 1)));
        let is_over = |at: usize| turns.get(at + 1).is_some_and(|next| next.at_ms <= from);
        let within = turns.iter().enumerate().filter(|(at, turn)| turn.at_ms < to && !is_over(*at));
        let rarest = within.map(|(_, turn)| rarity(turn)).max()?;
        (from <= ms(over)).then_some(MARKS[rarest].1)
    };
    (0..CHART as u32).map_while(column).collect()
}

impl FleetScene<'_> {
    fn phase(&self) -> &'static str {
        let phase = self.seen.meter.last().breaker.unwrap_or(Phase::Closed);
        match phase {
            Phase::HalfOpen => "half open",
            Phase::Closed | Phase::Open { .. } | Phase::Ramp { .. } => phase.as_str(),
        }
    }

    fn title(&self, ink: &Ink) -> String {
        let count = self.names.len();
        let left = format!("hongbao demo --fleet {count}  {} red packets", grouped(self.plan.packets));
        let right = format!("{}  {}", self.doing, seconds(self.seen.meter.last().at));
        let gap = spaces(&[&left, &right]);
        format!("  {}{left}{}{gap}{}{right}{}", ink.bold, ink.off, ink.faint, ink.off)
    }

    /// One line an instance.
    fn members(&self, ink: &Ink) -> Vec<String> {
        let head = format!("{:<10}{:>14}{:>14}{:>18}", "instance", "accepted", "settled", "sent");
        let mut lines = vec![format!("  {}{head}{}", ink.faint, ink.off)];
        for (name, at) in self.names.iter().zip(&self.seen.gauges) {
            let (accepted, settled, sent) = (grouped(at.accepted), grouped(at.settled()), grouped(at.sent));
            lines.push(format!("  {name:<10}{accepted:>14}{settled:>14}{sent:>18}"));
        }
        lines
    }
}

impl Shown for FleetScene<'_> {
    fn lines(&self, ink: &Ink) -> Vec<String> {
        let meter = &self.seen.meter;
        let width = column_width(meter, self.plan.expected);
        let most = |rates: &[Option<u64>]| rates.iter().flatten().max().copied().unwrap_or(0);
        let (offered, sent) =
            (meter.rates(Curve::Offered, CHART, width), meter.rates(Curve::Sent, CHART, width));
        let budget = self.plan.wallet_per_s;
        // The scale: both charts fit, and the budget, with a little room, is one row high.
        let per_row = most(&offered)
            .div_ceil(OFFERED_ROWS)
            .max(most(&sent).div_ceil(SENT_ROWS))
            .max(budget + budget / 7)
            .max(1);
        let mut lines = vec![self.title(ink), String::new()];
        lines.push(label(ink.accepted, "offered/s", &format!("peak {}", grouped(most(&offered))), ink));
        lines.extend(painted(chart(&offered, per_row, OFFERED_ROWS), ink.accepted, ink));
        lines.push(label(ink.settled, "sent to the wallet/s", &format!("budget {}", grouped(budget)), ink));
        lines.extend(painted(chart(&sent, per_row, SENT_ROWS), ink.settled, ink));
        let backlogs = meter.backlogs(CHART, width);
        let deepest = most(&backlogs);
        lines.push(label(ink.waiting, "backlog", &format!("peak {}", grouped(deepest)), ink));
        let rows = chart(&backlogs, deepest.div_ceil(BACKLOG_ROWS).max(1), BACKLOG_ROWS);
        lines.extend(painted(rows, ink.waiting, ink));
        let left = format!("breaker: {}", self.phase());
        lines.push(label(ink.waiting, &left, "─ closed  █ open  ? half open  ╱ ramp", ink));
        lines.extend(painted(vec![strip(&self.seen.turns, meter.last().at, width)], ink.waiting, ink));
        lines.extend(brownout(meter, width, ink));
        lines.push(axis(width, ink));
        lines.extend(self.members(ink));
        lines
    }

    fn line(&self) -> String {
        let (last, phase) = (self.seen.meter.last(), self.phase());
        format!(
            "{:>7}  {:<10} offered {:>11}  sent {:>11}  backlog {:>11}  expected wait {}  breaker {phase}",
            seconds(last.at),
            self.doing,
            grouped(last.offered),
            grouped(last.sent),
            grouped(last.backlog),
            seconds(self.seen.meter.wait())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::meter::Sample;
    use super::super::gauges::Gauges;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn turns(list: &[(u64, &'static str)]) -> Vec<Turn> {
        list.iter().map(|(at_ms, to)| Turn { at_ms: *at_ms, to }).collect()
    }

    #[test]
    fn what_is_rare_stands_for_its_column() {
        let check = |list: &[(u64, &'static str)], over: u32, expected: &str| {
            assert_eq!(strip(&turns(list), MS * over, MS * 100), expected, "{list:?}");
        };
        check(&[(0, "closed")], 250, "───");
        // Half open for 5 ms within a tenth, and a turn on the edge of one.
        let seen =
            [(0, "closed"), (210, "open"), (450, "half_open"), (455, "open"), (600, "ramp"), (790, "closed")];
        check(&seen, 950, "──██?█╱╱──");
        assert_eq!(strip(&turns(&seen), MS * 60_000, MS * 100).chars().count(), CHART);
    }

    #[test]
    fn a_fleet_that_rode_it_out() {
        let mut seen = Seen::new(3);
        for tenth in 0..=75u64 {
            // 3,000/s come for a second, 500/s go; from 2 s to 4 s nothing goes.
            let offered = (tenth * 300).min(3_000);
            let sent = (50 * (tenth.min(20) + tenth.saturating_sub(40))).min(3_000);
            let (at, backlog) = (MS * tenth as u32 * 100, offered.saturating_sub(sent));
            seen.meter.add(Sample {
                at,
                offered,
                sent,
                backlog,
                breaker: Some(Phase::Closed),
                ..Sample::default()
            });
        }
        seen.turns = turns(&[
            (0, "closed"),
            (2_100, "open"),
            (2_600, "half_open"),
            (2_640, "open"),
            (3_640, "half_open"),
            (3_680, "open"),
            (4_100, "half_open"),
            (4_130, "ramp"),
            (6_400, "closed"),
        ]);
        seen.gauges = vec![Gauges { accepted: 1_000, succeeded: 900, sent: 1_100, ..Gauges::default() }; 3];
        let plan = Plan { packets: 3_000, wallet_per_s: 500, expected: MS * 7_000 };
        let names = ["i1", "i2", "i3"].map(str::to_owned);
        let scene = FleetScene { seen: &seen, names: &names, plan, doing: "done" };
        let drawn = scene.lines(&Ink::NONE);
        assert!(drawn.iter().all(|line| line.chars().count() <= CHART + 4), "{drawn:#?}");
        let drawn: Vec<&str> = drawn.iter().map(|line| line.trim_end()).collect();
        let drawn = format!("\n{}", drawn.join("\n"));
        assert_eq!(drawn, EXPECTED, "{drawn}\n");
    }

    const EXPECTED: &str = "
  hongbao demo --fleet 3  3,000 red packets                        done  7.5 s

  offered/s                                                         peak 3,000
  ▃▃▃▃▃▃▃▃▃▃
  ██████████
  ██████████
  ██████████
  ██████████
  ██████████
  sent to the wallet/s                                              budget 500

  ████████████████████                    ███████████████████████████████████
  backlog                                                           peak 2,500
        ▂▄▅▇████▇▇▇▆▆▆▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▄▄▄▃▃▃▂▂▂▁▁▁
   ▂▄▅▇██████████████████████████████████████████████████████▇▇▇▆▆▆▅▅▅▄▄▄▃▃▃▂▂
  breaker: closed                        ─ closed  █ open  ? half open  ╱ ramp
  ─────────────────────█████?█████████?████?╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱╱────────────
  0 ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 7.6 s
  instance        accepted       settled              sent
  i1                 1,000           900             1,100
  i2                 1,000           900             1,100
  i3                 1,000           900             1,100";
}
