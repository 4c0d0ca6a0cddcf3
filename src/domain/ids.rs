//! Identifiers, their alphabet and bounds, and the names built from them.
//!
//! A request is known by `client:id` everywhere: in the identity index, at the wallet, in the logs. A client
//! name holds no colon, so the first colon always ends it.

/// Bytes in a request, batch or campaign id, a client name, or the name of a party.
pub const ID_BYTES_MAX: usize = 64;

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    Empty,
    TooLong,
    /// The first character outside the alphabet.
    Character(char),
}

impl std::fmt::Display for IdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IdError::Empty => write!(f, "must not be empty"),
            IdError::TooLong => write!(f, "must be at most {ID_BYTES_MAX} characters"),
            IdError::Character(c) => {
                write!(f, "holds {c:?}; allowed are letters, digits and the characters - _ . : @ + = /")
            }
        }
    }
}

/// Letters, digits and `-_.:@+=/`: what order numbers, UUIDs, phone numbers and mail addresses are made of.
static IS_ID_BYTE: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric()
            || matches!(byte as u8, b'-'..=b':' | b'_' | b'@' | b'+' | b'=');
        byte += 1;
    }
    table
};

/// Checks a request, batch or campaign id, or the name of a party.
pub fn check_id(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong);
    }
    if text.bytes().all(|byte| IS_ID_BYTE[usize::from(byte)]) {
        return Ok(());
    }
    let outside = |c: &char| u8::try_from(*c).map_or(true, |byte| !IS_ID_BYTE[usize::from(byte)]);
    text.chars().find(outside).map_or(Ok(()), |c| Err(IdError::Character(c)))
}

/// Checks a client name: an id without a colon.
pub fn check_client(text: &str) -> Result<(), IdError> {
    check_id(text)?;
    if text.contains(':') { Err(IdError::Character(':')) } else { Ok(()) }
}

/// Appends `client:id`, the name by which the wallet and the identity index know a request.
pub fn write_key(out: &mut Vec<u8>, client: &[u8], id: &[u8]) {
    out.extend_from_slice(client);
    out.push(b':');
    out.extend_from_slice(id);
}

/// Splits `client:id` at its first colon.
pub fn split_key(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = key.iter().position(|b| *b == b':')?;
    Some((&key[..colon], &key[colon + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let long = "x".repeat(65);
        let table: [(&str, Result<(), IdError>); 8] = [
            ("r-1", Ok(())),
            ("a:b", Ok(())),
            ("8613800138000@pay", Ok(())),
            (&long[..64], Ok(())),
            ("", Err(IdError::Empty)),
            (&long, Err(IdError::TooLong)),
            ("a b", Err(IdError::Character(' '))),
            ("红包", Err(IdError::Character('红'))),
        ];
        for (text, expected) in table {
            assert_eq!(check_id(text), expected, "{text}");
        }
        assert_eq!(check_client("a:b"), Err(IdError::Character(':')));
    }

    #[test]
    fn keys_split_where_they_were_joined() {
        let mut key = Vec::new();
        write_key(&mut key, b"shop", b"a:b");
        assert_eq!(split_key(&key), Some((&b"shop"[..], &b"a:b"[..])));
    }
}
