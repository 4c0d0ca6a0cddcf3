//! `tethered`, which nobody but this program calls: becomes a program that ends with whoever started it.

use std::ffi::OsString;

use anyhow::Context;
use clap::Args;
use hongbao_loadtest::target::tether;

#[derive(Args)]
pub struct TetherArgs {
    /// Process whose end ends this one.
    parent: i32,
    /// What to become, with its arguments.
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

pub fn run(args: &TetherArgs) -> anyhow::Result<u8> {
    let (program, rest) = args.program.split_first().context("no program")?;
    let error = tether::hold(args.parent, program, rest);
    Err(error).with_context(|| format!("{} cannot be started", program.to_string_lossy()))
}
