//! `hongbao reconcile`: our outcomes of a span of time against the wallet's record.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use hongbao::app;
use hongbao::app::wallet::WalletReader;
use hongbao::config::Config;
use hongbao::outcome::view::history::History;
use hongbao::reconcile::{Tally, wallet_id};
use hongbao::request::rfc3339::{self, Rfc3339};
use serde::{Deserialize, Serialize};

use super::Done;

/// What is settling now is still on its way into the view.
const SETTLING: Duration = Duration::from_secs(60);
const SHOW_EVERY: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct ReconcileArgs {
    /// From this time on, RFC 3339 (2026-11-11T12:00:00Z): when outcomes became final.
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Up to this time; a minute ago if not given.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Ids looked up a second, at most.
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
    ids_per_s: u64,
    /// Keep what was compared in this file, and go on from it if it exists.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// A run that can be taken up again: only for the same span and the same wallet.
#[derive(Serialize, Deserialize)]
struct Saved {
    from: u64,
    to: u64,
    wallet: String,
    tally: Tally,
}

fn time(option: &str, text: &str) -> anyhow::Result<u64> {
    rfc3339::parse(text)
        .with_context(|| format!("{option} {text:?} is no RFC 3339 time, as 2026-11-11T12:00:00Z"))
}

pub fn run(args: &ReconcileArgs, config: &Config) -> anyhow::Result<Done> {
    let from = time("--from", &args.from)?;
    let kept = args.state.as_deref().map_or(Ok(None), kept)?;
    let to = match (&args.to, &kept) {
        (Some(text), _) => time("--to", text)?,
        (None, Some(kept)) => kept.to,
        (None, None) => app::now_ms() - SETTLING.as_millis() as u64,
    };
    if from >= to {
        bail!("--from {} is not before --to; nothing lies between", args.from);
    }
    let Some(wallet) = WalletReader::of(config)? else {
        bail!(
            "stored_value.kind is \"embedded\": the wallet is in the data folder, and `hongbao audit` compares it"
        );
    };
    let view = config.data_dir.join("view.sqlite");
    let history = History::open(&view, from, to)
        .with_context(|| format!("the outcome view {} cannot be read; is data.dir right?", view.display()))?;
    let identity = wallet.identity().context("the wallet does not say who it is")?;
    app::wallet::must_be_of(&config.data_dir, config, &identity)?;
    let mut saved = match kept {
        Some(kept) if (kept.from, kept.to, &kept.wallet) == (from, to, &identity) => kept,
        Some(kept) => bail!(
            "--state is of another run (from {}, to {}, wallet {}); give --from and --to as then, or another file",
            Rfc3339(kept.from),
            Rfc3339(kept.to),
            kept.wallet
        ),
        None => Saved { from, to, wallet: identity, tally: Tally::default() },
    };
    let total = history.count()?;
    let mut shown = Shown { at: Instant::now(), total, on: std::io::stderr().is_terminal() };
    let began = Instant::now();
    let mut asked = 0u64;
    loop {
        let rows = history.page(saved.tally.after_place, config.remote.batch_count_max)?;
        if rows.is_empty() {
            break;
        }
        let due = began + Duration::from_secs_f64(asked as f64 / args.ids_per_s as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        asked += rows.len() as u64;
        let ids: Vec<String> = rows.iter().map(wallet_id).collect();
        let records = wallet.look_up(&ids).context("looking up ids; with --state, run it again later")?;
        saved.tally.add(&rows, &records);
        if let Some(path) = &args.state {
            save(path, &saved)?;
        }
        shown.show(&saved.tally, false);
    }
    shown.show(&saved.tally, true);
    if args.json {
        println!("{}", serde_json::to_string(&saved.tally)?);
    } else {
        print(&saved);
    }
    Ok(if saved.tally.is_clean() { Done::Well } else { Done::FoundWrong })
}

/// What an earlier run kept.
fn kept(path: &Path) -> anyhow::Result<Option<Saved>> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("--state {} is not what this command wrote", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading --state {}", path.display())),
    }
}

fn save(path: &Path, saved: &Saved) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, serde_json::to_vec(saved)?)
        .and_then(|()| fs::rename(&fresh, path))
        .with_context(|| format!("writing --state {}", path.display()))
}

struct Shown {
    at: Instant,
    total: u64,
    on: bool,
}

impl Shown {
    fn show(&mut self, tally: &Tally, is_last: bool) {
        if !self.on || (!is_last && self.at.elapsed() < SHOW_EVERY) {
            return;
        }
        self.at = Instant::now();
        let end = if is_last { "\n" } else { "" };
        eprint!("\rcompared {} of {}, {} differ {end}", tally.compared, self.total, tally.differed);
        // Progress that cannot be shown is no reason to stop.
        let _ = std::io::stderr().flush();
    }
}

fn print(saved: &Saved) {
    let tally = &saved.tally;
    println!("wallet     {}", saved.wallet);
    println!("span       {} to {}", Rfc3339(saved.from), Rfc3339(saved.to));
    println!("compared   {}", tally.compared);
    for (pair, count) in &tally.by_pair {
        println!("           {count} {pair}");
    }
    for (currency, sums) in &tally.sums {
        println!(
            "moved      {} {currency} by our outcomes, {} by the wallet's record",
            sums.ours, sums.wallets
        );
    }
    for found in &tally.differences {
        println!("differs    {}: we say {}, the wallet {}", found.id, found.ours, found.wallets);
    }
    let unlisted = tally.differed - tally.differences.len() as u64;
    if unlisted > 0 {
        println!("           and {unlisted} more");
    }
    if tally.undecided > 0 {
        println!("undecided  {}: the wallet answered unknown; run it again", tally.undecided);
    }
    println!("{}", if tally.is_clean() { "the books agree" } else { "the books do not agree" });
}
