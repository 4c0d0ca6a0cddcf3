//! `run`: a scenario from start to verdict.

use std::path::PathBuf;

use clap::Args;
use hongbao_loadtest::environment::{rfc3339, unix_ms};
use hongbao_loadtest::report;
use hongbao_loadtest::run::{self, Options};
use hongbao_loadtest::scenario::{Door, SHIPPED, Scenario};
use hongbao_loadtest::target::Access;

#[derive(Args)]
pub struct RunArgs {
    /// One of the shipped scenarios (`list` names them), or a TOML file.
    scenario: String,
    /// Load what listens there instead of starting everything; may be given once for each instance.
    #[arg(long, value_name = "URL")]
    target: Vec<String>,
    /// The reference wallet behind --target, so that payments are counted there.
    #[arg(long, value_name = "URL", requires = "target")]
    wallet: Option<String>,
    /// The Redis server whose list `hongbao:intake` --target drains, where the scenario pushes to lists.
    #[arg(long, value_name = "URL", requires = "target")]
    redis: Option<String>,
    /// What to send as Authorization header to --target.
    #[arg(long, value_name = "VALUE", env = "HONGBAO_LOADTEST_AUTHORIZATION", hide_env_values = true)]
    authorization: Option<String>,
    /// The name under which --target knows the caller of that authorization.
    #[arg(long, value_name = "NAME", default_value = "default")]
    client: String,
    /// Folder for the report and everything behind it [default: loadtest-out/SCENARIO-TIME].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// All rates, the wallet's as well, times this.
    #[arg(long, value_name = "FACTOR", env = "HONGBAO_LOADTEST_SCALE", default_value_t = 1.0)]
    scale: f64,
    /// This process makes part K of N of the load; run N of them at once and `merge` what they leave.
    #[arg(long, value_name = "K/N", default_value = "1/1", value_parser = part)]
    part: (u32, u32),
    /// Leave the servers' data in the folder.
    #[arg(long)]
    keep: bool,
    /// No picture; the last line is JSON.
    #[arg(long)]
    json: bool,
}

fn part(text: &str) -> Result<(u32, u32), String> {
    let numbers =
        text.split_once('/').and_then(|(k, n)| Some((k.parse::<u32>().ok()?, n.parse::<u32>().ok()?)));
    match numbers {
        Some((k, n)) if (1..=n).contains(&k) && n <= 64 => Ok((k - 1, n)),
        _ => Err("write it as K/N, with K from 1 to N and N up to 64".to_owned()),
    }
}

pub fn list() -> anyhow::Result<u8> {
    for (name, _) in SHIPPED {
        let scenario = Scenario::load(name)?;
        let needs = scenario.needs().map_or_else(String::new, |what| format!(" (needs {what})"));
        println!("{name:<15} {}{needs}", scenario.about);
    }
    Ok(0)
}

pub fn run(args: &RunArgs) -> anyhow::Result<u8> {
    anyhow::ensure!(args.scale > 0.0 && args.scale <= 1_000.0, "--scale is above 0 and up to 1000");
    let scenario = Scenario::load(&args.scenario)?.scaled(args.scale);
    let is_whole = args.part.1 == 1;
    anyhow::ensure!(is_whole || !args.target.is_empty(), "--part is for several generators at one --target");
    anyhow::ensure!(is_whole || scenario.search.is_none(), "a search cannot be made in parts");
    let needs_redis = scenario.load.door == Door::List && !args.target.is_empty();
    anyhow::ensure!(
        !needs_redis || args.redis.is_some(),
        "the scenario pushes to a list: say with --redis redis://HOST:PORT where --target takes it from"
    );
    let out = args.out.clone().unwrap_or_else(|| {
        let time = rfc3339(unix_ms()).replace([':', '-'], "");
        PathBuf::from("loadtest-out").join(format!("{}-{time}", scenario.name))
    });
    let options = Options {
        scenario,
        targets: args.target.clone(),
        wallet: args.wallet.clone(),
        redis: args.redis.clone(),
        access: Access { authorization: args.authorization.clone(), client: args.client.clone() },
        out,
        part: args.part,
        keep: args.keep,
        quiet: args.json,
    };
    let result = run::run(&options)?;
    if args.json {
        println!("{}", serde_json::to_string(&result.summary)?);
    } else {
        print!("{}", report::words(&result));
        println!("\n  report     {}", options.out.join("report.html").display());
    }
    Ok(result.verdict.outcome.exit_code())
}
