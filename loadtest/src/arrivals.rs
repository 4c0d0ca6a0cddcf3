//! When requests come in: a rate over time, its integral, and the inverse of that, which places every call.
//!
//! ```text
//! shape (scenario) ─> Arrivals: pieces of a rate, or listed times ─> Schedule: due times of the calls of a stream
//! ```
//!
//! What holds: the whole schedule follows from the scenario alone; no answer can slow it down (open loop). The
//! number of requests due until `t` is the integral of the rate up to `t`. Pure. Times are seconds since the
//! start, rates requests a second. Absent: sending.

use crate::dice::Dice;

/// A part of the curve; its rate as a function of the time since its own start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Piece {
    /// From one rate to another, evenly.
    Linear { from: f64, to: f64, for_s: f64 },
    /// `floor + (from - floor) * exp(-t / tau_s)`.
    Decay { from: f64, floor: f64, tau_s: f64, for_s: f64 },
}

impl Piece {
    fn for_s(&self) -> f64 {
        match *self {
            Piece::Linear { for_s, .. } | Piece::Decay { for_s, .. } => for_s,
        }
    }

    fn rate(&self, t: f64) -> f64 {
        match *self {
            Piece::Linear { from, to, for_s } => from + (to - from) * t / for_s,
            Piece::Decay { from, floor, tau_s, .. } => floor + (from - floor) * (-t / tau_s).exp(),
        }
    }

    fn count(&self, t: f64) -> f64 {
        match *self {
            Piece::Linear { from, to, for_s } => from * t + (to - from) * t * t / (2.0 * for_s),
            Piece::Decay { from, floor, tau_s, .. } => {
                floor * t + (from - floor) * tau_s * (1.0 - (-t / tau_s).exp())
            }
        }
    }

    /// The inverse of `count`, by halving: it rises all the way, and forty halvings of an hour are 3 ns.
    fn time_of(&self, count: f64) -> f64 {
        let (mut low, mut high) = (0.0, self.for_s());
        for _ in 0..44 {
            let middle = (low + high) / 2.0;
            if self.count(middle) < count {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }
}

#[derive(Clone, Debug)]
struct Placed {
    start_s: f64,
    start_count: f64,
    piece: Piece,
}

/// How many requests are due by when.
#[derive(Clone, Debug)]
pub enum Arrivals {
    Curve(Curve),
    /// Written down elsewhere; in order.
    Times(Vec<f64>),
}

#[derive(Clone, Debug, Default)]
pub struct Curve {
    pieces: Vec<Placed>,
    total: f64,
    length_s: f64,
}

impl Arrivals {
    pub fn of_pieces(pieces: impl IntoIterator<Item = Piece>) -> Arrivals {
        let mut curve = Curve::default();
        for piece in pieces.into_iter().filter(|piece| piece.for_s() > 0.0) {
            curve.pieces.push(Placed { start_s: curve.length_s, start_count: curve.total, piece });
            curve.total += piece.count(piece.for_s());
            curve.length_s += piece.for_s();
        }
        Arrivals::Curve(curve)
    }

    pub fn total(&self) -> f64 {
        match self {
            Arrivals::Curve(curve) => curve.total,
            Arrivals::Times(times) => times.len() as f64,
        }
    }

    pub fn length_s(&self) -> f64 {
        match self {
            Arrivals::Curve(curve) => curve.length_s,
            Arrivals::Times(times) => times.last().copied().unwrap_or(0.0),
        }
    }

    /// Requests a second at this time; of listed times, over the second around it.
    pub fn rate(&self, t: f64) -> f64 {
        match self {
            Arrivals::Curve(curve) => {
                let at = curve.pieces.partition_point(|placed| placed.start_s <= t);
                match curve.pieces.get(at.wrapping_sub(1)) {
                    Some(placed) if t < curve.length_s => placed.piece.rate(t - placed.start_s),
                    _ => 0.0,
                }
            }
            Arrivals::Times(_) => self.count_until(t + 0.5) - self.count_until(t - 0.5),
        }
    }

    /// The integral of the rate.
    pub fn count_until(&self, t: f64) -> f64 {
        match self {
            Arrivals::Curve(curve) => {
                let at = curve.pieces.partition_point(|placed| placed.start_s <= t);
                let Some(placed) = curve.pieces.get(at.wrapping_sub(1)) else { return 0.0 };
                let within = (t - placed.start_s).min(placed.piece.for_s());
                placed.start_count + placed.piece.count(within)
            }
            Arrivals::Times(times) => times.partition_point(|time| *time <= t) as f64,
        }
    }

    /// When so many are due; `None` past the last.
    pub fn time_of(&self, count: f64) -> Option<f64> {
        match self {
            Arrivals::Curve(curve) => {
                if count >= curve.total {
                    return None;
                }
                let at = curve.pieces.partition_point(|placed| placed.start_count <= count);
                let placed = &curve.pieces[at.saturating_sub(1)];
                Some(placed.start_s + placed.piece.time_of(count - placed.start_count))
            }
            Arrivals::Times(times) => times.get(count as usize).copied(),
        }
    }

    /// The highest rate, looked for every so often.
    pub fn peak(&self) -> f64 {
        let step = (self.length_s() / 2_000.0).max(1e-3);
        (0..=2_000).map(|at| self.rate(f64::from(at) * step)).fold(0.0, f64::max)
    }
}

/// How the calls of a stream stand to the requests of all.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Requests of the whole for each call of this stream.
    pub requests_per_call: f64,
    /// This generator makes every `parts`th call, beginning with number `part`.
    pub part: u32,
    pub parts: u32,
}

/// Due times of the calls of one stream, in order.
#[derive(Debug)]
pub struct Schedule<'a> {
    arrivals: &'a Arrivals,
    /// Where in the count of requests the next call stands.
    at: f64,
    stride: f64,
    chance: Option<Dice>,
}

impl<'a> Schedule<'a> {
    /// Evenly spaced in the count of requests, or, with `chance`, as a Poisson process of that rate.
    pub fn new(arrivals: &'a Arrivals, stream: Stream, chance: Option<Dice>) -> Schedule<'a> {
        let Stream { requests_per_call, part, parts } = stream;
        let stride = requests_per_call * f64::from(parts);
        let mut schedule = Schedule { arrivals, at: 0.0, stride, chance };
        schedule.at = match &mut schedule.chance {
            None if matches!(arrivals, Arrivals::Times(_)) => requests_per_call * f64::from(part),
            // In the middle of its share, so that a count never differs from the integral by more than a half.
            None => requests_per_call * (f64::from(part) + 0.5),
            Some(dice) => stride * dice.exponential(),
        };
        schedule
    }

    /// A stream with no calls.
    pub fn none(arrivals: &'a Arrivals) -> Schedule<'a> {
        Schedule { arrivals, at: f64::INFINITY, stride: 1.0, chance: None }
    }
}

impl Iterator for Schedule<'_> {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        let due = self.arrivals.time_of(self.at)?;
        self.at += self.chance.as_mut().map_or(self.stride, |dice| self.stride * dice.exponential());
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole() -> Stream {
        Stream { requests_per_call: 1.0, part: 0, parts: 1 }
    }

    fn spike() -> Vec<Piece> {
        vec![
            Piece::Linear { from: 100.0, to: 100.0, for_s: 2.0 },
            Piece::Linear { from: 100.0, to: 3_000.0, for_s: 0.5 },
            Piece::Linear { from: 3_000.0, to: 3_000.0, for_s: 1.0 },
            Piece::Decay { from: 3_000.0, floor: 100.0, tau_s: 2.0, for_s: 10.0 },
        ]
    }

    #[test]
    fn counts_match_the_integral() {
        // Pieces, a time, how many are due by then.
        let table: [(Vec<Piece>, f64, f64); 6] = [
            (vec![Piece::Linear { from: 50.0, to: 50.0, for_s: 4.0 }], 3.0, 150.0),
            (vec![Piece::Linear { from: 0.0, to: 100.0, for_s: 10.0 }], 10.0, 500.0),
            (vec![Piece::Linear { from: 0.0, to: 100.0, for_s: 10.0 }], 5.0, 125.0),
            (vec![Piece::Linear { from: 100.0, to: 0.0, for_s: 10.0 }], 5.0, 375.0),
            (spike(), 2.0, 200.0),
            (spike(), 3.5, 200.0 + 775.0 + 3_000.0),
        ];
        for (pieces, t, expected) in table {
            let arrivals = Arrivals::of_pieces(pieces.clone());
            assert!((arrivals.count_until(t) - expected).abs() < 1e-6, "{pieces:?} by {t}");
            let due = Schedule::new(&arrivals, whole(), None).filter(|due| *due <= t).count() as f64;
            assert!((due - expected).abs() <= 1.0, "{pieces:?} by {t}: {due} are due, not {expected}");
        }
        assert!((Arrivals::of_pieces(spike()).peak() - 3_000.0).abs() < 1.0);
    }

    #[test]
    fn streams_and_parts_share_the_whole() {
        let arrivals = Arrivals::of_pieces(spike());
        let stream = |requests_per_call, part, parts| Stream { requests_per_call, part, parts };
        let due = |stream| Schedule::new(&arrivals, stream, None).collect::<Vec<f64>>();
        // Nine tenths in batches of 50, the rest alone.
        let (alone, batches) = (due(stream(10.0, 0, 1)).len(), due(stream(50.0 / 0.9, 0, 1)).len());
        assert!((alone as f64 - arrivals.total() / 10.0).abs() < 1.0);
        assert!((batches as f64 * 50.0 - arrivals.total() * 0.9).abs() < 50.0);
        let mut parts: Vec<f64> = (0..3).flat_map(|part| due(stream(2.0, part, 3))).collect();
        parts.sort_by(f64::total_cmp);
        assert_eq!(parts, due(stream(2.0, 0, 1)));
    }

    #[test]
    fn a_poisson_process_has_as_many_as_the_integral_on_the_average() {
        let arrivals = Arrivals::of_pieces([Piece::Linear { from: 0.0, to: 2_000.0, for_s: 50.0 }]);
        let due: Vec<f64> = Schedule::new(&arrivals, whole(), Some(Dice::new(5))).collect();
        assert!(due.is_sorted());
        for t in [10.0, 25.0, 50.0] {
            let expected = arrivals.count_until(t);
            let count = due.iter().filter(|at| **at <= t).count() as f64;
            assert!((count - expected).abs() < 5.0 * expected.sqrt(), "by {t}: {count}, not {expected}");
        }
        // And it clusters, as independent arrivals do: in cells with a mean of 1, e^-1 are empty.
        let mut cells = vec![0u32; 50_000];
        due.iter().for_each(|at| cells[(arrivals.count_until(*at) as usize).min(49_999)] += 1);
        let empty = cells.iter().filter(|count| **count == 0).count() as f64 / 50_000.0;
        assert!((empty - (-1.0f64).exp()).abs() < 0.01, "{empty} of the cells are empty");
    }

    #[test]
    fn listed_times_are_kept() {
        let arrivals = Arrivals::Times(vec![0.5, 0.5, 1.25, 7.0]);
        assert_eq!(Schedule::new(&arrivals, whole(), None).collect::<Vec<f64>>(), [0.5, 0.5, 1.25, 7.0]);
        assert_eq!((arrivals.count_until(1.0), arrivals.length_s()), (2.0, 7.0));
    }

    fn piece() -> impl Strategy<Value = Piece> {
        let rate = || 0.0..5_000.0f64;
        prop_oneof![
            (rate(), rate(), 0.01..20.0f64).prop_map(|(from, to, for_s)| Piece::Linear { from, to, for_s }),
            (rate(), rate(), 0.1..10.0f64, 0.01..20.0f64)
                .prop_map(|(from, floor, tau_s, for_s)| Piece::Decay { from, floor, tau_s, for_s }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_shape_is_followed(pieces in proptest::collection::vec(piece(), 1..5), share in 0.0..1.0f64) {
            let arrivals = Arrivals::of_pieces(pieces);
            let t = arrivals.length_s() * share;
            let due: Vec<f64> = Schedule::new(&arrivals, whole(), None).collect();
            prop_assert!(due.is_sorted());
            let by_t = due.iter().filter(|at| **at <= t).count() as f64;
            prop_assert!((by_t - arrivals.count_until(t)).abs() <= 1.0);
            prop_assert!((due.len() as f64 - arrivals.total()).abs() <= 1.0);
        }
    }
}
