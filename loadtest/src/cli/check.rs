//! `check`: the check of every payment alone, for a list of acknowledged ids from wherever.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use hongbao_loadtest::check::{Claim, Sources, check};
use hongbao_loadtest::generator::Fate;
use hongbao_loadtest::result::Witness;
use hongbao_loadtest::target::{Access, Target};

/// Money is lost, paid twice or not what was asked for.
const LOSS: u8 = 4;

#[derive(Args)]
pub struct CheckArgs {
    /// Acknowledged requests, `client id amount` a line; `run` and `hongbao demo` write such files.
    #[arg(long, value_name = "FILE")]
    acks: PathBuf,
    /// An instance that knows them.
    #[arg(long, value_name = "URL")]
    target: String,
    /// The wallet that paid them, so that they are counted there as well.
    #[arg(long, value_name = "URL")]
    wallet: Option<String>,
    /// What to send as Authorization header.
    #[arg(long, value_name = "VALUE", env = "HONGBAO_LOADTEST_AUTHORIZATION", hide_env_values = true)]
    authorization: Option<String>,
    /// Whose lines to check; ids of others are passed over, and counted.
    #[arg(long, value_name = "NAME", default_value = "default")]
    client: String,
    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

fn claims(path: &Path, client: &str) -> anyhow::Result<(Vec<Claim>, u64)> {
    let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let (mut claims, mut others) = (Vec::new(), 0);
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("reading {}", path.display()))?;
        let fields: Vec<&str> = line.split(' ').collect();
        let [whose, id, amount] = fields[..] else {
            anyhow::bail!("{}:{}: {line:?} is not `client id amount`", path.display(), index + 1);
        };
        let amount = amount.parse().with_context(|| {
            format!("{}:{}: {amount:?} is no amount in minor units", path.display(), index + 1)
        })?;
        if whose == client {
            claims.push(Claim { id: id.to_owned(), amount, fate: Fate::Acknowledged, parties: None });
        } else {
            others += 1;
        }
    }
    Ok((claims, others))
}

pub fn run(args: &CheckArgs) -> anyhow::Result<u8> {
    let (claims, others) = claims(&args.acks, &args.client)?;
    if claims.is_empty() {
        let (path, client) = (args.acks.display(), &args.client);
        anyhow::bail!(
            "{path} has no line of client {client} ({others} of others): there is nothing to check"
        );
    }
    let access = Access { authorization: args.authorization.clone(), client: args.client.clone() };
    let target = Target::external(std::slice::from_ref(&args.target), args.wallet.as_deref(), access)?;
    let sources = Sources {
        hongbao: target.caller(target.instances[0]),
        wallet: target.wallet.map(|address| target.caller(address)),
        client: &args.client,
        books: None,
    };
    let found = check(claims.into_iter(), sources, &mut |_| {});
    let found = found.with_context(|| match &args.wallet {
        Some(wallet) => format!("looking up at --target {} and --wallet {wallet}", args.target),
        None => format!("looking up at --target {}", args.target),
    })?;
    let (ids, lost) = (found.ids.clone().unwrap_or_default(), found.lost.unwrap_or(0));
    if args.json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        println!(
            "acknowledged {}, lost {lost}, altered {}, paid unasked {}, still open {}; lines of other clients {others}",
            found.acknowledged, ids.altered, ids.paid_unasked, ids.pending
        );
        if found.counted_at != Witness::Wallet {
            println!(
                "- not checked: nothing was counted at the wallet (--wallet URL); this is hongbao's own word"
            );
        }
        found.told.iter().for_each(|words| println!("! {words}"));
    }
    Ok(match (lost + ids.altered + ids.paid_unasked, ids.pending) {
        (0, 0) => 0,
        (0, _) => 1,
        _ => LOSS,
    })
}
