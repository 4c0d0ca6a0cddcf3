//! A TCP proxy that fails on request: it stands between the service and its wallet, its Redis or its database,
//! and is told while they run what the network shall do to them.
//!
//! Two threads carry a connection, one each way. HTTP/1.1 with a content-length is understood well enough to tell
//! one exchange from the next on a connection that is kept, so that a lost request or reply is that of one
//! exchange. Whatever else is spoken (TLS, RESP, PostgreSQL, chunked bodies) goes by turns: what one side says
//! until the other side speaks. Replies to HEAD are not understood.
//!
//! A connection that is cut ends orderly (FIN), or by a reset where bytes were on their way.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Dice, PATIENCE, await_until};

/// What the proxy did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub connections: u64,
    /// Connections that `cut` ended.
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
    counts: Counts,
    /// Both ends of every connection that is open.
    open: Vec<(u64, TcpStream, Option<TcpStream>)>,
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
        for (_, client, upstream) in &self.open {
            // Whoever is gone already cannot be shut out.
            let _ = client.shutdown(Shutdown::Both);
            let _ = upstream.as_ref().map(|upstream| upstream.shutdown(Shutdown::Both));
        }
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
        knobs.open.push((number, end, None));
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
    shared.set(|knobs| knobs.open.retain(|(open, ..)| *open != number));
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
        if let Some(open) = knobs.open.iter_mut().find(|(open, ..)| *open == number) {
            open.2 = Some(end);
        }
        if knobs.stopped {
            knobs.shut_all();
        }
    });
    let talk = Arc::new(Mutex::new(Talk { speaker: Way::Down, drop_reply: false }));
    let down =
        Pump { shared: shared.clone(), talk: talk.clone(), way: Way::Down, framer: Framer::new(Way::Down) };
    let up = Pump { shared: shared.clone(), talk, way: Way::Up, framer: Framer::new(Way::Up) };
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
            if self.shared.knobs().blackhole {
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
        if self.way == Way::Down && self.shared.knobs().blackhole {
            return;
        }
        // The end of one direction is passed on as such.
        let _ = to.shutdown(Shutdown::Write);
    }

    /// What was lost cannot be made up for: this direction is silent from now on, even about its end, except that
    /// a client who gave up lets go of the upstream too.
    fn vanish(&self, from: TcpStream, to: &TcpStream) {
        swallow(&self.shared, from);
        if self.way == Way::Up {
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
                let drop_reply = !drop_request && knobs.drop_reply.strikes();
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

    /// Whether these bytes went out, at the pace that is set.
    fn pass(&self, to: &mut TcpStream, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let pace = self.shared.knobs().bytes_per_s;
            self.shared.wait_while(|knobs| knobs.paused && !knobs.stopped);
            // Twenty slices a second, so that a slow line drips and does not gush.
            let slice = pace.map_or(rest.len(), |pace| rest.len().min((pace / 20).max(1) as usize));
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

/// Bytes of a head beyond which this is no HTTP that we know.
const HEAD_BYTES_MAX: usize = 64 << 10;

enum Frame {
    Between,
    Head(Vec<u8>),
    Body {
        bytes_left: usize,
    },
    /// Not HTTP/1.1 with a content-length, from here on.
    Opaque,
}

/// Finds where HTTP messages begin and end in one direction of a connection.
struct Framer {
    way: Way,
    frame: Frame,
}

/// Bytes that belong to one message.
struct Piece {
    taken: usize,
    begins: bool,
    ends: bool,
    /// Whether beginning and end are known at all.
    framed: bool,
}

impl Framer {
    fn new(way: Way) -> Framer {
        Framer { way, frame: Frame::Between }
    }

    fn take(&mut self, bytes: &[u8]) -> Piece {
        let begins = matches!(self.frame, Frame::Between);
        let taken = match &mut self.frame {
            Frame::Opaque => bytes.len(),
            Frame::Body { bytes_left } => {
                let taken = bytes.len().min(*bytes_left);
                *bytes_left -= taken;
                taken
            }
            Frame::Between => {
                self.frame = Frame::Head(Vec::new());
                self.take_head(bytes)
            }
            Frame::Head(_) => self.take_head(bytes),
        };
        if matches!(self.frame, Frame::Body { bytes_left: 0 }) {
            self.frame = Frame::Between;
        }
        let ends = matches!(self.frame, Frame::Between);
        Piece { taken, begins, ends, framed: !matches!(self.frame, Frame::Opaque) }
    }

    fn take_head(&mut self, bytes: &[u8]) -> usize {
        let Frame::Head(head) = &mut self.frame else { unreachable!("only called inside a head") };
        for (index, byte) in bytes.iter().enumerate() {
            head.push(*byte);
            if head.ends_with(b"\r\n\r\n") {
                let head = std::mem::take(head);
                self.frame = after_head(self.way, &String::from_utf8_lossy(&head));
                return index + 1;
            }
        }
        if !looks_like_http(self.way, head) || head.len() > HEAD_BYTES_MAX {
            self.frame = Frame::Opaque;
        }
        bytes.len()
    }
}

fn looks_like_http(way: Way, head: &[u8]) -> bool {
    match way {
        Way::Up => {
            let word = head.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
            (1..=7).contains(&word) && head.get(word).is_none_or(|byte| *byte == b' ')
        }
        Way::Down => head.iter().zip(b"HTTP/1.").all(|(byte, expected)| byte == expected),
    }
}

/// What follows a head.
fn after_head(way: Way, head: &str) -> Frame {
    if !looks_like_http(way, head.as_bytes()) {
        return Frame::Opaque;
    }
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let length = header("content-length").map(str::parse);
    let code = head.split(' ').nth(1).unwrap_or("");
    match (way, length) {
        // A message of its own, but not yet the reply.
        (Way::Down, _) if code.starts_with('1') => Frame::Head(Vec::new()),
        (Way::Down, _) if code == "204" || code == "304" => Frame::Between,
        (_, Some(Ok(bytes_left))) => Frame::Body { bytes_left },
        (Way::Up, None) if header("transfer-encoding").is_none() => Frame::Between,
        _ => Frame::Opaque,
    }
}
