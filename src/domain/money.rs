//! Money: an integer number of minor units, and the currency it is counted in.
//!
//! Every operation is checked; there is no float and no conversion between currencies. Amounts cross the
//! HTTP border as JSON numbers, so the bound is 2^53 - 1, the largest integer every JSON reader keeps exact.

use std::fmt;

/// The largest amount a request may carry, in minor units (2^53 - 1).
pub const AMOUNT_MAX: u64 = (1 << 53) - 1;

/// An amount in minor units (cents, fen), between 0 and [`AMOUNT_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(u64);

impl Amount {
    pub const ZERO: Amount = Amount(0);

    /// `None` past [`AMOUNT_MAX`].
    pub const fn new(minor_units: u64) -> Option<Amount> {
        if minor_units <= AMOUNT_MAX { Some(Amount(minor_units)) } else { None }
    }

    pub const fn minor_units(self) -> u64 {
        self.0
    }

    pub fn checked_add(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).and_then(Amount::new)
    }

    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An ISO 4217 alphabetic code in form: three capital letters. Whether the code is assigned is checked at
/// the door, where the list is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

impl Currency {
    pub fn parse(text: &str) -> Option<Currency> {
        Currency::from_bytes(text.as_bytes().try_into().ok()?)
    }

    pub fn from_bytes(bytes: [u8; 3]) -> Option<Currency> {
        bytes.iter().all(u8::is_ascii_uppercase).then_some(Currency(bytes))
    }

    pub const fn bytes(self) -> [u8; 3] {
        self.0
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("three capital letters are UTF-8")
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_bounded_and_checked() {
        let amount = |n| Amount::new(n).unwrap();
        assert_eq!(Amount::new(AMOUNT_MAX + 1), None);
        assert_eq!(amount(AMOUNT_MAX).checked_add(amount(1)), None);
        assert_eq!(amount(1).checked_add(amount(2)), Some(amount(3)));
        assert_eq!(amount(1).checked_sub(amount(2)), None);
        assert_eq!(amount(2).checked_sub(amount(2)), Some(Amount::ZERO));
    }

    #[test]
    fn currencies_are_three_capitals() {
        let table =
            [("CNY", true), ("USD", true), ("usd", false), ("US", false), ("USDX", false), ("U1D", false)];
        for (text, valid) in table {
            assert_eq!(Currency::parse(text).is_some(), valid, "{text}");
        }
    }
}
