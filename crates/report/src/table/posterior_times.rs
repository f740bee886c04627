//! The section "Time to a posterior".

use super::grid::Grid;
use crate::number_format::{count, duration, three_digits};
use crate::published::{NUTS_TIME, PRODUCT_A_COVERAGE_95, PRODUCT_A_MAE};
use crate::records::case_record::CaseRecord;
use crate::results_csv::{NOT_APPLICABLE, NOT_MEASURED};
use crate::statistics::time_to_posterior::{PosteriorTime, TimeBasis, times_to_posterior};

/// Every way to a posterior by size; nothing if no case has one.
pub(super) fn section(records: &[CaseRecord]) -> Option<String> {
    let mut grid = Grid::new(&[
        ("products", true),
        ("way", false),
        ("on", false),
        ("time (low to high)", true),
        ("is", false),
        ("mean absolute error", true),
        ("95% intervals cover", true),
        ("quality after", false),
        ("times published SVI, CPU", true),
        ("times published NUTS", true),
        ("times SVI here", true),
        ("times NUTS here", true),
        ("status", false),
    ]);
    for time in times_to_posterior(records) {
        grid.push(row(&time));
    }
    grid.section(&format!(
        "## Time to a posterior\n\nFrom the loaded panel to all marginals. Measured: the whole way, the median of the repeats. \
         Estimated: from a part of it. Upper bound: from a part of it, every tree that was not made taken as full; no factor \
         is taken over it. Published: SVI read off a progress bar, NUTS {NUTS_TIME}; a factor over either compares machines \
         too. What has not converged is held against nothing. `the run so far`: the coverage after so many iterations, not \
         that of the posterior that 1M iterations lead to. The last factors are over the same table's 1M iterations of SVI \
         in the fastest case here, estimated, and over the published NUTS setting here. Published as \
         the quality of the SVI fit: mean absolute error {PRODUCT_A_MAE}, 95% intervals cover {:.1}%. A factor of 10,000 \
         was published as the product of two others; it was not measured.\n",
        100.0 * PRODUCT_A_COVERAGE_95
    ))
}

fn row(time: &PosteriorTime) -> Vec<String> {
    let absent = match time.basis {
        TimeBasis::Published => NOT_APPLICABLE,
        _ => NOT_MEASURED,
    };
    let quality = |cell: Option<String>| cell.unwrap_or_else(|| absent.to_owned());
    let factor =
        |f: Option<f64>| f.map_or_else(|| NOT_APPLICABLE.to_owned(), |f| format!("{}x", three_digits(f)));
    let missing = if time.converged && time.basis != TimeBasis::UpperBound {
        NOT_MEASURED
    } else {
        NOT_APPLICABLE
    };
    let here = |f: Option<f64>| f.map_or_else(|| missing.to_owned(), |f| format!("{}x", three_digits(f)));
    let truth = time.truth.as_ref();
    vec![
        count(time.products as u64),
        time.way.clone(),
        time.on.clone(),
        match time.range {
            Some((low, high)) => {
                format!(
                    "{} ({} to {})",
                    duration(time.seconds),
                    duration(low),
                    duration(high)
                )
            }
            None => duration(time.seconds),
        },
        time.basis.name().to_owned(),
        quality(truth.map(|t| three_digits(t.mae))),
        quality(truth.map(|t| format!("{:.1}%", 100.0 * t.coverage_95))),
        quality(truth.map(|t| t.after.clone())),
        factor(time.times.as_published_svi),
        factor(time.times.as_published_nuts),
        here(time.times.as_svi_here),
        here(time.times.as_nuts_here),
        match time.basis {
            TimeBasis::Published => NOT_APPLICABLE.to_owned(),
            _ => time.status.name().to_owned(),
        },
    ]
}
