//! Counts at odd times to rates over even steps, and states to spans.

use crate::generator::{BIN_MS, Bin};
use crate::observe::{InstanceLook, Observed};
use crate::result::{Series, StateSpan};

/// Points of a series at the most.
const POINTS_MAX: f64 = 400.0;
const STEPS_S: [f64; 8] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0];

/// The finest step that keeps the series readable.
pub fn step_s(length_s: f64) -> f64 {
    STEPS_S.into_iter().find(|step| length_s / step <= POINTS_MAX).unwrap_or(STEPS_S[STEPS_S.len() - 1])
}

/// The series of one run up to `end_s`.
pub fn of(bins: &[Bin], observed: &Observed, end_s: f64) -> Series {
    let step_s = step_s(end_s);
    let count = (end_s / step_s).ceil().max(1.0) as usize;
    let rates = |of: fn(&Bin) -> u32| {
        let mut sums = vec![0.0; count];
        for (index, bin) in bins.iter().enumerate() {
            let at = (index as u64 * BIN_MS) as f64 / 1e3;
            let step = ((at / step_s + 1e-9) as usize).min(count - 1);
            sums[step] += f64::from(of(bin)) / step_s;
        }
        sums
    };
    let mut wallet = vec![0.0; if observed.wallet.is_empty() { 0 } else { count }];
    for bin in observed.wallet.iter().filter(|bin| bin.at_s >= 0.0) {
        if let Some(sum) = wallet.get_mut((bin.at_s / step_s) as usize) {
            *sum += bin.transfers as f64 / step_s;
        }
    }
    let mut settled = vec![0.0; count];
    let mut backlog = vec![0.0; count];
    for looks in &observed.instances {
        let at: Vec<(f64, f64)> = looks.iter().map(|look| (look.at_s, look.settled as f64)).collect();
        let open: Vec<(f64, f64)> =
            looks.iter().map(|look| (look.at_s, (look.backlog + look.parked) as f64)).collect();
        for step in 0..count {
            let (from, to) = (step as f64 * step_s, (step + 1) as f64 * step_s);
            settled[step] += (interpolated(&at, to) - interpolated(&at, from)).max(0.0) / step_s;
            backlog[step] += interpolated(&open, to);
        }
    }
    Series {
        step_s,
        offered: rates(|bin| bin.offered),
        accepted: rates(|bin| bin.accepted),
        refused: rates(|bin| bin.refused),
        retried: rates(|bin| bin.retried),
        settled,
        wallet,
        backlog,
    }
}

/// The value at a time, on the straight line between the looks around it.
fn interpolated(looks: &[(f64, f64)], at: f64) -> f64 {
    let next = looks.partition_point(|(time, _)| *time < at);
    match (next.checked_sub(1).map(|before| looks[before]), looks.get(next).copied()) {
        (Some((t0, v0)), Some((t1, v1))) => v0 + (v1 - v0) * (at - t0) / (t1 - t0).max(1e-9),
        (Some((_, value)), None) | (None, Some((_, value))) => value,
        (None, None) => 0.0,
    }
}

/// When an instance did not answer, and when its wallet was anything but open.
pub fn states(observed: &Observed) -> Vec<StateSpan> {
    let mut spans = Vec::new();
    for (number, looks) in observed.instances.iter().enumerate() {
        let mut up = |look: &InstanceLook| if look.is_up { "" } else { "does not answer" }.to_owned();
        spans.extend(runs(&format!("instance-{number}"), looks, &mut up));
        let mut wallet = |look: &InstanceLook| {
            if look.wallet_state == "open" || !look.is_up { String::new() } else { look.wallet_state.clone() }
        };
        spans.extend(runs(&format!("breaker of instance-{number}"), looks, &mut wallet));
    }
    spans
}

/// What a state is, without its reason: `held back` of `held back: no answer`.
fn kind(state: &str) -> &str {
    state.split(':').next().unwrap_or(state)
}

/// Runs of looks of one kind of state, if it is not empty; told with the first reason.
fn runs(on: &str, looks: &[InstanceLook], state: &mut dyn FnMut(&InstanceLook) -> String) -> Vec<StateSpan> {
    let mut spans: Vec<StateSpan> = Vec::new();
    let mut current: Option<StateSpan> = None;
    for look in looks {
        let state = state(look);
        match &mut current {
            Some(span) if kind(&span.state) == kind(&state) => span.to_s = look.at_s,
            _ => {
                if let Some(mut span) = current.take() {
                    span.to_s = look.at_s;
                    spans.push(span);
                }
                if !state.is_empty() {
                    // What follows the reason serves those who search logs.
                    let state = state.split(" (trace").next().unwrap_or("").to_owned();
                    current =
                        Some(StateSpan { on: on.to_owned(), from_s: look.at_s, to_s: look.at_s, state });
                }
            }
        }
    }
    spans.extend(current);
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::WalletBin;

    #[test]
    fn counts_become_rates() {
        let bins: Vec<Bin> = (0..20).map(|n| Bin { offered: 10, accepted: n, ..Bin::default() }).collect();
        let look = |at_s: f64, settled, backlog| InstanceLook {
            at_s,
            settled,
            backlog,
            is_up: true,
            wallet_state: "open".to_owned(),
            ..InstanceLook::default()
        };
        let observed = Observed {
            instances: vec![vec![look(0.0, 0, 0), look(1.0, 100, 50), look(2.0, 300, 0)]],
            wallet: vec![WalletBin { at_s: 0.4, transfers: 30, ..WalletBin::default() }],
            ..Observed::default()
        };
        let series = of(&bins, &observed, 2.0);
        assert_eq!(series.step_s, 0.5);
        assert_eq!(series.offered, [100.0; 4]);
        assert_eq!(series.accepted, [20.0, 70.0, 120.0, 170.0]);
        assert_eq!(series.settled, [100.0, 100.0, 200.0, 200.0]);
        assert_eq!(series.backlog, [25.0, 50.0, 25.0, 0.0]);
        assert_eq!(series.wallet, [60.0, 0.0, 0.0, 0.0]);
        assert_eq!(step_s(3_600.0), 10.0);
    }

    #[test]
    fn states_become_spans() {
        let look = |at_s: f64, is_up, wallet_state: &str| InstanceLook {
            at_s,
            is_up,
            wallet_state: wallet_state.to_owned(),
            ..InstanceLook::default()
        };
        let looks = vec![
            look(0.0, true, "open"),
            look(1.0, true, "held back: slow"),
            look(2.0, true, "held back: 503 (trace 77)"),
            look(3.0, true, "open"),
            look(4.0, false, "open"),
        ];
        let spans = states(&Observed { instances: vec![looks], ..Observed::default() });
        let told: Vec<(&str, f64, f64)> =
            spans.iter().map(|s| (s.state.as_str(), s.from_s, s.to_s)).collect();
        assert_eq!(told, [("does not answer", 4.0, 4.0), ("held back: slow", 1.0, 3.0)]);
    }
}
