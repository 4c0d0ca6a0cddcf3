//! hongbao: a high-throughput disbursement processor.

pub mod domain;
pub mod journal;
