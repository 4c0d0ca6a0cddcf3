//! One command, and the key that says which node of a Cluster it goes to.
//!
//! Scripts are sent by their hash; a server that does not know one is taught it by the link, which knows the
//! source from the command.

use std::sync::OnceLock;

use redis::{Arg, Cmd, ToRedisArgs};

/// A Lua script. Each of ours writes at most one key with at most one command (two would become a transaction in
/// the append-only file, and a file torn inside one swallows what follows it).
pub struct Script {
    pub name: &'static str,
    pub source: &'static str,
    hash: OnceLock<String>,
}

impl Script {
    pub const fn new(name: &'static str, source: &'static str) -> Script {
        Script { name, source, hash: OnceLock::new() }
    }

    /// SHA-1 of the source, in hexadecimal.
    pub fn hash(&self) -> &str {
        self.hash.get_or_init(|| redis::Script::new(self.source).get_hash().to_owned())
    }
}

#[derive(Clone)]
pub struct Command {
    key: Vec<u8>,
    script: Option<&'static Script>,
    cmd: Cmd,
}

impl Command {
    /// `NAME key …`
    pub fn new(name: &'static str, key: impl AsRef<[u8]>) -> Command {
        Command::routed(name, key.as_ref()).arg(key.as_ref())
    }

    /// `NAME …`, sent to the node of `key`, which is not put among the arguments. An empty key: any node.
    pub fn routed(name: &'static str, key: impl AsRef<[u8]>) -> Command {
        let mut cmd = Cmd::new();
        cmd.arg(name);
        Command { key: key.as_ref().to_vec(), script: None, cmd }
    }

    /// A script with its keys, all of one slot; arguments follow.
    pub fn script(script: &'static Script, keys: &[&[u8]]) -> Command {
        let mut cmd = Cmd::new();
        cmd.arg("EVALSHA").arg(script.hash()).arg(keys.len()).arg(keys);
        Command { key: keys.first().map_or_else(Vec::new, |key| key.to_vec()), script: Some(script), cmd }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl ToRedisArgs) -> Command {
        self.cmd.arg(arg);
        self
    }

    /// The same in place, for loops.
    pub fn push(&mut self, arg: impl ToRedisArgs) {
        self.cmd.arg(arg);
    }

    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// All keys of a script; of another command the one that it is routed by, if it has one.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let simple = |arg| match arg {
            Arg::Simple(bytes) => Some(bytes),
            _ => None,
        };
        // EVALSHA hash count key …
        let mut args = self.cmd.args_iter().filter_map(simple).skip(2);
        let count = self.script.and_then(|_| std::str::from_utf8(args.next()?).ok()?.parse().ok());
        let own = (self.script.is_none() && !self.key.is_empty()).then_some(self.key.as_slice());
        args.take(count.unwrap_or(0)).chain(own)
    }

    pub fn last_arg(&self) -> Option<&[u8]> {
        let args = self.cmd.args_iter().filter_map(|arg| match arg {
            Arg::Simple(bytes) => Some(bytes),
            _ => None,
        });
        args.last()
    }

    pub fn script_of(&self) -> Option<&'static Script> {
        self.script
    }

    pub fn cmd(&self) -> &Cmd {
        &self.cmd
    }
}
