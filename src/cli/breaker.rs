//! `hongbao breaker`: how the breaker of the wallet stands, and an operator's word to it.
//!
//! Over Redis it reads and writes the fleet's board, whichever instances run; on the embedded intake it asks the service,
//! and leaves its word in the data folder, which the service follows, now or when it starts. Exit code 1 of `show`:
//! nothing is sent to the wallet.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use hongbao::app::breaker::orders::Orders;
use hongbao::app::breaker::told;
use hongbao::breaker::board::{self, Said, View, Workload};
use hongbao::breaker::policy::Wish;
use hongbao::breaker::{Phase, RedisBoard, State};
use hongbao::config::Config;
use hongbao::config::redis::RedisConfig;
use hongbao::intake::redis::keys;
use hongbao::redis::{Link, Target};
use hongbao::request::rfc3339::Rfc3339;
use serde_json::{Value, json};

use super::Done;
use super::call::Door;

const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);

#[derive(Args)]
pub struct Why {
    /// Why; it is kept with who said it.
    #[arg(long)]
    reason: String,
    /// Who says so; the user's name if not given.
    #[arg(long)]
    by: Option<String>,
}

#[derive(Subcommand)]
pub enum BreakerCommand {
    /// How it stands, since when and why; what it did before; who has which share of the budget.
    Show {
        /// Print one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send nothing to the wallet until somebody says `close` or `auto`.
    Open {
        #[command(flatten)]
        why: Why,
    },
    /// Send whatever the wallet answers, until somebody says `auto`: neither the fleet nor an instance stops for it. The
    /// budget stays, and below it the adaptive limit.
    Close {
        #[command(flatten)]
        why: Why,
    },
    /// Let it decide by itself again; out of an open breaker it first tries.
    Auto {
        #[command(flatten)]
        why: Why,
    },
    /// Another budget for the whole fleet, until all of it is started anew from its settings; on the embedded intake until another is
    /// said.
    Budget {
        /// Transfers a second.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
        transfers_per_s: Option<u64>,
        /// Calls under way at once.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
        calls_max: Option<u64>,
        #[command(flatten)]
        why: Why,
    },
}

impl Why {
    fn said(&self) -> anyhow::Result<(String, &str)> {
        let reason = self.reason.trim();
        if reason.is_empty() {
            bail!("--reason is empty; say why, for whoever looks at it later");
        }
        let user = || std::env::var("USER").unwrap_or_else(|_| "an operator".to_owned());
        Ok((self.by.clone().unwrap_or_else(user), reason))
    }
}

/// The fleet's board, as the settings have it.
fn board_of(config: &Config) -> anyhow::Result<RedisBoard> {
    let redis = RedisConfig::of(&config.raw)?;
    let target =
        Target { connect_timeout: ANSWER_WAIT_MAX, response_timeout: ANSWER_WAIT_MAX, ..redis.board.clone() };
    let key = keys::board(&redis.namespace, "breaker");
    Ok(RedisBoard::new(Link::new(&target)?, &key, config.breaker.clone()))
}

/// What the fleet's board shows; none where no breaker has run.
pub fn view_of(config: &Config) -> anyhow::Result<Option<View>> {
    board_of(config)?.peek().context("the breaker's board cannot be read")
}

pub fn run(command: &BreakerCommand, config: &Config) -> anyhow::Result<Done> {
    if config.raw.stored_value.kind == "embedded" {
        bail!("stored_value.kind is \"embedded\": the ledger in the data folder has no breaker");
    }
    match command {
        BreakerCommand::Show { json } if config.redis.is_some() => {
            let view = view_of(config)?.context("no fleet with a wallet elsewhere has run here")?;
            if *json {
                println!("{}", as_json(&view));
            } else {
                print!("{}", text(&view)?);
            }
            Ok(verdict(view.state.phase.as_str()))
        }
        BreakerCommand::Show { json } => show_own(config, *json),
        BreakerCommand::Open { why } => say(config, Some(Wish::Open), (None, None), why),
        BreakerCommand::Close { why } => say(config, Some(Wish::Close), (None, None), why),
        BreakerCommand::Auto { why } => say(config, Some(Wish::Auto), (None, None), why),
        BreakerCommand::Budget { transfers_per_s: None, calls_max: None, .. } => {
            bail!("say --transfers-per-s, or --calls-max, or both")
        }
        BreakerCommand::Budget { transfers_per_s, calls_max, why } => {
            say(config, None, (*transfers_per_s, *calls_max), why)
        }
    }
}

fn verdict(phase: &str) -> Done {
    if phase == "open" { Done::FoundWrong } else { Done::Well }
}

type Budget = (Option<u64>, Option<u64>);

fn say(config: &Config, wish: Option<Wish>, budget: Budget, why: &Why) -> anyhow::Result<Done> {
    let (by, reason) = why.said()?;
    if config.redis.is_none() {
        return say_to_own(config, wish, budget, &by, reason);
    }
    let mut board = board_of(config)?;
    let not_written = "the fleet's breaker is as it was";
    let state = match wish {
        Some(wish) => board::wish(&mut board, wish, &by, reason).context(not_written)?,
        None => {
            let mut settings = board::Board::look(&mut board).context(not_written)?.state.settings;
            settings.rate_per_s = budget.0.unwrap_or(settings.rate_per_s);
            settings.calls_max = budget.1.unwrap_or(settings.calls_max);
            board::set(&mut board, &settings, &by, reason).context(not_written)?
        }
    };
    println!("{}", headline(&state));
    Ok(Done::Well)
}

/// The word is left in the data folder.
fn say_to_own(
    config: &Config,
    wish: Option<Wish>,
    (transfers_per_s, calls_max): Budget,
    by: &str,
    reason: &str,
) -> anyhow::Result<Done> {
    let folder = &config.data_dir;
    if !folder.join("FORMAT").exists() {
        bail!("{} is no data folder of hongbao; give it with --set data.dir=…", folder.display());
    }
    let before = match Orders::read(folder) {
        // What cannot be read holds the breaker open, and only a word about that replaces it.
        Err(error) if wish.is_some() => {
            eprintln!(
                "what was said before cannot be read and is replaced, with its budget if it had one: {error}"
            );
            None
        }
        before => before.with_context(|| {
            format!("what was said in {}; say `open`, `close` or `auto` to replace it", folder.display())
        })?,
    };
    let mut orders = before.unwrap_or_else(|| Orders::new(by, reason));
    (orders.by, orders.reason) = (by.to_owned(), reason.to_owned());
    orders.wish = wish.unwrap_or(orders.wish);
    orders.transfers_per_s = transfers_per_s.or(orders.transfers_per_s);
    orders.calls_max = calls_max.or(orders.calls_max);
    orders.write(folder).with_context(|| format!("writing to {}", folder.display()))?;
    println!("said; a service over {} does it within a second, or when it starts", folder.display());
    Ok(Done::Well)
}

fn show_own(config: &Config, as_json: bool) -> anyhow::Result<Done> {
    let door = Door::new(None, config.listen, None)?;
    let ready: BTreeMap<String, Value> =
        door.get("/readyz").context("the service does not say how its breaker stands")?;
    let of_breaker = |name: &str| name.starts_with("breaker") || name.ends_with("_per_s");
    let facts: BTreeMap<&String, &Value> = ready.iter().filter(|(name, _)| of_breaker(name)).collect();
    let phase = ready.get("breaker").and_then(Value::as_str).context("this service has no breaker")?;
    if as_json {
        println!("{}", serde_json::to_string(&facts)?);
    } else {
        for (name, value) in facts {
            println!("{name}: {}", value.as_str().unwrap_or_default());
        }
    }
    Ok(verdict(phase))
}

/// State, since when, and why.
pub fn headline(state: &State) -> String {
    let mut line = format!("breaker {} since {}", state.phase.as_str(), Rfc3339(state.since_ms));
    if let Some(change) = state.history.back() {
        write!(line, ", by {}: {}", change.by, change.reason).expect("a string");
    }
    match state.held {
        Some(Wish::Open) => line.push_str(" (held open until `hongbao breaker auto`)"),
        Some(Wish::Close) => line.push_str(" (held closed until `hongbao breaker auto`)"),
        Some(Wish::Auto) | None => {}
    }
    write!(line, "; budget {} transfers/s", state.settings.rate_per_s).expect("a string");
    if let Phase::Ramp { .. } = state.phase {
        write!(line, ", of it {} now", state.terms().cap_rate_per_s).expect("a string");
    }
    line
}

fn text(view: &View) -> anyhow::Result<String> {
    let mut text = String::new();
    writeln!(text, "{}", headline(&view.state))?;
    let instances = view.members.len();
    writeln!(
        text,
        "\n{:<38}{:>9}{:>9}{:>9}{:>11}{:>14}",
        format!("INSTANCES ({instances})"),
        "SHARE/S",
        "SENT/S",
        "DONE/S",
        "WAITING",
        "SEEN"
    )?;
    for (name, member) in &view.members {
        let is_live = view.now_ms < member.lease.until_ms;
        let share = if is_live { member.lease.granted.rate_per_s } else { 0 };
        let seen = format!("{} ms ago", view.now_ms.saturating_sub(member.seen_ms));
        let Said { spent_per_s, work, .. } = member.said;
        let told = |of: fn(Workload) -> u64| work.map_or("-".to_owned(), |work| of(work).to_string());
        let (done_per_s, waiting) = (told(|work| work.done_per_s), told(|work| work.waiting));
        writeln!(text, "{name:<38}{share:>9}{spent_per_s:>9}{done_per_s:>9}{waiting:>11}{seen:>14}")?;
    }
    if !view.state.history.is_empty() {
        writeln!(text)?;
    }
    for change in view.state.history.iter().rev() {
        writeln!(text, "{}", told(change))?;
    }
    Ok(text)
}

/// For programs.
pub fn as_json(view: &View) -> Value {
    let members = view.members.iter().map(|(name, member)| {
        let is_live = view.now_ms < member.lease.until_ms;
        let of = json!({
            "share_per_s": if is_live { member.lease.granted.rate_per_s } else { 0 },
            "sent_per_s": member.said.spent_per_s,
            "done_per_s": member.said.work.map(|work| work.done_per_s),
            "waiting": member.said.work.map(|work| work.waiting),
            "seen_at": member.seen_ms,
            "is_for_stopping": member.said.is_for_stopping,
        });
        (name.clone(), of)
    });
    json!({
        "now": view.now_ms,
        "phase": view.state.phase.as_str(),
        "state": view.state,
        "instances": members.collect::<serde_json::Map<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hongbao::breaker::Settings;

    #[test]
    fn how_it_stands_in_words() {
        let state = State::new(Settings { rate_per_s: 2_000, ..Settings::default() }, 1_000);
        assert_eq!(
            headline(&state),
            "breaker closed since 1970-01-01T00:00:01.000Z; budget 2000 transfers/s"
        );
        let state = state.wished(5_000, Wish::Open, "ann", "the wallet is being moved");
        let line = headline(&state);
        assert!(line.starts_with(
            "breaker open since 1970-01-01T00:00:05.000Z, by ann: the wallet is being moved (held"
        ));
        let view = View { now_ms: 6_000, state, members: BTreeMap::new() };
        let said = text(&view).unwrap();
        assert!(
            said.contains("1970-01-01T00:00:05.000Z closed -> open by ann: the wallet is being moved"),
            "{said}"
        );
        assert_eq!(as_json(&view)["phase"], "open");
    }
}
