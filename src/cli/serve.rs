//! `hongbao serve`: the service behind its HTTP door, until a signal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;
use hongbao::app::{Extras, Running};
use hongbao::config::Config;
use hongbao::server;
use tracing_subscriber::EnvFilter;

use super::Done;

/// How long the ring may take to finish when the service stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);

pub fn run(config: Config) -> anyhow::Result<Done> {
    let filter = EnvFilter::try_new(&config.raw.log.filter).context("setting log.filter")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let threads = config.gateway_threads;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let (poisoned, poison_told) = tokio::sync::mpsc::channel::<()>(1);
    let on_poison = std::sync::Arc::new(move || poisoned.try_send(()).unwrap_or(()));
    // Bound before anything is recovered, so that a port in use is found out at once.
    let listener = runtime.block_on(server::bind(config.listen))?;
    let service = Running::start(config, Extras { on_poison, ..Extras::default() })?;
    let poison = service.poison().clone();
    let address = listener.local_addr()?;
    let router = server::gateway_of(&service)?.into_router();
    runtime.block_on(async {
        let stop = server::stop_signal(poison_told);
        println!("listening on http://{address}");
        std::io::stdout().flush()?;
        server::serve(listener, router, &service.config().gateway, service.accepting(), stop).await;
        anyhow::Ok(())
    })?;
    service.stop(DRAIN_MAX)?;
    match poison.reason() {
        Some(reason) => anyhow::bail!("stopped: {reason}; restart the service"),
        None => Ok(Done::Well),
    }
}
