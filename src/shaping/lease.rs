//! The fleet's budget, shared out in short leases.
//!
//! What holds, whatever order messages come in and whoever freezes, joins, leaves or dies: what the holders may use
//! together, by their own clocks, never exceeds the budget (a budget that is lowered holds one lease later). Three
//! rules see to it. The board grants no more than the others leave ([`grant`]). A holder counts its lease from when
//! it *sent* the beat, and from that moment on uses no more than it asked for ([`Holder`]), so the board always
//! believes it to have at least what it has. And what a holder goes on using when it has lost the board is agreed
//! while it still has it (`kept`), and counted against the budget until it is believed dead; by then it uses nothing.
//!
//! Who should have how much is computed by everybody from the same claims ([`fair_share`]); the board only keeps
//! the sum. Absent: clocks, the board itself, and what is done with a share.

/// What is shared out: transfers a second, and calls under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub rate_per_s: u64,
    pub calls: u64,
}

impl Amount {
    pub const ALL: Amount = Amount { rate_per_s: u64::MAX, calls: u64::MAX };

    pub fn min(self, other: Amount) -> Amount {
        self.with(other, u64::min)
    }

    pub fn max(self, other: Amount) -> Amount {
        self.with(other, u64::max)
    }

    pub fn plus(self, other: Amount) -> Amount {
        self.with(other, u64::saturating_add)
    }

    pub fn minus(self, other: Amount) -> Amount {
        self.with(other, u64::saturating_sub)
    }

    /// A holder's part where nobody can be asked: at least one of each it had.
    fn divided(self, fleet: u64) -> Amount {
        let part = |whole: u64| (whole / fleet.max(1)).max(1).min(whole);
        Amount { rate_per_s: part(self.rate_per_s), calls: part(self.calls) }
    }

    fn with(self, other: Amount, of: impl Fn(u64, u64) -> u64) -> Amount {
        Amount { rate_per_s: of(self.rate_per_s, other.rate_per_s), calls: of(self.calls, other.calls) }
    }
}

/// What the board knows of one holder's lease. Times are the board's, ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    pub granted: Amount,
    /// What it goes on using when the lease is over and the board is out of reach.
    pub kept: Amount,
    pub until_ms: u64,
    /// Until when it is believed to be alive though it does not say so.
    pub kept_until_ms: u64,
}

impl Lease {
    /// What its holder may be using.
    fn used(&self, now_ms: u64) -> Amount {
        if now_ms < self.until_ms { self.granted } else { self.promised(now_ms) }
    }

    /// What its holder may be using without asking again, now or later.
    fn promised(&self, now_ms: u64) -> Amount {
        if now_ms < self.until_ms {
            self.granted.max(self.kept)
        } else if now_ms < self.kept_until_ms {
            self.kept
        } else {
            Amount::default()
        }
    }
}

/// What one holder gets: of what it wants and would keep, as much as the others leave. `cap` is what may be used
/// now, at most the `budget`.
pub fn grant<'a>(
    want: Amount,
    keep: Amount,
    cap: Amount,
    budget: Amount,
    others: impl Iterator<Item = &'a Lease>,
    now_ms: u64,
) -> (Amount, Amount) {
    let nothing = (Amount::default(), Amount::default());
    let (used, promised) = others.fold(nothing, |(used, promised), lease| {
        (used.plus(lease.used(now_ms)), promised.plus(lease.promised(now_ms)))
    });
    let room = budget.minus(promised);
    (want.min(room).min(cap.minus(used)), keep.min(room))
}

/// One who shares: what it could use, and how much it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub demand: u64,
    /// From one to 2^53.
    pub weight: u64,
}

/// The weighted max-min fair share of the one at `own`: nobody gets more than its demand, and nobody's share for its weight can
/// grow but at the cost of one that has no more (Bertsekas & Gallager, "Data Networks", 6.5.2; weights as in Demers, Keshav &
/// Shenker 1989, "Analysis and simulation of a fair queueing algorithm"). What does not divide goes round with `turn`, so that a
/// budget smaller than the fleet reaches everybody.
pub fn fair_share(claims: &[Claim], own: usize, budget: u64, turn: u64) -> u64 {
    let wide = |number: u64| u128::from(number);
    let mut sorted: Vec<&Claim> = claims.iter().collect();
    sorted.sort_unstable_by(|a, b| (wide(a.demand) * wide(b.weight)).cmp(&(wide(b.demand) * wide(a.weight))));
    let mut weights: u128 = claims.iter().map(|claim| wide(claim.weight)).sum();
    let mut left = wide(budget);
    // Those whose demand is no more than the share that they could have; of the others each is short of it.
    let is_served = |claim: &Claim, left: u128, weights: u128| {
        wide(claim.demand).checked_mul(weights).is_some_and(|needs| needs <= left * wide(claim.weight))
    };
    let served = sorted.iter().take_while(|claim| {
        let is_served = is_served(claim, left, weights);
        if is_served {
            (left, weights) = (left - wide(claim.demand), weights - wide(claim.weight));
        }
        is_served
    });
    let Some(short) = sorted.get(served.count()) else { return claims[own].demand };
    let is_short =
        |claim: &Claim| wide(claim.demand) * wide(short.weight) >= wide(short.demand) * wide(claim.weight);
    if !is_short(&claims[own]) {
        return claims[own].demand;
    }
    // By sums and not one by one, so that nothing is left over; the first in line gets what does not divide.
    let count = claims.len();
    let first = (turn % count as u64) as usize;
    let before = (0..count).map(|step| (first + step) % count).take_while(|at| *at != own);
    let before: u128 =
        before.map(|at| &claims[at]).filter(|claim| is_short(claim)).map(|claim| wide(claim.weight)).sum();
    let up_to = |sum: u128| (left * sum).div_ceil(weights);
    (up_to(before + wide(claims[own].weight)) - up_to(before)) as u64
}

/// What is asked of the board. `keep` is what will be used if the board is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub sequence: u64,
    pub want: Amount,
    pub keep: Amount,
}

/// One instance's side of its lease. Times are its own monotonic clock's, ns.
#[derive(Clone, Debug, Default)]
pub struct Holder {
    held: Amount,
    until_ns: u64,
    kept: Amount,
    kept_until_ns: u64,
    /// The last share that was more than nothing.
    share: Amount,
    fleet: u64,
    sequence: u64,
    asked: Option<(Ask, u64)>,
}

impl Holder {
    /// Asks anew. From here on no more is used than is asked for.
    pub fn ask(&mut self, now_ns: u64, want: Amount) -> Ask {
        self.sequence += 1;
        let keep = self.share.divided(self.fleet);
        self.held = self.held.min(want);
        self.kept = self.kept.min(keep);
        let ask = Ask { sequence: self.sequence, want, keep };
        self.asked = Some((ask, now_ns));
        ask
    }

    /// The board's answer. One to an earlier question is void: what it grants may be somebody else's by now. The lease
    /// runs for `lease_ms`, and what is kept past it for `reserve_ms` more.
    pub fn granted(
        &mut self,
        sequence: u64,
        (got, kept): (Amount, Amount),
        (lease_ms, reserve_ms): (u64, u64),
        fleet: u64,
    ) -> bool {
        let Some((_, sent_at_ns)) = self.asked.take_if(|(ask, _)| ask.sequence == sequence) else {
            return false;
        };
        (self.held, self.until_ns) = (got, sent_at_ns + lease_ms * 1_000_000);
        (self.kept, self.kept_until_ns) = (kept, self.until_ns + reserve_ms * 1_000_000);
        self.fleet = fleet;
        if got.rate_per_s > 0 {
            self.share = got;
        }
        true
    }

    /// Whether the lease is over and nothing was heard since.
    pub fn is_cut_off(&self, now_ns: u64) -> bool {
        now_ns >= self.until_ns
    }

    /// Whether it was ever answered.
    pub fn is_known(&self) -> bool {
        self.until_ns > 0
    }

    /// What may be used now.
    pub fn amount(&self, now_ns: u64) -> Amount {
        if !self.is_cut_off(now_ns) {
            self.held
        } else if now_ns < self.kept_until_ns {
            self.kept
        } else {
            Amount::default()
        }
    }

    /// The share undivided, as one would use it who does not know that others do the same: for the simulation,
    /// which must notice.
    #[cfg(test)]
    pub fn share_undivided(&self) -> Amount {
        self.share
    }

    pub fn fleet(&self) -> u64 {
        self.fleet
    }

    /// Since when the question has been open, if one is.
    pub fn asked_at_ns(&self) -> Option<u64> {
        self.asked.map(|(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(demands: &[u64]) -> Vec<Claim> {
        demands.iter().map(|demand| Claim { demand: *demand, weight: 1 }).collect()
    }

    fn both(number: u64) -> Amount {
        Amount { rate_per_s: number, calls: number }
    }

    #[test]
    fn shares_are_max_min_fair_and_add_up() {
        let table: [(&[u64], u64, &[u64]); 7] = [
            (&[10, 10], 100, &[10, 10]),
            (&[100, 100], 100, &[50, 50]),
            (&[10, 100, 100], 100, &[10, 45, 45]),
            (&[0, u64::MAX, 20], 100, &[0, 80, 20]),
            (&[5, 5, 5], 1, &[1, 0, 0]),
            (&[5, 5, 5], 0, &[0, 0, 0]),
            (&[7], 100, &[7]),
        ];
        for (demands, budget, expected) in table {
            let claims = even(demands);
            let shares: Vec<u64> =
                (0..demands.len()).map(|own| fair_share(&claims, own, budget, 0)).collect();
            assert_eq!(shares, expected, "{demands:?} of {budget}");
        }
        for turn in 0..7 {
            let claims = even(&[9, 3, u64::MAX, 40, 40]);
            let total: u64 = (0..5).map(|own| fair_share(&claims, own, 77, turn)).sum();
            assert_eq!(total, 77, "turn {turn}");
        }
    }

    #[test]
    fn who_counts_more_has_more_of_what_is_short() {
        type Row = (&'static [(u64, u64)], u64, &'static [u64]);
        // demand and weight; the budget; the shares
        let table: [Row; 6] = [
            (&[(100, 1), (100, 3)], 100, &[25, 75]),
            (&[(100, 1), (60, 3)], 100, &[40, 60]),
            (&[(10, 1), (100, 3), (100, 6)], 100, &[10, 30, 60]),
            (&[(100, 4), (100, 5), (100, 5)], 10, &[3, 4, 3]),
            (&[(u64::MAX, 1 << 53), (u64::MAX, 1 << 53)], u64::MAX, &[u64::MAX / 2 + 1, u64::MAX / 2]),
            (&[(u64::MAX, 1), (5, 1 << 53)], 100, &[95, 5]),
        ];
        for (claims, budget, expected) in table {
            let claims: Vec<Claim> =
                claims.iter().map(|(demand, weight)| Claim { demand: *demand, weight: *weight }).collect();
            let of = |turn| -> Vec<u64> {
                (0..claims.len()).map(|own| fair_share(&claims, own, budget, turn)).collect()
            };
            assert_eq!(of(0), expected, "{claims:?} of {budget}");
            for turn in 0..9 {
                let shares = of(turn);
                assert!(shares.iter().zip(&claims).all(|(share, claim)| *share <= claim.demand));
                assert_eq!(shares.iter().sum::<u64>(), budget, "{claims:?}, turn {turn}");
            }
        }
    }

    #[test]
    fn a_budget_smaller_than_the_fleet_goes_round() {
        let mut reached = [0; 5];
        for turn in 0..5 {
            (0..5).for_each(|own| reached[own] += fair_share(&even(&[100; 5]), own, 2, turn));
        }
        assert_eq!(reached, [2; 5]);
    }

    #[test]
    fn no_more_is_granted_than_the_others_leave() {
        let lease = |granted, kept, until_ms| Lease {
            granted: both(granted),
            kept: both(kept),
            until_ms,
            kept_until_ms: until_ms + 1_000,
        };
        let of = |others: &[Lease], now| {
            grant(both(90), both(40), both(100), both(100), others.iter(), now).0.rate_per_s
        };
        assert_eq!(of(&[], 10), 90);
        assert_eq!(of(&[lease(70, 10, 20)], 10), 30);
        assert_eq!(of(&[lease(0, 30, 20)], 10), 70, "what it may fall back to is promised");
        assert_eq!(of(&[lease(70, 20, 20)], 30), 80, "over, and kept");
        assert_eq!(of(&[lease(70, 20, 20)], 1_030), 90, "believed dead");
        let (capped, kept) = grant(both(90), both(40), both(10), both(100), [].iter(), 0);
        assert_eq!((capped.calls, kept.calls), (10, 40));
    }

    #[test]
    fn a_lease_runs_from_the_sending_and_is_lowered_by_the_question() {
        let ms = 1_000_000;
        let mut holder = Holder::default();
        let first = holder.ask(10 * ms, both(80));
        assert_eq!(holder.amount(10 * ms), both(0));
        assert!(holder.granted(first.sequence, (both(60), both(0)), (250, 1_000), 3));
        assert_eq!(holder.amount(259 * ms), both(60));
        let second = holder.ask(100 * ms, both(20));
        assert_eq!(second.keep, both(20), "a third of what it has");
        assert_eq!(holder.amount(100 * ms), both(20), "already");
        let third = holder.ask(150 * ms, both(50));
        assert!(!holder.granted(second.sequence, (both(20), both(20)), (250, 1_000), 3), "late");
        assert!(holder.granted(third.sequence, (both(50), both(16)), (250, 1_000), 3));
        assert_eq!(holder.amount(399 * ms), both(50));
        assert_eq!(holder.amount(400 * ms), both(16), "cut off");
        assert_eq!(holder.amount(1_399 * ms), both(16));
        assert_eq!(holder.amount(1_400 * ms), both(0), "and believed dead");
    }
}
