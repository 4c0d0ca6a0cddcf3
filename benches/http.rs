//! The claims it backs: HTTP singles and batches, durable, with settling beside, against a do-nothing handler in
//! the same run; accept latency at half of that load against one bare `fdatasync` (README, "Figures").
//!
//! `cargo bench --bench http`; needs `wrk`. Rounds are interleaved, and the median ratio is told with its spread.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use hdrhistogram::Histogram;
use hongbao::app::{Extras, Service};
use hongbao::config::{Sources, load};
use hongbao::server;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

const ROUNDS: usize = 3;
const SECONDS: u64 = 5;

const SINGLE: &str = r#"
local n, run = 0, tostring(os.time()) .. "-" .. TAG .. "-"
wrk.method, wrk.headers["content-type"] = "POST", "application/json"
function request()
  n = n + 1
  return wrk.format(nil, "/v1/disbursements", nil, '{"id":"' .. run .. string.format("%010d", n) ..
    '","campaign":"bench","payee":"payee-' .. (n % 100000) .. '","amount":1,"currency":"CNY"}')
end
"#;

const BATCH: &str = r#"
local n, run = 0, tostring(os.time()) .. "-" .. TAG .. "-"
wrk.method, wrk.headers["content-type"] = "POST", "application/json"
function request()
  n = n + 1
  local items = {}
  for i = 1, 500 do
    items[i] = '{"id":"' .. run .. n .. "-" .. i .. '","payee":"payee-' .. ((n * 500 + i) % 100000) .. '","amount":1}'
  end
  return wrk.format(nil, "/v1/batches", nil, '{"id":"' .. run .. n ..
    '","campaign":"bench","currency":"CNY","total_count":500,"total_amount":500,"items":[' ..
    table.concat(items, ",") .. ']}')
end
"#;

/// Requests a second, as wrk tells them; fails on any answer that is not 2xx.
fn wrk(address: SocketAddr, script: &str, tag: &str, connections: u32) -> f64 {
    let mut file = tempfile::NamedTempFile::with_suffix(".lua").expect("a temporary file");
    write!(file, "local TAG = \"{tag}\"\n{script}").expect("written");
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{SECONDS}s"), "-s"])
        .arg(file.path())
        .arg(format!("http://{address}/"))
        .output()
        .expect("wrk is installed (apt-get install wrk)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("Non-2xx"), "not everything was accepted:\n{text}");
    let line = text.lines().find(|line| line.starts_with("Requests/sec:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

async fn bare() -> SocketAddr {
    let answer = || async { (axum::http::StatusCode::ACCEPTED, r#"{"id":"x","status":"ACCEPTED"}"#) };
    let router = Router::new().route("/v1/disbursements", post(answer)).route("/v1/batches", post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let options = hongbao::gateway::Options::default();
    tokio::spawn(async move {
        hongbao::gateway::serve(listener, router, &options, std::future::pending()).await;
    });
    address
}

/// One call after the other on one connection.
struct Caller {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Caller {
    async fn connect(address: SocketAddr) -> Caller {
        let stream = TcpStream::connect(address).await.expect("connected");
        stream.set_nodelay(true).expect("an option");
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        tokio::spawn(connection);
        Caller { sender }
    }

    async fn call(&mut self, method: &str, path: &str, body: String) -> u16 {
        self.sender.ready().await.expect("the connection is open");
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "bench")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        let response = self.sender.send_request(request).await.expect("an answer");
        let status = response.status().as_u16();
        http_body_util::BodyExt::collect(response.into_body()).await.expect("a body");
        status
    }
}

/// Accept latency from the intended time, at a fixed rate, over as many connections as the load had. The clients
/// are threads that sleep to the microsecond:
/// a runtime's timers tick in milliseconds, and would send bursts.
fn latency(address: SocketAddr, per_s: f64, tag: &str) -> Histogram<u64> {
    const CLIENTS: u64 = 64;
    let began = Instant::now() + Duration::from_millis(100);
    let client = move |client: u64| {
        let mut stream = std::net::TcpStream::connect(address).expect("connected");
        stream.set_nodelay(true).expect("an option");
        let mut taken = Histogram::<u64>::new(3).expect("a histogram");
        let count = (per_s * SECONDS as f64) as u64 / CLIENTS;
        let mut answer = [0u8; 4096];
        for n in 0..count {
            let intended = began + Duration::from_secs_f64((n * CLIENTS + client) as f64 / per_s);
            std::thread::sleep(intended.saturating_duration_since(Instant::now()));
            let body = format!(
                r#"{{"id":"lat-{tag}-{client}-{n}","campaign":"bench","payee":"p-{n}","amount":1,"currency":"CNY"}}"#
            );
            let request = format!(
                "POST /v1/disbursements HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(request.as_bytes()).expect("sent");
            // An answer is far below one segment, and comes in one piece.
            let got = stream.read(&mut answer).expect("an answer");
            assert!(
                answer[..got].starts_with(b"HTTP/1.1 202"),
                "{}",
                String::from_utf8_lossy(&answer[..got])
            );
            taken.record(intended.elapsed().as_micros() as u64).expect("within bounds");
        }
        taken
    };
    let mut all = Histogram::<u64>::new(3).expect("a histogram");
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        for thread in threads {
            all.add(thread.join().expect("no panic")).expect("same bounds");
        }
    });
    all
}

fn fdatasync(folder: &std::path::Path) -> Histogram<u64> {
    let file = std::fs::File::create(folder.join("fdatasync")).expect("a file");
    let block = [1u8; 4096];
    let mut taken = Histogram::<u64>::new(3).expect("a histogram");
    for n in 0..2_000u64 {
        let began = Instant::now();
        file.write_all_at(&block, n * 4096).expect("written");
        file.sync_data().expect("synced");
        taken.record(began.elapsed().as_micros() as u64).expect("within bounds");
    }
    taken
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn await_view(service: &Service) {
    let view = service.view.clone().expect("the view runs");
    while view.lag().distance > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn tell_latency(when: &str, address: SocketAddr, per_s: f64, folder: &std::path::Path) {
    let before = fdatasync(folder);
    let taken = latency(address, per_s, &when.replace(' ', "-"));
    let mut bare = fdatasync(folder);
    bare.add(before).expect("same bounds");
    let at = |quantile| taken.value_at_quantile(quantile);
    println!(
        "accept at {per_s:.0}/s {when}: p50 {} us, p90 {} us, p99 {} us = {:.1} x the p99 of one fdatasync ({} us)",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.99) as f64 / bare.value_at_quantile(0.99) as f64,
        bare.value_at_quantile(0.99)
    );
}

fn main() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let sets = vec![
        format!("data.dir={}", temp.path().join("data").display()),
        "gateway.listen=127.0.0.1:0".to_owned(),
    ];
    let config = load(&Sources { sets, ..Sources::default() }).expect("the defaults are valid");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let service = Service::start(config, Extras::default()).expect("the service starts");
    let (address, bare) = runtime.block_on(async {
        let listener = server::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = server::gateway(&service).expect("a gateway").into_router();
        let options = service.config.gateway.clone();
        tokio::spawn(async move {
            hongbao::gateway::serve(listener, router, &options, std::future::pending()).await
        });
        let mut caller = Caller::connect(address).await;
        let campaign = r#"{"budget":9000000000000000,"currency":"CNY"}"#.to_owned();
        assert_eq!(caller.call("PUT", "/v1/campaigns/bench", campaign).await, 200);
        let fund = r#"{"id":"fund-bench","amount":9000000000000000}"#.to_owned();
        assert_eq!(caller.call("POST", "/v1/campaigns/bench/fund", fund).await, 200);
        (address, bare().await)
    });
    let (mut single, mut ratio, mut batch) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let tag = format!("s{round}");
        let (nothing, ours) = (wrk(bare, SINGLE, &tag, 64), wrk(address, SINGLE, &tag, 64));
        if round == 0 {
            await_view(&service);
            tell_latency("in a young folder", address, ours / 2.0, temp.path());
        }
        let items = wrk(address, BATCH, &format!("b{round}"), 16) * 500.0;
        println!(
            "round {round}: do-nothing {nothing:.0}/s, hongbao single {ours:.0}/s, batches {items:.0} items/s"
        );
        single.push(ours);
        ratio.push(ours / nothing);
        batch.push(items);
    }
    let (rate, ..) = median(single);
    let (middle, low, high) = median(ratio);
    println!("single, durable     {rate:.0}/s = {middle:.2} of a do-nothing handler ({low:.2} to {high:.2})");
    let (middle, low, high) = median(batch);
    println!("batches of 500      {middle:.0} items/s ({low:.0} to {high:.0})");
    // What the rounds left behind is not part of this load.
    await_view(&service);
    tell_latency("with what the rounds left", address, rate / 2.0, temp.path());
    drop(runtime);
    service.stop(Duration::from_secs(10)).expect("the service stops");
}
