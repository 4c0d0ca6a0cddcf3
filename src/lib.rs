//! hongbao: a high-throughput disbursement processor.

pub mod app;
pub mod audit;
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
pub mod ring;
pub mod server;
pub mod shaping;
pub mod stored_value;
