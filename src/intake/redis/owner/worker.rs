//! What the owner's thread does, turn by turn.

mod leave;
mod report;
mod sharing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::observe::{Found, LeaseRound, LeaseSight};
use super::{Control, End, Hooks, OwnerOptions, Vitals};
use crate::intake::redis::anomaly::{Anomaly, Standing};
use crate::intake::redis::board::{self, WalletRecord};
use crate::intake::redis::held::Held;
use crate::intake::redis::keys::Keys;
use crate::intake::redis::lease::{self, Acquired};
use crate::intake::redis::membership::{self, BoardSight, Judgement, Membership, Own};
use crate::intake::redis::share::Moves;
use crate::intake::redis::tenure::Tenures;
use crate::intake::redis::units::UnitId;
use crate::redis::{Command, Failure, Link, Value};
use leave::QUIET_POLL;
use report::{Rates, Said};

pub struct Worker {
    options: OwnerOptions,
    keys: Keys,
    held: Arc<Held>,
    hooks: Hooks,
    link: Link,
    /// Where the board is in a Redis of its own.
    board_link: Option<Link>,
    standing: Arc<Standing>,
    tenures: Tenures,
    membership: Membership,
    /// Owner keys that were there, by number of the unit.
    seen: Vec<bool>,
    /// The highest epoch that was seen of each unit, whoever's: what a Redis that went back to an older state has
    /// forgotten, and what is still on its way under it must not meet again.
    epochs: Vec<u64>,
    vitals: Vitals,
    rates: Rates,
    started_at: u64,
    is_stopping: bool,
    /// When the leases were last renewed and looked at.
    last_leases: Instant,
    /// Since when an anomaly of outcome views stands, until it is told as an error.
    view_anomaly_since: Option<Instant>,
    /// What was said last, so that it is said once.
    said: Said,
}

impl Worker {
    pub fn new(
        options: OwnerOptions,
        keys: Keys,
        held: Arc<Held>,
        hooks: Hooks,
        (link, board_link): (Link, Option<Link>),
        standing: Arc<Standing>,
    ) -> Worker {
        let unit_count = keys.units().len();
        let now = Instant::now();
        let since_1970 =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Worker {
            tenures: Tenures::new(held.clone(), unit_count, options.ttl, now),
            seen: vec![false; unit_count],
            epochs: vec![0; unit_count],
            membership: Membership::default(),
            vitals: Vitals::default(),
            rates: Rates::new(now),
            started_at: since_1970.as_millis() as u64,
            is_stopping: false,
            last_leases: now,
            view_anomaly_since: None,
            said: Said::default(),
            options,
            keys,
            held,
            hooks,
            link,
            board_link,
            standing,
        }
    }

    pub fn has_agreed(&mut self) {
        self.membership.saw_shards();
    }

    fn tick(&self) -> Duration {
        self.options.ttl / 6
    }

    fn ttl_ms(&self) -> u64 {
        self.options.ttl.as_millis() as u64
    }

    pub fn run(&mut self, control: &Control) {
        loop {
            let pause = self.turn();
            let next = Instant::now() + pause;
            while control.end().is_none() && Instant::now() < next {
                let is_leaving = self.tenures.is_leaving_any();
                let left = next.saturating_duration_since(Instant::now());
                control.wait(if is_leaving { left.min(QUIET_POLL) } else { left });
                self.expire();
                self.settle_leaving(self.tick() * 2);
            }
            match control.end() {
                None => {}
                Some(End::Abandon) => return,
                Some(End::Release { until }) => return self.finish(until),
            }
        }
    }

    /// One turn; how long to wait for the next.
    fn turn(&mut self) -> Duration {
        let (leases, board) = self.observe();
        if leases.failure.is_some() {
            return self.tick();
        }
        let Some(board) = board else {
            // Nobody's share is known; what was ours by name stays ours.
            self.take_back(&leases);
            self.open_acquired();
            return self.tick();
        };
        let judgement = self.judge(&leases, &board);
        let is_waiting = if judgement.may_own {
            let moves = self.moves(&leases, &board);
            self.act(&moves, &judgement, &board);
            moves.is_waiting || !moves.acquire.is_empty()
        } else {
            self.leave_all();
            self.act(&Moves::default(), &judgement, &board);
            self.membership.is_candidate() || judgement.claims_shards || judgement.claims_wallet
        };
        self.open_acquired();
        self.tell(&board);
        if is_waiting { self.tick() / 4 } else { self.tick() }
    }

    /// Gives up what could not be renewed in time, and says so.
    fn expire(&mut self) {
        let lost = self.tenures.expire(Instant::now());
        if !lost.is_empty() {
            let units = self.names(&lost);
            tracing::warn!(
                units,
                "these units were lost: not renewed in time, or met by the reader under another epoch"
            );
            self.note_lost(lost.len());
        }
    }

    /// One round: renews, heartbeats, reads. Nothing of the board if it could not be read whole.
    fn observe(&mut self) -> (LeaseSight, Option<BoardSight>) {
        let vitals = (self.hooks.vitals)();
        // A wallet that once said who it is does not become nobody.
        let wallet = vitals.wallet.clone().or_else(|| self.vitals.wallet.take());
        self.vitals = Vitals { wallet, ..vitals };
        self.rates.note(Instant::now(), &self.vitals);
        // Before anything is asked: whoever was frozen knows by its own clock what it has lost.
        self.expire();
        // A board that was away changes nothing by itself: who renews its leases has its place.
        if self.last_leases.elapsed() >= self.options.ttl {
            self.membership.start_over();
        }
        let ttl_ms = self.ttl_ms();
        let (round, leases) = LeaseRound::new(&self.tenures, &self.keys, self.held.incarnation(), ttl_ms);
        let board = membership::commands(&self.keys, self.held.incarnation(), &self.entry());
        let sent = Instant::now();
        // A board of its own is asked after the leases were seen to: it may be slow.
        let (now, later) = if self.board_link.is_none() { (board, Vec::new()) } else { (Vec::new(), board) };
        let (answers, board) = self.send(leases, now);
        let leases = round.take(answers, sent, &mut self.tenures, &mut self.seen);
        if leases.failure.is_none() {
            self.last_leases = Instant::now();
        }
        for (epoch, found) in self.epochs.iter_mut().zip(&leases.found) {
            if let Found::Lease(lease) = found {
                *epoch = lease.epoch.max(*epoch);
            }
        }
        self.expire();
        let board = if later.is_empty() { board } else { self.send(Vec::new(), later).1 };
        self.expire();
        for (unit, why) in &leases.stale {
            tracing::warn!(unit = self.keys.unit_name(*unit), why, "a unit was lost to another instance");
        }
        if !leases.stale.is_empty() {
            self.note_lost(leases.stale.len());
        }
        if let Some(unit) = leases.gone {
            self.data_gone(self.keys.owner(unit));
        }
        let board = BoardSight::read(board, ttl_ms);
        let failure = leases.failure.clone().or(board.as_ref().err().cloned());
        self.note_outage(failure.as_ref());
        (leases, board.ok())
    }

    /// Without a board: units that a lease still gives to us, and that were lost here, are acquired anew.
    fn take_back(&mut self, leases: &LeaseSight) {
        if self.membership.member_since == 0 {
            return;
        }
        let own = self.held.incarnation();
        let is_ours = |found: &Found| matches!(found, Found::Lease(lease) if lease.incarnation == own && lease.deadline_ms > 0);
        let units = self.keys.units().ids().filter(|unit| is_ours(&leases.found[usize::from(unit.0)]));
        let units: Vec<UnitId> = units.collect();
        let commands = self.acquisitions(&units);
        let sent = Instant::now();
        let results = self.link.round(&commands);
        self.take_acquired(&units, results, sent);
    }

    fn acquisitions(&self, units: &[UnitId]) -> Vec<Command> {
        let acquire = |unit: &UnitId| {
            let was_seen = self.seen[usize::from(unit.0)];
            let epoch_seen = self.epochs[usize::from(unit.0)];
            lease::acquire(
                &self.keys.owner(*unit),
                self.held.incarnation(),
                self.ttl_ms(),
                was_seen,
                epoch_seen,
            )
        };
        units.iter().map(acquire).collect()
    }

    /// Commands on leases and on the board, in one round where both are in one Redis.
    fn send(&mut self, mut leases: Vec<Command>, board: Vec<Command>) -> (Answers, Answers) {
        if let Some(link) = &mut self.board_link {
            return (self.link.round(&leases), link.round(&board));
        }
        let lease_count = leases.len();
        leases.extend(board);
        let mut answers = self.link.round(&leases);
        let board = answers.split_off(lease_count);
        (answers, board)
    }

    fn data_gone(&mut self, key: String) {
        self.set_anomaly(Some(Anomaly::DataGone { key }));
        // The windows on it are void: nothing is to be waited for.
        let ours: Vec<UnitId> = self.tenures.leased().into_iter().map(|(unit, _)| unit).collect();
        ours.iter().for_each(|unit| self.tenures.lose(*unit));
        if !ours.is_empty() {
            self.note_lost(ours.len());
        }
    }

    fn judge(&mut self, leases: &LeaseSight, board: &BoardSight) -> Judgement {
        let shards = board::shards_text(self.keys.units());
        let own = Own {
            incarnation: self.held.incarnation(),
            wallet: self.vitals.wallet.as_deref(),
            view: self.vitals.view.as_deref(),
            shards: &shards,
            is_unwell: self.vitals.is_unwell,
        };
        let mut judgement = self.membership.judge(board, &own, &self.keys);
        match &judgement.anomaly {
            Some(Anomaly::DataGone { key }) => self.data_gone(key.clone()),
            anomaly => self.set_anomaly(anomaly.clone()),
        }
        // Lost data stays lost, whatever the board says now; and nothing is set up anew in its place.
        if matches!(self.standing.anomaly(), Some(Anomaly::DataGone { .. })) {
            self.membership.member_since = 0;
            judgement = Judgement { anomaly: self.standing.anomaly(), ..Judgement::default() };
        }
        self.remark(leases, board);
        judgement
    }

    /// Leaves, acquires, claims, and removes the entries of the dead.
    fn act(&mut self, moves: &Moves, judgement: &Judgement, sight: &BoardSight) {
        let now = Instant::now();
        if !moves.leave.is_empty() {
            tracing::info!(units = self.names(&moves.leave), "leaves these units to others");
            moves.leave.iter().for_each(|unit| self.tenures.leave(*unit, now));
        }
        let mut board = Vec::new();
        if judgement.claims_shards {
            board.push(board::claim_shards(&self.keys));
        }
        if let Some(wallet) = self.vitals.wallet.as_deref().filter(|_| judgement.claims_wallet) {
            let record =
                WalletRecord::new(wallet, sight.now, &self.options.name, "first instance of the fleet");
            board.push(board::claim_wallet(&self.keys, &record));
        }
        if !sight.peers.dead.is_empty() {
            board.push(board::remove(&self.keys, &sight.peers.dead));
        }
        let leases = self.acquisitions(&moves.acquire);
        let sent = Instant::now();
        // What fails on the board is seen, and tried again, in the next turn.
        let (acquired, _) = self.send(leases, board);
        self.take_acquired(&moves.acquire, acquired, sent);
    }

    fn take_acquired(&mut self, units: &[UnitId], results: Answers, sent: Instant) {
        let mut taken = Vec::new();
        for (unit, result) in units.iter().zip(results) {
            match result.and_then(lease::acquired) {
                Ok(Acquired::Ours(epoch)) => {
                    self.seen[usize::from(unit.0)] = true;
                    self.epochs[usize::from(unit.0)] = epoch;
                    self.tenures.take(*unit, epoch, sent);
                    taken.push(*unit);
                }
                // Somebody was quicker.
                Ok(Acquired::Theirs(_)) => self.seen[usize::from(unit.0)] = true,
                Err(failure) if failure.is_code(lease::GONE) => {
                    self.data_gone(self.keys.owner(*unit));
                    return;
                }
                // Whether it was taken shows in the next turn, by our own name in it.
                Err(failure) => self.note_outage(Some(&failure)),
            }
        }
        if !taken.is_empty() {
            self.standing.add(taken.len(), 0);
            tracing::info!(units = self.names(&taken), "owns these units");
        }
    }

    /// Lets what was acquired be read, once what must be known of it is known.
    fn open_acquired(&mut self) {
        let acquired: Vec<UnitId> = self.tenures.acquired().into_iter().map(|(unit, _)| unit).collect();
        if acquired.is_empty() {
            return;
        }
        match (self.hooks.on_gained)(&acquired) {
            Ok(()) => {
                self.said.gained = None;
                // It may have taken its time.
                self.expire();
                let open = self.tenures.acquired();
                open.iter().for_each(|(unit, _)| self.tenures.open(*unit));
            }
            Err(why) => {
                if self.said.gained.as_ref() != Some(&why) {
                    tracing::warn!(why, units = self.names(&acquired), "these units cannot be read yet");
                }
                self.said.gained = Some(why);
            }
        }
    }
}

type Answers = Vec<Result<Value, Failure>>;
