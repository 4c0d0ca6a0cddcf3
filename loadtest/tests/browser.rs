//! The report in a real browser: charts are drawn at both widths, nothing sticks out, the pointer brings up numbers, the
//! console stays silent. Needs Chromium, so it is run by `cargo test -p hongbao-loadtest -- --ignored`.

use std::path::Path;
use std::process::Command;

use hongbao_loadtest::record::{Percentiles, SecondRow};
use hongbao_loadtest::report;
use hongbao_loadtest::result::{RunResult, Series, StateSpan};
use hongbao_loadtest::scenario::Scenario;
use hongbao_loadtest::verdict;

/// Moves the pointer over the first chart that is shown, and writes down what there is to see.
const PROBE: &str = r#"<script>addEventListener("load", () => {
  const shown = [...document.querySelectorAll("svg.chart")].filter(svg => svg.getBoundingClientRect().width > 0);
  const svg = shown[0], box = svg.getBoundingClientRect();
  const at = { clientX: box.left + box.width * 0.5, clientY: box.top + 40, bubbles: true };
  svg.dispatchEvent(new PointerEvent("pointermove", at));
  const seen = {
    charts: shown.length, paths: svg.querySelectorAll("path.stroke").length,
    wide: shown.filter(svg => svg.classList.contains("wide")).length,
    sticks_out: document.documentElement.scrollWidth > innerWidth, width: innerWidth,
    tip: document.getElementById("tip").innerText,
  };
  const note = document.createElement("p");
  note.id = "seen";
  note.textContent = JSON.stringify(seen);
  document.body.append(note);
});</script></body>"#;

fn made_up() -> RunResult {
    let mut result = RunResult::blank(Scenario::load("smoke").unwrap(), "0a1b2c3d");
    let wave = |top: f64| (0..60).map(|n| top * (1.0 + f64::from(n % 7)) / 7.0).collect::<Vec<f64>>();
    result.series = Series {
        step_s: 0.5,
        offered: wave(4_000.0),
        accepted: wave(3_900.0),
        refused: wave(0.0),
        retried: wave(0.0),
        settled: wave(1_500.0),
        wallet: wave(1_500.0),
        backlog: wave(90_000.0),
    };
    let row = |at_s| SecondRow { at_s, count: 10, p50_us: 900, p90_us: 2_000, p99_us: 9_000, max_us: 40_000 };
    result.accept_rows = (0..30).map(row).collect();
    result.accept_curve = vec![(0.0, 500), (90.0, 2_000), (99.0, 9_000)];
    result.accept = Percentiles { p50: 900, p90: 2_000, p99: 9_000, p999: 20_000, max: 40_000, count: 300 };
    result.load_end_s = 25.0;
    let state =
        "held back: POST http://127.0.0.1:39999/v1/transfers: answered 503 Service Unavailable".to_owned();
    result.states.push(StateSpan { on: "breaker of instance-0".to_owned(), from_s: 3.0, to_s: 9.0, state });
    result.environment.settings = vec!["stored_value.http.url=http://127.0.0.1:39999".to_owned(); 4];
    result.objectives = verdict::objectives(&result);
    result.verdict = verdict::judge(&result, false, &[]);
    result
}

/// What the probe saw, and what the console said.
fn open(page: &Path, width: u32) -> (serde_json::Value, String) {
    let output = Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--window-size={width},1000"))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("chromium is installed (apt-get install chromium)");
    let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let seen = dom.split("<p id=\"seen\">").nth(1).and_then(|rest| rest.split("</p>").next());
    let seen = seen.unwrap_or_else(|| panic!("the probe did not run: {log}"));
    let console: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    (serde_json::from_str(&seen.replace("&amp;", "&")).expect("JSON"), console.join("\n"))
}

#[test]
#[ignore = "needs chromium"]
fn the_report_opens_in_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (made_up(), made_up());
    for (name, html) in [("run.html", report::of_run(&a)), ("two.html", report::of_two(&a, &b))] {
        let page = folder.path().join(name);
        std::fs::write(&page, html.replace("</body>", PROBE)).unwrap();
        for (width, is_wide) in [(1_280, true), (390, false)] {
            let (seen, console) = open(&page, width);
            assert_eq!(console, "", "{name} at {width}");
            assert!(seen["charts"].as_u64() >= Some(3), "{name} at {width}: {seen}");
            assert!(seen["paths"].as_u64() >= Some(2), "{name} at {width}: {seen}");
            assert_eq!(seen["wide"] == seen["charts"], is_wide, "{name} at {width}: {seen}");
            assert_eq!(seen["sticks_out"], false, "{name} at {width}: {seen}");
            assert!(seen["tip"].as_str().is_some_and(|tip| tip.contains("at ")), "{name} at {width}: {seen}");
        }
    }
}
