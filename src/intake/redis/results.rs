//! Result streams: final states for producers that speak Redis only.
//!
//! Whoever owns a foreign list finds in `keys.results(client)` what became of its requests, however they came in:
//! entries with one field `results`, a JSON array of up to [`RESULTS_MAX`] objects
//! `{"id":…,"status":…,"code":…,"amount":…,"currency":…,"at":…}`, `code` only where there is one. An id that was
//! canceled is told by its cancel, without an amount. A request under an id that stands for another one is `REJECTED`
//! (`id_conflict`), which is no state of the id. What holds: a result is told after it is durable, and may come
//! twice, so readers go by the id. Best effort: a stream keeps about as many entries as are configured, and what
//! cannot be written, because Redis is full or away, is counted and not tried again; the API has it all the same.
//! Absent: what waits, and what moves between a campaign's own accounts.

use serde::Serialize;

use super::keys::Keys;
use crate::domain::{Kind, Outcome, PayoutCode, Request, Status};
use crate::redis::Command;
use crate::request::rfc3339::Rfc3339;

/// Results in one entry.
pub const RESULTS_MAX: usize = 1_000;
/// In the place of a status: the id stands for another request, and says nothing of that one's.
const REJECTED: &str = "REJECTED";

/// One result, as told.
#[derive(Debug, Serialize)]
struct Told<'a> {
    id: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
    at: Rfc3339,
}

impl<'a> Told<'a> {
    /// Nothing of what is not final, nor of what is nobody's payout.
    fn new(outcome: &Outcome<'_>, request: &'a Request<'_>) -> Option<Told<'a>> {
        if !outcome.status.is_final() {
            return None;
        }
        // What stands under the id is another request, whose state this is not.
        let is_conflict = outcome.code == Some(PayoutCode::IdConflict);
        let told = Told {
            id: request.id,
            status: if is_conflict { REJECTED } else { outcome.status.as_str() },
            code: outcome.code.map(|code| code.as_str()),
            amount: Some(request.amount.minor_units()),
            currency: Some(request.currency.as_str()),
            at: Rfc3339(outcome.at),
        };
        match request.kind {
            Kind::Disbursement | Kind::Collection | Kind::Reversal => Some(told),
            Kind::Cancel if outcome.status == Status::Succeeded => {
                let status = Status::Canceled.as_str();
                Some(Told { id: request.original, status, code: None, amount: None, currency: None, ..told })
            }
            Kind::Cancel | Kind::Fund | Kind::Defund => None,
        }
    }
}

/// Who is told, and where.
#[derive(Clone, Debug)]
pub struct Results {
    /// Clients and their streams.
    streams: Vec<(String, String)>,
    count_max: u64,
}

/// Results of one client that are being gathered.
#[derive(Default)]
struct Gathered {
    json: Vec<u8>,
    count: usize,
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

    /// Commands that tell of these, in order: one XADD for up to [`RESULTS_MAX`] results of a client.
    pub fn commands<'a>(
        &self,
        settled: impl Iterator<Item = (&'a Outcome<'a>, &'a Request<'a>)>,
    ) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut gathered: Vec<Gathered> = self.streams.iter().map(|_| Gathered::default()).collect();
        for (outcome, request) in settled {
            let position = self.streams.iter().position(|(client, _)| client == request.client);
            let told = position.and_then(|position| Some((position, Told::new(outcome, request)?)));
            let Some((position, told)) = told else { continue };
            let open = &mut gathered[position];
            open.json.push(if open.count == 0 { b'[' } else { b',' });
            serde_json::to_writer(&mut open.json, &told).expect("strings and numbers are JSON");
            open.count += 1;
            if open.count == RESULTS_MAX {
                commands.push(self.entry(position, std::mem::take(open)));
            }
        }
        let rest = gathered.into_iter().enumerate().filter(|(_, open)| open.count > 0);
        commands.extend(rest.map(|(position, open)| self.entry(position, open)));
        commands
    }

    fn entry(&self, position: usize, gathered: Gathered) -> Command {
        let mut json = gathered.json;
        json.push(b']');
        let command = Command::new("XADD", &self.streams[position].1).arg("MAXLEN").arg("~");
        command.arg(self.count_max).arg("*").arg("results").arg(json)
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
        let conflict = outcome(Status::Failed, Some(PayoutCode::IdConflict));
        let settled = [
            (ok, request("shop", Disbursement, "r-1")),
            (outcome(Status::Queued, None), request("shop", Disbursement, "r-2")),
            (outcome(Status::Unknown, None), request("shop", Disbursement, "r-3")),
            (failed, request("mall", Collection, "r-1")),
            (conflict, request("mall", Disbursement, "r-1")),
            (ok, request("other", Disbursement, "r-4")),
            (ok, request("shop", Fund, "f-1")),
            (ok, request("shop", Cancel, "r-9")),
            (failed, request("shop", Cancel, "r-9")),
            (ok, request("shop", Reversal, "v-1")),
        ];
        let commands = results(7).commands(settled.iter().map(|(outcome, request)| (outcome, request)));
        let at = r#""at":"2026-01-01T00:00:00.007Z""#;
        let money = r#""amount":88,"currency":"CNY""#;
        let shop = format!(
            r#"hongbao:results:shop MAXLEN ~ 7 * results [{{"id":"r-1","status":"SUCCEEDED",{money},{at}}},{{"id":"r-9","status":"CANCELED",{at}}},{{"id":"v-1","status":"SUCCEEDED",{money},{at}}}]"#
        );
        let mall = format!(
            r#"hongbao:results:mall MAXLEN ~ 7 * results [{{"id":"r-1","status":"FAILED","code":"payee_frozen",{money},{at}}},{{"id":"r-1","status":"REJECTED","code":"id_conflict",{money},{at}}}]"#
        );
        assert_eq!(words(&commands), [shop, mall]);
        assert!(results(0).commands(settled.iter().map(|(outcome, request)| (outcome, request))).is_empty());
        assert!(results(7).commands(std::iter::empty()).is_empty());
    }

    #[test]
    fn entries_are_bounded() {
        let (outcome, request) = (outcome(Status::Succeeded, None), request("shop", Kind::Disbursement, "r"));
        let commands = results(9).commands((0..2_001).map(|_| (&outcome, &request)));
        let counts: Vec<usize> =
            words(&commands).iter().map(|words| words.matches("\"id\"").count()).collect();
        assert_eq!(counts, [1_000, 1_000, 1]);
    }
}
