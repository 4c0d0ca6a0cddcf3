//! The running service behind its HTTP door: binds, serves until told to stop, drains.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;

use crate::app::office::Office;
use crate::app::redis::RedisService;
use crate::app::redis::parked::RedisWaiting;
use crate::app::vitals::ServiceVitals;
use crate::app::{Running, Service};
use crate::gateway::{self, Gateway};
use crate::outcome::OutcomeView;
use crate::redis::Link;

pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}; is it in use?"))
}

/// The gateway over a running service.
pub fn gateway(service: &Service) -> anyhow::Result<Gateway> {
    let office = Arc::new(Office {
        desk: service.desk.clone(),
        view: service.view.as_ref().map(|handle| handle.view().clone() as Arc<dyn OutcomeView>),
        accepting: service.accepting.clone(),
        log_end: Arc::new(service.journal.synced_reader()),
    });
    let vitals = Arc::new(ServiceVitals {
        desk: service.desk.clone(),
        journal: service.journal.clone(),
        pipeline: Arc::downgrade(&service.pipeline),
        view: service.view.clone(),
        poison: service.poison.clone(),
        accepting: service.accepting.clone(),
        clock: service.clock.clone(),
        instance: service.config.raw.instance.name.clone(),
        wallet: service.config.raw.stored_value.kind.clone(),
        breaker: service.breaker(),
    });
    Ok(Gateway::new(
        &service.config.gateway,
        office.clone(),
        office.clone(),
        office,
        vitals,
        service.clock.clone(),
    )?)
}

/// The gateway over a running service on Redis.
pub fn redis_gateway(service: &RedisService) -> anyhow::Result<Gateway> {
    let target = &service.config.redis.as_ref().context("the intake is not Redis")?.target;
    let office = Arc::new(service.office.clone());
    let keys = (*service.keys).clone();
    let waiting = Arc::new(RedisWaiting::new(Link::new(target)?, keys, service.shelf.clone()));
    let vitals = Arc::new(service.vitals());
    let options = &service.config.gateway;
    Ok(Gateway::new(options, office.clone(), office, waiting, vitals, service.clock.clone())?)
}

/// The gateway over whichever service runs.
pub fn gateway_of(running: &Running) -> anyhow::Result<Gateway> {
    match running {
        Running::Embedded(service) => gateway(service),
        Running::Redis(service) => redis_gateway(service),
    }
}

/// Serves until `stop` resolves; then nothing new is accepted, and open calls are finished.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: &gateway::Options,
    accepting: Arc<AtomicBool>,
    stop: impl Future<Output = ()>,
) {
    let stop = async move {
        stop.await;
        accepting.store(false, Ordering::Release);
    };
    gateway::serve(listener, router, options, stop).await;
}

/// Resolves on SIGTERM, SIGINT, or when the service can go on no more. Signals are listened for from the call
/// on, not from the first poll: call it before the service is said to be ready.
pub fn stop_signal(poisoned: tokio::sync::mpsc::Receiver<()>) -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    stop_on(signals, poisoned)
}

type Listening = std::io::Result<tokio::signal::unix::Signal>;

async fn stop_on(signals: (Listening, Listening), mut poisoned: tokio::sync::mpsc::Receiver<()>) {
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::error!("signals cannot be listened for; stop the service with SIGKILL");
        return std::future::pending().await;
    };
    let poison = async move {
        // Without a sender there is nobody to tell of a failure: wait for the signals alone.
        if poisoned.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = poison => tracing::error!("the service has failed: stopping"),
    }
}
