//! A synthetic panel in memory.

use super::accepted::{Grouping, draw_accepted};
use super::candidate::{Candidates, Draw, ProductRows};
use super::demand::Demand;
use super::{GenerateError, Generator, Process};
use crate::truth::Truth;
use infermark_model::{Panel, PanelPart};
use infermark_threads::on_pool;

struct Block {
    part: PanelPart,
    draws: Vec<Draw>,
}

/// Draws a panel on `threads` threads (0: one per core), and the parameters behind it. The same generator gives the same
/// panel on any number of threads.
///
/// Memory: at most twice the panel's own 12 bytes per row.
///
/// # Errors
/// [`GenerateError`] for sizes or priors that cannot be drawn from.
pub fn generate_panel(generator: &Generator, threads: usize) -> Result<(Panel, Truth), GenerateError> {
    generator.validate()?;
    let rows = generator.products as u64 * generator.periods as u64;
    let sums = generator.categories as u64 * generator.periods as u64;
    let what = format!("a panel of {rows} rows");
    infermark_memory::check(what, 24 * rows + 64 * generator.products as u64 + 8 * sums)?;
    on_pool(threads, || {
        let candidates = Candidates::new(generator);
        let everything: Vec<usize> = (0..generator.categories).collect();
        let (parts, draws) = draw_parts(generator, &candidates, &everything)?;
        let kept = categories_in_use(generator.categories, &draws);
        // A part is laid out for the categories of the panel; if some turn out to be empty, it is drawn
        // again.
        let parts = if kept.len() == generator.categories {
            parts
        } else {
            drop(parts);
            draw_parts(generator, &candidates, &kept)?.0
        };
        let truth = truth_of(generator, &candidates, &draws, &kept);
        drop(draws);
        let panel = Panel::from_parts(
            generator.product_labels(),
            generator.category_labels(&kept),
            generator.period_labels(),
            parts,
        )
        .expect("parts are drawn to the panel's layout");
        Ok((panel, truth))
    })
}

fn draw_parts(
    generator: &Generator,
    candidates: &Candidates,
    kept: &[usize],
) -> Result<(Vec<PanelPart>, Vec<Draw>), GenerateError> {
    let mut index = vec![0; generator.categories];
    for (i, c) in kept.iter().enumerate() {
        index[*c] = i;
    }
    // A part holds C * T sums of 8 bytes: with at least 3 C candidates of T rows of 12 bytes they are
    // comparatively small.
    let block = (3 * generator.categories).max(1024);
    let share = if generator.process == Process::Published {
        0.65
    } else {
        1.0
    };
    let (mut parts, mut draws) = (Vec::new(), Vec::with_capacity(generator.products));
    draw_accepted(
        generator.products,
        Grouping { block, wave: 256 },
        |range, limit| {
            let expected = ((share * block as f64) as usize).min(limit);
            let mut part = PanelPart::with_capacity(
                kept.len(),
                generator.periods,
                expected,
                expected * generator.periods,
            );
            let mut draws = Vec::with_capacity(expected);
            let mut rows = ProductRows::default();
            for candidate in range {
                if draws.len() == limit {
                    break;
                }
                if let Some(draw) = candidates.draw(candidate, &mut rows)? {
                    part.push_product(index[draw.category as usize], None, &rows.prices, &rows.units)
                        .expect("drawn prices are positive, one a period");
                    draws.push(draw);
                }
            }
            Ok(Block { part, draws })
        },
        |block: &Result<Block, GenerateError>| block.as_ref().map_or(0, |block| block.draws.len()),
        |blocks| {
            for block in blocks {
                let block = block?;
                parts.push(block.part);
                draws.extend(block.draws);
            }
            Ok(())
        },
    )?;
    Ok((parts, draws))
}

/// The categories that products fell into, ascending.
pub(crate) fn categories_in_use(categories: usize, draws: &[Draw]) -> Vec<usize> {
    let mut used = vec![false; categories];
    for draw in draws {
        used[draw.category as usize] = true;
    }
    (0..categories).filter(|c| used[*c]).collect()
}

/// The parameters behind a panel whose categories are `kept`.
pub(crate) fn truth_of(
    generator: &Generator,
    candidates: &Candidates,
    draws: &[Draw],
    kept: &[usize],
) -> Truth {
    let parameters = &candidates.parameters;
    let parameter: Vec<f64> = kept.iter().filter_map(|c| parameters.get(*c).copied()).collect();
    let product_elasticity: Vec<f64> = draws.iter().map(|d| d.elasticity).collect();
    let point = match &candidates.demand {
        Demand::Published { .. } => None,
        Demand::Model {
            global_a,
            category_a,
            time_cat_effects,
            ..
        } => {
            let t = generator.periods;
            let mut point = vec![*global_a];
            point.extend(kept.iter().map(|c| category_a[*c]));
            point.extend(&product_elasticity);
            point.extend(draws.iter().map(|d| d.effect));
            point.extend(kept.iter().flat_map(|c| &time_cat_effects[c * t..(c + 1) * t]));
            point.extend(&parameter);
            Some(point)
        }
    };
    Truth {
        likelihood: generator.likelihood,
        product_elasticity,
        parameter,
        point,
    }
}
