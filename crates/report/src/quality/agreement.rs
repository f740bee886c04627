//! How close a posterior is to a reference posterior of the same panel, in the reference's own standard
//! deviations.

use crate::quality::truth::{SAMPLE, sample_of};
use infermark_backend::Posterior;
use infermark_diagnostics::quantile;
use infermark_model::Site;
use serde::{Deserialize, Serialize};

/// The reference of a comparison, and how far it can be trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name: a backend's, or a fit's folder.
    pub name: String,
    /// Largest R-hat over all latents, of a sampler.
    pub max_rhat: Option<f64>,
    /// Smallest bulk effective sample size over all latents, of a sampler: a mean of n effective draws is off by
    /// 1/sqrt(n) of its standard deviation.
    pub min_ess_bulk: Option<f64>,
}

/// The latents of one site compared with the reference's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteAgreement {
    /// The site.
    pub site: Site,
    /// How many latents were compared: all whose standard deviation in the reference is positive and finite.
    pub latents: usize,
    /// Median of the distance between the means, in standard deviations of the reference.
    pub mean_difference_median: f64,
    /// The largest one.
    pub mean_difference_largest: f64,
    /// Median of the standard deviations over the reference's.
    pub sd_ratio_median: f64,
    /// The smallest ratio.
    pub sd_ratio_smallest: f64,
    /// The largest ratio.
    pub sd_ratio_largest: f64,
}

/// The elasticity of one product compared with the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ProductAgreement {
    /// Units of the product in the whole panel, where the panel is at hand.
    pub units: Option<u64>,
    /// Standard deviation in the reference.
    pub reference_sd: f64,
    /// Distance between the means, in standard deviations of the reference.
    pub mean_difference: f64,
    /// Standard deviation over the reference's.
    pub sd_ratio: f64,
}

/// A posterior compared with a reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// The reference.
    pub reference: Reference,
    /// One entry per site, in the model's order; sites of which nothing could be compared are left out.
    pub sites: Vec<SiteAgreement>,
    /// A random sample of the products, at most [`SAMPLE`].
    pub sample: Vec<ProductAgreement>,
}

impl Agreement {
    /// Compares two posteriors of one panel, under whatever likelihoods, in the sites that both have; `units` are each
    /// product's in the whole panel, where they are known.
    ///
    /// # Panics
    /// When the posteriors are of panels of different sizes, or `units` are not one per product.
    pub fn new(
        posterior: &Posterior,
        reference_posterior: &Posterior,
        reference: Reference,
        units: Option<&[u64]>,
    ) -> Self {
        let layout = posterior.layout;
        // The latents of the Poisson layout keep their positions in the other, so that common sites have
        // common positions.
        let common = layout.with_likelihood(reference_posterior.layout.likelihood);
        assert_eq!(common, reference_posterior.layout, "posteriors of one panel");
        assert!(
            units.is_none_or(|u| u.len() == layout.products),
            "units, one a product"
        );
        let beside = |latent: usize| {
            let sd = reference_posterior.sd[latent];
            let difference = (posterior.mean[latent] - reference_posterior.mean[latent]).abs() / sd;
            let ratio = posterior.sd[latent] / sd;
            (sd.is_finite() && sd > 0.0 && difference.is_finite() && ratio.is_finite())
                .then_some((sd, difference, ratio))
        };
        let has_both = |site: &Site| layout.len(*site) > 0 && common.len(*site) > 0;
        let sites = layout
            .sites()
            .iter()
            .copied()
            .filter(has_both)
            .filter_map(|site| site_agreement(site, layout.range(site).filter_map(beside)))
            .collect();
        let first = layout.start(Site::ProductA);
        let sample = sample_of(layout.products, SAMPLE)
            .into_iter()
            .filter_map(|product| {
                let (reference_sd, mean_difference, sd_ratio) = beside(first + product)?;
                Some(ProductAgreement {
                    units: units.map(|u| u[product]),
                    reference_sd,
                    mean_difference,
                    sd_ratio,
                })
            })
            .collect();
        Agreement {
            reference,
            sites,
            sample,
        }
    }

    /// The agreement of one site.
    pub fn site(&self, site: Site) -> Option<&SiteAgreement> {
        self.sites.iter().find(|s| s.site == site)
    }
}

/// The agreement from (standard deviation of the reference, distance, ratio) of every latent; `None` if there
/// is none.
fn site_agreement(site: Site, beside: impl Iterator<Item = (f64, f64, f64)>) -> Option<SiteAgreement> {
    let (mut differences, mut ratios): (Vec<f64>, Vec<f64>) = beside.map(|b| (b.1, b.2)).unzip();
    differences.sort_by(f64::total_cmp);
    ratios.sort_by(f64::total_cmp);
    Some(SiteAgreement {
        site,
        latents: differences.len(),
        mean_difference_median: quantile(&differences, 0.5),
        mean_difference_largest: *differences.last()?,
        sd_ratio_median: quantile(&ratios, 0.5),
        sd_ratio_smallest: *ratios.first()?,
        sd_ratio_largest: *ratios.last()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::{Layout, Likelihood};

    fn reference() -> Reference {
        Reference {
            name: "nuts".into(),
            max_rhat: Some(1.002),
            min_ess_bulk: Some(900.0),
        }
    }

    #[test]
    fn distances_are_in_the_references_standard_deviations() {
        let layout = Layout::new(3, 1, 2);
        let n = layout.latents();
        let exact = Posterior::normal(layout, vec![1.0; n], vec![0.5; n]);
        let mut mean = vec![1.0; n];
        let mut sd = vec![0.5; n];
        let first = layout.start(Site::ProductA);
        mean[first] = 1.1;
        mean[first + 1] = 0.5;
        sd[first + 2] = 0.05;
        let other = Posterior::normal(layout, mean, sd);
        let found = Agreement::new(&other, &exact, reference(), Some(&[7, 0, 100]));
        assert_eq!(found.sites.len(), 5);
        let site = found.site(Site::ProductA).unwrap();
        assert_eq!(site.latents, 3);
        assert!((site.mean_difference_median - 0.2).abs() < 1e-12);
        assert_eq!(site.mean_difference_largest, 1.0);
        assert_eq!((site.sd_ratio_median, site.sd_ratio_largest), (1.0, 1.0));
        assert!((site.sd_ratio_smallest - 0.1).abs() < 1e-12);
        assert_eq!(found.sample[2].units, Some(100));
        assert_eq!(found.site(Site::GlobalA).unwrap().mean_difference_largest, 0.0);
    }

    #[test]
    fn posteriors_under_two_likelihoods_are_compared_in_the_sites_of_both() {
        let layout = Layout::new(3, 2, 2);
        let with_shape = layout.with_likelihood(Likelihood::NegativeBinomial);
        let normal =
            |of: Layout, mean: f64| Posterior::normal(of, vec![mean; of.latents()], vec![1.0; of.latents()]);
        let (poisson, other) = (normal(layout, 0.0), normal(with_shape, 0.5));
        let sites = |a: &Posterior, b: &Posterior| {
            let found = Agreement::new(a, b, reference(), None);
            assert_eq!(found.site(Site::CategoryA).unwrap().mean_difference_largest, 0.5);
            found.sites.iter().map(|s| s.site).collect::<Vec<_>>()
        };
        assert_eq!(sites(&poisson, &other), Site::REPARAMETERIZED);
        assert_eq!(sites(&other, &poisson), Site::REPARAMETERIZED);
        assert_eq!(sites(&normal(with_shape, 0.0), &other), with_shape.sites());
    }

    #[test]
    fn latents_without_a_spread_in_the_reference_are_left_out() {
        let layout = Layout::new(2, 1, 1);
        let n = layout.latents();
        let mut sd = vec![1.0; n];
        sd[0] = f64::NAN;
        sd[layout.start(Site::ProductA)] = 0.0;
        let one_draw = Posterior::normal(layout, vec![0.0; n], sd);
        let other = Posterior::normal(layout, vec![0.0; n], vec![1.0; n]);
        let found = Agreement::new(&other, &one_draw, reference(), None);
        assert!(found.site(Site::GlobalA).is_none());
        assert_eq!(found.site(Site::ProductA).unwrap().latents, 1);
        assert_eq!(found.sample.len(), 1);
        assert_eq!(found.sample[0].units, None);
    }
}
