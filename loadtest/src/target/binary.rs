//! Where programs are found.

use std::path::{Path, PathBuf};

use super::TargetError;

/// From `HONGBAO_BIN`, beside this program, or on PATH.
pub fn find_hongbao() -> Result<PathBuf, TargetError> {
    if let Some(path) = std::env::var_os("HONGBAO_BIN") {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { Err(TargetError::WrongBinary { path }) };
    }
    let own = std::env::current_exe().ok();
    // Test programs stand one folder further down.
    let folders = own.iter().flat_map(|own| own.ancestors().skip(1).take(2));
    let beside = folders.map(|folder| folder.join("hongbao")).find(|path| path.is_file());
    beside.or_else(|| on_path("hongbao")).ok_or(TargetError::NoBinary)
}

pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder: PathBuf| Path::new(&folder).join(name))
        .find(|path| path.is_file())
}
