//! Rebuilding the outcome view by hand, where the outcome log is streams that are trimmed.
//!
//! What holds: the view that is there is the snapshot and the streams are the tail, so that nothing it knows is lost.
//! Absent: the view that a fleet shares, which keeps how far it was read beside its rows; a backup of it that was
//! restored is read on from where it stood, by itself.

use std::sync::Arc;

use anyhow::Context;

use crate::app::Rebuilt;
use crate::app::folder::DataFolder;
use crate::config::redis::{RedisConfig, ViewStore};
use crate::intake::redis::{Keys, UnitId};
use crate::outcome::redis::RedisStreams;
use crate::outcome::view;

pub fn rebuild_view(
    redis: &RedisConfig,
    folder: &DataFolder,
    progress: &mut dyn FnMut(u64),
) -> anyhow::Result<Rebuilt> {
    if matches!(redis.view, ViewStore::Postgres { .. }) {
        anyhow::bail!(
            "the outcome view that a fleet shares is not rebuilt: the streams in Redis hold only the last outcomes \
             (outcomes_retention_s). Restore its database from a backup and start the instances; they read on from \
             where the backup stood"
        );
    }
    let path = folder.view_path();
    if !path.exists() {
        anyhow::bail!(
            "{} is not there, and the streams in Redis hold only the last outcomes (outcomes_retention_s): put a copy \
             of the view there first (its -wal file beside it, if there is one), or just start the service, whose view \
             then begins with what the streams hold",
            path.display()
        );
    }
    let keys = Arc::new(Keys::new(&redis.namespace, redis.units.clone()));
    let units: Vec<UnitId> = keys.units().ids().collect();
    // It notes nothing, so that nobody waits for it.
    let streams = RedisStreams::new(&redis.target, keys, "rebuild", Box::new(move || units.clone()))?;
    let done = view::rebuild_over(&path, Arc::new(streams), &mut |made| progress(made.facts));
    let done = done.context("the view was not rebuilt, and is as it was")?;
    Ok(Rebuilt { facts: done.facts, is_over: true })
}
