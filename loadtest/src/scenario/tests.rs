//! Scenarios as tables: what is refused and what the refusal says; that all shipped ones are sound.

use super::*;

const GOOD: &str = "about = \"a test\"\narrivals = { shape = \"constant\", per_s = 100, for_s = 2 }\n";

fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    Scenario::parse("test", text, Path::new("."))
}

#[test]
fn shipped_scenarios_are_sound() {
    for (name, text) in SHIPPED {
        let scenario = parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!scenario.about.is_empty() && scenario.about.is_ascii(), "{name}");
        let small = scenario.clone().scaled(0.1);
        let (all, tenth) = (scenario.arrivals.arrivals().unwrap(), small.arrivals.arrivals().unwrap());
        assert!((all.total() * 0.1 - tenth.total()).abs() < 1.0, "{name}");
    }
    assert_eq!(Scenario::load("fleet-failover").unwrap().needs(), Some("redis"));
}

#[test]
fn what_is_refused_and_why() {
    // Added to a good one, what the refusal says.
    let table = [
        ("abuot = 1", "`about`"),
        ("[load]\nbatch_shar = 0.5", "did you mean `batch_share`"),
        ("[load]\nbatch_share = 1.5", "from 0 to 1"),
        ("[load]\npayee_pick = \"zip\"", "did you mean `zipf`"),
        ("[setup]\ninstances = 3", "intake"),
        ("[setup]\nset = [\"nonsense\"]", "section.key=value"),
        ("[setup]\nwallet = \"embedded\"\n[wallet.faults]\nlatency_ms = 5", "reference"),
        ("[wallet.faults]\ncapacity = 5", "did you mean `capacity_per_s`"),
        ("[[wallet.change]]\nat_s = 1\nfaults = { eror_rate = 1 }", "did you mean `error_rate`"),
        ("[[fault]]\nat_s = 1\nfor_s = 1\nkind = \"kill\"\non = \"instance-1\"", "instance-0, wallet"),
        ("[[fault]]\nat_s = 1\nfor_s = 1\nkind = \"freze\"\non = \"wallet\"", "did you mean `freeze`"),
        ("[[fault]]\nat_s = 1\nfor_s = 1\nkind = \"cut\"\non = \"instance-0\"", "freeze or kill"),
        ("[objectives]\naccept_p99 = 5", "did you mean `accept_p99_ms`"),
        ("[objectives]\naccept_p99_ms = -5.0", "objectives.accept_p99_ms is -5"),
        ("[objectives]\naccept_p99_ms = nan", "objectives.accept_p99_ms is NaN"),
        ("[objectives]\nrefused_share_max = 2.0", "objectives.refused_share_max is 2"),
        ("[load]\ndoor = \"list\"", "redis"),
        ("[generator]\nconnections = 0", "connections"),
        ("[search]\nstep_s = 1", "accept_p99_ms"),
        ("[claims]\nshare = 2", "from 0.000001 to 1"),
        ("[claims]\nshares = 2", "did you mean `share`"),
        ("[[fault]]\nat_s = 1\nfor_s = 1\nkind = \"kill\"\non = \"backend\"", "instance-0, wallet"),
        // The load ends at 2 s, and a minute later everything should be final.
        (
            "[[fault]]\nat_s = 60\nfor_s = 3\nkind = \"kill\"\non = \"wallet\"",
            "fault kill on wallet would be mended too late, 63 s",
        ),
        ("[[fault]]\nat_s = 70\nfor_s = 1\nkind = \"wallet_down\"", "fault wallet_down would be mended"),
        ("[[wallet.change]]\nat_s = 63\nfaults = { error_rate = 1 }", "wallet.change.at_s is too late"),
    ];
    parse(GOOD).expect("good as it is");
    // In the valley, while the rest is settled, things may go wrong as well.
    parse(&format!("{GOOD}[[fault]]\nat_s = 60\nfor_s = 2\nkind = \"kill\"\non = \"wallet\""))
        .expect("in time");
    for (added, says) in table {
        let error = parse(&format!("{GOOD}{added}")).expect_err(added).to_string();
        assert!(error.contains(says), "{added}: {error}");
    }
    // Arrivals, what the refusal says.
    let table = [
        ("{ shape = \"constnt\", per_s = 1, for_s = 1 }", "did you mean `constant`"),
        ("{ shape = \"constant\", per_s = -1, for_s = 1 }", "per_s"),
        ("{ shape = \"constant\", per_s = 0.1, for_s = 1 }", "less than one"),
        ("{ shape = \"constant\", per_s = 1, for_s = 1, to_s = 3 }", "to_s"),
        ("{ shape = \"replay\", file = \"nowhere.txt\" }", "nowhere.txt"),
        (
            "{ shape = \"spike\", base_per_s = 1, peak_per_s = 9, at_s = 5, rise_s = 1, hold_s = 1, decay_s = 1, for_s = 6 }",
            "for_s less",
        ),
    ];
    for (arrivals, says) in table {
        let error = parse(&format!("about = \"x\"\narrivals = {arrivals}")).expect_err(arrivals).to_string();
        assert!(error.contains(says), "{arrivals}: {error}");
    }
}

#[test]
fn a_wrong_name_is_told_the_nearest() {
    let error = Scenario::load("spring-gale").unwrap_err().to_string();
    assert!(error.contains("spring-gala"), "{error}");
}

#[test]
fn times_are_replayed_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = |text: &str| std::fs::write(folder.path().join("times.txt"), text).unwrap();
    let text = "about = \"x\"\narrivals = { shape = \"replay\", file = \"times.txt\", speed = 2 }";
    file("# seconds\n0\n1.5\n\n4\n");
    let scenario = Scenario::parse("test", text, folder.path()).unwrap();
    let arrivals = scenario.arrivals.arrivals().unwrap();
    assert_eq!((arrivals.total(), arrivals.length_s()), (3.0, 2.0));
    for bad in ["2\n1\n", "soon\n", "# nothing\n", "-1\n"] {
        file(bad);
        assert!(Scenario::parse("test", text, folder.path()).is_err(), "{bad:?}");
    }
}
