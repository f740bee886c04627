//! Data that is read back: the log of losses, the guide, and the gradient.

use super::super::frame::frame_transforms;
use super::super::hierarchy::{CENTREDNESS_LEN, LOG_HEAD};
use super::super::layout::LOG_ENTRIES;
use super::buffers::{Buffer, COLUMNS, TRANSFORMS};
use super::{Engine, Outcome};
use cubecl::prelude::*;
use infermark_backend::BackendError;
use infermark_model::guide::{Guide, sigmoid, softplus};
use infermark_model::objective::Weighted;
use infermark_model::svi::LossAndGradient;
use infermark_model::{PerSite, Site};
use infermark_svi::GuideState;

impl<R: Runtime> Engine<R> {
    pub(super) fn read(&self, buffer: &Buffer) -> Result<Vec<f32>, BackendError> {
        // On wgpu only this reports launches that failed; a read would return the earlier contents.
        self.client.flush().map_err(|e| self.failed(e))?;
        let bytes = self
            .client
            .read_one(buffer.handle.clone())
            .map_err(|e| self.failed(e))?;
        self.check()?;
        Ok(f32::from_bytes(&bytes).to_vec())
    }

    /// Waits until the device is idle.
    pub(super) fn wait(&self) -> Result<(), BackendError> {
        self.client.flush().map_err(|e| self.failed(e))?;
        cubecl::future::block_on(self.client.sync()).map_err(|e| self.failed(e))?;
        self.check()
    }

    /// An uncaptured error of the driver.
    fn check(&self) -> Result<(), BackendError> {
        match infermark_gpu_devices::take_error(&self.device) {
            Some(reason) => Err(super::device_error(&self.device, reason)),
            None => Ok(()),
        }
    }

    /// Outcomes of the iterations from `first` on.
    pub(super) fn outcomes(&self, first: u32, count: u32) -> Result<Vec<Outcome>, BackendError> {
        let particles = self.plan.particles();
        let width = LOG_HEAD + 2 * particles;
        let log = self.read(&self.changing.log)?;
        let outcome = |i: u32| {
            let entry = &log[(i % LOG_ENTRIES) as usize * width..][..width];
            let pair = |i: usize| f64::from(entry[i]) + f64::from(entry[i + 1]);
            Outcome {
                loss: pair(0),
                effective_particles: f64::from(entry[2]),
                log_weights: (0..particles).map(|k| pair(LOG_HEAD + 2 * k)).collect(),
            }
        };
        Ok((first..first + count).map(outcome).collect())
    }

    /// A column of the centredness, where it is learned.
    fn centredness(&self, column: usize) -> Result<Option<PerSite<f64>>, BackendError> {
        if !self.plan.learned() {
            return Ok(None);
        }
        let all = self.read(&self.changing.centredness)?;
        let of = |site: Site| f64::from(all[site.index() * CENTREDNESS_LEN + column]);
        Ok(Some(PerSite::from_reparameterized(
            Site::REPARAMETERIZED.map(of),
            0.0,
        )))
    }

    /// A guide in the model's order of latents, from the `(loc, unconstrained_scale)` of the device's. Entries of products that
    /// are elsewhere are 0.
    fn guide_of(
        &self,
        unconstrained_centredness: Option<PerSite<f64>>,
        latent: impl Fn(usize) -> (f64, f64),
    ) -> Guide {
        let part = &self.plan.part;
        let latents = part.whole.latents();
        let mut guide = Guide {
            loc: vec![0.0; latents],
            unconstrained_scale: vec![0.0; latents],
            unconstrained_centredness,
        };
        for j in 0..part.own.latents() {
            let to = part.natural(j);
            (guide.loc[to], guide.unconstrained_scale[to]) = latent(j);
        }
        guide
    }

    /// The guide's parameters and the optimizer's moments, once no step is pending.
    pub(super) fn read_state(&self) -> Result<GuideState, BackendError> {
        let state = self.read(&self.changing.state)?;
        let l = self.plan.part.own.latents();
        let mut parts = Vec::with_capacity(COLUMNS.len());
        for (column, [loc, scale]) in COLUMNS.into_iter().enumerate() {
            parts.push(self.guide_of(self.centredness(column)?, |j| {
                (f64::from(state[loc * l + j]), f64::from(state[scale * l + j]))
            }));
        }
        let mut parts = parts.into_iter();
        let mut next = || parts.next().expect("one for each column");
        let frame = self.read(&self.changing.frame)?;
        Ok(GuideState {
            guide: next(),
            first: next(),
            second: next(),
            transforms: frame[frame_transforms(self.plan.particles())..][..TRANSFORMS].to_vec(),
        })
    }

    /// The guide's parameters.
    pub(super) fn read_guide(&self) -> Result<Guide, BackendError> {
        let state = self.read(&self.changing.state)?;
        let l = self.plan.part.own.latents();
        Ok(self.guide_of(self.centredness(0)?, |j| {
            (f64::from(state[j]), f64::from(state[l + j]))
        }))
    }

    /// Loss and gradient of the present iteration, whose derivatives are there.
    pub(super) fn read_loss_and_gradient(&self) -> Result<LossAndGradient, BackendError> {
        let outcome = self
            .outcomes(self.iteration, 1)?
            .pop()
            .expect("one was asked for");
        let state = self.read(&self.changing.state)?;
        let particles = self.read(&self.changing.particles)?;
        let (l, k) = (self.plan.part.own.latents(), self.plan.particles());
        let weights = self.read(&self.changing.frame)?[..k].to_vec();
        let gradient = self.guide_of(self.centredness(3)?, |j| {
            let u = f64::from(state[l + j]);
            let (mut by_loc, mut by_sigma) = (0.0, 1.0 / softplus(u));
            for (p, weight) in weights.iter().enumerate() {
                let weighted = f64::from(*weight) * f64::from(particles[(k + p) * l + j]);
                by_loc += weighted;
                by_sigma += weighted * f64::from(particles[p * l + j]);
            }
            (-by_loc, -by_sigma * sigmoid(u))
        });
        Ok(LossAndGradient {
            log_weights: outcome.log_weights,
            weighted: Weighted {
                loss: outcome.loss,
                weights: weights.iter().map(|w| f64::from(*w)).collect(),
                effective_particles: outcome.effective_particles,
            },
            gradient,
        })
    }
}
