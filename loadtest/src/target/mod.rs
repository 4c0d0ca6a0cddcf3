//! What the load is sent at: servers that are started here, or one that is there already.
//!
//! ```text
//! generator ──> instance-0 … instance-n ──(proxy, where a cut is planned)──> wallet
//!     claims ──> backend ──^   └──(proxy)──> redis
//! ```
//!
//! What holds: every process started here ends with its guard, and with this process ([`tether`]); each listens on a port
//! of its own, kept over restarts.
//! Absent: campaigns and money (`treasury`), faults on a timeline (`timeline`).

mod backend;
mod binary;
mod proxy;
mod redis;
mod server;
pub mod tether;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

pub use binary::find_hongbao;
pub use proxy::Proxy;
pub use redis::start_redis;
pub use server::{Server, ServerSpec};

use crate::http::{self, Caller, HttpError};
use crate::scenario::{FaultKind, IntakeKind, Scenario, WalletFaults, WalletKind};

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error(
        "the hongbao program is not beside this one, nor in HONGBAO_BIN, nor on PATH; build it (cargo build --release) or set HONGBAO_BIN"
    )]
    NoBinary,
    #[error("HONGBAO_BIN is {path}, where no file is")]
    WrongBinary { path: PathBuf },
    #[error(
        "redis-server is not installed; this scenario needs it (Debian, Ubuntu: apt-get install redis-server)"
    )]
    NoRedis,
    #[error("{url} is not the address of a Redis server: write it as redis://HOST:PORT")]
    RedisUrl { url: String },
    #[error(
        "the campaign's backend, an example of hongbao, is not in `examples` beside it, nor in HONGBAO_CAMPAIGN_BIN, nor on PATH; build it (cargo build --release --example campaign_backend)"
    )]
    NoBackend,
    #[error("{name} did not start: {detail}{hint}; its log is {log}")]
    Start { name: String, detail: String, hint: &'static str, log: PathBuf },
    #[error("{name} was not started: the run was stopped")]
    Stopped { name: String },
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// Where control calls go, and who they come from.
#[derive(Clone, Debug)]
pub struct Access {
    pub authorization: Option<String>,
    /// The name under which hongbao knows this caller; part of the ids at the wallet.
    pub client: String,
}

#[derive(Debug)]
pub struct Target {
    pub instances: Vec<SocketAddr>,
    /// Of the reference wallet, the way around any proxy.
    pub wallet: Option<SocketAddr>,
    pub access: Access,
    /// Started here; empty for an external target.
    pub servers: Vec<Arc<Server>>,
    pub proxies: Vec<(String, Arc<Proxy>)>,
    /// Redis, where requests may be pushed to a list.
    pub redis: Option<SocketAddr>,
    /// The campaign's own backend, where users claim.
    pub backend: Option<SocketAddr>,
    /// Data folders of the instances.
    pub data: Vec<PathBuf>,
    pub hongbao: Option<PathBuf>,
    pub settings: Vec<String>,
    wallet_faults: Mutex<Map<String, Value>>,
    /// What an external wallet's faults were before this run changed them.
    wallet_was: Mutex<Map<String, Value>>,
}

/// How long a control call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

impl Target {
    /// One that is there already.
    pub fn external(urls: &[String], wallet: Option<&str>, access: Access) -> Result<Target, TargetError> {
        let instances = urls.iter().map(|url| http::resolve(url)).collect::<Result<Vec<_>, _>>()?;
        let wallet = wallet.map(http::resolve).transpose()?;
        Ok(Target { instances, wallet, ..Target::empty(access) })
    }

    /// Where the lists are that an external target drains.
    pub fn with_redis(mut self, url: Option<&str>) -> Result<Target, TargetError> {
        self.redis = url.map(redis::resolve).transpose()?;
        Ok(self)
    }

    fn empty(access: Access) -> Target {
        Target {
            instances: Vec::new(),
            wallet: None,
            access,
            servers: Vec::new(),
            proxies: Vec::new(),
            redis: None,
            backend: None,
            data: Vec::new(),
            hongbao: None,
            settings: Vec::new(),
            wallet_faults: Mutex::default(),
            wallet_was: Mutex::default(),
        }
    }

    pub fn is_external(&self) -> bool {
        self.servers.is_empty()
    }

    /// Whether there are the programs that the scenario's set-up needs; nothing is started.
    pub fn programs(scenario: &Scenario) -> Result<(), TargetError> {
        let hongbao = find_hongbao()?;
        if scenario.setup.intake == IntakeKind::Redis {
            redis::find()?;
        }
        if scenario.claims.is_some() {
            backend::find(&hongbao)?;
        }
        Ok(())
    }

    /// Starts everything that the scenario's set-up names, with data below `folder`, unless it is told to `stop`.
    pub fn start(scenario: &Scenario, folder: &Path, stop: &AtomicBool) -> Result<Target, TargetError> {
        let hongbao = find_hongbao()?;
        let mut target = Target::empty(Access { authorization: None, client: "default".to_owned() });
        let has_cut = |on: &str| {
            scenario.faults.iter().any(|f| f.kind == FaultKind::Cut && f.on.as_deref() == Some(on))
        };
        let mut settings = scenario.setup.set.clone();
        settings.push(format!("shaping.transfers_per_s={}", scenario.setup.pace_per_s));
        if scenario.setup.wallet == WalletKind::Reference {
            let address = target.start_wallet(&hongbao, &scenario.wallet.faults, folder, stop)?;
            let address = target.proxied("wallet", address, has_cut("wallet"))?;
            settings.push("stored_value.kind=http".to_owned());
            settings.push(format!("stored_value.http.url=http://{address}"));
        }
        if scenario.setup.intake == IntakeKind::Redis {
            let address = target.start_redis(&scenario.setup.redis_appendfsync, folder, stop)?;
            let address = target.proxied("redis", address, has_cut("redis"))?;
            settings.push("intake.kind=redis".to_owned());
            settings.push(format!("intake.redis.url=redis://{address}"));
            if scenario.setup.instances > 1 && !settings.iter().any(|set| set.starts_with("outcome.view=")) {
                // Each instance answers for what the others settled, without a database beside it.
                settings.push("outcome.view=sqlite_each".to_owned());
            }
        }
        for number in 0..scenario.setup.instances {
            let hint = if scenario.needs().is_some() {
                "\nthe scenario needs a hongbao that takes requests in by Redis (intake.kind=redis); this one may be older"
            } else if !scenario.setup.set.is_empty() {
                "\nsettings beside the harness's own are those of setup.set in the scenario: correct them there"
            } else {
                ""
            };
            target.start_instance(&hongbao, number, &settings, hint, (folder, stop))?;
        }
        if scenario.claims.is_some() {
            let server = backend::start(&hongbao, target.instances[0], folder, stop)?;
            target.backend = Some(server.address);
            target.servers.push(Arc::new(server));
        }
        target.settings = settings;
        target.hongbao = Some(hongbao);
        Ok(target)
    }

    fn start_wallet(
        &mut self,
        hongbao: &Path,
        faults: &WalletFaults,
        folder: &Path,
        stop: &AtomicBool,
    ) -> Result<SocketAddr, TargetError> {
        let mut args: Vec<String> = vec!["wallet".to_owned(), "--data".to_owned()];
        args.push(folder.join("data-wallet").display().to_string());
        let faults = as_json(faults);
        for (name, value) in &faults {
            args.extend(["--fault".to_owned(), format!("{name}={value}")]);
        }
        args.push("--listen".to_owned());
        *self.faults() = faults;
        let spec = ServerSpec {
            name: "wallet".to_owned(),
            program: hongbao.to_owned(),
            args,
            listen: |args, address| args.push(address),
            log: folder.join("wallet.log"),
            ready: "listening on http://",
            hint: "",
        };
        let server = Server::start(spec, stop)?;
        self.wallet = Some(server.address);
        self.servers.push(Arc::new(server));
        Ok(self.wallet.expect("set a line above"))
    }

    fn start_redis(
        &mut self,
        appendfsync: &str,
        folder: &Path,
        stop: &AtomicBool,
    ) -> Result<SocketAddr, TargetError> {
        let server = redis::start_redis(appendfsync, folder, &[], stop)?;
        let address = server.address;
        self.redis = Some(address);
        self.servers.push(Arc::new(server));
        Ok(address)
    }

    fn start_instance(
        &mut self,
        hongbao: &Path,
        number: u32,
        settings: &[String],
        hint: &'static str,
        (folder, stop): (&Path, &AtomicBool),
    ) -> Result<(), TargetError> {
        let (name, data) = (format!("instance-{number}"), folder.join(format!("data-{number}")));
        let own = [format!("data.dir={}", data.display()), format!("instance.name={name}")];
        // Settings of the scenario come last, and win.
        let all = ["log.filter=warn".to_owned()].into_iter().chain(own).chain(settings.iter().cloned());
        let mut args = vec!["serve".to_owned()];
        args.extend(all.flat_map(|set| ["--set".to_owned(), set]));
        let spec = ServerSpec {
            name,
            program: hongbao.to_owned(),
            args,
            listen: |args, address| args.extend(["--set".to_owned(), format!("gateway.listen={address}")]),
            log: folder.join(format!("instance-{number}.log")),
            ready: "listening on http://",
            hint,
        };
        let server = Server::start(spec, stop)?;
        self.instances.push(server.address);
        self.servers.push(Arc::new(server));
        self.data.push(data);
        Ok(())
    }

    fn proxied(&mut self, name: &str, address: SocketAddr, wanted: bool) -> Result<SocketAddr, TargetError> {
        if !wanted {
            return Ok(address);
        }
        let proxy = Proxy::start(address)
            .map_err(|error| TargetError::Io { what: format!("the proxy in front of {name}"), error })?;
        let address = proxy.address;
        self.proxies.push((name.to_owned(), proxy));
        Ok(address)
    }

    /// What was started and has ended by itself.
    pub fn ended(&self) -> Vec<String> {
        self.servers.iter().filter_map(|server| server.ended()).collect()
    }

    pub fn server(&self, name: &str) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| server.name() == name)
    }

    pub fn caller(&self, address: SocketAddr) -> Caller {
        Caller::new(address, self.access.authorization.clone(), CALL_TIMEOUT)
    }

    fn faults(&self) -> MutexGuard<'_, Map<String, Value>> {
        self.wallet_faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the reference wallet's faults, and remembers them for a restart of it.
    pub fn change_wallet(&self, changes: &Map<String, Value>) -> Result<(), TargetError> {
        let Some(address) = self.wallet else { return Ok(()) };
        let mut caller = Caller::new(address, None, CALL_TIMEOUT);
        if self.is_external() {
            let told = caller.json("GET", "/faults", "")?;
            let mut was = self.wallet_was.lock().unwrap_or_else(PoisonError::into_inner);
            for name in changes.keys() {
                // A pause that lasts is not to be begun anew.
                let value = if name == "pause_s" { Value::from(0) } else { told[name].clone() };
                was.entry(name.clone()).or_insert(value);
            }
        }
        self.faults().extend(changes.clone());
        caller.json("PUT", "/faults", &Value::Object(changes.clone()).to_string())?;
        Ok(())
    }

    /// After its restart the wallet knows only the faults that it was first started with.
    pub fn remind_wallet(&self) -> Result<(), TargetError> {
        let mut faults = self.faults().clone();
        // A pause is over once it is over.
        faults.remove("pause_s");
        self.change_wallet(&faults)
    }

    /// No faults any more, because what is to be checked should not be slowed down; an external wallet is as it was.
    pub fn mend_wallet(&self) -> Result<(), TargetError> {
        if self.is_external() {
            let mut was = self.wallet_was.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(address), false) = (self.wallet, was.is_empty()) {
                let body = Value::Object(was.clone()).to_string();
                Caller::new(address, None, CALL_TIMEOUT).json("PUT", "/faults", &body)?;
                was.clear();
            }
            return Ok(());
        }
        let mended = serde_json::json!({
            "capacity_per_s": null, "capacity_schedule": [], "brownouts": [], "concurrency": null,
            "latency_ms": 0, "jitter_ms": 0, "latency_p50_ms": 0, "latency_p99_ms": 0, "slow_ms": 0, "pause_s": 0,
            "error_rate": 0, "timeout_rate": 0, "drop_before_rate": 0, "drop_after_rate": 0,
        });
        match mended {
            // The median goes before the 99th percentile that may not be below it.
            Value::Object(mended) => self.change_wallet(&mended),
            _ => Ok(()),
        }
    }
}

/// The file's values as the wallet takes them.
pub fn as_json(faults: &WalletFaults) -> Map<String, Value> {
    let value = |value: &toml::Value| serde_json::to_value(value).expect("numbers, text, lists and tables");
    faults.iter().map(|(name, toml)| (name.clone(), value(toml))).collect()
}
