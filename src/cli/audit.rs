//! `hongbao audit`: reads a data folder with code that shares nothing with settling.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use hongbao::app;
use hongbao::audit::{Options, WalletRecord, audit, wallet_kind};
use hongbao::config::Config;
use hongbao::domain::TransferStatus;
use hongbao::stored_value::remote::{CallError, OnRecord, RemoteWallet};

use super::Done;

#[derive(Args)]
pub struct AuditArgs {
    /// The data folder; data.dir if not given. It may be in use, but what is written meanwhile is not audited.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// File of acknowledged requests, `client id amount` a line; `demo` writes one.
    #[arg(long, value_name = "FILE")]
    acks: Option<PathBuf>,
    /// A note of the newest frame, kept outside the folder: made if missing, checked, then advanced.
    #[arg(long, value_name = "FILE")]
    anchor: Option<PathBuf>,
    /// Also a breach: a request that is not final.
    #[arg(long)]
    drained: bool,
    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &AuditArgs, config: &Config) -> anyhow::Result<Done> {
    let options = Options {
        data_dir: args.data.clone().unwrap_or_else(|| config.data_dir.clone()),
        acks: args.acks.clone(),
        anchor: args.anchor.clone(),
        expect_drained: args.drained,
    };
    let shows_progress = std::io::stderr().is_terminal();
    let mut shown = -1;
    let mut wallet = Wallet::of(&options, config)?;
    let mut ask = wallet.as_mut().map(|wallet| |ids: &[String]| wallet.ask(ids));
    let ask = ask.as_mut().map(|ask| ask as &mut hongbao::audit::Ask<'_>);
    let report = audit(&options, ask, &mut |share| {
        let percent = (share * 100.0) as i32;
        if shows_progress && percent > shown {
            shown = percent;
            eprint!("\rreading the journal: {percent:3} %");
            // Progress that cannot be shown is no reason to stop.
            let _ = std::io::stderr().flush();
        }
    })?;
    if shows_progress && shown >= 0 {
        eprintln!();
    }
    if args.json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    Ok(if report.is_clean() { Done::Well } else { Done::FoundWrong })
}

/// The wallet elsewhere whose books the folder holds, if the settings say how to reach it.
pub struct Wallet {
    wallet: std::sync::Arc<dyn RemoteWallet>,
    runtime: tokio::runtime::Runtime,
    deadline: std::time::Duration,
    entries_max: usize,
}

const TRIES_MAX: u32 = 20;

impl Wallet {
    pub fn of(options: &Options, config: &Config) -> anyhow::Result<Option<Wallet>> {
        if wallet_kind(&options.data_dir) != config.raw.stored_value.kind {
            return Ok(None);
        }
        let Some(wallet) = app::wallet::adapter(config)? else { return Ok(None) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (deadline, entries_max) = (config.remote.deadline, config.remote.batch_count_max);
        Ok(Some(Wallet { wallet, runtime, deadline, entries_max }))
    }

    pub fn ask(&mut self, ids: &[String]) -> Result<Vec<WalletRecord>, String> {
        let mut records = Vec::with_capacity(ids.len());
        for page in ids.chunks(self.entries_max) {
            records.extend(self.ask_page(page).map_err(|error| error.to_string())?.into_iter().map(record));
        }
        Ok(records)
    }

    /// Asks again with growing pauses: a look-up has no effect.
    fn ask_page(&self, ids: &[String]) -> Result<Vec<Option<OnRecord>>, CallError> {
        self.runtime.block_on(async {
            for tries in 1..TRIES_MAX {
                match self.wallet.lookup(ids.to_vec(), self.deadline).await {
                    Err(
                        CallError::TimedOut { .. } | CallError::Unknown(_) | CallError::Overloaded { .. },
                    ) => tokio::time::sleep(std::time::Duration::from_millis(50 * u64::from(tries))).await,
                    done => return done,
                }
            }
            self.wallet.lookup(ids.to_vec(), self.deadline).await
        })
    }
}

fn record(on_record: Option<OnRecord>) -> WalletRecord {
    match on_record {
        None => WalletRecord::Nothing,
        Some(OnRecord { answer, amount }) => match answer.status {
            TransferStatus::Succeeded => WalletRecord::Done { amount },
            TransferStatus::Failed(_) => WalletRecord::Refused,
            TransferStatus::Unknown => WalletRecord::Undecided,
        },
    }
}
