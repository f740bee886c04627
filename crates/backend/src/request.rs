//! Requests to a backend.

mod gaussian;
mod method;
mod nuts;
mod svi;

use crate::device::DeviceId;
use crate::error::BackendError;
use crate::metric::Metric;
use crate::remedy::{Cause, Choice, Remedy};
use infermark_model::{Coordinates, Cut, Likelihood, Panel, Parameterization, Priors};
use serde::{Deserialize, Serialize};

pub use gaussian::{LaplaceSettings, MeanfieldSettings, StructuredViSettings};
pub use infermark_threads::MOST_THREADS;
pub use method::{BenchmarkSettings, Method, objective_in_words};
pub use nuts::NutsSettings;
pub use svi::{EarlyStop, SviSettings};

/// Largest number of shards that may be requested.
pub const MOST_SHARDS: usize = 1024;

const fn one() -> usize {
    1
}

/// The complete configuration of a run, which result files record in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Prior settings.
    pub priors: Priors,
    /// Distribution of the counts; requests written before this field existed are Poisson.
    #[serde(default)]
    pub likelihood: Likelihood,
    /// Form in which the sites are inferred.
    pub parameterization: Parameterization,
    /// Method and its settings.
    pub method: Method,
    /// Devices to run on: one, or several that share the panel.
    pub devices: Vec<DeviceId>,
    /// Parts into which the panel is cut by product, each of which a rank of its own iterates; on one device they are logical
    /// shards. A rank has at least one thread. Requests written before this field existed have 1.
    #[serde(default = "one")]
    pub shards: usize,
    /// What the shards have of the panel; one shard has all of it. Requests written before this field existed were cut by product.
    #[serde(default)]
    pub cut: Cut,
    /// CPU threads of all shards, 1 to [`MOST_THREADS`]; `None` uses all of the machine's.
    pub threads: Option<usize>,
    /// Seed of all noise.
    pub seed: u64,
}

impl Request {
    /// A request with the published settings on the CPU, including the priors of the published model. They go with a
    /// panel as it is read. For your own sales take panel and priors from [`Specification::Sales`](infermark_model::Specification::Sales):
    ///
    /// ```
    /// # use infermark_backend::{MethodKind, Request};
    /// # use infermark_model::{Panel, Specification};
    /// # fn of(sales: Panel) -> std::io::Result<(Panel, Request)> {
    /// let model = Specification::Sales;
    /// let panel = model.panel(sales)?;
    /// let request = Request { priors: model.priors(&panel), ..Request::new(MethodKind::StructuredVi.default_method()) };
    /// # Ok((panel, request))
    /// # }
    /// ```
    pub fn new(method: Method) -> Self {
        Request {
            priors: Priors::default(),
            likelihood: Likelihood::default(),
            parameterization: Parameterization::default(),
            method,
            devices: vec![DeviceId::CPU],
            shards: 1,
            cut: Cut::default(),
            threads: None,
            seed: 0,
        }
    }

    /// The number of threads to use: the one asked for, or the machine's.
    pub fn resolved_threads(&self) -> usize {
        self.threads.unwrap_or_else(infermark_threads::available)
    }

    /// The requests of the `here` shards that this process has: each with its threads, at least one, and without the others.
    pub fn of_shards(&self, here: usize) -> Vec<Request> {
        let threads = self.resolved_threads();
        (0..here)
            .map(|rank| {
                // The first ones take what is over.
                let own = threads / here + usize::from(rank < threads % here);
                Request {
                    shards: 1,
                    threads: Some(own.max(1)),
                    ..self.clone()
                }
            })
            .collect()
    }

    /// Checks every setting that can be checked without the hardware.
    ///
    /// # Errors
    /// [`BackendError::Request`] names the setting that is out of range, and its range.
    pub fn validate(&self) -> Result<(), BackendError> {
        self.priors
            .validate()
            .map_err(|e| BackendError::request(e.to_string()))?;
        if self.devices.is_empty() {
            return Err(BackendError::request("no device was asked for"));
        }
        if !(1..=MOST_SHARDS).contains(&self.shards) {
            return Err(BackendError::request(format!(
                "shards is {}; give 1 to {MOST_SHARDS}",
                self.shards
            )));
        }
        check_threads(self.threads)?;
        if let Method::Svi(svi) = &self.method
            && svi.batch_products.is_some()
            && self.cut == Cut::Row
        {
            return Err(BackendError::request(Cause::new(
                "mini-batches are of products, and the panel is cut by row",
                [Remedy::Choose(Choice::Cut(Cut::Product))],
            )));
        }
        if self.method.coordinates() == Coordinates::Orthogonal
            && self.parameterization != Parameterization::Centered
        {
            return Err(BackendError::request(Cause::new(
                format!(
                    "orthogonal coordinates go with the centered parameterization, this is {}",
                    self.parameterization.name()
                ),
                [Remedy::Choose(Choice::Coordinates(Coordinates::Published))],
            )));
        }
        match &self.method {
            Method::Svi(svi) => svi.validate(),
            Method::Nuts(nuts) => {
                if nuts.metric == Metric::Structured && self.parameterization != Parameterization::Centered {
                    return Err(BackendError::request(Cause::new(
                        format!(
                            "the structured metric goes with the centered parameterization, this is {}",
                            self.parameterization.name()
                        ),
                        [Remedy::Choose(Choice::Metric(Metric::Diagonal))],
                    )));
                }
                nuts.validate()
            }
            Method::Laplace(laplace) => laplace.validate(),
            Method::StructuredVi(structured) => structured.validate(),
            Method::Meanfield(meanfield) => meanfield.validate(),
        }
    }

    /// Checks that `point` has an entry for every latent of `panel` under the request's likelihood.
    ///
    /// # Errors
    /// [`BackendError::Request`] with both numbers.
    pub fn check_point(&self, panel: &Panel, point: &[f64]) -> Result<(), BackendError> {
        let latents = panel.layout_for(self.likelihood).latents();
        if point.len() != latents {
            return Err(BackendError::request(format!(
                "the point has {} entries; the panel has {latents} latents",
                point.len()
            )));
        }
        Ok(())
    }
}

/// Checks that the number of CPU threads, if one is given, is from 1 to [`MOST_THREADS`].
///
/// # Errors
/// [`BackendError::Request`] with the number and its range.
pub fn check_threads(threads: Option<usize>) -> Result<(), BackendError> {
    match threads {
        Some(threads) if !(1..=MOST_THREADS).contains(&threads) => Err(BackendError::request(format!(
            "threads is {threads}; give 1 to {MOST_THREADS}"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::objective::Objective;
    use infermark_model::optimizer::AdamW;

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        assert!(
            Request::new(Method::Svi(SviSettings::default()))
                .validate()
                .is_ok()
        );
        assert!(
            Request::new(Method::Nuts(NutsSettings::default()))
                .validate()
                .is_ok()
        );
        for (svi, word) in [
            (
                SviSettings {
                    iterations: 0,
                    ..Default::default()
                },
                "iterations",
            ),
            (
                SviSettings {
                    particles: 0,
                    ..Default::default()
                },
                "particles",
            ),
            (
                SviSettings {
                    objective: Objective::Renyi { alpha: f64::NAN },
                    ..Default::default()
                },
                "alpha",
            ),
            (
                SviSettings {
                    optimizer: AdamW {
                        b1: 1.0,
                        ..AdamW::default()
                    },
                    ..Default::default()
                },
                "b1",
            ),
        ] {
            let error = Request::new(Method::Svi(svi)).validate().unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        let mut request = Request::new(Method::Nuts(NutsSettings {
            chains: 0,
            ..Default::default()
        }));
        assert!(request.validate().unwrap_err().to_string().contains("chains"));
        request = Request::new(Method::Nuts(NutsSettings::default()));
        request.parameterization = Parameterization::Learned;
        let error = request.validate().unwrap_err().to_string();
        assert!(
            error.contains("the diagonal metric") && error.contains("learned"),
            "{error}"
        );
        request.method = Method::Nuts(NutsSettings::diagonal());
        assert!(request.validate().is_ok());
        request = Request::new(Method::Nuts(NutsSettings::default()));
        for (threads, valid) in [
            (0, false),
            (1, true),
            (MOST_THREADS, true),
            (MOST_THREADS + 1, false),
        ] {
            request.threads = Some(threads);
            match request.validate() {
                Ok(()) => assert!(valid, "{threads}"),
                Err(error) => assert_eq!(
                    (error.to_string(), valid),
                    (format!("threads is {threads}; give 1 to 1024"), false)
                ),
            }
        }
    }
}
