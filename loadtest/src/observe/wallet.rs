//! What the reference wallet received, by its own tenths of a second.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::{Post, WALLET_EVERY, WalletBin};
use crate::http::Caller;

const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Received {
    now_ms: u64,
    bucket_ms: u64,
    buckets: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    at_ms: u64,
    calls: u64,
    transfers: u64,
    executed: u64,
    repeated: u64,
}

pub(super) fn observe(post: &Post, address: SocketAddr) {
    let mut caller = Caller::new(address, None, PATIENCE);
    // Up to when its own clock has been read; the clock begins anew when it is started again.
    let (mut read_ms, mut now_ms) = (0, 0);
    post.every(WALLET_EVERY, |post| {
        let Ok(received) = caller.read::<Received>("GET", "/received", "") else { return };
        if received.now_ms < now_ms {
            read_ms = 0;
        }
        now_ms = received.now_ms;
        let zero_s = post.epoch.elapsed().as_secs_f64() - received.now_ms as f64 / 1e3;
        let is_over = |bucket: &&Bucket| bucket.at_ms + received.bucket_ms <= received.now_ms;
        let new = received.buckets.iter().filter(|bucket| bucket.at_ms >= read_ms).filter(is_over);
        let bins = new.map(|bucket| WalletBin {
            at_s: zero_s + bucket.at_ms as f64 / 1e3,
            calls: bucket.calls,
            transfers: bucket.transfers,
            executed: bucket.executed,
            repeated: bucket.repeated,
        });
        // What a wallet that runs already received before is another run's.
        let bins: Vec<WalletBin> = bins.filter(|bin| bin.at_s >= 0.0).collect();
        if let Some(last) = received.buckets.iter().rfind(is_over) {
            read_ms = last.at_ms + received.bucket_ms;
        }
        post.lock().wallet.extend(bins);
    });
}
