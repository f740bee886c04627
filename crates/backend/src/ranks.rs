//! What the ranks of a run must have in common.

use crate::error::BackendError;
use crate::request::Request;
use infermark_communicator::{Communicator, preflight};
use infermark_model::Panel;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Checks, before a run, that all ranks answer, that sums arrive as they should, and that all have the same request, panel and
/// `hardware`, the device's name or the processor's instruction set: each computes what is above the products for itself, and all must
/// get the same bits. Threads may differ.
///
/// # Errors
/// [`BackendError::Communication`] with the rank that differs, and in what.
pub fn check_ranks(
    communicator: &mut dyn Communicator,
    panel: &Panel,
    request: &Request,
    hardware: &str,
) -> Result<(), BackendError> {
    let request = Request {
        threads: None,
        ..request.clone()
    };
    let facts = [
        ("request", digest(|hasher| format!("{request:?}").hash(hasher))),
        ("panel", digest(|hasher| hash_panel(panel, hasher))),
        (
            "instruction set or device",
            digest(|hasher| hardware.hash(hasher)),
        ),
    ];
    Ok(preflight(communicator, &facts)?)
}

/// All that is in a panel.
fn hash_panel(panel: &Panel, hasher: &mut DefaultHasher) {
    for labels in [panel.products(), panel.categories(), panel.periods()] {
        labels.iter().for_each(|label| label.to_string().hash(hasher));
    }
    panel.category_of().hash(hasher);
    for product in 0..panel.layout().products {
        for row in panel.product_rows(product) {
            (row.period, row.units, row.log_price.to_bits()).hash(hasher);
        }
    }
}

/// A digest that is the same in every process of one program.
fn digest(of: impl FnOnce(&mut DefaultHasher)) -> u64 {
    let mut hasher = DefaultHasher::new();
    of(&mut hasher);
    hasher.finish()
}
