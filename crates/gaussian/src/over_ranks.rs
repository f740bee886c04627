//! Sums over all products and latents, of which a rank has a part.

use crate::design::{COEFFICIENTS, LATENTS, PRODUCT_SITES, above_products, prior_means};
use crate::objective::GaussianObjective;
use infermark_arrowhead::FactorError;
use infermark_backend::Posterior;

/// Sums over the products at a point.
pub(crate) struct OverProducts {
    /// Squares of their latents about the priors' means, in the priors' standard deviations.
    pub(crate) squares: f64,
    /// The size of their terms.
    pub(crate) size: f64,
    /// Derivatives of their priors with respect to the categories' coefficients, with the places of these.
    pub(crate) pulls: Vec<(usize, f64)>,
}

impl GaussianObjective {
    /// Sums over the products of all ranks at a point.
    ///
    /// # Errors
    /// When a rank has gone.
    pub(crate) fn over_products(&self, point: &[f64]) -> Result<OverProducts, FactorError> {
        let (layout, priors) = (self.layout(), self.priors());
        let mut numbers = vec![0.0; 2 + COEFFICIENTS.len() * layout.categories];
        for i in self.partition().order().iter().map(|product| *product as usize) {
            let category = self.panel().category_of()[i] as usize;
            let means = prior_means(priors, layout, point, category);
            for (k, site) in PRODUCT_SITES.into_iter().enumerate() {
                let z = (point[layout.product_places(i)[k]] - means[k]) / priors.sd(site);
                numbers[0] += z * z;
                if k < COEFFICIENTS.len() {
                    numbers[2 + k * layout.categories + category] += z / priors.sd(site);
                }
            }
            numbers[1] += self.size_of(i, point);
        }
        self.partition().sum(&mut numbers, Ok(()))?;
        let places = COEFFICIENTS.iter().flat_map(|sites| layout.range(sites.category));
        Ok(OverProducts {
            squares: numbers[0],
            size: numbers[1],
            pulls: places.zip(numbers[2..].iter().copied()).collect(),
        })
    }

    /// Sums over all latents of numbers by place.
    ///
    /// # Errors
    /// When a rank has gone.
    pub(crate) fn sums_over_latents<const K: usize>(
        &self,
        of: impl Fn(usize) -> [f64; K],
    ) -> Result<[f64; K], FactorError> {
        let add = |mut sums: [f64; K], own: [f64; K]| {
            sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
            sums
        };
        if self.partition().ranks().is_none() {
            return Ok((0..self.layout().latents()).map(of).fold([0.0; K], add));
        }
        let mut products = self.places_of_products().map(&of).fold([0.0; K], add).to_vec();
        self.partition().sum(&mut products, Ok(()))?;
        let above = above_products(self.layout()).into_iter().flatten();
        let mut sums = above.map(of).fold([0.0; K], add);
        sums.iter_mut()
            .zip(products)
            .for_each(|(sum, products)| *sum += products);
        Ok(sums)
    }

    /// The largest over all latents of numbers by place, none of them negative; NaN is larger than any.
    ///
    /// # Errors
    /// When a rank has gone.
    pub(crate) fn largest_over_latents<const K: usize>(
        &self,
        of: impl Fn(usize) -> [f64; K],
    ) -> Result<[f64; K], FactorError> {
        let larger = |mut most: [f64; K], own: [f64; K]| {
            most.iter_mut()
                .zip(own)
                .for_each(|(most, own)| *most = largest(*most, own));
            most
        };
        let Some(ranks) = self.partition().ranks() else {
            return Ok((0..self.layout().latents()).map(of).fold([0.0; K], larger));
        };
        let above = above_products(self.layout()).into_iter().flatten();
        let own = self.places_of_products().chain(above).map(of);
        let all = ranks.gather(&own.fold([0.0; K], larger))?;
        let (of_ranks, _) = all.as_chunks::<K>();
        Ok(of_ranks.iter().copied().fold([0.0; K], larger))
    }

    /// Gives numbers by latent those of the products of the other ranks.
    ///
    /// # Errors
    /// When a rank has gone.
    pub(crate) fn gather_products(&self, columns: &mut [&mut Vec<f64>]) -> Result<(), FactorError> {
        if self.partition().ranks().is_none() {
            return Ok(());
        }
        let layout = self.layout();
        // Of the others, zeros: a sum with these is the number itself.
        let mut numbers = vec![0.0; columns.len() * LATENTS * layout.products];
        for (own, column) in numbers
            .chunks_exact_mut(LATENTS * layout.products)
            .zip(columns.iter())
        {
            for i in self.partition().order().iter().map(|product| *product as usize) {
                for (k, j) in layout.product_places(i).into_iter().enumerate() {
                    own[k * layout.products + i] = column[j];
                }
            }
        }
        self.partition().sum(&mut numbers, Ok(()))?;
        for (all, column) in numbers
            .chunks_exact(LATENTS * layout.products)
            .zip(columns.iter_mut())
        {
            for (site, of_site) in PRODUCT_SITES.into_iter().zip(all.chunks_exact(layout.products)) {
                column[layout.range(site)].copy_from_slice(of_site);
            }
        }
        Ok(())
    }

    /// The posterior with the products of all ranks.
    ///
    /// # Errors
    /// When a rank has gone.
    pub(crate) fn gathered(&self, mut posterior: Posterior) -> Result<Posterior, FactorError> {
        self.gather_products(&mut [
            &mut posterior.mean,
            &mut posterior.sd,
            &mut posterior.q025,
            &mut posterior.q05,
            &mut posterior.q95,
            &mut posterior.q975,
        ])?;
        Ok(posterior)
    }

    /// The places of the latents of the products that are walked here.
    fn places_of_products(&self) -> impl Iterator<Item = usize> {
        let layout = self.layout();
        let products = self.partition().order().iter();
        products.flat_map(move |product| layout.product_places(*product as usize))
    }
}

/// The larger of two, or NaN, which `f64::max` would ignore.
pub(crate) fn largest(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}
