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
    for (section, value) in from {
        match (into.get_mut(&section), value) {
            (Some(Value::Table(known)), Value::Table(given)) => {
                for (key, value) in given {
                    let path = format!("{section}.{key}");
                    if !known.contains_key(&key) {
                        return Err(unknown(&path, source));
                    }
                    known.insert(key, value);
                }
            }
            (Some(_), _) => {
                let reason = format!("[{section}] is a section, not a setting");
                return Err(ConfigError::Syntax { from: source.to_owned(), reason });
            }
            (None, _) => return Err(unknown(&section, source)),
        }
    }
    Ok(())
}

/// Sets one value given as text: the type is that of the default.
fn set(table: &mut Table, path: &[String], text: &str, source: &str) -> Result<(), ConfigError> {
    let joined = path.join(".");
    let (section, rest) = match path {
        [section, rest @ ..] if !rest.is_empty() => (section, rest),
        _ => return Err(unknown(&joined, source)),
    };
    let Some(Value::Table(known)) = table.get_mut(section) else { return Err(unknown(&joined, source)) };
    let mut slot = known.get_mut(&rest[0]).ok_or_else(|| unknown(&joined, source))?;
    if let ([parent, name], true) = (rest, is_open(&format!("{section}.{}", rest[0]))) {
        let open = slot.as_table_mut().expect("an open table is a table");
        let _ = parent;
        slot = open.entry(name.clone()).or_insert(Value::String(String::new()));
    } else if rest.len() != 1 {
        return Err(unknown(&joined, source));
    }
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
        Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            return Err(wrong("a value that can only be written in the file"));
        }
    };
    Ok(())
}

fn unknown(key: &str, source: &str) -> ConfigError {
    let mut known = Vec::new();
    for (section, value) in defaults() {
        if let Value::Table(keys) = value {
            known.extend(keys.keys().map(|key| format!("{section}.{key}")));
        }
        known.push(section);
    }
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
        let default_table = defaults();
        let file: Table = toml::from_str(text).unwrap();
        for (section, value) in &default_table {
            for key in value.as_table().unwrap().keys() {
                let there = file.get(section).and_then(|s| s.get(key)).is_some();
                assert!(there, "config.toml does not show {section}.{key}");
            }
        }
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
            ],
        };
        let config = load(&sources).unwrap();
        assert_eq!(config.raw.shaping.transfers_per_s, 3_000);
        assert_eq!((config.raw.instance.name.as_str(), config.raw.data.dir.as_str()), ("env", "x"));
        assert_eq!(config.raw.gateway.clients["shop"], "secret-of-the-shop");
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
            ("intake.kind=redis", "embedded"),
            ("intake.fair_queues=0", "intake.fair_queues"),
            ("instance.name=a b", "instance.name"),
            ("gateway.clients.shop=short", "16 or more"),
            ("log.filter=!!", "log.filter"),
            ("parking.count_max=100", "parking.count_max"),
            ("pipeline.batch_count_max=65536", "pipeline.batch_count_max"),
        ];
        for (assignment, expected) in table {
            let sources = Sources { sets: vec![assignment.to_owned()], ..Sources::default() };
            let error = load(&sources).expect_err(assignment).to_string();
            assert!(error.contains(expected), "{assignment}: {error}");
        }
    }
}
