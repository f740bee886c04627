//! Means corrected for the skewness of the posterior, and marginals where counts are small.
//!
//! About the mode the log posterior is that of the Gaussian minus the terms of each row beyond its
//! second-order expansion,
//!
//! ```text
//! ln p = -z' Q z / 2 - sum_r lambda_r h(d_r),    h(d) = exp(d) - 1 - d - d^2 / 2,    d_r = x_r' z
//! ```
//!
//! with `z` the distance from the mode. Three corrections follow; `docs/exact.md`, "Skewness", derives them.
//!
//! 1. All means move by `s = -Q^-1 sum_r x_r lambda_r v_r / 2`, `v_r = var(d_r)` ([`shift`]).
//! 2. The marginal of a product's latents `delta`, and of a period effect ([`product`], [`period`]). A group
//!    of rows, those of the product or of the category in the period, is treated exactly along the
//!    conditional mean of all else, each row averaged over the remaining variance of its log rate ([`rows`]).
//!    All other rows tilt the density linearly:
//!
//!    ```text
//!    ln p(delta) = -delta' Cov^-1 delta / 2 + delta' Cov^-1 s_others + sum of the group's ln E exp(-lambda_r h(d_r))
//!    ```
//!
//!    and move the rows' log rates given `delta`, to first order.
//! 3. The means of `category_a` and `global_a` follow from those of `product_a`: given these they are linear,
//!    without error ([`means_above_products`]).
//!
//! Sources: Lindley, "Approximate Bayesian methods", 1980 (the mean to first order, from the third
//! derivatives); Rue, Martino and Chopin, 2009, section 3.2 (the simplified Laplace approximation is an
//! expansion of the same marginals to third order).

mod expansion;
mod period;
mod product;
mod rows;
mod shape;
mod shift;

use crate::design::{self, COEFFICIENTS, LATENTS, at};
use crate::hierarchy::above_products;
use crate::newton::{Mode, ModeError};
use crate::objective::GaussianObjective;
use expansion::Expansion;
use infermark_arrowhead::{ArrowheadFactor, FactorError};
use infermark_backend::{NORMAL_Q95, NORMAL_Q975, Posterior};
use rows::About;
use shape::Shape;

/// A corrected posterior.
pub(crate) struct Corrected {
    /// Not corrected where [`Corrected::shift`] is beyond [`MOST_SHIFT`].
    pub(crate) posterior: Posterior,
    /// Number of products whose marginals are not normal.
    pub(crate) skewed: usize,
    /// Categories of one product, whose marginals are not normal.
    pub(crate) lone: usize,
    /// The largest distance of a mean above the products from the mode, to first order, in standard
    /// deviations: the part due to products' own rows is corrected in full.
    pub(crate) shift: f64,
}

/// Distance of a mean from the mode, in standard deviations, beyond which the first order is meaningless.
pub(crate) const MOST_SHIFT: f64 = 6.0;

/// Corrects a Gaussian at the mode; returns the factor of its precision as well.
///
/// # Errors
/// When it is stopped, or a rank has gone.
pub(crate) fn corrected_mode(
    counts: &GaussianObjective,
    mode: Mode,
) -> Result<(Corrected, ArrowheadFactor), ModeError> {
    let Mode {
        point, mut factor, ..
    } = mode;
    let (shift, at_mode) = shift::of_means(counts, &factor)?;
    let variance = factor.variances_above_products();
    let layout = counts.layout();
    let farthest = design::above_products(layout)
        .into_iter()
        .flatten()
        .map(|j| shift[j].abs() / variance[j].sqrt())
        .fold(0.0, |most: f64, s| if s > most || s.is_nan() { s } else { most });
    if farthest <= MOST_SHIFT {
        let found = corrected(&Expansion {
            counts,
            about: About::Mode,
            point: &point,
            shift: &shift,
            known: Some(&at_mode),
            factor: &factor,
        })?;
        return Ok((
            Corrected {
                shift: farthest,
                ..found
            },
            factor,
        ));
    }
    // The same bits as without a correction.
    factor.forget_variances();
    let variance = factor.marginals_there()?.variance;
    let sd = variance.iter().map(|v| v.sqrt()).collect();
    let posterior = Posterior::normal(layout, point, sd);
    let found = Corrected {
        posterior,
        skewed: 0,
        lone: 0,
        shift: farthest,
    };
    Ok((found, factor))
}

/// The same for the Gaussian that maximizes the evidence lower bound, with this mean and the precision of
/// `factor`.
///
/// # Errors
/// When a rank has gone.
pub(crate) fn corrected_mean(
    counts: &GaussianObjective,
    mean: &[f64],
    factor: &ArrowheadFactor,
) -> Result<Corrected, FactorError> {
    corrected(&Expansion {
        counts,
        about: About::Mean,
        point: mean,
        shift: &vec![0.0; mean.len()],
        known: None,
        factor,
    })
}

/// # Errors
/// When the device that has the rows fails, or a rank has gone.
fn corrected(expansion: &Expansion<'_>) -> Result<Corrected, FactorError> {
    let Expansion {
        counts,
        point,
        shift,
        factor,
        ..
    } = *expansion;
    let layout = counts.layout();
    let mut periods = period::Few::of(expansion);
    let products = product::marginals(expansion, &periods)?;
    if counts.partition().ranks().is_some() {
        periods.sum_over_ranks(counts.partition())?;
    }

    let mut mean: Vec<f64> = point.iter().zip(shift).map(|(p, s)| p + s).collect();
    let mut variance = factor.variances_above_products();
    let mut shapes = Vec::new();
    // Per category: the number of products whose marginals are not normal.
    let mut skewed = vec![0.0; layout.categories];
    let of_product = |(i, product)| Some((i, Option::as_ref(product)?));
    for (i, product) in products.iter().enumerate().filter_map(of_product) {
        let places = layout.product_places(i);
        for (j, v) in places.into_iter().zip(product.variances) {
            variance[j] = v;
        }
        if let Some(shapes_of_product) = product.shapes {
            skewed[counts.panel().category_of()[i] as usize] += 1.0;
            for (j, shape) in places.into_iter().zip(shapes_of_product) {
                mean[j] = shape.mean;
                shapes.push((j, shape));
            }
        }
    }
    means_above_products(counts, &mut mean)?;
    counts.partition().sum(&mut skewed, Ok(()))?;
    shapes.extend(periods.marginals(expansion));

    let sd = variance.iter().map(|v| v.sqrt()).collect();
    let mut posterior = Posterior::normal(layout, mean, sd);
    for (j, shape) in shapes {
        write(&mut posterior, j, &shape);
    }
    Ok(Corrected {
        posterior,
        skewed: skewed.iter().sum::<f64>() as usize,
        lone: (0..layout.categories)
            .filter(|c| counts.partition().products_of(*c) == 1 && skewed[*c] == 1.0)
            .count(),
        shift: 0.0,
    })
}

fn write(posterior: &mut Posterior, j: usize, shape: &Shape) {
    posterior.mean[j] = shape.mean;
    posterior.sd[j] = shape.variance.sqrt();
    posterior.q025[j] = shape.quantile(-NORMAL_Q975);
    posterior.q05[j] = shape.quantile(-NORMAL_Q95);
    posterior.q95[j] = shape.quantile(NORMAL_Q95);
    posterior.q975[j] = shape.quantile(NORMAL_Q975);
}

/// The means above the products from those of their coefficients: given these they depend on nothing else,
/// and their conditional mean is linear.
///
/// # Errors
/// When a rank has gone.
fn means_above_products(counts: &GaussianObjective, mean: &mut [f64]) -> Result<(), FactorError> {
    let (panel, layout) = (counts.panel(), counts.layout());
    let mut sums = vec![[0.0; LATENTS]; layout.categories];
    let products = panel.category_of().iter().enumerate();
    for (i, c) in products.filter(|(i, _)| counts.partition().is_walked(*i)) {
        let own = at(mean, layout.product_places(i));
        for k in 0..COEFFICIENTS.len() {
            sums[*c as usize][k] += own[k];
        }
    }
    let mut numbers = sums.as_flattened().to_vec();
    counts.partition().sum(&mut numbers, Ok(()))?;
    sums.as_flattened_mut().copy_from_slice(&numbers);
    above_products(counts, mean, &sums);
    Ok(())
}
