//! The line before a request: how many are settled before one that comes to the end of its queue now.
//!
//! Realtime goes before bulk; the fair queues of a lane are served in turn, so that before a request at the end of its queue each
//! other queue of its lane has had as much as its own, or all it has. What comes on meanwhile counts as well ([`Line::ahead`]).
//!
//! What holds: a place costs two searches, however many queues there are: a lane is sorted once for each of [`GRID`] lengths of the
//! time for which more is taken to come, and between two of them the answer is drawn straight, which is exact where nothing comes.
//! Pure. Absent: time in line; that is the pace's to say ([`super::forecast`]).

/// Lengths of that time that are worked out, from none to the longest.
const GRID: usize = 9;

/// A queue, as far as it stands before others: what waits in it, and what comes to it a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub waiting: f64,
    pub coming_per_s: f64,
}

/// What is settled before a request, itself among it, and out of how many queues one goes for each of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub ahead: f64,
    pub turns: f64,
}

/// All queues, at one moment.
pub struct Line {
    lanes: Vec<Lane>,
    fair_queue_count: usize,
    more_s_max: f64,
}

struct Lane {
    loads: Vec<Load>,
    at: [Option<Sorted>; GRID],
}

/// A lane after some time: what waits in its queues, the least first, and the sums up to each.
struct Sorted {
    waits: Vec<f64>,
    sums: Vec<f64>,
}

impl Sorted {
    fn of(loads: &[Load], more_s: f64) -> Sorted {
        let mut waits: Vec<f64> = loads.iter().map(|load| load.after(more_s)).collect();
        waits.sort_unstable_by(f64::total_cmp);
        let mut sums = Vec::with_capacity(waits.len() + 1);
        sums.push(0.0);
        for wait in &waits {
            sums.push(sums[sums.len() - 1] + wait);
        }
        Sorted { waits, sums }
    }

    fn whole(&self) -> f64 {
        self.sums[self.waits.len()]
    }

    /// Of each queue as much as `own`, or all it has; and how many have more.
    fn up_to(&self, own: f64) -> (f64, f64) {
        let less = self.waits.partition_point(|wait| *wait <= own);
        let more = (self.waits.len() - less) as f64;
        (self.sums[less] + more * own, more)
    }
}

impl Load {
    fn after(&self, more_s: f64) -> f64 {
        self.waiting + self.coming_per_s * more_s
    }
}

impl Line {
    /// `loads` in the order of service; nothing is ever taken to come on for longer than `more_s_max`.
    pub fn new(loads: impl Iterator<Item = Load>, fair_queue_count: usize, more_s_max: f64) -> Line {
        let loads: Vec<Load> = loads.collect();
        let fair_queue_count = fair_queue_count.max(1);
        let lane = |loads: &[Load]| Lane { loads: loads.to_vec(), at: [const { None }; GRID] };
        Line { lanes: loads.chunks(fair_queue_count).map(lane).collect(), fair_queue_count, more_s_max }
    }

    /// The place of one that comes to the queue at this position now, if more comes for so long.
    pub fn ahead(&mut self, position: usize, more_s: f64) -> Place {
        let step_s = self.more_s_max / (GRID - 1) as f64;
        let steps = (more_s.clamp(0.0, self.more_s_max) / step_s).clamp(0.0, (GRID - 1) as f64);
        let (below, part) = (steps as usize, steps.fract());
        let low = self.ahead_at(position, below, step_s);
        if part == 0.0 {
            return low;
        }
        let high = self.ahead_at(position, below + 1, step_s);
        let between = |low: f64, high: f64| low + (high - low) * part;
        Place { ahead: between(low.ahead, high.ahead), turns: between(low.turns, high.turns) }
    }

    fn ahead_at(&mut self, position: usize, step: usize, step_s: f64) -> Place {
        let more_s = step as f64 * step_s;
        let (number, fair) = (position / self.fair_queue_count, position % self.fair_queue_count);
        let mut before = 0.0;
        for lane in &mut self.lanes[..number] {
            before += lane.sorted(step, more_s).whole();
        }
        let lane = &mut self.lanes[number];
        let load = lane.loads[fair];
        let (own, itself) = (load.waiting + 1.0, load.after(more_s));
        let (all, more) = lane.sorted(step, more_s).up_to(own);
        // Its own queue is no other.
        let (others, longer) = (all - itself.min(own), more - f64::from(u8::from(itself > own)));
        Place { ahead: before + own + others.max(0.0), turns: 1.0 + longer }
    }
}

impl Lane {
    fn sorted(&mut self, step: usize, more_s: f64) -> &Sorted {
        self.at[step].get_or_insert_with(|| Sorted::of(&self.loads, more_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same, queue by queue.
    fn one_by_one(loads: &[Load], fair: usize, position: usize, more_s: f64) -> Place {
        let own = loads[position].waiting + 1.0;
        let mut place = Place { ahead: own, turns: 1.0 };
        for (at, load) in loads.iter().enumerate() {
            let waits = load.after(more_s);
            if at / fair < position / fair {
                place.ahead += waits;
            } else if at / fair == position / fair && at != position {
                place.ahead += waits.min(own);
                place.turns += f64::from(u8::from(waits > own));
            }
        }
        place
    }

    #[test]
    fn the_answer_is_that_of_a_walk_over_all_queues() {
        let mut seed = 7u64;
        let mut dice = |sides: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % sides
        };
        for fair in [1, 2, 8, 61] {
            for coming in [0, 400] {
                let mut loads = vec![Load::default(); 2 * fair];
                for load in &mut loads {
                    // Many have nothing, or the same.
                    let waiting = [0, 0, 5, dice(1_000)][dice(4) as usize] as f64;
                    *load = Load { waiting, coming_per_s: dice(coming + 1) as f64 };
                }
                let mut line = Line::new(loads.iter().copied(), fair, 2.0);
                for position in 0..loads.len() {
                    for more_s in [0.0, 0.25, 0.3, 0.99, 1.75, 2.0] {
                        let told = line.ahead(position, more_s);
                        let exact = one_by_one(&loads, fair, position, more_s);
                        let is_on_grid = coming == 0 || more_s * 4.0 % 1.0 == 0.0;
                        let slack = if is_on_grid { 1e-6 } else { 0.03 * exact.ahead };
                        let row = format!("{fair} queues, {position} after {more_s} s: {told:?}, {exact:?}");
                        assert!((told.ahead - exact.ahead).abs() <= slack, "{row}");
                        assert!(!is_on_grid || (told.turns - exact.turns).abs() < 1e-9, "{row}");
                    }
                }
                // Longer than the longest is the longest.
                assert_eq!(line.ahead(0, 9.0), line.ahead(0, 2.0));
            }
        }
    }
}
