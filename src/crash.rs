//! Crash points: places between two durable steps at which a test may end or hold the process.
//!
//! `FAILPOINTS="name=return"` aborts there, `pause` holds the thread there. Nothing of it is compiled without
//! the feature `failpoints`; a release carries none.

/// Every point, in the order of a request's way. Each is reached by the crash tests.
pub const POINTS: [&str; 17] = [
    "accept::before_append",
    "accept::after_append",
    "accept::before_answer",
    "settle::before_transfer",
    "ledger::before_append",
    "ledger::after_append",
    "record::before_append",
    "record::after_append",
    "commit::before_ack",
    "commit::after_ack",
    "desk::before_follow",
    "desk::after_follow",
    "checkpoint::before_parts",
    "checkpoint::between_parts",
    "checkpoint::before_manifest",
    "checkpoint::after_manifest",
    "checkpoint::before_remove",
];

/// Ends the process here if a test asked for it.
#[inline]
pub fn point(name: &'static str) {
    #[cfg(feature = "failpoints")]
    {
        debug_assert!(POINTS.contains(&name), "{name} is not listed");
        fail::fail_point!(name, |_| std::process::abort());
    }
    let _ = name;
}

/// Reads which points are on from the environment. They stay on while the answer lives.
pub fn scenario() -> Option<impl Drop> {
    #[cfg(feature = "failpoints")]
    return Some(fail::FailScenario::setup());
    #[cfg(not(feature = "failpoints"))]
    return None::<Nothing>;
}

#[cfg(not(feature = "failpoints"))]
struct Nothing;

#[cfg(not(feature = "failpoints"))]
impl Drop for Nothing {
    fn drop(&mut self) {}
}
