//! What to measure: the cases of a registry's backends.

use super::{BenchmarkError, Case};
use infermark_backend::{
    Backend, BenchmarkSettings, Device, DeviceId, Method, Registry, Request, check_threads,
};
use infermark_model::Likelihood;
use std::sync::Arc;

/// Which backends are measured, and on which devices. Each backend defines its own settings
/// ([`Backend::benchmark_settings`]).
#[derive(Debug, Clone, PartialEq)]
pub struct CaseChoice {
    /// Names of backends, or `all`.
    pub backends: Vec<String>,
    /// GPUs; if none is named, all available ones, with software rasterizers only for backends that are
    /// named.
    pub devices: Vec<DeviceId>,
    /// Numbers of CPU threads; by default one, and all of the machine's.
    pub threads: Vec<usize>,
    /// Particles of SVI.
    pub particles: usize,
    /// Distribution of the counts.
    pub likelihood: Likelihood,
    /// Seed of all noise.
    pub seed: u64,
    /// Largest number of products on which samplers are measured.
    pub sampler_most_products: usize,
}

impl Default for CaseChoice {
    fn default() -> Self {
        CaseChoice {
            backends: vec![ALL.to_owned()],
            devices: Vec::new(),
            threads: Vec::new(),
            particles: 4,
            likelihood: Likelihood::default(),
            seed: 0,
            sampler_most_products: 100_000,
        }
    }
}

/// The name for every backend.
const ALL: &str = "all";

fn refuse<T>(text: String) -> Result<T, BenchmarkError> {
    Err(BenchmarkError::Plan(text))
}

impl CaseChoice {
    /// The cases, backend after backend.
    ///
    /// # Errors
    /// [`BenchmarkError::Plan`] names a missing backend or device, or a setting out of its range;
    /// [`BenchmarkError::NoneOnGpus`].
    pub fn cases(&self, registry: &Registry) -> Result<Vec<Case>, BenchmarkError> {
        let chosen = self.chosen(registry)?;
        for count in &self.threads {
            check_threads(Some(*count)).map_err(plan_error)?;
        }
        let has_gpus = |backend: &Arc<dyn Backend>| backend.capabilities().has_gpus();
        if !self.devices.is_empty() && !chosen.iter().any(has_gpus) {
            return Err(BenchmarkError::NoneOnGpus);
        }
        let mut cases = Vec::new();
        for backend in chosen {
            let devices = self.devices_of(&*backend)?;
            for device in &devices {
                for (measured, threads) in self.settings_on(&*backend, *device) {
                    cases.push(self.case(&backend, vec![*device], measured, threads)?);
                }
            }
            let together = cards_of_one_model(&*backend, &devices);
            if together.len() > 1 {
                for (measured, threads) in self.settings_on_several(&*backend, together.len()) {
                    cases.push(self.case(&backend, together.clone(), measured, threads)?);
                }
            }
        }
        Ok(cases)
    }

    fn names_all(&self) -> bool {
        self.backends.iter().any(|name| name == ALL)
    }

    fn chosen(&self, registry: &Registry) -> Result<Vec<Arc<dyn Backend>>, BenchmarkError> {
        let mut chosen = Vec::new();
        for name in self.backends.iter().filter(|name| *name != ALL) {
            match registry.named(name) {
                Some(backend) => chosen.push(backend),
                None => {
                    let known: Vec<&str> = registry.all().iter().map(|b| b.name()).collect();
                    return refuse(format!(
                        "there is no backend '{name}'; there are {}",
                        known.join(", ")
                    ));
                }
            }
        }
        if self.names_all() {
            chosen = registry.all().to_vec();
        }
        if chosen.is_empty() {
            return refuse("no backend was named".into());
        }
        Ok(chosen)
    }

    /// The devices that a backend is measured on: the CPU, and the GPUs that were asked for, or all. A
    /// software rasterizer is measured only if it, or the backend, was named, because its speed is not that
    /// of a card.
    fn devices_of(&self, backend: &dyn Backend) -> Result<Vec<DeviceId>, BenchmarkError> {
        let here = backend.devices();
        if backend.capabilities().has_gpus() {
            let is_here = |wanted: &DeviceId| here.iter().any(|device| device.id == *wanted);
            if let Some(absent) = self.devices.iter().find(|wanted| !is_here(wanted)) {
                return refuse(format!(
                    "{} cannot run on {absent}; see `infermark devices`",
                    backend.name()
                ));
            }
            if here.is_empty() && !self.names_all() {
                return refuse(format!(
                    "{} has no device here; see `infermark devices`",
                    backend.name()
                ));
            }
        }
        let is_measured = |device: &Device| match self.devices.as_slice() {
            _ if device.id == DeviceId::CPU => true,
            [] => !self.names_all() || !device.software,
            wanted => wanted.contains(&device.id),
        };
        Ok(here
            .into_iter()
            .filter(is_measured)
            .map(|device| device.id)
            .collect())
    }

    /// The settings that a backend is measured with on a device, each with its CPU threads. With a GPU their
    /// number does not matter, and a backend that uses any uses all.
    fn settings_on(&self, backend: &dyn Backend, device: DeviceId) -> Vec<(BenchmarkSettings, usize)> {
        let counts = if device != DeviceId::CPU {
            vec![threads_beside_gpus(backend)]
        } else if self.threads.is_empty() {
            vec![1, infermark_threads::available()]
        } else {
            self.threads.clone()
        };
        let most = counts.iter().copied().max().unwrap_or(1);
        let mut settings = Vec::new();
        // Logical shards of a GPU are no faster than the whole, and no figure of several GPUs.
        let is_measured = |measured: &BenchmarkSettings| measured.shards == 1 || device == DeviceId::CPU;
        for mut measured in backend.benchmark_settings().into_iter().filter(is_measured) {
            self.set_particles(&mut measured);
            let mut own = match measured.by_threads {
                true => counts.clone(),
                false => vec![most],
            };
            own.sort_unstable();
            own.dedup();
            settings.extend(own.into_iter().map(|threads| (measured.clone(), threads)));
        }
        settings
    }

    /// The settings that a backend is measured with on `cards` GPUs together, one shard on each, with their CPU threads.
    fn settings_on_several(&self, backend: &dyn Backend, cards: usize) -> Vec<(BenchmarkSettings, usize)> {
        let capabilities = backend.capabilities();
        if !capabilities.devices_per_run.contains(&cards) || !capabilities.shards.contains(&cards) {
            return Vec::new();
        }
        let in_shards = backend
            .benchmark_settings()
            .into_iter()
            .filter(|measured| measured.shards > 1);
        in_shards
            .map(|mut measured| {
                self.set_particles(&mut measured);
                measured.shards = cards;
                (measured, threads_beside_gpus(backend))
            })
            .collect()
    }

    fn set_particles(&self, measured: &mut BenchmarkSettings) {
        if let Method::Svi(svi) = &mut measured.method {
            svi.particles = self.particles;
        }
    }

    fn case(
        &self,
        backend: &Arc<dyn Backend>,
        devices: Vec<DeviceId>,
        measured: BenchmarkSettings,
        threads: usize,
    ) -> Result<Case, BenchmarkError> {
        let most_products = match measured.method.kind().has_draws() {
            true => self.sampler_most_products,
            false => usize::MAX,
        };
        let request = Request {
            devices,
            shards: measured.shards,
            threads: Some(threads),
            likelihood: self.likelihood,
            seed: self.seed,
            ..Request::new(measured.method)
        };
        request.validate().map_err(plan_error)?;
        Ok(Case {
            backend: backend.clone(),
            request,
            most_products,
        })
    }
}

/// CPU threads of a backend whose rows are on GPUs.
fn threads_beside_gpus(backend: &dyn Backend) -> usize {
    match backend.capabilities().uses_threads {
        true => infermark_threads::available(),
        false => 1,
    }
}

/// The cards among `devices` that are reached in one way and have one name, most of them; none where software plays them.
fn cards_of_one_model(backend: &dyn Backend, devices: &[DeviceId]) -> Vec<DeviceId> {
    let cards: Vec<Device> = backend
        .devices()
        .into_iter()
        .filter(|device| device.id != DeviceId::CPU && !device.software && devices.contains(&device.id))
        .collect();
    let mut most: Vec<DeviceId> = Vec::new();
    for first in &cards {
        let alike = cards
            .iter()
            .filter(|card| card.id.kind == first.id.kind && card.name == first.name);
        let alike: Vec<DeviceId> = alike.map(|card| card.id).collect();
        if alike.len() > most.len() {
            most = alike;
        }
    }
    most
}

fn plan_error(error: impl std::fmt::Display) -> BenchmarkError {
    BenchmarkError::Plan(error.to_string())
}
