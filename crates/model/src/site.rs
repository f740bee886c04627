//! The model's sites and how they lie in one flat vector.

use crate::likelihood::Likelihood;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A sample site of the model, in the order of the flat vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// Mean of the categories' elasticities; a scalar.
    GlobalA,
    /// Mean elasticity in a category; length C.
    CategoryA,
    /// Price elasticity of a product; length N.
    ProductA,
    /// Log level of a product; length N.
    ProductEffect,
    /// Log level of a category in a period; length C * T, category-major.
    TimeCatEffects,
    /// Log of the negative-binomial shape of a category's counts; length C, or 0 under the Poisson likelihood.
    LogShape,
}

impl Site {
    /// The sites of the published model, in the order of the flat vector: those whose form a
    /// [`Parameterization`](crate::Parameterization) chooses. [`Layout::sites`] gives all that a likelihood has.
    pub const ALL: [Site; 5] = [
        Site::GlobalA,
        Site::CategoryA,
        Site::ProductA,
        Site::ProductEffect,
        Site::TimeCatEffects,
    ];

    /// The site's name in files, in the command and in the published code.
    pub const fn name(self) -> &'static str {
        match self {
            Site::GlobalA => "global_a",
            Site::CategoryA => "category_a",
            Site::ProductA => "product_a",
            Site::ProductEffect => "product_effect",
            Site::TimeCatEffects => "time_cat_effects",
            Site::LogShape => "log_shape",
        }
    }

    /// Position in [`Site::ALL`]; [`Site::LogShape`] comes behind it.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The sizes of a panel's axes and the likelihood, and from them where each site lies in the flat vector of latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// N, products.
    pub products: usize,
    /// C, categories.
    pub categories: usize,
    /// T, periods.
    pub periods: usize,
    /// The likelihood of the counts.
    #[serde(default)]
    pub likelihood: Likelihood,
}

impl Layout {
    /// The layout of N products, C categories and T periods under the Poisson likelihood.
    pub const fn new(products: usize, categories: usize, periods: usize) -> Self {
        Layout {
            products,
            categories,
            periods,
            likelihood: Likelihood::Poisson,
        }
    }

    /// The same sizes under `likelihood`; the latents of the Poisson layout keep their places.
    pub const fn with_likelihood(self, likelihood: Likelihood) -> Self {
        Layout { likelihood, ..self }
    }

    /// Number of latents, `1 + C + 2N + C*T`, and C more under the negative-binomial likelihood.
    pub const fn latents(&self) -> usize {
        self.start(Site::LogShape) + self.len(Site::LogShape)
    }

    /// The same of sizes that a file may only claim; `None` where they exceed any memory.
    pub fn checked_latents(&self) -> Option<usize> {
        // Every other length is one of the sizes.
        self.categories.checked_mul(self.periods)?;
        self.sites()
            .iter()
            .try_fold(0usize, |sum, site| sum.checked_add(self.len(*site)))
    }

    /// The sites that there are, in the order of the flat vector.
    pub const fn sites(&self) -> &'static [Site] {
        const EVERY: [Site; 6] = [
            Site::GlobalA,
            Site::CategoryA,
            Site::ProductA,
            Site::ProductEffect,
            Site::TimeCatEffects,
            Site::LogShape,
        ];
        match self.likelihood {
            Likelihood::Poisson => &Site::ALL,
            Likelihood::NegativeBinomial => &EVERY,
        }
    }

    /// How many latents a site has.
    pub const fn len(&self, site: Site) -> usize {
        match site {
            Site::GlobalA => 1,
            Site::CategoryA => self.categories,
            Site::ProductA | Site::ProductEffect => self.products,
            Site::TimeCatEffects => self.categories * self.periods,
            Site::LogShape => match self.likelihood {
                Likelihood::Poisson => 0,
                Likelihood::NegativeBinomial => self.categories,
            },
        }
    }

    /// Index of the site's first latent.
    pub const fn start(&self, site: Site) -> usize {
        match site {
            Site::GlobalA => 0,
            Site::CategoryA => 1,
            Site::ProductA => 1 + self.categories,
            Site::ProductEffect => 1 + self.categories + self.products,
            Site::TimeCatEffects => 1 + self.categories + 2 * self.products,
            Site::LogShape => 1 + self.categories + 2 * self.products + self.categories * self.periods,
        }
    }

    /// The site's latents in the flat vector.
    pub const fn range(&self, site: Site) -> Range<usize> {
        let start = self.start(site);
        start..start + self.len(site)
    }

    /// Index of a category's effect in a period.
    pub const fn time_index(&self, category: usize, period: usize) -> usize {
        self.start(Site::TimeCatEffects) + category * self.periods + period
    }

    /// A category's effects in all periods.
    pub const fn time_range(&self, category: usize) -> Range<usize> {
        let start = self.time_index(category, 0);
        start..start + self.periods
    }

    /// The site that holds a latent.
    ///
    /// # Panics
    /// When `latent` is not below [`Layout::latents`].
    pub fn site_of(&self, latent: usize) -> Site {
        assert!(latent < self.latents(), "latent {latent} of {}", self.latents());
        *self
            .sites()
            .iter()
            .rev()
            .find(|s| latent >= self.start(**s) && self.len(**s) > 0)
            .expect("global_a starts at zero")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_tile_the_vector() {
        let poisson = Layout::new(7, 3, 5);
        let negative_binomial = poisson.with_likelihood(Likelihood::NegativeBinomial);
        let huge = Layout::new(4, usize::MAX / 2, 3);
        assert_eq!(huge.checked_latents(), None);
        assert_eq!(Layout::new(usize::MAX / 2, 1, 1).checked_latents(), None);
        for layout in [poisson, negative_binomial] {
            assert_eq!(layout.checked_latents(), Some(layout.latents()));
            let mut next = 0;
            for site in layout.sites() {
                assert_eq!(layout.start(*site), next);
                for latent in layout.range(*site) {
                    assert_eq!(layout.site_of(latent), *site);
                }
                next += layout.len(*site);
            }
            assert_eq!(next, layout.latents());
        }
        assert_eq!(Layout::new(10_000, 10, 156).latents(), 21_571);
        assert_eq!(negative_binomial.latents(), poisson.latents() + 3);
        assert!(poisson.range(Site::LogShape).is_empty());
    }
}
