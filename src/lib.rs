//! hongbao takes payout requests as fast as a red-packet campaign can throw them, says "accepted" only once a
//! request is durable, and pays each one exactly once through a stored-value (wallet) service that it never
//! overloads.
//!
//! # Bird's eye view
//!
//! ```text
//!  campaign backend ──HTTP──┐                                    ┌─> status, lists, counts (outcome::view)
//!                           ▼                                    │
//!    [gateway] [request] judge ──> [intake::desk] decide ──┐     │
//!            ▲ 202 after the sync      one thread          │     │
//!            └─────────────────────────────────────────────┤     │
//!                                                          ▼     │
//!                        [journal] one log, one fdatasync for all that waits
//!                                  ▲          ▲            │
//!   [pipeline]  feed ─> decode ─> check ─> settle ─> record ─> commit
//!     at the pace of [shaping]     ▲        │           └ outcomes   └ ack the queues, tell the desk
//!                              campaigns    ▼
//!                                    [stored_value] the authority on every id
//! ```
//!
//! Accepting is synchronous and cheap: one group-committed append. Settling is asynchronous, at the pace that
//! the wallet can bear. The queue between them is what shaves the peak and fills the valley.
//!
//! # Invariants
//!
//! 1. *No acknowledged request is lost.* A 202 is sent after the append is durable; every answer waits for the
//!    sync that covers what it rests on.
//! 2. *At most one effect per id.* The client mints the id; the wallet is the only authority on it; the
//!    transfer is a pure function of the stored request.
//! 3. *Money is conserved.* Debits equal credits; no account but a funding account goes below zero.
//! 4. *Every accepted request reaches a final state* or visibly waits with a reason and a time. One that
//!    crashes the process twice is set aside.
//! 5. *A final state rests on the wallet's evidence.* CANCELED, EXPIRED and a FAILED that we decide are final
//!    only after the wallet burned the id.
//! 6. *Overload is refused at the door only*, before acceptance, with Retry-After.
//! 7. *Every queue, set and buffer has a bound* and a named policy for being full; an idle service sleeps.
//!
//! # Code map, in reading order
//!
//! | module | what is in it | what is not |
//! |---|---|---|
//! | [`domain`] | money, ids, requests, transfers, states, codes, their stored forms | I/O, clocks, hashing |
//! | [`digest`] | the two hashes of a request | |
//! | [`seldom`] | log lines that come at most once a second | |
//! | [`journal`] | segmented log, group commit, recovery, index, snapshots, a storage that crashes | money |
//! | [`redis`] | commands, scripts, connections to Redis | keys of ours, money |
//! | [`ring`] | slots, stages, threads, waiting, poison | money |
//! | [`shaping`] | pace, leases of a fleet's budget, adaptive limit, drain rate, the forecast of when work will be done: pure, takes `now` | clocks |
//! | [`breaker`] | whether the wallet is called at all: classes, vote, the fleet's policy, gate, board here or in Redis; the fleet in virtual time | clocks, what waits |
//! | [`request`] | reading and judging: JSON to the stamped record; times as text | HTTP, state, order |
//! | [`intake`] | the ports of queues and of what waits; `embedded` and the desk that decides; `redis`: units, owner, reader, door, registry, elements, what is parked | settling |
//! | [`stored_value`] | the port to the ledger here and the double-entry ledger; the port to a wallet elsewhere, its adapters `http` and `postgres`, its contract as JSON | campaigns, queues, retries |
//! | [`outcome`] | the log of facts (in the journal, in Redis streams) and its first reader, the view (SQLite, PostgreSQL) | decisions |
//! | [`pipeline`] | the settle graph, a file a stage; `remote` where the wallet is elsewhere: calls, sluice, gate, retries | HTTP, adapters |
//! | [`gateway`] | the door: routes, validation, problems | state |
//! | [`config`] | settings to a validated configuration | |
//! | [`app`], [`server`] | composition root; the only place that names adapters | decisions |
//! | [`audit`] | an independent reading of a data folder | any code of the rooms it checks |
//! | [`reconcile`] | our outcomes against a wallet's record | the asking |
//! | [`wallet`] | the reference stored-value service over HTTP, its faults, the check of any wallet | campaigns |
//! | [`demo`] | a whole campaign against a service of its own | |
//!
//! Imports point one way, down this list's dependencies (`tests/architecture.rs` checks it): `domain` ←
//! `journal`, `postgres`, `redis`, `ring`, `shaping` ← `breaker`, `intake`, `stored_value`, `outcome` ← `pipeline` ← `gateway` ←
//! `app`.
//!
//! # Where the code differs from the first design, and why
//!
//! - Transfers, outcomes and acks go into the journal as frames of their own, one behind the other, instead of
//!   one frame that carries all three. One sync still covers them; a tail cut between them costs a redelivery
//!   that the ledger answers from its record; and each adapter stays ignorant of the others.
//! - Cancels and funding are requests like any other, in a lane of their own that is never paced: one way in,
//!   one place that moves money.
//! - An id in the identity index leads to the *latest* entry about it (the request, then its outcomes), so that
//!   status by id is exact however far the view lags.
//! - The limits per payee and per request are decided at the door, where order is decided (`payee_limit`,
//!   `amount_limit`, 422).
//! - Settling at a wallet elsewhere has a graph of its own behind `check`: outcomes are recorded as answers come,
//!   out of order, and only the acknowledgement takes the contiguous prefix. `UNKNOWN -> QUEUED` is allowed where the
//!   wallet itself refused the id and left it free.
//! - Over Redis the wallet's account is what holds a campaign's budget, per-payee limits are refused, facts are not
//!   fenced by an epoch (they are true whoever tells them), and a campaign's definitions and funding are one stream that
//!   is appended to by compare-and-set.
//! - The connection to Redis is our own below the commands: what became of each command of a round must be known, and
//!   one round goes to all nodes of a Cluster at once.
//! - The budget of a wallet elsewhere is kept where calls are made, not where requests are fed: repeats, parts sent early and
//!   burns count. The feed keeps 24 ms of it ahead, so that whose turn it is is still decided late.
//! - Without the board an instance goes on with its divided share for `breaker.reserve_ms` and then sends nothing, for by
//!   then the others have it: never more than the budget comes before going on.
//! - `Retry-After` holds what was refused; how fast the rest goes is the adaptive limit's to find, and whether it goes at all
//!   the breaker's.
//! - A crash suspect is named by the request that was being worked on; only where none was is the batch halved.

pub mod app;
pub mod audit;
pub mod breaker;
pub mod config;
pub mod crash;
pub mod demo;
pub mod digest;
pub mod domain;
pub mod gateway;
pub mod intake;
pub mod journal;
pub mod outcome;
pub mod pipeline;
pub mod postgres;
pub mod reconcile;
pub mod redis;
pub mod request;
pub mod ring;
pub mod seldom;
pub mod server;
pub mod shaping;
pub mod stored_value;
pub mod wallet;
