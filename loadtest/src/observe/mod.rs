//! What can be seen of the processes while they run: what hongbao says of itself, what the reference wallet
//! received, and what CPU and memory each process takes.
//!
//! What holds: looking is cheap (a few small calls a second), and a process that does not answer holds up nobody but
//! its own observer. Counters that begin anew after a restart are added up, not taken as a fall. Absent: judging.

mod instance;
mod process;
mod wallet;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use instance::metric;
pub use process::{own_cpu_s, resident_mib};

use crate::target::Target;

/// Time between two looks at an instance or a process.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);
const WALLET_EVERY: Duration = Duration::from_secs(1);

/// One instance at one time; counters over all its lives since the first look.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct InstanceLook {
    pub at_s: f64,
    pub is_up: bool,
    pub accepted: u64,
    /// Outcomes that are final.
    pub settled: u64,
    pub backlog: u64,
    pub parked: u64,
    /// Of its wallet, in a word: open, held back …, stopped ….
    pub wallet_state: String,
}

/// A tenth of a second at the reference wallet.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct WalletBin {
    pub at_s: f64,
    pub calls: u64,
    /// Transfers received, repeats included.
    pub transfers: u64,
    /// Transfers carried out for the first time.
    pub executed: u64,
    pub repeated: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ProcessLook {
    pub at_s: f64,
    /// Cores in use since the last look.
    pub cores: f64,
    pub rss_bytes: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    pub name: String,
    pub looks: Vec<ProcessLook>,
}

#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub instances: Vec<Vec<InstanceLook>>,
    pub wallet: Vec<WalletBin>,
    pub processes: Vec<Process>,
}

impl Observed {
    /// Sums over the instances' last looks: settled, open.
    pub fn latest(&self) -> (u64, u64) {
        let last = self.instances.iter().filter_map(|looks| looks.last());
        last.fold((0, 0), |(settled, open), look| (settled + look.settled, open + look.backlog + look.parked))
    }

    pub fn wallet_state(&self) -> String {
        let states = self.instances.iter().filter_map(|looks| looks.last());
        let worst =
            states.map(|look| if look.is_up { look.wallet_state.as_str() } else { "does not answer" });
        worst.max_by_key(|state| *state != "open").unwrap_or("").to_owned()
    }

    /// The most transfers that the wallet was sent in any second.
    pub fn wallet_peak_per_s(&self) -> u64 {
        let mut first = 0;
        let (mut sum, mut peak) = (0, 0);
        for (index, bin) in self.wallet.iter().enumerate() {
            sum += bin.transfers;
            // Bins are a tenth of a second; a hair less than a second keeps rounding out of it.
            while self.wallet[first].at_s + 0.95 < bin.at_s {
                sum -= self.wallet[first].transfers;
                first += 1;
            }
            debug_assert!(first <= index);
            peak = peak.max(sum);
        }
        peak
    }
}

/// The observers at work.
#[derive(Debug)]
pub struct Watch {
    observed: Arc<Mutex<Observed>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What each observer works with.
#[derive(Clone)]
struct Post {
    observed: Arc<Mutex<Observed>>,
    stop: Arc<AtomicBool>,
    epoch: Instant,
}

impl Post {
    fn lock(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks again and again until told to stop, and then once more.
    fn every(&self, pause: Duration, mut look: impl FnMut(&Post)) {
        loop {
            let stops = self.stop.load(Ordering::Relaxed);
            let next = Instant::now() + pause;
            look(self);
            if stops {
                return;
            }
            while Instant::now() < next && !self.stop.load(Ordering::Relaxed) {
                std::thread::sleep(
                    next.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)),
                );
            }
        }
    }
}

impl Watch {
    pub fn start(target: &Arc<Target>, epoch: Instant) -> Watch {
        let observed = Arc::new(Mutex::new(Observed {
            instances: vec![Vec::new(); target.instances.len()],
            ..Observed::default()
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let post = Post { observed: observed.clone(), stop: stop.clone(), epoch };
        let mut threads = Vec::new();
        for (number, address) in target.instances.iter().enumerate() {
            let (post, target, address) = (post.clone(), target.clone(), *address);
            threads.push(std::thread::spawn(move || instance::observe(&post, &target, number, address)));
        }
        if let Some(address) = target.wallet {
            let post = post.clone();
            threads.push(std::thread::spawn(move || wallet::observe(&post, address)));
        }
        let target = target.clone();
        threads.push(std::thread::spawn(move || process::observe(&post, &target)));
        Watch { observed, stop, threads }
    }

    pub fn latest<T>(&self, read: impl FnOnce(&Observed) -> T) -> T {
        read(&self.observed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the observers, each after one more look.
    pub fn finish(self) -> Observed {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // An observer that panicked has told its panic; what it saw until then stays.
            let _ = thread.join();
        }
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *observed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_over_any_second() {
        let bin = |at_s: f64, transfers| WalletBin { at_s, transfers, ..WalletBin::default() };
        let observed = |wallet| Observed { wallet, ..Observed::default() };
        let flat: Vec<WalletBin> = (0..50).map(|n| bin(f64::from(n) / 10.0, 10)).collect();
        assert_eq!(observed(flat).wallet_peak_per_s(), 100);
        assert_eq!(
            observed(vec![bin(0.0, 50), bin(0.9, 60), bin(1.0, 70), bin(5.0, 90)]).wallet_peak_per_s(),
            130
        );
        assert_eq!(observed(Vec::new()).wallet_peak_per_s(), 0);
    }
}
