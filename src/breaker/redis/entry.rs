//! What the board stores of an instance: numbers between bars, which Lua takes apart fastest. The first is the format.

use super::super::board::{Member, Said, Workload};
use super::super::classify::Counts;
use super::super::policy::NEVER_MS;
use super::FORMAT;
use crate::shaping::{Amount, Lease};

const FIELDS: usize = 22;

/// The part that an instance says of itself.
pub fn said(said: &Said) -> String {
    let counts = &said.counts;
    let numbers = [
        said.epoch,
        said.demand.rate_per_s,
        said.demand.calls,
        counts.healthy,
        counts.overload,
        counts.timeout,
        counts.unknown,
        u64::from(said.is_for_stopping),
        said.probes_ok,
        said.probes_bad,
        said.spent_per_s,
    ];
    joined(&numbers)
}

/// The whole, as the script writes it.
pub fn entry(member: &Member) -> String {
    let lease = &member.lease;
    let numbers = [
        u64::from(FORMAT),
        member.sequence,
        member.seen_ms,
        lease.until_ms,
        lease.kept_until_ms,
        lease.granted.rate_per_s,
        lease.granted.calls,
        lease.kept.rate_per_s,
        lease.kept.calls,
        member.permit_until_ms,
        member.permit_epoch,
    ];
    format!("{}|{}", joined(&numbers), said(&member.said))
}

fn joined(numbers: &[u64]) -> String {
    // Lua counts exactly so far.
    let texts: Vec<String> = numbers.iter().map(|number| (*number).min(NEVER_MS).to_string()).collect();
    texts.join("|")
}

/// The reverse of [`entry`]; nothing where it is none of this format, or has a number that was never written.
pub fn parse(text: &str) -> Option<Member> {
    let numbers: Result<Vec<u64>, _> = text.split('|').map(str::parse).collect();
    let numbers: [u64; FIELDS] = numbers.ok()?.try_into().ok()?;
    if numbers.iter().any(|number| *number > NEVER_MS) {
        return None;
    }
    let [format, sequence, seen_ms, until_ms, kept_until_ms, rest @ ..] = numbers;
    let [rate, calls, kept_rate, kept_calls, permit_until_ms, permit_epoch, said @ ..] = rest;
    let [epoch, demand_rate, demand_calls, healthy, overload, timeout, unknown, stopping, ok, bad, spent] =
        said;
    let amount = |rate_per_s, calls| Amount { rate_per_s, calls };
    (format == u64::from(FORMAT)).then_some(Member {
        sequence,
        seen_ms,
        lease: Lease {
            granted: amount(rate, calls),
            kept: amount(kept_rate, kept_calls),
            until_ms,
            kept_until_ms,
        },
        permit_until_ms,
        permit_epoch,
        said: Said {
            epoch,
            demand: amount(demand_rate, demand_calls),
            counts: Counts { healthy, overload, timeout, unknown },
            is_for_stopping: stopping == 1,
            probes_ok: ok,
            probes_bad: bad,
            spent_per_s: spent,
            work: None,
        },
    })
}

/// What it has to do stands in a field of its own: releases of before pass over it.
pub fn workload(work: Workload) -> String {
    joined(&[work.waiting, work.done_per_s])
}

/// The reverse; nothing where it says nothing that could be known.
pub fn parse_workload(text: &str) -> Option<Workload> {
    let (waiting, done_per_s) = text.split_once('|')?;
    let number = |text: &str| text.parse().ok().filter(|number| *number <= NEVER_MS);
    Some(Workload { waiting: number(waiting)?, done_per_s: number(done_per_s)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let numbers: Vec<u64> = (1..=FIELDS as u64).collect();
        let text = joined(&numbers).replace("|19|", "|1|");
        let member = parse(&text).expect("of this format");
        assert_eq!(entry(&member), text);
        assert_eq!((member.sequence, member.said.spent_per_s), (2, 22));
        assert_eq!(parse(&text.replacen('1', "2", 1)), None, "another format");
        assert_eq!(parse("1|2"), None);
        let work = Workload { waiting: 7, done_per_s: NEVER_MS };
        assert_eq!(parse_workload(&workload(work)), Some(work));
        for text in ["", "7", "7|", "7|8|9", "-7|8", "7|18446744073709551615"] {
            assert_eq!(parse_workload(text), None, "{text}");
        }
    }
}
