//! `hongbao demo`: a whole red-packet campaign against a service of its own, watched and then audited.
//!
//! ```text
//! packets ─┐                        ┌──HTTP──> [ the complete service ] ──> journal ──┐
//! schedule ┴─> script ──> crowd ────┘                  │ counters                     v
//!                           │ answers                  v                      audit (its own eyes)
//!                           v                   watch ──> meter ──> picture            │
//!                         tally ──> acks file ─────────────────────────────────────────┤
//!                           └──────────────────────────> summary <─────────────────────┘
//! ```
//!
//! What holds: requests reach the service over TCP and nothing else; the client believes only what it was
//! answered; the verdict is good only if client, service and audit agree. With a wallet in a second process something goes wrong
//! with that one on the way ([`incident`]). [`campaigns`] is what comes before
//! and after the burst, [`body`] what is sent, [`reading`] what is understood, [`home`] where it is kept, [`redis`] and [`wallet`] what may stand
//! beside the service, [`tether`] what ends them with it. [`fleet`] plays the same before several instances.
//! Absent: any short cut into the service but reading its counters.

mod body;
mod brownout;
mod campaigns;
mod client;
mod crowd;
mod dice;
mod estimates;
mod fleet;
mod home;
mod incident;
mod meter;
mod outage;
mod packets;
mod picture;
mod reading;
mod redis;
mod run;
mod schedule;
mod screen;
mod script;
mod summary;
mod tally;
mod tether;
mod wallet;
mod watch;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::app::wallet::WalletReader;
use crate::audit::{Ask, Options, audit};
use crate::config::Config;
use home::Home;
use incident::{Kind, Ridden};
use picture::{Ink, Scene};
use redis::DemoRedis;
use summary::{Seen, Summary};
pub use tether::{TetherArgs, run as tethered};
use wallet::WalletProcess;

#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Red packets to send.
    #[arg(long, default_value_t = 500_000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(10..=50_000_000))]
    count: u32,
    /// Transfers a second that the wallet is given; a pace that takes about 18 seconds if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    wallet_tps: Option<u64>,
    /// Where the money is: the ledger in the service, or `hongbao wallet` in a second process that loses 5 % of its
    /// replies after it has carried out what they were for.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = DemoWallet::Embedded)]
    wallet: DemoWallet,
    /// Seconds for which the wallet of `--wallet http` is down in the middle of the burst, so that the breaker has
    /// something to do; 0: none. 3 if neither this nor --brownout is given.
    #[arg(long = "outage", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=20))]
    outage_s: Option<u64>,
    /// Seconds for which that wallet bears half of the pace instead, so that the adaptive limit has something to do.
    #[arg(long = "brownout", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=60))]
    brownout_s: Option<u64>,
    /// Queue in Redis instead of the journal: `spawn` starts a private redis-server, anything else is a URL (keys
    /// of the run's own, removed afterwards).
    #[arg(long, value_name = "URL|spawn")]
    redis: Option<String>,
    /// So many instances instead of one, each in a process of its own, over one Redis (--redis; a private redis-server if not
    /// given), with one wallet over HTTP that is down for a while in the middle (--outage, --brownout).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=9))]
    fleet: Option<u8>,
    /// Keep the data in this folder; a temporary one, removed at the end, if not given.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to write what was acknowledged; beside the data if not given.
    #[arg(long, value_name = "FILE")]
    acks: Option<PathBuf>,
    /// Print one line of JSON at the end, and no picture.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DemoWallet {
    Embedded,
    Http,
}

/// Seconds that settling takes where no pace is given.
const SETTLE_S: u64 = 18;
const WALLET_PER_S_MIN: u64 = 100;
/// Seconds of the outage, where nothing is said of one.
const OUTAGE_S: u64 = 3;

impl DemoArgs {
    fn wallet_per_s(&self) -> u64 {
        self.wallet_tps.unwrap_or_else(|| (u64::from(self.count) / SETTLE_S).max(WALLET_PER_S_MIN))
    }

    /// What goes wrong with a wallet in a process of its own, and for how long.
    fn trouble(&self) -> Option<(Kind, Duration)> {
        let (kind, length_s) = match self.brownout_s.unwrap_or(0) {
            0 => {
                (Kind::Outage, self.outage_s.unwrap_or(if self.brownout_s.is_some() { 0 } else { OUTAGE_S }))
            }
            slow_s => (Kind::brownout(self.wallet_per_s()), slow_s),
        };
        (length_s > 0).then(|| (kind, Duration::from_secs(length_s)))
    }

    fn check(&self) -> anyhow::Result<()> {
        let is_given = |seconds: Option<u64>| seconds.is_some_and(|seconds| seconds > 0);
        anyhow::ensure!(
            !is_given(self.brownout_s) || !is_given(self.outage_s),
            "--outage and --brownout are two demos: give one of them"
        );
        anyhow::ensure!(
            !is_given(self.brownout_s) || self.fleet.is_some() || self.wallet == DemoWallet::Http,
            "--brownout needs a wallet that can be slow: add --wallet http, or --fleet 3"
        );
        anyhow::ensure!(
            !is_given(self.outage_s) || self.fleet.is_some() || self.wallet == DemoWallet::Http,
            "--outage needs a wallet that can be down: add --wallet http, or --fleet 3"
        );
        Ok(())
    }
}

/// The user's settings, in a folder and on a port of its own, open to nobody else, at the given pace.
fn own_config(
    config: &Config,
    home: &Home,
    wallet_per_s: u64,
    wallet: Option<&WalletProcess>,
    redis: Option<&DemoRedis>,
) -> anyhow::Result<Config> {
    let mut raw = config.raw.clone();
    raw.data.dir = home.data.to_str().context("the path of the data folder is not UTF-8")?.to_owned();
    raw.gateway.listen = "127.0.0.1:0".to_owned();
    raw.gateway.clients.clear();
    raw.shaping.transfers_per_s = wallet_per_s;
    raw.stored_value = Default::default();
    if let Some(wallet) = wallet {
        raw.stored_value.kind = "http".to_owned();
        raw.stored_value.http.url.clone_from(&wallet.url);
    }
    raw.intake = crate::config::raw::Intake { fair_queues: raw.intake.fair_queues, ..Default::default() };
    raw.outcome = Default::default();
    if let Some(redis) = redis {
        raw.intake.kind = "redis".to_owned();
        raw.intake.redis.url.clone_from(&redis.url);
        raw.intake.redis.namespace.clone_from(&redis.namespace);
        raw.intake.redis.lists.clear();
    }
    Ok(Config::from_raw(raw)?)
}

/// Runs the demo; false if its verdict is bad.
pub fn run(args: &DemoArgs, config: Config) -> anyhow::Result<bool> {
    // Only what a person must act on: the screen belongs to the picture. A subscriber that is there stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new("error"))
        .with_writer(std::io::stderr)
        .try_init();
    args.check()?;
    let run = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
    if let Some(count) = args.fleet {
        return fleet::run(args, usize::from(count), &config, run);
    }
    let home = Home::new(args.data.as_deref(), args.acks.as_deref(), &run);
    let before = home.before()?;
    let wallet_per_s = args.wallet_per_s();
    let wallet = match args.wallet {
        DemoWallet::Embedded => None,
        DemoWallet::Http => Some(WalletProcess::start(&home.wallet_data)?),
    };
    let redis = match &args.redis {
        None => None,
        Some(wanted) => Some(DemoRedis::open(wanted, &home.redis_data, &run)?),
    };
    let config = own_config(&config, &home, wallet_per_s, wallet.as_ref(), redis.as_ref())?;
    let reader = WalletReader::of(&config)?;
    if !args.json {
        println!("data in {}, acknowledged requests in {}", home.data.display(), home.acks.display());
    }
    let address = wallet.as_ref().map(WalletProcess::address).transpose()?;
    let done = run::perform(args, config, &home, run, address)?;
    let options = Options {
        // Requests that waited in Redis are in no journal: what counts is what the wallet's says.
        data_dir: match (&redis, &wallet) {
            (Some(_), Some(_)) => home.wallet_data.clone(),
            _ => home.data.clone(),
        },
        acks: Some(home.acks.clone()),
        anchor: None,
        expect_drained: !done.interrupted,
    };
    let mut ask = reader.as_ref().map(|reader| |ids: &[String]| reader.audit_records(ids));
    let ask = ask.as_mut().map(|ask| ask as &mut Ask<'_>);
    let report = audit(&options, ask, &mut |_| {}).context("the audit")?;
    drop(wallet);
    if let Some(redis) = &redis {
        redis.clear().context("removing the demo's keys from Redis")?;
    }
    let incident = done.incident.as_ref();
    let (outage, brownout) =
        incident.map(|ridden| ridden.reports(&done.meter, wallet_per_s)).unwrap_or_default();
    let seen = Seen {
        counts: &done.counts,
        accept_us: &done.accept_us,
        settle_us: &done.settle_us,
        meter: &done.meter,
        report: &report,
        before,
        service_accepted: done.service_accepted,
        burst: done.burst,
        durability: &done.durability,
        interrupted: done.interrupted,
        failure: done.failure.clone(),
        elsewhere: redis.as_ref().map(|_| done.settled),
        estimates: done.estimates.report(incident.map(Ridden::began_at)),
        outage,
        brownout,
    };
    let summary = Summary::of(&seen);
    let is_good = summary.is_good() && !done.interrupted;
    let is_kept = home.leave(summary.is_good());
    if args.json {
        for complaint in &summary.complaints {
            eprintln!("hongbao: {complaint}");
        }
        println!("{}", summary.to_json());
    } else {
        print_still(args, &done, &summary, wallet_per_s);
        print_where(&home, is_kept, done.interrupted);
    }
    Ok(is_good)
}

fn print_still(args: &DemoArgs, done: &run::Done, summary: &Summary, wallet_per_s: u64) {
    let ink: Ink = screen::ink(std::io::stdout().is_terminal());
    let scene = Scene {
        meter: &done.meter,
        counts: &done.counts,
        packets: u64::from(args.count),
        wallet_per_s,
        succeeded: summary.succeeded,
        failed: summary.failed,
        expected: done.meter.last().at,
        doing: if done.interrupted { "stopped" } else { "done" },
    };
    println!();
    for line in scene.lines(&ink) {
        println!("{line}");
    }
    println!("\n{}\n", summary.words(wallet_per_s));
}

fn print_where(home: &Home, is_kept: bool, interrupted: bool) {
    if interrupted {
        println!("  Stopped on request, before everything was settled.");
    }
    if is_kept {
        let (data, acks) = (home.data.display(), home.acks.display());
        println!(
            "  The data is in {data}; audit it again with\n    hongbao audit --data {data} --acks {acks}"
        );
    } else {
        println!("  The data was temporary and is gone; keep it with --data DIR to audit it yourself.");
    }
}
