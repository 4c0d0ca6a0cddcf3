//! What result streams may take: so many bytes a client, whatever is in an entry.
//!
//! An entry holds one result or a thousand, so that a number of entries bounds nothing. What holds: the oldest go first;
//! bounded work a call; results are a courtesy, and the first to go where memory runs short. Any instance may do it.

use super::keys::Keys;
use crate::redis::{Command, Failure, Link, reply};

/// Entries that one command gives up, at most, and rounds of such commands in a call.
const TRIMMED_MAX: usize = 1_000;
const ROUNDS_MAX: usize = 20;
/// What stays of a stream even where memory runs short, in bytes.
const BYTES_LEAST: u64 = 256 << 10;

/// Cuts each stream to about `bytes_max`, or, where memory is `pressing`, to half of what it has. Answers how many
/// entries went; a failure is told once all others were seen to.
pub fn trim(link: &mut Link, keys: &Keys, bytes_max: u64, pressing: bool) -> Result<u64, Failure> {
    let mut streams: Vec<String> =
        keys.units().foreign.iter().map(|list| keys.results(&list.client)).collect();
    streams.sort_unstable();
    streams.dedup();
    let questions: Vec<Command> = streams
        .iter()
        .flat_map(|stream| {
            let usage = Command::routed("MEMORY", stream).arg("USAGE").arg(stream);
            [Command::new("XLEN", stream), usage]
        })
        .collect();
    let mut answers = link.round(&questions).into_iter();
    let (mut gone, mut failed, mut commands) = (0, None, Vec::new());
    for stream in &streams {
        let mut number = |command: &str| match answers.next() {
            Some(Ok(redis::Value::Nil)) | None => Ok(0),
            Some(answer) => answer.and_then(|value| reply::int(command, value)).map(i64::unsigned_abs),
        };
        match (number("XLEN"), number("MEMORY USAGE")) {
            (Ok(count), Ok(bytes)) => {
                let wanted = if pressing { bytes_max.min((bytes / 2).max(BYTES_LEAST)) } else { bytes_max };
                if bytes > wanted {
                    let kept = (u128::from(count) * u128::from(wanted) / u128::from(bytes)) as u64;
                    let trim = Command::new("XTRIM", stream).arg("MAXLEN").arg("~").arg(kept);
                    commands.push(trim.arg("LIMIT").arg(TRIMMED_MAX));
                }
            }
            (Err(failure), _) | (_, Err(failure)) => failed = failed.or(Some(failure)),
        }
    }
    for _ in 0..ROUNDS_MAX {
        let mut left = Vec::new();
        for (command, result) in commands.iter().zip(link.round(&commands)) {
            match result.and_then(|value| reply::int("XTRIM", value)).map(i64::unsigned_abs) {
                Ok(count) => {
                    gone += count;
                    left.extend((count >= TRIMMED_MAX as u64 / 2).then(|| command.clone()));
                }
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        commands = left;
        if commands.is_empty() {
            break;
        }
    }
    failed.map_or(Ok(gone), Err)
}
