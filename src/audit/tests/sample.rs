//! A journal in which everything happens once and all is well.

use super::encoder::{Frame, Item};
use crate::domain::status::Status::{self, Canceled, Failed, Queued, Reversed, Succeeded};

pub const NOBODY: u32 = u32::MAX;

pub fn frame(kind: u8, items: Vec<Item>) -> Frame {
    Frame { kind, items, begins_segment: false }
}

pub fn section(queue: (u8, u8), first: u64, count: u32) -> Item {
    Item::Section { queue, first, count }
}

pub fn disbursement(id: &'static str, amount: u64, party: &'static str) -> Item {
    Item::Request { kind: 1, id, amount, party, merchant: "", original: "" }
}

pub fn outcome(of: &'static str, status: Status, amount: u64) -> Item {
    let code = if status == Failed { 11 } else { 0 };
    Item::Outcome { of, status, code, reason: u8::from(status == Queued) * 3, amount }
}

pub fn account(number: u32, name: &'static str) -> Item {
    Item::Account { number, currency: "CNY", name }
}

fn other(kind: u8, id: &'static str, amount: u64, names: [&'static str; 3]) -> Item {
    let [party, merchant, original] = names;
    Item::Request { kind, id, amount, party, merchant, original }
}

/// Lines of the clients' list for it.
pub const ACKS: &str = "s f-1 500\ns r-1 100\ns r-2 50\ns r-3 70\ns r-4 40\ns r-5 30\ns r-5 30\ns r-9 60\n";

const CONTROL: (u8, u8) = (0, 0);
const QUEUE: (u8, u8) = (1, 3);

pub fn sample() -> Vec<Frame> {
    [funding(), payouts(), later()].concat()
}

fn ack(queue: (u8, u8), below: u64) -> Frame {
    frame(19, vec![Item::Ack { queue, below }])
}

/// Frames 0 to 4: a campaign is defined and funded.
fn funding() -> Vec<Frame> {
    let json = r#"{"client":"s","id":"c","currency":"CNY","budget":600,"state":"active"}"#;
    vec![
        frame(20, vec![Item::Campaign { number: 1, json: json.into() }]),
        frame(16, vec![section(CONTROL, 0, 1), other(4, "f-1", 500, ["", "", ""])]),
        frame(
            17,
            vec![
                account(0, "funding:s"),
                account(1, "campaign:s:c"),
                Item::Transfer(1, 0, 500, 0, 1, "s:f-1", ""),
            ],
        ),
        frame(18, vec![outcome("f-1", Succeeded, 500)]),
        ack(CONTROL, 1),
    ]
}

/// Frames 5 to 10: paid, canceled, refused, waiting, and one still in its queue.
fn payouts() -> Vec<Frame> {
    vec![
        frame(
            16,
            vec![
                section(QUEUE, 0, 3),
                disbursement("r-1", 100, "ann"),
                disbursement("r-2", 50, "bob"),
                disbursement("r-3", 70, "ann"),
            ],
        ),
        frame(
            16,
            vec![
                section(QUEUE, 3, 3),
                disbursement("r-4", 40, "bob"),
                disbursement("r-5", 30, "ann"),
                disbursement("r-9", 60, "ann"),
            ],
        ),
        frame(
            17,
            vec![
                account(2, "person:ann"),
                account(3, "person:bob"),
                Item::Transfer(1, 0, 100, 1, 2, "s:r-1", ""),
                Item::Transfer(1, 0, 50, 1, 3, "s:r-2", ""),
                Item::Transfer(6, 3, 70, NOBODY, NOBODY, "s:r-3", ""),
                Item::Transfer(1, 11, 40, 1, 3, "s:r-4", ""),
                Item::Transfer(1, 14, 30, 1, 2, "s:r-5", ""),
            ],
        ),
        frame(
            18,
            vec![
                outcome("r-1", Succeeded, 100),
                outcome("r-2", Succeeded, 50),
                outcome("r-3", Canceled, 70),
                outcome("r-4", Failed, 40),
                outcome("r-5", Queued, 30),
                outcome("r-1", Succeeded, 100),
            ],
        ),
        ack(QUEUE, 5),
        frame(0, vec![]),
    ]
}

/// Frames 11 to 16: a reversal, a collection, a cancel that came too late; holds, which only the wallet's own
/// callers make; and a crash between the transfer of r-9 and its outcome.
fn later() -> Vec<Frame> {
    vec![
        frame(
            16,
            vec![
                section(CONTROL, 1, 3),
                other(3, "v-1", 50, ["bob", "", "r-2"]),
                other(2, "c-1", 20, ["ann", "shop", ""]),
                other(6, "k-1", 100, ["ann", "", "r-1"]),
            ],
        ),
        frame(
            17,
            vec![
                account(4, "merchant:shop"),
                Item::Transfer(5, 0, 50, 3, 1, "s:v-1", "s:r-2"),
                Item::Transfer(1, 0, 20, 2, 4, "s:c-1", ""),
            ],
        ),
        frame(
            18,
            vec![
                outcome("v-1", Succeeded, 50),
                outcome("r-2", Reversed, 50),
                outcome("c-1", Succeeded, 20),
                outcome("k-1", Failed, 100),
            ],
        ),
        ack(CONTROL, 4),
        frame(
            17,
            vec![
                Item::Transfer(2, 0, 10, 1, 2, "w:h-1", ""),
                Item::Transfer(3, 0, 10, 1, 2, "w:p-1", "w:h-1"),
                Item::Transfer(2, 0, 10, 1, 2, "w:h-2", ""),
                Item::Transfer(4, 0, 10, NOBODY, NOBODY, "w:o-2", "w:h-2"),
                Item::Transfer(1, 0, 60, 1, 2, "s:r-9", ""),
            ],
        ),
        frame(0, vec![]),
    ]
}
