//! What a Redis URL says: one server, a socket file, a Sentinel group or a Cluster, and the way in.
//!
//! ```text
//! redis://[user:password@]host[:port][/db]                       one server
//! redis+unix:///path                                             one server on this machine
//! redis+sentinel://[user:password@]h1[:p1],h2[:p2]/master[/db]   the master that these sentinels name
//! redis+cluster://[user:password@]h1[:p1],h2[:p2]                a Cluster, found by these nodes
//! rediss://  rediss+sentinel://  rediss+cluster://               the same by TLS
//! ```
//!
//! User and password may hold anything, percent-encoded. What is wrong with a URL is told without quoting it: no
//! error and no `Debug` here can show a password, not even a misplaced one. Options are not given in URLs.

use std::fmt;
use std::path::PathBuf;

use super::error::LinkError;

const SERVER_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// One server's place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Site {
    One(Address),
    Sentinel { sentinels: Vec<Address>, master: String },
    Cluster { seeds: Vec<Address> },
}

/// Who we are to the server. An empty user is the server's default user.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub tls: bool,
    pub credentials: Option<Credentials>,
    /// Number of the database; a Cluster has only 0.
    pub db: u32,
    pub site: Site,
}

fn refused<T>(reason: impl Into<String>) -> Result<T, LinkError> {
    Err(LinkError(reason.into()))
}

pub(super) fn parse(url: &str) -> Result<Place, LinkError> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return refused("it has no scheme; give one as in redis://host:6379");
    };
    let (tls, kind) = match scheme {
        "redis" | "redis+unix" | "redis+sentinel" | "redis+cluster" => (false, &scheme[5..]),
        "rediss" | "rediss+sentinel" | "rediss+cluster" => (true, &scheme[6..]),
        "rediss+unix" => return refused("TLS is not spoken on a socket file; give redis+unix:///path"),
        _ => {
            return refused(
                "its scheme is none of redis, rediss, redis+unix, redis+sentinel, rediss+sentinel, \
                 redis+cluster, rediss+cluster",
            );
        }
    };
    // Everything up to the last @ is a secret, whatever characters someone forgot to encode in it.
    let (secret, rest) = match rest.rsplit_once('@') {
        Some((secret, rest)) if kind != "+unix" => (Some(secret), rest),
        _ => (None, rest),
    };
    if rest.contains(['?', '#']) {
        return refused("it has a query or a fragment; options are not given in the URL");
    }
    let credentials = secret.map(credentials).transpose()?;
    if kind == "+unix" {
        return unix(rest);
    }
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (db, site) = match kind {
        "+sentinel" => {
            let (master, db) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                return refused("it names no master; give it as in redis+sentinel://host:26379/mymaster");
            }
            let sentinels = addresses(hosts, SENTINEL_PORT)?;
            (database(db)?, Site::Sentinel { sentinels, master: decoded(master, "master's name")? })
        }
        "+cluster" => {
            if database(path)? != 0 {
                return refused("it names a database, and a Cluster has only the database 0");
            }
            (0, Site::Cluster { seeds: addresses(hosts, SERVER_PORT)? })
        }
        _ => {
            let mut addresses = addresses(hosts, SERVER_PORT)?;
            let (Some(address), true) = (addresses.pop(), addresses.is_empty()) else {
                return refused("it names several hosts; that is redis+cluster:// or redis+sentinel://");
            };
            (database(path)?, Site::One(address))
        }
    };
    Ok(Place { tls, credentials, db, site })
}

fn unix(path: &str) -> Result<Place, LinkError> {
    if !path.starts_with('/') {
        return refused("it gives no absolute path; give it as in redis+unix:///run/redis.sock");
    }
    let path = PathBuf::from(decoded(path, "path")?);
    Ok(Place { tls: false, credentials: None, db: 0, site: Site::One(Address::Unix(path)) })
}

fn credentials(text: &str) -> Result<Credentials, LinkError> {
    let Some((user, password)) = text.split_once(':') else {
        return refused("it has a user and no password; a password alone is given as :password@host");
    };
    if password.is_empty() {
        return refused("its password is empty; leave user and password out, with the @");
    }
    Ok(Credentials { user: decoded(user, "user")?, password: decoded(password, "password")? })
}

fn database(text: &str) -> Result<u32, LinkError> {
    match text.strip_suffix('/').unwrap_or(text) {
        "" => Ok(0),
        number => number.parse().or_else(|_| refused("what follows the last / is not a database's number")),
    }
}

fn addresses(hosts: &str, port_default: u16) -> Result<Vec<Address>, LinkError> {
    hosts.split(',').enumerate().map(|(at, host)| address(host, at + 1, port_default)).collect()
}

fn address(text: &str, ordinal: usize, port_default: u16) -> Result<Address, LinkError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(inside) => match inside.split_once(']') {
            Some((host, after)) => (host, after.strip_prefix(':').or(after.is_empty().then_some(""))),
            None => return refused(format!("the [ of host {ordinal} has no ]")),
        },
        None if text.matches(':').count() > 1 => {
            return refused(format!(
                "host {ordinal} has several colons; write an IPv6 address as [::1]:6379"
            ));
        }
        None => text.split_once(':').map_or((text, Some("")), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return refused(format!("host {ordinal} has no name"));
    }
    let has_colon = text.ends_with(':');
    let port = match port {
        Some("") if !has_colon => port_default,
        port => match port.and_then(|port| port.parse().ok()).filter(|port| *port > 0) {
            Some(port) => port,
            None => return refused(format!("the port of host {ordinal} is not a number from 1 to 65535")),
        },
    };
    Ok(Address::Tcp { host: host.to_owned(), port })
}

/// Percent-decoded.
fn decoded(text: &str, what: &str) -> Result<String, LinkError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
            return refused(format!("its {what} has a % without two hexadecimal digits; write % as %25"));
        };
        bytes.push(byte);
        rest = &after[2..];
    }
    String::from_utf8(bytes).or_else(|_| refused(format!("its {what} is not UTF-8")))
}

/// The URL as it may be told: without user and password, and nothing but the scheme where it cannot be read.
pub(super) fn shown(url: &str) -> String {
    let Ok(place) = parse(url) else {
        let known =
            url.split_once("://").map(|(scheme, _)| scheme).filter(|scheme| scheme.starts_with("redis"));
        return format!("{}://…", known.unwrap_or("redis"));
    };
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    match (&place.credentials, rest.rsplit_once('@')) {
        (Some(_), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
#[path = "url_tests.rs"]
mod tests;
