//! The command line: arguments to a configuration, a configuration to a running command.

mod cli;

use clap::Parser;

/// Buffers are made on one thread and given back on another all the time, which glibc's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let _crash_points = hongbao::crash::scenario();
    cli::Cli::parse().run()
}
