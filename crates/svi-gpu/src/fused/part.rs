//! The products that a device has: all of a panel, or those of one of several shards.

use infermark_model::{Layout, Shard, Site};

/// A part of the panel, and how the model counts its latents. What lies above the products is there whole.
pub(super) struct Part {
    /// The layout of the model.
    pub(super) whole: Layout,
    /// The layout on the device: that of the model with the part's products alone.
    pub(super) own: Layout,
    /// The products by category, by their index in the panel: the order of the walk.
    pub(super) order: Vec<u32>,
}

impl Part {
    /// The products of a shard.
    pub(super) fn new(shard: &Shard) -> Self {
        let whole = shard.panel().layout();
        let order = shard.products().to_vec();
        Part {
            own: Layout {
                products: order.len(),
                ..whole
            },
            whole,
            order,
        }
    }

    /// The model's index of the device's latent `j`.
    pub(super) fn natural(&self, j: usize) -> usize {
        for site in [Site::ProductA, Site::ProductEffect] {
            let range = self.own.range(site);
            if range.contains(&j) {
                return self.whole.start(site) + self.order[j - range.start] as usize;
            }
        }
        match j < self.own.start(Site::ProductA) {
            true => j,
            false => j + self.whole.latents() - self.own.latents(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_test_support::random_panel;
    use rand::{SeedableRng, rngs::StdRng};

    /// Every latent is the model's of the same site, and, for a product, of the same product.
    #[test]
    fn latents_are_the_models() {
        let panel = random_panel(&mut StdRng::seed_from_u64(6), 20, 3, 7, 0.3, 9);
        let whole = panel.layout();
        for shards in [1, 2, 7] {
            let mut seen = vec![0; whole.latents()];
            for shard in Shard::cut(&panel, shards).unwrap() {
                let part = Part::new(&shard);
                for site in Site::REPARAMETERIZED {
                    let (own, of_model) = (part.own.range(site), whole.range(site));
                    for (i, j) in own.clone().enumerate() {
                        let expected = of_model.start
                            + match site {
                                Site::ProductA | Site::ProductEffect => shard.products()[i] as usize,
                                _ => i,
                            };
                        assert_eq!(part.natural(j), expected, "{site:?} {j} of {shards}");
                        seen[expected] += 1;
                    }
                }
            }
            for site in Site::REPARAMETERIZED {
                let times = match site {
                    Site::ProductA | Site::ProductEffect => 1,
                    _ => shards,
                };
                assert!(seen[whole.range(site)].iter().all(|n| *n == times));
            }
        }
    }
}
