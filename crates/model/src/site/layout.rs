//! Where each site lies in the flat vector of latents.

use super::table::{Axis, Site};
use crate::likelihood::Likelihood;
use crate::priors::Priors;
use serde::{Deserialize, Serialize};
use std::ops::Range;

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

    /// The same sizes under `likelihood`; the latents of the Poisson layout keep their positions.
    pub const fn with_likelihood(self, likelihood: Likelihood) -> Self {
        Layout { likelihood, ..self }
    }

    /// Number of latents, `1 + C + 2N + C*T`, and C more under a likelihood with a parameter of its own.
    pub const fn latents(&self) -> usize {
        let last = Site::ALL[Site::COUNT - 1];
        self.start(last) + self.len(last)
    }

    /// The same for untrusted sizes from a file; `None` if they exceed any memory.
    pub fn checked_latents(&self) -> Option<usize> {
        // Every other length is one of the sizes.
        self.categories.checked_mul(self.periods)?;
        self.sites()
            .iter()
            .try_fold(0usize, |sum, site| sum.checked_add(self.len(*site)))
    }

    /// The sites of the layout, in the order of the flat vector.
    pub const fn sites(&self) -> &'static [Site] {
        let (sites, count) = &SITES_OF[self.likelihood as usize];
        sites.split_at(*count).0
    }

    /// How many latents a site has.
    #[inline]
    pub const fn len(&self, site: Site) -> usize {
        if site.is_of(self.likelihood) {
            self.len_along(site.axis())
        } else {
            0
        }
    }

    /// How many latents a site on an axis has.
    #[inline]
    pub const fn len_along(&self, axis: Axis) -> usize {
        match axis {
            Axis::Scalar => 1,
            Axis::Category => self.categories,
            Axis::Product => self.products,
            Axis::CategoryPeriod => self.categories * self.periods,
        }
    }

    /// Index of the site's first latent.
    #[inline]
    pub const fn start(&self, site: Site) -> usize {
        let (mut start, mut k) = (0, 0);
        while k < site.index() {
            start += self.len(Site::ALL[k]);
            k += 1;
        }
        start
    }

    /// The position of the latent whose value is the prior mean of the `index`-th latent of `site`; `None`
    /// where the site has no parent. `category_of` has the category of each product, length N.
    #[inline]
    pub fn parent(&self, site: Site, index: usize, category_of: &[u32]) -> Option<usize> {
        let parent = site.parent()?;
        Some(match parent.axis() {
            Axis::Scalar => self.start(parent),
            _ => self.start(parent) + self.category(site, index, category_of)?,
        })
    }

    /// The category of the `index`-th latent of `site`; `None` for a scalar. `category_of` has the category
    /// of each product, length N.
    #[inline]
    pub fn category(&self, site: Site, index: usize, category_of: &[u32]) -> Option<usize> {
        match site.axis() {
            Axis::Scalar => None,
            Axis::Category => Some(index),
            Axis::Product => Some(category_of[index] as usize),
            Axis::CategoryPeriod => Some(index / self.periods),
        }
    }

    /// The prior mean of every latent with all others at theirs: for a site with a parent, the mean of its
    /// topmost ancestor. Length [`Layout::latents`].
    pub fn prior_means(&self, priors: &Priors) -> Vec<f64> {
        let mut means = vec![0.0; self.latents()];
        for site in self.sites() {
            let first = std::iter::successors(Some(*site), |site| site.parent()).last();
            means[self.range(*site)].fill(priors.constant_mean(first.unwrap_or(*site)));
        }
        means
    }

    /// The diagonal of the priors' precision, length [`Layout::latents`]. `category_of` has the
    /// category of each product, length N.
    pub fn prior_precisions(&self, priors: &Priors, category_of: &[u32]) -> Vec<f64> {
        let mut precision = vec![0.0; self.latents()];
        let of = |sd: f64| sd.powi(-2);
        for site in self.sites() {
            precision[self.range(*site)].fill(of(priors.sd(*site)));
        }
        for site in self.sites() {
            let own = of(priors.sd(*site));
            match site.parent() {
                None => {}
                Some(parent) if parent.axis() == Axis::Scalar => {
                    precision[self.start(parent)] += self.len(*site) as f64 * own;
                }
                Some(_) => {
                    let parents = (0..self.len(*site)).filter_map(|k| self.parent(*site, k, category_of));
                    parents.for_each(|parent| precision[parent] += own);
                }
            }
        }
        precision
    }

    /// The site's latents in the flat vector.
    pub const fn range(&self, site: Site) -> Range<usize> {
        let start = self.start(site);
        start..start + self.len(site)
    }

    /// The position of the likelihood's own parameter of a category; `None` if the likelihood has none.
    #[inline]
    pub fn parameter_index(&self, category: usize) -> Option<usize> {
        let site = self.likelihood.parameter()?;
        Some(self.start(site) + category)
    }

    /// The value in `point` of the likelihood's own parameter of a category; 0 if the likelihood has none.
    #[inline]
    pub fn parameter_of(&self, category: usize, point: &[f64]) -> f64 {
        self.parameter_index(category).map_or(0.0, |j| point[j])
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

/// The sites of each likelihood and their number; entries after that number are padding.
const SITES_OF: [([Site; Site::COUNT], usize); Likelihood::ALL.len()] = {
    let mut of_all = [([Site::GlobalA; Site::COUNT], 0); Likelihood::ALL.len()];
    let mut l = 0;
    while l < of_all.len() {
        let likelihood = Likelihood::ALL[l];
        assert!(likelihood as usize == l, "all likelihoods are in their order");
        let (mut count, mut k) = (0, 0);
        while k < Site::COUNT {
            if Site::ALL[k].is_of(likelihood) {
                of_all[l].0[count] = Site::ALL[k];
                count += 1;
            }
            k += 1;
        }
        of_all[l].1 = count;
        l += 1;
    }
    of_all
};

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
        assert_eq!(poisson.sites(), Site::REPARAMETERIZED);
        let (own, others) = negative_binomial.sites().split_last().unwrap();
        assert_eq!((own, others), (&Site::LogShape, &Site::REPARAMETERIZED[..]));
        for (site, start) in [
            (Site::GlobalA, 0),
            (Site::CategoryA, 1),
            (Site::ProductA, 4),
            (Site::ProductEffect, 11),
            (Site::TimeCatEffects, 18),
            (Site::LogShape, 33),
        ] {
            assert_eq!(
                (poisson.start(site), negative_binomial.start(site)),
                (start, start)
            );
        }
    }

    #[test]
    fn parents_and_categories_of_latents() {
        let layout = Layout::new(4, 2, 3).with_likelihood(Likelihood::NegativeBinomial);
        let category_of = [1, 0, 1, 1];
        let parents = |site| -> Vec<Option<usize>> {
            (0..layout.len(site))
                .map(|k| layout.parent(site, k, &category_of))
                .collect()
        };
        assert_eq!(parents(Site::GlobalA), [None]);
        assert_eq!(parents(Site::CategoryA), [Some(0); 2]);
        assert_eq!(parents(Site::ProductA), [2, 1, 2, 2].map(Some));
        for site in [Site::ProductEffect, Site::TimeCatEffects, Site::LogShape] {
            assert!(parents(site).iter().all(Option::is_none));
        }
        let categories = |site| -> Vec<usize> {
            (0..layout.len(site))
                .filter_map(|k| layout.category(site, k, &category_of))
                .collect()
        };
        assert!(categories(Site::GlobalA).is_empty());
        assert_eq!(categories(Site::ProductEffect), [1, 0, 1, 1]);
        assert_eq!(categories(Site::TimeCatEffects), [0, 0, 0, 1, 1, 1]);
        assert_eq!(categories(Site::LogShape), [0, 1]);
    }
}
