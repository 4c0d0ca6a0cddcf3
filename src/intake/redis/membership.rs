//! Whether this instance may own anything: what the board says, judged. Pure.
//!
//! An instance is first a candidate: its heartbeat stands on the board before it reads who else is there, and it takes
//! units only from its second round on, so that others had time to be seen, and of two that cannot go together one
//! knows of the other. What holds: shards and wallet are claimed only by who never saw them set; who saw them and
//! finds them gone says that Redis has lost its data.

use super::anomaly::Anomaly;
use super::board::{self, Entry, FORMAT, Peers, WalletRecord};
use super::keys::Keys;
use crate::redis::{Command, Failure, Value, reply};

/// Rounds without a gap before anything is taken.
const ROUNDS_MIN: u32 = 2;

/// The board as one round showed it.
#[derive(Clone, Debug, Default)]
pub struct BoardSight {
    /// Unix ms by Redis's clock.
    pub now: u64,
    pub peers: Peers,
    pub wallet: Option<String>,
    pub shards: Option<String>,
}

/// Reading the board costs these commands, in this order; the heartbeat goes first.
pub fn commands(keys: &Keys, incarnation: &str, entry: &Entry) -> Vec<Command> {
    vec![
        board::heartbeat(keys, incarnation, entry),
        board::read_instances(keys),
        board::read_wallet(keys),
        board::read_shards(keys),
    ]
}

impl BoardSight {
    pub fn read(results: Vec<Result<Value, Failure>>, ttl_ms: u64) -> Result<BoardSight, Failure> {
        let mut results = results.into_iter();
        let mut next = || results.next().expect("as many results as commands");
        let now = reply::int("heartbeat", next()?)? as u64;
        let peers = board::peers(next()?, now, ttl_ms)?;
        let wallet = reply::text("GET", next()?)?;
        let shards = reply::text("GET", next()?)?;
        Ok(BoardSight { now, peers, wallet, shards })
    }
}

/// What this instance is.
pub struct Own<'a> {
    pub incarnation: &'a str,
    /// Once its wallet has said it.
    pub wallet: Option<&'a str>,
    pub view: Option<&'a str>,
    pub shards: &'a str,
    /// It cannot work, and others can.
    pub is_unwell: bool,
}

/// What follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    pub anomaly: Option<Anomaly>,
    pub may_own: bool,
    pub claims_shards: bool,
    pub claims_wallet: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Membership {
    /// First heartbeat, and since when units are taken (zero: they are not); Unix ms by Redis's clock.
    pub joined_at: u64,
    pub member_since: u64,
    rounds: u32,
    saw_shards: bool,
    saw_wallet: bool,
}

impl Membership {
    /// It was away for so long that others have taken its place: it is a candidate again.
    pub fn start_over(&mut self) {
        *self =
            Membership { saw_shards: self.saw_shards, saw_wallet: self.saw_wallet, ..Membership::default() };
    }

    pub fn is_candidate(&self) -> bool {
        self.rounds < ROUNDS_MIN
    }

    /// The shards were agreed on before the first round.
    pub fn saw_shards(&mut self) {
        self.saw_shards = true;
    }

    pub fn judge(&mut self, sight: &BoardSight, own: &Own<'_>, keys: &Keys) -> Judgement {
        self.rounds = self.rounds.saturating_add(1);
        if self.joined_at == 0 {
            self.joined_at = sight.now;
        }
        let anomaly = self.anomaly(sight, own, keys);
        let is_well = anomaly.is_none();
        let mut judgement = Judgement {
            anomaly,
            may_own: false,
            claims_shards: is_well && sight.shards.is_none(),
            claims_wallet: is_well && sight.wallet.is_none() && own.wallet.is_some(),
        };
        let is_agreed = sight.shards.is_some() && sight.wallet.is_some() && own.wallet.is_some();
        judgement.may_own = is_well && is_agreed && !self.is_candidate() && !own.is_unwell;
        self.member_since = match (judgement.may_own, self.member_since) {
            (false, _) => 0,
            (true, 0) => sight.now,
            (true, since) => since,
        };
        judgement
    }

    fn anomaly(&mut self, sight: &BoardSight, own: &Own<'_>, keys: &Keys) -> Option<Anomaly> {
        let gone = |key: &str| Some(Anomaly::DataGone { key: keys.board(key) });
        match &sight.shards {
            None if self.saw_shards => return gone("shards"),
            None => {}
            Some(stored) if stored == own.shards => self.saw_shards = true,
            Some(stored) => {
                return Some(Anomaly::ShardsDiffer { ours: own.shards.to_owned(), stored: stored.clone() });
            }
        }
        match &sight.wallet {
            None if self.saw_wallet => return gone("wallet"),
            None => {}
            Some(json) => {
                self.saw_wallet = true;
                let fleet = match read_wallet(json, &keys.board("wallet")) {
                    Ok(record) => record.identity,
                    Err(anomaly) => return Some(anomaly),
                };
                if let Some(ours) = own.wallet.filter(|ours| **ours != fleet) {
                    return Some(Anomaly::WalletDiffers { ours: ours.to_owned(), fleet });
                }
            }
        }
        if let Some(conflict) = board::list_conflict(&sight.peers.live, own.incarnation) {
            let board::ListConflict { list, ours, theirs, other } = conflict;
            return Some(Anomaly::ListsDiffer { list, ours, theirs, other });
        }
        let against = board::view_conflict(&sight.peers.live, own.incarnation)?;
        let other = against.shown();
        let theirs = against.entry.as_ref().ok().and_then(|entry| entry.view.clone());
        Some(match (own.view, theirs) {
            (Some(ours), Some(theirs)) => Anomaly::ViewDiffers { ours: ours.to_owned(), theirs, other },
            (Some(ours), None) => {
                Anomaly::ViewDiffers { ours: ours.to_owned(), theirs: "its own".to_owned(), other }
            }
            (None, _) => Anomaly::ViewPrivate { other },
        })
    }
}

/// The record under `key`.
pub fn read_wallet(json: &str, key: &str) -> Result<WalletRecord, Anomaly> {
    let unreadable = || Anomaly::Unreadable { key: key.to_owned(), found: json.chars().take(80).collect() };
    #[derive(serde::Deserialize)]
    struct AnyFormat {
        format: u32,
    }
    let AnyFormat { format } = serde_json::from_str(json).map_err(|_| unreadable())?;
    if format != FORMAT {
        return Err(Anomaly::FormatUnknown { key: key.to_owned(), format });
    }
    serde_json::from_str(json).map_err(|_| unreadable())
}

#[cfg(test)]
mod tests {
    use super::super::board::Peer;
    use super::super::units::Units;
    use super::*;

    fn keys() -> Keys {
        Keys::new("n", Units { shard_count: 4, fair_queue_count: 2, foreign: Vec::new() })
    }

    fn own<'a>(wallet: Option<&'a str>, view: Option<&'a str>) -> Own<'a> {
        Own { incarnation: "me", wallet, view, shards: "4/2", is_unwell: false }
    }

    fn sight(wallet: Option<&str>, shards: Option<&str>, peers: Vec<Peer>) -> BoardSight {
        let wallet = wallet.map(|identity| match identity.starts_with('{') {
            true => identity.to_owned(),
            false => serde_json::to_string(&WalletRecord::new(identity, 1, "x", "y")).unwrap(),
        });
        let peers = Peers { live: peers, ..Peers::default() };
        BoardSight { now: 50, peers, wallet, shards: shards.map(str::to_owned) }
    }

    fn peer(name: &str, view: Option<&str>, member_since: u64) -> Peer {
        let view = view.map(str::to_owned);
        let entry = Entry { format: FORMAT, name: name.to_owned(), view, member_since, ..Entry::default() };
        Peer { incarnation: name.to_owned(), seen_at: 50, entry: Ok(entry) }
    }

    #[test]
    fn what_the_board_allows() {
        let me = || peer("me", None, 0);
        // Own wallet, own view, sight; may own in the second round, what is claimed, the anomaly.
        type Row = (Option<&'static str>, BoardSight, bool, (bool, bool), Option<&'static str>);
        let table: [Row; 9] = [
            (Some("w"), sight(Some("w"), Some("4/2"), vec![me()]), true, (false, false), None),
            (Some("w"), sight(None, None, vec![me()]), false, (true, true), None),
            (None, sight(None, Some("4/2"), vec![me()]), false, (false, false), None),
            (None, sight(Some("w"), Some("4/2"), vec![me()]), false, (false, false), None),
            (Some("w"), sight(Some("v"), Some("4/2"), vec![]), false, (false, false), Some("wallet_differs")),
            (Some("w"), sight(Some("w"), Some("5/2"), vec![]), false, (false, false), Some("shards_differ")),
            (
                Some("w"),
                sight(Some("w"), Some("4/2"), vec![me(), peer("other", None, 9)]),
                false,
                (false, false),
                Some("view_private"),
            ),
            (Some("w"), sight(Some("{}"), Some("4/2"), vec![]), false, (false, false), Some("unreadable")),
            (
                Some("w"),
                sight(Some("{\"format\":2}"), Some("4/2"), vec![]),
                false,
                (false, false),
                Some("format_unknown"),
            ),
        ];
        for (row, (wallet, sight, may_own, claims, code)) in table.into_iter().enumerate() {
            let mut membership = Membership::default();
            let first = membership.judge(&sight, &own(wallet, None), &keys());
            assert!(!first.may_own && membership.joined_at == 50, "row {row}: a candidate first");
            let judged = membership.judge(&sight, &own(wallet, None), &keys());
            assert_eq!(judged.may_own, may_own, "row {row}");
            assert_eq!((judged.claims_shards, judged.claims_wallet), claims, "row {row}");
            assert_eq!(judged.anomaly.as_ref().map(Anomaly::code), code, "row {row}");
            assert_eq!(membership.member_since, if may_own { 50 } else { 0 }, "row {row}");
        }
    }

    #[test]
    fn who_is_unwell_owns_nothing_until_it_is_well() {
        let mut membership = Membership::default();
        let sight = sight(Some("w"), Some("4/2"), vec![peer("me", None, 0)]);
        let own = own(Some("w"), None);
        membership.judge(&sight, &own, &keys());
        assert!(membership.judge(&sight, &own, &keys()).may_own);
        let judged = membership.judge(&sight, &Own { is_unwell: true, ..own }, &keys());
        assert_eq!((judged.may_own, judged.anomaly, membership.member_since), (false, None, 0));
        assert!(membership.judge(&sight, &self::own(Some("w"), None), &keys()).may_own);
    }

    #[test]
    fn of_two_that_read_a_list_differently_the_later_is_refused() {
        let with = |name: &str, member_since: u64, lists: &[(&str, &str)]| {
            let mut peer = peer(name, None, member_since);
            let entry = peer.entry.as_mut().unwrap();
            entry.view = Some("v".to_owned());
            entry.lists = lists.iter().map(|(list, _)| (*list).to_owned()).collect();
            entry.list_marks = lists.iter().map(|(_, mark)| (*mark).to_owned()).collect();
            peer
        };
        let code = |mine: u64, theirs: &[(&str, &str)]| {
            let peers =
                vec![with("me", mine, &[("a", "client x"), ("b", "client x")]), with("other", 20, theirs)];
            let own = Own {
                incarnation: "me",
                wallet: Some("w"),
                view: Some("v"),
                shards: "4/2",
                is_unwell: false,
            };
            let judged = Membership::default().judge(&sight(Some("w"), Some("4/2"), peers), &own, &keys());
            judged.anomaly.map(|anomaly| (anomaly.code(), anomaly.to_string()))
        };
        assert_eq!(
            code(30, &[("a", "client x"), ("c", "client z")]),
            None,
            "other lists are no contradiction"
        );
        let (word, told) = code(30, &[("c", "client z"), ("b", "client y")]).unwrap();
        assert_eq!(word, "lists_differ");
        assert!(["list b", "client x", "client y", "other"].iter().all(|word| told.contains(word)), "{told}");
        assert_eq!(code(10, &[("b", "client y")]), None, "who was first goes on");
    }

    #[test]
    fn what_was_seen_and_is_gone_is_lost_data() {
        for (wallet, shards, key) in [(None, Some("4/2"), "wallet"), (Some("w"), None, "shards")] {
            let mut membership = Membership::default();
            let own = own(Some("w"), None);
            membership.judge(&sight(Some("w"), Some("4/2"), vec![]), &own, &keys());
            // Also for one that was away meanwhile.
            membership.start_over();
            let judged = membership.judge(&sight(wallet, shards, vec![]), &own, &keys());
            assert_eq!(judged.anomaly, Some(Anomaly::DataGone { key: format!("n:board:{key}") }));
        }
    }
}
