//! One server that a link speaks to: its connection, made when it is needed and given up when it fails.
//!
//! The three steps of a round are apart (`ready`, `write`, `read`), so that many nodes can be written to before the
//! first is waited for. A node that could not be reached is left alone for a while: what is meant for it meanwhile
//! is answered at once, as not sent.

use std::time::Instant;

use redis::Value;

use super::again;
use super::backoff::{Backoff, roll};
use super::command::Command;
use super::error::Failure;
use super::sentinel::Sentinels;
use super::socket::left;
use super::url::Address;
use super::wire::{Access, Flight, Item, Login, Wire};

/// How the server is found.
pub(super) enum Way {
    Known(Address),
    Asked(Sentinels),
}

pub(super) struct Node {
    way: Way,
    /// Who it is, or how it is looked for.
    name: String,
    wire: Option<Wire>,
    /// The number of that connection among all of the link.
    connection: u64,
    backoff: Backoff,
    failed: String,
}

impl Node {
    pub fn new(way: Way) -> Node {
        let name = match &way {
            Way::Known(address) => address.to_string(),
            Way::Asked(sentinels) => sentinels.name(),
        };
        Node { way, name, wire: None, connection: 0, backoff: Backoff::default(), failed: String::new() }
    }

    pub fn at(address: Address) -> Node {
        Node::new(Way::Known(address))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_connected(&self) -> bool {
        self.wire.is_some()
    }

    /// Which connection it is spoken to over, if there is one; each has another number.
    pub fn connection(&self) -> Option<u64> {
        self.wire.as_ref().map(|_| self.connection)
    }

    pub fn down_since(&self) -> Option<Instant> {
        self.backoff.since()
    }

    /// Connects unless it is connected and the connection is fit for use.
    pub fn ready(&mut self, access: &Access, deadline: Instant) -> Result<(), Failure> {
        if let Some(wire) = &mut self.wire {
            if wire.is_fit() {
                return Ok(());
            }
            self.wire = None;
        }
        if let Some(wait) = self.backoff.wait(Instant::now()) {
            let (failed, millis) = (&self.failed, wait.as_millis());
            return Err(Failure::NotSent(format!("{failed}; it is tried again in {millis} ms")));
        }
        if left(deadline).is_err() {
            // Others took it all; this one has not been tried, and may be well.
            return Err(Failure::NotSent(format!("{}: no time was left to connect to it", self.name)));
        }
        let connected = match &mut self.way {
            Way::Known(address) => {
                let login =
                    Login { credentials: access.credentials.as_ref(), db: access.db, master_only: false };
                Wire::connect(address, access, &login, deadline).map_err(|no_wire| no_wire.reason)
            }
            Way::Asked(sentinels) => sentinels.connect(access, deadline).map(|(address, wire)| {
                self.name = address.to_string();
                wire
            }),
        };
        match connected {
            Ok(wire) => {
                self.wire = Some(wire);
                self.connection = access.connects.get() + 1;
                access.connects.set(self.connection);
                self.backoff.succeeded();
                Ok(())
            }
            Err(reason) => {
                self.backoff.failed(Instant::now(), roll());
                self.failed.clone_from(&reason);
                Err(Failure::NotSent(reason))
            }
        }
    }

    /// Only after [`Node::ready`].
    pub fn write(&mut self, items: &[Item<'_>], deadline: Instant) -> Flight {
        self.wire.as_mut().expect("a node is made ready before it is written to").write(items, deadline)
    }

    /// Only after [`Node::write`]; one result an item.
    pub fn read(
        &mut self,
        items: &[Item<'_>],
        flight: &Flight,
        deadline: Instant,
    ) -> Vec<Result<Value, Failure>> {
        let wire = self.wire.as_mut().expect("a node is written to before it is read from");
        let (mut results, broken) = wire.read(items, flight, deadline);
        let name = &self.name;
        for failure in results.iter_mut().filter_map(|result| result.as_mut().err()) {
            match failure {
                Failure::Unknown(reason) | Failure::NotSent(reason) => *reason = format!("{name}: {reason}"),
                Failure::Refused { .. } | Failure::Strange { .. } => {}
            }
        }
        // A master that became a replica is not the one to speak to, wherever its successor is found.
        let demoted = results.iter().any(|result| is_code(result, "READONLY"));
        if broken.is_some() {
            self.backoff.broke(Instant::now());
        }
        if broken.is_some() || demoted {
            self.wire = None;
        } else {
            let missing = results.iter().zip(items).filter(|(result, _)| is_code(result, "NOSCRIPT"));
            for script in missing.filter_map(|(_, item)| item.command.script_of()) {
                wire.forget(script);
            }
        }
        results
    }

    /// A round with this node alone. Scripts that it has forgotten are loaded again, and the commands that had
    /// failed for it sent again, unless that would change the order of what is done to a key.
    pub fn round(&mut self, access: &Access, commands: &[Command]) -> Vec<Result<Value, Failure>> {
        let items: Vec<Item<'_>> = commands.iter().map(|command| Item { command, asking: false }).collect();
        let mut results = self.exchange(access, &items);
        let missing = (0..results.len())
            .filter(|at| is_code(&results[*at], "NOSCRIPT") && items[*at].command.script_of().is_some());
        let missing = again::in_order(missing.collect(), commands, &results);
        if !missing.is_empty() {
            let items: Vec<Item<'_>> = missing.iter().map(|at| items[*at]).collect();
            for (at, result) in missing.into_iter().zip(self.exchange(access, &items)) {
                results[at] = result;
            }
        }
        results
    }

    fn exchange(&mut self, access: &Access, items: &[Item<'_>]) -> Vec<Result<Value, Failure>> {
        if let Err(failure) = self.ready(access, Instant::now() + access.connect_timeout) {
            return items.iter().map(|_| Err(failure.clone())).collect();
        }
        let deadline = Instant::now() + access.response_timeout;
        let flight = self.write(items, deadline);
        self.read(items, &flight, deadline)
    }
}

fn is_code(result: &Result<Value, Failure>, code: &str) -> bool {
    result.as_ref().is_err_and(|failure| failure.is_code(code))
}
