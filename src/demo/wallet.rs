//! The demo's wallet in a second process: `hongbao wallet`, with a share of its replies lost after execution.
//!
//! The process ends with this guard, whatever becomes of the demo.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, bail};

use super::tether;

/// Calls whose reply the wallet loses after it has carried them out.
pub const REPLIES_LOST: f64 = 0.05;

pub struct WalletProcess {
    child: Child,
    pub url: String,
}

impl WalletProcess {
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        let address = self.url.strip_prefix("http://").unwrap_or(&self.url);
        address.parse().with_context(|| format!("the wallet's address {}", self.url))
    }

    pub fn start(data: &Path) -> anyhow::Result<WalletProcess> {
        let program = std::env::current_exe().context("where this program is")?;
        let mut child = tether::command(program)?
            .args(["wallet", "--set", "log.filter=error", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .arg("--fault")
            .arg(format!("drop_after_rate={REPLIES_LOST}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the wallet's process")?;
        let stdout = child.stdout.take().context("the wallet's output")?;
        let mut process = WalletProcess { child, url: String::new() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("reading the wallet's address")?;
        match line.trim().strip_prefix("listening on ") {
            Some(url) => process.url = url.to_owned(),
            None => bail!("the wallet's process did not start; it said {:?}", line.trim()),
        }
        Ok(process)
    }
}

impl Drop for WalletProcess {
    fn drop(&mut self) {
        // It may have ended by itself; its books are durable without a farewell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is another's stands beside the data.
pub fn data_beside(data: &Path, ending: &str) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    data.with_file_name(name)
}
