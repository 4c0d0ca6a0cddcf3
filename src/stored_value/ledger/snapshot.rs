//! The ledger's state in a snapshot: accounts in the order of their numbers, open holds, what was taken back.
//! The ids are saved apart, as the changes since the last snapshot.
//!
//! Layout, little endian: version, counts of accounts, holds and reversals (`u32` each); then per account
//! debits, credits, held (`u64` each), currency (3 bytes), length of the name (1), name; per hold debit, credit
//! (`u32`), amount (`u64`), length of the id (1), id; per reversal amount (`u64`), length (1), id.

use super::state::{Hold, State};
use crate::domain::Currency;

const VERSION: u32 = 1;

pub fn save(state: &State) -> Vec<u8> {
    let mut out = Vec::with_capacity(state.accounts.len() * 48);
    let counts = [state.accounts.len(), state.holds.len(), state.reversed.len()];
    out.extend_from_slice(&VERSION.to_le_bytes());
    counts.iter().for_each(|count| out.extend_from_slice(&(*count as u32).to_le_bytes()));
    for number in 0..state.accounts.len() as u32 {
        let account = state.accounts.get(number);
        for total in [account.debits, account.credits, account.held] {
            out.extend_from_slice(&total.to_le_bytes());
        }
        let name = state.accounts.name(number);
        out.extend_from_slice(&state.accounts.currency(number).bytes());
        out.push(name.len() as u8);
        out.extend_from_slice(name);
    }
    for (id, hold) in &state.holds {
        out.extend_from_slice(&hold.debit.to_le_bytes());
        out.extend_from_slice(&hold.credit.to_le_bytes());
        out.extend_from_slice(&hold.amount.to_le_bytes());
        out.push(id.len() as u8);
        out.extend_from_slice(id);
    }
    for (id, amount) in &state.reversed {
        out.extend_from_slice(&amount.to_le_bytes());
        out.push(id.len() as u8);
        out.extend_from_slice(id);
    }
    out
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.0.split_at_checked(count).ok_or("the ledger's snapshot is cut short")?;
        self.0 = rest;
        Ok(head)
    }
    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }
    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }
    fn name(&mut self) -> Result<&'a [u8], String> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }
}

pub fn restore(bytes: &[u8]) -> Result<State, String> {
    let mut from = Cursor(bytes);
    let version = from.u32()?;
    if version != VERSION {
        return Err(format!("version {version} of the ledger's snapshot is unknown to this release"));
    }
    let (accounts, holds, reversed) = (from.u32()?, from.u32()?, from.u32()?);
    let mut state = State::default();
    for _ in 0..accounts {
        let (debits, credits, held) = (from.u64()?, from.u64()?, from.u64()?);
        let currency =
            from.take(3)?.try_into().ok().and_then(Currency::from_bytes).ok_or("a currency is not valid")?;
        let number = state.accounts.open(from.name()?, currency);
        state.accounts.restore(number, debits, credits, held);
    }
    for _ in 0..holds {
        let hold = Hold { debit: from.u32()?, credit: from.u32()?, amount: from.u64()? };
        state.holds.insert(from.name()?.into(), hold);
    }
    for _ in 0..reversed {
        let amount = from.u64()?;
        state.reversed.insert(from.name()?.into(), amount);
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_went() {
        let cny = Currency::parse("CNY").unwrap();
        let mut state = State::default();
        let a = state.accounts.open(b"funding:s", cny);
        let b = state.accounts.open(b"person:ann", cny);
        state.accounts.post(a, b, 100).unwrap();
        state.accounts.hold(b, 30).unwrap();
        state.holds.insert((*b"s:h").into(), Hold { debit: b, credit: a, amount: 30 });
        state.reversed.insert((*b"s:r").into(), 5);
        let bytes = save(&state);
        let restored = restore(&bytes).unwrap();
        assert_eq!(save(&restored), bytes);
        assert_eq!(restored.accounts.get(b), state.accounts.get(b));
        assert_eq!(restored.holds, state.holds);
        for cut in 0..bytes.len() {
            assert!(restore(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
