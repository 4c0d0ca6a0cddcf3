//! The run as it goes: a picture in place on a terminal, or a line every two seconds where none is.
//!
//! While a picture stands, the cursor is hidden and long lines are cut rather than wrapped; both are undone at the
//! end. Absent: any effect on the run.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::generator::Live;
use crate::words::{grouped, micros, seconds, short};

const PICTURE_EVERY: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(2);
const COLUMNS: usize = 72;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What the picture is made of; the run writes, the screen reads.
#[derive(Debug, Default)]
pub struct Scene {
    pub live: Arc<Live>,
    pub settled: AtomicU64,
    pub open: AtomicU64,
    pub wallet_state: std::sync::Mutex<String>,
    pub phase: std::sync::Mutex<String>,
    /// Share of the whole, in thousandths.
    pub progress: AtomicU64,
}

impl Scene {
    pub fn enter(&self, phase: &str) {
        phase.clone_into(&mut self.phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

#[derive(Debug)]
pub struct Screen {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Totals at one time.
#[derive(Clone, Copy, Default)]
struct Totals {
    offered: u64,
    accepted: u64,
    settled: u64,
}

impl Screen {
    /// Shows the scene until dropped.
    pub fn open(title: String, scene: Arc<Scene>) -> Screen {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let is_picture =
            std::io::stderr().is_terminal() && std::env::var("TERM").is_ok_and(|term| term != "dumb");
        let thread = std::thread::spawn(move || {
            let mut view = View { title, scene, history: VecDeque::new(), began: Instant::now(), shown: 0 };
            if is_picture {
                show("\x1b[?25l\x1b[?7l");
            }
            while !until.load(Ordering::Relaxed) {
                let pause = if is_picture { view.picture() } else { view.line() };
                let next = Instant::now() + pause;
                while Instant::now() < next && !until.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            if is_picture {
                show(&format!("{}\x1b[J\x1b[?7h\x1b[?25h", view.back()));
            }
        });
        Screen { stop, thread: Some(thread) }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A screen that panicked is no reason to fail a run.
            let _ = thread.join();
        }
    }
}

struct View {
    title: String,
    scene: Arc<Scene>,
    /// Totals, one a picture.
    history: VecDeque<Totals>,
    began: Instant,
    shown: usize,
}

fn text(of: &std::sync::Mutex<String>) -> String {
    of.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

impl View {
    fn totals(&self) -> Totals {
        let live = &self.scene.live;
        Totals {
            offered: live.offered.load(Ordering::Relaxed),
            accepted: live.accepted.load(Ordering::Relaxed),
            settled: self.scene.settled.load(Ordering::Relaxed),
        }
    }

    fn back(&self) -> String {
        if self.shown == 0 { String::new() } else { format!("\r\x1b[{}A", self.shown) }
    }

    fn rates(&self, of: impl Fn(&Totals) -> u64) -> Vec<f64> {
        // Over four pictures, because what the processes say of themselves comes in steps.
        let steps: Vec<u64> = self.history.iter().map(of).collect();
        (1..steps.len())
            .map(|at| {
                let from = at.saturating_sub(4);
                let length_s = (at - from) as f64 * PICTURE_EVERY.as_secs_f64();
                steps[at].saturating_sub(steps[from]) as f64 / length_s
            })
            .collect()
    }

    fn picture(&mut self) -> Duration {
        self.history.push_back(self.totals());
        if self.history.len() > COLUMNS + 1 {
            self.history.pop_front();
        }
        let scene = &self.scene;
        let live = &scene.live;
        let series = [
            ("offered", self.rates(|t| t.offered)),
            ("accepted", self.rates(|t| t.accepted)),
            ("settled", self.rates(|t| t.settled)),
        ];
        let top = series.iter().flat_map(|(_, rates)| rates).copied().fold(1.0, f64::max);
        let mut lines = vec![format!("  {}   {}", self.title, seconds(self.began.elapsed().as_secs_f64()))];
        for (name, rates) in &series {
            let bars: String = rates.iter().map(|rate| bar(*rate, top)).collect();
            lines.push(format!(
                "  {name:<9} {bars:<COLUMNS$} {:>9}/s",
                short(rates.last().copied().unwrap_or(0.0))
            ));
        }
        let state = text(&scene.wallet_state);
        let done = (scene.progress.load(Ordering::Relaxed) as usize * COLUMNS / 1_000).min(COLUMNS);
        lines.push(format!("  {:<9} {}{}", text(&scene.phase), "━".repeat(done), "╌".repeat(COLUMNS - done)));
        lines.push(format!(
            "  accepted {}   settled {}   open {}   refused {}   sent again {}",
            grouped(live.accepted.load(Ordering::Relaxed)),
            grouped(scene.settled.load(Ordering::Relaxed)),
            grouped(scene.open.load(Ordering::Relaxed)),
            grouped(live.refused.load(Ordering::Relaxed)),
            grouped(live.retried.load(Ordering::Relaxed)),
        ));
        lines.push(format!(
            "  wallet {}   generator's worst lag {}",
            if state.is_empty() { "-" } else { &state },
            micros(live.lag_us.load(Ordering::Relaxed))
        ));
        let mut frame = self.back();
        for line in &lines {
            frame.push_str(line);
            frame.push_str("\x1b[K\n");
        }
        self.shown = lines.len();
        show(&frame);
        PICTURE_EVERY
    }

    fn line(&mut self) -> Duration {
        let totals = self.totals();
        show(&format!(
            "{:>9}  {:<9} offered {:>11}  accepted {:>11}  settled {:>11}  open {:>11}\n",
            seconds(self.began.elapsed().as_secs_f64()),
            text(&self.scene.phase),
            grouped(totals.offered),
            grouped(totals.accepted),
            grouped(totals.settled),
            grouped(self.scene.open.load(Ordering::Relaxed)),
        ));
        LINE_EVERY
    }
}

fn bar(rate: f64, top: f64) -> char {
    if rate <= 0.0 {
        return ' ';
    }
    BLOCKS[((rate / top * 8.0).ceil() as usize).clamp(1, 8) - 1]
}

fn show(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // A picture that cannot be shown is no reason to stop.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
