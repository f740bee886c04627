//! All methods on all replications.

use crate::contender::{Contender, FitError};
use crate::design::{Design, DesignError};
use crate::placement::Placement;
use crate::quantity::Quantity;
use crate::replication::Replication;
use infermark_backend::{BackendError, Interrupt};
use infermark_data::GenerateError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// A truth placed in a posterior.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Replication, from 0.
    pub replication: usize,
    /// Index of the method among the contenders.
    pub method: usize,
    /// Which quantity.
    pub quantity: Quantity,
    /// The latent's key, as files write it; empty for `global_a` and the log joint.
    pub key: String,
    /// Where the truth lies.
    pub placement: Placement,
}

/// A fit that gave no posterior.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Replication, from 0.
    pub replication: usize,
    /// Index of the method among the contenders.
    pub method: usize,
    /// Why.
    pub reason: String,
}

/// What a calibration found.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Names of the contenders.
    pub methods: Vec<String>,
    /// Replications that were asked for.
    pub asked: usize,
    /// Replications done: the first so many.
    pub done: usize,
    /// By replication, then method, then quantity.
    pub placed: Vec<Placed>,
    /// By replication, then method.
    pub failures: Vec<Failure>,
}

impl Calibration {
    /// Whether all replications were done.
    pub fn is_complete(&self) -> bool {
        self.done == self.asked
    }

    /// Placements of one method's quantity, by replication.
    pub fn placements(&self, method: usize, quantity: Quantity) -> impl Iterator<Item = &Placement> {
        self.placed
            .iter()
            .filter(move |p| p.method == method && p.quantity == quantity)
            .map(|p| &p.placement)
    }
}

/// Why there is no calibration.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// The design is out of range.
    #[error(transparent)]
    Design(#[from] DesignError),
    /// The replications cannot be drawn.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A method serves no replication.
    #[error("{method}: {error}")]
    Method {
        /// The contender's name.
        method: String,
        /// Why.
        error: BackendError,
    },
    /// No method was given.
    #[error("there is no method to calibrate; give at least one")]
    NoMethod,
    /// It was stopped before the first replication was done.
    #[error("stopped before a replication was done")]
    Stopped,
}

/// What a replication gives.
#[derive(Default)]
struct Share {
    placed: Vec<Placed>,
    failures: Vec<Failure>,
}

/// Draws `design`'s replications, fits each by all `contenders`, and places the truths.
///
/// Replications are taken by `threads` threads, each fit has one; the result does not depend on their number. `observer` is
/// told the number of replications done. Once `interrupt` is set no further replication begins, and those under way are
/// finished: leaving out what happens to take long would select by it.
///
/// # Errors
/// When design or requests are out of range, a method is not served, or nothing was done before the interrupt. A fit that
/// fails is no error: it is told among the failures.
pub fn calibrate(
    design: &Design,
    contenders: &[Contender<'_>],
    threads: usize,
    interrupt: &Interrupt,
    observer: &mut dyn FnMut(usize),
) -> Result<Calibration, CalibrationError> {
    design.validate()?;
    if contenders.is_empty() {
        return Err(CalibrationError::NoMethod);
    }
    for contender in contenders {
        contender
            .request
            .validate()
            .map_err(|error| of_method(contender, error))?;
    }
    let next = AtomicUsize::new(0);
    // Set by a failure that ends the whole.
    let over = Interrupt::new();
    let mut shares: Vec<Option<Share>> = Vec::new();
    shares.resize_with(design.replications, || None);
    let mut failure = None;
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..threads.clamp(1, design.replications) {
            let sender = sender.clone();
            let (next, over) = (&next, &over);
            scope.spawn(move || {
                while !interrupt.is_set() && !over.is_set() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= design.replications {
                        break;
                    }
                    let found = replicate(design, contenders, index);
                    if found.is_err() {
                        over.set();
                    }
                    if sender.send((index, found)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (done, (index, found)) in receiver.iter().enumerate() {
            match found {
                Ok(share) => shares[index] = Some(share),
                Err(error) => failure = Some(error),
            }
            observer(done + 1);
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let mut calibration = Calibration {
        methods: contenders.iter().map(|c| c.name.clone()).collect(),
        asked: design.replications,
        done: 0,
        placed: Vec::new(),
        failures: Vec::new(),
    };
    // Replications are begun in their order, and what was begun was finished.
    for share in shares.into_iter().map_while(|share| share) {
        calibration.done += 1;
        calibration.placed.extend(share.placed);
        calibration.failures.extend(share.failures);
    }
    if calibration.done == 0 {
        return Err(CalibrationError::Stopped);
    }
    Ok(calibration)
}

fn of_method(contender: &Contender<'_>, error: BackendError) -> CalibrationError {
    CalibrationError::Method {
        method: contender.name.clone(),
        error,
    }
}

fn replicate(design: &Design, contenders: &[Contender<'_>], index: usize) -> Result<Share, CalibrationError> {
    let replication = Replication::draw(design, index)?;
    let mut share = Share::default();
    for (method, contender) in contenders.iter().enumerate() {
        match contender.place(&replication) {
            Ok(placed) => share
                .placed
                .extend(placed.into_iter().map(|(quantity, placement)| Placed {
                    replication: index,
                    method,
                    quantity,
                    key: match quantity {
                        Quantity::Latent(site) => replication.key(site),
                        Quantity::LogJoint => String::new(),
                    },
                    placement,
                })),
            Err(FitError::Failed(reason)) => share.failures.push(Failure {
                replication: index,
                method,
                reason,
            }),
            Err(FitError::Request(error)) => return Err(of_method(contender, error)),
        }
    }
    Ok(share)
}
