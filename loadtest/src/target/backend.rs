//! The campaign's own backend: the example `campaign_backend` of hongbao, as a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::server::{Server, ServerSpec};
use super::{TargetError, binary};
use crate::claims::{BUDGET, CAMPAIGN};

/// From `HONGBAO_CAMPAIGN_BIN`, or where cargo puts examples beside the hongbao that is used.
pub fn find(hongbao: &Path) -> Result<PathBuf, TargetError> {
    if let Some(path) = std::env::var_os("HONGBAO_CAMPAIGN_BIN") {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { Err(TargetError::NoBackend) };
    }
    let beside = hongbao.with_file_name("examples").join("campaign_backend");
    let found = Some(beside).filter(|path| path.is_file()).or_else(|| binary::on_path("campaign_backend"));
    found.ok_or(TargetError::NoBackend)
}

pub fn start(
    hongbao: &Path,
    instance: SocketAddr,
    folder: &Path,
    stop: &AtomicBool,
) -> Result<Server, TargetError> {
    let data = folder.join("data-backend");
    std::fs::create_dir_all(&data)
        .map_err(|error| TargetError::Io { what: format!("making {}", data.display()), error })?;
    let data = data.join("campaign.db").display().to_string();
    let (url, budget) = (format!("http://{instance}"), BUDGET.to_string());
    let args = ["--hongbao", &url, "--data", &data, "--campaign", CAMPAIGN, "--budget", &budget, "--listen"];
    let spec = ServerSpec {
        name: "backend".to_owned(),
        program: find(hongbao)?,
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        listen: |args, address| args.push(address),
        log: folder.join("backend.log"),
        ready: "listening on http://",
        hint: "",
    };
    Server::start(spec, stop)
}
