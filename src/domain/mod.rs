//! The words of the business: money, ids, requests, transfers, states, codes.
//!
//! Standard library only: no I/O, no async, no clock (`now` is passed in), no hashing.
//! What is durable about these types is their byte form (`record`), which carries a version.

pub mod bytes;
pub mod campaign;
pub mod code;
pub mod ids;
pub mod money;
pub mod outcome;
pub mod record;
pub mod status;
pub mod transfer;

pub use campaign::{Campaign, CampaignState};
pub use code::{Class, PayoutCode, Refusal};
pub use money::{Amount, Currency};
pub use outcome::Outcome;
pub use record::{Kind, Lane, Request};
pub use status::{Status, WaitReason, transition};
pub use transfer::{Transfer, TransferKind, TransferStatus};

/// Milliseconds since the Unix epoch, UTC. Zero means "not set" where a field is optional.
pub type UnixMs = u64;
