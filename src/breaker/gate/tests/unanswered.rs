//! Calls that nobody answers, and those that are answered late.

use super::*;

/// Time passes, in which the instance does nothing but beat.
fn pass(rig: &mut Rig, for_ms: u64) {
    (0..for_ms / 10).for_each(|_| rig.beat());
}

/// Sends so many calls, each after a pause.
fn send(rig: &mut Rig, count: usize) -> Vec<Ticket> {
    let mut one = || {
        rig.now_ms += 20;
        rig.admit().expect("a lease")
    };
    (0..count).map(|_| one()).collect()
}

fn is_stopped(rig: &Rig) -> bool {
    rig.governor.vote.tripped_at_ms().is_some() || rig.phase() != "closed"
}

#[test]
fn calls_that_were_answered_after_the_stop_tell_how_slow_the_wallet_is() {
    let mut rig = Rig::new();
    let tickets = send(&mut rig, 3);
    pass(&mut rig, 700);
    assert_ne!(rig.phase(), "closed", "nothing is known of it");
    for ticket in tickets {
        rig.governor.answered(rig.now_ns(), ticket, &Counts::of(Class::Healthy, ticket.count));
    }
    rig.wish(Wish::Close);
    rig.wish(Wish::Auto);
    pass(&mut rig, 500);
    send(&mut rig, 3);
    pass(&mut rig, 2_400);
    assert_eq!(rig.phase(), "closed", "it is slow");
    pass(&mut rig, 1_000);
    assert_ne!(rig.phase(), "closed", "it is dead");
}

#[test]
fn a_timeout_counts_once_while_its_blame_is_in_the_window_and_else_for_itself() {
    for (deadline_ms, stops) in [(800, false), (2_000, true)] {
        let mut rig = Rig::new();
        let tickets = send(&mut rig, 2);
        pass(&mut rig, deadline_ms);
        assert!(!is_stopped(&rig), "two calls are too few");
        for ticket in tickets {
            rig.governor.answered(rig.now_ns(), ticket, &Counts::of(Class::Timeout, ticket.count));
        }
        assert_eq!(is_stopped(&rig), stops, "after {deadline_ms} ms");
    }
}

#[test]
fn what_lies_unread_is_no_silence() {
    for is_answered in [true, false] {
        let mut rig = Rig::new();
        send(&mut rig, 3);
        for _ in 0..20 {
            pass(&mut rig, 100);
            if is_answered {
                rig.governor.replied_at_ns().store(rig.now_ns() - 15 * MS, Ordering::Relaxed);
            }
        }
        assert_eq!(is_stopped(&rig), !is_answered);
    }
}

#[test]
fn a_try_that_is_answered_ends_the_silence() {
    for class in [Class::Healthy, Class::Timeout] {
        let mut rig = Rig::new();
        let sent = send(&mut rig, 3);
        for _ in 0..10 {
            pass(&mut rig, 100);
            rig.governor.under_way += 1;
            let tried = Ticket { kind: Kind::Solo, count: 1, ..sent[0] };
            rig.governor.answered(rig.now_ns(), tried, &Counts::of(class, 1));
        }
        assert_eq!(is_stopped(&rig), class == Class::Timeout);
    }
}
