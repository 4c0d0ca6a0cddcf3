//! The fault proxy does what each of its knobs says, shown on a small HTTP server that echoes and counts.

mod support;

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::proxy::FaultProxy;
use support::{PATIENCE, await_until};

/// How long silence is listened to before it counts as silence.
const SILENCE: Duration = Duration::from_millis(150);

/// Reads one message with a content-length: its first line and its body.
fn read_message(reader: &mut BufReader<TcpStream>) -> Result<(String, String)> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Err(Error::new(ErrorKind::UnexpectedEof, "closed"));
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "closed inside the head"));
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((first, String::from_utf8(body).unwrap()))
}

/// Answers every request with its own body and counts how many it answered.
fn echo() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let executed = Arc::new(AtomicU64::new(0));
    let count = executed.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, count) = (stream.unwrap(), count.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while let Ok((_, body)) = read_message(&mut reader) {
                    count.fetch_add(1, Ordering::SeqCst);
                    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    if stream.write_all(reply.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, executed)
}

/// A client that keeps its connection.
struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Client { stream, reader })
    }

    fn send(&mut self, body: &str) -> Result<()> {
        let request = format!("POST /echo HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.stream.write_all(request.as_bytes())
    }

    fn receive(&mut self) -> Result<String> {
        Ok(read_message(&mut self.reader)?.1)
    }

    fn ask(&mut self, body: &str) -> Result<String> {
        self.send(body)?;
        self.receive()
    }

    /// Insists that nothing comes for a while.
    fn hears_nothing(&mut self) {
        self.stream.set_read_timeout(Some(SILENCE)).unwrap();
        let kind = self.receive().unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind:?}");
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

struct Bench {
    proxy: FaultProxy,
    executed: Arc<AtomicU64>,
}

impl Bench {
    fn new() -> Bench {
        let (address, executed) = echo();
        Bench { proxy: FaultProxy::start(address), executed }
    }

    fn client(&self) -> Client {
        Client::connect(self.proxy.address()).unwrap()
    }

    fn executed(&self) -> u64 {
        self.executed.load(Ordering::SeqCst)
    }
}

#[test]
fn without_faults_it_is_not_there() {
    let bench = Bench::new();
    let mut client = bench.client();
    let large = "x".repeat(300_000);
    for body in ["a", "", &large, "b"] {
        assert_eq!(client.ask(body).unwrap(), body);
    }
    let counts = bench.proxy.counts();
    assert_eq!((counts.connections, counts.requests, bench.executed()), (1, 4, 4));
    assert!(counts.bytes_up > 300_000 && counts.bytes_down > 300_000, "{counts:?}");
}

#[test]
fn delays_count_for_each_direction() {
    let bench = Bench::new();
    let mut client = bench.client();
    let table = [(80, 0), (0, 80), (60, 60)];
    for (up, down) in table {
        bench.proxy.delay(Duration::from_millis(up), Duration::from_millis(down));
        let started = Instant::now();
        client.ask(&"x".repeat(100_000)).unwrap();
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(up + down), "{up} {down}: {took:?}");
    }
    bench.proxy.delay(PATIENCE * 10, Duration::ZERO);
    client.send("late").unwrap();
    client.hears_nothing();
    assert_eq!(bench.executed(), 3, "a request that is held back is not executed");
}

#[test]
fn a_throttled_line_is_slow() {
    let bench = Bench::new();
    let mut client = bench.client();
    bench.proxy.throttle(Some(50_000));
    let started = Instant::now();
    assert_eq!(client.ask(&"x".repeat(10_000)).unwrap().len(), 10_000);
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    bench.proxy.throttle(None);
    assert_eq!(client.ask("fast").unwrap(), "fast");
}

#[test]
fn a_cut_ends_what_is_open_and_nothing_else() {
    let bench = Bench::new();
    let mut clients = [bench.client(), bench.client()];
    for client in &mut clients {
        client.ask("open").unwrap();
    }
    bench.proxy.cut();
    for client in &mut clients {
        assert!(client.ask("cut").is_err());
    }
    assert_eq!(bench.proxy.counts().connections_cut, 2);
    assert_eq!(bench.client().ask("again").unwrap(), "again");
}

#[test]
fn a_refusing_port_is_closed_and_opens_again() {
    let bench = Bench::new();
    let mut old = bench.client();
    old.ask("before").unwrap();
    for _ in 0..3 {
        bench.proxy.refuse(true);
        let refused = Client::connect(bench.proxy.address()).err().map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::ConnectionRefused));
        assert_eq!(old.ask("still").unwrap(), "still");
        bench.proxy.refuse(false);
        assert_eq!(bench.client().ask("new").unwrap(), "new");
    }
}

#[test]
fn a_black_hole_swallows_old_and_new() {
    let bench = Bench::new();
    let mut old = bench.client();
    old.ask("before").unwrap();
    bench.proxy.blackhole(true);
    let mut new = bench.client();
    for client in [&mut old, &mut new] {
        client.send("lost").unwrap();
        client.hears_nothing();
    }
    bench.proxy.blackhole(false);
    old.send("lost as well").unwrap();
    old.hears_nothing();
    assert_eq!(bench.client().ask("after").unwrap(), "after");
    assert_eq!(bench.executed(), 2);
    assert!(bench.proxy.counts().bytes_swallowed > 0);
}

#[test]
fn a_pause_loses_nothing() {
    let bench = Bench::new();
    let mut old = bench.client();
    old.ask("before").unwrap();
    bench.proxy.pause();
    let mut new = bench.client();
    for client in [&mut old, &mut new] {
        client.send("held").unwrap();
        client.hears_nothing();
    }
    assert_eq!(bench.executed(), 1);
    bench.proxy.resume();
    assert_eq!((old.receive().unwrap(), new.receive().unwrap()), ("held".to_owned(), "held".to_owned()));
}

/// Sends until this many were answered; what the server executed, and the proxy's counts.
fn ask_with_losses(bench: &Bench, answered: u64) -> u64 {
    let mut client = bench.client();
    let (mut good, mut bad) = (0, 0);
    while good < answered {
        // A body of several reads, so that a message is more than one piece.
        let body = format!("{good}-{}", "x".repeat(40_000));
        match client.ask(&body) {
            Ok(echo) => {
                assert_eq!(echo, body);
                good += 1;
            }
            Err(_) => {
                bad += 1;
                client = bench.client();
            }
        }
    }
    bad
}

#[test]
fn a_lost_reply_was_executed() {
    let bench = Bench::new();
    bench.proxy.drop_replies(0.4, 7);
    let bad = ask_with_losses(&bench, 30);
    let counts = bench.proxy.counts();
    assert!(bad > 3, "{bad}");
    assert_eq!((counts.replies_dropped, counts.requests_dropped, counts.requests), (bad, 0, 30 + bad));
    assert_eq!(bench.executed(), 30 + bad, "every request was executed");
    bench.proxy.drop_replies(0.0, 0);
    assert_eq!(ask_with_losses(&bench, 5), 0);
}

#[test]
fn a_lost_request_was_not_executed() {
    let bench = Bench::new();
    bench.proxy.drop_requests(0.4, 7);
    let bad = ask_with_losses(&bench, 30);
    let counts = bench.proxy.counts();
    assert!(bad > 3, "{bad}");
    assert_eq!((counts.replies_dropped, counts.requests_dropped, counts.requests), (0, bad, 30));
    assert_eq!(bench.executed(), 30, "only what was answered was executed");
}

#[test]
fn a_seed_repeats_its_losses() {
    let losses = |seed| {
        let bench = Bench::new();
        bench.proxy.drop_replies(0.5, seed);
        ask_with_losses(&bench, 20)
    };
    assert_eq!(losses(3), losses(3));
}

/// A server of no HTTP at all: answers each line with itself.
fn line_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
                    if stream.write_all(line.as_bytes()).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

#[test]
fn other_protocols_go_by_turns() {
    let proxy = FaultProxy::start(line_echo());
    let ask = |client: &mut Client| {
        client.stream.write_all(b"*1 ping\n")?;
        let mut line = String::new();
        client.reader.read_line(&mut line).map(|count| (count, line))
    };
    let mut client = Client::connect(proxy.address()).unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&mut client).unwrap().1, "*1 ping\n");
    }
    proxy.drop_replies(1.0, 1);
    // A connection that closes is the end of the file or a reset.
    assert!(ask(&mut client).map_or(0, |(count, _)| count) == 0);
    let counts = proxy.counts();
    assert_eq!((counts.requests, counts.replies_dropped), (4, 1));
    proxy.drop_replies(0.0, 1);
    proxy.drop_requests(1.0, 1);
    let mut client = Client::connect(proxy.address()).unwrap();
    assert!(ask(&mut client).map_or(0, |(count, _)| count) == 0);
    let counts = proxy.counts();
    assert_eq!((counts.requests, counts.requests_dropped), (4, 1));
}

#[test]
fn it_finds_an_upstream_that_moved_and_ends_with_its_guard() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = FaultProxy::start(gone);
    let address = proxy.address();
    assert!(Client::connect(address).unwrap().ask("nobody").is_err());
    proxy.set_upstream(echo().0);
    let mut client = Client::connect(address).unwrap();
    assert_eq!(client.ask("somebody").unwrap(), "somebody");
    drop(proxy);
    assert!(client.ask("cut").is_err());
    await_until("the port to be closed", PATIENCE, || Client::connect(address).err());
}
