//! One round of the owner's thread on the leases: what is asked of each unit, and what the answers mean.

use std::time::Instant;

use crate::intake::redis::keys::Keys;
use crate::intake::redis::lease::{self, Lease};
use crate::intake::redis::tenure::Tenures;
use crate::intake::redis::units::UnitId;
use crate::redis::{Command, Failure, Value, reply};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Renew,
    Release,
    Look,
}

/// Which unit each command of a round is about.
pub struct LeaseRound {
    /// Whether the first command asks for the time.
    asks_time: bool,
    asks: Vec<(UnitId, Ask)>,
}

/// How a unit that is not ours was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing is there.
    Nothing,
    Lease(Lease),
    /// It is ours, or could not be read.
    Unsaid,
    /// What is there is no lease: nobody can own the unit.
    Odd(String),
}

/// What the answers said.
#[derive(Debug, Default)]
pub struct LeaseSight {
    /// Unix ms by Redis's clock.
    pub now: u64,
    /// By number of the unit.
    pub found: Vec<Found>,
    /// Units of ours that are another's now.
    pub stale: Vec<(UnitId, String)>,
    /// A key that is gone though it was there.
    pub gone: Option<UnitId>,
    /// Why the rest is not known.
    pub failure: Option<Failure>,
}

impl LeaseRound {
    /// A whole round, with its commands.
    pub fn new(tenures: &Tenures, keys: &Keys, incarnation: &str, ttl_ms: u64) -> (LeaseRound, Vec<Command>) {
        // Of any node: it only hints at which leases have run out; the scripts decide by their own node's clock.
        let mut commands = vec![Command::routed("TIME", b"")];
        let mut asks = Vec::new();
        let (leased, releasing) = (tenures.leased(), tenures.releasing());
        for (unit, epoch) in &leased {
            asks.push((*unit, Ask::Renew));
            commands.push(lease::renew(&keys.owner(*unit), *epoch, incarnation, ttl_ms));
        }
        for (unit, epoch) in &releasing {
            asks.push((*unit, Ask::Release));
            commands.push(lease::release(&keys.owner(*unit), *epoch, incarnation));
        }
        let ours = |unit: &UnitId| leased.iter().chain(&releasing).any(|(ours, _)| ours == unit);
        for unit in keys.units().ids().filter(|unit| !ours(unit)) {
            asks.push((unit, Ask::Look));
            commands.push(Command::new("GET", keys.owner(unit)));
        }
        (LeaseRound { asks_time: true, asks }, commands)
    }

    /// Only releases, for the time between rounds.
    pub fn releases(tenures: &Tenures, keys: &Keys, incarnation: &str) -> (LeaseRound, Vec<Command>) {
        let releasing = tenures.releasing();
        let release = |(unit, epoch): &(UnitId, u64)| lease::release(&keys.owner(*unit), *epoch, incarnation);
        let commands = releasing.iter().map(release).collect();
        let asks = releasing.iter().map(|(unit, _)| (*unit, Ask::Release)).collect();
        (LeaseRound { asks_time: false, asks }, commands)
    }

    /// Takes in the answers to what was sent at `sent`. `seen`: keys that were there before, by number of the unit.
    pub fn take(
        &self,
        results: Vec<Result<Value, Failure>>,
        sent: Instant,
        tenures: &mut Tenures,
        seen: &mut [bool],
    ) -> LeaseSight {
        let mut sight = LeaseSight { found: vec![Found::Unsaid; seen.len()], ..LeaseSight::default() };
        let mut results = results.into_iter();
        if self.asks_time {
            match results.next().expect("one result a command").and_then(lease::redis_ms) {
                Ok(now) => sight.now = now,
                Err(failure) => sight.failure = Some(failure),
            }
        }
        for ((unit, ask), result) in self.asks.iter().zip(results) {
            let at = usize::from(unit.0);
            match (ask, result) {
                (Ask::Renew, Ok(_)) => {
                    tenures.renewed(*unit, sent);
                    seen[at] = true;
                }
                // Redis says it is over: it is, whoever asked.
                (Ask::Release, Ok(_)) => tenures.lose(*unit),
                (Ask::Look, Ok(value)) => match found(value) {
                    Ok(Found::Nothing) if seen[at] => sight.gone = Some(*unit),
                    Ok(found) => {
                        // What is no lease is to be deleted by somebody, and is not missed then.
                        seen[at] = matches!(found, Found::Lease(_));
                        sight.found[at] = found;
                    }
                    Err(failure) => sight.failure = Some(failure),
                },
                (_, Err(failure)) if failure.is_code(lease::GONE) => sight.gone = Some(*unit),
                (Ask::Release, Err(failure)) if failure.is_code(lease::STALE) => tenures.lose(*unit),
                (Ask::Renew, Err(failure)) if failure.is_code(lease::STALE) => {
                    tenures.lose(*unit);
                    sight.stale.push((*unit, failure.to_string()));
                }
                (_, Err(failure)) if failure.is_code("WRONGTYPE") => {
                    seen[at] = false;
                    sight.found[at] = Found::Odd(failure.to_string());
                }
                (_, Err(failure)) => sight.failure = Some(failure),
            }
        }
        sight
    }
}

fn found(value: Value) -> Result<Found, Failure> {
    Ok(match reply::text("GET", value)? {
        None => Found::Nothing,
        Some(text) => Lease::parse(&text).map_or_else(|| Found::Odd(text), Found::Lease),
    })
}
