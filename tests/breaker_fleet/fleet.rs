//! A wallet, instances over one Redis and one view, proxies where a network is to fail, and the breaker's board.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hongbao::breaker::board::View;
use hongbao::breaker::{RedisBoard, Settings};
use hongbao::redis::{Link, Target};
use serde_json::json;

use crate::load::Load;
use crate::support::postgres::{self, Postgres};
use crate::support::proxy::FaultProxy;
use crate::support::redis::{Fsync, RedisServer, setup::free_port};
use crate::support::{PATIENCE, Server, Setup, await_until, call, env_number, hongbao, run};

const FUNDED: u64 = 1 << 50;
/// Nobody's share in the way of what is left at the end.
const DRAIN_PER_S: u64 = 100_000;
/// How long what was accepted may take then.
const DRAIN_MAX: Duration = Duration::from_secs(300);
/// Seconds of load from which on the figures are those that were asked for.
const ASKED_S: u64 = 10;

static TURN: Mutex<()> = Mutex::new(());

/// The fleet's budget, transfers a second.
pub fn rate() -> u64 {
    env_number("HONGBAO_FLEET_RATE", 1_000)
}

/// Whether the figures are to be those that were asked for, which takes a machine that does nothing else.
pub fn is_asked() -> bool {
    env_number("HONGBAO_FLEET_S", 5) >= ASKED_S
}

/// A bound as it was asked for, or what a slow and busy machine must keep.
pub fn bound<T>(asked: T, busy: T) -> T {
    if is_asked() { asked } else { busy }
}

pub struct Fleet {
    /// Those that were taken out are dead.
    pub instances: Vec<Option<Server>>,
    wallet: Option<Server>,
    wallet_port: u16,
    setups: Vec<Setup>,
    /// Between each instance and the wallet, and each and the board.
    pub to_wallet: Vec<FaultProxy>,
    pub to_board: Vec<FaultProxy>,
    postgres: Option<Postgres>,
    pub redis: RedisServer,
    folder: tempfile::TempDir,
    acks: BTreeMap<String, u64>,
    _turn: MutexGuard<'static, ()>,
}

/// Seconds since 1970, in ms.
pub fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_millis() as u64
}

impl Fleet {
    /// Three instances that own something, with a campaign that is funded; `spare` more can be started.
    pub fn start(spare: usize, sets: &[&str]) -> Fleet {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let redis = RedisServer::start(crate::support::redis::Setup::new(Fsync::EverySecond));
        let folder = tempfile::tempdir().unwrap();
        let postgres = Postgres::start(postgres::Setup::default());
        let view = format!("outcome.postgres_url={}", postgres.database("view"));
        let said = run(&["migrate", "--set", "outcome.view=postgres", "--set", &view]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let wallet_port = free_port();
        let wallet = start_wallet(&folder.path().join("wallet"), wallet_port);
        let upstream: SocketAddr = ([127, 0, 0, 1], wallet_port).into();
        let board: SocketAddr = redis.address();
        let count = 3 + spare;
        let to_wallet: Vec<FaultProxy> = (0..count).map(|_| FaultProxy::start(upstream)).collect();
        let to_board: Vec<FaultProxy> = (0..count).map(|_| FaultProxy::start(board)).collect();
        let setup = |n: usize| {
            let mut setup = Setup::new(&folder.path().join(format!("data-{n}")));
            let fixed = [
                "intake.kind=redis".to_owned(),
                format!("instance.name=i{n}"),
                format!("intake.redis.url={}", redis.url()),
                format!("intake.redis.board_url=redis://{}", to_board[n].address()),
                "intake.redis.owner_ttl_ms=2000".to_owned(),
                "intake.redis.shards=12".to_owned(),
                "stored_value.kind=http".to_owned(),
                format!("stored_value.http.url=http://{}", to_wallet[n].address()),
                "stored_value.deadline_ms=1000".to_owned(),
                format!("shaping.transfers_per_s={}", rate()),
                "outcome.view=postgres".to_owned(),
                view.clone(),
                "log.filter=info".to_owned(),
            ];
            setup.sets.extend(fixed);
            setup.sets.extend(sets.iter().map(|set| (*set).to_owned()));
            setup
        };
        let setups: Vec<Setup> = (0..count).map(setup).collect();
        let instances = setups.iter().take(3).map(|setup| Some(setup.start())).collect();
        let fleet = Fleet {
            instances,
            wallet: Some(wallet),
            wallet_port,
            setups,
            to_wallet,
            to_board,
            postgres: Some(postgres),
            redis,
            folder,
            acks: BTreeMap::new(),
            _turn: turn,
        };
        fleet.await_shared(3);
        fleet.at(0).campaign("k", FUNDED, FUNDED);
        fleet
    }

    /// Waits until so many instances share the units evenly, and the budget.
    pub fn await_shared(&self, count: usize) {
        let mut last = String::new();
        let deadline = Instant::now() + PATIENCE;
        await_until("the instances to share units and budget", PATIENCE * 2, || {
            let view = self.view();
            last = format!("{view:?}");
            assert!(Instant::now() < deadline, "{last}\n{}", self.said());
            let facts = self.instances.iter().flatten().map(|at| {
                let ready = call(&at.address, "GET /readyz", "").map(|reply| reply.body).unwrap_or_default();
                ready["units"].as_str().and_then(|units| units.parse::<usize>().ok()).unwrap_or(0)
            });
            // One more unit than shards: the list that others push to.
            let is_even = facts.clone().filter(|units| *units >= 12 / count).count() == count;
            (view.fleet() == count as u64 && is_even && facts.sum::<usize>() == 13).then_some(())
        });
    }

    pub fn at(&self, n: usize) -> &Server {
        self.instances[n].as_ref().expect("it runs")
    }

    pub fn start_instance(&mut self, n: usize) {
        let server = self.setups[n].start();
        self.instances.resize_with(self.instances.len().max(n + 1), || None);
        self.instances[n] = Some(server);
    }

    pub fn fact(&self, n: usize, name: &str) -> String {
        let ready = self.at(n).call("GET /readyz", "").body;
        ready[name].as_str().map_or_else(|| panic!("no {name} in {ready}"), str::to_owned)
    }

    pub fn addresses(&self) -> Vec<String> {
        self.instances.iter().flatten().map(|instance| instance.address.clone()).collect()
    }

    pub fn wallet(&self) -> &Server {
        self.wallet.as_ref().expect("the wallet runs")
    }

    pub fn set_faults(&self, faults: serde_json::Value) {
        self.wallet().must("PUT /faults", &faults.to_string(), 200);
    }

    pub fn kill_wallet(&mut self) {
        self.wallet.take().expect("the wallet runs").kill();
    }

    pub fn restart_wallet(&mut self) {
        self.wallet = Some(start_wallet(&self.folder.path().join("wallet"), self.wallet_port));
    }

    /// What the breaker's board shows, past every proxy.
    pub fn view(&self) -> View {
        let link = Link::new(&Target::new(self.redis.url())).expect("a link");
        let mut board = RedisBoard::new(link, "hongbao:board:breaker", Settings::default());
        let view = await_until("the breaker's board", PATIENCE, || board.peek().expect("it can be read"));
        assert!(view.state.version > 0);
        view
    }

    /// Waits for a state of the breaker and answers since when it is, Unix ms.
    pub fn await_phase(&self, phase: &str, within: Duration) -> u64 {
        let deadline = Instant::now() + within;
        await_until(&format!("the breaker to be {phase}"), within + PATIENCE, || {
            let view = self.view();
            if Instant::now() > deadline {
                panic!("not {phase} within {within:?}: {:?}\n{}", view.state, self.said());
            }
            (view.state.phase.as_str() == phase).then_some(view.state.since_ms)
        })
    }

    /// Changes of the breaker from one time on: from, to, by, reason.
    pub fn changes(&self, from_ms: u64) -> Vec<(String, String, String)> {
        let changes = self.view().state.history;
        let later = changes.into_iter().filter(|change| change.at_ms >= from_ms);
        later.map(|change| (change.from, change.to, format!("{}: {}", change.by, change.reason))).collect()
    }

    /// `hongbao breaker …` by hand, over the fleet's own Redis.
    pub fn breaker(&self, args: &[&str]) -> crate::support::Said {
        let url = format!("intake.redis.url={}", self.redis.url());
        let rate = format!("shaping.transfers_per_s={}", rate());
        let sets =
            ["intake.kind=redis", &url, "stored_value.kind=http", "stored_value.http.url=http://x", &rate];
        let mut all = vec!["breaker"];
        all.extend(args);
        sets.iter().for_each(|set| all.extend(["--set", set]));
        run(&all)
    }

    /// Puts work at every door: `factor` times the budget, batch by batch.
    pub fn load(&self, prefixes: [&'static str; 3], factor: u64) -> Vec<Load> {
        // Of each, ten batches a second at the most: a door in a debug build takes no more beside all else.
        let count = (rate() * factor / 30).clamp(100, 1_000);
        let pause = Duration::from_micros(1_000_000 * count * 3 / (rate() * factor).max(1));
        // Each at all doors, so that what one that is gone did not answer is asked of another.
        let doors = |from: usize| -> Vec<String> {
            let doors = self.addresses();
            (0..doors.len()).map(|n| doors[(from + n) % doors.len()].clone()).collect()
        };
        let loads = prefixes.into_iter().enumerate();
        loads.map(|(n, prefix)| Load::post(doors(n), prefix, count, pause)).collect()
    }

    /// Waits until every instance has more to do than it can for a while.
    pub fn await_backlog(&self, count: u64) {
        await_until("a backlog everywhere", PATIENCE, || {
            let running = self.instances.iter().enumerate().filter(|(_, at)| at.is_some());
            running
                .map(|(n, _)| self.fact(n, "backlog").parse::<u64>().unwrap_or(0))
                .all(|backlog| backlog >= count)
                .then_some(())
        });
    }

    /// Has the wallet paid every acknowledged request once, whatever is left then?
    pub fn must_agree(mut self, loads: Vec<Load>) {
        for load in loads {
            self.acks.extend(load.stop().into_iter().map(|ack| (ack.id, ack.amount)));
        }
        let drain = DRAIN_PER_S.to_string();
        let said = self.breaker(&["budget", "--transfers-per-s", &drain, "--reason", "the test is over"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let deadline = Instant::now() + DRAIN_MAX;
        let mut open = String::new();
        await_until("everything to be final", DRAIN_MAX + PATIENCE, || {
            assert!(Instant::now() < deadline, "still open: {open}\n{}", self.said());
            let ready = self.instances.iter().flatten().map(|at| call(&at.address, "GET /readyz", ""));
            let ready: Vec<_> =
                ready.map(|reply| reply.map(|reply| reply.body)).collect::<Result<_, _>>().ok()?;
            open = format!("{ready:?}");
            ready.iter().all(|ready| ready["backlog"] == "0" && ready["parked"] == "0").then_some(())
        });
        let unpaid = self.unpaid();
        assert!(unpaid.is_empty(), "{} of {} acknowledged are not paid", unpaid.len(), self.acks.len());
        let paid: u64 = self.acks.values().sum();
        let accounts = self.wallet().must("GET /balances?account=campaign:default:k", "", 200);
        assert_eq!(accounts["accounts"][0]["balance"], FUNDED - paid, "paid twice? {accounts}");
        for instance in self.instances.iter_mut().filter_map(Option::take) {
            let said = instance.stderr();
            let status = instance.terminate();
            assert!(status.success(), "{status}: {said}");
        }
        let view = self.view();
        let killed = |seen_ms: u64| view.now_ms.saturating_sub(seen_ms) > 1_000;
        assert!(view.members.values().all(|member| killed(member.seen_ms)), "who stops gives its share back");
        println!("{} acknowledged, and each paid once", self.acks.len());
    }

    fn unpaid(&self) -> Vec<String> {
        let ids: Vec<&String> = self.acks.keys().collect();
        let mut unpaid = Vec::new();
        for chunk in ids.chunks(1_000) {
            let names: Vec<String> = chunk.iter().map(|id| format!("default:{id}")).collect();
            let body = json!({ "ids": names }).to_string();
            let said = self.wallet().must("POST /v1/transfers/lookup", &body, 200);
            let results = said["results"].as_array().unwrap_or_else(|| panic!("{said}"));
            let open = chunk.iter().zip(results).filter(|(_, result)| result["status"] != "succeeded");
            unpaid.extend(open.map(|(id, _)| (*id).clone()));
        }
        unpaid
    }

    /// The last words of every instance.
    pub fn said(&self) -> String {
        let of = |server: &Server| {
            let said = server.stderr();
            let lines: Vec<&str> = said.lines().collect();
            format!("{}:\n{}", server.address, lines[lines.len().saturating_sub(25)..].join("\n"))
        };
        self.instances.iter().flatten().map(of).collect::<Vec<_>>().join("\n---\n")
    }
}

fn start_wallet(data: &PathBuf, port: u16) -> Server {
    let mut command = hongbao();
    command.args(["wallet", "--listen", &format!("127.0.0.1:{port}"), "--set", "log.filter=error", "--data"]);
    command.arg(data);
    Server::listening(command, data).unwrap_or_else(|said| panic!("the wallet: {said:?}"))
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("said at last:\n{}", self.said());
        }
        // Instances first: they hold connections.
        self.instances.clear();
        self.postgres.take();
    }
}
