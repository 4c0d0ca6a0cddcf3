//! `hongbao demo --fleet N`: the same campaign before N instances over one Redis, with one wallet behind them all.
//!
//! ```text
//!            ┌──> i1 ──┐             ┌── a share of the budget each, one breaker
//!  crowd ────┼──> i2 ──┼──> Redis ───┤
//!            └──> i3 ──┘  lists,     └──> wallet: ill in the middle, counts what reaches it
//!               doors     board
//!  look ── counters of each, history of the board          proof ── what the wallet counted, and its balances
//! ```
//!
//! What holds: every instance is `hongbao serve` in a process of its own, known by its door and its metrics alone; the
//! wallet's own counts decide whether each payment arrived once and whether the budget was kept, and the audit reads the
//! wallet's books. Nothing is needed beside `redis-server`: each instance follows all streams of outcomes into a view of its own
//! (`outcome.view = "sqlite_each"`) and so answers for what the others settled, which the demo asks of every door. A fleet that is to
//! last has one view in PostgreSQL instead: what streams forget, a new folder's view would never know. All processes end with the demo
//! ([`super::tether`]). Absent: any view into the instances that an operator has not.

mod drive;
mod gauges;
mod instances;
mod look;
mod picture;
mod proof;
mod ride;
mod summary;

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{ErrorKind, IsTerminal};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use self::drive::Driven;
use self::instances::Instances;
use self::look::{Board, Seen};
use self::picture::FleetScene;
use self::proof::Proof;
use self::summary::FleetSummary;
use super::DemoArgs;
use super::client::{Connection, Halt};
use super::crowd::Crowd;
use super::estimates::Errors;
use super::home::Home;
use super::incident::{Incident, Progress, Ridden, ms};
use super::outage::calls_while_open;
use super::redis::DemoRedis;
use super::run::{Course, listen_for_signals, runtime, secret};
use super::screen::{self, Screen, Shown};
use super::script::Script;
use super::summary as one;
use super::tally::{Tally, latencies};
use super::wallet::WalletProcess;
use super::watch::Plan;
use crate::app::wallet::WalletReader;
use crate::audit::{Ask, Options, audit};
use crate::config::Config;

const CLIENT_THREADS: usize = 2;

/// One run, as all who take part in it know it. They take turns on one thread.
struct Run {
    crowd: Arc<Crowd>,
    names: Vec<String>,
    doors: Vec<SocketAddr>,
    plan: Plan,
    halt: Halt,
    /// All times count from here.
    began: Instant,
    progress: Progress,
    /// Whether the wallet is browned out now, where it will be.
    brownout: Option<Arc<AtomicBool>>,
    doing: Cell<&'static str>,
    seen: RefCell<Seen>,
}

/// What a run came to, before anybody judges it.
struct Done {
    driven: Driven,
    /// What went wrong with the wallet on the way.
    ride: Option<ride::Ride>,
    proof: Proof,
    failure: Option<String>,
}

/// A folder for all of it. One that was named is kept, and must be new.
fn home(args: &DemoArgs, run: &str) -> anyhow::Result<Home> {
    let mut home = Home::new(args.data.as_deref(), args.acks.as_deref(), run);
    let shown = home.data.display().to_string();
    let is_new = match fs::read_dir(&home.data) {
        Ok(mut found) => found.next().is_none(),
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => return Err(error).with_context(|| format!("the folder {shown} cannot be used")),
    };
    ensure!(
        is_new,
        "{shown} is not empty; a fleet's demo wants a new folder, and keeps there what all its processes write"
    );
    (home.wallet_data, home.redis_data) = (home.data.join("wallet"), home.data.join("redis"));
    Ok(home)
}

/// Runs the demo with `count` instances; false if its verdict is bad.
pub fn run(args: &DemoArgs, count: usize, config: &Config, run: String) -> anyhow::Result<bool> {
    let home = home(args, &run)?;
    let wallet_per_s = args.wallet_per_s();
    let redis = DemoRedis::open(args.redis.as_deref().unwrap_or("spawn"), &home.redis_data, &run)?;
    let wallet = WalletProcess::start(&home.wallet_data)?;
    let config = super::own_config(config, &home, wallet_per_s, Some(&wallet), Some(&redis))?;
    if !args.json {
        println!(
            "{count} instances, a redis-server and a wallet; what they write is in {}",
            home.data.display()
        );
    }
    let mut instances = Instances::start(&config, &home.data, count)?;
    let halt = Halt::default();
    let course = Course::of(args, Some(wallet.address()?), &halt);
    let script = Arc::new(Script::write(args.count, course.length, secret(), run));
    let tally = Arc::new(Tally::open(&home.acks)?);
    let doors = instances.doors();
    let crowd = Crowd::new(script.clone(), tally.clone(), doors[0], halt.clone()).at(doors.clone());
    let run = Run {
        crowd: Arc::new(crowd),
        names: instances.names(),
        doors,
        plan: course.plan,
        halt: halt.clone(),
        began: Instant::now(),
        progress: Progress::default(),
        brownout: course.incident.as_ref().and_then(Incident::brownout),
        doing: Cell::new("starting"),
        seen: RefCell::new(Seen::new(count)),
    };
    let client = runtime("client", CLIENT_THREADS)?;
    let done = client.block_on(async {
        tokio::spawn(listen_for_signals(halt.clone()));
        run.perform(args, &config, &mut instances, course, wallet.address()?).await
    });
    client.shutdown_timeout(Duration::from_secs(1));
    instances.stop();
    let done = done.inspect_err(|_| {
        eprintln!("hongbao: what the processes wrote is kept in {}", home.data.display());
    })?;
    let interrupted = halt.is_set() && done.failure.is_none();
    let summary = run.judge(&done, &config, &home, interrupted)?;
    drop(wallet);
    redis.clear().context("removing the demo's keys from Redis")?;
    let is_kept = home.leave(summary.is_good());
    if args.json {
        for complaint in summary.complaints() {
            eprintln!("hongbao: {complaint}");
        }
        println!("{}", summary.to_json());
    } else {
        run.print(&summary, interrupted);
        print_where(&home, is_kept);
    }
    Ok(summary.is_good() && !interrupted)
}

fn print_where(home: &Home, is_kept: bool) {
    if !is_kept {
        println!(
            "  What they wrote was temporary and is gone; keep it with --data DIR to audit it yourself."
        );
        return;
    }
    let (books, acks) = (home.wallet_data.display(), home.acks.display());
    println!("  What all of them wrote is in {}; audit the wallet's books again with", home.data.display());
    println!("    hongbao audit --data {books} --acks {acks}");
}

impl Run {
    /// Plays all of it, and asks the wallet at the end.
    async fn perform(
        &self,
        args: &DemoArgs,
        config: &Config,
        instances: &mut Instances,
        course: Course,
        wallet: SocketAddr,
    ) -> anyhow::Result<Done> {
        let board = Board::open(config, self.began)?;
        let looking = async {
            let looked = self.look(instances, board, Screen::open(!args.json)).await;
            self.end_on(looked)
        };
        let riding = async {
            match &course.incident {
                Some(incident) => self.end_on(self.ride(incident).await.context("the wallet's incident")),
                None => Ok(None),
            }
        };
        let driving = async {
            let driven = self.drive(config).await;
            self.progress.is_over.set(true);
            driven
        };
        let (driven, looked, ride) = tokio::join!(driving, looking, riding);
        let mut failure = looked.err().map(|error| format!("{error:#}"));
        let driven = driven.unwrap_or_else(|error| {
            failure.get_or_insert(format!("{error:#}"));
            Driven {
                burst: (0, Duration::ZERO),
                durability: String::new(),
                settle_us: latencies(),
                estimates: Errors::default(),
            }
        });
        let ride = ride.unwrap_or_else(|error| {
            failure.get_or_insert(format!("{error:#}"));
            None
        });
        let mut wallet = Connection::new(wallet, self.halt.clone());
        let proof = Proof::ask(&mut wallet, self.began, &self.crowd.script).await;
        let proof =
            proof.with_context(|| failure.clone().unwrap_or_else(|| "asking the wallet".to_owned()))?;
        Ok(Done { driven, ride, proof, failure })
    }

    /// Whoever fails ends it for all.
    fn end_on<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        if result.is_err() {
            self.halt.set();
        }
        result
    }

    /// Audits the wallet's books and holds everybody's counts against each other.
    fn judge(
        &self,
        done: &Done,
        config: &Config,
        home: &Home,
        interrupted: bool,
    ) -> anyhow::Result<FleetSummary> {
        let (counts, accept_us) = self.crowd.tally.close()?;
        let options = Options {
            data_dir: home.wallet_data.clone(),
            // What waits in Redis when all is stopped early is not at the wallet yet.
            acks: (!interrupted).then(|| home.acks.clone()),
            anchor: None,
            expect_drained: !interrupted,
        };
        let reader = WalletReader::of(config)?;
        let mut ask = reader.as_ref().map(|reader| |ids: &[String]| reader.audit_records(ids));
        let ask = ask.as_mut().map(|ask| ask as &mut Ask<'_>);
        let report = audit(&options, ask, &mut |_| {}).context("the audit of the wallet's books");
        let report =
            report.with_context(|| done.failure.clone().unwrap_or_else(|| "no verdict".to_owned()))?;

        let (seen, budget_per_s) = (self.seen.borrow(), self.plan.wallet_per_s);
        let (sum, ride) = (seen.sum(), done.ride.as_ref());
        let ridden = ride.map(|ride| self.ridden(ride, &done.proof));
        let (outage, brownout) =
            ridden.as_ref().map(|ridden| ridden.reports(&seen.meter, budget_per_s)).unwrap_or_default();
        let mut summary = one::Summary::of(&one::Seen {
            counts: &counts,
            accept_us: &accept_us,
            settle_us: &done.driven.settle_us,
            meter: &seen.meter,
            report: &report,
            before: Default::default(),
            service_accepted: sum.accepted,
            burst: done.driven.burst,
            durability: &done.driven.durability,
            interrupted,
            failure: done.failure.clone(),
            elsewhere: Some((sum.settled(), sum.succeeded, sum.failed)),
            estimates: done.driven.estimates.report(ridden.as_ref().map(Ridden::began_at)),
            outage,
            brownout,
        });
        if interrupted {
            summary.pending = sum.accepted.saturating_sub(sum.settled());
        }
        let members = self.names.iter().cloned().zip(seen.gauges.iter().copied()).collect();
        let stopped = ride.and_then(ride::Ride::spread);
        Ok(FleetSummary::of(summary, members, &done.proof, stopped, budget_per_s, interrupted))
    }

    /// The picture as it stood at the end, and the verdict.
    fn print(&self, summary: &FleetSummary, interrupted: bool) {
        let ink = screen::ink(std::io::stdout().is_terminal());
        self.doing.set(if interrupted { "stopped" } else { "done" });
        println!();
        for line in self.scene(&self.seen.borrow()).lines(&ink) {
            println!("{line}");
        }
        println!("\n{}\n", summary.words(self.plan.wallet_per_s));
        if interrupted {
            println!("  Stopped on request, before everything was settled.");
        }
    }

    fn scene<'a>(&'a self, seen: &'a Seen) -> FleetScene<'a> {
        FleetScene { seen, names: &self.names, plan: self.plan, doing: self.doing.get() }
    }

    /// What went wrong, with what the wallet counted meanwhile.
    fn ridden(&self, ride: &ride::Ride, proof: &Proof) -> Ridden {
        let seen = self.seen.borrow();
        let over_ms = ms(seen.meter.last().at);
        Ridden {
            kind: ride.kind,
            began: ride.began,
            began_at: ride.began_at,
            ended: ride.ended,
            calls_while_open: calls_while_open(&proof.received, proof.ahead_ms, &seen.turns, over_ms),
            turns: seen.turns.clone(),
            tries: seen.sum().tries,
        }
    }
}
