//! A part of a large panel, on which the plain reference is quick enough.

use infermark_model::{Labels, Panel, PanelPart};
use std::sync::Arc;

/// Every k-th product of `panel`, with k such that at most about `most_rows` rows remain, and a description;
/// the whole panel if it is small enough. Categories that lose all products are left out.
pub fn sub_panel(panel: &Arc<Panel>, most_rows: usize) -> (Arc<Panel>, String) {
    if panel.rows() <= most_rows {
        return (panel.clone(), "the whole panel".into());
    }
    let layout = panel.layout();
    let stride = panel.rows().div_ceil(most_rows.max(1)).min(layout.products);
    let chosen: Vec<usize> = (0..layout.products).step_by(stride).collect();
    let small = of_products(panel, &chosen);
    let words = format!(
        "every {stride}th product: {} products, {} rows",
        chosen.len(),
        small.rows()
    );
    (small, words)
}

/// The products `chosen`, with the categories that they have.
fn of_products(panel: &Panel, chosen: &[usize]) -> Arc<Panel> {
    let layout = panel.layout();
    let mut new_category = vec![usize::MAX; layout.categories];
    for product in chosen {
        new_category[panel.category_of()[*product] as usize] = 0;
    }
    let mut categories = 0;
    for slot in new_category.iter_mut().filter(|slot| **slot == 0) {
        *slot = categories;
        categories += 1;
    }
    let mut part = PanelPart::new(categories, layout.periods);
    for product in chosen {
        let category = new_category[panel.category_of()[*product] as usize];
        let units = &panel.units()[panel.row_range(*product)];
        part.push_product_of(panel, *product, category, units)
            .expect("rows of a panel make a panel");
    }
    let small = Panel::from_parts(
        Labels::numbered("p", chosen.len()),
        Labels::numbered("c", categories),
        Labels::numbered("t", layout.periods),
        vec![part],
    )
    .expect("products of a panel make a panel");
    Arc::new(small)
}
