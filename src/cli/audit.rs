//! `hongbao audit`: reads a data folder with code that shares nothing with settling.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use hongbao::app::wallet::WalletReader;
use hongbao::audit::{Options, audit, wallet_kind};
use hongbao::config::Config;

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
    let is_its_wallet = wallet_kind(&options.data_dir) == config.raw.stored_value.kind;
    let wallet = if is_its_wallet { WalletReader::of(config)? } else { None };
    let mut ask = wallet.as_ref().map(|wallet| |ids: &[String]| wallet.audit_records(ids));
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
