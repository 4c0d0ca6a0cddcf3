//! `hongbao migrate`: makes or migrates the tables in PostgreSQL: of a wallet, of a fleet's outcome view, or both.

use anyhow::{Context, bail};
use hongbao::config::Config;
use hongbao::outcome;
use hongbao::stored_value::postgres;

use super::Done;

pub fn run(config: &Config) -> anyhow::Result<Done> {
    let (wallet, view) = (&config.raw.stored_value.postgres.url, &config.raw.outcome.postgres_url);
    if wallet.is_empty() && view.is_empty() {
        bail!(
            "neither stored_value.postgres.url (the database of a wallet) nor outcome.postgres_url (that of a fleet's \
             outcome view) is set"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    if !wallet.is_empty() {
        let report = runtime.block_on(postgres::migrate(wallet))?;
        say("wallet", report.from, report.to, &report.identity);
    }
    if !view.is_empty() {
        let report = runtime.block_on(outcome::postgres::migrate(view))?;
        say("outcome view", report.from, report.to, &report.identity);
    }
    Ok(Done::Well)
}

fn say(of: &str, from: i32, to: i32, identity: &str) {
    match from {
        _ if from == to => println!("the {of}'s schema has version {to} already"),
        0 => println!("made the {of}'s schema, version {to}"),
        _ => println!("migrated the {of}'s schema from version {from} to {to}"),
    }
    println!("{of} {identity}");
}
