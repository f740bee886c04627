//! What of a run is decided before anything is uploaded: the order of the walk, the shape of the launches, and the
//! buffers' sizes.

use super::super::fold::Sums;
use super::super::hierarchy::Task;
use super::super::layout::{Cubes, DeviceLimits, Hardware, Sizes, shape};
use super::super::part::Part;
use super::super::products::Shape;
use super::start::Start;
use infermark_backend::{BackendError, SviSettings};
use infermark_model::Priors;
use infermark_model::objective::Objective;
use infermark_svi::{Chart, NoiseSource};

/// See the module.
pub(super) struct Plan {
    pub(super) part: Part,
    pub(super) priors: Priors,
    pub(super) chart: Chart,
    pub(super) settings: SviSettings,
    pub(super) noise: NoiseSource,
    pub(super) shape: Shape,
    pub(super) sums: Sums,
    /// Whether sums must be kept from the compiler.
    pub(super) barrier: bool,
    /// Whether noise comes from a record.
    pub(super) recorded: bool,
    pub(super) sizes: Sizes,
    pub(super) cube_count: u32,
    pub(super) ln_factorials: f64,
}

impl Plan {
    /// The plan and its cubes. `barrier` says whether the device's compiler may regroup sums.
    ///
    /// # Errors
    /// What the device cannot do, or has no room for.
    pub(super) fn new(
        hardware: Hardware,
        limits: &DeviceLimits,
        barrier: bool,
        start: Start<'_>,
    ) -> Result<(Self, Cubes), BackendError> {
        let (panel, part) = (start.shard.panel(), Part::new(&start.shard));
        let layout = part.own;
        let particles = start.settings.particles;
        let recorded = matches!(start.noise, NoiseSource::Recorded(_));
        let sums = Sums::new(&start.chart, particles);
        let wanted = Shape {
            particles,
            tiles: 1,
            lanes: 1,
            groups: 1,
            chunk: 1,
            depth: 1,
            gaps: !panel.is_dense() || !layout.periods.is_multiple_of(4),
            learned: sums.learned,
            orthogonal: sums.orthogonal,
            native_exp2: start.native_exp2,
        };
        let shape = shape(wanted, layout.periods, hardware).map_err(|what| BackendError::Unsupported {
            backend: crate::NAME,
            what: what.into(),
        })?;
        let cubes = Cubes::cut(panel, &part.order, start.cubes, hardware);
        let launched = cubes.count().max(layout.categories + 1);
        if launched > hardware.cubes {
            return Err(BackendError::Unsupported {
                backend: crate::NAME,
                what: format!(
                    "{} categories; the limit on this device is {}",
                    layout.categories,
                    hardware.cubes - 1
                )
                .into(),
            });
        }
        let record = recorded.then(|| part.whole.latents());
        let sizes = Sizes::new(&layout, sums, cubes.count(), record);
        sizes.check(limits)?;
        let plan = Plan {
            part,
            priors: start.priors,
            chart: start.chart,
            settings: start.settings.clone(),
            noise: start.noise,
            shape,
            sums,
            barrier,
            recorded,
            sizes,
            cube_count: cubes.count() as u32,
            ln_factorials: panel.sums().ln_factorials,
        };
        Ok((plan, cubes))
    }

    /// K.
    pub(super) fn particles(&self) -> usize {
        self.settings.particles
    }

    /// Whether the centredness is learned.
    pub(super) fn learned(&self) -> bool {
        self.shape.learned
    }

    /// An iteration's recorded noise, particle by particle, where there is one.
    pub(super) fn noise_of(&self, iteration: u32) -> Option<Vec<f32>> {
        let NoiseSource::Recorded(recording) = &self.noise else {
            return None;
        };
        let noise = recording.noise.get(iteration as usize)?;
        Some(noise.iter().flatten().map(|x| *x as f32).collect())
    }

    /// A launch of the hierarchy that does nothing yet.
    pub(super) fn task(&self) -> Task {
        let elbo = match self.settings.objective {
            Objective::Elbo => true,
            Objective::Renyi { alpha } => alpha == 1.0,
        };
        Task {
            particles: self.particles(),
            back: false,
            learn: false,
            place: false,
            periods: false,
            top: false,
            learned: self.learned(),
            orthogonal: self.shape.orthogonal,
            elbo,
        }
    }
}
