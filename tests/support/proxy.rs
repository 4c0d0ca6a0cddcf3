//! A TCP proxy that fails on request: it stands between the service and its wallet, its Redis or its database,
//! and is told while they run what the network shall do to them.
//!
//! Two threads carry a connection, one each way. HTTP/1.1 with a content-length is understood well enough to tell
//! one exchange from the next on a connection that is kept, so that a lost request or reply is that of one
//! exchange. Whatever else is spoken (TLS, RESP, PostgreSQL, chunked bodies) goes by turns: what one side says
//! until the other side speaks: a pipeline of commands counts as one request as long as the first reply does not come
//! before the last command. Where that matters, `swallow_replies` does not count anything: the server gets all of it
//! and the client hears nothing.
//!
//! A connection that is cut ends orderly (FIN), or by a reset where bytes were on their way; `reset` ends it by a
//! reset always.

mod http_frames;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Dice, PATIENCE, await_until};
use http_frames::Framer;

/// What the proxy did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub connections: u64,
    /// Connections that `cut`, `reset` or `cut_after_reply_bytes` ended.
    pub connections_cut: u64,
    /// Requests that were let through, or begun to be.
    pub requests: u64,
    pub requests_dropped: u64,
    /// Replies that the upstream gave and the client never got.
    pub replies_dropped: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// Bytes that went into the black hole.
    pub bytes_swallowed: u64,
}

/// Says yes with a probability, the same way again for the same seed.
struct Chance {
    per_million: u64,
    dice: Dice,
}

impl Chance {
    fn new(probability: f64, seed: u64) -> Chance {
        assert!((0.0..=1.0).contains(&probability), "{probability} is no probability");
        Chance { per_million: (probability * 1e6).round() as u64, dice: Dice(seed) }
    }

    fn strikes(&mut self) -> bool {
        self.dice.roll(1_000_000) < self.per_million
    }
}

struct Knobs {
    upstream: SocketAddr,
    delay_up: Duration,
    delay_down: Duration,
    bytes_per_s: Option<u64>,
    refusing: bool,
    blackhole: bool,
    paused: bool,
    stopped: bool,
    /// Whether the port is open; the listening thread says so.
    listening: bool,
    drop_request: Chance,
    drop_reply: Chance,
    drop_next_reply: bool,
    swallow_replies: bool,
    /// Bytes of replies that still pass before the connection they are on is cut.
    reply_bytes_left: Option<u64>,
    counts: Counts,
    open: Vec<Open>,
}

/// Both ends of a connection that is open.
struct Open {
    number: u64,
    client: TcpStream,
    upstream: Option<TcpStream>,
    /// It ends without a word (FIN) from any of its threads.
    reset: bool,
}

struct Shared {
    knobs: Mutex<Knobs>,
    changed: Condvar,
}

impl Shared {
    fn knobs(&self) -> MutexGuard<'_, Knobs> {
        self.knobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut self.knobs());
        self.changed.notify_all();
    }

    fn wait_while(&self, mut condition: impl FnMut(&Knobs) -> bool) {
        let held = self.changed.wait_while(self.knobs(), |knobs| condition(knobs));
        drop(held.unwrap_or_else(PoisonError::into_inner));
    }

    /// Sleeps, but not past the end of the proxy.
    fn sleep(&self, time: Duration) {
        if !time.is_zero() {
            let held = self.changed.wait_timeout_while(self.knobs(), time, |knobs| !knobs.stopped);
            drop(held.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Stops, and cuts what it carries, when dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Listens on a free port and carries every connection to `upstream`, which need not be there yet.
    pub fn start(upstream: SocketAddr) -> FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let knobs = Knobs {
            upstream,
            delay_up: Duration::ZERO,
            delay_down: Duration::ZERO,
            bytes_per_s: None,
            refusing: false,
            blackhole: false,
            paused: false,
            stopped: false,
            listening: true,
            drop_request: Chance::new(0.0, 0),
            drop_reply: Chance::new(0.0, 0),
            drop_next_reply: false,
            swallow_replies: false,
            reply_bytes_left: None,
            counts: Counts::default(),
            open: Vec::new(),
        };
        let shared = Arc::new(Shared { knobs: Mutex::new(knobs), changed: Condvar::new() });
        let theirs = shared.clone();
        let listening = std::thread::spawn(move || listen(&theirs, listener, address));
        FaultProxy { address, shared, listening: Some(listening) }
    }

    /// Where clients connect to; the same as long as the proxy lives.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn counts(&self) -> Counts {
        self.shared.knobs().counts
    }

    /// Where new connections go, after the server behind was started again elsewhere.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.shared.set(|knobs| knobs.upstream = upstream);
    }

    /// Holds back every request for `up` and every reply for `down`.
    pub fn delay(&self, up: Duration, down: Duration) {
        self.shared.set(|knobs| (knobs.delay_up, knobs.delay_down) = (up, down));
    }

    /// Carries no more than this many bytes a second each way and connection; `None` is as fast as it goes.
    pub fn throttle(&self, bytes_per_s: Option<u64>) {
        assert_ne!(bytes_per_s, Some(0), "pause() lets nothing through");
        self.shared.set(|knobs| knobs.bytes_per_s = bytes_per_s);
    }

    /// Ends every open connection, once.
    pub fn cut(&self) {
        self.shared.set(|knobs| {
            knobs.counts.connections_cut += knobs.open.len() as u64;
            knobs.shut_all();
        });
    }

    /// Ends every open connection by a reset (RST), once; what was on its way is lost.
    pub fn reset(&self) {
        self.shared.set(|knobs| {
            knobs.counts.connections_cut += knobs.open.len() as u64;
            for open in &mut knobs.open {
                open.reset = true;
                for end in std::iter::once(&open.client).chain(&open.upstream) {
                    // Closed with nothing to linger for, a socket is reset; its threads see the end of it and close
                    // it. Whoever is gone already cannot be reset.
                    let _ = rustix::net::sockopt::set_socket_linger(end, Some(Duration::ZERO));
                    let _ = end.shutdown(Shutdown::Read);
                }
            }
        });
    }

    /// Lets exactly this many more bytes from the upstream pass, over whichever connections, then cuts the one that
    /// the next byte is on, once. `None` takes it back.
    pub fn cut_after_reply_bytes(&self, bytes: Option<u64>) {
        self.shared.set(|knobs| knobs.reply_bytes_left = bytes);
    }

    /// Closes the port, so that new connections are refused, or opens it again. Open connections stay. Returns
    /// when it is so.
    pub fn refuse(&self, refusing: bool) {
        self.shared.set(|knobs| knobs.refusing = refusing);
        if refusing {
            self.wake();
        }
        self.shared.wait_while(|knobs| knobs.listening == refusing);
    }

    /// Accepts, reads, and says and forwards nothing. A connection that lost bytes so stays lost.
    pub fn blackhole(&self, blackhole: bool) {
        self.shared.set(|knobs| knobs.blackhole = blackhole);
    }

    /// Each request is, with this probability, read to its end and not passed on; then the connection is closed.
    pub fn drop_requests(&self, probability: f64, seed: u64) {
        self.shared.set(|knobs| knobs.drop_request = Chance::new(probability, seed));
    }

    /// Each request is, with this probability, passed on, and its reply read to its end and not passed back; then
    /// the connection is closed. The upstream did what it was asked, and the client cannot know.
    pub fn drop_replies(&self, probability: f64, seed: u64) {
        self.shared.set(|knobs| knobs.drop_reply = Chance::new(probability, seed));
    }

    /// The next request is passed on and its reply is not, once: as `drop_replies` with certainty.
    pub fn drop_next_reply(&self) {
        self.shared.set(|knobs| knobs.drop_next_reply = true);
    }

    /// Requests are passed on, and what the upstream says is read and thrown away: all is executed, and the client
    /// waits until it gives up or is cut off. A connection that lost replies stays deaf.
    pub fn swallow_replies(&self, swallow: bool) {
        self.shared.set(|knobs| knobs.swallow_replies = swallow);
    }

    /// Nothing moves and nothing is lost, until `resume`.
    pub fn pause(&self) {
        self.shared.set(|knobs| knobs.paused = true);
    }

    pub fn resume(&self) {
        self.shared.set(|knobs| knobs.paused = false);
    }

    /// The listening thread looks up when somebody connects.
    fn wake(&self) {
        // Nobody listens: then it is awake.
        let _ = TcpStream::connect(self.address);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.set(|knobs| {
            knobs.stopped = true;
            knobs.shut_all();
        });
        self.wake();
        if let Some(listening) = self.listening.take() {
            // Its panic was printed; another one while a test fails would hide the first.
            let _ = listening.join();
        }
    }
}

impl Knobs {
    fn shut_all(&mut self) {
        for open in &self.open {
            for end in std::iter::once(&open.client).chain(&open.upstream) {
                // Whoever is gone already cannot be shut out.
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }

    fn find(&mut self, number: u64) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.number == number)
    }
}

fn listen(shared: &Arc<Shared>, first: TcpListener, address: SocketAddr) {
    let mut listener = Some(first);
    let mut number = 0;
    loop {
        let open = match listener.take() {
            Some(open) => open,
            None => await_until("the proxy's own port to be free again", PATIENCE, || {
                TcpListener::bind(address).ok()
            }),
        };
        shared.set(|knobs| knobs.listening = true);
        while let Ok((client, _)) = open.accept() {
            let knobs = shared.knobs();
            if knobs.stopped || knobs.refusing {
                break;
            }
            drop(knobs);
            number += 1;
            let theirs = shared.clone();
            std::thread::spawn(move || carry(&theirs, number, client));
        }
        drop(open);
        shared.set(|knobs| knobs.listening = false);
        shared.wait_while(|knobs| knobs.refusing && !knobs.stopped);
        if shared.knobs().stopped {
            return;
        }
    }
}

/// Carries one connection from its beginning to its end.
fn carry(shared: &Arc<Shared>, number: u64, client: TcpStream) {
    let Ok(end) = client.try_clone() else { return };
    shared.set(|knobs| {
        knobs.counts.connections += 1;
        knobs.open.push(Open { number, client: end, upstream: None, reset: false });
        if knobs.stopped {
            knobs.shut_all();
        }
    });
    shared.wait_while(|knobs| knobs.paused && !knobs.stopped);
    let (upstream, black) = {
        let knobs = shared.knobs();
        (knobs.upstream, knobs.blackhole)
    };
    if black {
        swallow(shared, client);
    } else if let Ok(upstream) = TcpStream::connect_timeout(&upstream, PATIENCE) {
        both_ways(shared, number, client, upstream);
    }
    shared.set(|knobs| knobs.open.retain(|open| open.number != number));
}

fn swallow(shared: &Shared, mut from: TcpStream) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        shared.set(|knobs| knobs.counts.bytes_swallowed += count as u64);
    }
}

fn both_ways(shared: &Arc<Shared>, number: u64, client: TcpStream, upstream: TcpStream) {
    let (Ok(client_too), Ok(upstream_too), Ok(end)) =
        (client.try_clone(), upstream.try_clone(), upstream.try_clone())
    else {
        return;
    };
    // Without it a forwarded piece may wait for an acknowledgement; a proxy that works all the same will do.
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    shared.set(|knobs| {
        let is_reset = knobs.find(number).is_some_and(|open| {
            open.upstream = Some(end);
            open.reset
        });
        if knobs.stopped || is_reset {
            knobs.shut_all();
        }
    });
    let talk = Arc::new(Mutex::new(Talk { speaker: Way::Down, drop_reply: false }));
    let pump = |way, talk| Pump { shared: shared.clone(), number, talk, way, framer: Framer::new(way) };
    let (down, up) = (pump(Way::Down, talk.clone()), pump(Way::Up, talk));
    let downward = std::thread::spawn(move || down.run(upstream_too, client_too));
    up.run(client, upstream);
    // A pump does not panic on what it carries; if it does, its own message is on the screen.
    let _ = downward.join();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// What the two directions of a connection know of each other.
struct Talk {
    /// Who spoke last.
    speaker: Way,
    drop_reply: bool,
}

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    /// Read to its end; then the connection is closed.
    Drop,
}

/// Carries one direction of one connection.
struct Pump {
    shared: Arc<Shared>,
    number: u64,
    talk: Arc<Mutex<Talk>>,
    way: Way,
    framer: Framer,
}

impl Pump {
    fn run(mut self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 << 10];
        let mut fate = Fate::Pass;
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            self.shared.wait_while(|knobs| knobs.paused && !knobs.stopped);
            if self.is_black() {
                self.shared.set(|knobs| knobs.counts.bytes_swallowed += count as u64);
                return self.vanish(from, &to);
            }
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                let piece = self.framer.take(rest);
                let (bytes, after) = rest.split_at(piece.taken);
                rest = after;
                let turn = self.turn();
                if piece.begins || (!piece.framed && turn) {
                    fate = self.begin();
                }
                let passed = fate == Fate::Drop || self.pass(&mut to, bytes);
                let over = fate == Fate::Drop && (piece.ends || !piece.framed);
                if over {
                    self.count_dropped();
                }
                if over || !passed {
                    // One direction that broke breaks the other; it may be gone already.
                    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                    return;
                }
            }
        }
        let silent = self.way == Way::Down && self.is_black();
        if !silent && !self.is_reset() {
            // The end of one direction is passed on as such.
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    /// Whether what comes this way is swallowed.
    fn is_black(&self) -> bool {
        let knobs = self.shared.knobs();
        knobs.blackhole || (self.way == Way::Down && knobs.swallow_replies)
    }

    fn is_reset(&self) -> bool {
        self.shared.knobs().find(self.number).is_some_and(|open| open.reset)
    }

    /// What was lost cannot be made up for: this direction is silent from now on, even about its end, except that
    /// a client who gave up lets go of the upstream too.
    fn vanish(&self, from: TcpStream, to: &TcpStream) {
        swallow(&self.shared, from);
        if self.way == Way::Up && !self.is_reset() {
            let _ = to.shutdown(Shutdown::Both);
        }
    }

    fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the other side spoke last; from now on it is this one.
    fn turn(&self) -> bool {
        std::mem::replace(&mut self.talk().speaker, self.way) != self.way
    }

    /// A message begins: what becomes of it, once the delay is over.
    fn begin(&self) -> Fate {
        let mut knobs = self.shared.knobs();
        let (delay, fate) = match self.way {
            Way::Up => {
                let drop_request = knobs.drop_request.strikes();
                let chosen = !drop_request && knobs.drop_reply.strikes();
                let next = !drop_request && std::mem::take(&mut knobs.drop_next_reply);
                let drop_reply = chosen || next;
                knobs.counts.requests += u64::from(!drop_request);
                self.talk().drop_reply = drop_reply;
                (knobs.delay_up, if drop_request { Fate::Drop } else { Fate::Pass })
            }
            Way::Down => (knobs.delay_down, if self.talk().drop_reply { Fate::Drop } else { Fate::Pass }),
        };
        drop(knobs);
        self.shared.sleep(delay);
        fate
    }

    fn count_dropped(&self) {
        self.shared.set(|knobs| match self.way {
            Way::Up => knobs.counts.requests_dropped += 1,
            Way::Down => knobs.counts.replies_dropped += 1,
        });
    }

    /// How many of these bytes may pass before the connection is to be cut.
    fn allowed(&self, bytes: usize) -> usize {
        let mut knobs = self.shared.knobs();
        let Some(left) = knobs.reply_bytes_left.filter(|_| self.way == Way::Down) else { return bytes };
        let allowed = bytes.min(usize::try_from(left).unwrap_or(usize::MAX));
        knobs.counts.connections_cut += u64::from(allowed == 0);
        knobs.reply_bytes_left = (allowed > 0).then_some(left - allowed as u64);
        allowed
    }

    /// Whether these bytes went out, at the pace that is set.
    fn pass(&self, to: &mut TcpStream, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let pace = self.shared.knobs().bytes_per_s;
            self.shared.wait_while(|knobs| knobs.paused && !knobs.stopped);
            // Twenty slices a second, so that a slow line drips and does not gush.
            let slice = pace.map_or(rest.len(), |pace| rest.len().min((pace / 20).max(1) as usize));
            let slice = self.allowed(slice);
            if slice == 0 {
                return false;
            }
            if to.write_all(&rest[..slice]).is_err() {
                return false;
            }
            self.shared.set(|knobs| match self.way {
                Way::Up => knobs.counts.bytes_up += slice as u64,
                Way::Down => knobs.counts.bytes_down += slice as u64,
            });
            if let Some(pace) = pace {
                self.shared.sleep(Duration::from_secs_f64(slice as f64 / pace as f64));
            }
            rest = &rest[slice..];
        }
        true
    }
}
