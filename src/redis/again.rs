//! Which refused commands may be sent again in the same round, and where.
//!
//! A redirection and a missing script mean that the command was not executed. It is still not sent again once a
//! later command was that has a key with it in common: the round's order would no longer hold. Then its refusal is
//! the answer. A command's keys are all of a script's, and of another command the one that it is routed by.

use std::collections::HashSet;

use redis::Value;

use super::command::Command;
use super::error::Failure;
use super::url::Address;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The server did not know the script; the connection will load it.
    Script,
    /// The slot belongs to another node.
    Moved { slot: u16, to: Address },
    /// The slot is on its way to another node, and this key may be there already.
    Ask(Address),
}

/// What to do about a result of `from`; nothing: it stands.
pub(super) fn again(result: &Result<Value, Failure>, from: &Address) -> Option<Again> {
    let Err(Failure::Refused { code, detail, .. }) = result else { return None };
    match code.as_str() {
        "NOSCRIPT" => Some(Again::Script),
        "MOVED" => redirection(detail, from).map(|(slot, to)| Again::Moved { slot, to }),
        "ASK" => redirection(detail, from).map(|(_, to)| Again::Ask(to)),
        _ => None,
    }
}

/// `3999 127.0.0.1:6381`; without a host it is that of the node that says so.
fn redirection(detail: &str, from: &Address) -> Option<(u16, Address)> {
    let (slot, place) = detail.split_once(' ')?;
    let (host, port) = place.trim_end().rsplit_once(':')?;
    let host = match (host, from) {
        ("" | "?", Address::Tcp { host, .. }) => host,
        (host, _) => host,
    };
    Some((slot.parse().ok()?, Address::Tcp { host: host.to_owned(), port: port.parse().ok()? }))
}

/// Of the commands that could be sent again (their places, rising) those that leave the order as it is.
pub(super) fn in_order(
    places: Vec<usize>,
    commands: &[Command],
    results: &[Result<Value, Failure>],
) -> Vec<usize> {
    let Some(first) = places.first().copied() else { return places };
    let mut may = vec![false; commands.len()];
    places.iter().for_each(|at| may[*at] = true);
    let mut done = HashSet::new();
    for at in (first..commands.len()).rev() {
        if may[at] {
            may[at] = !commands[at].keys().any(|key| done.contains(key));
        } else if !matches!(results[at], Err(Failure::Refused { .. } | Failure::NotSent(_))) {
            done.extend(commands[at].keys());
        }
    }
    places.into_iter().filter(|at| may[*at]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::Script;

    fn refused(code: &str, detail: &str) -> Result<Value, Failure> {
        Err(Failure::Refused { command: "GET".to_owned(), code: code.to_owned(), detail: detail.to_owned() })
    }

    #[test]
    fn redirections_are_read() {
        let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
        let table = [
            (
                refused("MOVED", "3999 10.0.0.1:6381"),
                Some(Again::Moved { slot: 3999, to: tcp("10.0.0.1", 6381) }),
            ),
            (refused("MOVED", "1 ::1:6381"), Some(Again::Moved { slot: 1, to: tcp("::1", 6381) })),
            (refused("MOVED", "1 :6381"), Some(Again::Moved { slot: 1, to: tcp("from", 6381) })),
            (refused("ASK", "1 h:1"), Some(Again::Ask(tcp("h", 1)))),
            (refused("NOSCRIPT", "No matching script."), Some(Again::Script)),
            (refused("MOVED", "x h:1"), None),
            (refused("TRYAGAIN", "Multiple keys request"), None),
            (refused("OOM", ""), None),
            (Ok(Value::Nil), None),
            (Err(Failure::Unknown(String::new())), None),
        ];
        for (result, expect) in table {
            assert_eq!(again(&result, &tcp("from", 1)), expect, "{result:?}");
        }
    }

    #[test]
    fn all_keys_of_a_script_count() {
        static SCRIPT: Script = Script::new("script", "return 1");
        let script = || Command::script(&SCRIPT, &[b"{x}:a", b"{x}:b"]).arg("{x}:c");
        let moved = || refused("MOVED", "1 h:1");
        for (key, expect) in [("{x}:a", 0), ("{x}:b", 0), ("{x}:c", 1)] {
            let commands = [script(), Command::new("GET", key)];
            assert_eq!(in_order(vec![0], &commands, &[moved(), Ok(Value::Nil)]).len(), expect, "{key}");
            let commands = [Command::new("GET", key), script()];
            assert_eq!(in_order(vec![0], &commands, &[moved(), Ok(Value::Nil)]).len(), expect, "{key}");
        }
    }

    #[test]
    fn nothing_is_sent_again_behind_what_was_done_to_its_key() {
        // (key, fate): M moved, O executed, U unknown, R refused, N not sent.
        type Sent = (&'static str, char);
        let table: [(&[Sent], &[usize]); 8] = [
            (&[("a", 'M')], &[0]),
            (&[("a", 'M'), ("b", 'O')], &[0]),
            (&[("a", 'M'), ("a", 'O')], &[]),
            (&[("a", 'M'), ("a", 'U')], &[]),
            (&[("a", 'M'), ("a", 'R'), ("a", 'N')], &[0]),
            (&[("a", 'O'), ("a", 'M'), ("a", 'M')], &[1, 2]),
            (&[("a", 'M'), ("x{a}", 'O'), ("a", 'M')], &[0, 2]),
            (&[("", 'M'), ("", 'O')], &[0]),
        ];
        for (round, expect) in table {
            let commands: Vec<Command> = round.iter().map(|(key, _)| Command::routed("X", key)).collect();
            let results = round.iter().map(|(_, fate)| match fate {
                'O' => Ok(Value::Okay),
                'U' => Err(Failure::Unknown(String::new())),
                'N' => Err(Failure::NotSent(String::new())),
                'R' => refused("OOM", ""),
                _ => refused("MOVED", ""),
            });
            let moved = (0..round.len()).filter(|at| round[*at].1 == 'M').collect();
            assert_eq!(in_order(moved, &commands, &results.collect::<Vec<_>>()), expect, "{round:?}");
        }
    }
}
