//! The wallet's contract as a table of cases, one for every remote wallet: what each call of a case answers is the
//! same, whichever adapter makes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hongbao::digest::{key_hash, money_digest};
use hongbao::domain::{Amount, Currency, Transfer, TransferKind, TransferStatus};
use hongbao::stored_value::TransferBatch;
use hongbao::stored_value::remote::{CallError, OnRecord, RemoteWallet};

use super::PATIENCE;

pub const DEADLINE: Duration = Duration::from_secs(20);

/// A transfer in words, `kind id debit credit amount currency of expires_in_s`; `-` is nothing.
#[derive(Clone, Debug)]
pub struct Words {
    pub kind: TransferKind,
    pub id: String,
    pub debit: String,
    pub credit: String,
    pub amount: u64,
    pub currency: &'static str,
    pub of: String,
    pub expires_in_s: u32,
}

impl Words {
    pub fn transfer(id: &str, debit: &str, credit: &str, amount: u64) -> Words {
        Words {
            kind: TransferKind::Transfer,
            id: id.to_owned(),
            debit: debit.to_owned(),
            credit: credit.to_owned(),
            amount,
            currency: "CNY",
            of: String::new(),
            expires_in_s: 0,
        }
    }

    pub fn parse(line: &str) -> Words {
        let words: Vec<&str> = line.split_whitespace().collect();
        let word = |at: usize| words.get(at).copied().filter(|word| *word != "-").unwrap_or("").to_owned();
        let kinds = (1..=6).filter_map(TransferKind::from_u8);
        Words {
            kind: kinds.into_iter().find(|kind| kind.as_str() == words[0]).expect("a kind"),
            id: word(1),
            debit: word(2),
            credit: word(3),
            amount: words[4].parse().expect("an amount"),
            currency: if word(5) == "USD" { "USD" } else { "CNY" },
            of: word(6),
            expires_in_s: words.get(7).map_or(0, |word| word.parse().expect("seconds")),
        }
    }

    pub fn push(&self, batch: &mut TransferBatch) {
        let mut transfer = Transfer {
            kind: self.kind,
            id: self.id.as_bytes(),
            key_hash: key_hash(self.id.as_bytes()),
            digest: [0; 16],
            debit: self.debit.as_bytes(),
            credit: self.credit.as_bytes(),
            amount: Amount::new(self.amount).expect("an amount"),
            currency: Currency::parse(self.currency).expect("a currency"),
            of: self.of.as_bytes(),
            expires_in_s: self.expires_in_s,
        };
        transfer.digest = money_digest(&transfer, &mut Vec::new());
        batch.push(&transfer);
    }
}

pub fn batch(words: &[Words]) -> Arc<TransferBatch> {
    let mut batch = TransferBatch::default();
    for transfer in words {
        transfer.push(&mut batch);
    }
    Arc::new(batch)
}

pub fn told(status: TransferStatus) -> &'static str {
    match status {
        TransferStatus::Succeeded => "ok",
        TransferStatus::Failed(code) => code.as_str(),
        TransferStatus::Unknown => "unknown",
    }
}

pub async fn send(wallet: &dyn RemoteWallet, words: &[Words]) -> Result<Vec<TransferStatus>, CallError> {
    let answers = wallet.transfer(batch(words), DEADLINE).await?;
    assert_eq!(answers.len(), words.len());
    Ok(answers.into_iter().map(|answer| answer.status).collect())
}

/// Each case: its calls, one line a batch, entries separated by `;`, and what they answer. `until` before a line asks
/// again and again while the answer is `low_balance`.
pub const CASES: &[(&str, &[(&str, &str)])] = &[
    (
        "a repeat gets the recorded result, other money fields a conflict",
        &[
            ("transfer f funding:s campaign:c 100", "ok"),
            ("transfer a campaign:c person:p 10", "ok"),
            ("transfer a campaign:c person:p 10", "ok"),
            ("transfer a campaign:c person:p 11", "id_conflict"),
            ("transfer a campaign:c person:q 10", "id_conflict"),
            ("transfer a campaign:c person:p 10 USD", "id_conflict"),
            ("hold a campaign:c person:p 10", "id_conflict"),
            ("transfer b campaign:c person:p 90; transfer a campaign:c person:p 10", "ok ok"),
            ("transfer c campaign:c person:p 1", "low_balance"),
        ],
    ),
    (
        "a low balance is not recorded: the same id is paid later",
        &[
            ("transfer a campaign:c person:p 10", "low_balance"),
            ("lookup a", "-"),
            ("transfer f funding:s campaign:c 15", "ok"),
            ("transfer a campaign:c person:p 10", "ok"),
            ("lookup a", "ok:10"),
        ],
    ),
    (
        "what fits is paid, in order, where not all of it fits",
        &[
            ("transfer f funding:s campaign:c 100", "ok"),
            (
                "transfer a campaign:c person:p 60; transfer b campaign:c person:q 50; transfer c campaign:c person:q 40; transfer d campaign:c person:q 1",
                "ok low_balance ok low_balance",
            ),
            (
                "transfer f2 funding:s campaign:c 51; transfer b campaign:c person:q 50; transfer d campaign:c person:q 1",
                "ok ok ok",
            ),
        ],
    ),
    (
        "the order of a batch decides where an account both pays and receives",
        &[
            ("transfer a campaign:c person:p 10; transfer f funding:s campaign:c 10", "low_balance ok"),
            ("transfer a campaign:c person:p 10; transfer m person:p merchant:m 10", "ok ok"),
        ],
    ),
    (
        "a repeat within a batch is a repeat",
        &[
            ("transfer f funding:s campaign:c 100; transfer f funding:s campaign:c 100", "ok ok"),
            ("transfer a campaign:c person:p 60; transfer a campaign:c person:p 60", "ok ok"),
            (
                "transfer b campaign:c person:p 10; transfer b campaign:c person:p 11; transfer b campaign:c person:p 10",
                "ok id_conflict ok",
            ),
            (
                "transfer d campaign:c person:p 50; transfer d campaign:c person:p 30; transfer e campaign:c person:p 1",
                "low_balance ok low_balance",
            ),
            ("transfer d campaign:c person:p 50; transfer d campaign:c person:p 30", "id_conflict ok"),
        ],
    ),
    (
        "a burned id is never paid, a paid one never burned",
        &[
            ("transfer f funding:s campaign:c 100", "ok"),
            ("transfer a campaign:c person:p 1", "ok"),
            ("burn x a x", "burned ok burned"),
            ("transfer x campaign:c person:p 1; transfer y campaign:c person:p 1", "burned ok"),
            ("transfer x campaign:c person:p 1; transfer x campaign:c person:p 2", "burned burned"),
            ("hold x campaign:c person:p 1", "burned"),
            ("burn x y", "burned ok"),
            ("lookup x y z", "burned ok:1 -"),
        ],
    ),
    (
        "a hold sets aside, a post moves it, a void gives it back",
        &[
            ("transfer f funding:s campaign:c 100", "ok"),
            ("hold h campaign:c person:p 70", "ok"),
            ("hold h campaign:c person:p 70", "ok"),
            ("transfer a campaign:c person:p 31", "low_balance"),
            ("hold h2 campaign:c person:p 31", "low_balance"),
            ("post p - - 69 CNY h", "amount_limit"),
            ("post p - - 69 CNY h", "amount_limit"),
            ("post q - - 70 CNY h", "ok"),
            ("post q - - 70 CNY h", "ok"),
            ("post r - - 70 CNY h", "wallet_refused"),
            ("void v - - 70 CNY h", "wallet_refused"),
            ("hold g campaign:c person:p 30", "ok"),
            ("void w - - 30 CNY g", "ok"),
            ("void w - - 30 CNY g", "ok"),
            ("post s - - 30 CNY g", "wallet_refused"),
            ("post t - - 30 CNY nothing", "wallet_refused"),
            ("transfer b campaign:c person:p 30", "ok"),
            ("hold i person:p merchant:m 5; post j - - 5 CNY i; void k - - 5 CNY i", "ok ok wallet_refused"),
        ],
    ),
    (
        "a void names the amount and the currency of its hold",
        &[
            ("transfer f funding:s campaign:c 100", "ok"),
            ("hold h campaign:c person:p 70", "ok"),
            ("void v - - 69 CNY h", "amount_limit"),
            ("void w - - 70 USD h; post p - - 70 USD h", "wallet_refused wallet_refused"),
            ("transfer a campaign:c person:p 31", "low_balance"),
            ("void x - - 70 CNY h; transfer a campaign:c person:p 31", "ok ok"),
        ],
    ),
    (
        "a hold that expired gives its money back and can be ended no more",
        &[
            ("transfer f funding:s campaign:c 100", "ok"),
            ("hold h campaign:c person:p 70 CNY - 1; hold k campaign:c person:p 30 CNY - 600", "ok ok"),
            // Another time is the same hold, and the first time stands.
            ("hold h campaign:c person:p 70 CNY - 600; hold k campaign:c person:p 30 CNY - 1", "ok ok"),
            ("until transfer a campaign:c person:q 70", "ok"),
            ("post p - - 70 CNY h", "wallet_refused"),
            ("post p - - 70 CNY h", "wallet_refused"),
            ("void v - - 70 CNY h", "wallet_refused"),
            ("void v - - 70 CNY h", "wallet_refused"),
            ("reverse r person:p campaign:c 1 CNY h", "wallet_refused"),
            ("hold h campaign:c person:p 70 CNY - 1", "ok"),
            ("hold h campaign:c person:p 71 CNY - 1", "id_conflict"),
            ("lookup h p v a", "ok:70 wallet_refused:70 wallet_refused:70 ok:70"),
            ("transfer b campaign:c person:q 1", "low_balance"),
            ("post q - - 30 CNY k", "ok"),
            ("transfer b campaign:c person:q 1", "low_balance"),
        ],
    ),
    (
        "whoever comes first after the expiry finds the hold ended: a post, a void, a hold, a reversal",
        &[
            ("transfer f funding:s campaign:a 10; transfer g funding:s campaign:b 10", "ok ok"),
            ("transfer i funding:s campaign:c 10; transfer j funding:s campaign:d 10", "ok ok"),
            ("transfer t campaign:d person:p 10; transfer u funding:s campaign:e 10", "ok ok"),
            // What is made in one batch ends at one moment.
            (
                "hold ha campaign:a person:p 10 CNY - 1; hold hb campaign:b person:p 10 CNY - 1; hold hc campaign:c person:p 10 CNY - 1; hold hd person:p merchant:m 10 CNY - 1; hold he campaign:e person:p 10 CNY - 1",
                "ok ok ok ok ok",
            ),
            ("reverse r person:p campaign:d 10 CNY t", "low_balance"),
            ("until transfer a campaign:e person:q 10", "ok"),
            ("post pa - - 10 CNY ha", "wallet_refused"),
            ("void vb - - 10 CNY hb", "wallet_refused"),
            ("hold c campaign:c person:q 10", "ok"),
            ("reverse r person:p campaign:d 10 CNY t", "ok"),
            ("transfer x campaign:a person:q 10; transfer y campaign:b person:q 10", "ok ok"),
            ("transfer z campaign:c person:q 1; post pc - - 10 CNY c", "low_balance ok"),
        ],
    ),
    (
        "a hold that was ended in time is not ended again by its expiry",
        &[
            ("transfer f funding:s campaign:c 100", "ok"),
            (
                "hold h campaign:c person:p 30 CNY - 1; post p - - 30 CNY h; hold g campaign:c person:p 20 CNY - 1",
                "ok ok ok",
            ),
            ("void v - - 20 CNY g; hold i campaign:c person:p 70 CNY - 1", "ok ok"),
            ("until hold k campaign:c person:q 70", "ok"),
            ("transfer a campaign:c person:q 1", "low_balance"),
            ("post p - - 30 CNY h; void v - - 20 CNY g; void w - - 70 CNY k", "ok ok ok"),
            ("transfer b campaign:c person:q 71; transfer c campaign:c person:q 70", "low_balance ok"),
        ],
    ),
    (
        "what a post moved is taken back in parts, never past it",
        &[
            ("transfer f funding:s campaign:c 50; hold h campaign:c person:p 50 CNY - 600", "ok ok"),
            ("reverse r0 person:p campaign:c 1 CNY h", "wallet_refused"),
            ("post p - - 50 CNY h", "ok"),
            ("reverse r1 person:p campaign:c 20 CNY p; reverse r1 person:p campaign:c 20 CNY p", "ok ok"),
            ("reverse r1 person:p campaign:c 21 CNY p", "id_conflict"),
            (
                "reverse r2 person:p campaign:c 31 CNY p; reverse r3 person:p campaign:c 30 CNY p",
                "amount_limit ok",
            ),
            (
                "reverse r2 person:p campaign:c 31 CNY p; reverse r4 person:p campaign:c 1 CNY p",
                "amount_limit amount_limit",
            ),
            ("transfer a campaign:c person:q 51; transfer b campaign:c person:q 50", "low_balance ok"),
        ],
    ),
    (
        "a reversal never takes back more than was paid",
        &[
            ("transfer f funding:s campaign:c 100", "ok"),
            ("transfer a campaign:c person:p 50", "ok"),
            ("reverse r1 person:p campaign:c 30 CNY a", "ok"),
            ("reverse r1 person:p campaign:c 30 CNY a", "ok"),
            ("reverse r2 person:p campaign:c 21 CNY a", "amount_limit"),
            ("reverse r3 person:p campaign:c 20 CNY a", "ok"),
            ("reverse r4 person:p campaign:c 1 CNY a", "amount_limit"),
            ("reverse r5 person:q campaign:c 1 CNY a", "wallet_refused"),
            ("reverse r6 person:p campaign:c 1 USD a", "wallet_refused"),
            ("reverse r7 person:p campaign:c 1 CNY nothing", "wallet_refused"),
            ("reverse r8 campaign:c person:p 1 CNY r1", "wallet_refused"),
            (
                "transfer b campaign:c person:q 10; reverse r9 person:q campaign:c 4 CNY b; reverse r10 person:q campaign:c 7 CNY b",
                "ok ok amount_limit",
            ),
            ("transfer m person:q merchant:m 6", "ok"),
            ("reverse r11 person:q campaign:c 6 CNY b", "low_balance"),
            ("transfer g funding:s person:q 6; reverse r11 person:q campaign:c 6 CNY b", "ok ok"),
        ],
    ),
    (
        "an account has a balance for each currency",
        &[
            ("transfer f funding:s campaign:c 100; transfer g funding:s campaign:c 5 USD", "ok ok"),
            ("transfer a campaign:c person:p 6 USD", "low_balance"),
            ("transfer a campaign:c person:p 5 USD; transfer b campaign:c person:p 100", "ok ok"),
        ],
    ),
    (
        "names are data",
        &[
            ("transfer f funding:s campaign:c 100", "ok"),
            ("transfer a';-- campaign:c person:红包\"{}\\,NULL 7", "ok"),
            ("transfer NULL campaign:c person:% 7", "ok"),
            ("lookup a';-- NULL", "ok:7 ok:7"),
        ],
    ),
];

/// What a line of a case answers.
pub async fn answer_words(wallet: &dyn RemoteWallet, line: &str) -> String {
    let Some(line) = line.strip_prefix("until ") else { return answer_once(wallet, line).await };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = answer_once(wallet, line).await;
        if answer != "low_balance" {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {line}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn answer_once(wallet: &dyn RemoteWallet, line: &str) -> String {
    let (call, rest) = line.split_once(' ').expect("a call");
    let ids: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    let words: Vec<String> = match call {
        "burn" => {
            let answers = wallet.burn(ids, DEADLINE).await.expect("answers");
            answers.into_iter().map(|answer| told(answer.status).to_owned()).collect()
        }
        "lookup" => {
            let found = wallet.lookup(ids, DEADLINE).await.expect("answers");
            let word = |found: Option<OnRecord>| match found {
                None => "-".to_owned(),
                Some(found) => {
                    let amount = found.amount.map(|amount| format!(":{amount}")).unwrap_or_default();
                    told(found.answer.status).to_owned() + &amount
                }
            };
            found.into_iter().map(word).collect()
        }
        _ => {
            let words: Vec<Words> = line.split("; ").map(Words::parse).collect();
            let statuses = send(wallet, &words).await.expect("answers");
            statuses.into_iter().map(|status| told(status).to_owned()).collect()
        }
    };
    words.join(" ")
}
