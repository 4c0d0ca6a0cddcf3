//! What any view of streams must answer, whatever it is kept in: random facts in random order, told twice, with
//! failures in between, against the model.

use std::sync::Arc;

use hongbao::digest::Stamper;
use hongbao::domain::{Amount, Currency, Kind, PayoutCode, Request, Status, WaitReason};
use hongbao::outcome::view::{ListRows, StandingRow};
use hongbao::outcome::{OutcomeView, Told};
use proptest::prelude::*;

use crate::model::Model;
use crate::streams::Streams;

const CLIENTS: [&str; 2] = ["shop", "bank"];
const CAMPAIGNS: [&str; 3] = ["spring", "autumn", ""];
const PARTIES: [&str; 3] = ["ann", "bob", ""];
const BATCHES: [&str; 3] = ["", "b-1", "b-2"];
const KINDS: [Kind; 7] = [
    Kind::Disbursement,
    Kind::Disbursement,
    Kind::Collection,
    Kind::Reversal,
    Kind::Reversal,
    Kind::Fund,
    Kind::Cancel,
];
/// Ids a client uses: few, so that facts meet.
const ID_COUNT: u8 = 12;

/// A view under test.
pub trait Rig {
    /// Applies what comes next; whether there was something.
    fn apply(&mut self) -> Result<bool, String>;
    /// Closes it and opens it again.
    fn reopen(&mut self);
    fn view(&self) -> &dyn OutcomeView;
    /// Brings rows, with their digests, into the order of this view's listings.
    fn order(&self, rows: &mut [([u8; 16], StandingRow)]);
}

#[derive(Clone, Debug)]
pub struct Step {
    id: u8,
    /// Which of two bodies stands under the id.
    variant: u8,
    draw: u8,
    detail: u32,
}

#[derive(Clone, Debug)]
pub struct Frame {
    stream: usize,
    steps: Vec<Step>,
    /// One frame in eight is told again at once.
    again: u8,
    damage: u8,
}

#[derive(Clone, Copy, Debug)]
pub enum Interruption {
    None,
    Reopen,
    Break,
}

pub fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let step = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u32>());
    let step = step.prop_map(|(id, variant, draw, detail)| Step { id, variant, draw, detail });
    let steps = prop::collection::vec(step, 1..8);
    let frame = (0usize..3, steps, any::<u8>(), any::<u8>())
        .prop_map(|(stream, steps, again, damage)| Frame { stream, steps, again, damage });
    prop::collection::vec(frame, 1..24)
}

pub fn interruptions() -> impl Strategy<Value = Vec<Interruption>> {
    let one = prop_oneof![
        4 => Just(Interruption::None),
        1 => Just(Interruption::Reopen),
        1 => Just(Interruption::Break)
    ];
    prop::collection::vec(one, 0..24)
}

fn pick<T: Copy>(from: &[T], draw: u32) -> T {
    from[draw as usize % from.len()]
}

/// The names that a step's request borrows.
struct Names {
    id: String,
    original: String,
}

impl Step {
    fn names(&self) -> Names {
        let id = format!("r-{}", self.id % ID_COUNT);
        let original = format!("r-{}", self.id / ID_COUNT % ID_COUNT);
        Names { id, original }
    }

    /// The same for the same id and variant, but for when it was accepted: a queue may have given it twice.
    fn request<'a>(&self, names: &'a Names) -> Request<'a> {
        let seed = u32::from(self.id % ID_COUNT) * 7 + u32::from(self.variant.is_multiple_of(8)) * 3;
        let amount = Amount::new(u64::from(seed % 5) * 10 + 10).unwrap();
        let client = pick(&CLIENTS, seed / 2);
        let kind = if self.draw % 16 == 15 { Kind::Cancel } else { pick(&KINDS[..6], seed) };
        let currency = Currency::parse("CNY").unwrap();
        let mut request = Request::new(kind, client, &names.id, pick(&CAMPAIGNS, seed / 3), amount, currency);
        request.party = pick(&PARTIES, seed / 5);
        request.batch = pick(&BATCHES, seed / 7);
        request.remark = pick(&["", "恭喜发财"], seed);
        request.accepted_at = 1_000 + u64::from(seed) + u64::from(self.detail % 3);
        if matches!(kind, Kind::Reversal | Kind::Cancel) {
            request.original = &names.original;
        }
        Stamper::default().stamp(&mut request);
        request
    }

    fn told<'a>(&self, names: &'a Names) -> Told<'a> {
        let request = self.request(names);
        let detail = self.detail;
        let status = match self.draw {
            ..128 => pick(&[Status::Succeeded, Status::Succeeded, Status::Failed, Status::Queued], detail),
            _ => pick(&Status::ALL[1..8], detail >> 2),
        };
        let mut told = Told {
            request,
            status,
            code: None,
            reason: None,
            at: 2_000 + u64::from(detail % 1_000),
            next_attempt_at: 0,
            attempts: detail % 9,
            wallet_ref: "",
        };
        match status {
            Status::Succeeded => told.wallet_ref = "T-1",
            Status::Failed => {
                told.code = Some(pick(&[PayoutCode::IdConflict, PayoutCode::PayeeFrozen], detail >> 8));
            }
            Status::Queued => {
                told.reason = Some(pick(&WaitReason::ALL, detail >> 8));
                told.next_attempt_at = 5_000;
            }
            _ => {}
        }
        told
    }
}

/// Writes the frames to the streams and tells the model of them.
fn write(frames: &[Frame], streams: &Streams, model: &mut Model) {
    for frame in frames {
        let names: Vec<Names> = frame.steps.iter().map(Step::names).collect();
        let facts: Vec<Told<'_>> =
            frame.steps.iter().zip(&names).map(|(step, names)| step.told(names)).collect();
        if frame.damage.is_multiple_of(16) {
            streams.push_bytes(frame.stream, b"somebody else's entry".to_vec());
            model.skipped += 1;
        }
        for _ in 0..1 + u8::from(frame.again.is_multiple_of(8)) {
            streams.push(frame.stream, &facts);
            facts.iter().for_each(|told| model.told(told));
        }
    }
}

/// All pages of a listing, one after the other.
pub fn every_page(view: &dyn OutcomeView, asked: &ListRows) -> Vec<StandingRow> {
    let mut asked = asked.clone();
    let mut rows = Vec::new();
    for _ in 0..10_000 {
        let page = view.list(&asked).unwrap();
        rows.extend(page.data);
        match page.next_cursor {
            Some(cursor) => asked.cursor = Some(cursor),
            None => return rows,
        }
    }
    panic!("a listing that does not end: {asked:?}");
}

fn queries() -> Vec<ListRows> {
    let mut queries = Vec::new();
    for client in CLIENTS {
        let all = ListRows { client: client.into(), limit: 3, ..ListRows::default() };
        queries.push(all.clone());
        queries.push(ListRows { limit: 1_000_000, ..all.clone() });
        for status in Status::ALL {
            let campaign = Some("spring".into());
            queries.push(ListRows { status: Some(status), ..all.clone() });
            queries.push(ListRows { status: Some(status), campaign, settled_from: 2_300, ..all.clone() });
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
            queries.push(ListRows { party: party.clone(), accepted_from: 1_020, ..all.clone() });
            queries.push(ListRows { batch: batch.clone(), settled_from: 2_200, ..all.clone() });
            queries.push(ListRows { campaign, party, accepted_from: 1_010, ..all.clone() });
        }
        queries.push(ListRows { accepted_from: 1_040, settled_from: 2_500, ..all });
    }
    queries
}

fn without_place(row: &StandingRow) -> StandingRow {
    StandingRow { place: 0, ..row.clone() }
}

fn check(rig: &dyn Rig, model: &Model) {
    let view = rig.view();
    let ids: Vec<String> = (0..=ID_COUNT).map(|number| format!("r-{number}")).collect();
    for client in CLIENTS {
        let found = view.find(client, &ids).unwrap();
        for (id, found) in ids.iter().zip(found) {
            let found = found.as_ref().map(without_place);
            assert_eq!(found.as_ref(), model.find(client, id), "{client}:{id}");
        }
        for campaign in CAMPAIGNS {
            for kind in [None, Some(Kind::Fund), Some(Kind::Reversal), Some(Kind::Cancel)] {
                let expected = model.tally(|row| row.client == client && row.campaign == campaign, kind);
                let found = view.campaign(client, campaign, kind).unwrap().unwrap_or_default();
                assert_eq!(found, expected, "{client} {campaign:?} {kind:?}");
            }
        }
        for batch in ["b-1", "b-2", "b-3"] {
            assert_eq!(view.batch(client, batch).unwrap(), model.batch(client, batch), "{client} {batch}");
        }
    }
    for asked in queries() {
        let mut expected = model.list(&asked);
        rig.order(&mut expected);
        let expected: Vec<StandingRow> = expected.into_iter().map(|(_, row)| row).collect();
        let mut found = every_page(view, &asked);
        found.iter_mut().for_each(|row| row.place = 0);
        assert_eq!(found, expected, "{asked:?}");
    }
}

/// Runs one history through the view that `open` makes over its streams.
pub fn holds<R: Rig>(
    frames: &[Frame],
    interruptions: &[Interruption],
    frames_max: usize,
    open: impl FnOnce(Arc<Streams>) -> R,
) {
    let (streams, mut model) = (Arc::new(Streams::default()), Model::default());
    streams.state().frames_max = frames_max;
    write(frames, &streams, &mut model);
    let mut rig = open(streams.clone());
    let mut interruptions = interruptions.iter();
    loop {
        match interruptions.next().copied().unwrap_or(Interruption::None) {
            Interruption::None => {
                if !rig.apply().unwrap() {
                    break;
                }
            }
            Interruption::Reopen => rig.reopen(),
            Interruption::Break => {
                streams.state().breaks = true;
                assert!(rig.apply().is_err());
            }
        }
    }
    check(&rig, &model);
    let progress = rig.view().progress();
    assert_eq!((progress.facts, progress.skipped), (model.facts, model.skipped));
    rig.reopen();
    assert!(!rig.apply().unwrap(), "a reopened view goes on where it was");
    check(&rig, &model);
}
