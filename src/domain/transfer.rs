//! A transfer as the wallet knows it, and how it follows from a request.
//!
//! The transfer is a pure function of the stored request: every attempt, by any instance, at any time, sends
//! the same body under the same id. That is what makes "send it again" safe.

use super::record::{Kind, Request};
use super::{Amount, Currency, PayoutCode, ids};

/// The stored form of a transfer kind is its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TransferKind {
    Transfer = 1,
    /// Sets the amount aside on the debit account.
    Hold = 2,
    /// Moves what the hold in `of` set aside.
    Post = 3,
    /// Releases the hold in `of`.
    Void = 4,
    /// Moves money back from what `of` moved; never more in all than `of` moved.
    Reverse = 5,
    /// Not a movement: takes the id out of use for good.
    Burn = 6,
}

impl TransferKind {
    pub const fn from_u8(byte: u8) -> Option<TransferKind> {
        match byte {
            1 => Some(TransferKind::Transfer),
            2 => Some(TransferKind::Hold),
            3 => Some(TransferKind::Post),
            4 => Some(TransferKind::Void),
            5 => Some(TransferKind::Reverse),
            6 => Some(TransferKind::Burn),
            _ => None,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            TransferKind::Transfer => "transfer",
            TransferKind::Hold => "hold",
            TransferKind::Post => "post",
            TransferKind::Void => "void",
            TransferKind::Reverse => "reverse",
            TransferKind::Burn => "burn",
        }
    }
}

/// One entry of a batch to the wallet. `id`, `debit`, `credit` and `of` are the wallet's names:
/// `client:id`, `campaign:<client>:<id>`, `person:<payee>`, `merchant:<id>`, `funding:<client>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer<'a> {
    pub kind: TransferKind,
    pub id: &'a [u8],
    pub key_hash: u64,
    pub digest: [u8; 16],
    pub debit: &'a [u8],
    pub credit: &'a [u8],
    pub amount: Amount,
    pub currency: Currency,
    /// The wallet id of the transfer that post, void and reverse are about.
    pub of: &'a [u8],
    /// Seconds from its decision after which a hold is released by itself; 0: never. Not one of the money fields,
    /// so it stands outside the digest: a hold that is sent again is the same hold, whatever time its sender
    /// has left to give by then, and the first that was decided set the time.
    pub expires_in_s: u32,
}

/// What the wallet says of one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferStatus {
    /// Done, now or earlier under the same id and body.
    Succeeded,
    /// Not done; whether that is final is the code's class.
    Failed(PayoutCode),
    /// Nobody can say yet. Only the same id and body, sent again, will tell.
    Unknown,
}

/// The account names of a request, written one after the other into one buffer.
#[derive(Clone, Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
    ends: [usize; 4],
}

impl Names {
    pub fn id(&self) -> &[u8] {
        &self.bytes[..self.ends[0]]
    }
    pub fn debit(&self) -> &[u8] {
        &self.bytes[self.ends[0]..self.ends[1]]
    }
    pub fn credit(&self) -> &[u8] {
        &self.bytes[self.ends[1]..self.ends[2]]
    }
    pub fn of(&self) -> &[u8] {
        &self.bytes[self.ends[2]..self.ends[3]]
    }

    /// Writes the names that `request` stands for, keeping the buffer's memory.
    pub fn fill(&mut self, request: &Request<'_>) {
        self.bytes.clear();
        self.ends = write_names(&mut self.bytes, request);
    }

    /// The transfer of `request`, over names filled from that same request.
    pub fn transfer<'a>(&'a self, request: &Request<'_>) -> Transfer<'a> {
        Transfer {
            kind: transfer_kind(request.kind),
            id: self.id(),
            key_hash: request.key_hash,
            digest: request.digest,
            debit: self.debit(),
            credit: self.credit(),
            amount: request.amount,
            currency: request.currency,
            of: self.of(),
            expires_in_s: 0,
        }
    }
}

/// Appends the names that `request` stands for: id, debit, credit and `of`. Answers where each ends.
pub fn write_names(out: &mut Vec<u8>, request: &Request<'_>) -> [usize; 4] {
    let id = if request.kind == Kind::Cancel { request.original } else { request.id };
    ids::write_key(out, request.client.as_bytes(), id.as_bytes());
    let id_end = out.len();
    let (debit, credit) = sides(request);
    debit.write(out, request);
    let debit_end = out.len();
    credit.write(out, request);
    let credit_end = out.len();
    if request.kind == Kind::Reversal {
        ids::write_key(out, request.client.as_bytes(), request.original.as_bytes());
    }
    [id_end, debit_end, credit_end, out.len()]
}

/// What the wallet is asked to do for a request of this kind.
pub const fn transfer_kind(kind: Kind) -> TransferKind {
    match kind {
        Kind::Disbursement | Kind::Collection | Kind::Fund | Kind::Defund => TransferKind::Transfer,
        Kind::Reversal => TransferKind::Reverse,
        Kind::Cancel => TransferKind::Burn,
    }
}

#[derive(Clone, Copy)]
enum Account {
    Nobody,
    Campaign,
    Person,
    Merchant,
    Funding,
}

impl Account {
    fn write(self, out: &mut Vec<u8>, request: &Request<'_>) {
        let (prefix, name): (&[u8], &str) = match self {
            Account::Nobody => return,
            Account::Campaign => {
                out.extend_from_slice(b"campaign:");
                return ids::write_key(out, request.client.as_bytes(), request.campaign.as_bytes());
            }
            Account::Person => (b"person:", request.party),
            Account::Merchant => (b"merchant:", request.merchant),
            Account::Funding => (b"funding:", request.client),
        };
        out.extend_from_slice(prefix);
        out.extend_from_slice(name.as_bytes());
    }
}

/// Debit and credit side. A reversal carries the parties of what it reverses; one with a merchant reverses a
/// collection.
fn sides(request: &Request<'_>) -> (Account, Account) {
    match request.kind {
        Kind::Disbursement => (Account::Campaign, Account::Person),
        Kind::Collection => (Account::Person, Account::Merchant),
        Kind::Reversal if request.merchant.is_empty() => (Account::Person, Account::Campaign),
        Kind::Reversal => (Account::Merchant, Account::Person),
        Kind::Fund => (Account::Funding, Account::Campaign),
        Kind::Defund => (Account::Campaign, Account::Funding),
        Kind::Cancel => (Account::Nobody, Account::Nobody),
    }
}

/// Appends the canonical money fields, over which the digest of a transfer is taken. Fields are separated by
/// a zero byte, which no name can hold. How long a hold lives is not one of them.
pub fn write_money_fields(out: &mut Vec<u8>, transfer: &Transfer<'_>) {
    out.push(transfer.kind as u8);
    for name in [transfer.debit, transfer.credit, transfer.of] {
        out.extend_from_slice(name);
        out.push(0);
    }
    out.extend_from_slice(&transfer.amount.minor_units().to_le_bytes());
    out.extend_from_slice(&transfer.currency.bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_request() {
        let table = [
            (Kind::Disbursement, "", "s:r", "campaign:s:c", "person:p", ""),
            (Kind::Collection, "m", "s:r", "person:p", "merchant:m", ""),
            (Kind::Reversal, "", "s:r", "person:p", "campaign:s:c", "s:o"),
            (Kind::Reversal, "m", "s:r", "merchant:m", "person:p", "s:o"),
            (Kind::Fund, "", "s:r", "funding:s", "campaign:s:c", ""),
            (Kind::Defund, "", "s:r", "campaign:s:c", "funding:s", ""),
            (Kind::Cancel, "", "s:o", "", "", ""),
        ];
        let mut names = Names::default();
        for (kind, merchant, id, debit, credit, of) in table {
            let request = Request {
                party: "p",
                merchant,
                original: "o",
                ..Request::new(kind, "s", "r", "c", Amount::new(1).unwrap(), Currency::parse("CNY").unwrap())
            };
            names.fill(&request);
            let got = names.transfer(&request);
            assert_eq!(
                (got.id, got.debit, got.credit, got.of),
                (id.as_bytes(), debit.as_bytes(), credit.as_bytes(), of.as_bytes()),
                "{kind:?}"
            );
        }
    }
}
