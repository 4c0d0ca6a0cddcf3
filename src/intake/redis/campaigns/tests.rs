//! Decisions as tables: what each makes of what was known.

use super::*;
use crate::domain::{Amount, Currency};

fn campaign(id: &str, budget: u64) -> Campaign {
    Campaign::new("s", id, Currency::parse("CNY").unwrap(), Amount::new(budget).unwrap())
}

fn funding(id: &str, amount: u64, is_defund: bool, step: Step) -> Funding {
    let (client, campaign) = ("s".to_owned(), "c".to_owned());
    Funding { client, campaign, id: id.to_owned(), is_defund, amount, step, at: amount }
}

#[test]
fn a_campaign_is_funded_whole_while_the_wallet_holds_its_budget() {
    let mut campaigns = Campaigns::default();
    campaigns.apply(Entry::Campaign(Box::new(campaign("c", 10))));
    let is_whole = |campaigns: &Campaigns| campaigns.get("s", "c").unwrap().is_funded_whole;
    let steps = [
        (funding("f-1", 6, false, Step::Done), false),
        (funding("f-2", 4, false, Step::Reserved), false),
        (funding("f-2", 4, false, Step::Done), true),
        (funding("d-1", 1, true, Step::Done), false),
    ];
    for (step, expected) in steps {
        campaigns.apply(Entry::Funding(step));
        assert_eq!(is_whole(&campaigns), expected);
    }
    campaigns.apply(Entry::Campaign(Box::new(campaign("c", 9))));
    assert!(is_whole(&campaigns), "what is there covers the lower budget");
}

#[test]
fn entries_come_back_and_unknown_ones_are_refused_by_name() {
    for entry in
        [Entry::Campaign(Box::new(campaign("c", 9))), Entry::Funding(funding("f", 1, true, Step::Failed))]
    {
        assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
    }
    let table = [
        (&b"{\"version\":3,\"else\":1}"[..], "it has version 3"),
        (b"{\"version\":2,\"else\":1}", "through"),
        (b"{\"version\":1}", "neither"),
        (b"[]", "not valid"),
    ];
    for (bytes, expected) in table {
        let told = Entry::decode(bytes).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn funding_stops_at_the_budget_and_failures_give_room_back() {
    let mut known = Campaigns::default();
    known.apply(Entry::Campaign(Box::new(campaign("c", 100))));
    let put = |known: &mut Campaigns, f: Funding| known.apply(Entry::Funding(f));
    // what was noted, what is committed then
    let table = [
        (funding("a", 60, false, Step::Reserved), 60),
        (funding("b", 40, false, Step::Reserved), 100),
        (funding("b", 40, false, Step::Failed), 60),
        (funding("a", 60, false, Step::Done), 60),
        (funding("d", 50, true, Step::Reserved), 60),
        (funding("d", 50, true, Step::Done), 10),
    ];
    for (noted, committed) in table {
        put(&mut known, noted.clone());
        assert_eq!(known.committed("s", "c"), committed, "{noted:?}");
    }
    assert_eq!(known.committed("s", "other"), 0);
    let reserve = |known: &Campaigns, f: Funding| known.reserve(&f).map_err(|r| r.code);
    let ask = |id: &str, amount| funding(id, amount, false, Step::Reserved);
    assert_eq!(reserve(&known, ask("e", 91)), Err(Refusal::BudgetExhausted));
    assert_eq!(reserve(&known, ask("e", 90)), Ok(Some(ask("e", 90))));
    assert_eq!(reserve(&known, ask("a", 60)), Ok(None), "it was done");
    assert_eq!(reserve(&known, ask("b", 40)), Ok(Some(ask("b", 40))), "it failed before");
    assert_eq!(known.conclude("s", "a", Step::Failed), None, "what is done stays done");
    put(&mut known, ask("e", 90));
    assert_eq!(known.open(None, None, 91, 9).len(), 1);
    assert_eq!(known.open(Some(("s", "other")), None, 91, 9).len(), 0);
    assert_eq!(known.conclude("s", "e", Step::Failed).map(|f| f.step), Some(Step::Failed));
}

#[test]
fn many_fundings_are_taken_in_as_fast_as_few() {
    let mut known = Campaigns::default();
    known.apply(Entry::Campaign(Box::new(campaign("c", 1 << 40))));
    let began = std::time::Instant::now();
    for n in 0..20_000 {
        for step in [Step::Reserved, Step::Done] {
            known.apply(Entry::Funding(funding(&format!("f-{n}"), 3, false, step)));
        }
    }
    assert_eq!((known.committed("s", "c"), known.moved("s", "c")), (60_000, 60_000));
    // Adding all of them up for each took a minute in a build without optimisation, and takes a fraction of a second.
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn sums_follow_every_step_and_what_was_done_is_never_given_up() {
    let mut known = Campaigns::default();
    known.apply(Entry::Campaign(Box::new(campaign("c", 100))));
    let mut note = |f: Funding| known.apply(Entry::Funding(f));
    note(funding("a", 60, false, Step::Reserved));
    note(funding("a", 60, false, Step::Failed));
    note(funding("a", 40, false, Step::Reserved));
    assert_eq!((known.committed("s", "c"), known.moved("s", "c")), (40, 0));
    known.apply(Entry::Funding(funding("a", 40, false, Step::Failed)));
    let done = known.conclude("s", "a", Step::Done).expect("the wallet has done it after all");
    known.apply(Entry::Funding(done));
    assert_eq!((known.committed("s", "c"), known.moved("s", "c")), (40, 40));
    assert_eq!(known.conclude("s", "a", Step::Failed), None);
    // Whoever looks goes on behind the last one.
    for n in 0..5 {
        known.apply(Entry::Funding(funding(&format!("o-{n}"), n + 1, false, Step::Reserved)));
    }
    let first = known.open(None, None, 91, 3);
    let rest = known.open(None, first.last(), 91, 3);
    let ids = |found: &[Funding]| found.iter().map(|f| f.id.clone()).collect::<Vec<_>>().join(" ");
    assert_eq!((ids(&first), ids(&rest)), ("o-0 o-1 o-2".to_owned(), "o-3 o-4".to_owned()));
}

#[test]
fn what_waits_is_set_free_when_its_reason_is_gone() {
    let mut known = Campaigns::default();
    let mut put = |state: CampaignState| {
        let released = known.apply(Entry::Campaign(Box::new(Campaign { state, ..campaign("c", 1) })));
        released.first().map(|release| release.reasons.len())
    };
    assert_eq!(put(CampaignState::Active), None);
    assert_eq!(put(CampaignState::Paused), None);
    assert_eq!(put(CampaignState::Active), Some(1));
    assert_eq!(put(CampaignState::Closed), Some(WaitReason::ALL.len()));
    assert_eq!(put(CampaignState::Closed), None);
    let done = known.apply(Entry::Funding(funding("f", 1, false, Step::Done)));
    assert_eq!(done.first().map(|release| release.reasons), Some(&[WaitReason::LowBalance][..]));
    assert!(known.apply(Entry::Funding(funding("f", 1, false, Step::Done))).is_empty(), "told once");
}

#[test]
fn changes_follow_the_rules_of_the_desk() {
    let mut known = Campaigns::default();
    let missing = known.change("s", "c", CampaignChange::Pause, 5).unwrap_err();
    assert_eq!(missing.code, Refusal::NotFound);
    let first = known.change("s", "c", CampaignChange::Put(Box::new(campaign("c", 100))), 5).unwrap();
    assert_eq!((first.created_at, first.updated_at), (5, 5));
    known.apply(Entry::Campaign(Box::new(first)));
    known.apply(Entry::Funding(funding("a", 60, false, Step::Reserved)));
    let put = |budget| CampaignChange::Put(Box::new(campaign("c", budget)));
    assert_eq!(known.change("s", "c", put(59), 6).unwrap_err().conflicts, ["budget"]);
    assert_eq!(known.change("s", "c", put(60), 6).unwrap().created_at, 5);
    let limited = Campaign { per_payee_count: Some(1), ..campaign("c", 100) };
    let limited = known.change("s", "c", CampaignChange::Put(Box::new(limited)), 6).unwrap_err();
    assert_eq!(limited.code, Refusal::InvalidField);
    let closed = known.change("s", "c", CampaignChange::Close, 7).unwrap();
    assert_eq!(closed.closed_at, 7);
    known.apply(Entry::Campaign(Box::new(closed)));
    let again = known.change("s", "c", CampaignChange::Resume, 8).unwrap_err();
    assert_eq!(again.code, Refusal::CampaignClosed);
}

#[test]
fn a_fold_stands_for_everything_before_it_wherever_it_is_met() {
    let closed = Campaign { state: CampaignState::Closed, closed_at: 9, ..campaign("b", 7) };
    let entries = [
        Entry::Campaign(Box::new(campaign("c", 10))),
        Entry::Campaign(Box::new(campaign("b", 7))),
        Entry::Funding(funding("f-1", 6, false, Step::Reserved)),
        Entry::Funding(funding("f-1", 6, false, Step::Done)),
        Entry::Funding(funding("f-2", 4, false, Step::Reserved)),
        Entry::Funding(funding("f-3", 3, false, Step::Failed)),
        Entry::Funding(funding("f-2", 4, false, Step::Done)),
        Entry::Funding(funding("d-1", 1, true, Step::Done)),
        Entry::Funding(funding("o-1", 1, false, Step::Reserved)),
        Entry::Campaign(Box::new(closed)),
    ];
    let mut whole = Campaigns::default();
    for entry in &entries {
        whole.apply(entry.clone());
    }
    let fold = Entry::Fold(Box::new(whole.fold("5-0")));
    assert_eq!(Entry::decode(&fold.encode()).unwrap(), fold);
    // What is known of campaigns and funds, in words.
    let known = |campaigns: &Campaigns| {
        let shared: Vec<Campaign> =
            campaigns.registry.read().unwrap().iter().map(|held| (**held).clone()).collect();
        let (moved, committed) = (campaigns.moved("s", "c"), campaigns.committed("s", "c"));
        format!("{shared:?} {moved} {committed} {:?}", campaigns.open(None, None, u64::MAX, 9))
    };
    for read in 0..=entries.len() {
        let mut campaigns = Campaigns::default();
        for entry in &entries[..read] {
            campaigns.apply(entry.clone());
        }
        let released = campaigns.apply(fold.clone());
        assert_eq!(known(&campaigns), known(&whole), "met after {read}");
        assert_eq!(released.is_empty(), read == entries.len(), "what was missed is set free: {released:?}");
        assert_eq!(campaigns.fold("5-0"), whole.fold("5-0"));
        assert_eq!(
            campaigns.reserve(&funding("f-1", 6, false, Step::Reserved)).unwrap(),
            None,
            "it was done"
        );
    }
}
