//! The report.
use crate::result::RunResult;
pub fn of_run(_result: &RunResult) -> String {
    String::new()
}
/// The verdict for a terminal.
pub fn words(result: &RunResult) -> String {
    let mut text = format!("\n  {}\n\n", result.verdict.headline);
    for sentence in &result.verdict.words {
        text.push_str(&format!("  {sentence}\n"));
    }
    for complaint in &result.verdict.complaints {
        text.push_str(&format!("  ! {complaint}\n"));
    }
    text
}
