//! Reading replies: small conversions that say what was expected when they fail.

use redis::Value;

use super::Failure;

fn strange(command: &str, expected: &'static str) -> Failure {
    Failure::Strange { command: command.to_owned(), expected }
}

pub fn int(command: &str, value: Value) -> Result<i64, Failure> {
    match value {
        Value::Int(number) => Ok(number),
        _ => Err(strange(command, "an integer")),
    }
}

/// Bytes, or nothing where there is none.
pub fn bytes(command: &str, value: Value) -> Result<Option<Vec<u8>>, Failure> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        Value::Okay => Ok(Some(b"OK".to_vec())),
        _ => Err(strange(command, "a string")),
    }
}

pub fn text(command: &str, value: Value) -> Result<Option<String>, Failure> {
    let bytes = bytes(command, value)?;
    bytes.map(|bytes| String::from_utf8(bytes).map_err(|_| strange(command, "text"))).transpose()
}

/// The elements of an array; nothing counts as none.
pub fn array(command: &str, value: Value) -> Result<Vec<Value>, Failure> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        _ => Err(strange(command, "an array")),
    }
}
