//! The validated configuration, and the limits that follow from it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::ConfigError;
use super::raw::Raw;
use super::redis::{self, RedisConfig};
use crate::intake::desk::DeskOptions;
use crate::pipeline::PipelineOptions;
use crate::pipeline::remote::RemoteOptions;
use crate::pipeline::retry::Retry;
use crate::{breaker, gateway, journal};

/// Everything the service is built from. `raw` stays for printing.
#[derive(Clone, Debug)]
pub struct Config {
    pub raw: Raw,
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub gateway: gateway::Options,
    pub gateway_threads: usize,
    pub segment_bytes: u64,
    pub checkpoint_bytes: u64,
    pub retention_ms: u64,
    pub fair_queue_count: u8,
    pub desk: DeskOptions,
    pub pipeline: PipelineOptions,
    /// For a wallet elsewhere.
    pub remote: RemoteOptions,
    /// What budget and breaker begin with, for a wallet elsewhere.
    pub breaker: breaker::Settings,
    /// For the Redis intake, if it is the one.
    pub redis: Option<RedisConfig>,
}

pub(super) fn invalid(key: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { key, reason: reason.into() }
}

pub(super) fn within(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(invalid(key, format!("{value} is not between {min} and {max}")))
    }
}

impl Config {
    pub fn from_raw(raw: Raw) -> Result<Config, ConfigError> {
        let listen: SocketAddr = raw.gateway.listen.parse().map_err(|_| {
            invalid("gateway.listen", format!("{:?} is not address:port", raw.gateway.listen))
        })?;
        gateway::check_listen(listen, !raw.gateway.clients.is_empty())
            .map_err(|error| invalid("gateway.listen", error.to_string()))?;
        check(&raw)?;
        gateway::check_clients(&raw.gateway.clients)
            .map_err(|error| invalid("gateway.clients", error.to_string()))?;
        tracing_subscriber::EnvFilter::try_new(&raw.log.filter)
            .map_err(|error| invalid("log.filter", error.to_string()))?;
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let pipeline_threads = match raw.pipeline.threads {
            0 if cores <= 4 => 1,
            0 => 5,
            count => count,
        };
        let slot_count = slot_count(&raw);
        let clients = (!raw.gateway.clients.is_empty()).then(|| raw.gateway.clients.clone());
        Ok(Config {
            listen,
            data_dir: PathBuf::from(&raw.data.dir),
            gateway: gateway::Options {
                body_bytes_max: raw.gateway.body_bytes_max,
                header_timeout: Duration::from_millis(raw.gateway.header_timeout_ms),
                body_timeout: Duration::from_millis(raw.gateway.body_timeout_ms),
                connections_max: raw.gateway.connections_max,
                batch_items_max: raw.gateway.batch_items_max,
                clients,
                ..gateway::Options::default()
            },
            gateway_threads: if raw.gateway.threads == 0 { cores.min(16) } else { raw.gateway.threads },
            segment_bytes: raw.data.segment_bytes,
            checkpoint_bytes: raw.data.checkpoint_bytes,
            retention_ms: raw.data.retention_s * 1_000,
            fair_queue_count: raw.intake.fair_queues,
            desk: DeskOptions {
                ops_max: raw.accept.ops_max,
                ops_bytes_max: raw.accept.ops_bytes_max,
                wait_ms_max: raw.accept.wait_s_max * 1_000,
                backlog_max: raw.accept.backlog_max,
                parked_max: raw.parking.count_max,
                retention_ms: raw.data.retention_s * 1_000,
                can_cancel: raw.stored_value.kind == "embedded" || raw.stored_value.burn,
                transfers_per_s: raw.shaping.transfers_per_s,
            },
            pipeline: PipelineOptions {
                slot_count,
                thread_count: pipeline_threads,
                batch_count_max: raw.pipeline.batch_count_max,
                transfers_per_s: raw.shaping.transfers_per_s,
                retry: Retry { first_ms: raw.parking.retry_ms, ms_max: raw.parking.retry_ms_max },
            },
            remote: RemoteOptions {
                batch_count_max: raw.stored_value.batch_count_max,
                calls_max: raw.stored_value.calls_max,
                deadline: Duration::from_millis(raw.stored_value.deadline_ms),
                can_burn: raw.stored_value.burn,
            },
            breaker: super::breaker::derive(&raw)?,
            redis: redis::derive(&raw, slot_count)?,
            raw,
        })
    }

    pub fn journal_options(&self) -> journal::Options {
        journal::Options { segment_bytes: self.segment_bytes, ..journal::Options::default() }
    }
}

fn check(raw: &Raw) -> Result<(), ConfigError> {
    crate::domain::ids::check_client(&raw.instance.name)
        .map_err(|error| invalid("instance.name", error.to_string()))?;
    check_wallet(raw)?;
    let given = raw.pipeline.ring_slot_count;
    if given != 0 && !given.is_power_of_two() {
        return Err(invalid("pipeline.ring_slot_count", "it must be a power of two, or 0"));
    }
    if raw.data.dir.is_empty() {
        return Err(invalid("data.dir", "it must not be empty"));
    }
    let segment_bytes = raw.data.segment_bytes;
    within("data.segment_bytes", segment_bytes, 8 << 20, 1 << 30)?;
    if !segment_bytes.is_multiple_of(4096) {
        return Err(invalid("data.segment_bytes", "it must be a multiple of 4096"));
    }
    within("data.checkpoint_bytes", raw.data.checkpoint_bytes, 1 << 20, 1 << 40)?;
    within("data.retention_s", raw.data.retention_s, 0, 3_153_600_000)?;
    within("gateway.body_bytes_max", raw.gateway.body_bytes_max as u64, 1 << 10, 64 << 20)?;
    within("gateway.batch_items_max", raw.gateway.batch_items_max as u64, 1, 10_000)?;
    within("gateway.header_timeout_ms", raw.gateway.header_timeout_ms, 1, 3_600_000)?;
    within("gateway.body_timeout_ms", raw.gateway.body_timeout_ms, 1, 3_600_000)?;
    within("gateway.connections_max", raw.gateway.connections_max as u64, 1, 1_000_000)?;
    within("gateway.threads", raw.gateway.threads as u64, 0, 1_024)?;
    within("intake.fair_queues", u64::from(raw.intake.fair_queues), 1, 255)?;
    within("pipeline.ring_slot_count", slot_count(raw) as u64, 64, 1 << 24)?;
    within("pipeline.threads", raw.pipeline.threads as u64, 0, 5)?;
    // A wallet batch must fit into the smallest segment.
    within("pipeline.batch_count_max", raw.pipeline.batch_count_max as u64, 1, 8_192)?;
    within("shaping.transfers_per_s", raw.shaping.transfers_per_s, 0, 100_000_000)?;
    within("parking.count_max", raw.parking.count_max as u64, 1, 100_000_000)?;
    if raw.parking.count_max < 2 * slot_count(raw) {
        return Err(invalid("parking.count_max", "it must be at least twice pipeline.ring_slot_count"));
    }
    within("parking.retry_ms", raw.parking.retry_ms, 1, 86_400_000)?;
    within("parking.retry_ms_max", raw.parking.retry_ms_max, raw.parking.retry_ms, 86_400_000)?;
    within("accept.ops_max", raw.accept.ops_max as u64, 1, 1 << 20)?;
    within("accept.ops_bytes_max", raw.accept.ops_bytes_max as u64, 1 << 16, 1 << 34)?;
    within("accept.wait_s_max", raw.accept.wait_s_max, 1, 31_536_000)?;
    within("accept.backlog_max", raw.accept.backlog_max, 1, 1 << 40)
}

/// A wallet elsewhere is never met without a rate: at full speed a backlog would bring it down.
fn check_wallet(raw: &Raw) -> Result<(), ConfigError> {
    let wallet = &raw.stored_value;
    let (url, key) = match wallet.kind.as_str() {
        "embedded" => return check_calls(raw),
        "http" => (&wallet.http.url, "stored_value.http.url"),
        "postgres" => (&wallet.postgres.url, "stored_value.postgres.url"),
        other => {
            let reason = format!("{other:?} is not known; this release has: embedded, http, postgres");
            return Err(invalid("stored_value.kind", reason));
        }
    };
    if raw.shaping.transfers_per_s == 0 {
        let reason = "a wallet elsewhere needs a rate, in transfers a second that it bears: without one, a \
                      backlog would be sent to it at full speed";
        return Err(invalid("shaping.transfers_per_s", reason));
    }
    if url.is_empty() {
        return Err(invalid(key, format!("stored_value.kind = {:?} needs it", wallet.kind)));
    }
    let (held, given) = (held_max(raw), raw.pipeline.ring_slot_count);
    if given != 0 && held > given as u64 {
        let reason = format!(
            "at {} transfers/s and a deadline of {} ms, {held} transfers can be under way; the ring must have as \
             many slots (a power of two; 0 chooses)",
            raw.shaping.transfers_per_s, wallet.deadline_ms
        );
        return Err(invalid("pipeline.ring_slot_count", reason));
    }
    check_calls(raw)
}

/// Transfers that a slow wallet can hold up: they must find room in the ring. A quarter more, for what it takes to
/// find out who holds up a call.
fn held_max(raw: &Raw) -> u64 {
    raw.shaping.transfers_per_s.saturating_mul(raw.stored_value.deadline_ms) / 800
}

/// The setting, or what it derives from.
fn slot_count(raw: &Raw) -> usize {
    let held = if raw.stored_value.kind == "embedded" { 0 } else { held_max(raw) };
    match raw.pipeline.ring_slot_count {
        0 => usize::try_from(held).unwrap_or(usize::MAX >> 1).max(32_768).next_power_of_two(),
        given => given,
    }
}

fn check_calls(raw: &Raw) -> Result<(), ConfigError> {
    let wallet = &raw.stored_value;
    within("stored_value.batch_count_max", wallet.batch_count_max as u64, 1, 8_192)?;
    within("stored_value.calls_max", wallet.calls_max as u64, 1, 1_024)?;
    // The contract bounds it; a wallet refuses a longer one.
    within("stored_value.deadline_ms", wallet.deadline_ms, 10, 300_000)
}
