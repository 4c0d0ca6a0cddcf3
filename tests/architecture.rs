//! The shape of the code: files open with what they are for, imports point one way, files and functions stay
//! small, and the audit shares nothing with what it checks.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_BYTES_MAX: u64 = 40 << 10;
const FUNCTION_LINES_MAX: usize = 90;

/// How high a room stands: it may import its own rank and below, with the exceptions named beside it.
const RANKS: [(&str, u32); 23] = [
    ("domain", 0),
    ("crash", 0),
    ("seldom", 0),
    ("digest", 1),
    ("journal", 1),
    ("postgres", 1),
    ("redis", 1),
    ("ring", 1),
    ("shaping", 1),
    ("breaker", 2),
    ("request", 2),
    ("intake", 2),
    ("stored_value", 2),
    ("outcome", 2),
    ("pipeline", 3),
    ("gateway", 4),
    ("audit", 4),
    ("reconcile", 4),
    ("config", 5),
    ("app", 6),
    ("wallet", 6),
    ("server", 7),
    ("demo", 8),
];
/// What stands above every room.
const TOP: u32 = 9;
/// Rooms of one rank that may know of each other's words.
const BESIDE: [(&str, &str); 6] = [
    ("breaker", "stored_value::remote"),
    ("intake", "outcome::entry"),
    ("intake", "outcome::redis::frame"),
    ("intake", "request"),
    ("outcome", "intake::redis"),
    ("outcome", "request::rfc3339"),
];

struct Source {
    path: PathBuf,
    /// Path below `src`, with `/`.
    name: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut open = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
                found.push(Source { text: fs::read_to_string(&path).unwrap(), name, path });
            }
        }
    }
    assert!(found.len() > 60, "only {} files: is this the source?", found.len());
    found
}

fn room(name: &str) -> &str {
    let first = name.split('/').next().unwrap_or(name);
    first.strip_suffix(".rs").unwrap_or(first)
}

fn rank(room: &str) -> u32 {
    RANKS.iter().find(|(name, _)| *name == room).map_or(TOP, |(_, rank)| *rank)
}

/// The text that ships: without comments, strings' contents aside, and without what only tests see.
fn shipped(source: &Source) -> &str {
    if source.name.contains("/tests/") || source.name.ends_with("tests.rs") {
        return "";
    }
    source.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("")
}

/// Every path that the code names by `crate::`, groups taken apart one level deep: `intake::desk`.
fn imports(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut paths = Vec::new();
    for after in ["crate::", "hongbao::"].iter().flat_map(|mark| code.split(mark).skip(1)) {
        if let Some(group) = after.strip_prefix('{') {
            let mut depth = 1;
            let end = group.find(|c: char| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                depth == 0
            });
            let mut depth = 0;
            let inside = &group[..end.unwrap_or(group.len())];
            let items = inside.split(|c: char| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                c == ',' && depth == 0
            });
            paths.extend(items.map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()));
        } else {
            let end = after.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            paths.push(after[..end.unwrap_or(after.len())].to_owned());
        }
    }
    paths
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> =
        sources().into_iter().filter(|s| !s.text.starts_with("//!")).map(|s| s.name).collect();
    assert!(silent.is_empty(), "these do not open with `//!`: {silent:?}");
}

#[test]
fn files_and_functions_stay_small() {
    let mut too_long = Vec::new();
    for source in sources() {
        let bytes = fs::metadata(&source.path).unwrap().len();
        if bytes > FILE_BYTES_MAX {
            too_long.push(format!("{} has {bytes} bytes", source.name));
        }
        // A test's table is data, however long.
        for (name, lines) in functions(shipped(&source)) {
            if lines > FUNCTION_LINES_MAX {
                too_long.push(format!("{}: {name} has {lines} lines", source.name));
            }
        }
    }
    assert!(too_long.is_empty(), "split these: {too_long:#?}");
}

/// Functions and how many lines they have, by the indentation that rustfmt gives them.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let starts = ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(super) fn ", "const fn "];
        if !starts.iter().any(|start| code.starts_with(start)) {
            continue;
        }
        let indent = line.len() - code.len();
        let end = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[at..].iter().position(|line| *line == end) {
            let name = code.split("fn ").nth(1).unwrap_or("").split(['(', '<']).next().unwrap_or("");
            found.push((name.to_owned(), length + 1));
        }
    }
    found
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for source in sources() {
        let own = room(&source.name);
        if rank(own) == TOP {
            continue;
        }
        for path in imports(shipped(&source)) {
            let other = path.split("::").next().unwrap_or("");
            let known = RANKS.iter().any(|(name, _)| *name == other);
            let beside = BESIDE.iter().any(|(from, to)| *from == own && path.starts_with(to));
            let below = rank(other) < rank(own) || other == own || beside;
            if known && !below {
                wrong.push(format!("{}: {own} imports {path}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_audit_stands_alone() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| room(&source.name) == "audit") {
        for path in imports(shipped(source)) {
            if !["domain", "audit"].contains(&path.split("::").next().unwrap_or("")) {
                wrong.push(format!("{}: {path}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "the audit may use words of the domain and nothing else: {wrong:#?}");
}

#[test]
fn the_reader_of_imports_can_read() {
    let text = "use crate::intake::desk::Desk;\nuse crate::{gateway, journal::{Journal, Storage}};\n// crate::app\nlet x = crate::digest::key_hash(y);";
    assert_eq!(
        imports(text),
        ["intake::desk::Desk", "gateway", "journal::{Journal, Storage}", "digest::key_hash"]
    );
    let long = format!("    fn long() {{\n{}    }}\n", "        x();\n".repeat(99));
    assert_eq!(functions(&long), [("long".to_owned(), 101)]);
}
