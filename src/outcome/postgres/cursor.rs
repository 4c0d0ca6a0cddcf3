//! Cursors of listings: what a page gives out so that the next one can go on.
//!
//! | bytes | field |
//! |---|---|
//! | 0 | version (2: that of the view in a file is 1) |
//! | 1..9 | when the last request looked at was accepted |
//! | 9..25 | its digest |
//! | 25..33 | hash of the client and the filters it belongs to |
//! | 33..41 | keyed hash of all others, under the secret of this view |
//! | 41.. | its id |
//!
//! in lower-case hexadecimal. It carries no right: every page is limited to the client who asks.

use crate::domain::UnixMs;
use crate::outcome::view::{CursorError, ListRows, filters};

const VERSION: u8 = 2;
const HEADER_BYTES: usize = 41;
const SEAL: std::ops::Range<usize> = 33..41;

/// Where a page goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    pub accepted_at: UnixMs,
    pub id: String,
    /// Sixteen bytes.
    pub digest: Vec<u8>,
}

pub fn write(secret: &[u8; 32], query: &ListRows, after: &After) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&after.accepted_at.to_le_bytes());
    bytes.extend_from_slice(&after.digest);
    bytes.resize(25, 0);
    bytes.extend_from_slice(&filters(query));
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend_from_slice(after.id.as_bytes());
    let seal = seal(secret, &bytes);
    bytes[SEAL].copy_from_slice(&seal);
    hex::encode(bytes)
}

pub fn read(secret: &[u8; 32], query: &ListRows, text: &str) -> Result<After, CursorError> {
    let bytes = hex::decode(text).map_err(|_| CursorError::Forged)?;
    match bytes.first() {
        Some(&VERSION) if bytes.len() > HEADER_BYTES => {}
        Some(&VERSION) | None => return Err(CursorError::Forged),
        Some(other) => return Err(CursorError::Version(*other)),
    }
    if bytes[SEAL] != seal(secret, &bytes) {
        return Err(CursorError::Forged);
    }
    if bytes[25..33] != filters(query) {
        return Err(CursorError::Foreign);
    }
    Ok(After {
        accepted_at: UnixMs::from_le_bytes(bytes[1..9].try_into().expect("eight bytes")),
        id: String::from_utf8(bytes[HEADER_BYTES..].to_vec()).map_err(|_| CursorError::Forged)?,
        digest: bytes[9..25].to_vec(),
    })
}

fn seal(secret: &[u8; 32], bytes: &[u8]) -> [u8; 8] {
    let mut hash = blake3::Hasher::new_keyed(secret);
    hash.update(&bytes[..SEAL.start]).update(&bytes[SEAL.end..]);
    hash.finalize().as_bytes()[..8].try_into().expect("eight of thirty-two bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_out_comes_back() {
        let secret = [7; 32];
        let query = ListRows { client: "shop".into(), campaign: Some("c".into()), ..ListRows::default() };
        let after = After { accepted_at: 42, id: "r-1".into(), digest: vec![9; 16] };
        let given = write(&secret, &query, &after);
        let other_client = ListRows { client: "other".into(), ..query.clone() };
        assert_eq!(read(&secret, &query, &given), Ok(after));
        assert_eq!(read(&secret, &other_client, &given), Err(CursorError::Foreign));
        assert_eq!(read(&[8; 32], &query, &given), Err(CursorError::Forged));
        assert_eq!(read(&secret, &query, ""), Err(CursorError::Forged));
        assert_eq!(read(&secret, &query, "0g"), Err(CursorError::Forged));
        assert_eq!(read(&secret, &query, &format!("01{}", &given[2..])), Err(CursorError::Version(1)));
        for at in 0..given.len() {
            let mut bytes = given.clone().into_bytes();
            bytes[at] = if bytes[at] == b'5' { b'6' } else { b'5' };
            assert!(read(&secret, &query, &String::from_utf8(bytes).unwrap()).is_err(), "digit {at}");
            assert!(read(&secret, &query, &given[..at]).is_err(), "cut at {at}");
        }
    }
}
