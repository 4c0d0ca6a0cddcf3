//! The breaker's board in a real Redis: it grants as the table does, never more than the budget, whatever happens at
//! once; states are replaced by those who have seen them; an unknown format stops it.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hongbao::breaker::board::{self, Permit, Report, Said, Workload};
use hongbao::breaker::classify::Counts;
use hongbao::breaker::policy::Wish;
use hongbao::breaker::table::Table;
use hongbao::breaker::{Board, BoardError, Phase, RedisBoard, Settings, State};
use hongbao::redis::{Link, Target};
use hongbao::shaping::Amount;
use hongbao::shaping::lease::{Ask, Holder};
use support::redis::{Fsync, RedisServer, Setup};
use support::{PATIENCE, await_until};

const KEY: &str = "hongbao:board:breaker";

fn settings() -> Settings {
    Settings { rate_per_s: 1_000, calls_max: 20, lease_ms: 60, reserve_ms: 120, ..Settings::default() }
}

fn board_of(server: &RedisServer) -> RedisBoard {
    let link = Link::new(&Target::new(server.url())).expect("a link");
    RedisBoard::new(link, KEY, settings())
}

fn below(dice: &mut u64, bound: u64) -> u64 {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    (*dice >> 11) % bound
}

fn report(dice: &mut u64, epoch: u64, sequence: u64) -> Report {
    let mut amount = |rate, calls| Amount { rate_per_s: below(dice, rate), calls: below(dice, calls) };
    let (want, keep, demand) = (amount(700, 12), amount(200, 6), amount(5_000, 50));
    let permit = [Permit::None, Permit::Holds, Permit::Wants][below(dice, 3) as usize];
    let counts = Counts { healthy: below(dice, 50), overload: 1, timeout: 2, unknown: 3 };
    let work = Workload { waiting: below(dice, 1 << 40), done_per_s: below(dice, 9_000) };
    let is_for_stopping = below(dice, 2) == 1;
    let said = Said { epoch, demand, counts, is_for_stopping, work: Some(work), ..Said::default() };
    let instance = format!("instance {}", below(dice, 6));
    Report { instance, ask: Ask { sequence, want, keep }, permit, said }
}

#[test]
fn the_script_grants_what_the_table_grants() {
    let server = RedisServer::start(Setup::new(Fsync::NoFile));
    let mut redis = board_of(&server);
    let state = redis.look().expect("a first state").state;
    let mut table = Table::new(state);
    let mut dice = 0x1234_5678_9abc_def1;
    for step in 1..1_500u64 {
        if step % 100 == 0 {
            // Another phase, put on both.
            let seen = redis.look().expect("a view");
            let mut next = seen.state.clone();
            next.version += 1;
            next.phase = match step / 100 % 4 {
                0 => Phase::Closed,
                1 => Phase::HalfOpen,
                2 => Phase::Ramp { cap_permille: 333, step_at_ms: 1 },
                _ => Phase::Open { until_ms: seen.now_ms },
            };
            assert!(redis.replace(&seen, &next).expect("reachable"));
            table.state = next;
        }
        // Some are late, and came twice.
        let sequence = step - below(&mut dice, 4).min(step - 1);
        let report = report(&mut dice, table.state.epoch, sequence);
        let given = redis.beat(&report).expect("reachable");
        let expected = table.beat(given.view.now_ms, &report);
        assert_eq!(given, expected, "step {step}: {report:?}");
        if below(&mut dice, 40) == 0 {
            std::thread::sleep(Duration::from_millis(1 + below(&mut dice, 150)));
        }
    }
}

#[test]
fn many_at_once_never_use_more_than_the_budget() {
    let server = RedisServer::start(Setup::new(Fsync::NoFile));
    let began = Instant::now();
    let end = began + Duration::from_millis(1_500);
    let now_ns = move || 1 + began.elapsed().as_nanos() as u64;
    let holders: Arc<Vec<Mutex<Holder>>> = Arc::new((0..6).map(|_| Mutex::default()).collect());
    let is_used = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..6)
        .map(|own| {
            let (holders, mut board) = (holders.clone(), board_of(&server));
            let is_used = is_used.clone();
            std::thread::spawn(move || {
                let mut dice = 77 + own as u64;
                while Instant::now() < end {
                    let want = Amount { rate_per_s: below(&mut dice, 900), calls: 5 };
                    let ask = holders[own].lock().unwrap().ask(now_ns(), want);
                    let said = Said { epoch: 1, work: Some(Workload::default()), ..Said::default() };
                    let instance = format!("instance {own}");
                    let report = Report { instance, ask, permit: Permit::None, said };
                    let orders = board.beat(&report).expect("reachable");
                    let mut holder = holders[own].lock().unwrap();
                    let fleet = orders.view.fleet();
                    holder.granted(orders.sequence, (orders.granted, orders.kept), (60, 120), fleet);
                    drop(holder);
                    // All at one moment: nobody can ask or be answered meanwhile.
                    let all: Vec<_> = holders.iter().map(|holder| holder.lock().unwrap()).collect();
                    let now = now_ns();
                    let sum: u64 = all.iter().map(|holder| holder.amount(now).rate_per_s).sum();
                    assert!(sum <= 1_000, "{sum} of 1000");
                    is_used.fetch_or(sum > 900, Ordering::Relaxed);
                    drop(all);
                    std::thread::sleep(Duration::from_millis(below(&mut dice, 90)));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("the budget is kept"));
    assert!(is_used.load(Ordering::Relaxed), "and nearly used now and then");
}

#[test]
fn an_operator_is_heard_and_remembered_and_a_stale_decision_is_not() {
    let server = RedisServer::start(Setup::new(Fsync::NoFile));
    let (mut one, mut other) = (board_of(&server), board_of(&server));
    let seen = one.look().expect("a view");
    let opened = board::wish(&mut other, Wish::Open, "ann", "the wallet is being moved").expect("written");
    assert!(!one.replace(&seen, &State::new(settings(), 1)).expect("reachable"), "it did not see ann");
    let state = one.look().expect("a view").state;
    assert_eq!(state, opened);
    let last = state.history.back().expect("remembered");
    assert_eq!((last.by.as_str(), last.reason.as_str()), ("ann", "the wallet is being moved"));
    for round in 0..40 {
        let wish = if round % 2 == 0 { Wish::Auto } else { Wish::Close };
        board::wish(&mut one, wish, "ann", "a drill").expect("written");
    }
    assert_eq!(one.look().expect("a view").state.history.len(), 32, "bounded");

    let mut old = one.look().expect("a view");
    old.now_ms -= 2_000;
    let next = old.state.wished(old.now_ms, Wish::Open, "somebody", "was frozen");
    assert!(!one.replace(&old, &next).expect("reachable"));
    let more = Settings { rate_per_s: 5_000, ..settings() };
    let state = board::set(&mut one, &more, "ann", "more").expect("written");
    assert_eq!((state.settings.rate_per_s, state.terms().rate_per_s), (5_000, 5_000));
}

#[test]
fn another_format_is_refused_by_name_and_a_full_or_lost_redis_is_told() {
    let mut server = RedisServer::start(Setup::new(Fsync::NoFile));
    let mut board = board_of(&server);
    let mut dice = 5;
    server.set("maxmemory", "1mb");
    board.beat(&report(&mut dice, 1, 1)).expect("a full Redis still takes a first state");
    board.beat(&report(&mut dice, 1, 9)).expect("a full Redis still takes beats");
    server.set("maxmemory", "0");

    let good = server.cli(&["HGET", KEY, "state"]);
    let too_large = good.replace("\"rate_per_s\":1000", "\"rate_per_s\":1e300");
    for (field, value, said) in [
        ("i:newer", "2|whatever", "of another format"),
        ("state", "{\"format\":2}", "format"),
        ("state", "{", "damaged"),
        ("state", &too_large, "rate_per_s"),
    ] {
        server.cli(&["HSET", KEY, field, value]);
        let error = board.beat(&report(&mut dice, 1, 20)).expect_err("it cannot know what that one has");
        let told = error.to_string();
        assert!(matches!(error, BoardError::Unreadable { .. }), "{told}");
        assert!(told.contains(said), "{told}");
        assert!(told.contains(&format!("HDEL {KEY} '{field}'")), "and what to do: {told}");
        assert!(matches!(board.look(), Err(BoardError::Unreadable { .. })));
        server.cli(&["HDEL", KEY, field]);
        if field == "state" {
            server.cli(&["HSET", KEY, field, &good]);
        }
    }
    server.cli(&["RENAME", KEY, "elsewhere"]);
    server.cli(&["SET", KEY, "somebody's"]);
    let error = board.beat(&report(&mut dice, 1, 20)).expect_err("it is no board");
    assert!(matches!(error, BoardError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains(&format!("DEL {KEY}")), "{error}");
    server.cli(&["RENAME", "elsewhere", KEY]);
    board.leave("instance 0").expect("reachable");

    server.sigkill();
    assert!(matches!(board.look(), Err(BoardError::Unreachable(_))));
    server.restart();
    await_until("it to answer again", PATIENCE, || board.beat(&report(&mut dice, 1, 30)).ok());
}

#[test]
fn what_is_dated_ahead_of_redis_own_clock_counts_for_nothing_and_goes() {
    let server = RedisServer::start(Setup::new(Fsync::NoFile));
    let mut redis = board_of(&server);
    let now_ms = redis.look().expect("a first state").now_ms;
    let ahead = now_ms + 3_600_000;
    // All of the budget, and every permit, by a clock that was an hour ahead.
    let entry = format!("1|9|{ahead}|{0}|{0}|1000|20|1000|20|{0}|1|1|1|1|0|0|0|0|0|0|0|0", ahead + 9_000);
    server.cli(&["HSET", KEY, "i:dead", &entry, "w:dead", "7|8"]);
    let mut dice = 9;
    let mut report = report(&mut dice, 1, 1);
    report.ask.want = Amount { rate_per_s: 1_000, calls: 20 };
    let orders = redis.beat(&report).expect("reachable");
    assert_eq!(orders.granted, report.ask.want);
    assert_eq!(orders.view.members.keys().collect::<Vec<_>>(), [&report.instance]);
    for field in ["i:dead", "w:dead"] {
        assert_eq!(server.cli(&["HEXISTS", KEY, field]).trim(), "0", "and is forgotten: {field}");
    }
    server.cli(&["HSET", KEY, "i:dead", &entry]);
    assert_eq!(redis.look().expect("a view").members.len(), 1);
    // What it has to do stands beside, and may be damaged, or not be there: it then does not say.
    let work = |redis: &mut RedisBoard| {
        let view = redis.look().expect("a view");
        view.members[&report.instance].said.work
    };
    assert_eq!(work(&mut redis), report.said.work);
    let field = format!("w:{}", report.instance);
    server.cli(&["HSET", KEY, &field, "7|x"]);
    assert_eq!(work(&mut redis), None);
    server.cli(&["HSET", KEY, &field, "7|8"]);
    assert_eq!(work(&mut redis), Some(Workload { waiting: 7, done_per_s: 8 }));
    redis.leave(&report.instance).expect("reachable");
    assert_eq!(server.cli(&["HKEYS", KEY]).lines().filter(|field| field.starts_with(['i', 'w'])).count(), 1);
}
