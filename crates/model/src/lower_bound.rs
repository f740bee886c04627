//! How many rows a fit puts below the lower clip bound of the log rate.
//!
//! Below it the likelihood no longer depends on the parameters: a row there says only that its rate is low.
//! With many such rows the posterior is shaped by the bound rather than by sales, whichever method computes
//! it.

use crate::design::{EFFECT, PRODUCT_LATENTS, along_regressors, at};
use crate::panel::Panel;
use crate::priors::Priors;
use crate::site::Layout;
use infermark_threads::run_parts;

/// Share of the rows below the bound from which on a warning says that the bound shapes the fit.
///
/// Rows within the bound identify a posterior as long as those below it are few; at one row in twenty a typical product of two
/// years of weeks has five of them.
pub const MOST_BELOW: f64 = 0.05;

/// Share of the rows whose log rate at `point` (natural parameters, the order of the panel's layout) is below
/// [`Priors::clip_low`]. Every rank that holds the panel's rows takes part.
pub fn share_below(panel: &Panel, priors: &Priors, point: &[f64], threads: usize) -> f64 {
    let layout = panel.layout();
    let held: Vec<usize> = panel.held_products().collect();
    let part = held.len().div_ceil(threads.clamp(1, held.len()));
    let counted = run_parts(held.chunks(part).map(|products| {
        move || {
            products
                .iter()
                .copied()
                .map(|i| rows_below(panel, &layout, priors.clip_low, point, i))
                .sum::<usize>()
        }
    }));
    let mut below = [counted.into_iter().sum::<usize>() as f64];
    panel.sum_over_ranks(&mut below);
    below[0] / panel.rows() as f64
}

/// The rows of a product whose log rate at `point` (natural parameters, the order of `layout`) is below `low`.
pub fn rows_below(panel: &Panel, layout: &Layout, low: f64, point: &[f64], product: usize) -> usize {
    let latents = at(point, layout.product_places(product));
    let effects = &point[layout.time_index(panel.category_of()[product] as usize, 0)..][..layout.periods];
    let is_below = |design: &[f64; PRODUCT_LATENTS], of_period: f64| {
        along_regressors(&latents, design) + of_period + latents[EFFECT] < low
    };
    match panel.presence() {
        // In whole vectors.
        None => {
            let rows = panel.designs(product).zip(effects);
            rows.map(|(x, of_period)| usize::from(is_below(&x, *of_period)))
                .sum()
        }
        Some(_) => {
            let rows = panel.product_rows(product);
            rows.filter(|row| is_below(&row.design(), effects[row.period]))
                .count()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Labels, PanelPart, Site};

    #[test]
    fn rows_below_the_bound_are_counted_on_any_number_of_threads() {
        let mut part = PanelPart::new(2, 4);
        part.push_product(0, Some(&[0, 2, 3]), &[1.0, 1.0, 2.0], &[0, 1, 0])
            .unwrap();
        part.push_product(1, None, &[1.0; 4], &[0; 4]).unwrap();
        let panel = Panel::from_parts(
            Labels::numbered("p", 2),
            Labels::numbered("c", 2),
            Labels::numbered("t", 4),
            vec![part],
        )
        .unwrap();
        let layout = panel.layout();
        let mut point = vec![0.0; layout.latents()];
        point[layout.start(Site::ProductA)] = -2.0;
        point[layout.start(Site::ProductEffect)] = -3.0;
        point[layout.time_index(0, 2)] = -1.5;
        // Log rates -3, -4.5 and -3 - 2 ln 2; the other product's are 0, but for one of -4, at the bound and not below.
        point[layout.time_index(1, 1)] = -4.0;
        for threads in [1, 2, 7] {
            assert_eq!(
                share_below(&panel, &Priors::default(), &point, threads),
                2.0 / 7.0
            );
        }
    }
}
