//! What an instance says of itself: its counters and gauges, and the state of its wallet.

use std::net::SocketAddr;
use std::time::Duration;

use super::{InstanceLook, LOOK_EVERY, Post};
use crate::http::{Caller, HttpError};
use crate::target::Target;

/// One that is frozen should be seen as such soon.
const PATIENCE: Duration = Duration::from_millis(800);
const FINAL: [&str; 5] = ["SUCCEEDED", "FAILED", "CANCELED", "EXPIRED", "REVERSED"];

/// The value of a metric, summed over its labels that are wanted.
pub fn metric(text: &str, name: &str, wanted: impl Fn(&str) -> bool) -> u64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter_map(|rest| {
        let (labels, value) = rest.rsplit_once(' ')?;
        // Another metric may begin with the same name.
        let is_it = labels.is_empty() || labels.starts_with('{');
        (is_it && wanted(labels)).then(|| value.parse::<f64>().ok())?
    });
    values.sum::<f64>() as u64
}

/// A counter that may begin anew, from the first that was seen of it: what was counted before is another run's.
#[derive(Default)]
struct Counter {
    first: Option<u64>,
    before: u64,
    last: u64,
}

impl Counter {
    fn now(&mut self, value: u64) -> u64 {
        let first = *self.first.get_or_insert(value);
        if value < self.last {
            self.before += self.last;
        }
        self.last = value;
        self.before + value - first
    }
}

pub(super) fn observe(post: &Post, target: &Target, number: usize, address: SocketAddr) {
    let mut caller = Caller::new(address, target.access.authorization.clone(), PATIENCE);
    let (mut accepted, mut settled) = (Counter::default(), Counter::default());
    let mut last = InstanceLook::default();
    post.every(LOOK_EVERY, |post| {
        let told = ask(&mut caller);
        let at_s = post.epoch.elapsed().as_secs_f64();
        let look = match told {
            Ok((metrics, state)) => InstanceLook {
                at_s,
                is_up: true,
                accepted: accepted.now(metric(&metrics, "hongbao_accepted_total", |_| true)),
                settled: settled.now(metric(&metrics, "hongbao_outcomes_total", |labels| {
                    FINAL.iter().any(|status| labels.contains(status))
                })),
                backlog: metric(&metrics, "hongbao_backlog", |_| true),
                parked: metric(&metrics, "hongbao_parked", |_| true),
                wallet_state: state,
            },
            // What it had last is still open there.
            Err(_) => InstanceLook { at_s, is_up: false, ..last.clone() },
        };
        last = look.clone();
        post.lock().instances[number].push(look);
    });
}

fn ask(caller: &mut Caller) -> Result<(String, String), HttpError> {
    let metrics = caller.call("GET", "/metrics", b"")?;
    let ready = caller.call("GET", "/readyz", b"")?;
    let ready: serde_json::Value = serde_json::from_slice(&ready.body).unwrap_or_default();
    let state = ready["wallet_state"].as_str().unwrap_or("").to_owned();
    Ok((String::from_utf8_lossy(&metrics.body).into_owned(), state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_by_name_and_label() {
        let text = "# HELP x\nhongbao_parked{reason=\"a\"} 3\nhongbao_parked{reason=\"b\"} 4\nhongbao_parked_oldest_seconds{reason=\"a\"} 99\nhongbao_backlog 12\n";
        assert_eq!(metric(text, "hongbao_parked", |_| true), 7);
        assert_eq!(metric(text, "hongbao_parked", |labels| labels.contains("\"b\"")), 4);
        assert_eq!(metric(text, "hongbao_backlog", |_| true), 12);
        assert_eq!(metric(text, "nothing", |_| true), 0);
    }

    #[test]
    fn a_counter_counts_from_the_first_look_and_goes_on_where_it_begins_anew() {
        let mut counter = Counter::default();
        assert_eq!([5, 9, 2, 4].map(|value| counter.now(value)), [0, 4, 6, 8]);
    }
}
