//! What waits, as the gateway and operators see it.

use hongbao::app::redis::parked::RedisWaiting;
use hongbao::domain::{Outcome, WaitReason};
use hongbao::gateway::port::{ParkedFilter, ParkedPage, ParkedQuery, Waiting};
use hongbao::intake::redis::UnitId;
use hongbao::intake::redis::parked::ShelfOptions;
use hongbao::intake::redis::units;

use super::parked::{Instance, UNIT, many, now_ms, request, waits};
use super::support::redis::RedisServer;
use super::{keys, link, server};

struct Door {
    runtime: tokio::runtime::Runtime,
    waiting: RedisWaiting,
}

impl Door {
    fn new(server: &RedisServer, instance: &Instance) -> Door {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Door { runtime, waiting: RedisWaiting::new(link(server), keys(), instance.shelf.clone()) }
    }

    fn page(&self, filter: &ParkedFilter, limit: u32, cursor: Option<String>) -> ParkedPage {
        let query = ParkedQuery { filter: filter.clone(), limit, cursor };
        self.runtime.block_on(self.waiting.parked(query)).unwrap()
    }

    fn release(&self, filter: &ParkedFilter, ids: Option<&[&str]>) -> u64 {
        let ids = ids.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect());
        self.runtime.block_on(self.waiting.release(filter.clone(), ids)).unwrap()
    }
}

fn of(client: &str, reason: Option<WaitReason>, campaign: Option<&str>) -> ParkedFilter {
    ParkedFilter { client: client.to_owned(), reason, campaign: campaign.map(str::to_owned) }
}

#[test]
fn pages_go_from_the_longest_waiting_on_and_count_all() {
    let server = server();
    let mut one = Instance::start(&server, "one", ShelfOptions::default());
    let late = now_ms() + 600_000;
    // By turns in two units, each a millisecond after the other, the last due first; two reasons.
    for unit in [UNIT, UnitId(1)] {
        one.own(unit, 1);
        let parked: Vec<_> = (0..800u64)
            .map(|n| {
                let at = 1_700_000_000_000 + 2 * n + u64::from(unit.0);
                let record =
                    request(&format!("r-{at}"), if n % 4 == 0 { "spring" } else { "summer" }, "shop");
                let (outcome, record) = waits(&record, units::place(unit, n), late + 10_000 - n);
                let reason =
                    Some(if n % 2 == 0 { WaitReason::LowBalance } else { WaitReason::CampaignPaused });
                (Outcome { at, reason, ..outcome }, record)
            })
            .collect();
        assert_eq!(one.settle(&parked), []);
    }
    assert_eq!(one.settle(&[waits(&request("x", "spring", "mall"), units::place(UNIT, 9_999), late)]), []);
    let door = Door::new(&server, &one);
    let (all, mut ids, mut cursor) = (of("shop", None, None), Vec::new(), None);
    loop {
        let page = door.page(&all, 333, cursor);
        assert_eq!(page.counts[1], (WaitReason::LowBalance, 800));
        assert_eq!(page.counts[2], (WaitReason::CampaignPaused, 800));
        assert!(page.data.iter().all(|row| row.standing.next_attempt_at > late && row.waiting_since > 0));
        ids.extend(page.data.into_iter().map(|row| row.standing.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..1_600).map(|n| format!("r-{}", 1_700_000_000_000u64 + n)).collect();
    assert_eq!(ids, expected);
    let page = door.page(&of("shop", Some(WaitReason::LowBalance), Some("spring")), 1_000, None);
    assert_eq!((page.data.len(), page.counts[1].1, page.next_cursor), (400, 400, None));
    assert!(page.data.iter().all(|row| row.standing.campaign == "spring"));
    assert_eq!(door.page(&of("mall", None, None), 10, None).data[0].standing.id, "x");
    assert_eq!(door.page(&of("nobody", None, None), 10, None).data.len(), 0);
    let query = ParkedQuery { filter: of("mall", None, None), limit: 5, cursor: Some("0102".to_owned()) };
    assert!(door.runtime.block_on(door.waiting.parked(query)).is_err());
}

#[test]
fn what_is_released_is_due_at_its_owners() {
    let server = server();
    let mut owner = Instance::start(&server, "owner", ShelfOptions::default());
    let asked = Instance::start(&server, "asked", ShelfOptions::default());
    owner.own(UNIT, 1);
    owner.own(UnitId(2), 1);
    let late = now_ms() + 600_000;
    assert_eq!(owner.settle(&many(UNIT, "spring", 1_200, late)), []);
    assert_eq!(owner.settle(&many(UnitId(2), "summer", 300, late)), []);
    let door = Door::new(&server, &asked);
    // Of another client, or for another reason: nothing.
    assert_eq!(door.release(&of("mall", None, Some("spring")), None), 0);
    assert_eq!(door.release(&of("shop", Some(WaitReason::NotDue), None), None), 0);
    assert_eq!(door.release(&of("shop", None, None), Some(&["spring-7", "summer-9", "no-such"])), 2);
    assert_eq!(owner.await_due(2).len(), 2);
    // Once is enough.
    assert_eq!(door.release(&of("shop", None, None), Some(&["spring-7"])), 0);
    assert_eq!(door.release(&of("shop", Some(WaitReason::LowBalance), Some("spring")), None), 1_199);
    assert_eq!(owner.await_due(1_199).len(), 1_199);
    assert_eq!(owner.take(1).len(), 0);
    assert_eq!(door.page(&of("shop", None, Some("spring")), 1, None).data[0].standing.next_attempt_at, 0);
    assert_eq!(door.release(&of("shop", None, None), None), 299);
    assert_eq!(owner.await_due(299).len(), 299);
    assert!(!server.has_multi_in_aof());
}
