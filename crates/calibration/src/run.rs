//! All methods on all replications.

use crate::design::{Design, DesignError};
use crate::method_under_test::{FitError, MethodUnderTest, Place};
use crate::quantity::Quantity;
use crate::rank_statistic::RankStatistic;
use crate::replication::{Replication, ReplicationError};
use crate::score::Scores;
use infermark_backend::{BackendError, Interrupt};
use infermark_model::Likelihood;
use infermark_threads::start;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// A truth placed in a posterior.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedTruth {
    /// Replication, from 0.
    pub replication: usize,
    /// Index of the method among the methods.
    pub method: usize,
    /// Which quantity.
    pub quantity: Quantity,
    /// The latent's key, as files write it; empty for `global_a` and the log joint.
    pub key: String,
    /// Where the truth lies.
    pub statistic: RankStatistic,
    /// Mean scores over all latents of the quantity's site.
    pub scores: Scores,
}

/// A fit that gave no posterior: it ended with an error, did not converge, or its chains never mixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Replication, from 0.
    pub replication: usize,
    /// Index of the method among the methods.
    pub method: usize,
    /// Why.
    pub reason: String,
}

/// The results of a calibration.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Names of the methods.
    pub methods: Vec<String>,
    /// Distribution of the counts.
    pub likelihood: Likelihood,
    /// Requested number of replications.
    pub asked: usize,
    /// Replications done: the first so many.
    pub done: usize,
    /// Placements by replication, then method, then quantity.
    pub placed: Vec<PlacedTruth>,
    /// Failed fits by replication, then method.
    pub failures: Vec<Failure>,
}

impl Calibration {
    /// Whether all replications were done.
    pub fn is_complete(&self) -> bool {
        self.done == self.asked
    }

    /// The truths of one method's quantity, by replication.
    pub fn placed(&self, method: usize, quantity: Quantity) -> impl Iterator<Item = &PlacedTruth> {
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
        /// The method's name.
        method: String,
        /// Why.
        error: BackendError,
    },
    /// A method fits another likelihood than the one that counts are drawn from.
    #[error(
        "{method} fits {fitted} counts, and the design draws {drawn} ones; give both the same likelihood"
    )]
    Likelihood {
        /// The method's name.
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
    placed: Vec<PlacedTruth>,
    failures: Vec<Failure>,
}

/// Draws `design`'s replications, fits each by all `methods_under_test`, and places the truths.
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
    methods_under_test: &[MethodUnderTest<'_>],
    threads: usize,
    interrupt: &Interrupt,
    observer: &mut dyn FnMut(usize),
) -> Result<Calibration, CalibrationError> {
    design.validate()?;
    if methods_under_test.is_empty() {
        return Err(CalibrationError::NoMethod);
    }
    for method_under_test in methods_under_test {
        method_under_test
            .request
            .validate()
            .map_err(|error| of_method(method_under_test, error))?;
        if method_under_test.request.likelihood != design.likelihood {
            return Err(CalibrationError::Likelihood {
                method: method_under_test.name.clone(),
                fitted: method_under_test.request.likelihood.name(),
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
        let found = replicate(design, methods_under_test, index);
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
        methods: methods_under_test.iter().map(|c| c.name.clone()).collect(),
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

fn of_method(method_under_test: &MethodUnderTest<'_>, error: BackendError) -> CalibrationError {
    CalibrationError::Method {
        method: method_under_test.name.clone(),
        error,
    }
}

fn replicate(
    design: &Design,
    methods_under_test: &[MethodUnderTest<'_>],
    index: usize,
) -> Result<Share, CalibrationError> {
    let replication = Replication::draw(design, index)?;
    let mut share = Share::default();
    for (method, method_under_test) in methods_under_test.iter().enumerate() {
        match method_under_test.place(&replication) {
            Ok(places) => share.placed.extend(places.into_iter().map(|place| {
                let Place {
                    quantity,
                    statistic,
                    scores,
                } = place;
                PlacedTruth {
                    replication: index,
                    method,
                    quantity,
                    key: match quantity {
                        Quantity::Latent(site) => replication.key(site),
                        Quantity::LogJoint => String::new(),
                    },
                    statistic,
                    scores,
                }
            })),
            Err(FitError::Failed(reason)) => share.failures.push(Failure {
                replication: index,
                method,
                reason,
            }),
            Err(FitError::Request(error)) => return Err(of_method(method_under_test, error)),
        }
    }
    Ok(share)
}
