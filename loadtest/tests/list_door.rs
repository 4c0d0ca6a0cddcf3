//! Requests pushed to a Redis list: what arrives there is what the generator says it sent. Needs `redis-server`.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use hongbao_loadtest::arrivals::{Arrivals, Piece};
use hongbao_loadtest::generator::{Fate, LIST, Live, Outlets, Pace, Plan, generate};
use hongbao_loadtest::scenario::{Door, Generator, Load, Spacing};
use hongbao_loadtest::traffic::{HttpHead, Place, Traffic};
use support::{Guard, await_until, run, serve};

/// Sends commands and reads as many bytes as come within a moment.
fn ask(address: &str, command: &str, enough: impl Fn(&str) -> bool) -> String {
    let mut stream = TcpStream::connect(address).expect("redis listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    let (mut told, mut piece) = (String::new(), [0u8; 4_096]);
    while !enough(&told) {
        let count = stream.read(&mut piece).expect("an answer");
        assert!(count > 0, "closed: {told}");
        told.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    told
}

fn redis(folder: &Path) -> (Guard, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
    command.arg("--dir").arg(folder);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let redis = Guard(child.expect("redis-server is installed (apt-get install redis-server)"));
    let address = format!("127.0.0.1:{port}");
    await_until("redis to listen", || TcpStream::connect(&address).ok());
    (redis, address)
}

const TO_A_LIST: &str = r#"
about = "Pushed to the list of a service that runs already."
arrivals = { shape = "constant", per_s = 200, for_s = 2 }
[setup]
intake = "redis"
[load]
door = "list"
[generator]
lag_ms = 5000
"#;

#[test]
fn a_service_that_runs_already_is_loaded_through_its_list() {
    let folder = tempfile::tempdir().unwrap();
    let (_redis, address) = redis(folder.path());
    let data = format!("data.dir={}", folder.path().join("data").display());
    let (url_of_redis, listen) =
        (format!("intake.redis.url=redis://{address}"), "gateway.listen=127.0.0.1:0");
    let sets = ["intake.kind=redis", &url_of_redis, &data, listen, "shaping.transfers_per_s=5000"];
    let args: Vec<&str> = ["serve"].into_iter().chain(sets.iter().flat_map(|set| ["--set", *set])).collect();
    let (_service, url) = serve(&args);
    let scenario = folder.path().join("list.toml");
    std::fs::write(&scenario, TO_A_LIST).unwrap();
    let (scenario, out) = (scenario.to_str().unwrap(), folder.path().join("out"));
    let args = ["run", scenario, "--target", &url, "--out", out.to_str().unwrap(), "--json"];
    let refused = run(&args);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("--redis"), "{refused:?}");
    let redis = format!("redis://{address}");
    let done = run(&[&args[..], &["--redis", &redis]].concat());
    assert_eq!(done.code, Some(0), "{done:?}");
    let said = done.json();
    assert!(said["accepted"].as_u64() > Some(100), "{said}");
    assert_eq!((&said["succeeded"], said["lost"].as_u64()), (&said["accepted"], Some(0)), "{said}");
}

#[test]
fn what_is_pushed_is_what_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (_redis, address) = redis(folder.path());

    let load = Load { door: Door::List, batch_share: 0.5, batch_size: 10, ..Load::default() };
    let traffic = Arc::new(Traffic::new("0a0b0c0d", 1, &load));
    let epoch = Instant::now();
    let arrivals = Arrivals::of_pieces([Piece::Linear { from: 500.0, to: 500.0, for_s: 2.0 }]);
    let plan = Arc::new(Plan {
        pace: Pace::Arrivals { arrivals, spacing: Spacing::Even, seed: 1 },
        traffic: traffic.clone(),
        load,
        settings: Generator { connections: 4, threads: 2, ..Generator::default() },
        head: HttpHead::new("", None),
        addresses: vec![address.parse().unwrap()],
        epoch,
        begin: epoch,
        part: 0,
        parts: 1,
        lane_first: 0,
        live: Arc::new(Live::default()),
        stop: Arc::new(AtomicBool::new(false)),
    });
    let (acknowledged, told) = mpsc::channel();
    let (intervals, _) = mpsc::channel();
    let lanes = generate(&plan, &Outlets { acknowledged, intervals }).unwrap();
    let accepted: u64 = lanes.iter().map(|lane| lane.counts.accepted).sum();
    assert_eq!(accepted, 1_000);
    assert!(lanes.iter().all(|lane| lane.fates.iter().all(|fate| *fate == Fate::Acknowledged)));
    assert_eq!(told.iter().flatten().map(|run| u64::from(run.count)).sum::<u64>(), accepted);
    assert_eq!(ask(&address, &format!("LLEN {LIST}"), |told| told.ends_with("\r\n")).trim(), ":1000");
    let all =
        ask(&address, &format!("LRANGE {LIST} 0 -1"), |told| told.matches("\"currency\"").count() == 1_000);
    let places = lanes
        .iter()
        .flat_map(|lane| (0..lane.fates.len() as u32).map(move |number| Place { lane: lane.lane, number }));
    for place in places {
        let id = format!("{{\"id\":\"{}\",\"campaign\"", traffic.id(place));
        assert_eq!(all.matches(&id).count(), 1, "{id} is there once");
    }
}
