//! `report`, `compare` and `merge`: what can be made of results.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use hongbao_loadtest::compare;
use hongbao_loadtest::merge;
use hongbao_loadtest::report;
use hongbao_loadtest::result::RunResult;

#[derive(Args)]
pub struct ReportArgs {
    /// Folder of a run.
    run: PathBuf,
}

#[derive(Args)]
pub struct CompareArgs {
    /// Folder of the run before.
    a: PathBuf,
    /// Folder of the run after.
    b: PathBuf,
    /// Where to write the page.
    #[arg(long, value_name = "FILE", default_value = "compare.html")]
    out: PathBuf,
    /// The last line is JSON, and the exit code 1 if anything is worse.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct MergeArgs {
    /// Folders of the parts.
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// Folder for the merged result and its report.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace what another run left in that folder.
    #[arg(long)]
    force: bool,
}

pub fn report(args: &ReportArgs) -> anyhow::Result<u8> {
    let result = RunResult::load(&args.run)?;
    let path = args.run.join("report.html");
    std::fs::write(&path, report::of_run(&result)).with_context(|| format!("writing {}", path.display()))?;
    println!("{}", path.display());
    Ok(0)
}

pub fn compare(args: &CompareArgs) -> anyhow::Result<u8> {
    let (a, b) = (RunResult::load(&args.a)?, RunResult::load(&args.b)?);
    std::fs::write(&args.out, report::of_two(&a, &b))
        .with_context(|| format!("writing {}", args.out.display()))?;
    let changes = compare::compare(&a, &b);
    if !args.json {
        print!("{}", compare::words(&a, &b));
        println!("\n  page       {}", args.out.display());
        return Ok(0);
    }
    let rows: Vec<serde_json::Value> = changes
        .iter()
        .map(|change| {
            serde_json::json!({
                "what": change.what, "a": change.a, "b": change.b, "change": change.change, "noise": change.noise,
                "says": change.says.words(),
            })
        })
        .collect();
    let headline = compare::headline(&changes);
    println!(
        "{}",
        serde_json::json!({ "headline": headline, "changes": rows, "differences": compare::differences(&a, &b) })
    );
    Ok(u8::from(changes.iter().any(|change| change.says == compare::Says::Worse)))
}

pub fn merge(args: &MergeArgs) -> anyhow::Result<u8> {
    let whole = merge::merge(&args.parts)?;
    merge::make_room(&args.out, &whole, &args.parts, args.force)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    whole.save(&args.out)?;
    std::fs::write(args.out.join("report.html"), report::of_run(&whole)).context("writing the report")?;
    print!("{}", report::words(&whole));
    println!("\n  report     {}", args.out.join("report.html").display());
    Ok(whole.verdict.outcome.exit_code())
}
