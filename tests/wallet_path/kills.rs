//! SIGKILL of either side at random moments.

use crate::support::{Dice, PATIENCE, await_until, env_number, seed};
use crate::{Scene, metric, start_wallet};

#[test]
fn kills_on_either_side_lose_nothing_and_pay_nothing_twice() {
    let kills = env_number("HONGBAO_KILLS", 4);
    let mut dice = Dice(seed());
    let mut scene = Scene::start(
        &["drop_after_rate=0.05", "latency_ms=3"],
        &[
            "stored_value.deadline_ms=500",
            "stored_value.batch_count_max=200",
            "data.checkpoint_bytes=1048576",
        ],
        str::to_owned,
    );
    let address = scene.wallet().address.clone();
    for kill in 0..kills {
        scene.pay(&format!("k{kill}"), 2_000, |n| format!("p{}", n % 500));
        let until = dice.roll(2_000) as f64;
        let paid = || metric(scene.service(), "hongbao_outcomes_total{status=\"SUCCEEDED\"}");
        let from = paid();
        await_until("some to be paid", PATIENCE, || {
            (paid() >= (from + until).min(from + 1_500.0)).then_some(())
        });
        if dice.roll(2) == 0 {
            println!("kill {kill}: the service after {until}");
            scene.service.take().unwrap().kill();
            scene.service = Some(scene.setup.start());
        } else {
            println!("kill {kill}: the wallet after {until}");
            scene.wallet.take().unwrap().kill();
            let wallet =
                start_wallet(&scene.wallet_data(), &address, &["drop_after_rate=0.05", "latency_ms=3"]);
            scene.wallet = Some(wallet);
        }
    }
    scene.await_final();
    scene.must_agree();
}
