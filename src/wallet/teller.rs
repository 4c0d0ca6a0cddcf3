//! The thread that owns the books: takes what was asked, has the ledger decide it, and answers after the sync
//! that covers the answer.
//!
//! What holds: calls are decided one after the other, so that concurrent calls about one id are in order; all
//! that waits when the thread turns to it shares one sync (group commit); nothing is answered before the sync
//! that covers what it rests on, repeats and lookups included. Holds that have expired are voided first, by a
//! journalled transfer under an id that no caller can use. The line to the thread is bounded; when it is full,
//! the call is refused (503).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::WalletError;
use crate::digest::{key_hash, money_digest};
use crate::domain::{Amount, Currency, PayoutCode, Transfer, TransferKind, TransferStatus};
use crate::journal::Journal;
use crate::stored_value::ledger::Ledger;
use crate::stored_value::ledger::state::{OnRecord, State};
use crate::stored_value::{Durable, TransferBatch};

/// Calls that may wait for the thread.
const CALLS_WAITING_MAX: usize = 4_096;
/// Entries that share a sync; what waits beyond them takes the next.
const ENTRIES_PER_SYNC_MAX: usize = 50_000;
/// Marks the ids of the voids that end expired holds. No caller's id holds a control character.
const EXPIRED_PREFIX: &[u8] = b"\x01expired:";

pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Accounts that may not be paid, and with which code.
pub type Refused = Arc<RwLock<HashMap<Box<[u8]>, PayoutCode>>>;

pub enum Ask {
    Decide(TransferBatch),
    LookUp(Vec<String>),
    Balances(Vec<String>),
}

impl Ask {
    fn entries(&self) -> usize {
        match self {
            Ask::Decide(batch) => batch.len(),
            Ask::LookUp(names) | Ask::Balances(names) => names.len(),
        }
    }
}

#[derive(Debug)]
pub enum Told {
    /// A result an entry; the positions whose ids were on record already.
    Decided {
        results: Vec<TransferStatus>,
        repeated: Vec<u32>,
    },
    Found(Vec<Option<OnRecord>>),
    Balances(BalancesBody),
}

/// The body of `GET /balances`.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancesBody {
    /// Of the accounts asked for, those that exist; one row a currency.
    pub accounts: Vec<Balance>,
    /// Credits minus debits over every account, by currency: 0 each, or the books are broken.
    pub sums: BTreeMap<String, i64>,
}

/// Minor units.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    pub account: String,
    pub currency: String,
    pub balance: i64,
    /// The part of it that holds have set aside.
    pub held: u64,
}

struct Job {
    ask: Ask,
    reply: oneshot::Sender<Told>,
}

/// When a hold ends by itself (Unix ms), earliest first.
pub type Expiries = BinaryHeap<Reverse<(u64, Box<[u8]>)>>;

/// How the ledger is told that a hold ends by itself: in its `of`, which it has no other use for.
pub fn expiry_mark(at_ms: u64) -> String {
    at_ms.to_string()
}

pub fn expiry_of(mark: &[u8]) -> Option<u64> {
    std::str::from_utf8(mark).ok()?.parse().ok()
}

/// A handle on the thread.
#[derive(Clone)]
pub struct Teller {
    jobs: SyncSender<Job>,
}

/// Why no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Too many calls wait; nothing was done.
    Full,
    /// The thread has ended; what became of the call is not known.
    Gone,
}

impl Teller {
    pub async fn ask(&self, ask: Ask) -> Result<Told, NoAnswer> {
        let (reply, told) = oneshot::channel();
        match self.jobs.try_send(Job { ask, reply }) {
            Ok(()) => told.await.map_err(|_| NoAnswer::Gone),
            Err(TrySendError::Full(_)) => Err(NoAnswer::Full),
            Err(TrySendError::Disconnected(_)) => Err(NoAnswer::Gone),
        }
    }
}

/// What the thread works with.
pub struct Books {
    pub ledger: Ledger,
    pub journal: Journal,
    pub expiries: Expiries,
    pub refused: Refused,
    pub clock: Clock,
}

/// Starts the thread. It ends when every handle is gone, and gives the books back; `on_failure` is called on it
/// when it can go on no more.
pub fn start(
    books: Books,
    on_failure: Box<dyn Fn() + Send>,
) -> std::io::Result<(Teller, JoinHandle<Result<Books, WalletError>>)> {
    let (jobs, waiting) = sync_channel(CALLS_WAITING_MAX);
    let thread = std::thread::Builder::new().name("teller".to_owned()).spawn(move || {
        let guard = Guard { on_failure };
        let done = run(books, &waiting);
        if let Err(error) = &done {
            tracing::error!(%error, "the wallet can go on no more");
            (guard.on_failure)();
        }
        done
    })?;
    Ok((Teller { jobs }, thread))
}

/// Tells of a panic, too: a wallet without its teller answers nobody.
struct Guard {
    on_failure: Box<dyn Fn() + Send>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.on_failure)();
        }
    }
}

fn run(mut books: Books, waiting: &Receiver<Job>) -> Result<Books, WalletError> {
    let mut group = Vec::new();
    loop {
        let first = match books.next_expiry_in() {
            None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(within) => waiting.recv_timeout(within),
        };
        match first {
            Ok(job) => group.push(job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(books),
        }
        let mut entries = group.iter().map(|job| job.ask.entries()).sum::<usize>();
        while entries < ENTRIES_PER_SYNC_MAX
            && let Ok(job) = waiting.try_recv()
        {
            entries += job.ask.entries();
            group.push(job);
        }
        books.carry_out(&mut group)?;
    }
}

impl Books {
    /// How long until a hold expires. Bounded, so that a clock that was set is noticed.
    fn next_expiry_in(&self) -> Option<Duration> {
        let Reverse((at_ms, _)) = self.expiries.peek()?;
        Some(Duration::from_millis(at_ms.saturating_sub((self.clock)()).min(1_000)))
    }

    /// Decides every call of the group, waits for one sync, answers.
    fn carry_out(&mut self, group: &mut Vec<Job>) -> Result<(), WalletError> {
        let mut end = self.end_expired_holds()?;
        let mut replies = Vec::with_capacity(group.len());
        for job in group.drain(..) {
            let told = match job.ask {
                Ask::Decide(batch) => {
                    let (told, covered) = self.decide(&batch)?;
                    end = end.max(covered);
                    told
                }
                Ask::LookUp(ids) => {
                    let ids: Vec<&[u8]> = ids.iter().map(String::as_bytes).collect();
                    Told::Found(self.ledger.on_record(&ids)?)
                }
                Ask::Balances(names) => {
                    Told::Balances(self.ledger.with_state(|state, _| balances(state, &names))?)
                }
            };
            replies.push((job.reply, told));
        }
        // Readers rest on everything that was decided before them.
        end = end.max(self.ledger.with_state(|_, appended| appended)?);
        self.journal.wait_synced(end)?;
        for (reply, told) in replies {
            // Whoever asked may have given up waiting.
            let _ = reply.send(told);
        }
        Ok(())
    }

    fn decide(&mut self, batch: &TransferBatch) -> Result<(Told, u64), WalletError> {
        let (mut results, mut repeated) = (Vec::with_capacity(batch.len()), Vec::new());
        let refused = self.refused.read().unwrap_or_else(PoisonError::into_inner);
        let judge = |transfer: &Transfer<'_>| refused.get(transfer.credit).copied();
        let durable = self.ledger.transfer_judged(batch, &judge, &mut results, &mut repeated)?;
        drop(refused);
        assert_eq!(results.len(), batch.len(), "the ledger answers entry by entry");
        for (position, (transfer, result)) in batch.iter().zip(&results).enumerate() {
            if transfer.kind == TransferKind::Hold
                && *result == TransferStatus::Succeeded
                && repeated.binary_search(&(position as u32)).is_err()
                && let Some(at_ms) = expiry_of(transfer.of)
            {
                self.expiries.push(Reverse((at_ms, transfer.id.into())));
            }
        }
        let end = match durable {
            Durable::Now => 0,
            Durable::AtOffset(end) => end,
        };
        Ok((Told::Decided { results, repeated }, end))
    }

    /// Voids the holds whose time has passed; says what offset covers it.
    fn end_expired_holds(&mut self) -> Result<u64, WalletError> {
        let now_ms = (self.clock)();
        let mut batch = TransferBatch::default();
        while let Some(Reverse((at_ms, _))) = self.expiries.peek()
            && *at_ms <= now_ms
        {
            let Some(Reverse((_, id))) = self.expiries.pop() else { break };
            self.ledger.with_state(|state, _| push_void(state, &id, &mut batch))?;
        }
        if batch.is_empty() { Ok(0) } else { Ok(self.decide(&batch)?.1) }
    }
}

/// Asks for the end of a hold, if it is still open.
fn push_void(state: &State, hold_id: &[u8], batch: &mut TransferBatch) {
    let Some(hold) = state.holds.get(hold_id) else { return };
    let id = [EXPIRED_PREFIX, hold_id].concat();
    let mut void = Transfer {
        kind: TransferKind::Void,
        id: &id,
        key_hash: key_hash(&id),
        digest: [0; 16],
        debit: b"",
        credit: b"",
        amount: Amount::new(hold.amount).expect("it was held as an amount"),
        currency: state.accounts.currency(hold.debit),
        of: hold_id,
    };
    void.digest = money_digest(&void, &mut Vec::new());
    batch.push(&void);
}

fn balances(state: &mut State, names: &[String]) -> BalancesBody {
    let accounts = &state.accounts;
    let balance_of = |number: u32| {
        let account = accounts.get(number);
        i128::from(account.credits) - i128::from(account.debits)
    };
    let mut sums: BTreeMap<Currency, i128> = BTreeMap::new();
    for number in 0..accounts.len() as u32 {
        *sums.entry(accounts.currency(number)).or_default() += balance_of(number);
    }
    let mut body = BalancesBody::default();
    for (name, currency) in names.iter().flat_map(|name| sums.keys().map(move |currency| (name, currency))) {
        if let Some(number) = accounts.find(name.as_bytes(), *currency) {
            body.accounts.push(Balance {
                account: name.clone(),
                currency: currency.to_string(),
                balance: clamped(balance_of(number)),
                held: accounts.get(number).held,
            });
        }
    }
    body.sums = sums.into_iter().map(|(currency, sum)| (currency.to_string(), clamped(sum))).collect();
    body
}

fn clamped(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum > 0 { i64::MAX } else { i64::MIN })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::journal::{FolderStorage, Storage};
    use crate::wallet::{entry, recovery};

    fn books(folder: &std::path::Path, now_ms: &Arc<AtomicU64>) -> Books {
        let storage: Arc<dyn Storage> = Arc::new(FolderStorage::new(folder).unwrap());
        let recovery::Recovered { ledger, journal, expiries, .. } =
            recovery::recover(&storage, "id".to_owned()).unwrap();
        let now_ms = now_ms.clone();
        let clock: Clock = Arc::new(move || now_ms.load(Ordering::Relaxed));
        Books { ledger, journal, expiries, refused: Refused::default(), clock }
    }

    /// Has the thread's work done for one call with these entries, in short: kind, id, of, amount, expiry.
    fn pay(books: &mut Books, entries: &[(&str, &str, &str, u64, u64)]) -> Vec<TransferStatus> {
        let one = |(kind, id, of, amount, expires): &(&str, &str, &str, u64, u64)| {
            let sides = if of.is_empty() { r#""debit":"funding:x","credit":"b","# } else { "" };
            let expires = if *expires > 0 { format!(r#","expires_in_s":{expires}"#) } else { String::new() };
            format!(
                r#"{{{sides}"kind":"{kind}","id":"{id}","of":"{of}","amount":{amount},"currency":"CNY"{expires}}}"#
            )
        };
        let entries: Vec<String> = entries.iter().map(one).collect();
        let text = format!(r#"{{"deadline_ms":1000,"transfers":[{}]}}"#, entries.join(","));
        let asked = entry::transfers(&text, (books.clock)()).unwrap();
        let (reply, mut told) = oneshot::channel();
        books.carry_out(&mut vec![Job { ask: Ask::Decide(asked.batch), reply }]).unwrap();
        match told.try_recv().unwrap() {
            Told::Decided { results, .. } => results,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn holds_end_at_their_time_whatever_happened_before() {
        use TransferStatus::{Failed, Succeeded};
        let refused = Failed(PayoutCode::WalletRefused);
        // When it is posted, whether over a restart, and what the post answers; the hold ends at 6,000.
        let table = [
            (5_999, false, Succeeded),
            (5_999, true, Succeeded),
            (6_000, false, refused),
            (6_000, true, refused),
        ];
        for (at, restart, expected) in table {
            let folder = tempfile::tempdir().unwrap();
            let now_ms = Arc::new(AtomicU64::new(1_000));
            let mut the_books = books(folder.path(), &now_ms);
            assert_eq!(pay(&mut the_books, &[("hold", "h", "", 10, 5)]), [Succeeded]);
            // A repeat that names another time changes nothing.
            now_ms.store(2_000, Ordering::Relaxed);
            assert_eq!(pay(&mut the_books, &[("hold", "h", "", 10, 500)]), [Succeeded]);
            assert_eq!(the_books.expiries.len(), 1);
            if restart {
                the_books.journal.shutdown().unwrap();
                drop(the_books);
                the_books = books(folder.path(), &now_ms);
            }
            now_ms.store(at, Ordering::Relaxed);
            assert_eq!(pay(&mut the_books, &[("post", "p", "h", 10, 0)]), [expected], "at {at}, {restart}");
            let held = the_books.ledger.with_state(|state, _| state.holds.len()).unwrap();
            assert_eq!(held, 0);
        }
    }

    #[test]
    fn an_answer_waits_for_the_sync_that_covers_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut books = books(folder.path(), &Arc::new(AtomicU64::new(1_000)));
        for n in 0..50 {
            let id = format!("t{n}");
            pay(&mut books, &[("transfer", &id, "", 1, 0)]);
            let appended = books.ledger.with_state(|_, appended| appended).unwrap();
            assert!(books.journal.synced() >= appended, "answered before it was durable");
        }
    }
}
