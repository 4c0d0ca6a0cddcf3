//! What is due when: the schedules of a lane, and the calls that wait to be sent again.

use std::cmp::Ordering as Order;

use crate::arrivals::{Arrivals, Schedule, Stream};
use crate::dice::Dice;
use crate::generator::{Pace, Plan};
use crate::scenario::Spacing;
use crate::traffic::Call;

/// A call that is sent again at a time.
pub(super) struct Later {
    pub at_us: u64,
    pub call: Call,
}

impl PartialEq for Later {
    fn eq(&self, other: &Later) -> bool {
        self.at_us == other.at_us
    }
}
impl Eq for Later {}
impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Later) -> Option<Order> {
        Some(self.cmp(other))
    }
}
impl Ord for Later {
    /// The earliest is the greatest, so that the heap gives it first.
    fn cmp(&self, other: &Later) -> Order {
        other.at_us.cmp(&self.at_us)
    }
}

/// The due times of this thread's singles and batches.
pub(super) fn schedules<'a>(
    plan: &'a Plan,
    thread: u32,
    nothing: &'a Arrivals,
) -> (Schedule<'a>, Schedule<'a>) {
    let Pace::Arrivals { arrivals, spacing, seed } = &plan.pace else {
        return (Schedule::none(nothing), Schedule::none(nothing));
    };
    let threads = plan.settings.threads;
    let (part, parts) = (plan.part * threads + thread, plan.parts * threads);
    let chance = |stream: u64| {
        let own = seed ^ u64::from(plan.lane_first + part) << 8 ^ stream;
        (*spacing == Spacing::Poisson).then(|| Dice::new(own))
    };
    let stream = |share: f64, size: f64, number: u64| {
        if share <= 0.0 {
            return Schedule::none(arrivals);
        }
        let stream = Stream { requests_per_call: size / share, part, parts };
        Schedule::new(arrivals, stream, chance(number))
    };
    let share = plan.load.batch_share;
    (stream(1.0 - share, 1.0, 1), stream(share, f64::from(plan.load.batch_size), 2))
}
