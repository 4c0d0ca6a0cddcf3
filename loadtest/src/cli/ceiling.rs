//! `ceiling`, and the bare server that it starts.

use std::path::PathBuf;

use clap::Args;
use hongbao_loadtest::ceiling::{Options, bare, measure};

use super::VOID;

#[derive(Args)]
pub struct CeilingArgs {
    /// Rounds over all rows.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    for_s: f64,
    /// A folder on the disk to be measured.
    #[arg(long, value_name = "DIR", default_value = "loadtest-out/ceiling")]
    folder: PathBuf,
    /// Connections that carry single requests.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Only rows whose name has this word (HTTP, Redis, hongbao, …); may be given more than once.
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// No progress; the last line is JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct BareArgs {
    /// What it does with a body.
    #[arg(long, value_enum, default_value_t = bare::Does::Nothing)]
    does: bare::Does,
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: String,
}

pub fn ceiling(args: &CeilingArgs) -> anyhow::Result<u8> {
    anyhow::ensure!((0.05..=600.0).contains(&args.for_s), "--for-s is from 0.05 to 600");
    let options = Options {
        rounds: args.rounds,
        for_s: args.for_s,
        folder: args.folder.clone(),
        connections: args.connections,
        only: args.only.clone(),
    };
    let found = measure(&options, &mut |words| {
        if !args.json {
            eprintln!("  {words}");
        }
    })?;
    if args.json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        print!("{}", found.words());
    }
    Ok(if found.void.is_empty() { 0 } else { VOID })
}

pub fn bare(args: &BareArgs) -> anyhow::Result<u8> {
    bare::serve(args.does, &args.listen)?;
    Ok(0)
}
