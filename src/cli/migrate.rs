//! `hongbao migrate`: makes or migrates the tables of a wallet in PostgreSQL.

use anyhow::{Context, bail};
use hongbao::config::Config;
use hongbao::stored_value::postgres;

use super::Done;

pub fn run(config: &Config) -> anyhow::Result<Done> {
    let url = &config.raw.stored_value.postgres.url;
    if url.is_empty() {
        bail!("stored_value.postgres.url is not set: give the database that is to hold the wallet");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = runtime.context("no runtime")?.block_on(postgres::migrate(url))?;
    if report.from == report.to {
        println!("the wallet's schema has version {} already", report.to);
    } else if report.from == 0 {
        println!("made the wallet's schema, version {}", report.to);
    } else {
        println!("migrated the wallet's schema from version {} to {}", report.from, report.to);
    }
    println!("wallet {}", report.identity);
    Ok(Done::Well)
}
