//! The ledger against a model of it in maps, in batches of any size: what a batch looks up ahead must never show.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::domain::{Amount, Currency};

const NAMES: [&str; 7] =
    ["funding:f", "campaign:a", "campaign:b", "person:0", "person:1", "person:2", "person:3"];
const CURRENCIES: [&str; 2] = ["CNY", "USD"];

/// A transfer by numbers: of few ids, names and amounts, so that everything happens twice.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ask {
    kind: TransferKind,
    id: String,
    debit: &'static str,
    credit: &'static str,
    currency: &'static str,
    amount: u64,
    of: String,
}

impl Ask {
    fn transfer<'a>(&'a self, digest: [u8; 16]) -> Transfer<'a> {
        Transfer {
            kind: self.kind,
            id: self.id.as_bytes(),
            debit: self.debit.as_bytes(),
            credit: self.credit.as_bytes(),
            of: self.of.as_bytes(),
            amount: Amount::new(self.amount).unwrap(),
            currency: Currency::parse(self.currency).unwrap(),
            key_hash: crate::digest::key_hash(self.id.as_bytes()),
            digest,
            expires_in_s: 0,
        }
    }

    /// Everything but the id, as the wallet compares it.
    fn digest(&self) -> [u8; 16] {
        let text = format!("{:?}", Ask { id: String::new(), ..self.clone() });
        blake3::hash(text.as_bytes()).as_bytes()[..16].try_into().unwrap()
    }
}

#[derive(Clone)]
struct Kept {
    ask: Ask,
    code: Option<PayoutCode>,
    /// What it moved, and between whom.
    moved: Option<(&'static str, &'static str, u64)>,
}

#[derive(Default)]
struct Model {
    /// Credits less debits, and what is held.
    balances: BTreeMap<(&'static str, &'static str), (i128, i128)>,
    kept: HashMap<String, Kept>,
    holds: HashMap<String, Ask>,
    reversed: HashMap<String, u64>,
}

impl Model {
    fn available(&self, name: &str, currency: &str) -> i128 {
        let of =
            self.balances.iter().find(|((held, in_currency), _)| *held == name && *in_currency == currency);
        if name.starts_with("funding:") { i128::MAX } else { of.map_or(0, |(_, (sum, held))| sum - held) }
    }

    fn add(&mut self, name: &'static str, currency: &'static str, sum: i128, held: i128) {
        let balance = self.balances.entry((name, currency)).or_default();
        *balance = (balance.0 + sum, balance.1 + held);
    }

    fn post(&mut self, (debit, credit): (&'static str, &'static str), currency: &'static str, amount: u64) {
        self.add(debit, currency, -i128::from(amount), 0);
        self.add(credit, currency, i128::from(amount), 0);
    }

    fn decide(&mut self, ask: &Ask) -> TransferStatus {
        let told = |kept: &Kept| match (kept.ask.kind, kept.code) {
            (TransferKind::Burn, _) => TransferStatus::Failed(PayoutCode::Burned),
            (_, Some(code)) => TransferStatus::Failed(code),
            (_, None) => TransferStatus::Succeeded,
        };
        if let Some(kept) = self.kept.get(&ask.id) {
            let burns = ask.kind == TransferKind::Burn || kept.ask.kind == TransferKind::Burn;
            let is_same = burns || kept.ask.digest() == ask.digest();
            return if is_same { told(kept) } else { TransferStatus::Failed(PayoutCode::IdConflict) };
        }
        let (moved, code) = match self.carry_out(ask) {
            Err(PayoutCode::LowBalance) => return TransferStatus::Failed(PayoutCode::LowBalance),
            Ok(moved) => (moved, None),
            Err(code) => (None, Some(code)),
        };
        let kept = Kept { ask: ask.clone(), code, moved };
        let status = told(&kept);
        self.kept.insert(ask.id.clone(), kept);
        status
    }

    fn carry_out(&mut self, ask: &Ask) -> Result<Option<(&'static str, &'static str, u64)>, PayoutCode> {
        let (parties, currency, amount) = ((ask.debit, ask.credit), ask.currency, ask.amount);
        let bears = |model: &Model, name| model.available(name, currency) >= i128::from(amount);
        match ask.kind {
            TransferKind::Transfer | TransferKind::Hold => {
                if !bears(self, ask.debit) {
                    return Err(PayoutCode::LowBalance);
                }
                if ask.kind == TransferKind::Hold {
                    self.add(ask.debit, currency, 0, i128::from(amount));
                    self.holds.insert(ask.id.clone(), ask.clone());
                    return Ok(None);
                }
                self.post(parties, currency, amount);
                Ok(Some((ask.debit, ask.credit, amount)))
            }
            TransferKind::Post | TransferKind::Void => {
                let hold = self.holds.get(&ask.of).cloned().filter(|hold| hold.currency == currency);
                let hold = hold.ok_or(PayoutCode::WalletRefused)?;
                if hold.amount != amount {
                    return Err(PayoutCode::AmountLimit);
                }
                self.holds.remove(&ask.of);
                self.add(hold.debit, currency, 0, -i128::from(amount));
                if ask.kind == TransferKind::Void {
                    return Ok(None);
                }
                self.post((hold.debit, hold.credit), currency, amount);
                Ok(Some((hold.debit, hold.credit, amount)))
            }
            TransferKind::Reverse => {
                let original = self.kept.get(&ask.of).and_then(|kept| Some((kept.ask.currency, kept.moved?)));
                let (in_currency, (debit, credit, whole)) = original.ok_or(PayoutCode::WalletRefused)?;
                let is_moved =
                    matches!(self.kept[&ask.of].ask.kind, TransferKind::Transfer | TransferKind::Post);
                if !is_moved || parties != (credit, debit) || currency != in_currency {
                    return Err(PayoutCode::WalletRefused);
                }
                let before = self.reversed.get(&ask.of).copied().unwrap_or(0);
                if before + amount > whole {
                    return Err(PayoutCode::AmountLimit);
                }
                if !bears(self, ask.debit) {
                    return Err(PayoutCode::LowBalance);
                }
                self.post(parties, currency, amount);
                *self.reversed.entry(ask.of.clone()).or_default() += amount;
                Ok(Some((ask.debit, ask.credit, amount)))
            }
            TransferKind::Burn => Ok(None),
        }
    }
}

/// What was written, as a journal would have it.
#[derive(Default)]
struct Log(Vec<u8>);

impl Records for Log {
    fn transfer_at(&mut self, place: u64) -> Result<&[u8], StoredValueError> {
        Ok(&self.0[place as usize..])
    }

    fn begins_at(&self) -> u64 {
        0
    }
}

fn decide(asks: &[Ask], sizes: &[usize]) -> (Vec<TransferStatus>, State, Vec<u8>) {
    let (mut state, mut log, mut told, mut frames) =
        (State::default(), Log::default(), Vec::new(), Vec::new());
    let (mut left, mut size) = (asks, sizes.iter().cycle());
    while !left.is_empty() {
        let (now, later) = left.split_at((*size.next().unwrap()).min(left.len()));
        left = later;
        let mut batch = TransferBatch::default();
        now.iter().for_each(|ask| batch.push(&ask.transfer(ask.digest())));
        let mut results = Vec::new();
        state.decide(&batch, &|_| None, &mut log, &mut results).unwrap();
        told.append(&mut results);
        let at = log.0.len();
        log.0.extend_from_slice(&state.written);
        state.placed(at as u64);
        frames.push(at);
    }
    // The journal alone makes the same books.
    let mut replayed = State::default();
    frames.push(log.0.len());
    for frame in frames.windows(2) {
        replayed.replay(frame[0] as u64, &log.0[frame[0]..frame[1]]).unwrap();
    }
    let accounts = |state: &State| -> Vec<_> {
        (0..state.accounts.len() as u32)
            .map(|at| (state.accounts.name(at).to_vec(), *state.accounts.get(at)))
            .collect()
    };
    assert!(accounts(&replayed) == accounts(&state), "other accounts");
    assert!(replayed.holds == state.holds && replayed.reversed == state.reversed, "other holds or reversals");
    (told, state, log.0)
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let kind = prop_oneof![
        8 => Just(TransferKind::Transfer),
        2 => Just(TransferKind::Hold),
        2 => Just(TransferKind::Post),
        1 => Just(TransferKind::Void),
        2 => Just(TransferKind::Reverse),
        1 => Just(TransferKind::Burn),
    ];
    let one = (kind, 0..150u32, 0..NAMES.len(), 1..NAMES.len(), 0..5usize, 1..4u64, 0..150u32);
    let ask = one.prop_map(|(kind, id, debit, step, currency, amount, of)| {
        let ends_one = matches!(kind, TransferKind::Post | TransferKind::Void | TransferKind::Reverse);
        Ask {
            kind,
            id: format!("s:{id}"),
            debit: NAMES[debit],
            credit: NAMES[(debit + step) % NAMES.len()],
            currency: CURRENCIES[currency / 4],
            amount,
            of: if ends_one { format!("s:{of}") } else { String::new() },
        }
    });
    proptest::collection::vec(ask, 1..400)
}

/// Some of what ends a hold or takes something back is made to fit what came before it.
fn fitted(asks: Vec<Ask>) -> Vec<Ask> {
    let mut firsts: HashMap<String, Ask> = HashMap::new();
    let fit = |mut ask: Ask| {
        if let (Some(of), true) = (firsts.get(&ask.of), ask.amount > 1) {
            (ask.currency, ask.amount) = (of.currency, of.amount);
            (ask.debit, ask.credit) = (of.credit, of.debit);
        }
        firsts.entry(ask.id.clone()).or_insert_with(|| ask.clone());
        ask
    };
    asks.into_iter().map(fit).collect()
}

proptest! {
    #[test]
    fn a_batch_of_any_size_is_what_its_transfers_are_one_by_one(asks in asks(), sizes in proptest::collection::vec(1..200usize, 1..5)) {
        let asks = fitted(asks);
        let mut model = Model::default();
        let expected: Vec<TransferStatus> = asks.iter().map(|ask| model.decide(ask)).collect();
        let (told, state, log) = decide(&asks, &sizes);
        prop_assert_eq!(&told, &expected);
        for ((name, currency), (sum, held)) in &model.balances {
            let number = state.accounts.find(name.as_bytes(), Currency::parse(currency).unwrap()).unwrap();
            let account = state.accounts.get(number);
            prop_assert_eq!(i128::from(account.credits) - i128::from(account.debits), *sum);
            prop_assert_eq!(i128::from(account.held), *held);
        }
        let (one_by_one, _, log_of_ones) = decide(&asks, &[1]);
        prop_assert_eq!(told, one_by_one);
        prop_assert!(log == log_of_ones, "the same entries, whatever the batches");
    }
}
