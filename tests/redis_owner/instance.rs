//! An instance of a fleet, as far as owning goes: the owner's thread, and a reader that is quiet when asked.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hongbao::intake::redis::anomaly::Standing;
use hongbao::intake::redis::owner::{Hooks, Owner, OwnerError, OwnerOptions, Vitals};
use hongbao::intake::redis::{Held, Keys, UnitId, Units};
use hongbao::ring::Poison;

use crate::server::Server;

pub const UNIT_COUNT: u16 = 7;
pub const WALLET: &str = "the-wallet";
/// Long enough for a machine that builds beside the test.
pub const TTL: Duration = Duration::from_millis(1_500);

pub fn units() -> Units {
    Units { shard_count: UNIT_COUNT, fair_queue_count: 2, foreign: Vec::new() }
}

pub fn keys() -> Keys {
    Keys::new("t", units())
}

/// How an instance differs from others.
#[derive(Clone)]
pub struct Setup {
    pub ttl: Duration,
    pub wallet: Option<&'static str>,
    pub view: Option<&'static str>,
    pub keys: Keys,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { ttl: TTL, wallet: Some(WALLET), view: Some("the-view"), keys: keys() }
    }
}

pub struct Instance {
    pub held: Arc<Held>,
    pub owner: Option<Owner>,
    pub standing: Arc<Standing>,
    /// Locked: the owner's thread stands still at its next turn.
    frozen: Arc<Mutex<()>>,
    /// Units announced, and whether what must be known of them can be had.
    pub gained: Arc<AtomicUsize>,
    pub is_ready: Arc<AtomicBool>,
    /// Whether the reader finishes what it is at.
    pub is_quiet: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    reader: Option<std::thread::JoinHandle<()>>,
    pub poison: Poison,
}

impl Instance {
    pub fn start(server: &Server, name: &str) -> Instance {
        Instance::of(server, name, Setup::default()).unwrap()
    }

    pub fn of(server: &Server, name: &str, setup: Setup) -> Result<Instance, OwnerError> {
        let unit_count = setup.keys.units().len();
        let held = Arc::new(Held::new(format!("{name}-{}", uuid::Uuid::new_v4()), unit_count));
        let (frozen, gained) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
        let flag = |set| Arc::new(AtomicBool::new(set));
        let (is_ready, is_quiet, is_over) = (flag(true), flag(true), flag(false));
        let poison = Poison::default();
        let (its_frozen, its_gained, its_ready) = (frozen.clone(), gained.clone(), is_ready.clone());
        let (wallet, view) = (setup.wallet.map(str::to_owned), setup.view.map(str::to_owned));
        let hooks = Hooks {
            vitals: Box::new(move || {
                drop(its_frozen.lock().unwrap_or_else(PoisonError::into_inner));
                Vitals { depth: 5, wallet: wallet.clone(), view: view.clone(), ..Vitals::default() }
            }),
            on_gained: Box::new(move |units| {
                its_gained.fetch_add(units.len(), Ordering::SeqCst);
                if its_ready.load(Ordering::SeqCst) { Ok(()) } else { Err("not ready".to_owned()) }
            }),
            on_change: Box::new(|| ()),
            poison: poison.clone(),
            on_poison: Arc::new(|| ()),
        };
        let options = OwnerOptions {
            name: name.to_owned(),
            version: "0".to_owned(),
            http: None,
            ttl: setup.ttl,
            target: server.target(),
            board: None,
        };
        let owner = Owner::start(options, setup.keys.clone(), held.clone(), hooks)?;
        let standing = owner.standing();
        let reader = read(held.clone(), unit_count as u16, is_quiet.clone(), is_over.clone());
        let (owner, reader) = (Some(owner), Some(reader));
        Ok(Instance { held, owner, standing, frozen, gained, is_ready, is_quiet, is_over, reader, poison })
    }

    pub fn incarnation(&self) -> &str {
        self.held.incarnation()
    }

    pub fn units(&self) -> Vec<UnitId> {
        units().ids().filter(|unit| self.held.epoch(*unit).is_some()).collect()
    }

    pub fn freeze(&self) -> MutexGuard<'_, ()> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stop(&mut self, wait_max: Duration) {
        self.owner.take().expect("it runs").stop(wait_max);
    }

    /// Ends without releasing anything.
    pub fn crash(&mut self) {
        drop(self.owner.take());
    }

    pub fn anomaly(&self) -> Option<&'static str> {
        self.standing.anomaly().map(|anomaly| anomaly.code())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.crash();
        self.is_over.store(true, Ordering::SeqCst);
        self.reader.take().map(std::thread::JoinHandle::join);
        assert!(std::thread::panicking() || !self.poison.is_set(), "{:?}", self.poison.reason());
    }
}

fn read(
    held: Arc<Held>,
    unit_count: u16,
    is_quiet: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while !is_over.load(Ordering::SeqCst) {
            let leaving = (0..unit_count).map(UnitId).filter(|unit| held.is_leaving(*unit));
            if is_quiet.load(Ordering::SeqCst) {
                leaving.for_each(|unit| held.set_quiet(unit));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}
