//! hongbao: a high-throughput disbursement processor.

pub mod audit;
pub mod digest;
pub mod domain;
pub mod gateway;
pub mod intake;
pub mod journal;
pub mod outcome;
pub mod pipeline;
pub mod ring;
pub mod shaping;
pub mod stored_value;
