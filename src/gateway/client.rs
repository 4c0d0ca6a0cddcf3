//! Who is calling: bearer keys to client names, and where the door may be opened without any.
//!
//! Keys are kept and compared as BLAKE3 hashes, whose comparison takes the same time wherever they differ,
//! and every key is compared on every call, so neither the key nor its place in the list shows in the time.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::http::{HeaderMap, header};

use super::GatewayError;
use super::problem::Problem;
use crate::domain::{Refusal, ids};

/// Whom every call acts for when no clients are configured.
pub const DEFAULT_CLIENT: &str = "default";

/// Shorter keys are guessed; configuration is refused rather than made safe.
const KEY_BYTES_MIN: usize = 16;

/// The clients that may call.
#[derive(Debug)]
pub enum Clients {
    /// No credentials: one client for all.
    Open,
    Keyed(Vec<(blake3::Hash, String)>),
}

impl Clients {
    pub fn new(keys: Option<&BTreeMap<String, String>>) -> Result<Clients, GatewayError> {
        let Some(keys) = keys else { return Ok(Clients::Open) };
        let mut keyed: Vec<(blake3::Hash, String)> = Vec::with_capacity(keys.len());
        for (name, key) in keys {
            let refuse = |reason: String| GatewayError::Client { name: name.clone(), reason };
            ids::check_client(name).map_err(|error| refuse(format!("its name {error}")))?;
            if key.len() < KEY_BYTES_MIN || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                let reason =
                    format!("its key must be {KEY_BYTES_MIN} or more printable characters, no spaces");
                return Err(refuse(reason));
            }
            let hash = blake3::hash(key.as_bytes());
            if let Some((_, other)) = keyed.iter().find(|(known, _)| *known == hash) {
                return Err(refuse(format!("it has the same key as {other:?}")));
            }
            keyed.push((hash, name.clone()));
        }
        Ok(Clients::Keyed(keyed))
    }

    /// The client that the credentials stand for.
    pub fn name(&self, headers: &HeaderMap) -> Result<&str, Problem> {
        let Clients::Keyed(keyed) = self else { return Ok(DEFAULT_CLIENT) };
        let refuse = |detail: &str| Problem::new(Refusal::Unauthorized, detail);
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Err(refuse("send the client's key as `Authorization: Bearer <key>`"));
        };
        let key = value
            .as_bytes()
            .split_at_checked(7)
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        let Some((_, key)) = key else {
            return Err(refuse("the scheme must be Bearer: `Authorization: Bearer <key>`"));
        };
        let hash = blake3::hash(key.trim_ascii());
        let mut found = None;
        for (known, name) in keyed {
            if *known == hash {
                found = Some(name.as_str());
            }
        }
        found.ok_or_else(|| refuse("the key is not one of a configured client"))
    }
}

/// Refuses to open the door to other machines when nobody is asked who they are.
pub fn check_listen(address: SocketAddr, has_clients: bool) -> Result<(), GatewayError> {
    if has_clients || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(GatewayError::Exposed { address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_opens_to_others_only_with_credentials() {
        let table = [
            ("127.0.0.1:8080", false, true),
            ("127.8.8.8:0", false, true),
            ("[::1]:8080", false, true),
            ("[::ffff:127.0.0.1]:8080", false, true),
            ("0.0.0.0:8080", false, false),
            ("[::]:8080", false, false),
            ("10.0.0.7:8080", false, false),
            ("0.0.0.0:8080", true, true),
        ];
        for (address, has_clients, allowed) in table {
            let got = check_listen(address.parse().unwrap(), has_clients);
            assert_eq!(got.is_ok(), allowed, "{address}");
            if let Err(error) = got {
                assert!(error.to_string().contains("[gateway.clients]"), "{error}");
            }
        }
    }

    #[test]
    fn configured_clients() {
        let table = [
            ("shop", "0123456789abcdef", true),
            ("a:b", "0123456789abcdef", false),
            ("", "0123456789abcdef", false),
            ("shop", "short", false),
            ("shop", "with a space in it", false),
        ];
        for (name, key, allowed) in table {
            let keys = BTreeMap::from([(name.to_owned(), key.to_owned())]);
            assert_eq!(Clients::new(Some(&keys)).is_ok(), allowed, "{name} {key}");
        }
        let same = ["a", "b"].map(|name| (name.to_owned(), "0123456789abcdef".to_owned()));
        assert!(Clients::new(Some(&BTreeMap::from(same))).is_err());
    }
}
