//! `hongbao audit` over the data folder, with the acknowledged ids that this program wrote.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use super::tell;
use crate::result::{Check, Witness};
use crate::target::{Target, tether};

/// Runs the audit and adds what it found; what it could not look at is a gap.
pub fn run_audit(target: &Target, acks: &Path, check: &mut Check) {
    let (Some(hongbao), Some(data)) = (&target.hongbao, target.data.first()) else { return };
    let mut command = tether::command(hongbao);
    command.arg("audit").arg("--json").arg("--data").arg(data).arg("--acks").arg(acks);
    for set in &target.settings {
        command.args(["--set", set]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = match tether::spawn(command).and_then(std::process::Child::wait_with_output) {
        Ok(output) => output,
        Err(error) => return check.gaps.push(format!("the audit could not be run: {error}")),
    };
    let Ok(report) = serde_json::from_slice::<Value>(&output.stdout) else {
        let words = String::from_utf8_lossy(&output.stderr);
        return check.gaps.push(format!("the audit could not look: {}", words.trim()));
    };
    let number = |name: &str| report[name].as_u64();
    let (Some(lost), Some(double_paid), Some(balanced)) =
        (number("lost"), number("double_paid"), report["books_balanced"].as_bool())
    else {
        return check.gaps.push(format!("the audit did not say what it found: {report}"));
    };
    check.lost = check.lost.max(Some(lost));
    check.double_paid = check.double_paid.max(Some(double_paid));
    check.books_balanced = Some(check.books_balanced.unwrap_or(true) && balanced);
    let breaches = number("breaches_total").unwrap_or(0);
    if breaches > 0 {
        let first = report["breaches"][0].to_string();
        tell(check, || format!("the audit found {breaches} breaches; the first: {first}"));
        check.books_balanced = Some(false);
    }
    check.counted_at = check.counted_at.max(Witness::Audit);
    check.evidence.push(format!(
        "hongbao audit over {} acknowledged lines: lost {lost}, paid twice {double_paid}, books {}",
        report["acks"]["lines"].as_u64().unwrap_or(0),
        if balanced { "balance" } else { "do not balance" }
    ));
}
