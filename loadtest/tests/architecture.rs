//! The shape of this crate: files open with what they are for and stay small, and nothing is shared with hongbao.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_BYTES_MAX: usize = 16 << 10;

fn sources() -> Vec<(PathBuf, String)> {
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 40, "only {} files: is this the source?", found.len());
    found
}

#[test]
fn files_say_what_they_are_for_and_stay_small() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} does not open with `//!`", path.display());
        assert!(text.len() <= FILE_BYTES_MAX, "{} has {} bytes; split it", path.display(), text.len());
    }
}

#[test]
fn nothing_is_shared_with_what_is_tested() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("path ="), "a dependency on a neighbour");
    for (path, text) in sources() {
        assert!(!text.contains("use hongbao::"), "{} uses hongbao", path.display());
    }
}
