//! What the ranks of a run must have in common.

use crate::error::BackendError;
use crate::request::Request;
use infermark_communicator::{Communicator, preflight};
use infermark_model::Panel;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Checks, before a run, that all ranks answer, that sums arrive as they should, and that all have the same program, request and
/// panel; threads may differ.
///
/// # Errors
/// [`BackendError::Communication`] with the rank that differs, and in what.
pub fn check_ranks(
    communicator: &mut dyn Communicator,
    panel: &Panel,
    request: &Request,
) -> Result<(), BackendError> {
    Ok(preflight(communicator, &facts(panel, request))?)
}

/// Program, request and panel, with digests.
fn facts(panel: &Panel, request: &Request) -> [(&'static str, u64); 3] {
    let request = Request {
        threads: None,
        ..request.clone()
    };
    let sums = panel.sums();
    let layout = panel.layout();
    let mean_log_price = panel.mean_log_price().iter().map(|mean| mean.to_bits());
    [
        ("version", digest(&env!("CARGO_PKG_VERSION"))),
        ("request", digest(&format!("{request:?}"))),
        (
            "panel",
            digest(&(
                [layout.products, layout.categories, layout.periods, panel.rows()],
                &sums.product,
                panel.category_of(),
                mean_log_price.collect::<Vec<u64>>(),
            )),
        ),
    ]
}

/// A digest that is the same in every process of one program.
fn digest(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}
