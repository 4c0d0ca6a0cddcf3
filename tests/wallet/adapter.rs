//! The table of cases that every remote wallet keeps, at the wallet service through the HTTP adapter. The one in
//! PostgreSQL answers the same table in `tests/postgres.rs`.

use hongbao::stored_value::http::{HttpOptions, HttpWallet};

use crate::start;
use crate::support::cases::{CASES, answer_words};

#[test]
fn every_case_answers_as_in_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (number, (name, steps)) in CASES.iter().enumerate() {
        let server = start(&folder.path().join(number.to_string()), &[]);
        let options = HttpOptions {
            url: format!("http://{}", server.address),
            authorization: String::new(),
            ca_file: String::new(),
            connections_max: 2,
        };
        runtime.block_on(async {
            let wallet = HttpWallet::new(&options).unwrap();
            for (line, expected) in *steps {
                assert_eq!(answer_words(&wallet, line).await, *expected, "{name}: {line}");
            }
        });
        // Credits minus debits; the books are one with themselves.
        let body = server.must("GET /balances?account=funding:s", "", 200);
        assert!(body["sums"].as_object().unwrap().values().all(|sum| *sum == 0), "{name}: {body}");
    }
}
