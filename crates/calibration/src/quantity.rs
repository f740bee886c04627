//! The quantities whose placements are tested.

use infermark_model::{Likelihood, Site};

/// A quantity of a replication: one latent of a site, or the log joint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// One latent of the site, drawn anew in every replication: latents of one replication depend on each
    /// other, so that pooling their placements would overcount them. The scores, which are averaged, use all
    /// latents.
    Latent(Site),
    /// `ln p(y, theta)`, which sees what no single parameter shows: a posterior that ignores the data has perfectly placed
    /// parameters.
    LogJoint,
}

impl Quantity {
    /// All that a likelihood has, in the order of files and pictures.
    pub fn all(likelihood: Likelihood) -> Vec<Quantity> {
        let sites = Site::ALL.into_iter().filter(|site| site.is_of(likelihood));
        sites.map(Quantity::Latent).chain([Quantity::LogJoint]).collect()
    }

    /// The name in files and pictures: the site's, or `log_joint`.
    pub const fn name(self) -> &'static str {
        match self {
            Quantity::Latent(site) => site.name(),
            Quantity::LogJoint => "log_joint",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::Layout;

    #[test]
    fn every_site_of_a_likelihood_is_a_quantity() {
        for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
            let layout = Layout::new(3, 2, 4).with_likelihood(likelihood);
            let sites = layout.sites().iter().map(|site| Quantity::Latent(*site));
            let expected: Vec<Quantity> = sites.chain([Quantity::LogJoint]).collect();
            assert_eq!(Quantity::all(likelihood), expected);
        }
    }
}
