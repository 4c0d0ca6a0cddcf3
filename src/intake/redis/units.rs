//! What can be owned: the shards, then the foreign lists, numbered in that order.
//!
//! The number is this process's own (it rests on its configuration) and never stored; the name is.

/// The number of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId(pub u16);

/// Shards that there may be.
pub const SHARD_COUNT_MAX: u16 = 1 << 10;

/// At which end producers push, and so which end is the oldest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// `RPUSH`; the head is the oldest.
    #[default]
    Rpush,
    /// `LPUSH`; the tail is the oldest.
    Lpush,
}

/// A list under a name of the user's.
#[derive(Clone, PartialEq, Eq)]
pub struct ForeignList {
    pub name: String,
    /// In whose name its elements are paid.
    pub client: String,
    pub order: Order,
    /// Key of the HMAC-SHA-256 that every element must carry, if any.
    pub hmac_key: Option<Vec<u8>>,
}

impl std::fmt::Debug for ForeignList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hmac_key = self.hmac_key.as_ref().map(|_| "…");
        let ForeignList { name, client, order, .. } = self;
        f.debug_struct("ForeignList")
            .field("name", name)
            .field("client", client)
            .field("order", order)
            .field("hmac_key", &hmac_key)
            .finish()
    }
}

/// A unit, by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit<'a> {
    Shard(u16),
    Foreign(&'a ForeignList),
}

/// All units of this configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    pub shard_count: u16,
    pub fair_queue_count: u8,
    pub foreign: Vec<ForeignList>,
}

impl Units {
    pub fn len(&self) -> usize {
        usize::from(self.shard_count) + self.foreign.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn ids(&self) -> impl Iterator<Item = UnitId> + use<> {
        (0..self.len() as u16).map(UnitId)
    }

    pub fn get(&self, id: UnitId) -> Unit<'_> {
        match usize::from(id.0).checked_sub(usize::from(self.shard_count)) {
            None => Unit::Shard(id.0),
            Some(position) => Unit::Foreign(&self.foreign[position]),
        }
    }

    /// The shard that holds what is known of an id, a batch or a campaign, by its hash; and where its requests go.
    pub fn shard_of(&self, hash: u64) -> UnitId {
        UnitId((hash % u64::from(self.shard_count)) as u16)
    }
}

/// Bits of a place that number the request within its unit.
const SEQUENCE_BITS: u32 = 48;

/// Set in the sequence of what was read from where it was parked.
const PARKED_BIT: u64 = 1 << (SEQUENCE_BITS - 1);

/// The place of a request read from a unit: unique in this process, and of no meaning outside of it.
pub fn place(unit: UnitId, sequence: u64) -> u64 {
    assert!(sequence < PARKED_BIT, "more requests than a process can live to read");
    u64::from(unit.0) << SEQUENCE_BITS | sequence
}

/// The place of a request read from where the unit's requests are parked, under a sequence of its own.
pub fn parked_place(unit: UnitId, sequence: u64) -> u64 {
    place(unit, sequence) | PARKED_BIT
}

/// Whether it was read from where it was parked.
pub fn is_parked_place(place: u64) -> bool {
    place & PARKED_BIT != 0
}

/// The unit of a place.
pub fn unit_of(place: u64) -> UnitId {
    UnitId((place >> SEQUENCE_BITS) as u16)
}
