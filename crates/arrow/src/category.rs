//! A category's border: the Schur complement that its products leave.

use crate::product::{Lower2, Rows};
use crate::tasks;
use crate::triangular::Lower;
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, MatMut, MatRef, Par};
use std::ops::Range;

/// Products whose couplings are gathered before they are multiplied: 2 x 64 columns of 157 periods stay in the second
/// cache.
pub(crate) const GATHERED: usize = 64;

/// A part of a category's products, by their place in the walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) category: usize,
    pub(crate) places: Range<usize>,
}

/// Cuts the walk into parts of one category each, several a thread, so that all threads end at about the same time.
pub(crate) fn parts(ends: &[usize], threads: usize) -> Vec<Part> {
    let products = ends.last().copied().unwrap_or(0);
    let most = (products.div_ceil(4 * threads.max(1))).next_multiple_of(GATHERED);
    let mut parts = Vec::new();
    let mut start = 0;
    for (category, end) in ends.iter().enumerate() {
        while start < *end {
            let next = (start + most).min(*end);
            parts.push(Part {
                category,
                places: start..next,
            });
            start = next;
        }
    }
    parts
}

/// What a part of the products leaves of its category's border.
pub(crate) struct Reduced {
    /// Factors of the blocks, in the order of the walk; `Err` names the product whose block is not positive definite.
    pub(crate) lower: Result<Vec<Lower2>, usize>,
    /// `sum_i w_it` of every period.
    pub(crate) weights: Vec<f64>,
    /// Lower triangle of `-sum_i V_i' V_i`, column-major.
    pub(crate) schur: Vec<f64>,
}

/// Reduces a part.
pub(crate) fn reduce(rows: &Rows<'_>, order: &[u32], border: usize, part: &Part) -> Reduced {
    let mut out = Reduced {
        lower: Ok(Vec::with_capacity(part.places.len())),
        weights: vec![0.0; border - 1],
        schur: vec![0.0; border * border],
    };
    let mut gathered = vec![0.0; 2 * GATHERED * border];
    for chunk in order[part.places.clone()].chunks(GATHERED) {
        for (product, b) in chunk.iter().zip(gathered.chunks_exact_mut(2 * border)) {
            let Some(lower) = rows.coupling(*product as usize, b) else {
                out.lower = Err(*product as usize);
                return out;
            };
            for (sum, w) in out.weights.iter_mut().zip(&b[border..]) {
                *sum += w;
            }
            Rows::solve_coupling(&lower, b);
            if let Ok(all) = &mut out.lower {
                all.push(lower);
            }
        }
        let columns = 2 * chunk.len();
        let v = MatRef::from_column_major_slice(&gathered[..columns * border], border, columns);
        matmul(
            MatMut::from_column_major_slice_mut(&mut out.schur, border, border),
            BlockStructure::TriangularLower,
            Accum::Add,
            v,
            BlockStructure::Rectangular,
            v.transpose(),
            BlockStructure::Rectangular,
            -1.0,
            Par::Seq,
        );
    }
    out
}

/// The factors of every category's Schur complement, from the reduced parts; `None` where one is not positive definite.
pub(crate) fn factor_borders(
    parts: &[Part],
    reduced: &[Reduced],
    priors: &infermark_model::priors::Priors,
    products: &[usize],
    border: usize,
    threads: usize,
) -> Vec<Option<Lower>> {
    let categories: Vec<usize> = (0..products.len()).collect();
    tasks::run(threads, &categories, |category| {
        let mut schur = vec![0.0; border * border];
        let mut weights = vec![0.0; border - 1];
        for (_, reduced) in parts.iter().zip(reduced).filter(|(p, _)| p.category == *category) {
            schur.iter_mut().zip(&reduced.schur).for_each(|(s, r)| *s += r);
            weights
                .iter_mut()
                .zip(&reduced.weights)
                .for_each(|(s, r)| *s += r);
        }
        for (t, w) in weights.iter().enumerate() {
            schur[t * border + t] += w + priors.time_cat_effects_sd.powi(-2);
        }
        schur[border * border - 1] +=
            priors.category_a_sd.powi(-2) + products[*category] as f64 * priors.product_a_sd.powi(-2);
        Lower::cholesky(schur, border)
    })
}
