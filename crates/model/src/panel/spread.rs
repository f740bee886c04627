//! A panel whose rows are spread over the ranks of a run: a rank holds the rows of some products, and a few numbers of each of the others.

use super::stored::Stored;
use super::{Panel, PanelError, PanelPart, Presence, UnitSums};
use crate::labels::Labels;
use crate::ln_factorial::ln_factorial;
use std::fmt::Debug;
use std::sync::Arc;

/// What connects the ranks that share a panel.
///
/// Every rank calls the same operations in the same order, from the thread that drives the run. An operation that fails does not return:
/// the run is over then, on all ranks.
pub trait PanelRanks: Debug + Send + Sync {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// Replaces the numbers by their sums over the ranks, the same bits on all.
    fn sum(&self, numbers: &mut [f64]);

    /// Replaces the numbers by those of rank `from`.
    fn broadcast(&self, numbers: &mut [f64], from: usize);

    /// Ends the run if a rank has another `digest` of `what`.
    fn check_same(&self, what: &'static str, digest: u64);
}

/// Numbers that cross at a time: more would only take memory.
const AT_ONCE: usize = 1 << 18;

/// What a rank knows of all products.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    /// The number of rows of each, length N.
    pub(super) rows_of: Vec<u32>,
    pub(super) rows: usize,
    ranks: Arc<dyn PanelRanks>,
}

impl PartialEq for Spread {
    fn eq(&self, other: &Self) -> bool {
        self.rows_of == other.rows_of
    }
}

/// The products whose rows a rank holds, before it is known whether they are all. The categories and periods are those of the whole
/// panel, of which some may be without products or rows.
#[derive(Debug)]
pub struct OwnProducts(pub(super) Panel);

/// All products of a panel, whose rows are spread over `ranks`.
#[derive(Debug)]
pub struct AllProducts {
    /// Their labels, N.
    pub products: Labels,
    /// Their categories, length N.
    pub category_of: Vec<u32>,
    /// The number of rows of each, length N.
    pub rows_of: Vec<u32>,
    /// Who holds their rows.
    pub ranks: Arc<dyn PanelRanks>,
}

impl OwnProducts {
    /// Joins parts as [`Panel::from_parts`] does.
    ///
    /// # Errors
    /// [`PanelError`] when labels and parts disagree, or there is no row.
    pub fn from_parts(
        products: Labels,
        categories: Labels,
        periods: Labels,
        parts: Vec<PanelPart>,
    ) -> Result<Self, PanelError> {
        Panel::joined(products, categories, periods, parts).map(OwnProducts)
    }

    /// The panel of these products, which are all.
    ///
    /// # Errors
    /// [`PanelError`] when a category has no product.
    pub fn alone(self) -> Result<Panel, PanelError> {
        super::check_categories(&self.0.category_of, self.0.categories.len())?;
        Ok(self.0)
    }

    /// The panel of all products. `own`, ascending, are the places of these among them; each product is one rank's. What all ranks know of
    /// a product crosses between them here: its mean price, its sums and its periods.
    ///
    /// # Errors
    /// [`PanelError`] when lengths disagree, a product has another number of rows than announced, or a category has no product.
    pub fn among(self, all: AllProducts, own: &[u32]) -> Result<Panel, PanelError> {
        let OwnProducts(held) = self;
        let AllProducts {
            products,
            category_of,
            rows_of,
            ranks,
        } = all;
        let n = products.len();
        for (what, left, right) in [
            ("products and their labels", category_of.len(), n),
            ("products and rows", rows_of.len(), n),
            ("own products and their rows", own.len(), held.category_of.len()),
        ] {
            if left != right {
                return Err(PanelError::Length { what, left, right });
            }
        }
        for (local, product) in own.iter().enumerate() {
            let (left, right) = (held.rows_of(local), rows_of[*product as usize] as usize);
            if left != right {
                let what = "rows of a product and those announced";
                return Err(PanelError::Length { what, left, right });
            }
        }
        super::check_categories(&category_of, held.categories.len())?;
        let spread = Spread {
            rows: rows_of.iter().map(|rows| *rows as usize).sum(),
            rows_of,
            ranks,
        };
        let (presence, sums, mean_log_price) = known_of_all(&held, own, &category_of, &spread);
        let (row_start, stored) = places_of(&held, own, n);
        Ok(Panel {
            products,
            category_of,
            row_start,
            presence,
            mean_log_price,
            sums,
            stored,
            spread: Some(spread),
            ..held
        })
    }
}

/// Where the rows of all products are in the columns of those that are held; others have none.
fn places_of(held: &Panel, own: &[u32], products: usize) -> (Vec<usize>, Option<Stored>) {
    if let Some(stored) = &held.stored {
        let mut all = Stored {
            first: vec![0; products],
            count: vec![0; products],
            rows: stored.rows,
            columns: stored.columns.clone(),
        };
        for (local, product) in own.iter().enumerate() {
            all.first[*product as usize] = stored.first[local];
            all.count[*product as usize] = stored.count[local];
        }
        return (Vec::new(), Some(all));
    }
    let mut row_start = Vec::with_capacity(products + 1);
    row_start.push(0);
    for (local, product) in own.iter().enumerate() {
        // Those before it have no rows here.
        row_start.resize(*product as usize + 1, held.row_start[local]);
        row_start.push(held.row_start[local + 1]);
    }
    row_start.resize(products + 1, held.units.len());
    (row_start, None)
}

/// What all ranks know of all products, from what each knows of its own: exact, since the others add zeros.
fn known_of_all(
    held: &Panel,
    own: &[u32],
    category_of: &[u32],
    spread: &Spread,
) -> (Option<Presence>, UnitSums, Vec<f64>) {
    let (n, t) = (category_of.len(), held.periods.len());
    let mut numbers = vec![[0.0; 4]; n];
    for (local, product) in own.iter().enumerate() {
        let units = &held.units()[held.row_range(local)];
        numbers[*product as usize] = [
            held.mean_log_price[local],
            held.sums.product_deviation[local],
            // Exact: below 2^31 in each of fewer than 2^22 periods.
            held.sums.product[local] as f64,
            units.iter().map(|units| ln_factorial(*units)).sum(),
        ];
    }
    spread.sum(numbers.as_flattened_mut());
    let words_per_product = t.div_ceil(64);
    let presence = (spread.rows != n * t).then(|| {
        let mut words = vec![0; n * words_per_product];
        for (local, product) in own.iter().enumerate() {
            let of_product = &mut words[*product as usize * words_per_product..][..words_per_product];
            match &held.presence {
                Some(presence) => of_product.copy_from_slice(presence.product(local)),
                None => (0..t).for_each(|period| of_product[period / 64] |= 1 << (period % 64)),
            }
        }
        spread.sum_integers(&mut words);
        Presence {
            words_per_product,
            words,
        }
    });
    let mut sums = UnitSums {
        product: numbers.iter().map(|of| of[2] as u64).collect(),
        product_deviation: numbers.iter().map(|of| of[1]).collect(),
        category_period: held.sums.category_period.clone(),
        ln_factorials: numbers.iter().fold(0.0, |sum, of| sum + of[3]),
    };
    spread.sum_integers(&mut sums.category_period);
    (presence, sums, numbers.iter().map(|of| of[0]).collect())
}

impl Spread {
    fn sum(&self, numbers: &mut [f64]) {
        for numbers in numbers.chunks_mut(AT_ONCE) {
            self.ranks.sum(numbers);
        }
    }

    /// The same for whole numbers, whose sums are below 2^64.
    fn sum_integers(&self, numbers: &mut [u64]) {
        let mut halves = Vec::new();
        for numbers in numbers.chunks_mut(AT_ONCE / 2) {
            halves.clear();
            halves.extend(
                numbers
                    .iter()
                    .map(|of| [(of >> 32) as f64, (of & 0xffff_ffff) as f64]),
            );
            self.ranks.sum(halves.as_flattened_mut());
            for (of, [high, low]) in numbers.iter_mut().zip(&halves) {
                *of = ((*high as u64) << 32) + *low as u64;
            }
        }
    }
}

impl Panel {
    /// The ranks that the panel's rows are spread over; `None` if all are here.
    pub fn ranks(&self) -> Option<&Arc<dyn PanelRanks>> {
        self.spread.as_ref().map(|spread| &spread.ranks)
    }

    /// Number of rows that are held here.
    pub fn held_rows(&self) -> usize {
        self.stored
            .as_ref()
            .map_or(self.units.len(), |stored| stored.rows)
    }

    /// Whether the rows of a product are held here.
    pub fn holds(&self, product: usize) -> bool {
        let is_empty = || match &self.stored {
            None => self.row_start[product] == self.row_start[product + 1],
            Some(stored) => stored.count[product] == 0,
        };
        self.spread.is_none() || !is_empty()
    }

    /// The products whose rows are held here, ascending.
    pub fn held_products(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.category_of.len()).filter(|product| self.holds(*product))
    }

    /// Replaces numbers by their sums over the ranks that hold the panel's rows. Every rank takes part.
    pub fn sum_over_ranks(&self, numbers: &mut [f64]) {
        if let Some(spread) = &self.spread {
            spread.sum(numbers);
        }
    }

    /// Replaces whole numbers by their sums over the ranks that hold the panel's rows, below 2^64. Every rank takes part.
    pub fn sum_integers_over_ranks(&self, numbers: &mut [u64]) {
        if let Some(spread) = &self.spread {
            spread.sum_integers(numbers);
        }
    }

    /// Numbers of all products, from those that `of` finds of the ones that are held here. Every rank takes part.
    pub fn of_all_products<const K: usize>(&self, of: impl FnMut(usize) -> [f64; K]) -> Vec<[f64; K]> {
        let Some(spread) = &self.spread else {
            return (0..self.category_of.len()).map(of).collect();
        };
        let mut of = of;
        let mut numbers = vec![[0.0; K]; self.category_of.len()];
        for product in self.held_products() {
            numbers[product] = of(product);
        }
        spread.sum(numbers.as_flattened_mut());
        numbers
    }

    /// Lets the ranks that hold the panel's rows add to `sums` one after the other, each from where the one before has ended, so that a
    /// running sum over the products of a category has the bits of one process. Every rank takes part.
    pub fn add_in_turn(&self, sums: &mut [f64], mut add: impl FnMut(&mut [f64])) {
        let Some(Spread { ranks, .. }) = &self.spread else {
            return add(sums);
        };
        for rank in 0..ranks.size() {
            if rank == ranks.rank() {
                add(sums);
            }
            for sums in sums.chunks_mut(AT_ONCE) {
                ranks.broadcast(sums, rank);
            }
        }
    }

    /// # Panics
    /// When the rows of a product, of which there are none here, are held elsewhere.
    #[cold]
    pub(super) fn refuse_elsewhere(&self, product: usize) {
        assert!(
            self.holds(product),
            "another rank holds the rows of product {product}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only rank of a run of one.
    #[derive(Debug)]
    struct Alone;

    impl PanelRanks for Alone {
        fn rank(&self) -> usize {
            0
        }

        fn size(&self) -> usize {
            1
        }

        fn sum(&self, _: &mut [f64]) {}

        fn broadcast(&self, _: &mut [f64], _: usize) {}

        fn check_same(&self, _: &'static str, _: u64) {}
    }

    fn own() -> OwnProducts {
        let mut part = PanelPart::new(2, 3);
        part.push_product(1, Some(&[0, 2]), &[1.0, 2.0], &[3, 4]).unwrap();
        part.push_product(1, None, &[1.0, 2.0, 4.0], &[1, 0, 9]).unwrap();
        let [p, c, t] = [("p", 2), ("c", 2), ("t", 3)].map(|(axis, n)| Labels::numbered(axis, n));
        OwnProducts::from_parts(p, c, t, vec![part]).unwrap()
    }

    fn all(rows_of: Vec<u32>) -> AllProducts {
        AllProducts {
            products: Labels::numbered("p", rows_of.len()),
            category_of: vec![0, 1, 0, 1, 0],
            rows_of,
            ranks: Arc::new(Alone),
        }
    }

    #[test]
    fn rows_are_those_of_own_products_and_their_numbers_are_of_all() {
        let panel = own().among(all(vec![1, 2, 3, 3, 1]), &[1, 3]).unwrap();
        assert_eq!((panel.rows(), panel.held_rows()), (10, 5));
        assert_eq!([0, 1, 2, 3, 4].map(|i| panel.rows_of(i)), [1, 2, 3, 3, 1]);
        assert_eq!(panel.held_products().collect::<Vec<_>>(), [1, 3]);
        assert_eq!([1, 3].map(|i| panel.row_range(i)), [0..2, 2..5]);
        let periods: Vec<usize> = panel.product_rows(1).map(|row| row.period).collect();
        assert_eq!(periods, [0, 2]);
        assert_eq!(panel.presence().unwrap().words, [0, 0b101, 0, 0b111, 0]);
        assert_eq!(panel.sums().product, [0, 7, 0, 10, 0]);
        assert_eq!(panel.sums().category_period, [0, 0, 0, 4, 0, 13]);
        assert!(!panel.is_dense());
    }

    #[test]
    #[should_panic(expected = "another rank holds the rows of product 2")]
    fn rows_of_other_ranks_are_not_read() {
        let panel = own().among(all(vec![1, 2, 3, 3, 1]), &[1, 3]).unwrap();
        let _ = panel.product_rows(2);
    }

    #[test]
    fn products_that_are_not_those_announced_are_refused() {
        let refused = own().among(all(vec![1, 2, 3, 2, 1]), &[1, 3]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "rows of a product and those announced: 3 against 2"
        );
        assert!(own().among(all(vec![1, 2, 3, 3, 1]), &[1]).is_err());
    }
}
