//! The cursor of a listing: opaque to callers, told apart from anything we did not give out.
//!
//! | bytes | field |
//! |---|---|
//! | 0 | version (1) |
//! | 1..9 | place of the last request looked at |
//! | 9..17 | hash of the client and the filters it belongs to |
//! | 17..25 | keyed hash of all before, under the secret of this view |
//!
//! in lower-case hexadecimal. It carries no right: every page is limited to the client who asks. The check is
//! there so that a changed cursor, or one of another listing, is an error and not a wrong page.

use super::row::ListRows;

const VERSION: u8 = 1;
const BYTES: usize = 25;

/// Why a cursor was refused. None of them is worth a retry with the same cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    #[error("the cursor is not one that a listing gives out; start again without it")]
    Forged,
    #[error("the cursor is of version {0}, which this release does not know; start again without it")]
    Version(u8),
    #[error("the cursor belongs to a listing with other filters; send the same filters, or start without it")]
    Foreign,
}

/// Writes the cursor that goes on after `place`.
pub fn write(secret: &[u8; 32], query: &ListRows, place: u64) -> String {
    let mut bytes = [0u8; BYTES];
    bytes[0] = VERSION;
    bytes[1..9].copy_from_slice(&place.to_le_bytes());
    bytes[9..17].copy_from_slice(&filters(query));
    let seal = seal(secret, &bytes);
    bytes[17..].copy_from_slice(&seal);
    hex::encode(bytes)
}

/// The place after which to go on.
pub fn read(secret: &[u8; 32], query: &ListRows, text: &str) -> Result<u64, CursorError> {
    let mut bytes = [0u8; BYTES];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| CursorError::Forged)?;
    if bytes[0] != VERSION {
        return Err(CursorError::Version(bytes[0]));
    }
    if bytes[17..] != seal(secret, &bytes) {
        return Err(CursorError::Forged);
    }
    if bytes[9..17] != filters(query) {
        return Err(CursorError::Foreign);
    }
    Ok(u64::from_le_bytes(bytes[1..9].try_into().expect("eight bytes")))
}

fn seal(secret: &[u8; 32], bytes: &[u8; BYTES]) -> [u8; 8] {
    blake3::keyed_hash(secret, &bytes[..17]).as_bytes()[..8].try_into().expect("eight of thirty-two bytes")
}

/// Everything that decides which requests are listed; not how many a page.
pub fn filters(query: &ListRows) -> [u8; 8] {
    let mut hash = blake3::Hasher::new();
    let mut text = |part: Option<&str>| {
        // The length keeps two parts from being read as one, and an absent one from an empty one.
        hash.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        hash.update(part.unwrap_or("").as_bytes());
    };
    text(Some(&query.client));
    for part in [&query.campaign, &query.party, &query.batch] {
        text(part.as_deref());
    }
    hash.update(&[query.status.map_or(0, |status| status as u8), query.kind.map_or(0, |kind| kind as u8)]);
    hash.update(&query.accepted_from.to_le_bytes());
    hash.update(&query.settled_from.to_le_bytes());
    hash.finalize().as_bytes()[..8].try_into().expect("eight of thirty-two bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Status;

    #[test]
    fn only_what_was_given_out_comes_back() {
        let secret = [7; 32];
        let query = ListRows { client: "shop".into(), campaign: Some("c".into()), ..ListRows::default() };
        let given = write(&secret, &query, 42);
        let longer_page = ListRows { limit: 9, ..query.clone() };
        let other_client = ListRows { client: "other".into(), ..query.clone() };
        let other_status = ListRows { status: Some(Status::Failed), ..query.clone() };
        let shifted = ListRows { campaign: None, party: Some("c".into()), ..query.clone() };
        let next_version = format!("02{}", &given[2..]);
        type Case<'a> = (&'a str, &'a ListRows, &'a [u8; 32], Result<u64, CursorError>);
        let table: [Case<'_>; 10] = [
            (&given, &query, &secret, Ok(42)),
            (&given, &longer_page, &secret, Ok(42)),
            (&given, &other_client, &secret, Err(CursorError::Foreign)),
            (&given, &other_status, &secret, Err(CursorError::Foreign)),
            (&given, &shifted, &secret, Err(CursorError::Foreign)),
            (&given, &query, &[8; 32], Err(CursorError::Forged)),
            (&next_version, &query, &secret, Err(CursorError::Version(2))),
            ("", &query, &secret, Err(CursorError::Forged)),
            ("42", &query, &secret, Err(CursorError::Forged)),
            ("红包红包红包红包红包红包红包红包红", &query, &secret, Err(CursorError::Forged)),
        ];
        for (text, query, secret, expected) in table {
            assert_eq!(read(secret, query, text), expected, "{text}");
        }
    }

    #[test]
    fn every_changed_digit_is_noticed() {
        let (secret, query) = ([1; 32], ListRows::default());
        let given = write(&secret, &query, u64::MAX >> 1);
        for at in 0..given.len() {
            let mut bytes = given.clone().into_bytes();
            bytes[at] = if bytes[at] == b'5' { b'6' } else { b'5' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(read(&secret, &query, &changed).is_err(), "digit {at}");
        }
    }
}
