//! The log joint and its gradient in double precision, fused and threaded: what NUTS moves on.

use crate::chunk::{Chunk, chunks};
use crate::instruction_set::{ForSimd, InstructionSet};
use crate::likelihood::{Likelihood, PeriodSums, PeriodTable, Scratch};
use crate::packed_rows::PackedRows;
use crate::simd::{Kernel, Simd};
use infermark_model::panel::Panel;
use infermark_model::parameterization::{Centredness, LocScale};
use infermark_model::priors::Priors;
use infermark_model::site::{Layout, Site};
use rayon::prelude::*;
use std::fmt;
use std::sync::Arc;

const LN_SQRT_2PI: f64 = 0.918_938_533_204_672_8;

/// The log joint of a panel for one fixed centredness; the fast twin of [`infermark_model::log_joint::LogJoint`].
#[derive(Clone)]
pub struct FusedLogJoint(Box<dyn Evaluate>);

impl fmt::Debug for FusedLogJoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FusedLogJoint")
    }
}

impl FusedLogJoint {
    /// Prepares the log joint for `threads` threads with the processor's best instruction set.
    pub fn new(panel: Arc<Panel>, priors: Priors, centredness: Centredness, threads: usize) -> Self {
        Self::with_instruction_set(InstructionSet::best(), panel, priors, centredness, threads)
    }

    /// As [`FusedLogJoint::new`], with a stated instruction set.
    ///
    /// # Panics
    /// When the processor lacks the instruction set.
    pub fn with_instruction_set(
        set: InstructionSet,
        panel: Arc<Panel>,
        priors: Priors,
        centredness: Centredness,
        threads: usize,
    ) -> Self {
        set.run_f64(Build {
            panel,
            priors,
            centredness,
            threads,
        })
    }

    /// The log joint of `z` (length [`Layout::latents`]), constants included; its gradient is written to `gradient`.
    ///
    /// # Panics
    /// When a slice is not of that length.
    pub fn value_and_gradient(&mut self, z: &[f64], gradient: &mut [f64]) -> f64 {
        self.0.value_and_gradient(z, gradient)
    }
}

trait Evaluate: Send {
    fn value_and_gradient(&mut self, z: &[f64], gradient: &mut [f64]) -> f64;
    fn boxed_clone(&self) -> Box<dyn Evaluate>;
}

impl Clone for Box<dyn Evaluate> {
    fn clone(&self) -> Self {
        self.boxed_clone()
    }
}

struct Build {
    panel: Arc<Panel>,
    priors: Priors,
    centredness: Centredness,
    threads: usize,
}

impl ForSimd for Build {
    type Output = FusedLogJoint;

    fn run<I: Simd>(self, isa: I) -> FusedLogJoint {
        let layout = self.panel.layout();
        let work = chunks(&self.panel)
            .into_iter()
            .map(|chunk| ChunkWork {
                elasticity: [vec![I::Scalar::default(); chunk.padded()]],
                effect: [vec![I::Scalar::default(); chunk.padded()]],
                by_period: PeriodSums::new(isa, layout.periods, 1),
                scratch: Scratch::new(isa),
                log_joint: 0.0,
                by_category: 0.0,
                rows: Arc::new(PackedRows::new(isa, &self.panel, &chunk)),
                chunk: Arc::new(chunk),
            })
            .collect();
        let pool = (self.threads > 1).then(|| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build();
            Arc::new(pool.expect("threads can be started"))
        });
        FusedLogJoint(Box::new(Evaluator {
            isa,
            transforms: self.centredness.transforms(&self.priors),
            priors: self.priors,
            tables: vec![PeriodTable::new(isa, layout.periods, 1); layout.categories],
            category_value: vec![0.0; layout.categories],
            by_category: vec![0.0; layout.categories],
            time_value: Vec::with_capacity(layout.periods),
            work,
            pool,
            panel: self.panel,
        }))
    }
}

#[derive(Clone)]
struct ChunkWork<I: Simd> {
    chunk: Arc<Chunk>,
    rows: Arc<PackedRows<I>>,
    elasticity: [Vec<I::Scalar>; 1],
    effect: [Vec<I::Scalar>; 1],
    by_period: PeriodSums<I>,
    scratch: Scratch<I>,
    log_joint: f64,
    by_category: f64,
}

#[derive(Clone)]
struct Evaluator<I: Simd> {
    isa: I,
    panel: Arc<Panel>,
    priors: Priors,
    transforms: [LocScale; 5],
    tables: Vec<PeriodTable<I>>,
    category_value: Vec<f64>,
    by_category: Vec<f64>,
    time_value: Vec<I::Scalar>,
    work: Vec<ChunkWork<I>>,
    pool: Option<Arc<rayon::ThreadPool>>,
}

/// `z`'s prior: its log density, and its gradient by `z` given the gradient by the value.
#[inline(always)]
fn prior(t: &LocScale, z: f64, mean: f64, by_value: f64) -> (f64, f64) {
    let r = z - t.centredness * mean;
    (-0.5 * r * r * t.precision, by_value * t.stretch - r * t.precision)
}

impl<I: Simd> Evaluate for Evaluator<I> {
    fn boxed_clone(&self) -> Box<dyn Evaluate> {
        Box::new(self.clone())
    }

    fn value_and_gradient(&mut self, z: &[f64], gradient: &mut [f64]) -> f64 {
        let layout = self.panel.layout();
        assert_eq!(z.len(), layout.latents(), "length of the point");
        assert_eq!(gradient.len(), layout.latents(), "length of the gradient");
        let (isa, panel) = (self.isa, &*self.panel);
        let [global, category, ..] = &self.transforms;
        let time = self.transforms[Site::TimeCatEffects.index()];

        let global_value = global.value(z[0], self.priors.global_a_mean);
        let mut log_joint = -panel.sums().ln_factorials;
        for c in 0..layout.categories {
            self.category_value[c] = category.value(z[1 + c], global_value);
            let start = layout.time_index(c, 0);
            self.time_value.clear();
            for t in 0..layout.periods {
                let value = time.value(z[start + t], self.priors.time_cat_effects_mean);
                let units = panel.sums().category_period[c * layout.periods + t] as f64;
                log_joint += value * units;
                gradient[start + t] = units;
                self.time_value.push(crate::simd::Scalar::from_f64(value));
            }
            self.tables[c].set(isa, 0, &self.time_value);
        }

        let pass = ChunkPass {
            likelihood: Likelihood::new(panel, &self.priors),
            layout,
            z,
            category_value: &self.category_value,
            tables: &self.tables,
            elasticity: self.transforms[Site::ProductA.index()],
            effect: self.transforms[Site::ProductEffect.index()],
            effect_mean: self.priors.product_effect_mean,
        };
        match &self.pool {
            None => self
                .work
                .iter_mut()
                .for_each(|work| isa.vectorize(OneChunk { pass: &pass, work })),
            Some(pool) => pool.install(|| {
                self.work
                    .par_iter_mut()
                    .for_each(|work| isa.vectorize(OneChunk { pass: &pass, work }));
            }),
        }

        self.by_category.fill(0.0);
        self.time_value.clear();
        let mut rates = vec![0.0; layout.periods];
        for (index, work) in self.work.iter().enumerate() {
            let c = work.chunk.category;
            log_joint += work.log_joint;
            self.by_category[c] += work.by_category;
            work.by_period.add_to(isa, 0, &mut rates);
            if self
                .work
                .get(index + 1)
                .is_none_or(|next| next.chunk.category != c)
            {
                let start = layout.time_index(c, 0);
                for (t, rate) in rates.iter_mut().enumerate() {
                    let j = start + t;
                    let by_value = gradient[j] - *rate;
                    let (density, by_z) = prior(&time, z[j], self.priors.time_cat_effects_mean, by_value);
                    log_joint += density;
                    gradient[j] = by_z;
                    *rate = 0.0;
                }
            }
            for (i, product) in work.chunk.products.iter().enumerate() {
                let product = *product as usize;
                let scalar = crate::simd::Scalar::to_f64;
                gradient[layout.start(Site::ProductA) + product] = scalar(work.elasticity[0][i]);
                gradient[layout.start(Site::ProductEffect) + product] = scalar(work.effect[0][i]);
            }
        }

        let mut by_global = 0.0;
        for c in 0..layout.categories {
            let by_value = self.by_category[c];
            let (density, by_z) = prior(category, z[1 + c], global_value, by_value);
            let pull = (z[1 + c] - category.centredness * global_value) * category.precision;
            by_global += by_value * category.mean_coefficient() + category.centredness * pull;
            log_joint += density;
            gradient[1 + c] = by_z;
        }
        let (density, by_z) = prior(global, z[0], self.priors.global_a_mean, by_global);
        gradient[0] = by_z;
        let constants: f64 = Site::ALL
            .iter()
            .map(|site| {
                let t = &self.transforms[site.index()];
                layout.len(*site) as f64 * (t.centredness * t.ln_sd + LN_SQRT_2PI)
            })
            .sum();
        log_joint + density - constants
    }
}

struct ChunkPass<'a, I: Simd> {
    likelihood: Likelihood<'a>,
    layout: Layout,
    z: &'a [f64],
    category_value: &'a [f64],
    tables: &'a [PeriodTable<I>],
    elasticity: LocScale,
    effect: LocScale,
    effect_mean: f64,
}

struct OneChunk<'a, I: Simd> {
    pass: &'a ChunkPass<'a, I>,
    work: &'a mut ChunkWork<I>,
}

impl<I: Simd> Kernel<I> for OneChunk<'_, I> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        use crate::simd::Scalar;
        let (pass, work) = (self.pass, self.work);
        let mean = pass.category_value[work.chunk.category];
        let z_elasticity = &pass.z[pass.layout.range(Site::ProductA)];
        let z_effect = &pass.z[pass.layout.range(Site::ProductEffect)];
        for (i, product) in work.chunk.products.iter().enumerate() {
            let product = *product as usize;
            work.elasticity[0][i] = Scalar::from_f64(pass.elasticity.value(z_elasticity[product], mean));
            work.effect[0][i] = Scalar::from_f64(pass.effect.value(z_effect[product], pass.effect_mean));
        }
        work.by_period.clear(isa);
        let [mut log_joint] = pass.likelihood.chunk::<I, 1>(
            isa,
            &work.chunk,
            &work.rows,
            &pass.tables[work.chunk.category],
            &mut work.elasticity,
            &mut work.effect,
            &mut work.by_period,
            &mut work.scratch,
        );
        let mut by_category = 0.0;
        for (i, product) in work.chunk.products.iter().enumerate() {
            let product = *product as usize;
            let by_value = work.elasticity[0][i].to_f64();
            let (density, by_z) = prior(&pass.elasticity, z_elasticity[product], mean, by_value);
            let pull =
                (z_elasticity[product] - pass.elasticity.centredness * mean) * pass.elasticity.precision;
            by_category += by_value * pass.elasticity.mean_coefficient() + pass.elasticity.centredness * pull;
            log_joint += density;
            work.elasticity[0][i] = Scalar::from_f64(by_z);
            let (density, by_z) = prior(
                &pass.effect,
                z_effect[product],
                pass.effect_mean,
                work.effect[0][i].to_f64(),
            );
            log_joint += density;
            work.effect[0][i] = Scalar::from_f64(by_z);
        }
        work.log_joint = log_joint;
        work.by_category = by_category;
    }
}

#[cfg(test)]
mod tests;
