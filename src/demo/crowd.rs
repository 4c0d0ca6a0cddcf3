//! The burst: many connections that send the script's calls when they are due.
//!
//! The calls are taken in order by whichever connection is free, so a call that is due while all of them wait
//! is sent late; its latency is measured from when it was due all the same (no coordinated omission). Absent:
//! what comes before (campaigns) and after (collections, reversals).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

use super::client::{Connection, Halt};
use super::reading::{self, Fate};
use super::script::{Call, Item, Script};
use super::tally::{Entry, Expect, Tally};

pub const CONNECTIONS: usize = 48;
/// How often a call that waits for the opening looks again.
const OPENING_LOOK: Duration = Duration::from_millis(2);
/// A batch with items refused for now is sent again after this.
const PART_RETRY: Duration = Duration::from_millis(200);

pub struct Crowd {
    pub script: Arc<Script>,
    pub tally: Arc<Tally>,
    /// The door for what is asked one by one.
    pub address: SocketAddr,
    /// The connections of the burst are spread over these.
    doors: Vec<SocketAddr>,
    pub halt: Halt,
    next: AtomicUsize,
    opening_left: AtomicUsize,
}

/// What each kind of request must come to.
fn expect(item: Item) -> Expect {
    match item {
        Item::Packet(_) => Expect::Acknowledged,
        Item::Repeat(_) => Expect::Recognised,
        Item::Conflict(_) => Expect::Refused("id_conflict"),
        Item::Invalid(_) => Expect::Refused("invalid_field"),
        Item::Claim(_) => Expect::AcknowledgedOr("budget_exhausted"),
    }
}

impl Crowd {
    pub fn new(script: Arc<Script>, tally: Arc<Tally>, address: SocketAddr, halt: Halt) -> Crowd {
        let opening_left = AtomicUsize::new(script.opening_calls);
        let doors = vec![address];
        Crowd { script, tally, address, doors, halt, next: AtomicUsize::new(0), opening_left }
    }

    /// The same at more doors than one.
    pub fn at(self, doors: Vec<SocketAddr>) -> Crowd {
        Crowd { doors, ..self }
    }

    /// Sends the whole script, and answers how long that took; ends early when halted.
    pub async fn burst(self: Arc<Crowd>) -> anyhow::Result<Duration> {
        // Connections are made before the clock starts: a campaign's backends have theirs.
        let began = Instant::now() + Duration::from_millis(50);
        let mut connections = JoinSet::new();
        for door in self.doors.iter().cycle().take(CONNECTIONS) {
            connections.spawn(self.clone().carry(*door, began));
        }
        while let Some(ended) = connections.join_next().await {
            ended.context("a connection of the crowd")??;
        }
        Ok(began.elapsed())
    }

    /// One connection's share.
    async fn carry(self: Arc<Crowd>, door: SocketAddr, began: Instant) -> anyhow::Result<()> {
        let mut connection = Connection::new(door, self.halt.clone());
        while !self.halt.is_set() {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(call) = self.script.calls.get(index) else { break };
            let due = began + call.due;
            tokio::time::sleep_until(due.into()).await;
            while self.script.waits_for_opening(call) && self.opening_left.load(Ordering::Acquire) > 0 {
                if self.halt.is_set() {
                    return Ok(());
                }
                tokio::time::sleep(OPENING_LOOK).await;
            }
            let sent = self.send(&mut connection, call, due).await;
            if index < self.script.opening_calls {
                self.opening_left.fetch_sub(1, Ordering::AcqRel);
            }
            sent?;
        }
        Ok(())
    }

    /// Sends one call until every request in it has its answer.
    async fn send(&self, connection: &mut Connection, call: &Call, due: Instant) -> anyhow::Result<()> {
        let count = call.items().count();
        let mut again = false;
        loop {
            let (path, body) = self.script.write_call(call);
            let settled = match connection.post(path, body).await {
                Ok(settled) => settled,
                Err(error) => {
                    self.tally.note_given_up(count as u64, &format!("{error:#}"));
                    return Ok(());
                }
            };
            let answer = settled.answer;
            again |= settled.attempts > 1;
            let mut completion_at = None;
            let fates = match call.batch {
                None => {
                    completion_at = reading::completion_at(&answer.body);
                    reading::single(answer.status, &answer.body).map(|fate| vec![fate])
                }
                Some(_) => match reading::batch(answer.status, &answer.body, count) {
                    Ok(read) if read.send_again && !self.halt.is_set() => {
                        again = true;
                        tokio::time::sleep(PART_RETRY).await;
                        continue;
                    }
                    Ok(read) => {
                        self.check_recognised(call, read.recognised, again);
                        completion_at = read.completion_at;
                        Ok(read.fates)
                    }
                    Err(error) => Err(error),
                },
            };
            match fates {
                Ok(fates) => {
                    self.enter(call, fates, due.elapsed(), again)?;
                    // An answer to a repeat tells of nothing new.
                    if let (Some(at), Some(last), false) = (completion_at, call.packets.clone().last(), again)
                    {
                        self.tally.note_estimate(last, at);
                    }
                }
                Err(error) => self.tally.note_given_up(count as u64, &format!("{path}: {error:#}")),
            }
            return Ok(());
        }
    }

    /// In a batch sent once, exactly the planned repeats are recognised.
    fn check_recognised(&self, call: &Call, recognised: u64, again: bool) {
        let planned = call.odd.iter().filter(|item| matches!(item, Item::Repeat(_))).count() as u64;
        if !again && recognised != planned {
            let what = format!("a batch with {planned} repeats, of which {recognised} were recognised");
            self.tally.note_surprise(what);
        }
    }

    fn enter(&self, call: &Call, fates: Vec<Fate>, took: Duration, again: bool) -> anyhow::Result<()> {
        if again {
            self.tally.note_retried();
        }
        if fates.iter().any(|fate| !matches!(fate, Fate::Refused(_))) {
            self.tally.note_latency(took.as_micros() as u64);
        }
        let requests: Vec<_> = call.items().map(|item| (item, self.script.request(item))).collect();
        let entries = requests.iter().zip(fates).map(|((item, request), fate)| Entry {
            id: &request.id,
            amount: request.amount,
            expect: expect(*item),
            fate,
        });
        self.tally.enter(entries)
    }
}
