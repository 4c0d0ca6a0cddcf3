//! What each command does with its arguments. The last word of every command is its exit code.

pub mod ceiling;
pub mod check;
pub mod results;
pub mod run;
pub mod tethered;

/// Set-up, files or arguments: nothing was measured.
pub const USAGE: u8 = 2;
/// What was measured proves nothing.
pub const VOID: u8 = 3;
