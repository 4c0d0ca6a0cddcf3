//! The parking: what is due comes once, a release is carried out once, each queue keeps to its share.

use std::time::Instant;

use super::*;

const MILLION: u64 = 1_000_000;

fn parked(place: u64, due: UnixMs, reason: WaitReason) -> Parked {
    let queue = QueueId { lane: Lane::Realtime, fair: 0 };
    Parked {
        request_place: place,
        entry_place: place,
        due,
        since: due,
        reason,
        attempts: 0,
        campaign_number: 1,
        queue,
    }
}

fn take(parking: &mut Parking, now: UnixMs, count_max: usize) -> Vec<u64> {
    let mut out = Vec::new();
    parking.take_due(now, count_max, &mut out);
    out.iter().map(|parked| parked.request_place).collect()
}

#[test]
fn due_items_come_once_until_parked_again() {
    let mut parking = Parking::default();
    parking.park(parked(1, 10, WaitReason::NotDue));
    parking.park(parked(2, 5, WaitReason::LowBalance));
    assert_eq!((take(&mut parking, 4, 9), parking.next_due()), (vec![], Some(5)));
    assert_eq!(take(&mut parking, 10, 9), [2, 1]);
    assert_eq!((take(&mut parking, 99, 9), parking.len()), (vec![], 2), "handed out, still parked");
    parking.park(parked(2, 50, WaitReason::LowBalance));
    parking.remove(1);
    assert_eq!((parking.len(), parking.next_due()), (1, Some(50)));
    assert_eq!(parking.by_reason()[&WaitReason::LowBalance], (1, 5), "since it was parked first");
}

#[test]
fn a_release_hands_out_what_waited_when_it_came() {
    let mut parking = Parking::default();
    for place in 0..10 {
        parking.park(parked(place, 100 + place, WaitReason::LowBalance));
    }
    parking.park(parked(50, 20, WaitReason::NotDue));
    assert_eq!(take(&mut parking, 100, 9), [50, 0]);
    assert_eq!(parking.release(WaitReason::LowBalance, 2), 0, "another campaign");
    assert_eq!(parking.next_due(), Some(101));
    assert_eq!(parking.release(WaitReason::LowBalance, 1), 9, "one is handed out");
    assert_eq!(parking.next_due(), Some(0));
    assert_eq!(take(&mut parking, 0, 4), [1, 2, 3, 4]);
    // What is parked again meanwhile waits for its own time; what is settled is not handed out.
    parking.park(parked(1, 300, WaitReason::LowBalance));
    parking.park(parked(11, 300, WaitReason::LowBalance));
    parking.remove(6);
    assert_eq!(take(&mut parking, 0, 99), [5, 7, 8, 9]);
    assert_eq!((take(&mut parking, 0, 99), parking.next_due()), (vec![], Some(300)));
    assert!(parking.release_one(11) && !parking.release_one(5) && !parking.release_one(77));
    assert_eq!(take(&mut parking, 0, 99), [11]);
}

#[test]
fn a_large_release_leaves_a_share_to_others() {
    let mut parking = Parking::default();
    for place in 0..1_000 {
        parking.park(parked(place, 5_000, WaitReason::LowBalance));
    }
    for place in 1_000..1_100 {
        parking.park(Parked { campaign_number: 2, ..parked(place, 5_000, WaitReason::LowBalance) });
        parking.park(parked(place + 1_000, 10, WaitReason::NotDue));
    }
    parking.release(WaitReason::LowBalance, 1);
    parking.release(WaitReason::LowBalance, 2);
    let first = take(&mut parking, 10, 800);
    let count = |range: std::ops::Range<u64>| first.iter().filter(|place| range.contains(place)).count();
    assert_eq!((count(1_000..1_100), count(2_000..2_100), first.len()), (100, 100, 800));
}

#[test]
fn a_queue_holds_as_many_as_are_free() {
    let queue = |lane, fair| QueueId { lane, fair };
    let (first, second) = (queue(Lane::Realtime, 0), queue(Lane::Bulk, 3));
    let control = queue(Lane::Control, 0);
    let mut parking = Parking::default();
    parking.bound(90);
    let mut fill = |queue: QueueId, from: u64| {
        let mut place = from;
        while parking.room(queue, 0) > 0 && place < from + 200 {
            parking.park(Parked { queue, ..parked(place, 5, WaitReason::LowBalance) });
            place += 1;
        }
        place - from
    };
    assert_eq!(fill(first, 1_000), 45, "one alone: half");
    assert_eq!(fill(second, 2_000), 23, "the second: half of the rest");
    assert_eq!(fill(control, 3_000), 200, "control is never stopped");
    assert_eq!(parking.full_queues(0), [first, second]);
    assert_eq!(parking.count_in_lane(Lane::Control), 200);
    let empty = queue(Lane::Realtime, 1);
    assert_eq!(parking.room(empty, 0), 1, "one that holds nothing is not stopped");
    for place in 3_000..3_200 {
        parking.remove(place);
    }
    let table = [(first, 0, 0), (first, 90, 0), (second, 0, 0), (control, 90, usize::MAX)];
    for (queue, under_way, room) in table {
        assert_eq!(parking.room(queue, under_way), room, "{queue:?} {under_way}");
    }
    for place in 1_000..1_030 {
        parking.remove(place);
    }
    assert_eq!((parking.room(first, 0), parking.room(second, 0)), (90 - 38 - 15, 90 - 38 - 23));
    assert_eq!((parking.room(empty, 0), parking.room(empty, 50)), (90 - 38, 2));
    assert_eq!(parking.room(first, 30), 90 - 38 - 15 - 30, "what is under way counts as taken");
    assert_eq!(take(&mut parking, 5, 99).len(), 38, "due ones are fed, full or not");
}

#[test]
fn the_feed_hears_of_what_concerns_it() {
    let mut parking = Parking::default();
    assert!(!parking.take_news(true));
    parking.park(parked(1, 10, WaitReason::NotDue));
    assert!(parking.take_news(false) && !parking.take_news(true));
    parking.remove(9);
    assert!(!parking.take_news(true), "nothing was removed");
    parking.feed_waits_for_room();
    assert!(!parking.take_news(false) && parking.take_news(true) && !parking.take_news(true));
    parking.release_one(1);
    assert!(parking.take_news(false));
}

#[test]
fn pages_go_on_where_they_ended() {
    let mut parking = Parking::default();
    for place in 0..20 {
        let reason = if place % 3 == 0 { WaitReason::NotDue } else { WaitReason::LowBalance };
        parking.park(Parked { campaign_number: place as u32 % 2, ..parked(place, 100 - place / 2, reason) });
    }
    let groups: Vec<Group> =
        parking.groups().map(|(group, _)| group).filter(|(number, _)| *number == 1).collect();
    assert_eq!(groups, [(1, WaitReason::NotDue), (1, WaitReason::LowBalance)]);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = parking.page(&groups, after, 3);
        let Some(last) = page.last() else { break };
        after = Some((last.since, last.request_place));
        seen.extend(page.iter().map(|parked| parked.request_place));
        // One that ends meanwhile moves nobody.
        parking.remove(seen[0]);
    }
    assert_eq!(seen, [19, 17, 15, 13, 11, 9, 7, 5, 3, 1]);
}

/// A million parked: no call of the door, of a scrape or of the desk may hold the lock for long. Run it with
/// `--nocapture` for the figures.
#[test]
fn a_million_parked_are_handled_in_passing() {
    let mut parking = Parking::default();
    parking.bound(4 * MILLION as usize);
    let timed = |what: &str, limit_ms: u128, work: &mut dyn FnMut()| {
        let began = Instant::now();
        work();
        println!("{what}: {} us", began.elapsed().as_micros());
        // Generous: this is to find what is proportional to all that is parked, on a machine that is busy.
        assert!(began.elapsed().as_millis() < limit_ms, "{what}: {:?}", began.elapsed());
    };
    timed("park a million", 120_000, &mut || {
        for place in 0..MILLION {
            let campaign_number = (place % 100) as u32;
            parking.park(Parked { campaign_number, ..parked(place, 1 + place, WaitReason::LowBalance) });
        }
    });
    timed("count and oldest by reason", 50, &mut || {
        assert_eq!(parking.by_reason()[&WaitReason::LowBalance], (MILLION, 1));
    });
    timed("the full queues", 50, &mut || assert!(parking.full_queues(0).is_empty()));
    let groups: Vec<Group> = parking.groups().map(|(group, _)| group).collect();
    timed("a page of a thousand from the middle", 500, &mut || {
        assert_eq!(parking.page(&groups, Some((MILLION / 2, 0)), 1_000).len(), 1_000);
    });
    timed("release everything", 50, &mut || {
        let released: usize = groups.iter().map(|(number, reason)| parking.release(*reason, *number)).sum();
        assert_eq!(released as u64, MILLION);
    });
    timed("hand out a batch of it", 2_000, &mut || assert_eq!(take(&mut parking, 0, 4_096).len(), 4_096));
}
