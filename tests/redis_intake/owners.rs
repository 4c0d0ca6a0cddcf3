//! Taking over, fencing, leaving.

use hongbao::intake::redis::{Order, UnitId};

use crate::rig::*;
use crate::support::{PATIENCE, await_until};

fn names(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|n| format!("n{n:05}"))
}

#[test]
fn a_later_epoch_takes_over_and_the_earlier_acknowledges_nothing() {
    let server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush)]);
    let first = Instance::start(&server.url(), &keys, "first");
    first.own(&server, 1, 1);
    push(&server, "RPUSH", "hongbao:intake", names(0..1_000));
    let mut slow = Till::new(&first);
    await_until("the first to read", PATIENCE, || {
        slow.take(1_000);
        (slow.taken.len() >= 600).then_some(())
    });
    let second = Instance::start(&server.url(), &keys, "second");
    second.own(&server, 1, 2);
    push(&server, "RPUSH", "hongbao:intake", names(1_000..1_500));
    let mut till = Till::new(&second);
    await_until("the second to read all", PATIENCE, || {
        till.take(1_000);
        (till.taken.len() >= 1_500).then_some(())
    });
    // The first does not know yet. It acknowledges what it has, and learns it.
    slow.ack(0);
    await_until("the first to notice", PATIENCE, || first.held.epoch(UnitId(1)).is_none().then_some(()));
    let still_there = standing(&server, &keys, 1);
    assert_eq!(still_there.len(), 1_500, "the earlier epoch trimmed something");
    till.ack(0);
    await_empty(&server, &keys, 1);
    let inherited = till.taken.iter().filter(|(_, may_be_sent)| *may_be_sent).count();
    // What the first had read, and what came in before the second's first look; to say it of more is only careful.
    assert!(inherited >= 600, "{inherited} may have been sent by the first");
    slow.ack(0);
    assert_eq!(slow.take(1_000), 0, "what was read ahead is dropped");
    assert!(first.anomalies().is_empty() && second.anomalies().is_empty());
}

#[test]
fn the_same_instance_reads_again_under_a_later_epoch() {
    let server = server();
    let keys = keys(1, &[("hongbao:intake", Order::Rpush)]);
    let instance = Instance::start(&server.url(), &keys, "one");
    instance.own(&server, 1, 1);
    push(&server, "RPUSH", "hongbao:intake", names(0..100));
    let mut till = Till::new(&instance);
    await_until("all to be read", PATIENCE, || {
        till.take(10);
        (till.taken.len() == 100).then_some(())
    });
    instance.held.lost(UnitId(1));
    instance.intake.wake();
    instance.own(&server, 1, 2);
    await_until("all to be read again", PATIENCE, || {
        till.take(10);
        (till.taken.len() == 200).then_some(())
    });
    assert!(till.taken[100..].iter().all(|(_, may_be_sent)| *may_be_sent));
    till.ack(0);
    await_empty(&server, &keys, 1);
}

#[test]
fn a_unit_that_is_left_becomes_quiet_once_nothing_of_it_is_under_way() {
    let server = server();
    let keys = keys(2, &[]);
    let queue = hongbao::intake::QueueId { lane: hongbao::domain::Lane::Realtime, fair: 0 };
    let instance = Instance::start(&server.url(), &keys, "one");
    (0..2).for_each(|unit| instance.own(&server, unit, 1));
    let list = keys.list(UnitId(0), queue);
    push(&server, "RPUSH", &list, names(0..500));
    let mut till = Till::new(&instance);
    await_until("some to be read", PATIENCE, || {
        till.take(100);
        (till.taken.len() >= 200).then_some(())
    });
    instance.held.leave(UnitId(0));
    instance.intake.wake();
    push(&server, "RPUSH", &list, names(500..600));
    // Another unit goes on as before.
    push(&server, "RPUSH", &keys.list(UnitId(1), queue), (0..50).map(|n| format!("other{n}")));
    await_until("the other unit to be read", PATIENCE, || {
        till.take(100);
        (till.taken_of("other").len() == 50).then_some(())
    });
    assert!(!instance.held.is_quiet(UnitId(0)), "what was handed out is under way");
    let handed_out = till.taken_of("n").len();
    till.ack(0);
    await_until("it to be quiet", PATIENCE, || instance.held.is_quiet(UnitId(0)).then_some(()));
    assert_eq!(till.take(100), 0);
    assert_eq!(standing(&server, &keys, 0).len(), 600 - handed_out, "acknowledged is what was handed out");
    assert!(!instance.held.is_quiet(UnitId(1)));
}
