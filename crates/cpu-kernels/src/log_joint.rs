//! The log joint and its gradient in double precision, fused and threaded, as NUTS uses it.

use crate::chunk::{Chunk, chunks, most_chunks, products_per_chunk, useful_threads, work_per_particle};
use crate::dispatch::{ForSimd, SimdDispatch};
use crate::distinct_counts::distinct_counts;
use crate::likelihood::{PeriodSums, PeriodTable, PoissonLikelihood, Scratch};
use crate::negative_binomial::{CountPass, CountRows, padded_periods};
use crate::packed_rows::{Block, PackedRows};
use crate::simd::portable::PortableF64;
use crate::simd::{Kernel, Scalar, Simd};
use infermark_model::Likelihood;
use infermark_model::log_joint::LN_SQRT_2PI;
use infermark_model::negative_binomial::Shape;
use infermark_model::{Centredness, Layout, LocScale, Panel, PerSite, Priors, Site};
use infermark_processor::InstructionSet;
use infermark_threads::pool;
use rayon::prelude::*;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The log joint of a panel for one fixed centredness; the fast twin of [`infermark_model::log_joint::LogJoint`].
/// Clones share the packed rows and the threads.
#[derive(Clone)]
pub struct FusedLogJoint(Box<dyn Evaluate>);

impl fmt::Debug for FusedLogJoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FusedLogJoint")
    }
}

impl FusedLogJoint {
    /// Prepares the log joint of Poisson counts for `threads` threads with the CPU's best instruction set.
    pub fn new(panel: Arc<Panel>, priors: Priors, centredness: Centredness, threads: usize) -> Self {
        Self::of_counts(Likelihood::Poisson, panel, priors, centredness, threads)
    }

    /// As [`FusedLogJoint::new`], for another likelihood.
    pub fn of_counts(
        likelihood: Likelihood,
        panel: Arc<Panel>,
        priors: Priors,
        centredness: Centredness,
        threads: usize,
    ) -> Self {
        let set = InstructionSet::best();
        Self::with_instruction_set(set, likelihood, panel, priors, centredness, threads)
    }

    /// As [`FusedLogJoint::of_counts`], with a stated instruction set.
    ///
    /// # Panics
    /// When the CPU lacks the instruction set.
    pub fn with_instruction_set(
        set: InstructionSet,
        likelihood: Likelihood,
        panel: Arc<Panel>,
        priors: Priors,
        centredness: Centredness,
        threads: usize,
    ) -> Self {
        set.run_f64(Build {
            likelihood,
            panel,
            priors,
            centredness,
            threads,
        })
    }

    /// Threads that an evaluation uses: those given, or fewer if the panel is too small for them.
    pub fn threads(&self) -> usize {
        self.0.threads()
    }

    /// A clone that evaluates on `threads` threads of its own.
    pub fn with_threads(&self, threads: usize) -> Self {
        let mut clone = self.clone();
        clone.0.set_threads(threads);
        clone
    }

    /// Largest bytes of `clones` log joints of `panel` with `threads` threads in total: packed rows once (in
    /// vectors of up to eight, 8 bytes per row if none is missing), and for each clone its numbers per
    /// product and its sums by period.
    pub fn bytes(panel: &Panel, clones: usize, threads: usize) -> u64 {
        let layout = panel.layout();
        let bytes = |count: usize, each: usize| (count as u64).saturating_mul(each as u64);
        let vectors = panel.rows().min(layout.products * layout.periods.div_ceil(8));
        let per_product = size_of::<u32>() + 5 * size_of::<f64>();
        let shared = bytes(vectors, 8 * size_of::<f64>() + size_of::<Block>())
            .saturating_add(bytes(layout.products, per_product));
        let columns_by_period = most_chunks(&layout) + layout.categories;
        let own = bytes(columns_by_period, 8 * layout.periods.next_multiple_of(8))
            .saturating_add(bytes(layout.products, 2 * size_of::<f64>()));
        let scratch = Scratch::<PortableF64>::bytes(products_per_chunk(layout.products), 1);
        shared
            .saturating_add(own.saturating_mul(clones as u64))
            .saturating_add(scratch.saturating_mul(threads.max(clones) as u64))
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
    fn set_threads(&mut self, threads: usize);
    fn threads(&self) -> usize;
}

impl Clone for Box<dyn Evaluate> {
    fn clone(&self) -> Self {
        self.boxed_clone()
    }
}

struct Build {
    likelihood: Likelihood,
    panel: Arc<Panel>,
    priors: Priors,
    centredness: Centredness,
    threads: usize,
}

impl ForSimd for Build {
    type Output = FusedLogJoint;

    fn run<I: Simd>(self, isa: I) -> FusedLogJoint {
        let layout = self.panel.layout_for(self.likelihood);
        let cut = chunks(&self.panel);
        let work = work_per_particle(&layout, self.panel.rows(), &cut);
        let most_threads = useful_threads(usize::MAX, cut.len(), work, LEAST_WORK);
        let rows: Vec<ChunkRows<I>> = match self.likelihood {
            Likelihood::Poisson => cut
                .iter()
                .map(|chunk| ChunkRows::Poisson {
                    rows: Arc::new(PackedRows::new(isa, &self.panel, chunk)),
                    by_period: PeriodSums::new(isa, layout.periods, 1),
                })
                .collect(),
            Likelihood::NegativeBinomial => distinct_counts(&self.panel, &cut)
                .into_iter()
                .zip(&cut)
                .map(|(counts, chunk)| ChunkRows::NegativeBinomial {
                    rows: CountRows::new(isa.wide(), &self.panel, chunk, counts),
                    by_period: vec![0.0; padded_periods(layout.periods)],
                    by_log_shape: 0.0,
                })
                .collect(),
        };
        let work = cut
            .into_iter()
            .zip(rows)
            .map(|(chunk, rows)| ChunkWork {
                elasticity: [vec![I::Scalar::default(); chunk.padded()]],
                effect: [vec![I::Scalar::default(); chunk.padded()]],
                log_joint: 0.0,
                by_category: 0.0,
                rows,
                chunk: Arc::new(chunk),
            })
            .collect();
        let periods = match self.likelihood {
            Likelihood::Poisson => {
                PeriodEffects::Poisson(vec![PeriodTable::new(isa, layout.periods, 1); layout.categories])
            }
            Likelihood::NegativeBinomial => {
                PeriodEffects::NegativeBinomial(vec![
                    vec![0.0; padded_periods(layout.periods)];
                    layout.categories
                ])
            }
        };
        FusedLogJoint(Box::new(Evaluator {
            isa,
            transforms: self.centredness.transforms(&self.priors),
            priors: self.priors,
            layout,
            periods,
            shapes: Vec::with_capacity(layout.len(Site::LogShape)),
            category_value: vec![0.0; layout.categories],
            by_category: vec![0.0; layout.categories],
            time_value: Vec::with_capacity(layout.periods),
            work,
            crew: Crew::new(isa, self.threads.min(most_threads)),
            most_threads,
            panel: self.panel,
        }))
    }
}

#[derive(Clone)]
struct ChunkWork<I: Simd> {
    chunk: Arc<Chunk>,
    rows: ChunkRows<I>,
    elasticity: [Vec<I::Scalar>; 1],
    effect: [Vec<I::Scalar>; 1],
    log_joint: f64,
    by_category: f64,
}

/// A chunk's rows, packed for its likelihood, and the sums of the pass over them.
#[derive(Clone)]
enum ChunkRows<I: Simd> {
    Poisson {
        rows: Arc<PackedRows<I>>,
        by_period: PeriodSums<I>,
    },
    NegativeBinomial {
        rows: CountRows<I::Wide>,
        by_period: Vec<f64>,
        by_log_shape: f64,
    },
}

/// Period effects as the pass reads them, one entry per category.
#[derive(Clone)]
enum PeriodEffects<I: Simd> {
    Poisson(Vec<PeriodTable<I>>),
    NegativeBinomial(Vec<Vec<f64>>),
}

/// Work per thread, in rows of a gradient, from which on a thread pays off: waking one takes 15 us (measured
/// on two cores, AMD EPYC with AVX-512), as long as the gradient of 20,000 rows.
const LEAST_WORK: usize = 20_000;

/// The threads that work on the chunks, with their scratch.
struct Crew<I: Simd> {
    /// `None` if the caller works alone.
    pool: Option<Arc<rayon::ThreadPool>>,
    scratch: Vec<Mutex<Scratch<I>>>,
}

impl<I: Simd> Crew<I> {
    fn new(isa: I, threads: usize) -> Self {
        let pool = if threads > 1 { pool(threads) } else { None };
        let threads = pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads);
        let scratch = (0..threads).map(|_| Mutex::new(Scratch::new(isa, 1)));
        Crew {
            pool: pool.map(Arc::new),
            scratch: scratch.collect(),
        }
    }

    /// The scratch of the calling thread, which holds it for one chunk, so nobody waits.
    fn scratch(&self) -> MutexGuard<'_, Scratch<I>> {
        let thread = match self.pool {
            None => 0,
            Some(_) => rayon::current_thread_index().expect("a thread of the pool"),
        };
        self.scratch[thread]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: Simd> Clone for Crew<I> {
    fn clone(&self) -> Self {
        let lock = |s: &Mutex<Scratch<I>>| s.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Crew {
            pool: self.pool.clone(),
            scratch: self.scratch.iter().map(|s| Mutex::new(lock(s))).collect(),
        }
    }
}

#[derive(Clone)]
struct Evaluator<I: Simd> {
    isa: I,
    panel: Arc<Panel>,
    priors: Priors,
    transforms: PerSite<LocScale>,
    layout: Layout,
    periods: PeriodEffects<I>,
    /// One per category; none under the Poisson likelihood.
    shapes: Vec<Shape>,
    category_value: Vec<f64>,
    by_category: Vec<f64>,
    time_value: Vec<I::Scalar>,
    work: Vec<ChunkWork<I>>,
    crew: Crew<I>,
    /// The number of threads that have enough work: at most one per chunk, with [`LEAST_WORK`] each.
    most_threads: usize,
}

/// A latent's prior: log density without its constants, and the chain rule to `z` and to the prior mean.
struct PriorTerm {
    log_density: f64,
    by_z: f64,
    by_mean: f64,
}

/// The prior of `z`, given the gradient with respect to its value: see `prior_term` of the model's log joint.
#[inline(always)]
fn prior(t: &LocScale, z: f64, mean: f64, by_value: f64) -> PriorTerm {
    let r = z - t.centredness * mean;
    let pull = r * t.precision;
    PriorTerm {
        log_density: -0.5 * r * pull,
        by_z: by_value * t.stretch - pull,
        by_mean: by_value * t.mean_coefficient() + t.centredness * pull,
    }
}

impl<I: Simd> Evaluate for Evaluator<I> {
    fn boxed_clone(&self) -> Box<dyn Evaluate> {
        Box::new(self.clone())
    }

    fn set_threads(&mut self, threads: usize) {
        self.crew = Crew::new(self.isa, threads.min(self.most_threads));
    }

    fn threads(&self) -> usize {
        self.crew.scratch.len()
    }

    fn value_and_gradient(&mut self, z: &[f64], gradient: &mut [f64]) -> f64 {
        let layout = self.layout;
        assert_eq!(z.len(), layout.latents(), "length of the point");
        assert_eq!(gradient.len(), layout.latents(), "length of the gradient");
        let (isa, panel) = (self.isa, &*self.panel);
        let [global, category] = [Site::GlobalA, Site::CategoryA].map(|site| &self.transforms[site]);
        let time = self.transforms[Site::TimeCatEffects];

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
                self.time_value.push(Scalar::from_f64(value));
            }
            match &mut self.periods {
                PeriodEffects::Poisson(tables) => tables[c].set(isa, 0, &self.time_value),
                PeriodEffects::NegativeBinomial(effects) => effects[c]
                    .iter_mut()
                    .zip(&self.time_value)
                    .for_each(|(effect, value)| *effect = value.to_f64()),
            }
        }
        self.shapes.clear();
        self.shapes
            .extend(z[layout.range(Site::LogShape)].iter().map(|s| Shape::new(*s)));
        gradient[layout.range(Site::LogShape)].fill(0.0);

        let pass = ChunkPass {
            panel,
            likelihood: PoissonLikelihood::new(panel, &self.priors),
            layout,
            z,
            category_value: &self.category_value,
            priors: &self.priors,
            periods: &self.periods,
            shapes: &self.shapes,
            elasticity: self.transforms[Site::ProductA],
            effect: self.transforms[Site::ProductEffect],
            effect_mean: self.priors.product_effect_mean,
        };
        let crew = &self.crew;
        let one = |work: &mut ChunkWork<I>| {
            isa.vectorize(OneChunk {
                pass: &pass,
                work,
                scratch: &mut crew.scratch(),
            });
        };
        match &crew.pool {
            None => self.work.iter_mut().for_each(one),
            Some(pool) => pool.install(|| self.work.par_iter_mut().for_each(one)),
        }

        self.by_category.fill(0.0);
        self.time_value.clear();
        let mut rates = vec![0.0; layout.periods];
        for (index, work) in self.work.iter().enumerate() {
            let c = work.chunk.category;
            log_joint += work.log_joint;
            self.by_category[c] += work.by_category;
            match &work.rows {
                ChunkRows::Poisson { by_period, .. } => by_period.add_to(isa, 0, &mut rates),
                ChunkRows::NegativeBinomial {
                    by_period,
                    by_log_shape,
                    ..
                } => {
                    rates
                        .iter_mut()
                        .zip(by_period)
                        .for_each(|(rate, part)| *rate += part);
                    gradient[layout.start(Site::LogShape) + c] += by_log_shape;
                }
            }
            if self
                .work
                .get(index + 1)
                .is_none_or(|next| next.chunk.category != c)
            {
                let start = layout.time_index(c, 0);
                for (t, rate) in rates.iter_mut().enumerate() {
                    let j = start + t;
                    let by_value = gradient[j] - *rate;
                    let term = prior(&time, z[j], self.priors.time_cat_effects_mean, by_value);
                    log_joint += term.log_density;
                    gradient[j] = term.by_z;
                    *rate = 0.0;
                }
            }
            for (i, product) in work.chunk.products.iter().enumerate() {
                let product = *product as usize;
                gradient[layout.start(Site::ProductA) + product] = work.elasticity[0][i].to_f64();
                gradient[layout.start(Site::ProductEffect) + product] = work.effect[0][i].to_f64();
            }
        }

        let mut by_global = 0.0;
        for c in 0..layout.categories {
            let term = prior(category, z[1 + c], global_value, self.by_category[c]);
            by_global += term.by_mean;
            log_joint += term.log_density;
            gradient[1 + c] = term.by_z;
        }
        let own = &self.transforms[Site::LogShape];
        for j in layout.range(Site::LogShape) {
            let term = prior(own, z[j], self.priors.log_shape_mean, gradient[j]);
            log_joint += term.log_density - own.ln_sd - LN_SQRT_2PI;
            gradient[j] = term.by_z;
        }
        let term = prior(global, z[0], self.priors.global_a_mean, by_global);
        gradient[0] = term.by_z;
        let constants: f64 = Site::REPARAMETERIZED
            .iter()
            .map(|site| {
                let t = &self.transforms[*site];
                layout.len(*site) as f64 * (t.centredness * t.ln_sd + LN_SQRT_2PI)
            })
            .sum();
        log_joint + term.log_density - constants
    }
}

struct ChunkPass<'a, I: Simd> {
    panel: &'a Panel,
    likelihood: PoissonLikelihood<'a>,
    layout: Layout,
    z: &'a [f64],
    category_value: &'a [f64],
    priors: &'a Priors,
    periods: &'a PeriodEffects<I>,
    shapes: &'a [Shape],
    elasticity: LocScale,
    effect: LocScale,
    effect_mean: f64,
}

struct OneChunk<'a, I: Simd> {
    pass: &'a ChunkPass<'a, I>,
    work: &'a mut ChunkWork<I>,
    scratch: &'a mut Scratch<I>,
}

impl<I: Simd> Kernel<I> for OneChunk<'_, I> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let (pass, work) = (self.pass, self.work);
        let mean = pass.category_value[work.chunk.category];
        let z_elasticity = &pass.z[pass.layout.range(Site::ProductA)];
        let z_effect = &pass.z[pass.layout.range(Site::ProductEffect)];
        for (i, product) in work.chunk.products.iter().enumerate() {
            let product = *product as usize;
            work.elasticity[0][i] = Scalar::from_f64(pass.elasticity.value(z_elasticity[product], mean));
            work.effect[0][i] = Scalar::from_f64(pass.effect.value(z_effect[product], pass.effect_mean));
        }
        let category = work.chunk.category;
        let mut log_joint = match (&mut work.rows, pass.periods) {
            (ChunkRows::Poisson { rows, by_period }, PeriodEffects::Poisson(tables)) => {
                by_period.clear(isa);
                let [log_likelihood] = pass.likelihood.chunk::<I, 1>(
                    isa,
                    &work.chunk,
                    rows,
                    &tables[category],
                    &mut work.elasticity,
                    &mut work.effect,
                    by_period,
                    self.scratch,
                );
                log_likelihood
            }
            (
                ChunkRows::NegativeBinomial {
                    rows,
                    by_period,
                    by_log_shape,
                },
                PeriodEffects::NegativeBinomial(effects),
            ) => {
                by_period.fill(0.0);
                let terms = rows.pass(
                    isa.wide(),
                    CountPass {
                        panel: pass.panel,
                        priors: pass.priors,
                        chunk: &work.chunk,
                        shape: pass.shapes[category],
                        effects: &effects[category],
                        elasticity: &mut work.elasticity[0],
                        effect: &mut work.effect[0],
                        by_period,
                    },
                );
                *by_log_shape = terms.by_log_shape;
                terms.log_likelihood
            }
            _ => unreachable!("rows and periods are built for one likelihood"),
        };
        let mut by_category = 0.0;
        for (i, product) in work.chunk.products.iter().enumerate() {
            let product = *product as usize;
            let by_value = work.elasticity[0][i].to_f64();
            let term = prior(&pass.elasticity, z_elasticity[product], mean, by_value);
            by_category += term.by_mean;
            log_joint += term.log_density;
            work.elasticity[0][i] = Scalar::from_f64(term.by_z);
            let by_value = work.effect[0][i].to_f64();
            let term = prior(&pass.effect, z_effect[product], pass.effect_mean, by_value);
            log_joint += term.log_density;
            work.effect[0][i] = Scalar::from_f64(term.by_z);
        }
        work.log_joint = log_joint;
        work.by_category = by_category;
    }
}

#[cfg(test)]
mod tests;
