//! Puts the sources of settings together: defaults, then the file, then `HONGBAO__SECTION__KEY` from the
//! environment, then `--set section.key=value`. A key that no layer below knows is an error that names the
//! nearest one that exists.

use std::path::PathBuf;

use toml::{Table, Value};

use super::raw::Raw;
use super::{Config, ConfigError};

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// As the process sees it; only names with the prefix count.
    pub env: Vec<(String, String)>,
    /// `section.key=value`, in order.
    pub sets: Vec<String>,
}

const ENV_PREFIX: &str = "HONGBAO__";

/// Reads all sources and validates the whole.
pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
    let mut table = defaults();
    if let Some(path) = &sources.file {
        let path_text = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path_text.clone(), error })?;
        let read: Table = toml::from_str(&text)
            .map_err(|error| ConfigError::Syntax { from: path_text.clone(), reason: error.to_string() })?;
        overlay(&mut table, read, &path_text)?;
    }
    for (name, value) in &sources.env {
        if let Some(path) = name.strip_prefix(ENV_PREFIX) {
            let path: Vec<String> = path.split("__").map(str::to_lowercase).collect();
            set(&mut table, &path, value, &format!("environment variable {name}"))?;
        }
    }
    for assignment in &sources.sets {
        let from = format!("--set {assignment}");
        let (path, value) = assignment.split_once('=').ok_or_else(|| ConfigError::Syntax {
            from: from.clone(),
            reason: "write it as section.key=value".to_owned(),
        })?;
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        set(&mut table, &path, value, &from)?;
    }
    let raw: Raw = table.try_into().map_err(|error: toml::de::Error| ConfigError::Syntax {
        from: "settings".to_owned(),
        reason: error.message().to_owned(),
    })?;
    Config::from_raw(raw)
}

fn defaults() -> Table {
    Table::try_from(Raw::default()).expect("the defaults are plain values")
}

/// Tables whose keys are the user's own.
fn is_open(path: &str) -> bool {
    path == "gateway.clients"
}

fn overlay(into: &mut Table, from: Table, source: &str) -> Result<(), ConfigError> {
    overlay_below(into, from, "", source)
}

fn overlay_below(into: &mut Table, from: Table, above: &str, source: &str) -> Result<(), ConfigError> {
    for (key, value) in from {
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        match (into.get_mut(&key), value) {
            (Some(Value::Table(known)), Value::Table(given)) if !is_open(&path) => {
                overlay_below(known, given, &path, source)?;
            }
            (Some(Value::Table(_)), given) if !given.is_table() => {
                let reason = format!("[{path}] is a section, not a setting");
                return Err(ConfigError::Syntax { from: source.to_owned(), reason });
            }
            (Some(known), value) => *known = value,
            (None, _) => return Err(unknown(&path, source)),
        }
    }
    Ok(())
}

/// Sets one value given as text: the type is that of the default.
fn set(table: &mut Table, path: &[String], text: &str, source: &str) -> Result<(), ConfigError> {
    let joined = path.join(".");
    let (last, sections) = path.split_last().ok_or_else(|| unknown(&joined, source))?;
    let mut known = table;
    for section in sections {
        let Some(Value::Table(below)) = known.get_mut(section) else { return Err(unknown(&joined, source)) };
        known = below;
    }
    if is_open(&sections.join(".")) {
        known.entry(last.clone()).or_insert(Value::String(String::new()));
    }
    let slot = known.get_mut(last).ok_or_else(|| unknown(&joined, source))?;
    let wrong = |kind: &str| ConfigError::Syntax {
        from: source.to_owned(),
        reason: format!("{joined} takes {kind}, not {text:?}"),
    };
    *slot = match slot {
        Value::String(_) => Value::String(text.to_owned()),
        Value::Integer(_) => {
            Value::Integer(text.replace('_', "").parse().map_err(|_| wrong("a whole number"))?)
        }
        Value::Boolean(_) => Value::Boolean(text.parse().map_err(|_| wrong("true or false"))?),
        Value::Array(_) => array(text).ok_or_else(|| wrong("an array as TOML writes it"))?,
        Value::Table(_) if sections.is_empty() => return Err(unknown(&joined, source)),
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => {
            return Err(wrong("a value that can only be written in the file"));
        }
    };
    Ok(())
}

/// An array in one line, as in `[{ name = "orders", client = "shop" }]`.
fn array(text: &str) -> Option<Value> {
    let mut table: Table = toml::from_str(&format!("array = {text}")).ok()?;
    table.remove("array").filter(Value::is_array)
}

/// Every setting and section by its dotted name.
fn names(table: &Table, above: &str, out: &mut Vec<String>) {
    for (key, value) in table {
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        if let Value::Table(below) = value {
            names(below, &path, out);
        }
        out.push(path);
    }
}

fn unknown(key: &str, source: &str) -> ConfigError {
    let mut known = Vec::new();
    names(&defaults(), "", &mut known);
    let scored = known.into_iter().map(|name| (strsim::jaro_winkler(&name, key), name));
    let nearest = scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.75);
    ConfigError::Unknown {
        from: source.to_owned(),
        key: key.to_owned(),
        nearest: nearest.map(|(_, name)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_the_defaults() {
        let text = include_str!("../../config.toml");
        let read: Raw = toml::from_str(text).expect("config.toml parses");
        assert_eq!(read, Raw::default());
        let (mut expected, mut shown) = (Vec::new(), Vec::new());
        names(&defaults(), "", &mut expected);
        names(&toml::from_str(text).unwrap(), "", &mut shown);
        assert_eq!(shown, expected, "config.toml shows every setting");
    }

    #[test]
    fn flags_over_environment_over_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(
            &path,
            "[shaping]\ntransfers_per_s = 1\n[instance]\nname = \"file\"\n[data]\ndir = \"x\"",
        )
        .unwrap();
        let sources = Sources {
            file: Some(path),
            env: vec![
                ("HONGBAO__SHAPING__TRANSFERS_PER_S".into(), "2".into()),
                ("HONGBAO__INSTANCE__NAME".into(), "env".into()),
                ("HONGBAO_OTHER".into(), "ignored".into()),
            ],
            sets: vec![
                "shaping.transfers_per_s=3_000".into(),
                "gateway.clients.shop=secret-of-the-shop".into(),
                "stored_value.http.url=http://127.0.0.1:1".into(),
            ],
        };
        let config = load(&sources).unwrap();
        assert_eq!(config.raw.shaping.transfers_per_s, 3_000);
        assert_eq!((config.raw.instance.name.as_str(), config.raw.data.dir.as_str()), ("env", "x"));
        assert_eq!(config.raw.gateway.clients["shop"], "secret-of-the-shop");
        assert_eq!(config.raw.stored_value.http.url, "http://127.0.0.1:1");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            ("shaping.transfer_per_s=1", "shaping.transfers_per_s"),
            ("gatway.listen=x", "gateway.listen"),
            ("shaping.transfers_per_s=fast", "a whole number"),
            ("shaping", "section.key=value"),
            ("pipeline.ring_slot_count=1000", "power of two"),
            ("gateway.listen=nowhere", "gateway.listen"),
            ("gateway.listen=0.0.0.0:1", "127.0.0.1"),
            ("intake.kind=kafka", "embedded, redis"),
            ("intake.kind=redis", "intake.redis.url"),
            ("intake.redis.lists=x", "an array"),
            ("stored_value.htp.url=x", "stored_value.http.url"),
            ("stored_value.http=x", "only be written in the file"),
            ("stored_value.kind=redis", "embedded, http, postgres"),
            ("stored_value.kind=http", "shaping.transfers_per_s"),
            ("stored_value.deadline_ms=0", "stored_value.deadline_ms"),
            ("intake.fair_queues=0", "intake.fair_queues"),
            ("instance.name=a b", "instance.name"),
            ("gateway.clients.shop=short", "16 or more"),
            ("log.filter=!!", "log.filter"),
            ("parking.count_max=100", "parking.count_max"),
            ("parking.retry_ms_max=10", "parking.retry_ms_max"),
            ("pipeline.batch_count_max=65536", "pipeline.batch_count_max"),
        ];
        for (assignment, expected) in table {
            let sources = Sources { sets: vec![assignment.to_owned()], ..Sources::default() };
            let error = load(&sources).expect_err(assignment).to_string();
            assert!(error.contains(expected), "{assignment}: {error}");
        }
    }
}
