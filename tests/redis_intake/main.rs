//! The Redis intake's reader against a real Redis: order, arrays, takeover, faults, bounds, and what its scripts leave
//! in the append-only file. Elements are words here; what stands in real ones is tested with its reader.

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod faults;
mod lists;
mod owners;
mod rig;
