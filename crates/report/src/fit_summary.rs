//! The answer of a fit in a few lines: elasticities with their intervals, and reasons not to trust them.

use crate::number_format::{count, duration, three_digits, with_prefix};
use crate::table::grid::Grid;
use infermark_backend::{
    CommunicationReport, Convergence, Detail, GaussianReport, Method, NutsReport, Posterior, SviReport,
};
use infermark_fit_files::fit_record::{FitRecord, FitStatus};
use infermark_model::{Coordinates, Likelihood, Panel, Site, Specification, printable};
use std::path::Path;

/// Categories that have a line in the summary; `posterior.csv` has all.
pub const CATEGORIES_SHOWN: usize = 20;

/// The elasticity at which a price change leaves revenue as it is.
const UNIT_ELASTICITY: f64 = -1.0;

/// Longest name of a category that is written out, in characters.
const LONGEST_NAME: usize = 40;

/// A model as tables and plots name it.
pub const fn model_in_words(model: Specification) -> &'static str {
    match model {
        Specification::Published => "Published model",
        Specification::Sales => "Sales model",
        // The enum is open for models to come; each gets its words here.
        _ => "Another model",
    }
}

/// A likelihood as tables and plots name it.
pub fn likelihood_in_words(likelihood: Likelihood) -> &'static str {
    likelihood.counts()
}

/// Products by what the 90% intervals of their elasticities say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Verdicts {
    /// The interval is below -1.
    elastic: u64,
    /// The interval is above -1.
    inelastic: u64,
    /// -1 is in the interval.
    undecided: u64,
}

impl Verdicts {
    fn add(&mut self, low: f64, high: f64) {
        if high < UNIT_ELASTICITY {
            self.elastic += 1;
        } else if low > UNIT_ELASTICITY {
            self.inelastic += 1;
        } else {
            self.undecided += 1;
        }
    }

    fn total(&self) -> u64 {
        self.elastic + self.inelastic + self.undecided
    }
}

/// The summary of a fit of `panel` whose files are in `folder`: what was fitted, the elasticities of all and of each category with
/// 90% intervals, how many products are elastic, the worst diagnostics. Ends with a line feed.
pub fn fit_summary(record: &FitRecord, panel: &Panel, posterior: &Posterior, folder: &Path) -> String {
    let layout = posterior.layout;
    let mut all = Verdicts::default();
    let mut of_category = vec![Verdicts::default(); layout.categories];
    for (product, latent) in layout.range(Site::ProductA).enumerate() {
        let (low, high) = (posterior.q05[latent], posterior.q95[latent]);
        all.add(low, high);
        of_category[panel.category_of()[product] as usize].add(low, high);
    }
    let mut grid = Grid::new(&[
        ("price elasticity", false),
        ("mean", true),
        ("90% interval", true),
        ("products", true),
        ("elastic", true),
        ("inelastic", true),
        ("undecided", true),
    ]);
    let mut push = |name: String, latent: usize, verdicts: &Verdicts| {
        let interval = format!("{:.2} to {:.2}", posterior.q05[latent], posterior.q95[latent]);
        grid.push(vec![
            name,
            format!("{:.2}", posterior.mean[latent]),
            interval,
            count(verdicts.total()),
            count(verdicts.elastic),
            count(verdicts.inelastic),
            count(verdicts.undecided),
        ]);
    };
    push("all".to_owned(), layout.start(Site::GlobalA), &all);
    for (category, verdicts) in of_category.iter().enumerate().take(CATEGORIES_SHOWN) {
        let name = shortened(&panel.categories().get(category).to_string());
        push(name, layout.start(Site::CategoryA) + category, verdicts);
    }
    let more = if layout.categories > CATEGORIES_SHOWN {
        format!(
            "The first {CATEGORIES_SHOWN} of {} categories; posterior.csv has all.\n",
            count(layout.categories as u64)
        )
    } else {
        String::new()
    };
    let data = &record.panel;
    format!(
        "{}: {} products, {} rows, {} periods. {}, {}.\n\n{}{more}\
         Elastic: the 90% interval of the product's elasticity is below -1; inelastic: above -1.\n\n\
         {}: {}, {}.\n{}\nFiles: {}\n",
        printable(&data.source),
        count(data.products as u64),
        count(data.rows as u64),
        count(data.periods as u64),
        model_in_words(record.model),
        likelihood_in_words(record.request.likelihood),
        grid.render(),
        method_in_words(&record.request.method),
        match record.status {
            FitStatus::Finished => "finished".to_owned(),
            FitStatus::Unfinished => format!("unfinished ({})", record.reason),
        },
        duration(record.report.setup_seconds + record.report.run_seconds),
        diagnostics(record, panel, posterior),
        folder.display(),
    )
}

fn method_in_words(method: &Method) -> String {
    let name = method.words();
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= LONGEST_NAME {
        return name.to_owned();
    }
    let start: String = name.chars().take(LONGEST_NAME - 3).collect();
    start + "..."
}

fn diagnostics(record: &FitRecord, panel: &Panel, posterior: &Posterior) -> String {
    let report = &record.report;
    let convergence = report.convergence(&record.request.method);
    match &report.detail {
        Detail::Gaussian(gaussian) => of_gaussian(gaussian, convergence),
        Detail::Nuts(nuts) => of_chains(nuts, convergence, panel, posterior),
        Detail::Svi(svi) => of_svi(svi, convergence, &record.request.method, report.run_seconds),
    }
}

/// The verdict on a run that tests whether it has converged.
fn in_words(convergence: Convergence) -> &'static str {
    match convergence {
        Convergence::Converged => "converged",
        Convergence::NotConverged => "NOT converged",
        Convergence::Unknown => "not known to have converged",
    }
}

fn of_gaussian(gaussian: &GaussianReport, convergence: Convergence) -> String {
    let steps = match gaussian.variational_steps {
        0 => format!("{} Newton steps", count(gaussian.newton_steps)),
        more => format!(
            "{} Newton steps and {} variational ones",
            count(gaussian.newton_steps),
            count(more)
        ),
    };
    let remaining = match gaussian.trace.last() {
        Some(last) => format!(", {:.1e} left at the last one", last.remaining),
        None => String::new(),
    };
    format!("Diagnostics: {}; {steps}{remaining}.", in_words(convergence))
}

fn of_svi(svi: &SviReport, convergence: Convergence, method: &Method, run_seconds: f64) -> String {
    let particles = match method {
        Method::Svi(settings) => settings.particles,
        _ => 0,
    };
    let verdict = match convergence {
        Convergence::Converged => "the loss no longer falls",
        Convergence::NotConverged => "NOT converged: the loss still fell at the end",
        Convergence::Unknown => "whether it converged is not known (an early stop tests it)",
    };
    let correlations = match method.coordinates() {
        Coordinates::Published => {
            "Intervals of a mean-field guide in these coordinates ignore correlations of up to 0.998."
        }
        Coordinates::Orthogonal => {
            "The guide is mean-field, in coordinates in which the posterior is nearly uncorrelated."
        }
    };
    format!(
        "Diagnostics: {} iterations, {verdict}; {} effective particles of {particles} in the mean. {correlations}{}",
        count(svi.iterations),
        three_digits(svi.mean_effective_particles),
        svi.communication
            .map(|crossed| format!("\n{}", communication_in_words(&crossed, run_seconds)))
            .unwrap_or_default(),
    )
}

/// What crossed between ranks, in a line.
fn communication_in_words(crossed: &CommunicationReport, run_seconds: f64) -> String {
    let bytes = |x: f64| format!("{}{}B", with_prefix(x), if x < 999.5 { " " } else { "" });
    format!(
        "Communication of {} ranks: {} per iteration in {} all-reduce{}, {:.1}% of the time in them (waiting included), bus bandwidth {}/s.",
        crossed.ranks,
        bytes(crossed.bytes_per_iteration),
        three_digits(crossed.operations_per_iteration),
        if crossed.operations_per_iteration == 1.0 {
            ""
        } else {
            "s"
        },
        100.0 * crossed.seconds / run_seconds.max(f64::MIN_POSITIVE),
        bytes(crossed.bus_bandwidth),
    )
}

fn of_chains(nuts: &NutsReport, convergence: Convergence, panel: &Panel, posterior: &Posterior) -> String {
    let key = |latent: usize| {
        let site = posterior.layout.site_of(latent);
        let key = panel
            .axes()
            .key(site, latent - posterior.layout.start(site))
            .to_string();
        if key.is_empty() {
            site.name().to_owned()
        } else {
            format!("{} {key}", site.name())
        }
    };
    let known = posterior.diagnostics.as_ref();
    let worst = |values: Option<&Vec<f64>>, sign: f64| -> Option<(f64, String)> {
        let values = values?.iter().copied().enumerate();
        let worst = values
            .filter(|(_, value)| value.is_finite())
            .max_by(|a, b| (sign * a.1).total_cmp(&(sign * b.1)))?;
        Some((worst.1, key(worst.0)))
    };
    let draws = |found: Option<(f64, String)>| match found {
        Some((ess, key)) => format!("{} ({key})", count(ess.round() as u64)),
        None => "not known".to_owned(),
    };
    let rhat = match worst(known.map(|d| &d.rhat), 1.0) {
        Some((rhat, key)) => format!("{rhat:.3} ({key})"),
        None => "not known".to_owned(),
    };
    format!(
        "Diagnostics: {}; worst R-hat {rhat}; fewest effective draws {} in the bulk, {} in the tails; {} divergences, {} draws at the \
         depth limit.",
        in_words(convergence),
        draws(worst(known.map(|d| &d.ess_bulk), -1.0)),
        draws(worst(known.map(|d| &d.ess_tail), -1.0)),
        count(nuts.divergences),
        count(nuts.saturated_trees),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_elastic_inelastic_or_undecided() {
        let mut verdicts = Verdicts::default();
        for (low, high) in [(-3.0, -1.5), (-0.9, 0.1), (-2.0, -0.5), (-2.0, -1.0), (-1.0, 0.0)] {
            verdicts.add(low, high);
        }
        let expected = Verdicts {
            elastic: 1,
            inelastic: 1,
            undecided: 3,
        };
        assert_eq!(verdicts, expected);
        assert_eq!(verdicts.total(), 5);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(shortened("tea"), "tea");
        let cut = shortened(&"\u{e4}".repeat(60));
        assert_eq!(cut.chars().count(), LONGEST_NAME);
        assert!(cut.ends_with("..."));
    }
}
