//! Clients that take elements out of Redis and do nothing with them.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::flow::Flow;
use super::wire::{Wire, command, open, word};

/// Elements of a read.
pub const READ: &str = "4000";

/// Reads from the head, and gives back what was read together with the next wish: one round trip for both.
pub fn list(redis: SocketAddr, key: &str, flow: &Flow) -> std::io::Result<()> {
    let mut wire = Wire::connect(redis)?;
    let last = (READ.parse::<u64>().unwrap_or(1) - 1).to_string();
    let (mut bytes, mut has_trimmed) = (Vec::new(), false);
    while !flow.is_stopped() {
        command(&mut bytes, &["LRANGE", key, "0", &last]);
        wire.send(&bytes)?;
        if std::mem::take(&mut has_trimmed) {
            wire.skip()?;
        }
        let count = wire.array()?;
        for _ in 0..count {
            wire.skip()?;
        }
        flow.drained.fetch_add(count, Ordering::Relaxed);
        bytes.clear();
        if count == 0 {
            flow.pause();
            continue;
        }
        command(&mut bytes, &["LTRIM", key, &count.to_string(), "-1"]);
        has_trimmed = true;
    }
    Ok(())
}

/// A consumer group of one: read, acknowledge, trim.
pub fn group(redis: SocketAddr, key: &str, flow: &Flow) -> std::io::Result<()> {
    let mut wire = Wire::connect(redis)?;
    let (mut bytes, mut ids, mut replies) = (Vec::new(), Vec::new(), 0);
    command(&mut bytes, &["XGROUP", "CREATE", key, "group", "0", "MKSTREAM"]);
    wire.send(&bytes)?;
    wire.skip()?;
    bytes.clear();
    while !flow.is_stopped() {
        command(&mut bytes, &["XREADGROUP", "GROUP", "group", "one", "COUNT", READ, "STREAMS", key, ">"]);
        wire.send(&bytes)?;
        for _ in 0..std::mem::take(&mut replies) {
            wire.skip()?;
        }
        entries(&mut wire, &mut ids)?;
        flow.drained.fetch_add(ids.len() as u64, Ordering::Relaxed);
        bytes.clear();
        let Some(last) = ids.last() else {
            flow.pause();
            continue;
        };
        let last = String::from_utf8_lossy(last).into_owned();
        open(&mut bytes, 3 + ids.len());
        ["XACK", key, "group"].iter().for_each(|text| word(&mut bytes, text.as_bytes()));
        ids.iter().for_each(|id: &Vec<u8>| word(&mut bytes, id));
        command(&mut bytes, &["XTRIM", key, "MINID", "~", &last]);
        replies = 2;
    }
    Ok(())
}

/// Reads the entries of one stream, each an id and one field; keeps the ids.
fn entries(wire: &mut Wire, ids: &mut Vec<Vec<u8>>) -> std::io::Result<()> {
    ids.clear();
    // Nothing, or one stream: its name and its entries.
    if wire.array()? == 0 {
        return Ok(());
    }
    wire.array()?;
    wire.string()?;
    for _ in 0..wire.array()? {
        wire.array()?;
        ids.push(wire.string()?.to_vec());
        wire.skip()?;
    }
    Ok(())
}

/// Elements in all the lists, by their own lengths.
pub fn length(wire: &mut Wire, keys: &[&str]) -> std::io::Result<u64> {
    let mut bytes = Vec::new();
    keys.iter().for_each(|key| command(&mut bytes, &["LLEN", key]));
    wire.send(&bytes)?;
    keys.iter().try_fold(0, |sum, _| Ok(sum + u64::try_from(wire.number()?).unwrap_or(0)))
}
