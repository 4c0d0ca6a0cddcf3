//! Campaigns of the run, made and funded before the load.
//!
//! What holds: when this is done, every campaign has the money for all that could be sent. The names are the run's
//! own, so that no other run's money is touched.

use std::time::{Duration, Instant};

use crate::http::{Caller, HttpError};
use crate::traffic::{CURRENCY, Traffic};

/// The largest amount of the API.
const AMOUNT_MAX: u64 = (1 << 53) - 1;
const FUNDED_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum TreasuryError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("campaign {campaign} was not funded within {} s: it has {funded} of {wanted}; is the wallet well?", FUNDED_WITHIN.as_secs())]
    NotFunded { campaign: String, funded: u64, wanted: u64 },
}

/// Under which a campaign's money is asked for.
pub fn funding_id(campaign: &str) -> String {
    format!("fund-{campaign}")
}

/// Makes and funds the campaigns; what each one has.
pub fn open(
    caller: &mut Caller,
    traffic: &Traffic,
    requests: f64,
    amount_max: u32,
) -> Result<u64, TreasuryError> {
    // Twice what all requests together could ask for, whichever campaign they pick.
    let most = (requests + 10_000.0) * 2.0 * f64::from(amount_max + 1);
    let budget = (most as u64).clamp(1_000_000, AMOUNT_MAX / u64::from(traffic.campaign_count()));
    for index in 0..traffic.campaign_count() {
        let name = traffic.campaign_name(index);
        let body = format!(r#"{{"budget":{budget},"currency":"{CURRENCY}"}}"#);
        caller.json("PUT", &format!("/v1/campaigns/{name}"), &body)?;
        let body = format!(r#"{{"id":"{}","amount":{budget}}}"#, funding_id(&name));
        caller.json("POST", &format!("/v1/campaigns/{name}/fund"), &body)?;
    }
    for index in 0..traffic.campaign_count() {
        await_funds(caller, &traffic.campaign_name(index), budget)?;
    }
    Ok(budget)
}

fn await_funds(caller: &mut Caller, name: &str, wanted: u64) -> Result<(), TreasuryError> {
    let deadline = Instant::now() + FUNDED_WITHIN;
    loop {
        let standing = caller.json("GET", &format!("/v1/campaigns/{name}"), "")?;
        let funded = standing["funded"].as_u64().unwrap_or(0);
        if funded >= wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(TreasuryError::NotFunded { campaign: name.to_owned(), funded, wanted });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
