//! What a fit costs, in words.

use crate::objective::GaussianObjective;
use infermark_backend::{Method, Request};

/// Seconds of a step from which on its cost is reported first.
const LONG_STEP: f64 = 2.0;

/// The cost of a fit in words, if a step takes long: squares and cubes of the borders.
pub(crate) fn cost(counts: &GaussianObjective, request: &Request, bytes: u64) -> Option<String> {
    let variational = matches!(request.method, Method::StructuredVi(_));
    let walk = counts.partition();
    let operations = walk.operations_of_pass(variational);
    let threads = request.resolved_threads().min(walk.layout().categories.max(1)) as f64;
    // Not worth a measurement: no thread makes fewer than 1e9 operations per second.
    if operations < LONG_STEP * 1e9 {
        return None;
    }
    let seconds = operations / (infermark_arrowhead::operations_per_second() * threads);
    (seconds > LONG_STEP).then(|| {
        let layout = walk.layout();
        format!(
            "{} periods in {} categories: the work grows with the cube of the periods, memory with their square; a step takes about \
             {}, a fit some 10 to 30 steps, and up to {:.1} GB of memory",
            layout.periods,
            layout.categories,
            duration(seconds),
            bytes as f64 / 1e9
        )
    })
}

/// Seconds in words.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} minutes", s / 60.0),
        s => format!("{:.0} hours", s / 3600.0),
    }
}
