//! What an unknown key was probably meant to be.
//!
//! The reader's own message lists what it would have taken; the nearest of these is named first.

/// The nearest of the names, if one is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &&str| strsim::jaro_winkler(name, known);
    let best = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.75).then_some(best)
}

/// The reader's message, and where it refuses a key, which one is near.
pub fn explained(message: &str) -> String {
    let message = message.trim_end();
    let line = message.lines().find(|line| line.starts_with("unknown "));
    let Some(line) = line else { return message.to_owned() };
    let mut quoted = line.split('`').skip(1).step_by(2);
    let Some(name) = quoted.next() else { return message.to_owned() };
    match nearest(name, quoted) {
        Some(near) => format!("{message}\ndid you mean `{near}`?"),
        None => message.to_owned(),
    }
}
