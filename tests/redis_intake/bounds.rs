//! What reading costs: memory whatever the depth, Redis's time whatever the size of elements, nothing when idle.

use std::fs;
use std::time::{Duration, Instant};

use hongbao::intake::redis::{Order, ReaderOptions};

use crate::rig::*;
use crate::support::proxy::FaultProxy;
use crate::support::{PATIENCE, await_until, env_number};

/// Memory of this process in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/statm").expect("Linux");
    status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4_096
}

#[test]
fn memory_is_bounded_however_deep_a_list_is() {
    let server = server();
    let keys = keys(1, &[("deep", Order::Rpush), ("shallow", Order::Rpush)]);
    let depth = env_number("HONGBAO_DEPTH", 1_000_000);
    let fill = "for i = ARGV[1] + 1, ARGV[1] + 100000 do
        redis.call('RPUSH', KEYS[1], 'd' .. i .. '.' .. string.rep('x', 180)) end";
    let mut connection = server.connect();
    for from in (0..depth).step_by(100_000) {
        redis::cmd("EVAL").arg(fill).arg(1).arg("deep").arg(from).exec(&mut connection).unwrap();
    }
    let options = ReaderOptions { requests_max: 20_000, bytes_max: 16 << 20, ..Default::default() };
    let instance = Instance::start_with(&server.url(), &keys, "one", options, 10);
    let before = resident();
    (1..3).for_each(|unit| instance.own(&server, unit, 1));
    // Nobody takes anything: it reads half of what it may, and leaves room for others.
    let mut till = Till::new(&instance);
    let half = await_until("it to stop reading", PATIENCE, || {
        let backlog = instance.intake.backlog();
        (backlog.elements >= depth && backlog.requests >= depth).then_some(backlog)
    });
    push(&server, "RPUSH", "shallow", ["other".to_owned()]);
    await_until("the shallow list to be read", PATIENCE, || {
        till.take(100);
        (till.taken_of("other").len() == 1).then_some(())
    });
    let (wanted, started) = (depth as usize / 10, Instant::now());
    await_until("a tenth of it", PATIENCE, || {
        till.ack(100);
        while till.acked.len() < wanted && till.take(500) > 0 {
            till.ack(100);
        }
        (till.acked.len() >= wanted).then_some(())
    });
    let (grown, elapsed) = (resident().saturating_sub(before), started.elapsed());
    // The names that the till keeps are some 20 MB of it.
    assert!(grown < 100 << 20, "{grown} bytes more");
    println!("{half:?}, {grown} bytes more, {wanted} requests in {elapsed:?}");
}

#[test]
fn large_elements_never_keep_redis_from_others() {
    let server = server();
    let keys = keys(1, &[("mixed", Order::Rpush)]);
    let mut connection = server.connect();
    // Small ones first, so that the reader has every reason to expect more of them.
    for (prefix, count, bytes) in [("s", 20_000, 100), ("l", 3_000, 100 << 10), ("t", 20_000, 100)] {
        for from in (0..count).step_by(500) {
            let name = |n: i32| format!("{prefix}{n}.{}", "x".repeat(bytes));
            let names: Vec<String> = (from..from + 500).map(name).collect();
            redis::cmd("RPUSH").arg("mixed").arg(names).exec(&mut connection).unwrap();
        }
    }
    let instance = Instance::start(&server.url(), &keys, "one");
    instance.own(&server, 1, 1);
    let mut till = Till::new(&instance);
    // What Redis holds of a reply is what it was kept busy with; by time, this would measure the machine.
    let mut largest = 0;
    await_until("all to be read", PATIENCE, || {
        let info = server.info("client_recent_max_output_buffer");
        largest = largest.max(info.and_then(|bytes| bytes.parse::<u64>().ok()).expect("a number"));
        till.take(500);
        till.ack(if till.acked.len() > 42_000 { 0 } else { 50 });
        (till.acked.len() == 43_000).then_some(())
    });
    await_empty(&server, &keys, 1);
    println!("the largest reply had {largest} bytes");
    assert!((1 << 20..24 << 20).contains(&largest), "{largest} bytes in one reply");
    assert_eq!(till.taken.len(), 43_000, "each once");
}

/// Processor time of this process's threads of that name.
fn thread_time(name: &str) -> Duration {
    let mut ticks = 0;
    for task in fs::read_dir("/proc/self/task").expect("Linux").flatten() {
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((head, fields)) = stat.rsplit_once(") ") else { continue };
        if head.ends_with(name) {
            let field =
                |at: usize| fields.split(' ').nth(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
            ticks += field(11) + field(12);
        }
    }
    Duration::from_millis(10 * ticks)
}

#[test]
fn an_idle_service_costs_next_to_nothing() {
    let server = server();
    let keys = keys(16, &[("hongbao:intake", Order::Rpush)]);
    let instance = Instance::start(&server.url(), &keys, "one");
    (0..17).for_each(|unit| instance.own(&server, unit, 1));
    let commands = || server.info("total_commands_processed").unwrap().parse::<u64>().unwrap();
    let calm = Instant::now() + Duration::from_millis(500);
    await_until("it to calm down", PATIENCE, || (Instant::now() > calm).then_some(()));
    let (before, used, since) = (commands(), thread_time("redis-reader"), Instant::now());
    await_until("two seconds", PATIENCE, || (since.elapsed() >= Duration::from_secs(2)).then_some(()));
    let (asked, used) = (commands() - before, thread_time("redis-reader") - used);
    println!("{asked} commands, {used:?} of the reader's time in two seconds");
    // Seventeen units, each looked at twenty times a second.
    assert!((300..1_000).contains(&asked), "{asked} commands in two seconds");
    let part = used.as_secs_f64() / since.elapsed().as_secs_f64();
    assert!(part < 0.10, "{:.1} % of a core, without optimization", 100.0 * part);
    // And what comes then is read soon.
    let pushed = Instant::now();
    push(&server, "RPUSH", "hongbao:intake", ["late".to_owned()]);
    let mut till = Till::new(&instance);
    till.run_until_acked(1, 0);
    assert!(pushed.elapsed() < Duration::from_millis(500), "{:?}", pushed.elapsed());
}

/// Pushes `count` elements of so many bytes each, made by Redis itself.
fn fill(connection: &mut redis::Connection, list: &str, prefix: &str, count: u64, bytes: u64) {
    let fill = "for i = 1, ARGV[2] do
        redis.call('RPUSH', KEYS[1], ARGV[1] .. i .. '.' .. string.rep('x', ARGV[3])) end";
    redis::cmd("EVAL").arg(fill).arg(1).arg(list).arg((prefix, count, bytes)).exec(connection).unwrap();
}

#[test]
fn what_is_too_large_is_buried_without_being_read_whole() {
    let server = server();
    let keys = keys(1, &[("huge", Order::Rpush), ("mixed", Order::Lpush)]);
    let mut connection = server.connect();
    fill(&mut connection, "huge", "h", 8, 24 << 20);
    for (prefix, count, bytes) in [("s", 8_000, 100), ("l", 120, 2 << 20), ("t", 500, 100)] {
        let fill = "for i = 1, ARGV[2] do
            redis.call('LPUSH', KEYS[1], ARGV[1] .. i .. '.' .. string.rep('x', ARGV[3])) end";
        redis::cmd("EVAL")
            .arg(fill)
            .arg(1)
            .arg("mixed")
            .arg((prefix, count, bytes))
            .exec(&mut connection)
            .unwrap();
    }
    server.cli(&["CONFIG", "RESETSTAT"]);
    let number =
        |field: &str| server.info(field).and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let (sent, held) = (number("total_net_output_bytes"), number("used_memory"));
    let options = ReaderOptions { element_bytes_max: 64 << 10, ..ReaderOptions::default() };
    let instance = Instance::start_with(&server.url(), &keys, "one", options, 1_000);
    (1..3).for_each(|unit| instance.own(&server, unit, 1));
    let mut till = Till::new(&instance);
    till.run_until_acked(8_500, 2);
    (1..3).for_each(|unit| await_empty(&server, &keys, unit));
    assert_eq!(till.taken.len(), 8_500, "each once");
    assert_eq!(till.taken_of("t").len(), 500);
    let dead =
        |unit: u16| server.cli(&["LRANGE", &keys.dead(hongbao::intake::redis::UnitId(unit)), "0", "-1"]);
    let first = format!("too_large of {} h1.xxx", (24 << 20) + 3);
    assert!(dead(1).starts_with(&first), "{:.60}", dead(1));
    assert_eq!((dead(1).lines().count(), dead(2).lines().count()), (8, 120));
    // 128 beginnings, and the small ones: some 12 MB, and as much again for each read that is given up on a busy machine.
    // Whole, the large ones alone would be 430 MB.
    let sent = number("total_net_output_bytes") - sent;
    assert!(sent < 400 << 20, "{sent} bytes were sent");
    let peak = number("used_memory_peak").saturating_sub(held);
    println!("{sent} bytes sent, {peak} more in Redis at its peak");
}

#[test]
fn a_few_large_elements_behind_many_small_ones_are_not_read_at_once() {
    let server = server();
    let keys = keys(1, &[("late", Order::Rpush)]);
    let mut connection = server.connect();
    // Between two of the elements that are probed, so that only what the list has as a whole tells of them. One a
    // command, or the append-only file's buffer would have them all at once, as a reply would.
    fill(&mut connection, "late", "s", 8_020, 100);
    for number in 0..110 {
        fill(&mut connection, "late", &format!("l{number}x"), 1, 900 << 10);
    }
    fill(&mut connection, "late", "t", 4_000, 100);
    let number =
        |field: &str| server.info(field).and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let held = number("used_memory").max(number("used_memory_peak"));
    let instance = Instance::start(&server.url(), &keys, "one");
    instance.own(&server, 1, 1);
    let mut till = Till::new(&instance);
    till.run_until_acked(12_130, 2);
    await_empty(&server, &keys, 1);
    assert_eq!(till.taken.len(), 12_130, "each once");
    let peak = number("used_memory_peak").saturating_sub(held);
    println!("{peak} bytes more in Redis at its peak");
    assert!(peak < 24 << 20, "{peak} bytes of replies at once");
}

#[test]
fn over_a_link_too_slow_for_a_read_less_is_read_at_once() {
    let server = server();
    let keys = keys(1, &[("slow", Order::Rpush)]);
    fill(&mut server.connect(), "slow", "e", 24, 200 << 10);
    let proxy = FaultProxy::start(server.address());
    let instance = Instance::start(&server.url_at(proxy.address().port()), &keys, "one");
    // Within its second, some 7 of 16.
    proxy.throttle(Some(1_500_000));
    instance.own(&server, 1, 1);
    let mut till = Till::new(&instance);
    till.run_until_acked(24, 0);
    assert_eq!(till.taken.len(), 24, "each once");
}
