//! Where a request and a campaign stand, from what the outcome view has of them.

use crate::app::office::standing_of_row;
use crate::domain::campaign::Books;
use crate::domain::{Kind, Status};
use crate::gateway::port::Standing;
use crate::outcome::OutcomeView;
use crate::outcome::view::{StandingRow, TallyRow, ViewError};

/// From a fact. A cancel that stands for its id tells that the id was burned.
pub fn of_row(row: StandingRow) -> Standing {
    let mut standing = standing_of_row(row);
    if standing.kind == Kind::Cancel && standing.status == Status::Succeeded {
        standing.status = Status::Canceled;
    }
    standing
}

/// A campaign's tallies, as the view has them.
pub struct Tallies {
    pub payouts: TallyRow,
    pub reversals: TallyRow,
    pub funds: TallyRow,
    pub defunds: TallyRow,
}

impl Tallies {
    pub fn read(view: &dyn OutcomeView, client: &str, id: &str) -> Result<Tallies, ViewError> {
        let of = |kind| Ok::<_, ViewError>(view.campaign(client, id, kind)?.unwrap_or_default());
        Ok(Tallies {
            payouts: of(None)?,
            reversals: of(Some(Kind::Reversal))?,
            funds: of(Some(Kind::Fund))?,
            defunds: of(Some(Kind::Defund))?,
        })
    }

    /// The campaign's books as of the view: what is accepted and has no outcome yet is in none of them. `committed` is
    /// exact: what was promised of the budget.
    pub fn books(self, committed: u64) -> Books {
        let of = |tally: &TallyRow, status: Status| tally.amount[status as usize - 1];
        let paid = of(&self.payouts, Status::Succeeded).saturating_add(of(&self.payouts, Status::Reversed));
        let open = Status::ALL.into_iter().filter(|status| !status.is_final());
        let funded = of(&self.funds, Status::Succeeded).saturating_sub(of(&self.defunds, Status::Succeeded));
        Books {
            funded,
            funding_pending: committed.saturating_sub(funded),
            reserved: open.map(|status| of(&self.payouts, status)).fold(0, u64::saturating_add),
            spent: paid.saturating_sub(of(&self.reversals, Status::Succeeded)),
            // What left the account is the account's to know; nobody here decides by it.
            paid_out: 0,
            count: self.payouts.count,
            amount: self.payouts.amount,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_follow_from_tallies() {
        let tally = |amounts: &[(Status, u64)]| {
            let mut tally = TallyRow::default();
            for (status, amount) in amounts {
                tally.amount[*status as usize - 1] = *amount;
                tally.count[*status as usize - 1] = 1;
            }
            tally
        };
        use Status::{Failed, Queued, Reversed, Succeeded, Unknown};
        let tallies = Tallies {
            payouts: tally(&[(Succeeded, 50), (Reversed, 10), (Failed, 99), (Queued, 5), (Unknown, 2)]),
            reversals: tally(&[(Succeeded, 15), (Failed, 7)]),
            funds: tally(&[(Succeeded, 100), (Failed, 30)]),
            defunds: tally(&[(Succeeded, 20)]),
        };
        let books = tallies.books(95);
        assert_eq!((books.funded, books.funding_pending), (80, 15));
        assert_eq!((books.spent, books.reserved), (45, 7));
        assert_eq!(books.count.iter().sum::<u64>(), 5);
    }
}
