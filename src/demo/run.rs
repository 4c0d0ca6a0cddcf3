//! One run from start to stop: the service and its door on threads of their own, the client on others, the
//! onlooker beside them; then everything is taken down in order.
//!
//! Whatever happens between, the door is closed, the service stopped and the client's books closed, so that
//! the audit that follows reads a folder at rest.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::DemoArgs;
use super::client::Halt;
use super::crowd::Crowd;
use super::estimates::Errors;
use super::home::Home;
use super::incident::{Incident, Kind, Progress, Ridden};
use super::meter::Meter;
use super::schedule::burst_length;
use super::screen::Screen;
use super::script::Script;
use super::tally::{Counts, Tally, latencies};
use super::watch::{Plan, Watch, outcomes};
use crate::app::{Extras, Running};
use crate::config::Config;
use crate::server;

/// How long the ring may take to finish when the service stops.
const RING_DRAIN_MAX: Duration = Duration::from_secs(30);
/// Settling that makes no progress for so long has failed.
const STALL_MAX: Duration = Duration::from_secs(30);
const DRAIN_LOOK: Duration = Duration::from_millis(20);
const CLIENT_THREADS: usize = 2;

/// What a run came to, before anybody judges it.
pub struct Done {
    pub counts: Counts,
    pub accept_us: Histogram<u64>,
    pub settle_us: Histogram<u64>,
    pub estimates: Errors,
    pub meter: Meter,
    /// What went wrong with the wallet on the way.
    pub incident: Option<Ridden>,
    pub burst: (u64, Duration),
    pub durability: String,
    pub service_accepted: u64,
    /// Final outcomes by the service's own count: all, succeeded, failed.
    pub settled: (u64, u64, u64),
    pub interrupted: bool,
    pub failure: Option<String>,
}

/// What the client side of a run learnt.
struct Driven {
    burst: (u64, Duration),
    durability: String,
    settle_us: Histogram<u64>,
    estimates: Errors,
    incident: Option<Ridden>,
}

impl Driven {
    fn new(burst: (u64, Duration), durability: String) -> Driven {
        Driven { burst, durability, settle_us: latencies(), estimates: Errors::default(), incident: None }
    }
}

pub(super) fn runtime(name: &str, threads: usize) -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(threads).thread_name(name).enable_all().build()?)
}

/// Sets `halt` at the first SIGINT or SIGTERM; a second one ends the process at once.
pub(super) async fn listen_for_signals(halt: Halt) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    for already in [false, true] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if already {
            std::process::exit(130);
        }
        halt.set();
    }
}

/// What is to come, when.
pub(super) struct Course {
    /// Of the burst.
    pub length: Duration,
    pub plan: Plan,
    pub incident: Option<Incident>,
}

impl Course {
    pub fn of(args: &DemoArgs, wallet: Option<SocketAddr>, halt: &Halt) -> Course {
        let (packets, wallet_per_s) = (u64::from(args.count), args.wallet_per_s());
        let trouble = wallet.and_then(|wallet| Some((wallet, args.trouble()?)));
        let length = burst_length(packets, wallet_per_s, trouble.is_some());
        let settling = Duration::from_millis(packets * 1_000 / wallet_per_s).max(length);
        let held = match trouble {
            // The budget comes back in steps.
            Some((_, (Kind::Outage, down))) => down + down / 2,
            Some((_, (Kind::Brownout { .. }, slow))) => slow / 2,
            None => Duration::ZERO,
        };
        let plan = Plan { packets, wallet_per_s, expected: settling + held + Duration::from_secs(1) };
        let incident = trouble.map(|(wallet, (kind, lasts))| Incident {
            kind,
            wallet,
            after: length / 2,
            length: lasts,
            halt: halt.clone(),
            is_on: Arc::default(),
        });
        Course { length, plan, incident }
    }
}

/// What nobody can guess the run's ids from.
pub(super) fn secret() -> [u8; 32] {
    let mut secret = [0; 32];
    secret[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    secret[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    secret
}

/// Starts everything, plays the script, waits until all is final, and stops everything. `wallet`: the one with which
/// something goes wrong on the way, if it does.
pub fn perform(
    args: &DemoArgs,
    config: Config,
    home: &Home,
    run: String,
    wallet: Option<SocketAddr>,
) -> anyhow::Result<Done> {
    let halt = Halt::default();
    let Course { length, plan, incident } = Course::of(args, wallet, &halt);
    let script = Arc::new(Script::write(args.count, length, secret(), run));

    let (client, door) = (runtime("client", CLIENT_THREADS)?, runtime("door", config.gateway_threads)?);
    let listener = door.block_on(server::bind(config.listen))?;
    let address = listener.local_addr()?;
    let service = Running::start(config, Extras::default())?;
    let tally = Arc::new(Tally::open(&home.acks)?);
    let crowd = Arc::new(Crowd::new(script, tally.clone(), address, halt.clone()));
    let watch = Watch::new(&service, &tally, plan, halt.clone()).with(incident.as_ref());
    let screen = Screen::open(!args.json);

    let (driven, meter, served) = std::thread::scope(|scope| {
        let (close, closed) = oneshot::channel::<()>();
        let door_thread = scope.spawn(|| {
            // Dropping the sender closes the door as well.
            {
                let router = server::gateway_of(&service)?.into_router();
                door.block_on(server::serve(
                    listener,
                    router,
                    &service.config().gateway,
                    service.accepting(),
                    async { drop(closed.await) },
                ));
                anyhow::Ok(())
            }
        });
        let onlooker = scope.spawn(|| watch.look(screen));
        let driven = client.block_on(async {
            tokio::spawn(listen_for_signals(halt.clone()));
            drive_through(crowd, &watch, incident).await
        });
        watch.now_doing("stopping");
        drop(close);
        let served = door_thread.join();
        watch.end();
        (driven, onlooker.join(), served)
    });
    let service_accepted = service.load().accepted;
    let settled = outcomes(&service);
    let poison = service.poison().clone();
    drop(watch);
    let stopped = service.stop(RING_DRAIN_MAX);
    client.shutdown_timeout(Duration::from_secs(1));
    served.map_err(|_| anyhow::anyhow!("the door panicked"))??;
    let meter = meter.map_err(|_| anyhow::anyhow!("the onlooker panicked"))?;
    let (counts, accept_us) = tally.close()?;
    let mut failure = poison.reason().map(|reason| format!("the service stopped itself: {reason}"));
    let driven = driven.unwrap_or_else(|error| {
        failure.get_or_insert(format!("{error:#}"));
        Driven::new((0, Duration::ZERO), String::new())
    });
    if let Err(error) = stopped {
        failure.get_or_insert(format!("the service did not stop well: {error:#}"));
    }
    let Driven { burst, durability, settle_us, estimates, incident } = driven;
    let interrupted = halt.is_set() && failure.is_none();
    Ok(Done {
        counts,
        accept_us,
        settle_us,
        estimates,
        meter,
        incident,
        burst,
        durability,
        service_accepted,
        settled,
        interrupted,
        failure,
    })
}

/// The client's part, and what goes wrong with the wallet beside it.
async fn drive_through(
    crowd: Arc<Crowd>,
    watch: &Watch<'_>,
    incident: Option<Incident>,
) -> anyhow::Result<Driven> {
    let progress = Progress::default();
    let (Some(incident), Some(sight)) = (incident, &watch.sight) else {
        return drive(crowd, watch, &progress).await;
    };
    let driving = async {
        let driven = drive(crowd, watch, &progress).await;
        progress.is_over.set(true);
        driven
    };
    let (driven, ridden) = tokio::join!(driving, incident.make(watch.began, &progress, sight));
    let driven = driven?;
    let incident = match ridden.context("the wallet's incident") {
        // A run that was stopped need not hear from the wallet any more.
        Err(_) if watch.halt.is_set() => None,
        ridden => ridden?,
    };
    Ok(Driven { incident, ..driven })
}

/// The client's part, from the first campaign to the last look.
async fn drive(crowd: Arc<Crowd>, watch: &Watch<'_>, progress: &Progress) -> anyhow::Result<Driven> {
    let durability = crowd.open_campaigns().await.context("opening the campaigns")?;
    watch.now_doing("burst");
    progress.burst_at.set(Some(Instant::now()));
    let before = crowd.tally.counts().accepted;
    let took = crowd.clone().burst().await?;
    let burst = (crowd.tally.counts().accepted - before, took);
    let mut driven = Driven::new(burst, durability);
    if crowd.halt.is_set() {
        return Ok(driven);
    }
    watch.now_doing("settling");
    crowd.follow_up().await.context("collections and reversals")?;
    wait_drained(&crowd, watch).await?;
    if !crowd.halt.is_set() {
        driven.settle_us = crowd.settle_latency().await.context("how long settling took")?;
        driven.estimates = crowd.estimate_errors().await.context("how far off the estimates were")?;
    }
    Ok(driven)
}

/// Waits until nothing waits, neither in the queues nor parked nor in the ring.
async fn wait_drained(crowd: &Crowd, watch: &Watch<'_>) -> anyhow::Result<()> {
    let service = watch.service;
    let (mut settled, mut moved_at) = (0, Instant::now());
    loop {
        let load = service.load();
        let is_empty = load.backlog == 0 && load.parked == 0;
        if (is_empty && service.pipeline().is_drained()) || crowd.halt.is_set() {
            return Ok(());
        }
        let (now_settled, _, _) = outcomes(service);
        if now_settled > settled {
            (settled, moved_at) = (now_settled, Instant::now());
        }
        anyhow::ensure!(
            moved_at.elapsed() < STALL_MAX,
            "nothing was settled for {} s, and {} requests wait",
            STALL_MAX.as_secs(),
            load.backlog
        );
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}
