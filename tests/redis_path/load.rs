//! Producers: one that pushes plain elements, one that calls the HTTP door. Each sends the same again until it has an
//! answer, and remembers what was acknowledged to it, and when.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redis::{Client, Connection};
use serde_json::{Value, json};

use crate::support::{Reply, call};
use crate::world::amount;

pub const INTAKE: &str = "hongbao:intake";
/// How long a producer waits for Redis.
const REPLY_MAX: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub struct Ack {
    pub id: String,
    pub amount: u64,
    pub at: Instant,
    /// What the 202 said; of a push, nothing.
    pub durability: String,
}

/// One payout as an element.
pub fn element(id: &str, n: u64) -> String {
    let payee = format!("p{}", n % 500);
    json!({"id": id, "campaign": "k", "payee": payee, "amount": amount(n), "currency": "CNY"}).to_string()
}

/// One payout as a body.
pub fn body(id: &str, n: u64) -> String {
    element(id, n)
}

/// A thread that sends until it is told to stop.
pub struct Load {
    stopped: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    acks: Arc<Mutex<Vec<Ack>>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// `send` has this many requests from this number on acknowledged; it is called again for the same ones until they
    /// are.
    fn start(
        count: u64,
        pause: Duration,
        mut send: impl FnMut(u64) -> Option<Vec<Ack>> + Send + 'static,
    ) -> Load {
        let (stopped, acked, acks) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
        let mut load = Load { stopped, acked, acks, thread: None };
        let (stop, done, list) = (load.stopped.clone(), load.acked.clone(), load.acks.clone());
        load.thread = Some(std::thread::spawn(move || {
            let mut first = 0;
            let mut is_open = false;
            // What was sent and not answered is sent again, even after the stop.
            while is_open || !stop.load(Ordering::Acquire) {
                let began = Instant::now();
                match send(first) {
                    Some(news) => {
                        list.lock().unwrap().extend(news);
                        first += count;
                        done.store(first, Ordering::Release);
                        is_open = false;
                        std::thread::sleep(pause.saturating_sub(began.elapsed()));
                    }
                    None => {
                        is_open = true;
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            }
        }));
        load
    }

    /// Pushes `count` elements at a time at the end that `command` (RPUSH, LPUSH) says.
    pub fn push(
        url: String,
        command: &'static str,
        prefix: &'static str,
        count: u64,
        pause: Duration,
    ) -> Load {
        let mut connection: Option<Connection> = None;
        Load::start(count, pause, move |first| {
            if connection.is_none() {
                let client = Client::open(url.as_str()).expect("an address");
                let opened = client.get_connection_with_timeout(REPLY_MAX).ok()?;
                opened.set_read_timeout(Some(REPLY_MAX)).ok()?;
                connection = Some(opened);
            }
            let acks = push(connection.as_mut()?, command, prefix, first..first + count);
            if acks.is_none() {
                connection = None;
            }
            acks
        })
    }

    /// Calls the door of each of these in turn, a batch at a time.
    pub fn post(addresses: Vec<String>, prefix: &'static str, count: u64, pause: Duration) -> Load {
        let mut calls = 0;
        Load::start(count, pause, move |first| {
            let address = &addresses[calls % addresses.len()];
            calls += 1;
            post(address, prefix, first..first + count)
        })
    }

    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    /// Everything that was acknowledged.
    pub fn stop(mut self) -> Vec<Ack> {
        self.stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a producer does not panic");
        }
        std::mem::take(&mut self.acks.lock().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // A test that fails does not wait for its producers.
        self.stopped.store(true, Ordering::Release);
    }
}

/// Pushes these in one command; nothing if Redis did not say that it has them.
pub fn push(
    connection: &mut Connection,
    command: &str,
    prefix: &str,
    numbers: std::ops::Range<u64>,
) -> Option<Vec<Ack>> {
    let mut push = redis::cmd(command);
    push.arg(INTAKE);
    for n in numbers.clone() {
        push.arg(element(&format!("{prefix}-{n}"), n));
    }
    push.query::<u64>(connection).ok()?;
    Some(acks(prefix, numbers, ""))
}

fn acks(prefix: &str, numbers: std::ops::Range<u64>, durability: &str) -> Vec<Ack> {
    let at = Instant::now();
    let ack =
        |n| Ack { id: format!("{prefix}-{n}"), amount: amount(n), at, durability: durability.to_owned() };
    numbers.map(ack).collect()
}

pub fn batch(prefix: &str, numbers: std::ops::Range<u64>) -> String {
    let item =
        |n| json!({"id": format!("{prefix}-{n}"), "payee": format!("p{}", n % 500), "amount": amount(n)});
    let items: Vec<Value> = numbers.clone().map(item).collect();
    let total: u64 = numbers.clone().map(amount).sum();
    json!({"id": format!("b-{prefix}-{}", numbers.start), "campaign": "k", "currency": "CNY",
        "total_count": items.len(), "total_amount": total, "items": items})
    .to_string()
}

/// Posts these as a batch; nothing if it was not accepted whole.
pub fn post(address: &str, prefix: &str, numbers: std::ops::Range<u64>) -> Option<Vec<Ack>> {
    let reply: Reply = call(address, "POST /v1/batches", &batch(prefix, numbers.clone())).ok()?;
    match reply.code {
        200 | 202 if reply.body["refused_count"] == 0 => {
            let durability = reply.body["durability"].as_str().unwrap_or_default().to_owned();
            Some(acks(prefix, numbers, &durability))
        }
        // Full, not ready, unknown: the same again.
        200 | 202 | 429 | 503 => None,
        code => panic!("{code}: {}", reply.text),
    }
}
