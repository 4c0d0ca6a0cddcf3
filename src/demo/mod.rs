//! `hongbao demo`. Under construction.

use crate::config::Config;

#[derive(clap::Args)]
pub struct DemoArgs {}

/// Runs the demo; false if its verdict is bad.
pub fn run(_args: &DemoArgs, _config: Config) -> anyhow::Result<bool> {
    Ok(false)
}
