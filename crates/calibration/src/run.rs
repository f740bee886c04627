//! All methods on all replications.

use crate::contender::{Contender, FitError, Place};
use crate::design::{Design, DesignError};
use crate::placement::Placement;
use crate::quantity::Quantity;
use crate::replication::{Replication, ReplicationError};
use crate::score::Scores;
use infermark_backend::{BackendError, Interrupt};
use infermark_model::Likelihood;
use infermark_threads::start;
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
    /// Mean scores over all latents of the quantity's site.
    pub scores: Scores,
}

/// A fit that gave no posterior: it ended with an error, did not converge, or its chains never mixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Replication, from 0.
    pub replication: usize,
    /// Index of the method among the contenders.
    pub method: usize,
    /// Why.
    pub reason: String,
}

/// The results of a calibration.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Names of the contenders.
    pub methods: Vec<String>,
    /// Distribution of the counts.
    pub likelihood: Likelihood,
    /// Requested number of replications.
    pub asked: usize,
    /// Replications done: the first so many.
    pub done: usize,
    /// Placements by replication, then method, then quantity.
    pub placed: Vec<Placed>,
    /// Failed fits by replication, then method.
    pub failures: Vec<Failure>,
}

impl Calibration {
    /// Whether all replications were done.
    pub fn is_complete(&self) -> bool {
        self.done == self.asked
    }

    /// The truths of one method's quantity, by replication.
    pub fn placed(&self, method: usize, quantity: Quantity) -> impl Iterator<Item = &Placed> {
        self.placed
            .iter()
            .filter(move |p| p.method == method && p.quantity == quantity)
    }
}

/// Reasons for having no calibration.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// The design is out of range.
    #[error(transparent)]
    Design(#[from] DesignError),
    /// The replications cannot be drawn.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// A method serves no replication.
    #[error("{method}: {error}")]
    Method {
        /// The contender's name.
        method: String,
        /// Why.
        error: BackendError,
    },
    /// A method fits another likelihood than the one that counts are drawn from.
    #[error(
        "{method} fits {fitted} counts, and the design draws {drawn} ones; give both the same likelihood"
    )]
    Likelihood {
        /// The contender's name.
        method: String,
        /// What it fits.
        fitted: &'static str,
        /// What is drawn.
        drawn: &'static str,
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
/// Replications are taken by `threads` threads, each fit has one; the result does not depend on their number.
/// `observer` is called with the number of replications done. Once `interrupt` is set no further replication
/// begins, and those under way are finished: leaving out the slow ones would bias the selection.
///
/// # Errors
/// When design or requests are out of range, a method is not served, or nothing was done before the
/// interrupt. A fit that fails is not an error: it is listed among the failures.
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
        if contender.request.likelihood != design.likelihood {
            return Err(CalibrationError::Likelihood {
                method: contender.name.clone(),
                fitted: contender.request.likelihood.name(),
                drawn: design.likelihood.name(),
            });
        }
    }
    let next = AtomicUsize::new(0);
    // Set by a failure that ends the calibration.
    let over = Interrupt::new();
    let mut shares: Vec<Option<Share>> = Vec::new();
    shares.resize_with(design.replications, || None);
    let (mut failure, mut done) = (None, 0);
    let mut keep = |(index, found): (usize, Result<Share, CalibrationError>)| {
        match found {
            Ok(share) => shares[index] = Some(share),
            Err(error) => failure = Some(error),
        }
        done += 1;
        observer(done);
    };
    // The results of the next replication; `None` if there are no more.
    let take = || {
        if interrupt.is_set() || over.is_set() {
            return None;
        }
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= design.replications {
            return None;
        }
        let found = replicate(design, contenders, index);
        if found.is_err() {
            over.set();
        }
        Some((index, found))
    };
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let mut is_alone = true;
        for _ in 0..threads.clamp(1, design.replications) {
            let (sender, take) = (sender.clone(), &take);
            let started = start(scope, move || {
                while let Some(found) = take() {
                    if sender.send(found).is_err() {
                        break;
                    }
                }
            });
            if started.is_err() {
                break;
            }
            is_alone = false;
        }
        drop(sender);
        if is_alone {
            std::iter::from_fn(&take).for_each(&mut keep);
        } else {
            receiver.iter().for_each(&mut keep);
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let mut calibration = Calibration {
        methods: contenders.iter().map(|c| c.name.clone()).collect(),
        likelihood: design.likelihood,
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
            Ok(places) => share.placed.extend(places.into_iter().map(|place| {
                let Place {
                    quantity,
                    placement,
                    scores,
                } = place;
                Placed {
                    replication: index,
                    method,
                    quantity,
                    key: match quantity {
                        Quantity::Latent(site) => replication.key(site),
                        Quantity::LogJoint => String::new(),
                    },
                    placement,
                    scores,
                }
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
