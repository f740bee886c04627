//! A step under way: its parts one after another, its folder, its summary and its archive.

use super::archive::Archive;
use super::child::{Ended, How, Interrupted};
use super::excerpts::{end_of, left_out, panics, passed_tests, sections_of, written};
use super::parts::{Finding, Program, Work};
use super::summary::Summary;
use super::{Check, Step, nsight, system};
use crate::exit::Exit;
use crate::output::{notify, print};
use infermark_report::records::results_folder::now_utc;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What a step leaves of its time for its last lines, and for a child to end in order.
const RESERVE: Duration = Duration::from_secs(15);

/// A step under way.
pub(super) struct StepRun<'a> {
    check: &'a Check,
    step: Step,
    clock: Instant,
    archive: Archive,
    summary: Summary,
    /// The log of the program that ran last.
    log: Option<String>,
    outcome: StepOutcome,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StepOutcome {
    /// Something could be run.
    pub(super) ran: bool,
    /// Something failed or was cut short.
    pub(super) failed: bool,
    /// The archive or the summary could not be written.
    pub(super) lost: bool,
    /// The check was interrupted.
    pub(super) interrupted: bool,
}

impl StepOutcome {
    /// What came of this step and the next.
    pub(super) fn and(self, next: StepOutcome) -> StepOutcome {
        StepOutcome {
            ran: self.ran | next.ran,
            failed: self.failed | next.failed,
            lost: self.lost | next.lost,
            interrupted: self.interrupted | next.interrupted,
        }
    }

    /// How the command ends.
    pub(super) fn exit(self) -> Exit {
        if self.interrupted {
            Exit::Interrupted
        } else if self.failed || self.lost {
            Exit::CheckFailed
        } else if self.ran {
            Exit::Done
        } else {
            Exit::Usage
        }
    }
}

impl<'a> StepRun<'a> {
    /// Carries a step out. Its archive is up to date after each part, and its summary is printed at the end.
    ///
    /// # Errors
    /// When its folder cannot be created.
    pub(super) fn carry_out(check: &'a Check, step: Step) -> anyhow::Result<StepOutcome> {
        let now = now_utc();
        let name = format!(
            "{}-{}-{}",
            &now[..10],
            card_label(&check.device.name),
            step.name()
        );
        let title = format!("{} of {} ({}), {now}", step.name(), check.card(), check.device.id);
        let mut run = StepRun {
            check,
            step,
            clock: Instant::now(),
            archive: Archive::create(&check.temporary, &check.out, &name)?,
            summary: Summary::titled(&title),
            log: None,
            outcome: StepOutcome::default(),
        };
        run.outcome.interrupted = run.all_parts().is_err();
        run.conclude();
        Ok(run.outcome)
    }

    fn all_parts(&mut self) -> Result<(), Interrupted> {
        let (check, folder) = (self.check, self.archive.folder().to_owned());
        let short = system::describe(check, &folder)?;
        self.report(&format!("{short}; more in {}", system::FILE));
        for part in self.step.parts(check, &folder) {
            check.children.check()?;
            match part.work {
                Work::Omitted(reason) => self.report(&format!("{}: {reason}", part.title)),
                Work::Program(program) => self.program(&part.title, *program)?,
                Work::Launches { ncu, products } => self.launches(&ncu, products)?,
            }
        }
        Ok(())
    }

    fn conclude(&mut self) {
        let seconds = self.clock.elapsed().as_secs();
        let last = if self.outcome.interrupted {
            let place = self.log.as_ref().map(|log| format!(", in {log}"));
            let place = place.unwrap_or_default();
            format!("**interrupted** after {seconds} s{place}: what follows is missing")
        } else {
            let result = match self.outcome {
                StepOutcome { failed: true, .. } => "**something failed**",
                StepOutcome { ran: true, .. } => "all that ran passed",
                _ => "**nothing could be measured**",
            };
            let file = self.archive.file().display();
            format!("ended after {seconds} s: {result}; written to {file}")
        };
        self.report(&last);
        if let Err(error) = print(|out| out.write_all(self.summary.text().as_bytes())) {
            notify(format_args!("{error:#}"));
            self.outcome.lost = true;
        }
    }

    /// The folder of the step's files.
    fn folder(&self) -> &Path {
        self.archive.folder()
    }

    /// Runs a program in the time that the step has left, with what it writes in the file `log` of the step's folder.
    fn start(&mut self, command: &mut Command, log: &str) -> Result<Ended, Interrupted> {
        self.log = Some(log.to_owned());
        let left = self.check.limit.saturating_sub(self.clock.elapsed() + RESERVE);
        let not_started = |how| Ended {
            how,
            after: Duration::ZERO,
        };
        let output = match File::create(self.folder().join(log)) {
            Ok(output) => output,
            Err(error) => {
                return Ok(not_started(How::Failed(format!(
                    "the error '{error}' at its start"
                ))));
            }
        };
        if left.is_zero() {
            return Ok(not_started(How::CutShort));
        }
        let (archive, summary) = (&self.archive, &self.summary);
        self.check.children.run(command, output, left, || {
            // What cannot be written now is reported with the last line.
            let _ = archive.update(summary.text());
        })
    }

    fn program(&mut self, title: &str, mut program: Program) -> Result<(), Interrupted> {
        let ended = self.start(&mut program.command, &program.log)?;
        let output = written(&self.folder().join(&program.log));
        let has_passed = ended.how == How::Passed;
        match program.finding {
            Finding::Output => {
                self.report_ended(title, &ended, "done");
                if has_passed {
                    self.quote(&output, 400);
                }
            }
            Finding::Table {
                file,
                sections,
                passed,
                peer,
            } => {
                if let Some(reason) = peer.and_then(|peer| left_out(&output, peer)) {
                    self.report(&format!("{title}: **not measured**; {reason}"));
                    return Ok(());
                }
                self.report_ended(title, &ended, passed);
                self.quote(&sections_of(&written(&file), sections), 600);
            }
            Finding::Tests => {
                self.report_ended(title, &ended, passed_tests(&output).unwrap_or("done"));
                if !has_passed {
                    self.quote(&panics(&output), 200);
                }
            }
        }
        Ok(())
    }

    /// Measures launches by Nsight Compute at one size and reports them. What `ncu` cannot do here (it may need permissions) is no failure of the check.
    fn launches(&mut self, ncu: &Path, products: usize) -> Result<(), Interrupted> {
        let check = self.check;
        let Some(panel) = self.panel(products)? else {
            return Ok(());
        };
        let name = format!("ncu-{products}");
        let report = self.folder().join(format!("{name}.ncu-rep"));
        let log = format!("{name}.log");
        let ended = self.start(
            &mut nsight::measuring(check, ncu, &panel, &self.folder().join(&name)),
            &log,
        )?;
        if !report.is_file() {
            let how = match ended.how {
                How::Passed => "ncu wrote no report".to_owned(),
                How::Failed(why) => format!("ncu ended with {why}"),
                How::CutShort => "it was cut short".to_owned(),
            };
            let end = end_of(&written(&self.folder().join(&log)), 4);
            self.report_with(
                &format!("Nsight Compute at {products} products: not measured, {how}; the end of {log}:"),
                &end,
                200,
            );
            return Ok(());
        }
        let details = format!("{name}.txt");
        let mut reading = Command::new(ncu);
        reading.arg("--import").arg(&report).args(["--page", "details"]);
        self.start(&mut reading, &details)?;
        let kernels = nsight::kernels(&written(&self.folder().join(&details)));
        self.report_with(
            &format!("Nsight Compute at {products} products, launches in a row ({details} has all of it):"),
            &kernels,
            300,
        );
        Ok(())
    }

    /// A file with so many products; `None`, which is reported, where it could not be made.
    fn panel(&mut self, products: usize) -> Result<Option<PathBuf>, Interrupted> {
        let check = self.check;
        let file = |name: &str, ending: &str| check.temporary.join(format!("{name}-{products}.{ending}"));
        let (panel, truth) = (file("published", "parquet"), file("truth", "csv"));
        if panel.is_file() {
            return Ok(Some(panel));
        }
        let mut generating = check.infermark(&["generate", "--process", "published", "--seed", "1"]);
        generating
            .args(["--products", &products.to_string(), "--out"])
            .arg(&panel);
        generating.arg("--truth").arg(truth);
        let log = format!("generate-{products}.log");
        let ended = self.start(&mut generating, &log)?;
        if ended.how != How::Passed {
            self.report_ended(&format!("generating {products} products"), &ended, "done");
            return Ok(None);
        }
        Ok(Some(panel))
    }

    /// Reports how the program that ran last ended, by its `title`; `passed` is what one that passed did.
    fn report_ended(&mut self, title: &str, ended: &Ended, passed: &str) {
        let seconds = ended.after.as_secs();
        self.outcome.ran = true;
        self.outcome.failed |= ended.how != How::Passed;
        match &ended.how {
            How::Passed => self.report(&format!("{title}: {passed} in {seconds} s")),
            How::CutShort => self.report(&format!("{title}: **cut short** after {seconds} s")),
            How::Failed(why) => {
                let log = self.log.clone().unwrap_or_default();
                let end = end_of(&written(&self.folder().join(&log)), 12);
                let failed = format!("{title}: **failed** with {why} after {seconds} s; the end of {log}:");
                self.report_with(&failed, &end, 200);
            }
        }
    }

    /// Adds a point to the summary and to what goes to standard error, with a quotation of lines up to `width` characters.
    fn report_with(&mut self, point: &str, quotation: &str, width: usize) {
        self.summary.point(point);
        self.summary.quote(quotation, width);
        notify(format_args!("{}: {point}", self.step.name()));
        self.keep();
    }

    fn report(&mut self, point: &str) {
        self.report_with(point, "", 0);
    }

    fn quote(&mut self, quotation: &str, width: usize) {
        self.summary.quote(quotation, width);
        self.keep();
    }

    /// Brings the archive up to date.
    fn keep(&mut self) {
        if let Err(error) = self.archive.update(self.summary.text()) {
            notify(format_args!("{error:#}"));
            self.outcome.lost = true;
        }
    }
}

/// A card's name as a part of a file's name: `nvidia-h200` for `NVIDIA H200 (141 GB)`.
fn card_label(name: &str) -> String {
    let short = name.split([',', '(']).next().unwrap_or_default();
    let words: Vec<String> = short
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    match words.is_empty() {
        true => "card".to_owned(),
        false => words.join("-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_states_whether_all_passed() {
        let ran = StepOutcome {
            ran: true,
            ..StepOutcome::default()
        };
        let failed = StepOutcome { failed: true, ..ran };
        let interrupted = StepOutcome {
            interrupted: true,
            ..StepOutcome::default()
        };
        let lost = StepOutcome { lost: true, ..ran };
        assert_eq!(StepOutcome::default().exit(), Exit::Usage);
        assert_eq!(ran.and(StepOutcome::default()).exit(), Exit::Done);
        for bad in [failed, lost] {
            assert_eq!(bad.and(ran).exit(), Exit::CheckFailed);
            assert_eq!(bad.and(interrupted).exit(), Exit::Interrupted);
        }
    }

    #[test]
    fn a_cards_name_is_made_fit_for_a_file() {
        for (name, label) in [
            ("NVIDIA H200", "nvidia-h200"),
            ("NVIDIA GeForce RTX 4090, 24 GiB", "nvidia-geforce-rtx-4090"),
            (
                "llvmpipe (LLVM 15.0.6, 256 bits) (software, on the processor)",
                "llvmpipe",
            ),
            ("AMD Radeon\u{2122} / 780M", "amd-radeon-780m"),
            ("(unnamed)", "card"),
        ] {
            assert_eq!(card_label(name), label, "{name}");
        }
    }
}
