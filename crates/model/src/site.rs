//! The model's sites and how they lie in one flat vector.

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
}

impl Site {
    /// All sites, in the order of the flat vector.
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
        }
    }

    /// Position in [`Site::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The sizes of a panel's axes, and from them where each site lies in the flat vector of latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// N, products.
    pub products: usize,
    /// C, categories.
    pub categories: usize,
    /// T, periods.
    pub periods: usize,
}

impl Layout {
    /// Number of latents, `1 + C + 2N + C*T`.
    pub const fn latents(&self) -> usize {
        1 + self.categories + 2 * self.products + self.categories * self.periods
    }

    /// How many latents a site has.
    pub const fn len(&self, site: Site) -> usize {
        match site {
            Site::GlobalA => 1,
            Site::CategoryA => self.categories,
            Site::ProductA | Site::ProductEffect => self.products,
            Site::TimeCatEffects => self.categories * self.periods,
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

    /// The site that holds a latent.
    ///
    /// # Panics
    /// When `latent` is not below [`Layout::latents`].
    pub fn site_of(&self, latent: usize) -> Site {
        assert!(latent < self.latents(), "latent {latent} of {}", self.latents());
        *Site::ALL
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
        let layout = Layout {
            products: 7,
            categories: 3,
            periods: 5,
        };
        let mut next = 0;
        for site in Site::ALL {
            assert_eq!(layout.start(site), next);
            for latent in layout.range(site) {
                assert_eq!(layout.site_of(latent), site);
            }
            next += layout.len(site);
        }
        assert_eq!(next, layout.latents());
        assert_eq!(
            Layout {
                products: 10_000,
                categories: 10,
                periods: 156
            }
            .latents(),
            21_571
        );
    }
}
