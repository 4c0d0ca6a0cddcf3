//! Payout requests of 200 bytes as JSON, ready to be sent to Redis, and a thread that sends them.
//!
//! The bytes are made before the clock runs; while it does, only the ids are written over, so that no id comes
//! twice in a run. The producer keeps a bounded lead over whoever drains: what it measures is a rate at which
//! requests go in *and* out, and nothing piles up.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Random;
use super::resp::{Wire, open, word};

pub const ELEMENT_BYTES: usize = 200;
pub const BATCH: usize = 1_000;
/// Connections of the producer, and batches under way on each: tried from 1 × 1 to 8 × 4, the best for both ways to
/// sync. Fewer leave Redis waiting (with `always`, one sync for less), more have this one thread wait in turn.
pub const CONNECTIONS: usize = 2;
pub const DEPTH: usize = 4;
/// Made ahead, and used again with other ids.
const POOL: usize = 8;
/// Requests that were pushed and not yet drained, at most.
const LEAD_MAX: u64 = 200_000;
const PAUSE: Duration = Duration::from_micros(100);
const ID_DIGITS: usize = 16;

/// How a batch goes in.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// One RPUSH with all.
    List(&'a str),
    /// An XADD each, with one field.
    Stream(&'a str),
}

impl Form<'_> {
    /// Replies that a batch gets.
    fn replies(self) -> usize {
        match self {
            Form::List(_) => 1,
            Form::Stream(_) => BATCH,
        }
    }
}

/// One request. `party` and `amount` vary, its length does not.
pub fn element(id: &str, dice: &mut Random) -> String {
    let (payee, amount) = (dice.next() % super::ACCOUNTS, 100 + dice.next() % 900);
    let mut text = format!(
        r#"{{"id":"{id:0>ID_DIGITS$}","campaign":"spring","payee":"payee-{payee:06}","amount":{amount},"currency":"CNY","remark":""#
    );
    let greeting =
        "a red packet for the new year, with luck and health to all of the house; ".bytes().cycle();
    let room = ELEMENT_BYTES - text.len() - 2;
    text.extend(greeting.take(room).map(char::from));
    text.push_str("\"}");
    text
}

struct Batch {
    bytes: Vec<u8>,
    ids_at: Vec<usize>,
}

/// Batches without end.
pub struct Payouts {
    pool: Vec<Batch>,
    next: usize,
    ids: Random,
}

impl Payouts {
    /// Other ids for another seed.
    pub fn new(form: Form<'_>, seed: u64) -> Payouts {
        let mut dice = Random(seed);
        let pool = (0..POOL).map(|_| batch(form, &mut dice)).collect();
        Payouts { pool, next: 0, ids: Random(seed.wrapping_mul(0x0100_0000_01b3)) }
    }

    pub fn next(&mut self) -> &[u8] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.next = (self.next + 1) % POOL;
        let batch = &mut self.pool[self.next];
        for at in &batch.ids_at {
            // A bijection of a counter: no number comes twice.
            let mut bits = self.ids.next();
            for digit in &mut batch.bytes[*at..*at + ID_DIGITS] {
                *digit = DIGITS[(bits & 15) as usize];
                bits >>= 4;
            }
        }
        &batch.bytes
    }
}

fn batch(form: Form<'_>, dice: &mut Random) -> Batch {
    let (mut bytes, mut ids_at) = (Vec::new(), Vec::new());
    if let Form::List(key) = form {
        open(&mut bytes, 2 + BATCH);
        word(&mut bytes, b"RPUSH");
        word(&mut bytes, key.as_bytes());
    }
    for _ in 0..BATCH {
        if let Form::Stream(key) = form {
            open(&mut bytes, 5);
            ["XADD", key, "*", "d"].iter().for_each(|text| word(&mut bytes, text.as_bytes()));
        }
        let element = element("", dice);
        let id_at = element.find(&"0".repeat(ID_DIGITS)).expect("the id is all zeros");
        word(&mut bytes, element.as_bytes());
        ids_at.push(bytes.len() - 2 - element.len() + id_at);
    }
    Batch { bytes, ids_at }
}

/// What the producer and whoever drains tell each other.
#[derive(Debug, Default)]
pub struct Flow {
    pub pushed: AtomicU64,
    pub drained: AtomicU64,
    pub stop: AtomicBool,
}

impl Flow {
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Reads what a batch is answered.
    fn pushed(&self, wire: &mut Wire, form: Form<'_>) {
        (0..form.replies()).for_each(|_| wire.skip());
        self.pushed.fetch_add(BATCH as u64, Ordering::Relaxed);
    }

    /// Requests that wait to be drained. What was drained before its reply was read counts as none.
    fn lead(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed).saturating_sub(self.drained.load(Ordering::Relaxed))
    }

    /// Waits a little where there is nothing to do; not so long that anybody would starve.
    pub fn pause(&self) {
        std::thread::sleep(PAUSE);
    }
}

/// How far the producer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Until it is told to stop, never more than `LEAD_MAX` ahead of whoever drains.
    Lead,
    /// So many batches, as fast as they go in.
    Batches(u64),
}

/// Pushes; the time from the first byte sent to the last reply.
pub fn produce(redis: SocketAddr, form: Form<'_>, seed: u64, pace: Pace, flow: &Flow) -> Duration {
    let mut payouts = Payouts::new(form, seed);
    let mut wires: Vec<Wire> = (0..CONNECTIONS).map(|_| Wire::connect(redis)).collect();
    let mut under_way = [0; CONNECTIONS];
    let mut sent = 0;
    let began = Instant::now();
    while !flow.stopped() && pace != Pace::Batches(sent) {
        if pace == Pace::Lead && flow.lead() >= LEAD_MAX {
            flow.pause();
            continue;
        }
        let turn = sent as usize % CONNECTIONS;
        let wire = &mut wires[turn];
        if under_way[turn] == DEPTH {
            flow.pushed(wire, form);
            under_way[turn] -= 1;
        }
        wire.send(payouts.next());
        under_way[turn] += 1;
        sent += 1;
    }
    for (wire, left) in wires.iter_mut().zip(under_way) {
        (0..left).for_each(|_| flow.pushed(wire, form));
    }
    began.elapsed()
}
