//! What follows for a user from the dispersion of the counts.

use infermark_model::dispersion::{Dispersion, LEVEL};
use infermark_model::{Likelihood, Panel, printable};

/// Dispersion from which on counts are reported to vary much, if no level can be stated.
const MUCH: f64 = 1.5;

/// The advice if the counts vary more than Poisson counts, overall or in a category; `None` if they do not.
pub(super) fn advice(dispersion: &Dispersion, likelihood: Likelihood) -> Option<String> {
    if likelihood != Likelihood::Poisson {
        return None;
    }
    let found = dispersion.overall;
    let remedy = format!(
        "its intervals are too narrow by a factor of about {:.1}; fit again with --likelihood negative-binomial",
        found.dispersion.max(1.0).sqrt()
    );
    match found.excess {
        None if found.dispersion > MUCH => Some(format!(
            "the counts vary more about this fit than Poisson counts: dispersion {:.3}, 1 is expected. If the fit is right, {remedy} \
             (--method laplace states at what level Poisson is refuted)",
            found.dispersion
        )),
        Some(excess) if found.refutes_poisson() => Some(format!(
            "Poisson is refuted by these data: dispersion {:.3}, 1 is expected; the excess product by product is {:.3}, above {:.3} \
             has a probability below {LEVEL:e}; {remedy}",
            found.dispersion, excess.value, excess.limit
        )),
        _ => {
            let refuted = dispersion
                .by_category
                .iter()
                .filter(|of| of.refutes_poisson())
                .count();
            (refuted > 0).then(|| {
                format!(
                    "Poisson is refuted by the data of {refuted} of {} categories, each at a level of {LEVEL:e}; their intervals are \
                     too narrow; fit again with --likelihood negative-binomial",
                    dispersion.by_category.len()
                )
            })
        }
    }
}

/// Largest number of categories that are named with their dispersion; `run.json` has all.
const NAMED: usize = 12;

/// The dispersion of the categories, the largest first.
pub(super) fn by_category(dispersion: &Dispersion, panel: &Panel) -> String {
    let names = panel.categories().iter().map(|name| name.to_string());
    let mut all: Vec<(String, f64)> = names
        .zip(dispersion.by_category.iter().map(|of| of.dispersion))
        .collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    let named: Vec<String> = all
        .iter()
        .take(NAMED)
        .map(|(name, of)| format!("{} {of:.1}", printable(name)))
        .collect();
    let more = match all.len().saturating_sub(NAMED) {
        0 => String::new(),
        rest => format!(", and {rest} more in run.json"),
    };
    format!("dispersion by category: {}{more}", named.join(", "))
}
