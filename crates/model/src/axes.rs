//! The labels along a panel's axes, and the keys that they give the latents in files.

use crate::labels::Labels;
use crate::printable::printable;
use crate::site::{Axis, Layout, Site};
use std::fmt;

/// The labels of products, categories and periods, without the rows.
#[derive(Debug, Clone, Copy)]
pub struct Axes<'l> {
    /// Product labels, length N.
    pub products: &'l Labels,
    /// Category labels, length C.
    pub categories: &'l Labels,
    /// Period labels, length T.
    pub periods: &'l Labels,
}

impl<'l> Axes<'l> {
    /// N, C and T under the Poisson likelihood.
    pub fn layout(&self) -> Layout {
        Layout::new(self.products.len(), self.categories.len(), self.periods.len())
    }

    /// The key of the `index`-th latent of a site in files: the category, the product, or `category@period`; empty
    /// for a scalar.
    ///
    /// # Panics
    /// Printing it, when `index` is not below [`Layout::len`] of the site.
    pub fn key(&self, site: Site, index: usize) -> LatentKey<'l> {
        LatentKey {
            axes: *self,
            site,
            index,
        }
    }

    /// The latent at `latent` of the flat vector by its site and key, for messages: `product_a of 'p17'`, `global_a`.
    ///
    /// # Panics
    /// When `latent` is not below [`Layout::latents`].
    pub fn latent_in_words(&self, layout: &Layout, latent: usize) -> String {
        let site = layout.site_of(latent);
        match site.axis() {
            Axis::Scalar => site.name().to_owned(),
            _ => {
                let key = self.key(site, latent - layout.start(site)).to_string();
                format!("{} of '{}'", site.name(), printable(&key))
            }
        }
    }
}

/// A latent's key, to be printed.
#[derive(Debug, Clone, Copy)]
pub struct LatentKey<'l> {
    axes: Axes<'l>,
    site: Site,
    index: usize,
}

impl fmt::Display for LatentKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LatentKey { axes, site, index } = *self;
        match site.axis() {
            Axis::Scalar => Ok(()),
            Axis::Category => write!(f, "{}", axes.categories.get(index)),
            Axis::Product => write!(f, "{}", axes.products.get(index)),
            Axis::CategoryPeriod => {
                let periods = axes.periods.len();
                write!(
                    f,
                    "{}@{}",
                    axes.categories.get(index / periods),
                    axes.periods.get(index % periods)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::likelihood::Likelihood;

    #[test]
    fn keys_name_every_latent() {
        let axes = Axes {
            products: &Labels::Text(vec!["tea".into(), "ink".into()]),
            categories: &Labels::Integer(vec![7, 12]),
            periods: &Labels::Date(vec![0, 7, 14]),
        };
        let layout = axes.layout().with_likelihood(Likelihood::NegativeBinomial);
        let keys = |site: Site| -> Vec<String> {
            (0..layout.len(site))
                .map(|k| axes.key(site, k).to_string())
                .collect()
        };
        let words = |latent| axes.latent_in_words(&layout, latent);
        assert_eq!(words(0), "global_a");
        assert_eq!(words(layout.start(Site::ProductA) + 1), "product_a of 'ink'");
        assert_eq!(keys(Site::GlobalA), [""]);
        assert_eq!(keys(Site::CategoryA), ["7", "12"]);
        assert_eq!(keys(Site::LogShape), ["7", "12"]);
        assert_eq!(keys(Site::ProductA), ["tea", "ink"]);
        assert_eq!(keys(Site::ProductEffect), ["tea", "ink"]);
        assert_eq!(
            keys(Site::TimeCatEffects),
            [
                "7@1970-01-01",
                "7@1970-01-08",
                "7@1970-01-15",
                "12@1970-01-01",
                "12@1970-01-08",
                "12@1970-01-15"
            ]
        );
    }
}
