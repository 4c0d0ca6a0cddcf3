//! Which server is the master, as the sentinels say it and the server confirms.
//!
//! Asked anew at every connect, because only then can it matter: a master that was demoted says READONLY or closes,
//! and either ends the connection. A sentinel is given the password only if it asks for one. What no client can
//! help: a master that is cut off from its sentinels takes writes that are lost when it comes back.

use std::time::Instant;

use redis::Value;

use super::socket::left;
use super::url::Address;
use super::wire::{Access, Login, Wire};

pub(super) struct Sentinels {
    /// The one that answered last comes first.
    addresses: Vec<Address>,
    master: String,
}

impl Sentinels {
    pub fn new(addresses: Vec<Address>, master: String) -> Sentinels {
        Sentinels { addresses, master }
    }

    pub fn name(&self) -> String {
        format!("master {}", self.master)
    }

    /// A connection to the master that the first of the sentinels names that is one.
    pub fn connect(&mut self, access: &Access, deadline: Instant) -> Result<(Address, Wire), String> {
        let mut reasons = Vec::new();
        for at in 0..self.addresses.len() {
            // A share each for the sentinels that are left, and one for the master.
            let shares = u32::try_from(self.addresses.len() - at + 1).unwrap_or(u32::MAX);
            let Ok(left) = left(deadline) else { break };
            let asked = Instant::now() + left / shares;
            let connected = self.ask(&self.addresses[at], access, asked).and_then(|address| {
                let login =
                    Login { credentials: access.credentials.as_ref(), db: access.db, master_only: true };
                let wire = Wire::connect(&address, access, &login, asked + left / shares);
                wire.map(|wire| (address, wire)).map_err(|no_wire| no_wire.reason)
            });
            match connected {
                Ok(found) => {
                    self.addresses.rotate_left(at);
                    return Ok(found);
                }
                Err(reason) => reasons.push(reason),
            }
        }
        // Who kept us waiting is asked last next time.
        self.addresses.rotate_left(1);
        Err(format!("{} was not found: {}", self.name(), reasons.join("; ")))
    }

    fn ask(&self, sentinel: &Address, access: &Access, deadline: Instant) -> Result<Address, String> {
        let question = redis::cmd("SENTINEL").arg("get-master-addr-by-name").arg(&self.master).take();
        let anonymous = Login { credentials: None, db: 0, master_only: false };
        let connected = match Wire::connect(sentinel, access, &anonymous, deadline) {
            Err(no_wire) if no_wire.wants_password && access.credentials.is_some() => {
                let login = Login { credentials: access.credentials.as_ref(), ..anonymous };
                Wire::connect(sentinel, access, &login, deadline)
            }
            connected => connected,
        };
        let mut wire = connected.map_err(|no_wire| no_wire.reason)?;
        let replies = wire.ask(&[&question], deadline).map_err(|error| format!("{sentinel}: {error}"))?;
        match replies.into_iter().next().unwrap_or(Value::Nil) {
            Value::Nil => Err(format!("{sentinel}: it knows no master {:?}", self.master)),
            Value::ServerError(error) => {
                Err(format!("{sentinel}: {} {}", error.code(), error.details().unwrap_or("")))
            }
            answer => address(&answer).ok_or_else(|| format!("{sentinel}: its answer names no address")),
        }
    }
}

fn address(answer: &Value) -> Option<Address> {
    let Value::Array(parts) = answer else { return None };
    let text = |at: usize| match parts.get(at) {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).ok(),
        _ => None,
    };
    Some(Address::Tcp { host: text(0)?.to_owned(), port: text(1)?.parse().ok()? })
}
