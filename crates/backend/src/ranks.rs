//! What the ranks of a run must have in common.

use crate::error::BackendError;
use crate::request::Request;
use infermark_communicator::{CommunicationError, Communicator, preflight};
use infermark_model::{Panel, PanelRanks};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

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

/// All that is in a panel; where its rows are spread over the ranks, all that every rank knows of it.
fn hash_panel(panel: &Panel, hasher: &mut DefaultHasher) {
    for labels in [panel.products(), panel.categories(), panel.periods()] {
        labels.iter().for_each(|label| label.to_string().hash(hasher));
    }
    panel.category_of().hash(hasher);
    for product in 0..panel.layout().products {
        let numbers = [
            panel.mean_log_price()[product],
            panel.sums().product_deviation[product],
        ];
        panel.rows_of(product).hash(hasher);
        numbers.map(f64::to_bits).hash(hasher);
    }
    panel.sums().product.hash(hasher);
    panel.sums().category_period.hash(hasher);
    panel.sums().ln_factorials.to_bits().hash(hasher);
    panel.presence().map(|presence| &presence.words).hash(hasher);
    if panel.ranks().is_some() {
        return;
    }
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

/// The ranks of a panel whose rows are spread over them, connected by a communicator.
pub struct ConnectedRanks {
    rank: usize,
    size: usize,
    communicator: Mutex<Box<dyn Communicator>>,
    end: Box<dyn Fn(&CommunicationError) + Send + Sync>,
}

impl ConnectedRanks {
    /// The ranks of `communicator`. An operation that fails calls `end`, which ends the run.
    ///
    /// # Panics
    /// An operation that fails panics where `end` returns.
    pub fn new(
        communicator: Box<dyn Communicator>,
        end: impl Fn(&CommunicationError) + Send + Sync + 'static,
    ) -> Self {
        ConnectedRanks {
            rank: communicator.rank(),
            size: communicator.size(),
            communicator: Mutex::new(communicator),
            end: Box::new(end),
        }
    }

    fn carry_out(&self, operation: impl FnOnce(&mut dyn Communicator) -> Result<(), CommunicationError>) {
        let mut communicator = self.communicator.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = operation(&mut **communicator) {
            (self.end)(&error);
            panic!("{error}");
        }
    }
}

impl PanelRanks for ConnectedRanks {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, numbers: &mut [f64]) {
        self.carry_out(|communicator| communicator.all_reduce(numbers));
    }

    fn broadcast(&self, numbers: &mut [f64], from: usize) {
        self.carry_out(|communicator| communicator.broadcast(numbers, from));
    }

    fn check_same(&self, what: &'static str, digest: u64) {
        self.carry_out(|communicator| preflight(communicator, &[(what, digest)]));
    }
}

impl fmt::Debug for ConnectedRanks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectedRanks")
            .field("rank", &self.rank)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
