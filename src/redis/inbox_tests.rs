//! Replies whole and in pieces, and bytes that are none.

use super::*;

fn put(inbox: &mut Inbox, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let room = inbox.room();
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        inbox.filled(count);
        bytes = &bytes[count..];
    }
}

/// What comes out when the bytes arrive `piece` at a time.
fn read(bytes: &[u8], piece: usize) -> Result<Vec<Value>, Broken> {
    let (mut inbox, mut values) = (Inbox::default(), Vec::new());
    for bytes in bytes.chunks(piece) {
        put(&mut inbox, bytes);
        while let Some(value) = inbox.take()? {
            values.push(value);
        }
    }
    assert!(inbox.is_empty(), "all was taken");
    Ok(values)
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

#[test]
fn replies_come_out_however_they_arrive() {
    let array = Value::Array;
    let table: [(&str, Vec<Value>); 10] = [
        ("+OK\r\n+PONG\r\n", vec![Value::Okay, Value::SimpleString("PONG".to_owned())]),
        (":0\r\n:-7\r\n", vec![Value::Int(0), Value::Int(-7)]),
        ("$-1\r\n*-1\r\n", vec![Value::Nil, Value::Nil]),
        ("$0\r\n\r\n", vec![bulk("")]),
        ("$4\r\na\r\nb\r\n", vec![bulk("a\r\nb")]),
        ("*0\r\n", vec![array(vec![])]),
        ("*2\r\n$1\r\na\r\n:1\r\n", vec![array(vec![bulk("a"), Value::Int(1)])]),
        ("*2\r\n*1\r\n$1\r\na\r\n*0\r\n", vec![array(vec![array(vec![bulk("a")]), array(vec![])])]),
        ("*1\r\n*1\r\n*1\r\n$-1\r\n", vec![array(vec![array(vec![array(vec![Value::Nil])])])]),
        (":1\r\n*1\r\n:2\r\n:3\r\n", vec![Value::Int(1), array(vec![Value::Int(2)]), Value::Int(3)]),
    ];
    for (text, expect) in table {
        for piece in 1..=text.len() {
            assert_eq!(read(text.as_bytes(), piece).as_ref(), Ok(&expect), "{text:?} by {piece}");
        }
    }
}

#[test]
fn errors_keep_their_code_inside_arrays_too() {
    for text in ["-MOVED 7 h:1\r\n", "*1\r\n-MOVED 7 h:1\r\n"] {
        let mut values = read(text.as_bytes(), 3).unwrap();
        if let Some(Value::Array(inner)) = values.first_mut() {
            values = std::mem::take(inner);
        }
        let Some(Value::ServerError(error)) = values.pop() else { panic!("{values:?}") };
        assert_eq!((error.code(), error.details()), ("MOVED", Some("7 h:1")));
    }
}

#[test]
fn large_elements_and_many_of_them() {
    let text = "x".repeat(3 << 20);
    let bytes = format!("${}\r\n{text}\r\n", text.len()).into_bytes();
    assert_eq!(read(&bytes, 100_000), Ok(vec![bulk(&text)]));
    let many = format!("*5000\r\n{}", "$200\r\n".to_owned() + &"y".repeat(200) + "\r\n").into_bytes();
    let (head, element) = many.split_at(7);
    let bytes = [head.to_vec(), element.repeat(5000)].concat();
    let values = read(&bytes, 65_536).unwrap();
    assert_eq!(values, [Value::Array(vec![bulk(&"y".repeat(200)); 5000])]);

    let mut inbox = Inbox::default();
    put(&mut inbox, format!("${}\r\n{text}\r\n", text.len()).as_bytes());
    assert!(inbox.buffer.len() > 3 << 20 && inbox.take().unwrap().is_some());
    inbox.room();
    assert!(inbox.buffer.len() <= 2 * ROOM_MAX, "a giant's memory is not kept");
}

#[test]
fn what_is_no_reply_is_told() {
    let deep = "*1\r\n".repeat(33);
    let long = format!("+{}", "x".repeat(LINE_BYTES_MAX));
    let table = [
        ("HTTP/1.1 400\r\n", "unknown type"),
        (">1\r\n", "unknown type"),
        ("$x\r\n", "not a length"),
        ("$\r\n", "not a length"),
        ("$-2\r\n", "not a length"),
        ("$536870913\r\n", "not a length"),
        ("*99999999999999999999999\r\n", "not a length"),
        (":1x\r\n", "not a number"),
        ("+OK\rx", "no end"),
        ("$1\r\nab\r\n", "longer than it said"),
        (deep.as_str(), "too deep"),
        (long.as_str(), "too long"),
    ];
    for (text, expect) in table {
        let error = read(text.as_bytes(), text.len()).expect_err(text).to_string();
        assert!(error.contains(expect), "{text:?}: {error}");
    }
}
