//! The load-test harness of hongbao: what a set-up bears, how it behaves past that, and whether every payment arrived
//! exactly once.
//!
//! ```text
//! scenario ─> arrivals ─> generator ──calls──> target (hongbao, its wallet, Redis; started here or elsewhere)
//!    │         (when)     (traffic: what)          ^                ^
//!    ├─> timeline ─────────── breaks and mends ────┘                │
//!    │                    acknowledged ids ─> follow ── lookups ────┤
//!    │                                        observe ── metrics ───┤
//!    │                                        check ─── every id ───┘
//!    └─> objectives ─> verdict <─ record (latencies) <─ all of these ─> result ─> report, compare, merge
//! ```
//!
//! # What holds
//!
//! 1. It shares no code with hongbao, and believes nothing that hongbao says of itself where money is concerned.
//! 2. Open loop: the schedule follows from the scenario alone, latency counts from the intended time.
//! 3. It checks itself: a generator that fell behind, a call that was never sent, a check that could not be made
//!    void the run.
//! 4. The golden rule for callers: on anything but a definite answer, the same id and body again.
//!
//! # Code map, in reading order
//!
//! | module | what is in it |
//! |---|---|
//! | [`scenario`] | the TOML file, read and checked before anything starts |
//! | [`dice`], [`arrivals`], [`traffic`] | chance, when requests come, what they are: pure |
//! | [`http`], [`generator`] | the calls, the loop of each thread, what answers mean |
//! | [`target`], [`treasury`], [`timeline`] | processes, campaigns and their money, faults |
//! | [`claims`] | users at the campaign's own backend, beside the load |
//! | [`follow`], [`observe`], [`record`], [`series`] | what is seen: finality, metrics, latencies on disk |
//! | [`check`], [`verdict`], [`result`](mod@result) | was every payment made exactly once, and what a run came to |
//! | [`run`] | all of it together |
//! | [`report`], [`compare`], [`merge`], [`screen`], [`words`] | what people see |
//! | [`ceiling`], [`environment`] | what the machine could do at the most, and what it is |

pub mod arrivals;
pub mod ceiling;
pub mod check;
pub mod claims;
pub mod compare;
pub mod dice;
pub mod environment;
pub mod follow;
pub mod generator;
pub mod http;
pub mod merge;
pub mod observe;
pub mod record;
pub mod report;
pub mod result;
pub mod run;
pub mod scenario;
pub mod screen;
pub mod series;
pub mod target;
pub mod timeline;
pub mod traffic;
pub mod treasury;
pub mod verdict;
pub mod words;
