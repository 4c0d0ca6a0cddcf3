//! A connection that comes back: sends rounds of commands, tells of each what became of it.
//!
//! It connects when it is first needed, and again in a later round after a failure; it never waits for that longer
//! than the connect timeout (a name's resolution aside, which has its own), and after a failed attempt answers
//! [`Failure::NotSent`] at once for a while. A round is one write and as many replies as it has commands, and ends
//! within the response timeout; where commands that were not executed are sent again, each such sending has the
//! timeout anew. What holds is told by [`Failure`]: `NotSent` was certainly not executed, nor was `Refused`;
//! `Unknown` may have been. Within a round the commands of one key are executed in order.

use std::cell::Cell;
use std::time::{Duration, Instant};

use redis::Value;

use super::cluster::Cluster;
use super::command::Command;
use super::error::{Failure, LinkError};
use super::node::{Node, Way};
use super::sentinel::Sentinels;
pub use super::target::Target;
use super::url::{self, Site};
use super::wire::Access;
use super::{tls, url::Place};

/// One result a command, in order.
pub type Results = Vec<Result<Value, Failure>>;

/// What stands behind a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Single,
    Sentinel,
    Cluster,
}

enum Hub {
    One(Box<Node>),
    Many(Box<Cluster>),
}

pub struct Link {
    hub: Hub,
    shape: Shape,
    access: Access,
}

impl Link {
    /// Does not connect yet; fails where the target can never work.
    pub fn new(target: &Target) -> Result<Link, LinkError> {
        let Place { tls, credentials, db, site } = url::parse(&target.url)?;
        if !tls && !target.ca_file.is_empty() {
            return Err(LinkError(
                "a ca_file is given and the URL has no TLS; write rediss:// or leave the ca_file out"
                    .to_owned(),
            ));
        }
        let access = Access {
            credentials,
            db,
            tls: if tls { Some(tls::settings(&target.ca_file)?) } else { None },
            connect_timeout: target.connect_timeout,
            response_timeout: target.response_timeout,
            connects: Cell::new(0),
        };
        let one = |way| Hub::One(Box::new(Node::new(way)));
        let (shape, hub) = match site {
            Site::One(address) => (Shape::Single, one(Way::Known(address))),
            Site::Sentinel { sentinels, master } => {
                (Shape::Sentinel, one(Way::Asked(Sentinels::new(sentinels, master))))
            }
            Site::Cluster { seeds } => (Shape::Cluster, Hub::Many(Box::new(Cluster::new(seeds)))),
        };
        Ok(Link { hub, shape, access })
    }

    /// The same with another patience, for commands that block or take long.
    #[must_use]
    pub fn with_response_timeout(mut self, timeout: Duration) -> Link {
        self.access.response_timeout = timeout;
        self
    }

    /// Sends the commands in order and answers one result each, in order.
    pub fn round(&mut self, commands: &[Command]) -> Results {
        if commands.is_empty() {
            return Vec::new();
        }
        let results = match &mut self.hub {
            Hub::One(node) => node.round(&self.access, commands),
            Hub::Many(cluster) => cluster.round(&self.access, commands),
        };
        assert_eq!(results.len(), commands.len(), "one result a command");
        results
    }

    /// One command.
    pub fn call(&mut self, command: Command) -> Result<Value, Failure> {
        self.round(&[command]).pop().expect("one result a command")
    }

    /// The same commands to every master, whatever their keys: the masters' addresses, each with its results.
    pub fn everywhere(&mut self, commands: &[Command]) -> Result<Vec<(String, Results)>, Failure> {
        match &mut self.hub {
            Hub::One(node) => {
                let results = node.round(&self.access, commands);
                Ok(vec![(node.name().to_owned(), results)])
            }
            Hub::Many(cluster) => cluster.everywhere(&self.access, commands),
        }
    }

    /// A round at the master of this name, as [`Link::everywhere`] tells it, whatever the commands' keys.
    pub fn round_at(&mut self, name: &str, commands: &[Command]) -> Results {
        match &mut self.hub {
            Hub::One(node) => node.round(&self.access, commands),
            Hub::Many(cluster) => cluster.round_at(&self.access, name, commands),
        }
    }

    /// How many connections were made so far: another number after a restart of a server, and now and then
    /// without one.
    pub fn connects(&self) -> u64 {
        self.access.connects.get()
    }

    /// How often another server may have come to stand behind a key, so far: with each connection, and in a Cluster with
    /// each command that was sent on and each map of slots that was another than the one before.
    pub fn changes(&self) -> u64 {
        let of_nodes = match &self.hub {
            Hub::One(_) => 0,
            Hub::Many(cluster) => cluster.redirected_count() + cluster.remapped_count(),
        };
        self.connects() + of_nodes
    }

    /// How many commands were sent on to another node of a Cluster than the one that had their slot, so far. A WAIT
    /// that was sent to the first one says nothing of them.
    pub fn redirected_count(&self) -> u64 {
        match &self.hub {
            Hub::One(_) => 0,
            Hub::Many(cluster) => cluster.redirected_count(),
        }
    }

    /// The server that commands about this key go to, by name. In a Cluster as far as is known, before anything was asked not
    /// at all; another one may be found to have it.
    pub fn server_of(&self, key: &[u8]) -> Option<String> {
        match &self.hub {
            Hub::One(node) => Some(node.name().to_owned()),
            Hub::Many(cluster) => cluster.owner(key).map(ToString::to_string),
        }
    }

    /// The connection over which commands about this key go, if there is one: a number that is another for each, so that
    /// another server is behind the key only where this differs.
    pub fn connection_of(&self, key: &[u8]) -> Option<u64> {
        match &self.hub {
            Hub::One(node) => node.connection(),
            Hub::Many(cluster) => cluster.connection(key),
        }
    }

    /// Since when it has not been reached, or, for a Cluster, some node of it. Known by trying only.
    pub fn down_since(&self) -> Option<Instant> {
        match &self.hub {
            Hub::One(node) => node.down_since(),
            Hub::Many(cluster) => cluster.down_since(),
        }
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }
}

/// The script's name, or the command's.
pub fn name_of(command: &Command) -> String {
    match command.script_of() {
        Some(script) => script.name.to_owned(),
        None => command.cmd().args_iter().next().map_or_else(String::new, |arg| match arg {
            redis::Arg::Simple(name) => String::from_utf8_lossy(name).into_owned(),
            _ => String::new(),
        }),
    }
}
