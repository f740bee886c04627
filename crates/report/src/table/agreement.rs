//! The sections on calibration, and on the distance from the posterior of NUTS.

use super::backend_and_device;
use super::grid::Grid;
use crate::number_format::{count, three_digits};
use crate::quality::agreement::{Agreement, Reference};
use crate::quality::coverage::LEVELS;
use crate::records::case_record::{CaseRecord, of_most_threads};

/// What the intervals of each level cover; nothing if no truth was known.
pub(super) fn coverage_section(records: &[CaseRecord]) -> Option<String> {
    let names: Vec<String> = LEVELS.iter().map(|l| format!("{:.0}%", 100.0 * l)).collect();
    let mut columns = vec![("backend", false), ("settings", false), ("products", true)];
    columns.extend(names.iter().map(|name| (name.as_str(), true)));
    let mut grid = Grid::new(&columns);
    for record in of_most_threads(records) {
        let Some(truth) = record
            .truth_quality
            .as_ref()
            .filter(|t| t.coverage.len() == LEVELS.len())
        else {
            continue;
        };
        let mut row = vec![
            backend_and_device(record),
            record.settings(),
            count(record.panel.products as u64),
        ];
        row.extend(truth.coverage.iter().map(|p| format!("{:.1}%", 100.0 * p.actual)));
        grid.push(row);
    }
    grid.section(
        "## Coverage of the true elasticities, by nominal level\n\nThe column's name is what the intervals should cover. The period noise \
         of the published process is outside the model: on it even the exact posterior covers a little less.\n",
    )
}

/// The distance of each posterior from that of NUTS, by site; nothing if NUTS has none.
pub(super) fn section(records: &[CaseRecord]) -> Option<String> {
    let names = [("backend", false), ("settings", false), ("products", true)];
    let mut grid = Grid::new(&[&names[..], &SITE_COLUMNS].concat());
    let mut references: Vec<&Reference> = Vec::new();
    for record in of_most_threads(records) {
        if let Some(agreement) = &record.agreement {
            let names = [
                backend_and_device(record),
                record.settings(),
                count(record.panel.products as u64),
            ];
            for row in site_rows(agreement) {
                grid.push(names.iter().cloned().chain(row).collect());
            }
            if !references.contains(&&agreement.reference) {
                references.push(&agreement.reference);
            }
        }
    }
    let words: Vec<String> = references.into_iter().map(in_words).collect();
    grid.section(&format!(
        "## Distance from the posterior of NUTS\n\nMeans: in standard deviations of NUTS; standard deviations: over those of NUTS. {}\n",
        words.join(" ")
    ))
}

/// The columns of [`site_rows`].
pub(crate) const SITE_COLUMNS: [(&str, bool); 7] = [
    ("site", false),
    ("latents", true),
    ("mean's distance, median", true),
    ("largest", true),
    ("sd ratio, median", true),
    ("smallest", true),
    ("largest", true),
];

/// Cells of each site: its name, the number of latents, distance of the means, ratio of the standard deviations.
pub(crate) fn site_rows(agreement: &Agreement) -> impl Iterator<Item = [String; 7]> {
    agreement.sites.iter().map(|s| {
        [
            s.site.name().to_owned(),
            count(s.latents as u64),
            three_digits(s.mean_difference_median),
            three_digits(s.mean_difference_largest),
            three_digits(s.sd_ratio_median),
            three_digits(s.sd_ratio_smallest),
            three_digits(s.sd_ratio_largest),
        ]
    })
}

/// The reference, and how far it can be trusted.
pub(crate) fn in_words(reference: &Reference) -> String {
    let Reference {
        name,
        max_rhat,
        min_ess_bulk,
    } = reference;
    let unknown = || "not known".to_owned();
    format!(
        "The reference is {name}: R-hat up to {}, effective draws from {}; a mean of n effective draws is itself off by 1/sqrt(n) of \
         its standard deviation.",
        max_rhat.map_or_else(unknown, |r| format!("{r:.3}")),
        min_ess_bulk.map_or_else(unknown, three_digits)
    )
}
