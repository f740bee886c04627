//! Remedies in the command's own words: libraries say what helps, this says by which option.

use crate::commands::fit::checkpoints::CheckpointInTheWay;
use clap::CommandFactory;
use infermark::{BackendError, Choice, DefectRemedy, PanelColumn, ReadError, Remedy, Setting, Warning};
use infermark_calibration::CalibrationError;
use infermark_data::shell::quoted_text;
use infermark_fit_files::checkpoint_file::CheckpointError;
use infermark_fit_files::fit_folder::FitFolderError;
use infermark_fit_files::fit_output::Taken;
use infermark_harness::benchmark::BenchmarkError;
use infermark_report::comparison::ComparisonError;
use std::error::Error;

/// The options of a verb, which carry out what helps.
pub(crate) struct VerbOptions(clap::Command);

impl VerbOptions {
    /// Those of the verb with this name; none where there is no such verb.
    pub(crate) fn of(verb: &str) -> Self {
        let all = crate::Arguments::command();
        VerbOptions(all.find_subcommand(verb).cloned().unwrap_or_default())
    }

    /// A warning, with the option of each remedy behind it.
    pub(crate) fn in_warning(&self, warning: &Warning) -> String {
        self.inserted(warning.to_string(), &warning.remedies())
    }

    /// An error of a backend, with the option of each remedy behind it.
    pub(crate) fn in_backend_error(&self, error: &BackendError) -> String {
        self.inserted(error.to_string(), error.remedies())
    }

    /// An error with its causes, with the option of each remedy behind it.
    pub(crate) fn in_error(&self, error: &anyhow::Error) -> String {
        let text = format!("{error:#}");
        match error.chain().map(help).find(|help| !matches!(help, Help::None)) {
            Some(Help::Remedies(remedies)) => self.inserted(text, &remedies),
            Some(Help::Options(options)) => format!("{text} ({options})"),
            Some(Help::None) | None => text,
        }
    }

    /// Inserts options into a text that has the remedies' own.
    fn inserted(&self, mut text: String, remedies: &[Remedy]) -> String {
        for remedy in remedies {
            let words = remedy.to_string();
            if let (Some(option), Some(start)) = (self.option(remedy), text.rfind(&words)) {
                text.insert_str(start + words.len(), &format!(" ({option})"));
            }
        }
        text
    }

    /// The option of a remedy; `None` where the verb has none that carries it out.
    fn option(&self, remedy: &Remedy) -> Option<String> {
        let one_of = |names: &[&str], value: &str| {
            let name = names.iter().find(|name| self.has(name))?;
            Some(format!("--{name} {value}").trim_end().to_owned())
        };
        match remedy {
            Remedy::Choose(choice) => match choice {
                Choice::Method(method) => one_of(&["method", "methods"], method.name()),
                Choice::Metric(metric) => one_of(&["metric"], metric.name()),
                Choice::Coordinates(coordinates) => one_of(&["coordinates"], coordinates.name()),
                Choice::Precision(precision) => one_of(&["precision"], precision.name()),
                Choice::Device(kind) => one_of(&["device", "devices"], kind.name()),
                Choice::Model(model) => one_of(&["model"], model.name()),
                Choice::Cut(cut) => one_of(&["cut"], cut.name()),
            },
            Remedy::Raise(setting) | Remedy::Lower(setting) | Remedy::Change(setting) => match setting {
                // Whichever file gave the bound, it is overridden by the first.
                Setting::ClipLow | Setting::ClipHigh => one_of(&["fit-priors", "priors"], ""),
                other => one_of(&[option_of(*other)], ""),
            },
            Remedy::GiveMemory
            | Remedy::LargerDevice
            | Remedy::UseBackend(_)
            | Remedy::FitFewer(_)
            | Remedy::RaiseProcessLimit => None,
        }
    }

    fn has(&self, option: &str) -> bool {
        self.0
            .get_arguments()
            .any(|argument| argument.get_long() == Some(option))
    }
}

/// What helps against a cause of an error.
enum Help {
    None,
    /// Remedies, whose words the error's text has.
    Remedies(Vec<Remedy>),
    /// Options of the command.
    Options(String),
}

fn help(cause: &(dyn Error + 'static)) -> Help {
    let remedies = |remedies: &[Remedy]| match remedies {
        [] => Help::None,
        remedies => Help::Remedies(remedies.to_vec()),
    };
    if let Some(error) = cause.downcast_ref::<BackendError>() {
        remedies(error.remedies())
    } else if let Some(CalibrationError::Method { error, .. }) = cause.downcast_ref() {
        remedies(error.remedies())
    } else if let Some(FitFolderError::NoFit(_)) = cause.downcast_ref() {
        Help::Options("fit --out".into())
    } else if let Some(ComparisonError::Model { model, .. }) = cause.downcast_ref() {
        Help::Options(format!("fit --model {}", model.name()))
    } else if let Some(BenchmarkError::NoneOnGpus) = cause.downcast_ref() {
        Help::Options("--backends, --devices".into())
    } else if cause.is::<Taken>() {
        Help::Options("--force".into())
    } else if cause.is::<CheckpointInTheWay>() {
        Help::Options("--resume, or --force".into())
    } else if let Some(refused) = cause.downcast_ref::<CheckpointError>() {
        match refused {
            CheckpointError::Missing(_) => Help::Options("leave out --resume".into()),
            CheckpointError::File(_) => Help::None,
            _ => Help::Options("--force in place of --resume".into()),
        }
    } else {
        Help::None
    }
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

/// The option that sets it, without its dashes.
const fn option_of(setting: Setting) -> &'static str {
    match setting {
        Setting::Threads => "threads",
        Setting::Shards => "shards",
        Setting::Chains => "chains",
        Setting::Draws => "draws",
        Setting::Warmup => "warmup",
        Setting::TargetAccept => "target-accept",
        Setting::MaxDepth => "max-depth",
        Setting::Iterations => "iterations",
        Setting::Particles => "particles",
        Setting::LearningRate => "learning-rate",
        Setting::Steps => "steps",
        Setting::Parameterization => "parameterization",
        Setting::ClipLow | Setting::ClipHigh => "priors",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark::{Cause, MethodKind, Metric, Specification};

    #[test]
    fn the_option_of_a_remedy_is_behind_it() {
        let refused = BackendError::request(Cause::new(
            "too long",
            [
                Remedy::Choose(Choice::Metric(Metric::Diagonal)),
                Remedy::LargerDevice,
                Remedy::Lower(Setting::ClipHigh),
            ],
        ));
        let error = anyhow::Error::new(refused).context("no fit");
        assert_eq!(
            VerbOptions::of("fit").in_error(&error),
            "no fit: too long; choose the diagonal metric (--metric diagonal), use a device with more memory, or lower \
             clip_high (--priors)"
        );
    }

    #[test]
    fn only_options_of_the_verb_are_named() {
        let remedies = [
            Remedy::Choose(Choice::Metric(Metric::Diagonal)),
            Remedy::Raise(Setting::ClipHigh),
            Remedy::Lower(Setting::Draws),
            Remedy::Choose(Choice::Method(MethodKind::Nuts)),
        ];
        let error = BackendError::request(Cause::new("too large", remedies));
        let method = "laplace".to_owned();
        let error = CalibrationError::Method { method, error }.into();
        assert_eq!(
            VerbOptions::of("calibrate").in_error(&error),
            "laplace: too large; choose the diagonal metric, raise clip_high (--fit-priors), ask for fewer draws (--draws), \
             or choose the method nuts (--methods nuts)"
        );
        assert!(!VerbOptions::of("report").in_error(&error).contains("--"));
    }

    #[test]
    fn errors_of_other_libraries_get_their_options() {
        let of_bench = |error: anyhow::Error| VerbOptions::of("bench").in_error(&error);
        let no_fit = FitFolderError::NoFit("here".into());
        assert!(of_bench(no_fit.into()).ends_with("the folder that a fit was written to (fit --out)"));
        assert!(of_bench(BenchmarkError::NoneOnGpus.into()).ends_with(" (--backends, --devices)"));
        let model = Specification::Sales;
        let other_model = Specification::Published;
        let (path, other) = ("a".into(), "b".into());
        let two_models = ComparisonError::Model {
            path,
            model,
            other,
            other_model,
        };
        assert!(
            VerbOptions::of("compare")
                .in_error(&two_models.into())
                .ends_with("fit the data of b again with the sales model (fit --model sales)")
        );
        assert!(!of_bench(BenchmarkError::Plan("no sizes".into()).into()).contains("--"));
    }

    #[test]
    fn a_warning_stays_a_sentence() {
        let warning = VerbOptions::of("fit").in_warning(&Warning::MeanField);
        assert!(
            warning.ends_with("; choose the orthogonal coordinates (--coordinates orthogonal)."),
            "{warning}"
        );
    }

    #[test]
    fn every_setting_is_an_option_of_fit() {
        let fit = VerbOptions::of("fit");
        for setting in [
            Setting::Threads,
            Setting::Shards,
            Setting::Chains,
            Setting::Draws,
            Setting::Warmup,
            Setting::TargetAccept,
            Setting::MaxDepth,
            Setting::Iterations,
            Setting::Particles,
            Setting::LearningRate,
            Setting::Steps,
            Setting::Parameterization,
            Setting::ClipLow,
            Setting::ClipHigh,
        ] {
            assert!(fit.option(&Remedy::Change(setting)).is_some(), "{setting:?}");
        }
    }
}
