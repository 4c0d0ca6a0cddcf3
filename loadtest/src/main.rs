//! The command line: what a set-up of hongbao bears, and whether every payment arrived exactly once.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use cli::{USAGE, ceiling, check, results, run, tethered};

/// What a set-up of hongbao bears, how it behaves past that, and whether every payment arrived exactly once.
///
/// Exit codes: 0 pass, 1 an objective was missed, 2 nothing could be measured, 3 void, 4 loss or double payment.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario, check every payment, and write a report.
    Run(Box<run::RunArgs>),
    /// The scenarios that come with this program, and what they need.
    List,
    /// Check a list of acknowledged ids: is each known, final, and paid once?
    Check(check::CheckArgs),
    /// Draw two runs over each other, and list what changed beyond noise.
    Compare(results::CompareArgs),
    /// Make one result of the parts that several generators made of one load.
    Merge(results::MergeArgs),
    /// What this machine could do at the most, part by part, and how near hongbao comes to it.
    Ceiling(ceiling::CeilingArgs),
    /// A server that does nothing but answer; `ceiling` starts it.
    #[command(hide = true)]
    Bare(ceiling::BareArgs),
    /// Becomes a program that ends with this one; what is started here is started so.
    #[command(hide = true)]
    Tethered(tethered::TetherArgs),
    /// Write the report of a run once more.
    Report(results::ReportArgs),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(args) => run::run(&args),
        Command::List => run::list(),
        Command::Check(args) => check::run(&args),
        Command::Compare(args) => results::compare(&args),
        Command::Merge(args) => results::merge(&args),
        Command::Ceiling(args) => ceiling::ceiling(&args),
        Command::Bare(args) => ceiling::bare(&args),
        Command::Tethered(args) => tethered::run(&args),
        Command::Report(args) => results::report(&args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("hongbao-loadtest: {error:#}");
            ExitCode::from(USAGE)
        }
    }
}
