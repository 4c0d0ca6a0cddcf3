//! Random logs, read with crashes in between, against the model.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::super::{ListRows, View};
use super::every_page;
use super::log::{Fault, Log, outcome, request};
use super::model::Model;
use crate::digest::key_hash_of;
use crate::domain::{Amount, Kind, PayoutCode, Status, WaitReason};

const CLIENTS: [&str; 2] = ["shop", "bank"];
const CAMPAIGNS: [&str; 3] = ["spring", "autumn", ""];
const PARTIES: [&str; 3] = ["ann", "bob", ""];
const BATCHES: [&str; 3] = ["", "b-1", "b-2"];
const KINDS: [Kind; 8] = [
    Kind::Disbursement,
    Kind::Disbursement,
    Kind::Disbursement,
    Kind::Collection,
    Kind::Reversal,
    Kind::Reversal,
    Kind::Fund,
    Kind::Cancel,
];

/// One fact in the making: `draw` decides what, the others where.
#[derive(Clone, Debug)]
struct Step {
    draw: u8,
    target: u16,
    detail: u32,
}

#[derive(Clone, Copy, Debug)]
enum Interruption {
    None,
    Reopen,
    Broken(usize, Fault),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (any::<u8>(), any::<u16>(), any::<u32>());
    prop::collection::vec(step.prop_map(|(draw, target, detail)| Step { draw, target, detail }), 1..120)
}

fn interruptions() -> impl Strategy<Value = Vec<(usize, Interruption)>> {
    let interruption = prop_oneof![
        Just(Interruption::None),
        Just(Interruption::Reopen),
        (0usize..8).prop_map(|after| Interruption::Broken(after, Fault::Error)),
        (0usize..8).prop_map(|after| Interruption::Broken(after, Fault::Panic)),
    ];
    prop::collection::vec((1usize..30, interruption), 1..12)
}

fn pick<T: Copy>(from: &[T], draw: u32) -> T {
    from[draw as usize % from.len()]
}

/// Writes facts to the log and to the model.
struct Scribe<'a> {
    stride: u64,
    log: &'a Log,
    model: &'a mut Model,
    accepted: Vec<(u64, Kind, u64)>,
    names: Vec<(String, u64)>,
}

/// One fact in four is told twice.
fn times(detail: u32) -> u32 {
    1 + u32::from(detail >> 24 & 3 == 0)
}

impl Scribe<'_> {
    fn write(&mut self, steps: &[Step]) {
        for (number, step) in steps.iter().enumerate() {
            if step.draw < 110 || self.accepted.is_empty() {
                self.accept(number as u64, step);
            } else {
                self.moved(number as u64, step);
            }
        }
    }

    fn accept(&mut self, number: u64, step: &Step) {
        let (detail, target) = (step.detail, usize::from(step.target));
        let client = pick(&CLIENTS, detail);
        let earlier = self.names.get(target % self.names.len().max(1));
        let (original, whole) = earlier.cloned().unwrap_or_else(|| ("never".into(), 7));
        // One in eight takes the id of an earlier one.
        let id = if step.draw < 14 { original.clone() } else { format!("r-{number}") };
        let kind = pick(&KINDS, detail >> 4);
        let amount = if detail & (1 << 30) == 0 { u64::from(detail % 90) + 1 } else { whole };
        let mut request = request(&id, time_of(number));
        request.client = client;
        request.kind = kind;
        request.amount = Amount::new(amount).unwrap();
        request.campaign = pick(&CAMPAIGNS, detail >> 8);
        request.party = pick(&PARTIES, detail >> 10);
        request.batch = pick(&BATCHES, detail >> 12);
        request.remark = pick(&["", "恭喜发财"], detail >> 14);
        if kind == Kind::Reversal {
            request.original = &original;
        }
        request.key_hash = key_hash_of(client, &id);
        let place = (number + 1) * self.stride;
        for _ in 0..times(detail) {
            self.log.accept(place, &request);
            self.model.accept(place, &request);
        }
        self.accepted.push((place, kind, request.key_hash));
        self.names.push((id, amount));
    }

    fn moved(&mut self, number: u64, step: &Step) {
        let (detail, at) = (step.detail, time_of(number));
        let (mut place, kind, key_hash) = self.accepted[usize::from(step.target) % self.accepted.len()];
        if step.draw == 255 {
            place += 1;
        }
        let status = match step.draw {
            ..170 => pick(&Status::ALL, detail >> 2),
            _ => pick(&[Status::Succeeded, Status::Succeeded, Status::Failed, Status::Queued], detail),
        };
        let mut fact = outcome(place, &request("", 0), status, at);
        fact.kind = kind;
        fact.key_hash = key_hash;
        fact.attempts = detail % 9;
        if status == Status::Succeeded {
            fact.wallet_ref = "T-1";
        }
        if status == Status::Failed {
            fact.code = Some(pick(&[PayoutCode::IdConflict, PayoutCode::PayeeFrozen], detail >> 8));
        }
        if status == Status::Queued {
            fact.reason = Some(pick(&WaitReason::ALL, detail >> 8));
            fact.next_attempt_at = at + 5;
        }
        for _ in 0..times(detail) {
            self.log.moved(&fact);
            self.model.moved(&fact);
        }
    }
}

fn time_of(number: u64) -> u64 {
    1_000 + 10 * number
}

fn queries() -> Vec<ListRows> {
    let mut queries = Vec::new();
    for client in CLIENTS {
        let all = ListRows { client: client.into(), limit: 3, ..ListRows::default() };
        queries.push(all.clone());
        queries.push(ListRows { limit: 1_000_000, ..all.clone() });
        for status in Status::ALL {
            queries.push(ListRows { status: Some(status), ..all.clone() });
            let campaign = Some("spring".into());
            queries.push(ListRows { status: Some(status), campaign, settled_from: 1_300, ..all.clone() });
        }
        for kind in KINDS {
            queries.push(ListRows { kind: Some(kind), ..all.clone() });
        }
        for (campaign, party, batch) in
            [("spring", "ann", "b-1"), ("", "bob", "b-2"), ("never", "no", "none")]
        {
            let (campaign, party) = (Some(campaign.to_owned()), Some(party.to_owned()));
            let batch = Some(batch.to_owned());
            queries.push(ListRows { campaign: campaign.clone(), ..all.clone() });
            queries.push(ListRows { party: party.clone(), accepted_from: 1_200, ..all.clone() });
            queries.push(ListRows { batch: batch.clone(), settled_from: 1_200, ..all.clone() });
            queries.push(ListRows { campaign, party, accepted_from: 1_100, ..all.clone() });
        }
        queries.push(ListRows { accepted_from: 1_400, settled_from: 1_500, ..all });
    }
    queries
}

fn check(view: &View, model: &Model) {
    for row in model.rows.values() {
        assert_eq!(view.at_places(&[row.place, u64::MAX]).unwrap(), [Some(row.clone()), None]);
        let found = view.find(&row.client, std::slice::from_ref(&row.id)).unwrap();
        assert_eq!(found[0].as_ref(), model.find(&row.client, &row.id));
    }
    for asked in queries() {
        assert_eq!(every_page(view, &asked), model.list(&asked), "{asked:?}");
    }
    for client in CLIENTS {
        for campaign in CAMPAIGNS {
            for kind in [None, Some(Kind::Fund), Some(Kind::Reversal), Some(Kind::Cancel)] {
                let expected = model.tally(|row| row.client == client && row.campaign == campaign, kind);
                let found = view.campaign(client, campaign, kind).unwrap().unwrap_or_default();
                assert_eq!(found, expected, "{client} {campaign:?} {kind:?}");
            }
        }
        for batch in ["b-1", "b-2"] {
            let expected = model.tally(|row| row.client == client && row.batch == batch, None);
            let found = view.batch(client, batch).unwrap().map(|found| found.tally).unwrap_or_default();
            assert_eq!(found, expected, "{client} {batch}");
        }
    }
    assert_eq!(view.waiting().unwrap(), model.waiting());
    assert_eq!(view.progress().skipped, model.skipped);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn says_what_the_model_says_whatever_breaks(
        steps in steps(),
        interruptions in interruptions(),
        stride in prop::sample::select(vec![2u64, 70_000, 30_000_000]),
    ) {
        let (log, mut model) = (Log::default(), Model::default());
        let (accepted, names) = (Vec::new(), Vec::new());
        Scribe { stride, log: &log, model: &mut model, accepted, names }.write(&steps);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view.sqlite");
        let mut view = View::open(&path).unwrap();
        for (facts, interruption) in interruptions {
            let before = view.progress();
            match interruption {
                Interruption::None => {}
                Interruption::Reopen => {
                    drop(view);
                    view = View::open(&path).unwrap();
                    prop_assert_eq!(view.progress(), before);
                }
                Interruption::Broken(after, fault) => log.break_after(Some((after, fault))),
            }
            let applied = catch_unwind(AssertUnwindSafe(|| view.apply(&log, facts)));
            log.break_after(None);
            if !matches!(applied, Ok(Ok(_))) {
                prop_assert_eq!(view.progress(), before, "what did not commit never was");
            }
        }
        super::catch_up(&view, &log, 25);
        prop_assert_eq!(view.progress().cursor, log.len() as u64);
        prop_assert_eq!(view.progress().facts, log.len() as u64);
        check(&view, &model);
        drop(view);
        check(&View::open(&path).unwrap(), &model);
    }
}
