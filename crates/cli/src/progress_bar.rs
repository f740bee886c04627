//! Progress on stderr: speed, remaining time and one line of state.

use crate::answer::say;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use infermark_backend::{Progress, StepUnit};
use infermark_harness::observer::Observer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A bar on stderr; where that is no terminal nothing is drawn.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar over `total` steps, named in the plural by `unit`.
    pub(crate) fn new(total: u64, unit: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(5));
        let template = format!(
            "{{bar:30}} {{percent:>3}}% {{human_pos}}/{{human_len}} {unit}, {{per_sec}}, {{eta}} left  {{prefix}}{{msg}}"
        );
        bar.set_style(ProgressStyle::with_template(&template).expect("the template is well-formed"));
        Bar(bar)
    }

    /// A spinner for work of unknown length.
    pub(crate) fn spinner(message: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is well-formed"));
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar(bar)
    }

    /// A bar for a run.
    pub(crate) fn for_run(progress: &Progress) -> Self {
        Self::new(
            progress.total,
            match progress.unit {
                StepUnit::Iterations => "iterations",
                StepUnit::Draws => "draws",
                StepUnit::Steps => "steps",
            },
        )
    }

    /// Shows where a run is.
    pub(crate) fn show(&self, progress: &Progress) {
        self.0.set_position(progress.completed);
        self.0.set_message(progress.note.clone());
    }

    /// Shows which part of a long step is done until the answer is dropped.
    pub(crate) fn follow(&self, part_done: Box<dyn Fn() -> f64 + Send + Sync>) -> Following {
        let over = Arc::new(AtomicBool::new(false));
        let (bar, seen) = (self.0.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                bar.set_prefix(format!("step {:.0}% done, ", 100.0 * part_done()));
                std::thread::park_timeout(Duration::from_millis(500));
            }
        });
        Following {
            over,
            thread: Some(thread),
        }
    }

    /// Moves the bar.
    pub(crate) fn set(&self, position: u64) {
        self.0.set_position(position);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A thread that shows the part of a step that is done, as long as this lives.
pub(crate) struct Following {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
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
            say(text);
        }
        self.0.set_length(1);
        self.0.set_position(0);
        self.0.set_message(text.to_owned());
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
