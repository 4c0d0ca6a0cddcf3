//! The settings as they stand in `config.toml`, with their defaults. The shipped file is parsed by a test and
//! must equal them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    pub gateway: Gateway,
    pub data: Data,
    pub instance: Instance,
    pub accept: Accept,
    pub intake: Intake,
    pub pipeline: Pipeline,
    pub shaping: Shaping,
    pub breaker: Breaker,
    pub parking: Parking,
    pub stored_value: StoredValue,
    pub outcome: Outcome,
    pub log: Log,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    pub listen: String,
    pub body_bytes_max: usize,
    pub batch_items_max: usize,
    pub header_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub connections_max: usize,
    pub threads: usize,
    pub clients: BTreeMap<String, String>,
}

impl Default for Gateway {
    fn default() -> Gateway {
        Gateway {
            listen: "127.0.0.1:8080".to_owned(),
            body_bytes_max: 8 << 20,
            batch_items_max: 10_000,
            header_timeout_ms: 30_000,
            body_timeout_ms: 10_000,
            connections_max: 10_000,
            threads: 0,
            clients: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    pub dir: String,
    pub segment_bytes: u64,
    pub checkpoint_bytes: u64,
    pub retention_s: u64,
}

impl Default for Data {
    fn default() -> Data {
        Data {
            dir: "data".to_owned(),
            segment_bytes: 64 << 20,
            checkpoint_bytes: 128 << 20,
            retention_s: 30 * 86_400,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Instance {
    pub name: String,
}

impl Default for Instance {
    fn default() -> Instance {
        Instance { name: "hongbao".to_owned() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accept {
    pub ops_max: usize,
    pub ops_bytes_max: usize,
    pub wait_s_max: u64,
    pub backlog_max: u64,
    pub dedupe: String,
}

impl Default for Accept {
    fn default() -> Accept {
        Accept {
            ops_max: 16_384,
            ops_bytes_max: 256 << 20,
            wait_s_max: 86_400,
            backlog_max: 50_000_000,
            dedupe: "strict".to_owned(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Intake {
    pub kind: String,
    pub fair_queues: u8,
    pub redis: IntakeRedis,
}

impl Default for Intake {
    fn default() -> Intake {
        Intake { kind: "embedded".to_owned(), fair_queues: 8, redis: IntakeRedis::default() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IntakeRedis {
    pub url: String,
    pub board_url: String,
    pub ca_file: String,
    pub namespace: String,
    pub shards: u16,
    pub lists: Vec<IntakeRedisList>,
    pub durability_min: String,
    pub durability_assumed: String,
    pub replicas_min: u16,
    pub connect_timeout_ms: u64,
    pub response_timeout_ms: u64,
    pub owner_ttl_ms: u64,
    pub poll_ms_max: u64,
    pub read_ahead_count_max: usize,
    pub read_ahead_bytes_max: usize,
    pub element_bytes_max: usize,
    pub dead_count_max: u64,
    pub results_count_max: u64,
    pub results_bytes_max: usize,
    pub outcomes_retention_s: u64,
}

impl Default for IntakeRedis {
    fn default() -> IntakeRedis {
        IntakeRedis {
            url: String::new(),
            board_url: String::new(),
            ca_file: String::new(),
            namespace: "hongbao".to_owned(),
            shards: 16,
            lists: vec![IntakeRedisList::default()],
            durability_min: "fsync_every_second".to_owned(),
            durability_assumed: String::new(),
            replicas_min: 0,
            connect_timeout_ms: 1_000,
            response_timeout_ms: 2_000,
            owner_ttl_ms: 3_000,
            poll_ms_max: 50,
            read_ahead_count_max: 0,
            read_ahead_bytes_max: 64 << 20,
            element_bytes_max: 1 << 20,
            dead_count_max: 100_000,
            results_count_max: 100_000,
            results_bytes_max: 268_435_456,
            outcomes_retention_s: 3_600,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IntakeRedisList {
    pub name: String,
    pub client: String,
    pub order: String,
    pub hmac_key: String,
}

impl Default for IntakeRedisList {
    fn default() -> IntakeRedisList {
        IntakeRedisList {
            name: "hongbao:intake".to_owned(),
            client: "default".to_owned(),
            order: "rpush".to_owned(),
            hmac_key: String::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pipeline {
    pub ring_slot_count: usize,
    pub threads: usize,
    pub batch_count_max: usize,
}

impl Default for Pipeline {
    fn default() -> Pipeline {
        Pipeline { ring_slot_count: 0, threads: 0, batch_count_max: 4_096 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shaping {
    pub transfers_per_s: u64,
    pub calls_max: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    pub window_ms: u64,
    pub failure_percent: u64,
    pub volume_min: u64,
    pub open_ms: u64,
    pub open_ms_max: u64,
    pub permits_max: u64,
    pub permit_ttl_ms: u64,
    pub probe_count: u64,
    pub probes_ok_min: u64,
    pub ramp_start_permille: u64,
    pub ramp_step_ms: u64,
    pub ramp_growth_percent: u64,
    pub beat_ms: u64,
    pub lease_ms: u64,
    pub reserve_ms: u64,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker {
            window_ms: 500,
            failure_percent: 50,
            volume_min: 20,
            open_ms: 500,
            open_ms_max: 4_000,
            permits_max: 3,
            permit_ttl_ms: 2_000,
            probe_count: 8,
            probes_ok_min: 6,
            ramp_start_permille: 100,
            ramp_step_ms: 250,
            ramp_growth_percent: 40,
            beat_ms: 80,
            lease_ms: 250,
            reserve_ms: 10_000,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parking {
    pub count_max: usize,
    pub retry_ms: u64,
    pub retry_ms_max: u64,
}

impl Default for Parking {
    fn default() -> Parking {
        Parking { count_max: 1_000_000, retry_ms: 1_000, retry_ms_max: 60_000 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoredValue {
    pub kind: String,
    pub batch_count_max: usize,
    pub calls_max: usize,
    pub deadline_ms: u64,
    pub burn: bool,
    pub http: StoredValueHttp,
    pub postgres: StoredValuePostgres,
}

impl Default for StoredValue {
    fn default() -> StoredValue {
        StoredValue {
            kind: "embedded".to_owned(),
            batch_count_max: 1_000,
            calls_max: 8,
            deadline_ms: 2_000,
            burn: true,
            http: StoredValueHttp::default(),
            postgres: StoredValuePostgres::default(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoredValueHttp {
    pub url: String,
    pub authorization: String,
    pub ca_file: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoredValuePostgres {
    pub url: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outcome {
    pub view: String,
    pub postgres_url: String,
}

impl Default for Outcome {
    fn default() -> Outcome {
        Outcome { view: "sqlite".to_owned(), postgres_url: String::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub filter: String,
}

impl Default for Log {
    fn default() -> Log {
        Log { filter: "info".to_owned() }
    }
}
