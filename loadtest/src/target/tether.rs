//! Processes that end with the harness, whatever becomes of it.
//!
//! ```text
//! caller ─command─> starter (one thread, to the end) ─forks─> hongbao-loadtest tethered PID -- PROGRAM …
//!                                                                └─asks for SIGKILL at the starter's end─> becomes PROGRAM
//! ```
//!
//! What holds: where the harness is killed, the kernel kills what it started (`PR_SET_PDEATHSIG`, Linux). It is the end
//! of the *thread* that forked which counts, so one thread that ends with the process alone forks everything: what the
//! fault timeline starts again outlives the timeline. Each is a process group of its own: Ctrl-C reaches the harness
//! alone, which then stops them in order. Absent: stopping them in order (`server`).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError, mpsc};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The command that [`hold`]s and becomes the program.
pub const COMMAND: &str = "tethered";
/// This program, even where its file was replaced meanwhile.
const OWN: &str = "/proc/self/exe";

type Order = (Command, mpsc::Sender<io::Result<Child>>);

static STARTER: Mutex<Option<mpsc::Sender<Order>>> = Mutex::new(None);

/// What starts `program` on a tether; to be started by [`spawn`].
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(OWN);
    command.args([COMMAND, &std::process::id().to_string(), "--"]).arg(program);
    command.process_group(0);
    command
}

/// Starts it from the thread whose end is that of the whole process.
pub fn spawn(command: Command) -> io::Result<Child> {
    let (tell, told) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    starter()?.send((command, tell)).map_err(|_| gone())?;
    told.recv().map_err(|_| gone())?
}

fn starter() -> io::Result<mpsc::Sender<Order>> {
    let mut place = STARTER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(starter) = &*place {
        return Ok(starter.clone());
    }
    let (order, orders) = mpsc::channel::<Order>();
    std::thread::Builder::new().name("starter".to_owned()).spawn(move || {
        for (mut command, tell) in orders {
            // Whoever asked may have gone; the guard of the child is then dropped here, the process ends with this one.
            let _ = tell.send(command.spawn());
        }
    })?;
    *place = Some(order.clone());
    Ok(order)
}

/// Asks for the end with the process `parent`, which started this one, and becomes the program; answers only if it
/// cannot.
pub fn hold(parent: i32, program: &OsStr, args: &[OsString]) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // It may have ended before it was asked.
    if getppid().is_none_or(|pid| pid.as_raw_nonzero().get() != parent) {
        return io::Error::other(format!("process {parent}, which started this one, is gone"));
    }
    Command::new(program).args(args).exec()
}
