//! A panel cut into the shards of several ranks.
//!
//! By product, a shard has products with all their rows: products are taken in the order (category, index), which is that of the fast passes, and cut into contiguous ranges of
//! about as many rows each. So a rank has its products' latents to itself, and of the others it needs sums by category only.
//! By row, a shard has a contiguous range of the rows, in the order (product, period), and all products: the rows of one may be in two
//! shards.

use crate::likelihood::Likelihood;
use crate::panel::Panel;
use crate::site::{Layout, Site};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What the shards of a panel have of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// Products with all their rows. A rank has the parameters of its products to itself; what crosses are sums by category.
    #[default]
    Product,
    /// Rows, about as many each. Every rank has all parameters; what crosses are the derivatives with respect to each of them. The
    /// published way.
    Row,
}

impl Cut {
    /// All cuts.
    pub const ALL: [Cut; 2] = [Cut::Product, Cut::Row];

    /// The name in files and in the command.
    pub const fn name(self) -> &'static str {
        match self {
            Cut::Product => "product",
            Cut::Row => "row",
        }
    }
}

/// The products of one of the ranks that share a panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Shard {
    panel: Arc<Panel>,
    products: Vec<u32>,
}

/// A panel has fewer products, or rows, than it was to be cut into shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{shards} shards of {parts} {}s; give at most one shard for each {}", cut.name(), cut.name())]
pub struct TooManyShards {
    /// The shards wanted.
    pub shards: usize,
    /// The products or rows.
    pub parts: usize,
    /// What was to be cut.
    pub cut: Cut,
}

/// The numbers of products of `shards` shards that have about as many rows, each at least one product. `rows` are those of the products, in
/// the order in which they are cut.
///
/// # Errors
/// [`TooManyShards`] when there are fewer products.
///
/// # Panics
/// When `shards` is 0.
pub fn cut_by_rows(rows: &[usize], shards: usize) -> Result<Vec<usize>, TooManyShards> {
    assert!(shards > 0, "a panel is cut into at least one shard");
    if rows.len() < shards {
        return Err(TooManyShards {
            shards,
            parts: rows.len(),
            cut: Cut::Product,
        });
    }
    let mut left = rows;
    let mut rows_left: usize = rows.iter().sum();
    let mut cut = Vec::with_capacity(shards);
    for others in (0..shards).rev() {
        // What is left is shared evenly, so that an odd product does not put off all later cuts.
        let wanted = rows_left as f64 / (others + 1) as f64;
        let most = left.len() - others;
        let (mut taken, mut count) = (0, 0);
        for more in &left[..most] {
            // The cut nearest to what is wanted.
            if others > 0 && count > 0 && (taken + more) as f64 - wanted > wanted - taken as f64 {
                break;
            }
            taken += more;
            count += 1;
        }
        left = &left[count..];
        rows_left -= taken;
        cut.push(count);
    }
    Ok(cut)
}

impl Shard {
    /// All products of a panel.
    pub fn whole(panel: Arc<Panel>) -> Self {
        Shard {
            products: panel.products_by_category(),
            panel,
        }
    }

    /// Cuts a panel into `shards` shards of about as many rows, each with at least one product.
    ///
    /// # Errors
    /// [`TooManyShards`] when there are fewer products.
    ///
    /// # Panics
    /// When `shards` is 0.
    pub fn cut(panel: &Arc<Panel>, shards: usize) -> Result<Vec<Self>, TooManyShards> {
        let mut left = panel.products_by_category();
        let rows: Vec<usize> = left.iter().map(|i| panel.rows_of(*i as usize)).collect();
        let counts = cut_by_rows(&rows, shards)?;
        let shard = |count: usize| {
            let rest = left.split_off(count);
            Shard {
                panel: panel.clone(),
                products: std::mem::replace(&mut left, rest),
            }
        };
        Ok(counts.into_iter().map(shard).collect())
    }

    /// Shard `rank` of `shards` of a panel that is cut by row: all products, with the rows of the shard alone.
    ///
    /// # Errors
    /// [`TooManyShards`] when there are fewer rows.
    ///
    /// # Panics
    /// When `rank` is not below `shards`.
    pub fn of_rows(panel: &Panel, rank: usize, shards: usize) -> Result<Self, TooManyShards> {
        assert!(rank < shards, "a shard of a rank that there is");
        let rows = panel.rows();
        if rows < shards {
            return Err(TooManyShards {
                shards,
                parts: rows,
                cut: Cut::Row,
            });
        }
        let first = |rank: usize| (rows as u128 * rank as u128 / shards as u128) as usize;
        Ok(Shard::whole(Arc::new(
            panel.of_rows(first(rank)..first(rank + 1)),
        )))
    }

    /// The panel that has the shard's rows.
    pub fn panel(&self) -> &Arc<Panel> {
        &self.panel
    }

    /// The products' indices in [`Shard::panel`], by category, then index.
    pub fn products(&self) -> &[u32] {
        &self.products
    }

    /// Rows of the shard.
    pub fn rows(&self) -> usize {
        self.products
            .iter()
            .map(|product| self.panel.rows_of(*product as usize))
            .sum()
    }

    /// The layout of the latents of the whole panel.
    pub fn layout_for(&self, likelihood: Likelihood) -> Layout {
        self.panel.layout_for(likelihood)
    }

    /// Copies the entries of this shard's products in `from`, which has a value for every latent, to `to`.
    pub fn copy_products(&self, layout: &Layout, from: &[f64], to: &mut [f64]) {
        for site in [Site::ProductA, Site::ProductEffect] {
            let start = layout.start(site);
            for product in &self.products {
                let latent = start + *product as usize;
                to[latent] = from[latent];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Labels;
    use crate::panel::PanelPart;

    /// A panel whose products have these categories and numbers of rows.
    fn panel(products: &[(usize, usize)]) -> Arc<Panel> {
        let categories = products.iter().map(|p| p.0).max().unwrap() + 1;
        let periods = products.iter().map(|p| p.1).max().unwrap();
        let mut part = PanelPart::new(categories, periods);
        for (category, rows) in products {
            let at: Vec<u32> = (0..*rows as u32).collect();
            part.push_product(*category, Some(&at), &vec![2.0; *rows], &vec![1; *rows])
                .unwrap();
        }
        let [p, c, t] = [("p", products.len()), ("c", categories), ("t", periods)]
            .map(|(axis, n)| Labels::numbered(axis, n));
        Arc::new(Panel::from_parts(p, c, t, vec![part]).unwrap())
    }

    #[test]
    fn every_product_is_in_one_shard_in_the_order_of_categories() {
        let products: Vec<(usize, usize)> = (0..101).map(|i| (i * 7 % 3, 1 + i * 5 % 9)).collect();
        let panel = panel(&products);
        for shards in [1, 2, 3, 4, 7, 100, 101] {
            let cut = Shard::cut(&panel, shards).unwrap();
            assert_eq!(cut.len(), shards);
            let all: Vec<u32> = cut.iter().flat_map(|shard| shard.products().to_vec()).collect();
            assert_eq!(all, panel.products_by_category());
            assert_eq!(cut.iter().map(Shard::rows).sum::<usize>(), panel.rows());
            assert!(cut.iter().all(|shard| !shard.products().is_empty()));
            if shards <= 7 {
                let even = panel.rows() as f64 / shards as f64;
                for shard in &cut {
                    // Half a product on each side.
                    assert!(
                        (shard.rows() as f64 - even).abs() <= 9.0,
                        "{shards}: {} of {even}",
                        shard.rows()
                    );
                }
            }
        }
        assert_eq!(Shard::cut(&panel, 1).unwrap(), [Shard::whole(panel.clone())]);
        let refused = Shard::cut(&panel, 102).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "102 shards of 101 products; give at most one shard for each product"
        );
    }

    #[test]
    fn rows_are_cut_evenly_wherever_products_begin() {
        let products: Vec<(usize, usize)> = (0..31).map(|i| (i * 7 % 3, 1 + i * 5 % 9)).collect();
        let panel = panel(&products);
        let rows = panel.rows();
        for shards in [1, 2, 3, 7, rows] {
            let cut: Vec<Shard> = (0..shards)
                .map(|rank| Shard::of_rows(&panel, rank, shards).unwrap())
                .collect();
            assert_eq!(cut.iter().map(Shard::rows).sum::<usize>(), rows);
            for shard in &cut {
                assert!((rows / shards..=rows.div_ceil(shards)).contains(&shard.rows()));
                assert_eq!(shard.products(), panel.products_by_category());
            }
        }
        let refused = Shard::of_rows(&panel, 0, rows + 1).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "{} shards of {rows} rows; give at most one shard for each row",
                rows + 1
            )
        );
    }

    #[test]
    fn a_large_product_takes_a_shard_of_its_own() {
        let panel = panel(&[(0, 1), (0, 100), (0, 1), (0, 1), (0, 1)]);
        let sizes: Vec<usize> = Shard::cut(&panel, 3)
            .unwrap()
            .iter()
            .map(|s| s.products().len())
            .collect();
        assert_eq!(sizes, [1, 1, 3]);
    }
}
