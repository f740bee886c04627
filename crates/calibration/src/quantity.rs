//! The quantities whose places are looked at.

use infermark_model::Site;

/// A quantity of a replication: one latent of a site, or the log joint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// One latent of the site, drawn anew in every replication: latents of one replication depend on each other, so that
    /// pooling them would count them more often than they tell.
    Latent(Site),
    /// `ln p(y, theta)`, which sees what no single parameter shows: a posterior that ignores the data has perfectly placed
    /// parameters.
    LogJoint,
}

impl Quantity {
    /// All of them, in the order of files and pictures.
    pub const ALL: [Quantity; 6] = [
        Quantity::Latent(Site::ALL[0]),
        Quantity::Latent(Site::ALL[1]),
        Quantity::Latent(Site::ALL[2]),
        Quantity::Latent(Site::ALL[3]),
        Quantity::Latent(Site::ALL[4]),
        Quantity::LogJoint,
    ];

    /// The name in files and pictures: the site's, or `log_joint`.
    pub const fn name(self) -> &'static str {
        match self {
            Quantity::Latent(site) => site.name(),
            Quantity::LogJoint => "log_joint",
        }
    }

    /// Position in [`Quantity::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Quantity::Latent(site) => site.index(),
            Quantity::LogJoint => Site::ALL.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_stand_at_their_index() {
        for (index, quantity) in Quantity::ALL.into_iter().enumerate() {
            assert_eq!(quantity.index(), index);
        }
    }
}
