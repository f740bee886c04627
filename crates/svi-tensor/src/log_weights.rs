//! The model and the guide in tensor operations.

use burn_tensor::backend::Backend;
use burn_tensor::{Int, Tensor, TensorData};
use infermark_model::Orthogonal;
use infermark_model::log_joint::LN_SQRT_2PI;
use infermark_model::{Layout, Panel, Priors, Site};

/// A dense panel on a device, and other inputs of the log-weights.
///
/// The parameters of a guide are two vectors of L latents, `loc` and the unconstrained scale, and five centrednesses.
#[derive(Debug)]
pub struct LogWeights<B: Backend> {
    layout: Layout,
    priors: Priors,
    /// Log prices, `[1, N, T]`, in orthogonal coordinates less the product's origin; zero where a row is absent.
    log_price: Tensor<B, 3>,
    /// Counts, `[1, N, T]`.
    units: Tensor<B, 3>,
    /// `ln y`, `[1, N, T]`; zero where y is.
    ln_units: Tensor<B, 3>,
    /// One where a row is present, `[1, N, T]`; `None` where all are.
    present: Option<Tensor<B, 3>>,
    /// The category of each product, `[N]`.
    category_of: Tensor<B, 1, Int>,
    /// The log likelihood where every rate is its count, `sum (y ln y - y - ln y!)`: what a row's term is taken relative to,
    /// so that single precision adds small numbers.
    saturated: f64,
    contrasts: Option<Contrasts<B>>,
}

impl<B: Backend> LogWeights<B> {
    /// Uploads a panel, for a guide in the coordinates of `orthogonal` if these are given.
    pub fn new(panel: &Panel, priors: &Priors, orthogonal: Option<&Orthogonal>, device: &B::Device) -> Self {
        let layout = panel.layout();
        let (n, t) = (layout.products, layout.periods);
        let mut log_price = vec![0.0f32; n * t];
        let mut units = vec![0.0f32; n * t];
        let mut ln_units = vec![0.0f32; n * t];
        let mut present = vec![0.0f32; n * t];
        let mut saturated = -panel.sums().ln_factorials;
        for i in 0..n {
            let origin = orthogonal.map_or(0.0, |o| o.origin[i]);
            for row in panel.product_rows(i) {
                let at = i * t + row.period;
                log_price[at] = (row.log_price - origin) as f32;
                units[at] = row.units as f32;
                if row.units > 0 {
                    let y = f64::from(row.units);
                    ln_units[at] = y.ln() as f32;
                    saturated += y * y.ln() - y;
                }
                present[at] = 1.0;
            }
        }
        let rows = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [1, n, t]), device);
        let categories: Vec<i32> = panel.category_of().iter().map(|c| *c as i32).collect();
        LogWeights {
            layout,
            priors: *priors,
            log_price: rows(log_price),
            units: rows(units),
            ln_units: rows(ln_units),
            present: (!panel.is_dense()).then(|| rows(present)),
            category_of: Tensor::from_data(TensorData::new(categories, [n]), device),
            saturated,
            contrasts: orthogonal.map(|o| Contrasts::new(o, &layout, priors, device)),
        }
    }

    /// `l_k = ln p(y, z_k) - ln q(z_k)`, `[K]`, for `z_k = loc + softplus(u) eps_k`: `loc` and `u` are `[1, L]`, `eps` is
    /// `[K, L]`, `centredness` `[1, 5]`, all one in orthogonal coordinates.
    pub fn at(
        &self,
        loc: Tensor<B, 2>,
        unconstrained_scale: Tensor<B, 2>,
        centredness: Tensor<B, 2>,
        eps: Tensor<B, 2>,
    ) -> Tensor<B, 1> {
        let [particles, _] = eps.dims();
        let (n, c, t) = (self.layout.products, self.layout.categories, self.layout.periods);
        let priors = &self.priors;
        let sigma = softplus(unconstrained_scale);
        let minus_ln_q = sigma.clone().log().sum_dim(1)
            + (eps.clone().square().mul_scalar(0.5).add_scalar(LN_SQRT_2PI)).sum_dim(1);
        let z = loc + sigma * eps;
        let site = |site: Site| {
            let range = self.layout.range(site);
            z.clone().narrow(1, range.start, range.len())
        };
        let place = |which: Site, mean: Tensor<B, 2>| {
            let c = centredness.clone().narrow(1, which.index(), 1);
            located(site(which), mean, c, priors.sd(which))
        };
        let constant = |mean: f64| Tensor::full([1, 1], mean, &z.device());

        let (global, ln_global) = place(Site::GlobalA, constant(priors.global_a_mean));
        let (category, ln_category) = place(Site::CategoryA, global);
        let (elasticity, ln_product) = place(Site::ProductA, category.select(1, self.category_of.clone()));
        let (period, ln_period, effect_mean) = match &self.contrasts {
            None => {
                let (period, ln_period) = place(Site::TimeCatEffects, constant(priors.time_cat_effects_mean));
                let period = period.reshape([particles, c, t]);
                (period, ln_period, constant(priors.product_effect_mean))
            }
            Some(contrasts) => {
                let places = site(Site::TimeCatEffects).reshape([particles, c, t]);
                let ln_period = contrasts.ln_density(places.clone());
                let (values, shift) = contrasts.values(places);
                let effect_mean =
                    shift.select(1, self.category_of.clone()) + elasticity.clone() * contrasts.origin.clone();
                (
                    values,
                    ln_period,
                    effect_mean.add_scalar(priors.product_effect_mean),
                )
            }
        };
        let (effect, ln_effect) = place(Site::ProductEffect, effect_mean);

        // ln rate, [K, N, T].
        let eta = elasticity.reshape([particles, n, 1]) * self.log_price.clone()
            + effect.reshape([particles, n, 1])
            + period.select(1, self.category_of.clone());
        let eta = eta.clamp(priors.clip_low, priors.clip_high);
        let mut ln_likelihood =
            self.units.clone() * (eta.clone() - self.ln_units.clone()) - (eta.exp() - self.units.clone());
        if let Some(present) = &self.present {
            ln_likelihood = ln_likelihood * present.clone();
        }
        let ln_likelihood = ln_likelihood.sum_dim(2).sum_dim(1).reshape([particles, 1]);

        let ln_prior = ln_global + ln_category + ln_product + ln_effect + ln_period;
        (ln_likelihood + ln_prior + minus_ln_q)
            .add_scalar(self.saturated)
            .reshape([particles])
    }
}

/// Period effects in orthogonal coordinates (`infermark_model::Orthogonal`): of a category's T places the first `T - 1` hold the
/// free numbers `y` of its contrasts, and the last its level.
#[derive(Debug)]
struct Contrasts<B: Backend> {
    /// The origins of the products' log prices, `[1, N]`.
    origin: Tensor<B, 2>,
    /// The weights of `w`, `[1, C, T]`.
    share: Tensor<B, 3>,
    /// One for a free number and zero for the level, `[1, 1, T]`.
    is_free: Tensor<B, 3>,
    /// The factor by which the contrasts fall with the sum of the free numbers, `[1, 1, T]`.
    fall: Tensor<B, 3>,
    /// Prior means and sds of the places, `[1, 1, T]`.
    mean: Tensor<B, 3>,
    sd: Tensor<B, 3>,
    /// Log densities of the priors at their means, all categories' together.
    ln_density_at_mean: f64,
}

impl<B: Backend> Contrasts<B> {
    fn new(orthogonal: &Orthogonal, layout: &Layout, priors: &Priors, device: &B::Device) -> Self {
        let (c, t) = (layout.categories, layout.periods);
        let tensor = |values: Vec<f64>, shape: [usize; 3]| {
            let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
            Tensor::<B, 3>::from_data(TensorData::new(values, shape), device)
        };
        // One number for the free ones and one for the level.
        let places = |free: f64, level: f64| {
            let mut places = vec![free; t];
            places[t - 1] = level;
            tensor(places, [1, 1, t])
        };
        let sd = priors.time_cat_effects_sd;
        let level_sd = sd / (t as f64).sqrt();
        let ln_sds = (t - 1) as f64 * sd.ln() + level_sd.ln();
        Contrasts {
            origin: tensor(orthogonal.origin.clone(), [1, 1, layout.products]).reshape([1, layout.products]),
            share: tensor(orthogonal.period_share.clone(), [1, c, t]),
            is_free: places(1.0, 0.0),
            fall: places(orthogonal.zero_sum.shared, orthogonal.zero_sum.last),
            mean: places(0.0, priors.time_cat_effects_mean),
            sd: places(sd, level_sd),
            ln_density_at_mean: -(c as f64) * (ln_sds + t as f64 * LN_SQRT_2PI),
        }
    }

    /// Log density of the places `[K, C, T]`, `[K, 1]`.
    fn ln_density(&self, places: Tensor<B, 3>) -> Tensor<B, 2> {
        let [particles, c, t] = places.dims();
        let standard = (places - self.mean.clone()) / self.sd.clone();
        let squares = standard.square().reshape([particles, c * t]).sum_dim(1);
        squares.mul_scalar(-0.5).add_scalar(self.ln_density_at_mean)
    }

    /// `s - w` of the places, `[K, C, T]`, and `l + w`, `[K, C]`.
    fn values(&self, places: Tensor<B, 3>) -> (Tensor<B, 3>, Tensor<B, 2>) {
        let [particles, c, t] = places.dims();
        let level = places.clone().narrow(2, t - 1, 1);
        let free = places * self.is_free.clone();
        let sum = free.clone().sum_dim(2);
        let contrasts = free - sum * self.fall.clone();
        let weighted = (contrasts.clone() * self.share.clone()).sum_dim(2);
        let shift = (level + weighted.clone()).reshape([particles, c]);
        (contrasts - weighted, shift)
    }
}

/// `ln(1 + e^u)` without overflow.
fn softplus<B: Backend>(u: Tensor<B, 2>) -> Tensor<B, 2> {
    u.clone().clamp_min(0.0) + u.abs().neg().exp().log1p()
}

/// The values of a site of prior `Normal(mean, sd)` that is inferred as `z ~ Normal(c mean, sd^c)`, and the log density
/// of its `z`, `[K, 1]`.
fn located<B: Backend>(
    z: Tensor<B, 2>,
    mean: Tensor<B, 2>,
    centredness: Tensor<B, 2>,
    sd: f64,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let len = z.dims()[1] as f64;
    let residual = z - centredness.clone() * mean.clone();
    // s^(1 - c) and s^c; a prior's s is a number.
    let stretch = centredness
        .clone()
        .neg()
        .add_scalar(1.0)
        .mul_scalar(sd.ln())
        .exp();
    let scale = centredness.clone().mul_scalar(sd.ln()).exp();
    let standard = residual.clone() / scale;
    let ln_density = standard.square().mul_scalar(-0.5).sum_dim(1)
        - (centredness.mul_scalar(sd.ln()).add_scalar(LN_SQRT_2PI)).mul_scalar(len);
    (mean + stretch * residual, ln_density)
}
