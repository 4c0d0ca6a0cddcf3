//! `hongbao view`: the outcome view by hand.

use std::io::{IsTerminal, Write};

use clap::Subcommand;
use hongbao::app;
use hongbao::config::Config;

use super::Done;

#[derive(Subcommand)]
pub enum ViewCommand {
    /// Read the outcome log again into a new view, and put it in the old one's place. The service must not be
    /// running. Over Redis, whose streams hold only the last outcomes, they are read again over what the view has.
    Rebuild,
}

pub fn run(command: &ViewCommand, config: &Config) -> anyhow::Result<Done> {
    match command {
        ViewCommand::Rebuild => {
            let shows_progress = std::io::stderr().is_terminal();
            let done = app::rebuild_view(config, &mut |facts| {
                if shows_progress {
                    eprint!("\r{facts} facts");
                    // Progress that cannot be shown is no reason to stop.
                    let _ = std::io::stderr().flush();
                }
            })?;
            if shows_progress {
                eprintln!();
            }
            let over = if done.is_over { ", over what it had" } else { "" };
            println!("rebuilt the view from {} facts{over}", done.facts);
            Ok(Done::Well)
        }
    }
}
