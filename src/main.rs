//! The command line: arguments to a configuration, a configuration to a running command.

mod cli;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let _crash_points = hongbao::crash::scenario();
    cli::Cli::parse().run()
}
