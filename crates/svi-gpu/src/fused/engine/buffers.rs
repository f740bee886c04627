//! The buffers on the device: what a run only reads, and what it changes.

use super::super::frame::frame_transforms;
use super::super::hierarchy::CENTREDNESS_LEN;
use super::super::latent::{LOC, LOC_FIRST, LOC_SECOND, SCALE, SCALE_FIRST, SCALE_SECOND, TRANSFORM_LEN};
use super::super::layout::{Cubes, constants_of, period_units_of, rows_of};
use super::super::math::NEGLIGIBLE_EXPONENT;
use super::plan::Plan;
use cubecl::bytes::Bytes;
use cubecl::prelude::*;
use cubecl::server::Handle;
use infermark_model::Panel;
use infermark_model::guide::Guide;
use infermark_svi::GuideState;

/// The state's columns of the parameters, of their first and of their second moments: of locations and of scales.
pub(super) const COLUMNS: [[usize; 2]; 3] =
    [[LOC, SCALE], [LOC_FIRST, SCALE_FIRST], [LOC_SECOND, SCALE_SECOND]];

/// Numbers of all transforms in the frame.
pub(super) const TRANSFORMS: usize = 5 * TRANSFORM_LEN;

/// Numbers of four bytes on the device.
pub(super) struct Buffer {
    pub(super) handle: Handle,
    len: usize,
}

impl Buffer {
    /// The buffer as a kernel's argument.
    pub(super) fn arg<R: Runtime>(&self) -> ArrayArg<R> {
        // SAFETY: `len` is the number of elements that the buffer was made of.
        unsafe { ArrayArg::from_raw_parts(self.handle.clone(), self.len) }
    }
}

/// A buffer of exactly these numbers.
pub(super) fn upload<R: Runtime, T: CubeElement + Send + Sync>(
    client: &ComputeClient<R>,
    values: Vec<T>,
) -> Result<Buffer, String> {
    let len = values.len();
    // Pooled pages would reserve many times what a column of the panel takes.
    let handle = client
        .memory_persistent_allocation(values, |values| client.create(Bytes::from_elems(values)))
        .map_err(|e| format!("{e:?}"))?;
    Ok(Buffer { handle, len })
}

/// The buffers that a run only reads.
pub(super) struct PanelBuffers {
    pub(super) rows: Buffer,
    pub(super) units: Buffer,
    pub(super) constants: Buffer,
    /// The order of the walk.
    pub(super) order: Buffer,
    pub(super) cubes: Buffer,
    pub(super) category_cubes: Buffer,
    pub(super) period_units: Buffer,
    /// An iteration's recorded noise; uploaded anew for each.
    pub(super) record: Buffer,
}

impl PanelBuffers {
    /// Uploads the panel.
    pub(super) fn new<R: Runtime>(
        client: &ComputeClient<R>,
        plan: &Plan,
        panel: &Panel,
        cubes: Cubes,
    ) -> Result<Self, String> {
        let order = &plan.part.order;
        let (rows, units) = rows_of(panel, order);
        let orthogonal = plan.chart.orthogonal().map(AsRef::as_ref);
        Ok(PanelBuffers {
            rows: upload(client, rows)?,
            units: upload(client, units)?,
            constants: upload(client, constants_of(panel, order, orthogonal))?,
            order: upload(client, order.clone())?,
            cubes: upload(client, cubes.words)?,
            category_cubes: upload(client, cubes.of_category)?,
            period_units: upload(client, period_units_of(panel, orthogonal))?,
            record: upload(client, vec![0.0f32; plan.sizes.record])?,
        })
    }
}

/// The buffers that a run changes.
pub(super) struct StateBuffers {
    pub(super) state: Buffer,
    pub(super) particles: Buffer,
    pub(super) frame: Buffer,
    pub(super) table: Buffer,
    pub(super) cube_sums: Buffer,
    pub(super) period_sums: Buffer,
    pub(super) folded: Buffer,
    pub(super) prior_sums: Buffer,
    pub(super) centredness: Buffer,
    pub(super) log: Buffer,
}

impl StateBuffers {
    /// Buffers that hold nothing.
    pub(super) fn none<R: Runtime>(client: &ComputeClient<R>) -> Result<Self, String> {
        let nothing = || upload(client, vec![0.0f32]);
        Ok(StateBuffers {
            state: nothing()?,
            particles: nothing()?,
            frame: nothing()?,
            table: nothing()?,
            cube_sums: nothing()?,
            period_sums: nothing()?,
            folded: nothing()?,
            prior_sums: nothing()?,
            centredness: nothing()?,
            log: nothing()?,
        })
    }

    /// The buffers as a run at `guide` starts with them, or goes on from `saved` with its moments.
    pub(super) fn new<R: Runtime>(
        client: &ComputeClient<R>,
        plan: &Plan,
        guide: &Guide,
        saved: Option<&GuideState>,
    ) -> Result<Self, String> {
        let (sizes, particles) = (&plan.sizes, plan.particles());
        let latents = plan.part.own.latents();
        let mut state = vec![0.0f32; sizes.state];
        let mut put = |of: &Guide, [loc, scale]: [usize; 2]| {
            for j in 0..latents {
                let from = plan.part.natural(j);
                state[loc * latents + j] = of.loc[from] as f32;
                state[scale * latents + j] = of.unconstrained_scale[from] as f32;
            }
        };
        put(guide, COLUMNS[0]);
        if let Some(GuideState { first, second, .. }) = saved {
            put(first, COLUMNS[1]);
            put(second, COLUMNS[2]);
        }
        let mut frame = vec![0.0f32; sizes.frame];
        // Healthy until a loss says otherwise.
        frame[particles] = 1.0;
        let transforms = guide
            .centredness(plan.chart.parameterization())
            .transforms(&plan.priors);
        for (site, transform) in transforms.reparameterized().iter().enumerate() {
            let at = frame_transforms(particles) + TRANSFORM_LEN * site;
            frame[at..at + TRANSFORM_LEN].copy_from_slice(&[
                transform.centredness as f32,
                transform.ln_sd as f32,
                transform.stretch as f32,
                transform.precision as f32,
            ]);
        }
        if let Some(GuideState { transforms, .. }) = saved
            && transforms.len() == TRANSFORMS
        {
            frame[frame_transforms(particles)..][..TRANSFORMS].copy_from_slice(transforms);
        }
        let mut centredness = vec![0.0f32; sizes.centredness];
        let columns = [Some(guide), saved.map(|of| &of.first), saved.map(|of| &of.second)];
        for (column, of) in columns.into_iter().enumerate() {
            if let Some(u) = of.and_then(|of| of.unconstrained_centredness) {
                for (site, u) in u.reparameterized().into_iter().enumerate() {
                    centredness[site * CENTREDNESS_LEN + column] = u as f32;
                }
            }
        }
        let zeros = |n: usize| upload(client, vec![0.0f32; n]);
        Ok(StateBuffers {
            state: upload(client, state)?,
            particles: zeros(sizes.particles)?,
            frame: upload(client, frame)?,
            table: upload(client, vec![NEGLIGIBLE_EXPONENT; sizes.table])?,
            cube_sums: zeros(sizes.cube_sums)?,
            period_sums: zeros(sizes.period_sums)?,
            folded: zeros(sizes.folded)?,
            prior_sums: zeros(sizes.prior_sums)?,
            centredness: upload(client, centredness)?,
            // NaN marks losses that no launch has written.
            log: upload(client, vec![f32::NAN; sizes.log])?,
        })
    }
}
