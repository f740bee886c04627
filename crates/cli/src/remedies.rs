//! Remedies in the command's own words: libraries say what helps, this says by which option.

use infermark::{BackendError, Choice, DefectRemedy, PanelColumn, ReadError, Remedy, Setting, Warning};
use infermark_calibration::CalibrationError;
use infermark_data::shell::quoted_text;
use infermark_fit_files::fit_folder::FitFolderError;
use infermark_fit_files::fit_output::Taken;
use infermark_harness::benchmark::BenchmarkError;
use infermark_report::comparison::ComparisonError;
use std::error::Error;
use std::fmt::Display;

/// A warning with the options that help.
pub(crate) fn warning_in_words(warning: &Warning) -> String {
    with_options(warning, &options(&warning.remedies()))
}

/// An error of a backend with the options that help.
pub(crate) fn backend_error_in_words(error: &BackendError) -> String {
    with_options(error, &options(error.remedies()))
}

/// An error with its causes and the options that help.
pub(crate) fn error_in_words(error: &anyhow::Error) -> String {
    let options = error.chain().map(options_against).find(|found| !found.is_empty());
    with_options(format!("{error:#}"), &options.unwrap_or_default())
}

/// The error, whose defects name columns by options.
pub(crate) fn with_column_options(mut error: ReadError) -> ReadError {
    if let ReadError::Defects { defects, .. } = &mut error {
        for defect in defects {
            defect.remedy = DefectRemedy::Words(defect.remedy.in_words(column_option, " "));
        }
    }
    error
}

fn column_option(column: PanelColumn, name: Option<&str>) -> String {
    let option = format!("--{}-column", column.name());
    match name {
        Some(name) => format!("{option} {}", quoted_text(name)),
        None => option,
    }
}

/// The options that help against a cause of an error.
fn options_against(cause: &(dyn Error + 'static)) -> Vec<String> {
    if let Some(error) = cause.downcast_ref::<BackendError>() {
        options(error.remedies())
    } else if let Some(CalibrationError::Method { error, .. }) = cause.downcast_ref() {
        options_by(error.remedies(), option_of_calibrate)
    } else if let Some(ComparisonError::Model { model, .. }) = cause.downcast_ref() {
        options(&[Remedy::Choose(Choice::Model(*model))])
    } else if let Some(FitFolderError::NoFit(_)) = cause.downcast_ref() {
        vec!["fit --out".to_owned()]
    } else if let Some(BenchmarkError::NoneOnGpus) = cause.downcast_ref() {
        vec!["--backends".to_owned(), "--devices".to_owned()]
    } else if cause.is::<Taken>() {
        vec!["--force".to_owned()]
    } else {
        Vec::new()
    }
}

/// A text that ends with what helps, followed by the options for it; a full stop stays last.
fn with_options(text: impl Display, options: &[String]) -> String {
    let text = text.to_string();
    if options.is_empty() {
        return text;
    }
    let options = options.join(", ");
    match text.strip_suffix('.') {
        Some(sentence) => format!("{sentence} ({options})."),
        None => format!("{text} ({options})"),
    }
}

/// The options of remedies, each once.
fn options(remedies: &[Remedy]) -> Vec<String> {
    options_by(remedies, option)
}

fn options_by(remedies: &[Remedy], option: impl Fn(&Remedy) -> Option<String>) -> Vec<String> {
    let mut options: Vec<String> = Vec::new();
    for option in remedies.iter().filter_map(option) {
        if !options.contains(&option) {
            options.push(option);
        }
    }
    options
}

/// The option of a remedy; `None` where no option carries it out.
fn option(remedy: &Remedy) -> Option<String> {
    Some(match remedy {
        Remedy::Choose(choice) => match choice {
            Choice::Method(method) => format!("--method {}", method.name()),
            Choice::Metric(metric) => format!("--metric {}", metric.name()),
            Choice::Coordinates(coordinates) => format!("--coordinates {}", coordinates.name()),
            Choice::Precision(precision) => format!("--precision {}", precision.name()),
            Choice::Device(kind) => format!("--device {}", kind.name()),
            Choice::Model(model) => format!("--model {}", model.name()),
        },
        Remedy::Raise(setting) | Remedy::Lower(setting) | Remedy::Change(setting) => {
            option_of(*setting).to_owned()
        }
        Remedy::GiveMemory
        | Remedy::LargerDevice
        | Remedy::UseBackend(_)
        | Remedy::FitFewer(_)
        | Remedy::RaiseProcessLimit => return None,
    })
}

/// The same of `calibrate`, which takes several methods with their default settings.
fn option_of_calibrate(remedy: &Remedy) -> Option<String> {
    match remedy {
        Remedy::Choose(Choice::Method(method)) => Some(format!("--methods {}", method.name())),
        Remedy::Choose(Choice::Coordinates(_)) => option(remedy),
        Remedy::Raise(setting) | Remedy::Lower(setting) | Remedy::Change(setting) => match setting {
            // Whichever file gave the bound, it is overridden by this one.
            Setting::ClipLow | Setting::ClipHigh => Some("--fit-priors".to_owned()),
            _ => None,
        },
        _ => None,
    }
}

const fn option_of(setting: Setting) -> &'static str {
    match setting {
        Setting::Threads => "--threads",
        Setting::Chains => "--chains",
        Setting::Draws => "--draws",
        Setting::Warmup => "--warmup",
        Setting::TargetAccept => "--target-accept",
        Setting::MaxDepth => "--max-depth",
        Setting::Iterations => "--iterations",
        Setting::Particles => "--particles",
        Setting::LearningRate => "--learning-rate",
        Setting::Steps => "--steps",
        Setting::Parameterization => "--parameterization",
        Setting::ClipLow | Setting::ClipHigh => "--priors",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark::{Cause, MethodKind, Metric};

    #[test]
    fn an_error_names_the_options_that_help() {
        let refused = BackendError::request(Cause::new(
            "too long",
            [
                Remedy::Choose(Choice::Metric(Metric::Diagonal)),
                Remedy::Lower(Setting::ClipHigh),
            ],
        ));
        let error = anyhow::Error::new(refused).context("no fit");
        assert_eq!(
            error_in_words(&error),
            "no fit: too long; choose the diagonal metric, or lower clip_high (--metric diagonal, --priors)"
        );
    }

    #[test]
    fn errors_of_other_libraries_get_their_options() {
        let told = |error: anyhow::Error| error_in_words(&error);
        let method = "laplace".to_owned();
        let remedies = [
            Remedy::CPU,
            Remedy::Raise(Setting::ClipHigh),
            Remedy::Choose(Choice::Method(MethodKind::Nuts)),
        ];
        let error = BackendError::request(Cause::new("too large", remedies));
        let told_of_calibration = told(CalibrationError::Method { method, error }.into());
        assert!(
            told_of_calibration.ends_with("(--fit-priors, --methods nuts)"),
            "{told_of_calibration}"
        );
        let no_fit = FitFolderError::NoFit("here".into());
        assert!(told(no_fit.into()).ends_with("the folder that a fit was written to (fit --out)"));
        assert!(told(BenchmarkError::NoneOnGpus.into()).ends_with(" (--backends, --devices)"));
        assert!(!told(BenchmarkError::Plan("no sizes".into()).into()).contains("--"));
    }

    #[test]
    fn a_warning_stays_a_sentence() {
        let told = warning_in_words(&Warning::MeanField);
        assert!(
            told.ends_with("; choose the orthogonal coordinates (--coordinates orthogonal)."),
            "{told}"
        );
    }
}
