//! The state of an SVI run between iterations, divided so that threads share it without waiting.

use crate::batches::Batches;
use crate::block::{Block, BlockStart, ParentSums};
use crate::category_sums::CategorySums;
use crate::contrasts::Contrasts;
use infermark_backend::SviSettings;
use infermark_cpu_kernels::chunk::{Chunk, chunks_of, products_per_chunk, work_per_particle};
use infermark_cpu_kernels::distinct_counts;
use infermark_cpu_kernels::likelihood::{GROUP, PeriodSums, PeriodTable, Scratch};
use infermark_cpu_kernels::negative_binomial::{CountRows, padded_periods};
use infermark_cpu_kernels::packed_rows::{PackedRoom, PackedRows};
use infermark_cpu_kernels::team::Shared;
use infermark_cpu_kernels::{Scalar, Simd};
use infermark_model::Likelihood;
use infermark_model::guide::{Guide, sigmoid};
use infermark_model::optimizer::{Moments, StepScalars};
use infermark_model::{Layout, LocScale, Panel, Parameterization, PerSite, Priors, Shard, Site};
use infermark_svi::{Chart, NoiseSource, ReplicaLink};
use std::ops::Range;
use std::sync::{Arc, RwLock};

/// Particles of a group: the passes over the rows serve [`GROUP`] at once.
pub(crate) fn groups(particles: usize) -> impl Iterator<Item = usize> {
    (0..particles)
        .step_by(GROUP)
        .map(move |first| GROUP.min(particles - first))
}

/// A chunk of products with its part of the guide.
pub(crate) struct ChunkState<I: Simd> {
    pub(crate) chunk: Chunk,
    /// In orthogonal coordinates, the products' `m`, the origins of their log prices; padded.
    pub(crate) origin: Option<Vec<I::Scalar>>,
    pub(crate) rows: ChunkRows<I>,
    pub(crate) elasticity: Block<I::Scalar>,
    pub(crate) effect: Block<I::Scalar>,
    /// Log-weights' part, one per particle.
    pub(crate) log_weights: Vec<f64>,
    pub(crate) elasticity_sums: Vec<ParentSums>,
    pub(crate) effect_sums: Vec<ParentSums>,
    /// Only where there are mini-batches: sums of counts by period, length T.
    pub(crate) units: Vec<f64>,
    /// The steps that its products have made.
    pub(crate) steps: u64,
    /// Only where gradients are exchanged: the chunk's share, of its elasticities, then its effects.
    pub(crate) share: Vec<f64>,
    /// Where the share is in the gradient.
    pub(crate) place: Range<usize>,
}

/// What a thread has to itself.
pub(crate) struct ThreadScratch<I: Simd> {
    pub(crate) pass: Scratch<I>,
    pub(crate) rooms: Rooms<I>,
}

/// Room for the rows of the chunk at work, where rows lie outside of memory.
pub(crate) struct Rooms<I: Simd> {
    poisson: PackedRoom<I>,
    counts: PackedRoom<I::Wide>,
}

impl<I: Simd> ThreadScratch<I> {
    pub(crate) fn new(isa: I, particles: usize) -> Self {
        ThreadScratch {
            pass: Scratch::new(isa, particles),
            rooms: Rooms {
                poisson: PackedRoom::default(),
                counts: PackedRoom::default(),
            },
        }
    }
}

impl<I: Simd> ChunkRows<I> {
    /// Packs the chunk's rows into the thread's room, until they are unloaded.
    #[inline(always)]
    pub(crate) fn load(&mut self, isa: I, panel: &Panel, chunk: &Chunk, rooms: &mut Rooms<I>) {
        match self {
            ChunkRows::Poisson { rows, .. } => rows.load(isa, panel, chunk, &mut rooms.poisson),
            ChunkRows::NegativeBinomial { rows, .. } => {
                rows.load(isa.wide(), panel, chunk, &mut rooms.counts);
            }
        }
    }

    /// Gives back the room.
    pub(crate) fn unload(&mut self, rooms: &mut Rooms<I>) {
        match self {
            ChunkRows::Poisson { rows, .. } => rows.unload(&mut rooms.poisson),
            ChunkRows::NegativeBinomial { rows, .. } => rows.unload(&mut rooms.counts),
        }
    }
}

/// A chunk's rows, packed for its likelihood, and the sums of the pass over them other than the products'
/// derivatives.
pub(crate) enum ChunkRows<I: Simd> {
    Poisson {
        rows: PackedRows<I>,
        /// One entry per group of particles.
        by_period: Vec<PeriodSums<I>>,
    },
    NegativeBinomial {
        rows: CountRows<I::Wide>,
        /// One entry per particle, each of [`padded_periods`].
        by_period: Vec<Vec<f64>>,
        /// Derivative with respect to the category's `log_shape`, one entry per particle.
        by_log_shape: Vec<f64>,
    },
}

/// A category's period effects as the pass over the rows reads them.
pub(crate) enum PeriodEffects<I: Simd> {
    /// One entry per group of particles.
    Poisson(Vec<PeriodTable<I>>),
    /// One entry per particle, each of [`padded_periods`].
    NegativeBinomial(Vec<Vec<f64>>),
}

/// A category's period effects.
pub(crate) struct CategoryState<I: Simd> {
    /// Its chunks, consecutive; none where no product of the shard is of the category.
    pub(crate) chunks: Range<usize>,
    pub(crate) over_products: CategorySums,
    /// Its period effects; in orthogonal coordinates the free numbers of their contrasts.
    pub(crate) time: Block<I::Scalar>,
    pub(crate) contrasts: Option<Contrasts<I::Scalar>>,
    pub(crate) effects: PeriodEffects<I>,
    /// Sums of counts by period; where there are mini-batches, those of the batch, scaled.
    pub(crate) units: Vec<f64>,
    pub(crate) log_weights: Vec<f64>,
    pub(crate) sums: Vec<ParentSums>,
    /// Scratch, length T.
    pub(crate) by_values: Vec<f64>,
}

/// The top of the hierarchy: `category_a`, `global_a`, the shapes and the centredness; advanced by one thread.
pub(crate) struct TopState<S> {
    pub(crate) global: Block<S>,
    pub(crate) category: Block<S>,
    /// `log_shape`, if the likelihood has it.
    pub(crate) log_shape: Option<Block<S>>,
    /// Values of `global_a`, one per particle.
    pub(crate) global_value: Vec<f64>,
    pub(crate) unconstrained_centredness: PerSite<f64>,
    pub(crate) centredness_moments: PerSite<Moments>,
    /// Gradient of the loss with respect to the unconstrained centredness.
    pub(crate) by_centredness: PerSite<f64>,
    pub(crate) log_weights: Vec<f64>,
}

/// Data that all threads read during a phase, and one thread writes between phases.
pub(crate) struct Frame {
    /// The iteration whose noise is drawn next or being used, from 0.
    pub(crate) iteration: u32,
    pub(crate) transforms: PerSite<LocScale>,
    /// `[category][particle]`.
    pub(crate) category_value: Vec<Vec<f64>>,
    /// `[category][particle]`; empty where the likelihood has no shape.
    pub(crate) log_shape: Vec<Vec<f64>>,
    /// Weights of the iteration just evaluated.
    pub(crate) weights: Vec<f64>,
    pub(crate) scalars: StepScalars,
    /// Whether the products' step of the last iteration is still pending.
    pub(crate) step_pending: bool,
    /// `None` where every iteration passes over all chunks.
    pub(crate) batches: Option<Batches>,
    /// Only where gradients are exchanged: that of the pending step, over all ranks.
    pub(crate) gradient: Vec<f64>,
    pub(crate) constant_means: ConstantMeans,
}

/// Prior means that do not vary, one entry per particle.
pub(crate) struct ConstantMeans {
    pub(crate) global: Vec<f64>,
    pub(crate) effect: Vec<f64>,
    pub(crate) time: Vec<f64>,
    pub(crate) log_shape: Vec<f64>,
}

impl Frame {
    /// The chunk that is item `index` of a pass over the products; `None` beyond the last of a mini-batch.
    pub(crate) fn chunk(&self, index: usize) -> Option<usize> {
        match &self.batches {
            None => Some(index),
            Some(batches) => batches.chunks().get(index).map(|chunk| *chunk as usize),
        }
    }

    /// What sums over the products of the pass are multiplied by.
    pub(crate) fn scale(&self) -> f64 {
        self.batches.as_ref().map_or(1.0, Batches::scale)
    }
}

/// What a state exchanges with those of other shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// It is the only one.
    Nothing,
    /// Sums over products: each has products of its own.
    Sums,
    /// Shares of the gradient: each has rows of its own, and all parameters.
    Gradient {
        /// Whether the priors are its share.
        has_priors: bool,
    },
}

/// Most products of a chunk.
pub(crate) fn chunk_size(shard: &Shard, settings: &SviSettings) -> usize {
    let size = products_per_chunk(shard.products().len());
    settings
        .batch_products
        .map_or(size, |batch| size.min(own_part(batch, shard)))
}

/// The part of a mini-batch of `batch` products that a shard has, at least one.
fn own_part(batch: usize, shard: &Shard) -> usize {
    let all = shard.panel().layout().products as f64;
    let own = batch as f64 * shard.products().len() as f64 / all;
    (own.round() as usize).max(1)
}

/// A chunk's sums of counts by period.
fn units_by_period(panel: &Panel, chunk: &Chunk) -> Vec<f64> {
    let mut units = vec![0.0; panel.layout().periods];
    for product in &chunk.products {
        for row in panel.product_rows(*product as usize) {
            units[row.period] += f64::from(row.units);
        }
    }
    units
}

/// The whole state.
pub(crate) struct State<I: Simd> {
    pub(crate) isa: I,
    /// The panel that has the rows of the shard's products.
    pub(crate) panel: Arc<Panel>,
    pub(crate) exchange: Exchange,
    pub(crate) layout: Layout,
    pub(crate) priors: Priors,
    pub(crate) chart: Chart,
    pub(crate) settings: SviSettings,
    pub(crate) noise: NoiseSource,
    pub(crate) chunks: Shared<ChunkState<I>>,
    pub(crate) categories: Shared<CategoryState<I>>,
    /// The work of an iteration, in row-particles.
    pub(crate) work: usize,
    pub(crate) top: RwLock<TopState<I::Scalar>>,
    pub(crate) frame: RwLock<Frame>,
}

impl<I: Simd> State<I> {
    /// A state of the products of `shard` with the parameters of `guide`, before its first iteration.
    #[allow(clippy::too_many_arguments)] // A request, its shard and where the run starts.
    pub(crate) fn new(
        isa: I,
        shard: &Shard,
        exchange: Exchange,
        likelihood: Likelihood,
        priors: Priors,
        chart: Chart,
        settings: SviSettings,
        guide: &Guide,
        noise: NoiseSource,
    ) -> Self {
        let panel = shard.panel().clone();
        let layout = shard.layout_for(likelihood);
        let particles = settings.particles;
        let start = BlockStart {
            guide,
            particles,
            has_prior: exchange != Exchange::Gradient { has_priors: false },
        };
        let zeros = || vec![0.0; particles];
        let sums = || vec![ParentSums::default(); particles];
        let by_period = || vec![vec![0.0; padded_periods(layout.periods)]; particles];
        let chunk_size = chunk_size(shard, &settings);
        let mut cut = chunks_of(&panel, shard.products(), chunk_size);
        let batches = settings.batch_products.map(|batch| {
            // Categories end chunks early, so that chunks have fewer products than their size.
            let share = own_part(batch, shard) as f64 / shard.products().len() as f64;
            let wanted = (share * cut.len() as f64).round() as usize;
            Batches::new(cut.len(), wanted, noise.seed())
        });
        let stored = panel.stored().is_some();
        let rows: Vec<ChunkRows<I>> = match likelihood {
            Likelihood::Poisson => cut
                .iter()
                .map(|chunk| ChunkRows::Poisson {
                    rows: match stored {
                        false => PackedRows::new(isa, &panel, chunk),
                        true => PackedRows::outline(&panel, chunk),
                    },
                    by_period: groups(particles)
                        .map(|k| PeriodSums::new(isa, layout.periods, k))
                        .collect(),
                })
                .collect(),
            Likelihood::NegativeBinomial => distinct_counts(&panel, &cut)
                .into_iter()
                .zip(&cut)
                .map(|(counts, chunk)| ChunkRows::NegativeBinomial {
                    rows: match stored {
                        false => CountRows::new(isa.wide(), &panel, chunk, counts),
                        true => CountRows::outline(&panel, chunk, counts),
                    },
                    by_period: by_period(),
                    by_log_shape: zeros(),
                })
                .collect(),
        };
        let work = particles * work_per_particle(&layout, shard.rows(), &cut);
        let categories = (0..layout.categories)
            .map(|category| {
                let first = cut.partition_point(|c| c.category < category);
                let end = cut.partition_point(|c| c.category <= category);
                let mut periods = layout.time_range(category);
                let contrasts = chart.orthogonal().map(|orthogonal| {
                    periods.end -= 1;
                    Contrasts::new(orthogonal, &layout, category, &priors, &start)
                });
                let units = &panel.sums().category_period[category * layout.periods..][..layout.periods];
                CategoryState {
                    chunks: first..end,
                    over_products: CategorySums::new(&layout, particles),
                    time: Block::new(periods.map(|j| j as u32).collect(), &start),
                    contrasts,
                    effects: match likelihood {
                        Likelihood::Poisson => PeriodEffects::Poisson(
                            groups(particles)
                                .map(|k| PeriodTable::new(isa, layout.periods, k))
                                .collect(),
                        ),
                        Likelihood::NegativeBinomial => PeriodEffects::NegativeBinomial(by_period()),
                    },
                    units: units.iter().map(|y| *y as f64).collect(),
                    log_weights: zeros(),
                    sums: sums(),
                    by_values: vec![0.0; layout.periods],
                }
            })
            .collect();
        if let Some(orthogonal) = chart.orthogonal() {
            for chunk in &mut cut {
                chunk.measure_from(&orthogonal.origin);
            }
        }
        let exchanges_gradients = matches!(exchange, Exchange::Gradient { .. });
        let mut numbers_before = 0;
        let chunks = cut
            .into_iter()
            .zip(rows)
            .map(|(chunk, rows)| {
                let first = numbers_before;
                numbers_before += 4 * chunk.products.len();
                let latents = |site| {
                    let start = layout.start(site) as u32;
                    chunk.products.iter().map(|p| start + p).collect()
                };
                ChunkState {
                    elasticity: Block::new(latents(Site::ProductA), &start),
                    effect: Block::new(latents(Site::ProductEffect), &start),
                    log_weights: zeros(),
                    elasticity_sums: sums(),
                    effect_sums: sums(),
                    units: match settings.batch_products {
                        Some(_) => units_by_period(&panel, &chunk),
                        None => Vec::new(),
                    },
                    steps: 0,
                    share: match exchanges_gradients {
                        true => vec![0.0; numbers_before - first],
                        false => Vec::new(),
                    },
                    place: first..numbers_before,
                    origin: chart.orthogonal().map(|orthogonal| {
                        let of = |p: &u32| I::Scalar::from_f64(orthogonal.origin[*p as usize]);
                        let mut origin: Vec<I::Scalar> = chunk.products.iter().map(of).collect();
                        origin.resize(chunk.padded(), I::Scalar::default());
                        origin
                    }),
                    rows,
                    chunk,
                }
            })
            .collect();
        let categories_range = layout.range(Site::CategoryA);
        let top = TopState {
            global: Block::new(vec![0], &start),
            category: Block::new(categories_range.map(|j| j as u32).collect(), &start),
            log_shape: likelihood.has_shape().then(|| {
                let range = layout.range(Site::LogShape);
                Block::new(range.map(|j| j as u32).collect(), &start)
            }),
            global_value: zeros(),
            unconstrained_centredness: guide.unconstrained_centredness.unwrap_or_default(),
            centredness_moments: Default::default(),
            by_centredness: PerSite::all(0.0),
            log_weights: zeros(),
        };
        let frame = Frame {
            iteration: 0,
            transforms: guide.centredness(chart.parameterization()).transforms(&priors),
            category_value: vec![zeros(); layout.categories],
            log_shape: vec![zeros(); layout.len(Site::LogShape)],
            weights: zeros(),
            scalars: settings.optimizer.scalars(0),
            step_pending: false,
            batches,
            gradient: match exchanges_gradients {
                true => vec![0.0; ReplicaLink::gradient_numbers(&layout, &chart)],
                false => Vec::new(),
            },
            constant_means: ConstantMeans {
                global: vec![priors.global_a_mean; particles],
                effect: vec![priors.product_effect_mean; particles],
                // Contrasts are about zero.
                time: match &chart {
                    Chart::Published(_) => vec![priors.time_cat_effects_mean; particles],
                    Chart::Orthogonal(_) => zeros(),
                },
                log_shape: vec![priors.log_shape_mean; particles],
            },
        };
        State {
            isa,
            panel,
            exchange,
            layout,
            priors,
            chart,
            settings,
            noise,
            chunks: Shared::new(chunks),
            categories: Shared::new(categories),
            work,
            top: RwLock::new(top),
            frame: RwLock::new(frame),
        }
    }

    /// Whether the centredness is optimized.
    pub(crate) fn learns_centredness(&self) -> bool {
        self.chart.parameterization() == Parameterization::Learned
    }

    /// Centredness of a site from its unconstrained value, and its derivative with respect to that.
    pub(crate) fn centredness_slope(u: f64) -> f64 {
        let c = sigmoid(u);
        c * (1.0 - c)
    }

    /// An all-zero guide of this state's shape.
    pub(crate) fn empty_guide(&self) -> Guide {
        let latents = self.layout.latents();
        Guide {
            loc: vec![0.0; latents],
            unconstrained_scale: vec![0.0; latents],
            unconstrained_centredness: self.learns_centredness().then_some(PerSite::all(0.0)),
        }
    }

    /// The guide's parameters now.
    pub(crate) fn guide(&self) -> Guide {
        let mut guide = self.empty_guide();
        self.chunks.for_each(|_, chunk| {
            chunk.elasticity.write_to(&mut guide);
            chunk.effect.write_to(&mut guide);
        });
        self.categories.for_each(|_, category| {
            category.time.write_to(&mut guide);
            if let Some(contrasts) = &category.contrasts {
                contrasts.write_to(&mut guide);
            }
        });
        let top = self.top.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        top.category.write_to(&mut guide);
        top.global.write_to(&mut guide);
        if let Some(log_shape) = &top.log_shape {
            log_shape.write_to(&mut guide);
        }
        if let Some(u) = &mut guide.unconstrained_centredness {
            *u = top.unconstrained_centredness;
        }
        guide
    }
}
