//! The section "Against the baseline".

use super::grid::Grid;
use crate::baseline::ratio::{CONFIDENCE, SAME};
use crate::baseline::{BaselineCase, BaselineComparison, Side, Verdict};
use crate::number_format::{count, three_digits};
use crate::results_csv::{NOT_APPLICABLE, NOT_MEASURED};
use infermark_model::printable;

/// A comparison with an earlier run, to be read.
pub fn section(comparison: &BaselineComparison) -> String {
    let mut grid = Grid::new(&[
        ("backend", false),
        ("device", false),
        ("settings", false),
        ("products", true),
        ("verdict", false),
        ("times as fast (interval)", true),
        ("here, a second", true),
        ("baseline, a second", true),
        ("remark", false),
    ]);
    for case in &comparison.cases {
        grid.push(row(case));
    }
    let count_of = |verdict: Verdict| format!("{} {}", comparison.count(verdict), verdict.name());
    let verdicts = [
        Verdict::Faster,
        Verdict::Slower,
        Verdict::NoDifference,
        Verdict::NotComparable,
    ];
    let mut text = format!(
        "## Against the baseline\n\nHere: {}. Baseline: {}. {}.\n\nThe ratio is that of the medians, its interval of Mann and Whitney from the repeats of \
         both runs, of at least {:.0}%. A difference is one where the interval excludes 1 and the ratio is beyond {SAME} or 1/{SAME}, which runs of \
         one program may differ by.\n",
        printable(&comparison.here.in_words()),
        printable(&comparison.baseline.in_words()),
        verdicts.map(count_of).join(", "),
        100.0 * CONFIDENCE
    );
    for remark in &comparison.remarks {
        text.push_str(&format!("\n{}.\n", printable(remark)));
    }
    format!("{text}\n{}", grid.render())
}

fn row(case: &BaselineCase) -> Vec<String> {
    let rate = |side: &Side| side.rate.map_or_else(|| NOT_MEASURED.to_owned(), three_digits);
    vec![
        case.backend.clone(),
        case.device.clone(),
        case.settings.clone(),
        count(case.products as u64),
        case.verdict.name().to_owned(),
        case.ratio.as_ref().map_or_else(
            || NOT_APPLICABLE.to_owned(),
            |ratio| {
                format!(
                    "{}x ({} to {})",
                    three_digits(ratio.of_medians),
                    three_digits(ratio.low),
                    three_digits(ratio.high)
                )
            },
        ),
        rate(&case.here),
        case.baseline
            .as_ref()
            .map_or_else(|| NOT_APPLICABLE.to_owned(), rate),
        case.reason.clone(),
    ]
}
