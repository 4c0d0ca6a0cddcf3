//! Scenes over the pure state machine: a clock moved by hand, a wallet that is the test.

use super::*;

const MS: Duration = Duration::from_millis(1);

struct Scene {
    calls: Calls<u64>,
    now: Instant,
    done: Vec<Done<u64>>,
    next_sequence: u64,
}

fn good() -> Answer {
    Answer { status: TransferStatus::Succeeded, wallet_ref: String::new() }
}

fn lost() -> CallError {
    CallError::Unknown("reset".to_owned())
}

fn timed_out() -> CallError {
    CallError::TimedOut { after_ms: 1_000 }
}

impl Scene {
    fn new() -> Scene {
        let options = CallOptions {
            batch_count_max: 100,
            calls_max: 4,
            deadline: Duration::from_secs(1),
            slot_count: 1_024,
        };
        Scene { calls: Calls::new(options, 7), now: Instant::now(), done: Vec::new(), next_sequence: 0 }
    }

    /// Requests of parties `party_from..`, one each.
    fn push(&mut self, count: u64, party_from: u64) {
        for n in 0..count {
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            self.calls.push(sequence, party_from + n, Errand::Transfer, sequence, self.now, &mut self.done);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.calls.tick(self.now);
    }

    fn call(&mut self) -> Option<Call> {
        self.calls.next(self.now, &mut self.done)
    }

    fn answer(&mut self, call: &Call) {
        let answers = call.sequences.iter().map(|_| good()).collect();
        self.calls.answered(call.id, Ok(answers), self.now, &mut self.done);
    }

    fn fail(&mut self, call: &Call, error: CallError) {
        self.calls.answered(call.id, Err(error), self.now, &mut self.done);
    }

    /// Makes calls and answers each with `answer` (an error, or good for all) until nothing is left or `rounds` ran.
    fn run(&mut self, rounds: usize, mut answer: impl FnMut(&Call) -> Option<CallError>) {
        for _ in 0..rounds {
            self.pass(5 * MS);
            while let Some(call) = self.call() {
                match answer(&call) {
                    Some(error) => self.fail(&call, error),
                    None => self.answer(&call),
                }
            }
            if self.calls.is_empty() {
                return;
            }
        }
    }

    fn ended(&self) -> Vec<(u64, u32, bool)> {
        let mut ended: Vec<_> = self
            .done
            .iter()
            .map(|done| (done.payload, done.sends, matches!(done.ended, Ended::Answered(_))))
            .collect();
        ended.sort_unstable();
        ended
    }
}

#[test]
fn every_request_is_answered_once_and_sent_once_when_nothing_fails() {
    let mut scene = Scene::new();
    scene.push(350, 0);
    scene.run(100, |_| None);
    assert_eq!(scene.ended(), (0..350).map(|n| (n, 1, true)).collect::<Vec<_>>());
}

#[test]
fn lost_replies_are_sent_again_whole_and_never_mixed_with_first_attempts() {
    let mut scene = Scene::new();
    scene.push(100, 0);
    let first = scene.call().unwrap();
    scene.fail(&first, lost());
    scene.push(100, 1_000);
    scene.pass(200 * MS);
    let again = scene.call().unwrap();
    assert_eq!(again.sequences, first.sequences, "the same, and no other");
    let fresh = scene.call().unwrap();
    assert_eq!(fresh.sequences, (100..200).collect::<Vec<_>>());
    scene.answer(&again);
    scene.answer(&fresh);
    let ended = scene.ended();
    assert!(ended.iter().all(|(n, sends, answered)| *answered && *sends == if *n < 100 { 2 } else { 1 }));
}

#[test]
fn a_tenth_of_replies_lost_costs_little_more_than_a_tenth_of_touches() {
    let mut scene = Scene::new();
    let (mut touches, mut calls, mut pushed) = (0, 0u64, 0);
    while pushed < 20_000 || !scene.calls.is_empty() {
        if pushed < 20_000 && scene.next_sequence - scene.done.len() as u64 <= 800 {
            scene.push(100, pushed);
            pushed += 100;
        }
        scene.pass(5 * MS);
        while let Some(call) = scene.call() {
            touches += call.sequences.len();
            calls += 1;
            if calls.is_multiple_of(10) { scene.fail(&call, timed_out()) } else { scene.answer(&call) }
        }
    }
    assert_eq!(scene.done.len(), 20_000);
    assert!(scene.done.iter().all(|done| matches!(done.ended, Ended::Answered(_))));
    assert!(touches as f64 / 20_000.0 < 1.25, "{touches} touches");
}

#[test]
fn an_outage_hands_nothing_back_and_holds_calls_back() {
    let (mut scene, mut beat) = guarded(10_000);
    scene.push(400, 0);
    let mut calls = 0;
    for _ in 0..300 {
        scene.pass(100 * MS);
        beat(&scene);
        while let Some(call) = scene.call() {
            calls += 1;
            scene.fail(&call, timed_out());
        }
    }
    assert!(scene.done.is_empty(), "nothing is given up in 30 s of silence");
    assert!(calls < 50, "{calls} calls at a wallet that is down");
    assert!(matches!(scene.calls.gate().state(), GateState::HeldBack(_)));
    let back_at = scene.now;
    for _ in 0..2_000 {
        scene.pass(5 * MS);
        beat(&scene);
        while let Some(call) = scene.call() {
            scene.answer(&call);
        }
    }
    assert_eq!(scene.done.len(), 400);
    assert!(scene.now - back_at <= Duration::from_secs(10), "{:?}", scene.now - back_at);
}

#[test]
fn a_payee_that_holds_up_its_batch_is_found_and_the_others_go_on() {
    let mut scene = Scene::new();
    // What calls take is known: 5 ms.
    scene.push(100, 0);
    let call = scene.call().unwrap();
    scene.pass(5 * MS);
    scene.answer(&call);
    scene.done.clear();
    // Party 7 is in the batch; every call with it hangs.
    let held = 107;
    scene.push(100, 0);
    let mut hanging: Vec<(Call, Instant)> = Vec::new();
    for _ in 0..600 {
        // The rest of the world goes on meanwhile.
        scene.push(1, 10_000 + scene.next_sequence);
        scene.pass(5 * MS);
        while let Some(call) = scene.call() {
            if call.sequences.contains(&held) {
                hanging.push((call, scene.now));
            } else {
                scene.answer(&call);
            }
        }
        let now = scene.now;
        let (over, on): (Vec<_>, Vec<_>) =
            hanging.into_iter().partition(|(_, at)| now >= *at + Duration::from_secs(1));
        hanging = on;
        for (call, _) in over {
            scene.fail(&call, timed_out());
        }
        if scene.done.iter().filter(|done| (100..200).contains(&done.payload)).count() == 100 {
            break;
        }
    }
    let ended = scene.ended();
    let of_batch: Vec<_> = ended.iter().filter(|(n, ..)| (100..200).contains(n)).collect();
    assert_eq!(of_batch.len(), 100);
    assert!(of_batch.iter().all(|(n, _, answered)| *answered == (*n != held)), "{of_batch:?}");
    // From now on the payee travels alone, and more of its requests than fit are handed back unsent.
    scene.done.clear();
    scene.push(1, 7);
    scene.push(1, 7);
    scene.push(1, 7);
    assert_eq!(scene.done.len(), 1);
    assert_eq!((scene.done[0].sends, &scene.done[0].ended), (0, &Ended::NoAnswer));
    let solo = scene.call().unwrap();
    assert_eq!(solo.sequences.len(), 1);
}

#[test]
fn a_batch_too_large_is_halved_and_the_bound_remembered() {
    let mut scene = Scene::new();
    scene.push(300, 0);
    let mut largest = 0;
    scene.run(500, |call| {
        let too_large = call.sequences.len() > 30;
        largest = if too_large { largest } else { largest.max(call.sequences.len()) };
        too_large.then(|| CallError::TooLarge("413".to_owned()))
    });
    assert_eq!(scene.done.len(), 300);
    assert!(scene.done.iter().all(|done| matches!(done.ended, Ended::Answered(_))));
    assert_eq!(largest, 25);
}

#[test]
fn a_request_that_breaks_every_batch_is_found_and_handed_back() {
    let mut scene = Scene::new();
    scene.push(100, 0);
    // One in a hundred other calls keeps succeeding, so that the wallet is known to be well.
    for _ in 0..2_000 {
        if scene.next_sequence < 900 {
            scene.push(1, 50_000 + scene.next_sequence);
        }
        scene.pass(10 * MS);
        while let Some(call) = scene.call() {
            if call.sequences.contains(&42) { scene.fail(&call, lost()) } else { scene.answer(&call) }
        }
        if scene.calls.is_empty() && scene.next_sequence >= 900 {
            break;
        }
    }
    let handed_back: Vec<_> = scene.ended().into_iter().filter(|(.., answered)| !answered).collect();
    assert_eq!(handed_back.iter().map(|(n, ..)| *n).collect::<Vec<_>>(), [42]);
    assert_eq!(scene.done.len(), scene.next_sequence as usize);
}

#[test]
fn refused_credentials_stop_all_and_cost_nobody_anything() {
    let mut scene = Scene::new();
    scene.push(250, 0);
    let mut mended = false;
    let mut calls = 0;
    for round in 0..4_000 {
        mended |= round == 2_000;
        scene.pass(5 * MS);
        while let Some(call) = scene.call() {
            calls += u32::from(!mended);
            if mended {
                scene.answer(&call)
            } else {
                scene.fail(&call, CallError::Unauthorized("401".to_owned()))
            }
        }
    }
    assert!(calls <= 8, "{calls} calls in ten seconds");
    assert_eq!(scene.done.len(), 250);
    assert!(scene.done.iter().all(|done| matches!(done.ended, Ended::Answered(_))));
}

#[test]
fn a_late_reply_after_the_parts_were_answered_changes_nothing() {
    let mut scene = Scene::new();
    scene.push(50, 0);
    let warm = scene.call().unwrap();
    scene.pass(5 * MS);
    scene.answer(&warm);
    scene.push(50, 0);
    let held = scene.call().unwrap();
    scene.push(50, 500);
    scene.pass(60 * MS);
    let other = scene.call().unwrap();
    scene.answer(&other);
    scene.pass(MS);
    let mut parts = 0;
    while let Some(call) = scene.call() {
        assert!(call.sequences.iter().all(|n| held.sequences.contains(n)));
        parts += 1;
        scene.answer(&call);
    }
    assert!(parts > 1);
    assert_eq!(scene.done.len(), 150);
    scene.answer(&held);
    assert_eq!(scene.done.len(), 150, "each left once");
    assert!(scene.calls.is_empty() && scene.calls.flying() == 0);
}

#[test]
fn requests_that_are_never_answered_do_not_starve_others_when_nothing_else_is_on() {
    let mut scene = Scene::new();
    let hopeless = |call: &Call| call.sequences.iter().any(|n| *n < 2);
    // One call each, so that neither is held up by the other.
    for party in [1, 2] {
        scene.push(1, party);
        let call = scene.call().unwrap();
        scene.fail(&call, timed_out());
    }
    for _ in 0..600 {
        scene.pass(50 * MS);
        while let Some(call) = scene.call() {
            scene.fail(&call, timed_out());
        }
    }
    scene.push(1, 3);
    for _ in 0..400 {
        scene.pass(50 * MS);
        while let Some(call) = scene.call() {
            if hopeless(&call) { scene.fail(&call, timed_out()) } else { scene.answer(&call) }
        }
    }
    assert!(scene.ended().iter().any(|(n, _, answered)| *n == 2 && *answered), "{:?}", scene.ended());
}

#[test]
fn an_entry_that_is_refused_as_overload_again_and_again_leaves_the_ring() {
    let mut scene = Scene::new();
    scene.push(100, 0);
    for _ in 0..400 {
        if scene.next_sequence < 300 {
            scene.push(1, 5_000 + scene.next_sequence);
        }
        scene.pass(20 * MS);
        while let Some(call) = scene.call() {
            let answer = |n: &u64| match n {
                42 => Answer {
                    status: TransferStatus::Failed(PayoutCode::WalletOverloaded),
                    wallet_ref: String::new(),
                },
                _ => good(),
            };
            let answers = call.sequences.iter().map(answer).collect();
            scene.calls.answered(call.id, Ok(answers), scene.now, &mut scene.done);
        }
    }
    assert!(scene.calls.is_empty());
    let left: Vec<_> = scene.done.iter().filter(|done| done.payload == 42).collect();
    assert_eq!(left.len(), 1);
    assert!(matches!(&left[0].ended, Ended::Answered(answer)
        if answer.status == TransferStatus::Failed(PayoutCode::WalletOverloaded)));
    assert_eq!(scene.calls.gate().state(), &GateState::Open, "one entry says nothing of the wallet");
}

#[test]
fn one_entry_that_the_wallet_rejects_is_found_and_the_others_are_paid() {
    let mut scene = Scene::new();
    scene.push(100, 0);
    for _ in 0..3_000 {
        if scene.next_sequence < 600 {
            scene.push(1, 5_000 + scene.next_sequence);
        }
        scene.pass(10 * MS);
        while let Some(call) = scene.call() {
            let rejected = CallError::Rejected("422".to_owned());
            if call.sequences.contains(&42) { scene.fail(&call, rejected) } else { scene.answer(&call) }
        }
    }
    let handed_back: Vec<_> = scene.ended().into_iter().filter(|(.., answered)| !answered).collect();
    assert_eq!(handed_back.iter().map(|(n, ..)| *n).collect::<Vec<_>>(), [42]);
    assert_eq!(scene.done.len(), 600);
}

#[test]
fn a_passing_413_is_forgotten_and_hands_nothing_back() {
    let mut scene = Scene::new();
    scene.push(100, 0);
    for _ in 0..50 {
        scene.pass(20 * MS);
        while let Some(call) = scene.call() {
            scene.fail(&call, CallError::TooLarge("413".to_owned()));
        }
    }
    assert!(scene.done.is_empty(), "the whole wallet failed, and not these requests");
    scene.run(2_000, |_| None);
    let mut largest = 0;
    for _ in 0..3_000 {
        if scene.next_sequence - (scene.done.len() as u64) < 400 {
            scene.push(100, 0);
        }
        scene.pass(5 * MS);
        while let Some(call) = scene.call() {
            largest = largest.max(call.sequences.len());
            scene.answer(&call);
        }
    }
    assert_eq!(largest, 100, "the bound grew back");
}

#[test]
fn a_solo_call_may_take_its_deadline() {
    let mut scene = Scene::new();
    for _ in 0..8 {
        scene.push(10, 100 + scene.next_sequence);
        let call = scene.call().unwrap();
        scene.pass(5 * MS);
        scene.answer(&call);
    }
    // Party 7 takes 300 ms each time, and is always answered.
    for _ in 0..5 {
        scene.push(1, 7);
        let sequence = scene.next_sequence - 1;
        let slow = loop {
            match scene.call() {
                Some(call) if call.sequences.contains(&sequence) => break call,
                Some(call) => scene.answer(&call),
                None => scene.pass(5 * MS),
            }
        };
        for _ in 0..30 {
            scene.push(1, 1_000 + scene.next_sequence);
            scene.pass(10 * MS);
            while let Some(call) = scene.call() {
                assert!(!call.sequences.contains(&sequence));
                scene.answer(&call);
            }
        }
        scene.answer(&slow);
        assert!(
            scene
                .done
                .iter()
                .any(|done| done.payload == sequence && matches!(done.ended, Ended::Answered(_)))
        );
    }
}

#[test]
fn what_is_refused_waits_as_the_wallet_says_and_the_others_go_on() {
    let mut scene = Scene::new();
    scene.push(100, 0);
    let refused = scene.call().unwrap();
    let retry_after = Some(Duration::from_secs(3));
    scene.fail(&refused, CallError::Overloaded { reason: "503".to_owned(), retry_after });
    scene.push(100, 1_000);
    let other = scene.call().expect("the others go on");
    scene.answer(&other);
    scene.pass(2_990 * MS);
    assert!(scene.call().is_none());
    scene.pass(20 * MS);
    assert_eq!(scene.call().unwrap().sequences, refused.sequences);
}

/// A scene whose calls ask a breaker, and the beat of that.
fn guarded(rate_per_s: u64) -> (Scene, impl FnMut(&Scene) -> crate::breaker::Phase) {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use super::super::sluice::Breaker;
    use crate::breaker::board::Workload;
    use crate::breaker::{Governor, Keeper, LocalBoard, Settings};

    let mut scene = Scene::new();
    let since = scene.now;
    scene.now += 1_000 * MS;
    let settings = Settings { rate_per_s, calls_max: 4, ..Settings::default() };
    let board_ms = Arc::new(AtomicU64::new(0));
    let clock = board_ms.clone();
    let board = LocalBoard::new(settings.clone(), Arc::new(move || clock.load(Ordering::Relaxed)));
    let governor = Arc::new(Mutex::new(Governor::new("one", 100, settings)));
    let mut keeper = Keeper::new(governor.clone(), Box::new(board), "one");
    let breaker = Breaker { governor: governor.clone(), since, on_news: Arc::new(|| {}) };
    scene.calls = scene.calls.with_sluice(Sluice::new(breaker));
    let beat = move |scene: &Scene| {
        let now_ns = (scene.now - since).as_nanos() as u64;
        board_ms.store(1_000_000 + now_ns / 1_000_000, Ordering::Relaxed);
        keeper.step(&|| now_ns, Workload::waiting(1_000));
        governor.lock().unwrap().state().phase
    };
    (scene, beat)
}

#[test]
fn with_a_breaker_no_more_goes_than_the_lease_lets_repeats_included() {
    let (mut scene, mut beat) = guarded(1_000);
    scene.push(1_000, 0);
    assert!(scene.call().is_none(), "the board was not heard");
    beat(&scene);
    let (mut sent, mut largest) = (0, 0);
    for step in 0..100 {
        scene.pass(5 * MS);
        beat(&scene);
        while let Some(call) = scene.call() {
            sent += call.sequences.len();
            largest = largest.max(call.sequences.len());
            match step % 10 {
                0 => scene.fail(&call, lost()),
                _ => scene.answer(&call),
            }
        }
        assert!(scene.calls.next_at(scene.now).is_some(), "it asks again");
    }
    // Less than all of it, for a tenth of the calls is lost, and the adaptive limit heeds that.
    assert!((350..=520).contains(&sent), "{sent} in half a second of a thousand a second");
    assert!(largest <= 20, "{largest} at once");
}

#[test]
fn an_open_breaker_lets_nothing_go_and_a_probe_finds_the_wallet_again() {
    use crate::breaker::Phase;

    let (mut scene, mut beat) = guarded(1_000);
    scene.push(900, 0);
    let mut phases = Vec::new();
    for step in 0..1_500 {
        scene.pass(5 * MS);
        let phase = beat(&scene);
        if phases.last().is_none_or(|last: &Phase| last.as_str() != phase.as_str()) {
            phases.push(phase);
        }
        while let Some(call) = scene.call() {
            assert!(!matches!(phase, Phase::Open { .. }), "sent while open");
            assert!(phase != Phase::HalfOpen || call.sequences.len() <= 8, "a probe is small");
            if step < 200 { scene.fail(&call, lost()) } else { scene.answer(&call) }
        }
    }
    let names: Vec<&str> = phases.iter().map(Phase::as_str).collect();
    assert_eq!(
        (names[..3].to_vec(), *names.last().unwrap()),
        (vec!["closed", "open", "half_open"], "closed")
    );
    assert_eq!(scene.ended().len(), 900, "and nothing was lost: {names:?}");
}

#[test]
fn a_payee_of_many_requests_is_well_again_after_a_call_that_was_late() {
    let mut scene = Scene::new();
    let (hot, rounds) = (7, 2_000_usize);
    let mut under_way: Vec<(Call, Instant)> = Vec::new();
    let mut alone = 0;
    for _ in 0..rounds {
        // Every 5 ms one for the payee and one for somebody else, in calls of their own; each 100th of the payee's is late.
        for party in [hot, 10_000 + scene.next_sequence] {
            scene.push(1, party);
            scene.pass(5 * MS);
            while let Some(call) = scene.call() {
                let is_alone = call.sequences.iter().any(|sequence| sequence % 2 == 0);
                alone += u64::from(is_alone);
                let took = if is_alone && alone % 100 == 0 { 400 * MS } else { 40 * MS };
                under_way.push((call, scene.now + took));
            }
            let now = scene.now;
            let (back, on): (Vec<_>, Vec<_>) = under_way.into_iter().partition(|(_, at)| now >= *at);
            under_way = on;
            back.iter().for_each(|(call, _)| scene.answer(call));
        }
    }
    let handed_back = scene.done.iter().filter(|done| done.ended == Ended::NoAnswer).count();
    assert!(alone > 100, "{alone} calls of the payee alone");
    assert!(handed_back < rounds / 20, "{handed_back} of {rounds} handed back");
}

#[test]
fn only_a_transfer_that_was_decided_in_time_speaks_for_a_payee() {
    let overloaded = TransferStatus::Failed(PayoutCode::WalletOverloaded);
    let refused = TransferStatus::Failed(PayoutCode::PayeeFrozen);
    // What is sent, the answer, after how long; whether the payee is slow after three of them.
    let table = [
        (Errand::Transfer, TransferStatus::Succeeded, 40, false),
        (Errand::Transfer, refused, 40, false),
        (Errand::Transfer, TransferStatus::Unknown, 40, true),
        (Errand::Transfer, overloaded, 40, true),
        (Errand::Transfer, TransferStatus::Succeeded, 900, true),
        (Errand::Burn, TransferStatus::Succeeded, 40, true),
    ];
    for (errand, status, took_ms, is_slow) in table {
        let (mut scene, payee) = (Scene::new(), 7);
        scene.calls.note_slow(payee, scene.now);
        for sequence in 0..3 {
            scene.calls.push(sequence, payee, errand, sequence, scene.now, &mut scene.done);
            let call = scene.call().expect("it goes alone");
            assert_eq!(call.sequences.len(), 1);
            scene.pass(took_ms * MS);
            let answer = Answer { status, wallet_ref: String::new() };
            scene.calls.answered(call.id, Ok(vec![answer]), scene.now, &mut scene.done);
            // What is to be sent again is somebody else's story.
            scene.calls.again.clear();
            scene.pass(1_000 * MS);
        }
        assert_eq!(scene.calls.is_slow(payee, scene.now), is_slow, "{errand:?} {status:?} {took_ms} ms");
    }
}
