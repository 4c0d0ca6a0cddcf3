//! The slots of a Cluster: which one a key is in, and which node has it
//! (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>).
//!
//! The map is made from `CLUSTER SLOTS`, which every version has.

use redis::Value;

use super::url::Address;

pub(super) const SLOT_COUNT: u16 = 16384;
const NOBODY: u16 = u16::MAX;

/// The key's slot: CRC-16/XMODEM of its hash tag, or of all of it.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let after = &key[open + 1..];
        let close = after.iter().position(|byte| *byte == b'}').filter(|close| *close > 0)?;
        Some(&after[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOT_COUNT
}

fn crc16(bytes: &[u8]) -> u16 {
    const TABLE: [u16; 256] = crc16_table();
    bytes.iter().fold(0, |crc: u16, byte| crc << 8 ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = (at as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
}

/// Who has which slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotMap {
    masters: Vec<Address>,
    /// Index into `masters`, for each slot.
    owners: Vec<u16>,
}

impl Default for SlotMap {
    fn default() -> SlotMap {
        SlotMap { masters: Vec::new(), owners: vec![NOBODY; usize::from(SLOT_COUNT)] }
    }
}

impl SlotMap {
    /// From the reply of `CLUSTER SLOTS` by the node at `asked`, if that is what it is.
    pub fn read(reply: &Value, asked: &Address) -> Option<SlotMap> {
        let Value::Array(ranges) = reply else { return None };
        let mut map = SlotMap::default();
        for range in ranges {
            let Value::Array(parts) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else {
                return None;
            };
            let [host, Value::Int(port), ..] = master.as_slice() else { return None };
            let asked_host = match asked {
                Address::Tcp { host, .. } => host.as_str(),
                Address::Unix(_) => "127.0.0.1",
            };
            let host = match host {
                Value::Nil => asked_host,
                Value::BulkString(bytes) if bytes.is_empty() => asked_host,
                Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
                _ => return None,
            };
            if host == "?" {
                // A node that has not learnt its name yet: its slots stay without an owner for now.
                continue;
            }
            let address = Address::Tcp { host: host.to_owned(), port: u16::try_from(*port).ok()? };
            let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
            if first > last || last >= SLOT_COUNT {
                return None;
            }
            (first..=last).for_each(|slot| map.set(slot, &address));
        }
        Some(map)
    }

    pub fn set(&mut self, slot: u16, owner: &Address) {
        let index = self.masters.iter().position(|master| master == owner).unwrap_or_else(|| {
            self.masters.push(owner.clone());
            self.masters.len() - 1
        });
        if let Some(entry) = self.owners.get_mut(usize::from(slot)) {
            *entry = u16::try_from(index).unwrap_or(NOBODY);
        }
    }

    pub fn owner(&self, slot: u16) -> Option<&Address> {
        self.masters.get(usize::from(*self.owners.get(usize::from(slot))?))
    }

    pub fn masters(&self) -> &[Address] {
        &self.masters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_slots_that_the_specification_gives_them() {
        assert_eq!(crc16(b"123456789"), 0x31c3, "the check value of CRC-16/XMODEM");
        let table: [(&str, &str); 6] = [
            ("{user1000}.following", "user1000"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("{hongbao:7}:bulk.3", "hongbao:7"),
            ("foo{bar", "foo{bar"),
            ("foo}b{ar}", "ar"),
        ];
        for (key, tag) in table {
            assert_eq!(slot_of(key.as_bytes()), crc16(tag.as_bytes()) % SLOT_COUNT, "{key}");
        }
        let all = "foo{}{bar}";
        assert_eq!(slot_of(all.as_bytes()), crc16(all.as_bytes()) % SLOT_COUNT, "an empty tag is none");
        assert_eq!([slot_of(b"foo"), slot_of(b"bar"), slot_of(b"hello")], [12182, 5061, 866]);
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let node = Value::Array(vec![host, Value::Int(port), bulk("id"), Value::Array(vec![])]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node.clone(), node])
    }

    #[test]
    fn the_map_is_read_from_the_reply() {
        let asked = Address::Tcp { host: "asked".to_owned(), port: 1 };
        let reply = Value::Array(vec![
            range(0, 99, bulk("a"), 7000),
            range(100, 199, Value::Nil, 7001),
            range(200, 299, bulk("?"), 7002),
            range(300, 399, bulk("a"), 7000),
            range(16383, 16383, bulk(""), 7003),
        ]);
        let mut map = SlotMap::read(&reply, &asked).unwrap();
        let told = |map: &SlotMap, slot| map.owner(slot).map(Address::to_string);
        let table = [
            (0, Some("a:7000")),
            (150, Some("asked:7001")),
            (250, None),
            (399, Some("a:7000")),
            (400, None),
            (16383, Some("asked:7003")),
        ];
        for (slot, expect) in table {
            assert_eq!(told(&map, slot).as_deref(), expect, "{slot}");
        }
        assert_eq!(map.masters().len(), 3);
        map.set(0, &Address::Tcp { host: "b".to_owned(), port: 1 });
        assert_eq!((told(&map, 0).as_deref(), told(&map, 1).as_deref()), (Some("b:1"), Some("a:7000")));
        assert_eq!(map.owner(SLOT_COUNT), None);
    }

    #[test]
    fn another_reply_is_no_map() {
        let asked = Address::Tcp { host: "asked".to_owned(), port: 1 };
        let table = [
            Value::Nil,
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![range(0, 16384, bulk("a"), 1)]),
            Value::Array(vec![range(2, 1, bulk("a"), 1)]),
            Value::Array(vec![range(0, 1, bulk("a"), 65536)]),
        ];
        for reply in table {
            assert_eq!(SlotMap::read(&reply, &asked), None, "{reply:?}");
        }
    }
}
