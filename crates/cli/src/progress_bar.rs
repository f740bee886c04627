//! Progress on stderr: speed, remaining time and one line of state. A bar where stderr is a terminal, otherwise a plain line
//! every ten seconds, so that logs of long runs show that they move.

use crate::output::notify;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use infermark::{Progress, StepUnit};
use infermark_harness::observer::Observer;
use infermark_model::printable;
use infermark_report::number_format::{count, duration, three_digits};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// When the first plain line is due: short runs are silent.
const FIRST_LINE: Duration = Duration::from_secs(3);

/// Time between two plain lines.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Progress in plain lines.
#[derive(Debug)]
struct Lines {
    /// What a step is called, in the plural.
    unit: String,
    /// Whether the total is only a limit, which runs rarely reach.
    is_limit: bool,
    total: u64,
    next: Instant,
    /// When the last line was due, and the steps done by then.
    last: (Instant, u64),
}

impl Lines {
    fn new(unit: &str, is_limit: bool, total: u64, now: Instant) -> Self {
        Lines {
            unit: unit.to_owned(),
            is_limit,
            total,
            next: now + FIRST_LINE,
            last: (now, 0),
        }
    }

    /// The line that is due at `now`, with the speed since the last one. None when every step is done.
    fn due(&mut self, now: Instant, completed: u64, note: &str) -> Option<String> {
        if now < self.next || completed >= self.total {
            return None;
        }
        let seconds = (now - self.last.0).as_secs_f64();
        let speed = completed.saturating_sub(self.last.1) as f64 / seconds;
        let left = (self.total - completed) as f64 / speed;
        self.next = now + BETWEEN_LINES;
        self.last = (now, completed);
        let (of, at_most) = if self.is_limit {
            (" of at most ", "at most ")
        } else {
            ("/", "")
        };
        let note = if note.is_empty() {
            String::new()
        } else {
            format!("; {note}")
        };
        Some(format!(
            "{}{of}{} {} ({:.0}%), {} per second, {at_most}{} left{note}",
            count(completed),
            count(self.total),
            self.unit,
            100.0 * completed as f64 / self.total as f64,
            three_digits(speed),
            duration(left),
        ))
    }
}

/// A bar on stderr; where that is no terminal, plain lines.
pub(crate) struct Bar {
    bar: ProgressBar,
    lines: Option<Mutex<Lines>>,
    /// The update loop of a spinner.
    turning: Option<Following>,
}

impl Bar {
    /// A bar over `total` steps, named in the plural by `unit`.
    pub(crate) fn new(total: u64, unit: &str) -> Self {
        Self::with_limit(total, unit, false)
    }

    fn with_limit(total: u64, unit: &str, is_limit: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(5));
        let template = format!(
            "{{bar:30}} {{percent:>3}}% {{human_pos}}/{{human_len}} {unit}, {{per_sec}}, {{eta}} left  {{prefix}}{{msg}}"
        );
        bar.set_style(ProgressStyle::with_template(&template).expect("the template is well-formed"));
        let lines = bar
            .is_hidden()
            .then(|| Mutex::new(Lines::new(unit, is_limit, total, Instant::now())));
        Bar {
            bar,
            lines,
            turning: None,
        }
    }

    /// A spinner for work of unknown length.
    pub(crate) fn spinner(message: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is well-formed"));
        bar.set_message(printable(message).into_owned());
        let ticking = bar.clone();
        // Without a thread it does not move.
        let turning = Following::start("spinner", Duration::from_millis(200), move || ticking.tick());
        Bar {
            bar,
            lines: None,
            turning: Some(turning),
        }
    }

    /// A bar for a run.
    pub(crate) fn for_run(progress: &Progress) -> Self {
        let (unit, is_limit) = match progress.unit {
            StepUnit::Iterations => ("iterations", false),
            StepUnit::Draws => ("draws", false),
            // Those of Newton and fixed-point iterations end where they converge.
            StepUnit::Steps => ("steps", true),
        };
        Self::with_limit(progress.total, unit, is_limit)
    }

    /// Shows where a run is.
    pub(crate) fn show(&self, progress: &Progress) {
        self.bar.set_message(printable(&progress.note).into_owned());
        self.advance(progress.completed, &progress.note);
    }

    /// Shows which part of a long step is done until the returned value is dropped.
    pub(crate) fn follow(&self, part_done: Box<dyn Fn() -> f64 + Send + Sync>) -> Following {
        let bar = self.bar.clone();
        let in_lines = self.lines.is_some();
        let (mut before, mut since) = (0.0, Instant::now());
        Following::start("progress", Duration::from_millis(500), move || {
            let part = part_done();
            let text = format!("step {:.0}% done", 100.0 * part);
            // For short steps the lines between them are enough.
            if part < before {
                since = Instant::now();
            } else if in_lines && since.elapsed() >= BETWEEN_LINES {
                notify(&text);
                since = Instant::now();
            }
            before = part;
            bar.set_prefix(text + ", ");
        })
    }

    /// Moves the bar.
    pub(crate) fn set(&self, position: u64) {
        self.advance(position, "");
    }

    fn advance(&self, position: u64, note: &str) {
        self.bar.set_position(position);
        if let Some(lines) = &self.lines
            && let Ok(mut lines) = lines.lock()
            && let Some(line) = lines.due(Instant::now(), position, note)
        {
            notify(line);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        // This comes first, because the thread would draw again.
        self.turning = None;
        self.bar.finish_and_clear();
    }
}

/// A thread that shows the progress of work as long as this lives; none if the system starts none, and the
/// work goes on.
pub(crate) struct Following {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Following {
    /// Calls `show` at once, and again every `pause`.
    fn start(name: &str, pause: Duration, mut show: impl FnMut() + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let thread = infermark_threads::start_detached(name, move || {
            while !seen.load(Ordering::Relaxed) {
                show();
                std::thread::park_timeout(pause);
            }
        });
        Following { over, thread }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Showing progress does not fail a run.
            let _ = thread.join();
        }
    }
}

/// Shows a benchmark's phases.
pub(crate) struct BenchBar(ProgressBar);

impl BenchBar {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(5));
        let style = ProgressStyle::with_template("[{elapsed_precise}] {bar:20} {msg}");
        bar.set_style(style.expect("the template is well-formed"));
        BenchBar(bar)
    }
}

impl Observer for BenchBar {
    fn phase(&mut self, text: &str) {
        if self.0.is_hidden() {
            notify(text);
        }
        self.0.set_length(1);
        self.0.set_position(0);
        self.0.set_message(printable(text).into_owned());
    }

    fn advanced(&mut self, done: u64, total: u64) {
        self.0.set_length(total.max(1));
        self.0.set_position(done);
    }
}

impl Drop for BenchBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_come_after_three_seconds_and_then_every_ten() {
        let start = Instant::now();
        let mut lines = Lines::new("iterations", false, 1_000_000, start);
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert_eq!(lines.due(at(2.9), 2_900, ""), None);
        assert_eq!(
            lines.due(at(4.0), 40_000, "loss 12.3").unwrap(),
            "40,000/1,000,000 iterations (4%), 10,000 per second, 96.0 s left; loss 12.3"
        );
        assert_eq!(lines.due(at(13.9), 50_000, ""), None);
        // The speed is that since the last line, not since the start.
        assert_eq!(
            lines.due(at(14.0), 60_000, "").unwrap(),
            "60,000/1,000,000 iterations (6%), 2,000 per second, 7 min 50 s left"
        );
        // Nothing moved: the remaining time is unknown, and nothing is divided by zero.
        assert!(
            lines
                .due(at(25.0), 60_000, "")
                .unwrap()
                .ends_with("0 per second, unknown left")
        );
        assert_eq!(lines.due(at(60.0), 1_000_000, ""), None);
        let mut steps = Lines::new("steps", true, 500, start);
        assert_eq!(
            steps.due(at(5.0), 10, "").unwrap(),
            "10 of at most 500 steps (2%), 2.00 per second, at most 4 min 05 s left"
        );
    }
}
