//! Result streams: final states for producers that speak Redis only.
//!
//! Whoever owns a foreign list finds in `keys.results(client)` what became of its requests, however they came in. An
//! entry is one state and the ids that reached it: `status`, `code` where there is one, `at`, and `ids`, a JSON array of
//! up to [`RESULTS_MAX`]. An id that was canceled is told by its cancel. Another request under an id that is taken is
//! told as [`REJECTED`], which is no state of the id: what was told of the first one stands. What holds: a result is told
//! after it is durable, and may come twice, so readers go by the id. Best effort: a stream keeps about as many entries
//! as are configured, and what cannot be written, because Redis is full or away, is counted and not tried again; the
//! API has it all the same. Absent: what waits, and what moves between a campaign's own accounts.

use super::keys::Keys;
use crate::domain::{Kind, Outcome, PayoutCode, Request, Status, UnixMs};
use crate::redis::Command;
use crate::request::rfc3339::Rfc3339;

/// Ids in one entry.
pub const RESULTS_MAX: usize = 1_000;
/// The status of a request that was refused because its id is another's.
pub const REJECTED: &str = "REJECTED";
/// How many of the entries that are being gathered an outcome is looked for in: neighbours share their state.
const LOOK_BACK: usize = 8;

/// What the ids of an entry have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// Whose stream, by position.
    position: usize,
    status: &'static str,
    code: Option<PayoutCode>,
    at: UnixMs,
}

/// The id that is told of, and its state. Nothing of what is not final, nor of what is nobody's payout.
fn told<'a>(outcome: &Outcome<'_>, request: &'a Request<'_>, position: usize) -> Option<(&'a str, State)> {
    if !outcome.status.is_final() {
        return None;
    }
    let status = match outcome.code {
        Some(PayoutCode::IdConflict) => REJECTED,
        _ => outcome.status.as_str(),
    };
    let state = State { position, status, code: outcome.code, at: outcome.at };
    match request.kind {
        Kind::Disbursement | Kind::Collection | Kind::Reversal => Some((request.id, state)),
        Kind::Cancel if outcome.status == Status::Succeeded => {
            Some((request.original, State { status: Status::Canceled.as_str(), code: None, ..state }))
        }
        Kind::Cancel | Kind::Fund | Kind::Defund => None,
    }
}

/// An entry that is being gathered.
struct Gathered {
    state: State,
    ids: Vec<u8>,
    count: usize,
}

impl Gathered {
    fn add(&mut self, id: &str) {
        self.ids.push(if self.count == 0 { b'[' } else { b',' });
        // Ids have nothing to escape.
        [b"\"", id.as_bytes(), b"\""].iter().for_each(|part| self.ids.extend_from_slice(part));
        self.count += 1;
    }
}

/// Who is told, and where.
#[derive(Clone, Debug)]
pub struct Results {
    /// Clients and their streams.
    streams: Vec<(String, String)>,
    count_max: u64,
}

impl Results {
    /// `count_max` is of entries in each stream, about; 0: nobody is told.
    pub fn new(keys: &Keys, count_max: u64) -> Results {
        let mut streams: Vec<(String, String)> = Vec::new();
        for list in keys.units().foreign.iter().filter(|_| count_max > 0) {
            if streams.iter().all(|(client, _)| *client != list.client) {
                streams.push((list.client.clone(), keys.results(&list.client)));
            }
        }
        Results { streams, count_max }
    }

    /// Commands that tell of these.
    pub fn commands<'a>(
        &self,
        settled: impl Iterator<Item = (&'a Outcome<'a>, &'a Request<'a>)>,
    ) -> Vec<Command> {
        let mut gathered: Vec<Gathered> = Vec::new();
        for (outcome, request) in settled {
            let position = self.streams.iter().position(|(client, _)| client == request.client);
            let Some((id, state)) = position.and_then(|position| told(outcome, request, position)) else {
                continue;
            };
            let is_open = |open: &&mut Gathered| open.state == state && open.count < RESULTS_MAX;
            match gathered.iter_mut().rev().take(LOOK_BACK).find(is_open) {
                Some(open) => open.add(id),
                None => {
                    let mut open = Gathered { state, ids: Vec::new(), count: 0 };
                    open.add(id);
                    gathered.push(open);
                }
            }
        }
        gathered.into_iter().map(|entry| self.entry(entry)).collect()
    }

    fn entry(&self, Gathered { state, mut ids, .. }: Gathered) -> Command {
        ids.push(b']');
        let mut command = Command::new("XADD", &self.streams[state.position].1).arg("MAXLEN").arg("~");
        command = command.arg(self.count_max).arg("*").arg("status").arg(state.status);
        if let Some(code) = state.code {
            command = command.arg("code").arg(code.as_str());
        }
        command.arg("at").arg(&Rfc3339(state.at).text()).arg("ids").arg(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::super::units::{ForeignList, Order, Units};
    use super::*;
    use crate::domain::{Amount, Currency, Lane};

    fn results(count_max: u64) -> Results {
        let list = |name: &str, client: &str| ForeignList {
            name: name.to_owned(),
            client: client.to_owned(),
            order: Order::Rpush,
            hmac_key: None,
        };
        let foreign = vec![list("a", "shop"), list("b", "mall"), list("c", "shop")];
        Results::new(&Keys::new("hongbao", Units { shard_count: 1, fair_queue_count: 1, foreign }), count_max)
    }

    fn outcome(status: Status, code: Option<PayoutCode>) -> Outcome<'static> {
        Outcome {
            status,
            code,
            reason: None,
            kind: Kind::Disbursement,
            lane: Some(Lane::Realtime),
            request_place: 0,
            follows_place: 0,
            key_hash: 0,
            at: 1_767_225_600_007,
            next_attempt_at: 0,
            attempts: 1,
            campaign_number: 0,
            amount: 88,
            wallet_ref: "",
        }
    }

    fn request(client: &'static str, kind: Kind, id: &'static str) -> Request<'static> {
        let (amount, currency) = (Amount::new(88).unwrap(), Currency::parse("CNY").unwrap());
        Request { original: "r-9", ..Request::new(kind, client, id, "c", amount, currency) }
    }

    /// Words of the commands, from the second on.
    fn words(commands: &[Command]) -> Vec<String> {
        let words = |command: &Command| {
            let args = command.cmd().args_iter().skip(1).map(|arg| match arg {
                redis::Arg::Simple(word) => String::from_utf8(word.to_vec()).unwrap(),
                _ => panic!("no cursor"),
            });
            args.collect::<Vec<_>>().join(" ")
        };
        commands.iter().map(words).collect()
    }

    #[test]
    fn each_client_is_told_of_its_own_final_states() {
        use Kind::{Cancel, Collection, Disbursement, Fund, Reversal};
        let ok = outcome(Status::Succeeded, None);
        let failed = outcome(Status::Failed, Some(PayoutCode::PayeeFrozen));
        let settled = [
            (ok, request("shop", Disbursement, "r-1")),
            (outcome(Status::Queued, None), request("shop", Disbursement, "r-2")),
            (outcome(Status::Unknown, None), request("shop", Disbursement, "r-3")),
            (failed, request("mall", Collection, "r-1")),
            (ok, request("other", Disbursement, "r-4")),
            (ok, request("shop", Fund, "f-1")),
            (ok, request("shop", Cancel, "r-9")),
            (failed, request("shop", Cancel, "r-9")),
            (ok, request("shop", Reversal, "v-1")),
            (outcome(Status::Failed, Some(PayoutCode::IdConflict)), request("shop", Disbursement, "r-1")),
            (Outcome { at: ok.at + 1, ..ok }, request("shop", Disbursement, "r-8")),
        ];
        let commands = results(7).commands(settled.iter().map(|(outcome, request)| (outcome, request)));
        let (head, at) = ("MAXLEN ~ 7 * status", "at 2026-01-01T00:00:00.007Z ids");
        let later = at.replace("007", "008");
        let expected = [
            format!(r#"hongbao:results:shop {head} SUCCEEDED {at} ["r-1","v-1"]"#),
            format!(r#"hongbao:results:mall {head} FAILED code payee_frozen {at} ["r-1"]"#),
            format!(r#"hongbao:results:shop {head} CANCELED {at} ["r-9"]"#),
            format!(r#"hongbao:results:shop {head} REJECTED code id_conflict {at} ["r-1"]"#),
            format!(r#"hongbao:results:shop {head} SUCCEEDED {later} ["r-8"]"#),
        ];
        assert_eq!(words(&commands), expected);
        assert!(results(0).commands(settled.iter().map(|(outcome, request)| (outcome, request))).is_empty());
        assert!(results(7).commands(std::iter::empty()).is_empty());
    }

    #[test]
    fn entries_are_bounded() {
        let (outcome, request) = (outcome(Status::Succeeded, None), request("shop", Kind::Disbursement, "r"));
        let commands = results(9).commands((0..2_001).map(|_| (&outcome, &request)));
        let counts: Vec<usize> =
            words(&commands).iter().map(|words| words.matches("\"r\"").count()).collect();
        assert_eq!(counts, [1_000, 1_000, 1]);
    }
}
