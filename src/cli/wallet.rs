//! `hongbao wallet`: the reference stored-value service, and `hongbao wallet check` for any other.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use hongbao::config::Config;
use hongbao::server;
use hongbao::wallet::{Faults, Options, Wallet, check};
use tracing_subscriber::EnvFilter;

use super::Done;

/// How long calls on their way may take to end once the listener is gone.
const WORK_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct WalletArgs {
    #[command(subcommand)]
    command: Option<WalletCommand>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Subcommand)]
enum WalletCommand {
    /// Does the wallet at URL keep the contract's promises? It moves made-up money between accounts of its own.
    Check(CheckArgs),
}

#[derive(Args)]
struct ServeArgs {
    /// Address to listen on; one that other machines can reach needs --authorization.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Folder of the books; made if it does not exist.
    #[arg(long, value_name = "DIR", default_value = "wallet-data")]
    data: PathBuf,
    /// What the Authorization header of every call must say.
    #[arg(long, value_name = "VALUE", env = "HONGBAO_WALLET_AUTHORIZATION", hide_env_values = true)]
    authorization: Option<String>,
    /// Something to make wrong, by a name that GET /faults lists: `capacity_per_s=5000`; may be given often.
    #[arg(long = "fault", value_name = "NAME=VALUE")]
    faults: Vec<String>,
}

#[derive(Args)]
struct CheckArgs {
    /// Of the wallet, without the path of a call: http://127.0.0.1:8090
    url: String,
    /// What to send as Authorization header.
    #[arg(long, value_name = "VALUE", env = "HONGBAO_WALLET_AUTHORIZATION", hide_env_values = true)]
    authorization: Option<String>,
    /// Account with money to test with; by default a funding account that may go below zero.
    #[arg(long, value_name = "ACCOUNT")]
    funding: Option<String>,
    /// Currency of the test transfers.
    #[arg(long, value_name = "CODE", default_value = "CNY")]
    currency: String,
    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub fn run(args: WalletArgs, config: &Config) -> anyhow::Result<Done> {
    let filter = EnvFilter::try_new(&config.raw.log.filter).context("setting log.filter")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match args.command {
        Some(WalletCommand::Check(args)) => run_check(args),
        None => serve(args.serve),
    }
}

fn serve(args: ServeArgs) -> anyhow::Result<Done> {
    if !args.listen.ip().to_canonical().is_loopback() && args.authorization.is_none() {
        let listen = args.listen;
        anyhow::bail!(
            "refusing to listen on {listen}, which other machines can reach, without --authorization"
        );
    }
    let faults = Faults::from_args(&args.faults).context("--fault")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (failed, failure_told) = tokio::sync::mpsc::channel::<()>(1);
    // Bound before anything is recovered, so that a port in use is found out at once.
    let listener = runtime.block_on(server::bind(args.listen))?;
    let address = listener.local_addr()?;
    let options = Options { data: args.data, authorization: args.authorization, faults };
    let wallet = Wallet::start(options, Box::new(move || failed.try_send(()).unwrap_or(())))?;
    runtime.block_on(async {
        let stop = server::stop_signal(failure_told);
        println!("listening on http://{address}");
        std::io::stdout().flush()?;
        wallet.serve(listener, stop).await;
        anyhow::Ok(())
    })?;
    runtime.shutdown_timeout(WORK_TIMEOUT);
    wallet.stop()?;
    Ok(Done::Well)
}

fn run_check(args: CheckArgs) -> anyhow::Result<Done> {
    let options = check::Options {
        url: args.url,
        authorization: args.authorization,
        funding: args.funding,
        currency: args.currency,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut show = |promise: &check::Promise| {
        if !args.json {
            println!("{promise}");
        }
    };
    let report = runtime.block_on(check::run(&options, &mut show))?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{}", report.summary());
    }
    Ok(if report.is_kept() { Done::Well } else { Done::FoundWrong })
}
