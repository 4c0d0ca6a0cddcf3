//! The settings of the Redis intake: what is refused, and what follows from them.

use std::time::Duration;

use super::ConfigError;
use super::limits::{invalid, within};
use super::raw::{IntakeRedisList, Raw};
use crate::domain::ids;
use crate::intake::redis::units::SHARD_COUNT_MAX;
use crate::intake::redis::{ForeignList, Order, Units, keys};
use crate::redis::{Durability, Link, Target};

/// How identities are decided at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dedupe {
    /// In Redis, before anything is pushed.
    Strict,
    /// Not at the door: the wallet recognises repeats.
    Owner,
}

/// Where the outcome view is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewStore {
    Sqlite,
    /// Of every instance its own, and each follows all streams.
    SqliteEach,
    Postgres {
        url: String,
    },
}

#[derive(Clone, Debug)]
pub struct RedisConfig {
    pub target: Target,
    pub board: Target,
    pub namespace: String,
    pub units: Units,
    pub dedupe: Dedupe,
    pub view: ViewStore,
    pub durability_min: Durability,
    pub durability_assumed: Option<Durability>,
    pub replicas_min: u16,
    /// Nothing is accepted that fewer confirmed.
    pub replicas_required: u16,
    pub owner_ttl: Duration,
    pub poll_max: Duration,
    pub read_ahead_count_max: usize,
    pub read_ahead_bytes_max: usize,
    pub element_bytes_max: usize,
    pub dead_count_max: u64,
    pub results_count_max: u64,
    pub results_bytes_max: usize,
    pub outcomes_retention: Duration,
}

/// None where the intake is another one.
pub fn derive(raw: &Raw, slot_count: usize) -> Result<Option<RedisConfig>, ConfigError> {
    match raw.intake.kind.as_str() {
        "embedded" => Ok(None),
        "redis" => of(raw, slot_count).map(Some),
        other => {
            let reason = format!("{other:?} is not known; this release has: embedded, redis");
            Err(invalid("intake.kind", reason))
        }
    }
}

impl RedisConfig {
    /// Whatever the intake is: for commands that look into Redis.
    pub fn of(raw: &Raw) -> Result<RedisConfig, ConfigError> {
        of(raw, 0)
    }
}

fn of(raw: &Raw, slot_count: usize) -> Result<RedisConfig, ConfigError> {
    let redis = &raw.intake.redis;
    check(raw)?;
    let target = |url: &str| Target {
        url: url.to_owned(),
        ca_file: redis.ca_file.clone(),
        connect_timeout: Duration::from_millis(redis.connect_timeout_ms),
        response_timeout: Duration::from_millis(redis.response_timeout_ms),
    };
    let durability = |key: &'static str, text: &str| match text.parse() {
        Ok(durability) => Ok::<Durability, ConfigError>(durability),
        Err(error) => Err(invalid(key, format!("{error}"))),
    };
    let durability_min = durability("intake.redis.durability_min", &redis.durability_min)?;
    let replicas_required = match durability_min {
        Durability::Replicated(count) => u16::from(count.get()),
        Durability::Memory | Durability::FsyncEverySecond | Durability::Fsync => 0,
    };
    within("intake.redis.durability_min", u64::from(replicas_required), 0, 64)?;
    let board_url = if redis.board_url.is_empty() { &redis.url } else { &redis.board_url };
    let assumed = Some(redis.durability_assumed.as_str()).filter(|text| !text.is_empty());
    let durability_assumed =
        assumed.map(|text| durability("intake.redis.durability_assumed", text)).transpose()?;
    if matches!(durability_assumed, Some(Durability::Replicated(_))) {
        let reason = "replicas are no server's own doing; durability_min asks for them";
        return Err(invalid("intake.redis.durability_assumed", reason));
    }
    Ok(RedisConfig {
        target: target(&redis.url),
        board: target(board_url),
        namespace: redis.namespace.clone(),
        units: Units {
            shard_count: redis.shards,
            fair_queue_count: raw.intake.fair_queues,
            foreign: lists(&redis.lists, &redis.namespace)?,
        },
        dedupe: match raw.accept.dedupe.as_str() {
            "strict" => Dedupe::Strict,
            "owner" => Dedupe::Owner,
            other => return Err(invalid("accept.dedupe", format!("{other:?} is none of: strict, owner"))),
        },
        view: view(raw)?,
        durability_min,
        durability_assumed,
        replicas_min: redis.replicas_min.max(replicas_required),
        replicas_required,
        owner_ttl: Duration::from_millis(redis.owner_ttl_ms),
        poll_max: Duration::from_millis(redis.poll_ms_max),
        read_ahead_count_max: match redis.read_ahead_count_max {
            0 => 2 * slot_count,
            given => given,
        },
        read_ahead_bytes_max: redis.read_ahead_bytes_max,
        element_bytes_max: redis.element_bytes_max,
        dead_count_max: redis.dead_count_max,
        results_count_max: redis.results_count_max,
        results_bytes_max: redis.results_bytes_max,
        outcomes_retention: Duration::from_secs(redis.outcomes_retention_s),
    })
}

fn view(raw: &Raw) -> Result<ViewStore, ConfigError> {
    match raw.outcome.view.as_str() {
        "sqlite" => Ok(ViewStore::Sqlite),
        "sqlite_each" => Ok(ViewStore::SqliteEach),
        "postgres" if raw.outcome.postgres_url.is_empty() => {
            Err(invalid("outcome.postgres_url", "outcome.view = \"postgres\" needs it"))
        }
        "postgres" => Ok(ViewStore::Postgres { url: raw.outcome.postgres_url.clone() }),
        other => Err(invalid("outcome.view", format!("{other:?} is none of: sqlite, sqlite_each, postgres"))),
    }
}

fn check(raw: &Raw) -> Result<(), ConfigError> {
    let redis = &raw.intake.redis;
    if redis.url.is_empty() {
        return Err(invalid("intake.redis.url", "the Redis intake needs it, as in redis://127.0.0.1:6379"));
    }
    for (key, url) in [("intake.redis.url", &redis.url), ("intake.redis.board_url", &redis.board_url)] {
        let is_optional = key == "intake.redis.board_url" && url.is_empty();
        if !is_optional {
            let target = Target { ca_file: redis.ca_file.clone(), ..Target::new(url.as_str()) };
            Link::new(&target).map_err(|error| invalid(key, error.to_string()))?;
        }
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.');
    if redis.namespace.is_empty() || redis.namespace.len() > 64 || !redis.namespace.chars().all(plain) {
        let reason = "it must be 1 to 64 letters, digits, '-', '_', ':' or '.'";
        return Err(invalid("intake.redis.namespace", reason));
    }
    if !raw.stored_value.burn {
        // What another instance may have sent could then never be closed.
        let reason = "the Redis intake needs a wallet that can take an id out of use";
        return Err(invalid("stored_value.burn", reason));
    }
    within("intake.redis.shards", u64::from(redis.shards), 1, u64::from(SHARD_COUNT_MAX))?;
    within("intake.redis.replicas_min", u64::from(redis.replicas_min), 0, 64)?;
    within("intake.redis.connect_timeout_ms", redis.connect_timeout_ms, 10, 60_000)?;
    within("intake.redis.response_timeout_ms", redis.response_timeout_ms, 10, 60_000)?;
    within("intake.redis.owner_ttl_ms", redis.owner_ttl_ms, 500, 600_000)?;
    within("intake.redis.poll_ms_max", redis.poll_ms_max, 1, 1_000)?;
    within("intake.redis.read_ahead_count_max", redis.read_ahead_count_max as u64, 0, 1 << 24)?;
    within("intake.redis.read_ahead_bytes_max", redis.read_ahead_bytes_max as u64, 1 << 20, 1 << 36)?;
    within("intake.redis.element_bytes_max", redis.element_bytes_max as u64, 256 << 10, 64 << 20)?;
    within("intake.redis.dead_count_max", redis.dead_count_max, 1, 1 << 32)?;
    within("intake.redis.results_count_max", redis.results_count_max, 0, 1 << 32)?;
    within("intake.redis.results_bytes_max", redis.results_bytes_max as u64, 1 << 20, 1 << 36)?;
    within("intake.redis.outcomes_retention_s", redis.outcomes_retention_s, 60, 31_536_000)
}

fn lists(given: &[IntakeRedisList], namespace: &str) -> Result<Vec<ForeignList>, ConfigError> {
    const KEY: &str = "intake.redis.lists";
    let mut lists: Vec<ForeignList> = Vec::new();
    for list in given {
        let wrong = |reason: String| invalid(KEY, format!("list {:?}: {reason}", list.name));
        if list.name.is_empty() || list.name.len() > 512 || list.name.chars().any(char::is_control) {
            return Err(wrong("its name must be 1 to 512 bytes without control characters".to_owned()));
        }
        let has_tag = list.name.split_once('{').is_some_and(|(_, rest)| rest.find('}') > Some(0));
        if list.name.contains('}') && !has_tag {
            let reason = "with a '}' and no hash tag in its name, what belongs to it cannot share its slot";
            return Err(wrong(reason.to_owned()));
        }
        if let Some(whose) = keys::taken(namespace, &list.name) {
            return Err(wrong(format!("it would share keys with {whose} of hongbao itself; rename it")));
        }
        ids::check_client(&list.client).map_err(|error| wrong(format!("client: {error}")))?;
        if lists.iter().any(|known| known.name == list.name) {
            return Err(wrong("it is there twice".to_owned()));
        }
        if !list.hmac_key.is_empty() && list.hmac_key.len() < 16 {
            return Err(wrong("its hmac_key must be 16 bytes or more".to_owned()));
        }
        let has_key = |known: &&ForeignList| known.hmac_key.as_deref() == Some(list.hmac_key.as_bytes());
        if let Some(known) = lists.iter().find(has_key) {
            let reason = format!(
                "it has the hmac_key of list {:?}, so that an element signed for the one could be pushed to the other; \
                 give each a key of its own",
                known.name
            );
            return Err(wrong(reason));
        }
        lists.push(ForeignList {
            name: list.name.clone(),
            client: list.client.clone(),
            order: match list.order.as_str() {
                "rpush" => Order::Rpush,
                "lpush" => Order::Lpush,
                other => return Err(wrong(format!("order {other:?} is none of: rpush, lpush"))),
            },
            hmac_key: (!list.hmac_key.is_empty()).then(|| list.hmac_key.clone().into_bytes()),
        });
    }
    for list in &lists {
        let beside = |other: &&ForeignList| keys::stands_beside(&other.name, &list.name);
        if let Some(other) = lists.iter().find(beside) {
            let reason =
                format!("list {:?}: it is a key that belongs to the list {:?}", list.name, other.name);
            return Err(invalid(KEY, reason));
        }
    }
    within(KEY, lists.len() as u64, 0, 1_024)?;
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn with(sets: &[&str]) -> Result<RedisConfig, String> {
        let needed = ["intake.kind=redis", "intake.redis.url=redis://h"];
        let sets = needed.iter().chain(sets).map(|set| (*set).to_owned()).collect();
        let config = load(&Sources { sets, ..Sources::default() }).map_err(|error| error.to_string())?;
        Ok(config.redis.expect("the intake is Redis"))
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_name() {
        let table = [
            ("intake.redis.url=h:1", "intake.redis.url"),
            ("intake.redis.board_url=redis://h/x", "intake.redis.board_url"),
            ("intake.redis.ca_file=/x.pem", "rediss"),
            ("intake.redis.namespace=a b", "intake.redis.namespace"),
            ("intake.redis.shards=0", "intake.redis.shards"),
            ("intake.redis.owner_ttl_ms=100", "intake.redis.owner_ttl_ms"),
            ("intake.redis.durability_min=often", "durability"),
            ("intake.redis.durability_min=replicated:65", "intake.redis.durability_min"),
            ("intake.redis.durability_min=replicated:0", "durability"),
            ("intake.redis.durability_assumed=replicated:1", "durability_assumed"),
            ("accept.dedupe=never", "strict, owner"),
            ("outcome.view=mysql", "sqlite, sqlite_each, postgres"),
            ("outcome.view=postgres", "outcome.postgres_url"),
            ("stored_value.burn=false", "stored_value.burn"),
            (r#"intake.redis.lists=[{ name = "a}b" }]"#, "hash tag"),
            (r#"intake.redis.lists=[{ name = "a", order = "up" }]"#, "rpush, lpush"),
            (r#"intake.redis.lists=[{ name = "a" }, { name = "a" }]"#, "twice"),
            (r#"intake.redis.lists=[{ name = "a", hmac_key = "short" }]"#, "16 bytes"),
            (
                r#"intake.redis.lists=[{ name = "a", hmac_key = "0123456789abcdef" }, { name = "b", hmac_key = "0123456789abcdef" }]"#,
                "a key of its own",
            ),
            (r#"intake.redis.lists=[{ name = "a", client = "x y" }]"#, "client"),
            (r#"intake.redis.lists=[{ nam = "a" }]"#, "nam"),
            (r#"intake.redis.lists=[{ name = "hongbao:3" }]"#, "a shard"),
            (r#"intake.redis.lists=[{ name = "{hongbao:3}:realtime.0" }]"#, "a shard"),
            (r#"intake.redis.lists=[{ name = "x{hongbao:99}" }]"#, "a shard"),
            (r#"intake.redis.lists=[{ name = "hongbao:campaigns" }]"#, "the campaigns"),
            (r#"intake.redis.lists=[{ name = "hongbao:results:shop" }]"#, "the results"),
            (r#"intake.redis.lists=[{ name = "hongbao:board:instances" }]"#, "the board"),
            (r#"intake.redis.lists=[{ name = "{hongbao:board}:x" }]"#, "the board"),
            (r#"intake.redis.lists=[{ name = "a" }, { name = "{a}:owner" }]"#, "belongs to the list"),
        ];
        for (set, expected) in table {
            let error = with(&[set]).expect_err(set);
            assert!(error.contains(expected), "{set}: {error}");
        }
    }

    #[test]
    fn what_follows() {
        let plain = with(&[]).unwrap();
        assert_eq!(plain.units.foreign.len(), 1, "hongbao:intake is drained out of the box");
        for name in ["hongbao:3x", "hongbao:intake:3", "other:3", "hongbao:boarding", "{a}:list"] {
            with(&[&format!(r#"intake.redis.lists=[{{ name = "a" }}, {{ name = "{name}" }}]"#)]).expect(name);
        }
        assert_eq!((plain.read_ahead_count_max, &plain.board), (65_536, &plain.target));
        let asked = with(&["intake.redis.durability_min=replicated:2"]).unwrap();
        assert_eq!(
            (asked.durability_min.to_string().as_str(), asked.replicas_min, asked.replicas_required),
            ("replicated:2", 2, 2),
            "the servers are looked at for it when it starts, and each append asks"
        );
        let lists =
            with(&[r#"intake.redis.lists=[{ name = "o", client = "shop", order = "lpush" }]"#]).unwrap();
        assert_eq!(lists.units.foreign[0].order, Order::Lpush);
    }
}
