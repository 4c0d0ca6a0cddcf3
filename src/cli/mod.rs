//! The commands of `hongbao`: what they take, and which part of the library carries them out.
//!
//! Exit codes: 0 done, 1 the command ran and found something wrong (a breach, a failed check), 2 it could not
//! run (arguments, configuration, a folder in use).

mod audit;
mod breaker;
mod call;
mod dead;
mod fleet;
mod migrate;
mod parked;
mod reconcile;
mod serve;
mod view;
mod wallet;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use hongbao::config::{self, Config, Sources};

/// Takes payout requests as fast as a campaign can throw them, says "accepted" once a request is durable, and
/// pays each one exactly once at the pace the wallet can bear.
#[derive(Parser)]
#[command(name = "hongbao", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

const EXAMPLES: &str = "\
Examples:
  hongbao demo                                   a whole campaign in half a minute, with a picture and an audit
  hongbao demo --fleet 3                         three instances over Redis, and a wallet that goes down on the way
  hongbao serve --set shaping.transfers_per_s=20000
  hongbao audit --data data --acks acks.txt      were the promises kept?
  hongbao parked list --reason low_balance       what waits, since when, until when
  hongbao dead list --reason invalid_field       what was pushed to Redis and could not be read
  hongbao fleet                                  which instance owns what, and who owns nothing for which reason
  hongbao breaker show                           is the wallet called, at what rate, since when and why
  hongbao reconcile --from 2026-11-11T12:00:00Z  does the wallet agree with our outcomes?
  hongbao wallet                                 a wallet service of its own, for trying things out
  hongbao wallet check http://127.0.0.1:8090     does a wallet keep the contract's promises?
  hongbao config print                           every setting, and what is in force

Settings come from flags, the environment (HONGBAO__SECTION__KEY), the file, and defaults, in that order.";

#[derive(Args, Clone)]
struct Settings {
    /// Settings file (TOML); see config.toml for every setting.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, over file and environment; may be given often.
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service (the default).
    Serve,
    /// Run a red-packet campaign against a service of its own, with a live picture, then audit it.
    Demo(hongbao::demo::DemoArgs),
    /// Check a data folder with code of its own: nothing lost, nothing paid twice, books balanced.
    Audit(audit::AuditArgs),
    /// Compare our outcomes of a span of time with the record of a wallet elsewhere.
    Reconcile(reconcile::ReconcileArgs),
    /// Run the reference wallet service, or check another one.
    Wallet(wallet::WalletArgs),
    /// The outcome view (status, counts and listings).
    View {
        #[command(subcommand)]
        command: view::ViewCommand,
    },
    /// Make or migrate tables in PostgreSQL: of a wallet (stored_value.postgres.url), of a fleet's outcome view
    /// (outcome.postgres_url).
    Migrate,
    /// What waits for a time or a balance, in a running service.
    Parked {
        #[command(subcommand)]
        command: parked::ParkedCommand,
    },
    /// Elements of the Redis intake that could not be read.
    Dead {
        #[command(subcommand)]
        command: dead::DeadCommand,
    },
    /// Whether a wallet elsewhere is called, and at what rate: how it stands, and an operator's word.
    Breaker {
        #[command(subcommand)]
        command: breaker::BreakerCommand,
    },
    /// The fleet that shares a Redis: instances, who owns what, what waits where.
    Fleet(fleet::FleetArgs),
    /// Check or print the settings.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Become a program that ends with the process that started it.
    #[command(hide = true)]
    Tethered(hongbao::demo::TetherArgs),
    /// Print the completions of a shell, for its startup file.
    Completions { shell: clap_complete::Shell },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Say whether the settings are valid.
    Check,
    /// Print the settings in force, as a settings file.
    Print,
}

impl Settings {
    fn load(&self) -> Result<Config, config::ConfigError> {
        let env = std::env::vars_os();
        let env = env.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        config::load(&Sources { file: self.config.clone(), env: env.collect(), sets: self.sets.clone() })
    }
}

/// What a command came to.
enum Done {
    Well,
    /// It ran, and what it looked at is not as it should be.
    FoundWrong,
}

impl Cli {
    pub fn run(self) -> ExitCode {
        match self.dispatch() {
            Ok(Done::Well) => ExitCode::SUCCESS,
            Ok(Done::FoundWrong) => ExitCode::from(1),
            Err(error) => {
                eprintln!("hongbao: {error:#}");
                ExitCode::from(2)
            }
        }
    }

    fn dispatch(self) -> anyhow::Result<Done> {
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve::run(self.settings.load()?),
            Command::Demo(args) => {
                let config = self.settings.load()?;
                Ok(if hongbao::demo::run(&args, config)? { Done::Well } else { Done::FoundWrong })
            }
            Command::Audit(args) => audit::run(&args, &self.settings.load()?),
            Command::Reconcile(args) => reconcile::run(&args, &self.settings.load()?),
            Command::Wallet(args) => wallet::run(args, &self.settings.load()?),
            Command::View { command } => view::run(&command, &self.settings.load()?),
            Command::Migrate => migrate::run(&self.settings.load()?),
            Command::Parked { command } => parked::run(&command, &self.settings.load()?),
            Command::Dead { command } => dead::run(&command, &self.settings.load()?),
            Command::Breaker { command } => breaker::run(&command, &self.settings.load()?),
            Command::Fleet(args) => fleet::run(&args, &self.settings.load()?),
            Command::Config { command: ConfigCommand::Check } => {
                let config = self.settings.load()?;
                // What the wallet's adapter can refuse without a connection, it refuses here.
                hongbao::app::wallet::adapter(&config)?;
                println!("the settings are valid");
                Ok(Done::Well)
            }
            Command::Config { command: ConfigCommand::Print } => {
                let mut raw = self.settings.load()?.raw;
                let wallet = &mut raw.stored_value;
                let secrets = raw.gateway.clients.values_mut();
                let redis = &mut raw.intake.redis;
                let lists = redis.lists.iter_mut().map(|list| &mut list.hmac_key);
                let secrets = secrets.chain(lists).chain([
                    &mut wallet.http.authorization,
                    &mut wallet.postgres.url,
                    &mut redis.url,
                    &mut redis.board_url,
                    &mut raw.outcome.postgres_url,
                ]);
                let mut hidden = false;
                for secret in secrets.filter(|secret| !secret.is_empty()) {
                    *secret = "<not shown>".to_owned();
                    hidden = true;
                }
                if hidden {
                    println!(
                        "# Keys and credentials are not shown: put them back before using this as a file."
                    );
                }
                print!("{}", toml::to_string(&raw)?);
                Ok(Done::Well)
            }
            Command::Tethered(args) => {
                hongbao::demo::tethered(&args)?;
                Ok(Done::Well)
            }
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Cli::command(), "hongbao", &mut std::io::stdout());
                Ok(Done::Well)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
