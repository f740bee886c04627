//! What is noted of the rows of a file that is read in two passes: the first counts them, the second keeps those of some products.

use super::PanelBuilder;
use crate::read::keys::digest_of;
use infermark_model::cut_by_rows;
use std::ops::Range;

/// Rows between two checks that there is memory for more keys.
pub(super) const BETWEEN_CHECKS: usize = 1 << 16;

/// The rows of both passes.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// By the code of a product, the rows of the first pass.
    rows_of: Vec<u32>,
    /// Those of all.
    rows: usize,
    /// The row groups of a Parquet file, and the one of the last row.
    groups: Vec<Group>,
    current: usize,
    /// Rows of the file, sound or not, that the first pass came to.
    passed: u64,
    second: Option<Second>,
}

/// The rows of the second pass.
#[derive(Debug)]
struct Second {
    /// By the code of a product, whether its rows are kept.
    own: Vec<bool>,
    /// How many are.
    rows_of: Vec<u32>,
}

/// A row group.
#[derive(Debug)]
struct Group {
    /// The row after its last.
    end: u64,
    /// The least and the greatest code of a product in it.
    products: Option<[u32; 2]>,
}

/// The products whose rows a rank keeps.
#[derive(Debug)]
pub(crate) struct Own {
    /// Their places among the labels of all, ascending.
    pub(crate) products: Vec<u32>,
    /// The number of rows of every product, by its place.
    pub(crate) rows_of: Vec<u32>,
    /// By the code of a product, whether it is one of them.
    of_code: Vec<bool>,
    /// Their rows.
    rows: usize,
}

impl Census {
    pub(super) fn is_first_pass(&self) -> bool {
        self.second.is_none()
    }

    /// Rows of the first pass so far.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Notes `count` rows of a product from row `first` of the file on. Returns whether they are kept.
    pub(super) fn takes(&mut self, product: u32, first: u64, count: usize) -> bool {
        let at = product as usize;
        if let Some(second) = &mut self.second {
            let is_own = second.own.get(at).copied().unwrap_or(false);
            if is_own {
                second.rows_of[at] += count as u32;
            }
            return is_own;
        }
        if self.rows_of.len() <= at {
            self.rows_of.resize(at + 1, 0);
        }
        self.rows_of[at] += count as u32;
        self.rows += count;
        let mut row = first;
        while row < first + count as u64 {
            while self
                .groups
                .get(self.current)
                .is_some_and(|group| group.end <= row)
            {
                self.current += 1;
            }
            let Some(group) = self.groups.get_mut(self.current) else {
                break;
            };
            let [least, most] = group.products.unwrap_or([product; 2]);
            group.products = Some([least.min(product), most.max(product)]);
            row = group.end;
        }
        false
    }

    /// Whether rows of a product are kept, in the second pass.
    pub(super) fn keeps(&self, product: u32) -> bool {
        let own = self.second.as_ref().map(|second| &second.own);
        own.is_some_and(|own| own.get(product as usize).copied().unwrap_or(false))
    }

    /// Whether the second pass has found the rows of the first.
    fn is_complete(&self) -> bool {
        self.second.as_ref().is_some_and(|second| {
            let both = second.rows_of.iter().zip(&self.rows_of);
            second
                .own
                .iter()
                .zip(both)
                .all(|(own, (second, first))| !own || second == first)
        })
    }
}

impl PanelBuilder {
    /// The same builder for a file that is read twice: the rows of this pass are counted, and none is kept.
    pub(crate) fn counting(self) -> Self {
        PanelBuilder {
            census: Some(Census::default()),
            ..self
        }
    }

    /// A digest of all that the first pass has found, the same in every process.
    pub(crate) fn digest(&self) -> u64 {
        let census = self.census.as_ref().expect("the rows are counted");
        let categories: Vec<u32> = self.membership.iter().map(|of| of.category).collect();
        digest_of(&(
            self.products.digest(),
            self.categories.digest(),
            self.periods.digest(),
            categories,
            &census.rows_of,
        ))
    }

    /// The products of rank `rank` of `size`, after the first pass, as [`Shard::cut`](infermark_model::Shard::cut) cuts the panel; `None`
    /// when there are fewer.
    pub(crate) fn cut(&self, rank: usize, size: usize) -> Option<Own> {
        let census = self.census.as_ref().expect("the rows are counted");
        let product_rank = self.products.ranks(|product| self.is_in_use(product));
        let has_product = self.categories_with_products();
        let category_rank = self.categories.ranks(|category| has_product[category as usize]);
        let mut order: Vec<[u32; 3]> = (0..self.membership.len())
            .filter(|code| product_rank[*code] != u32::MAX)
            .map(|code| {
                let category = category_rank[self.membership[code].category as usize];
                [category, product_rank[code], code as u32]
            })
            .collect();
        order.sort_unstable();
        let rows_of_code = |code: u32| census.rows_of.get(code as usize).copied().unwrap_or(0);
        let rows: Vec<usize> = order
            .iter()
            .map(|[.., code]| rows_of_code(*code) as usize)
            .collect();
        let counts = cut_by_rows(&rows, size).ok()?;
        let first: usize = counts[..rank].iter().sum();
        let own = first..first + counts[rank];
        let mut products: Vec<u32> = order[own.clone()].iter().map(|[_, place, _]| *place).collect();
        products.sort_unstable();
        let mut of_code = vec![false; self.products.len()];
        order[own.clone()]
            .iter()
            .for_each(|[.., code]| of_code[*code as usize] = true);
        let mut rows_of = vec![0; order.len()];
        for [_, place, code] in &order {
            rows_of[*place as usize] = rows_of_code(*code);
        }
        Some(Own {
            products,
            rows_of,
            of_code,
            rows: rows[own].iter().sum(),
        })
    }

    /// Begins the second pass, which keeps the rows of `own`.
    pub(crate) fn keep(&mut self, own: &Own) {
        let census = self.census.as_mut().expect("the rows are counted");
        census.second = Some(Second {
            own: own.of_code.clone(),
            rows_of: vec![0; own.of_code.len()],
        });
        self.last_product = None;
        self.left_out.clear();
        self.make_room(own.rows);
    }

    /// Whether both passes have found the same keys, and the same number of rows of the products that are kept.
    pub(crate) fn found_the_same(&self, keys: [usize; 3]) -> bool {
        keys == self.keys() && self.census.as_ref().is_some_and(Census::is_complete)
    }

    /// Numbers of products, categories and periods so far.
    pub(crate) fn keys(&self) -> [usize; 3] {
        [self.products.len(), self.categories.len(), self.periods.len()]
    }

    /// Takes the numbers of rows of a Parquet file's row groups, before the first pass.
    pub(crate) fn announce_groups(&mut self, rows: &[u64]) {
        if let Some(census) = &mut self.census
            && census.is_first_pass()
        {
            let ends = rows.iter().scan(0u64, |end, rows| {
                *end = end.saturating_add(*rows);
                Some(*end)
            });
            census.groups = ends.map(|end| Group { end, products: None }).collect();
        }
    }

    /// The row groups of `count` that are read, in runs of consecutive ones. Those without a product whose rows are kept are not.
    pub(crate) fn groups_to_read(&self, count: usize) -> Vec<Range<usize>> {
        let second = self.census.as_ref().and_then(|census| {
            let second = census.second.as_ref()?;
            (census.groups.len() == count).then_some((census, second))
        });
        let Some((census, second)) = second else {
            // An empty run of an empty file reads its columns.
            return std::iter::once(0..count).collect();
        };
        let has_own = |group: &Group| {
            group.products.is_some_and(|[least, most]| {
                second.own[least as usize..=most as usize]
                    .iter()
                    .any(|is_own| *is_own)
            })
        };
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (at, _) in census
            .groups
            .iter()
            .enumerate()
            .filter(|(_, group)| has_own(group))
        {
            match runs.last_mut() {
                Some(run) if run.end == at => run.end += 1,
                _ => runs.push(at..at + 1),
            }
        }
        runs
    }

    /// Notes that the first `rows` rows of the file were passed on, or are not read.
    pub(crate) fn passed(&mut self, rows: u64) {
        if let Some(census) = &mut self.census
            && census.is_first_pass()
        {
            census.passed = rows;
        }
    }

    /// The row up to which the second pass goes: where the first has ended.
    pub(crate) fn end(&self) -> u64 {
        match &self.census {
            Some(census) if !census.is_first_pass() => census.passed,
            _ => u64::MAX,
        }
    }
}
