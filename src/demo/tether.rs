//! Processes that end with the demo, whatever becomes of it.
//!
//! ```text
//! demo ──starts──> hongbao tethered PID -- PROGRAM … ──asks for SIGKILL at the demo's end──> becomes PROGRAM
//! ```
//!
//! What holds: where the demo is killed, the kernel kills what it started (Linux; elsewhere only the guards end it, which
//! a SIGKILL does not run); it is the thread that started a process whose end counts, so they are started on the main
//! one. Each is a process group of its own: Ctrl-C reaches the demo alone, which then stops them in order.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;

/// `hongbao tethered`, which nobody but the demo calls.
#[derive(Debug, clap::Args)]
pub struct TetherArgs {
    /// Process whose end ends this one.
    parent: i32,
    /// What to become, with its arguments.
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// What starts `program` on a tether.
pub fn command(program: impl AsRef<OsStr>) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("where this program is")?;
    let mut command = Command::new(own);
    command.args(["tethered", &std::process::id().to_string(), "--"]).arg(program);
    command.process_group(0);
    Ok(command)
}

/// Becomes the program; answers only if it cannot.
pub fn run(args: &TetherArgs) -> anyhow::Result<()> {
    let (program, rest) = args.program.split_first().context("no program")?;
    hold(args.parent)?;
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("{} cannot be started", program.to_string_lossy()))
}

#[cfg(target_os = "linux")]
fn hold(parent: i32) -> anyhow::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL)).context("asking for the end with the parent")?;
    // It may have ended before it was asked.
    let is_there = getppid().is_some_and(|pid| pid.as_raw_nonzero().get() == parent);
    anyhow::ensure!(is_there, "process {parent}, which started this one, is gone");
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn hold(_parent: i32) -> anyhow::Result<()> {
    Ok(())
}
