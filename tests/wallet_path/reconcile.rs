//! `hongbao reconcile` against a wallet that agrees, and against one whose books are from before.

use serde_json::Value;

use crate::support::{Said, hongbao};
use crate::{Scene, start_wallet};

fn reconcile(scene: &Scene, url: &str, more: &[&str]) -> Said {
    let mut command = hongbao();
    let data = format!("data.dir={}", scene.setup.data.display());
    let url = format!("stored_value.http.url=http://{url}");
    command.args(["reconcile", "--json", "--from", "2020-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z"]);
    command.args(more);
    for set in scene.setup.sets.iter().map(String::as_str).chain([data.as_str(), url.as_str()]) {
        command.args(["--set", set]);
    }
    let output = command.output().unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn books_that_agree_and_books_that_do_not() {
    let mut scene = Scene::start(&[], &[], str::to_owned);
    // A copy of the wallet as it stood before anything was paid: the same identity, other books.
    let address = scene.wallet().address.clone();
    scene.wallet.take().unwrap().end_well();
    let before = scene.wallet_data().with_file_name("before");
    crate::race::copy(&scene.wallet_data(), &before);
    scene.wallet = Some(start_wallet(&scene.wallet_data(), &address, &["drop_after_rate=0.2"]));
    scene.pay("r", 3_000, |n| format!("p{n}"));
    scene.await_final();
    crate::support::await_until("the view to have read all", crate::support::PATIENCE, || {
        (crate::metric(scene.service(), "hongbao_view_lag_bytes") == 0.0).then_some(())
    });

    let state = scene.setup.data.with_file_name("state");
    let state = ["--state", state.to_str().unwrap()];
    let well = reconcile(&scene, &scene.wallet().address, &state);
    assert_eq!(well.code, Some(0), "{well:?}");
    let tally: Value = serde_json::from_str(&well.out).unwrap();
    assert_eq!((&tally["compared"], &tally["agreed"]), (&Value::from(3_001), &Value::from(3_001)), "{tally}");
    assert_eq!(tally["sums"]["CNY"]["ours"], tally["sums"]["CNY"]["wallets"]);
    // Taken up again, there is nothing left to do, and the same verdict; for another span it is refused.
    let again = reconcile(&scene, &scene.wallet().address, &state);
    assert_eq!((again.code, again.out.as_str()), (Some(0), well.out.as_str()));
    let other_span = reconcile(
        &scene,
        &scene.wallet().address,
        &[&state[..], &["--from", "2021-01-01T00:00:00Z"]].concat(),
    );
    assert_eq!(other_span.code, Some(2), "{other_span:?}");

    let earlier = start_wallet(&before, "127.0.0.1:0", &[]);
    let wrong = reconcile(&scene, &earlier.address, &[]);
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    let tally: Value = serde_json::from_str(&wrong.out).unwrap();
    assert_eq!(tally["differed"], 3_000, "the funding was there already: {tally}");
    assert_eq!(tally["differences"][0]["difference"], "not_at_wallet");
    assert!(tally["differences"][0]["id"].as_str().unwrap().starts_with("default:r-"));

    // Another wallet altogether is not even asked.
    let stranger = start_wallet(&scene.setup.data.with_file_name("stranger"), "127.0.0.1:0", &[]);
    let refused = reconcile(&scene, &stranger.address, &[]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("URL"), "{refused:?}");
    scene.must_agree();
}
