//! Random panels for the tests.

use infermark_model::labels::Labels;
use infermark_model::panel::{Panel, PanelPart};
use rand::{RngExt, rngs::StdRng};
use std::sync::Arc;

/// A random panel: prices spread by `spread`, a period missing with probability `gaps`.
pub(crate) fn random_panel(
    rng: &mut StdRng,
    n: usize,
    c: usize,
    t: usize,
    gaps: f64,
    largest: u32,
) -> Arc<Panel> {
    let mut part = PanelPart::new(c, t);
    for i in 0..n {
        let mut periods: Vec<u32> = (0..t as u32).filter(|_| !rng.random_bool(gaps)).collect();
        if periods.is_empty() {
            periods.push(rng.random_range(0..t as u32));
        }
        let prices: Vec<f64> = periods.iter().map(|_| rng.random_range(0.5..50.0)).collect();
        let units: Vec<u32> = periods.iter().map(|_| rng.random_range(0..=largest)).collect();
        let category = if i < c { i } else { rng.random_range(0..c) };
        part.push_product(category, Some(&periods), &prices, &units)
            .unwrap();
    }
    let labels = [
        Labels::numbered("p", n),
        Labels::numbered("c", c),
        Labels::numbered("t", t),
    ];
    let [p, c, t] = labels;
    Arc::new(Panel::from_parts(p, c, t, vec![part]).unwrap())
}
