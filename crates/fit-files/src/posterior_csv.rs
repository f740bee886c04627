//! `posterior.csv`: one row per latent, in natural parameters.
//!
//! Columns `site,key,mean,sd,q05,q95`, and for Markov chains `mcse_mean,ess_bulk,ess_tail,rhat`. The key is
//! the category (of `category_a` and `log_shape`), the product, or `category@period`; it is empty for
//! `global_a`. Numbers are the shortest that read back to the same `f64`; `NaN` where chains are too short.

use infermark_backend::Posterior;
use infermark_model::{Axes, Panel, Site};
use infermark_threads::run_parts;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::Range;

/// Columns that every posterior has.
pub const COLUMNS: [&str; 6] = ["site", "key", "mean", "sd", "q05", "q95"];
/// Columns that Markov chains add.
pub const CHAIN_COLUMNS: [&str; 4] = ["mcse_mean", "ess_bulk", "ess_tail", "rhat"];

/// Number of latents that are formatted at once.
const BLOCK: usize = 4096;

/// Writes the posterior of `panel` row by row, formatted on `threads` threads.
///
/// # Errors
/// When `out` fails.
///
/// # Panics
/// When the posterior's layout is not the panel's.
pub fn write_posterior_csv(
    out: impl Write,
    panel: &Panel,
    posterior: &Posterior,
    threads: usize,
) -> io::Result<()> {
    let layout = panel.layout_for(posterior.layout.likelihood);
    assert_eq!(posterior.layout, layout, "the posterior is of another panel");
    let mut columns: Vec<&[f64]> = vec![&posterior.mean, &posterior.sd, &posterior.q05, &posterior.q95];
    let mut header: Vec<&str> = COLUMNS.to_vec();
    if let Some(d) = &posterior.diagnostics {
        columns.extend([
            d.mcse_mean.as_slice(),
            d.ess_bulk.as_slice(),
            d.ess_tail.as_slice(),
            d.rhat.as_slice(),
        ]);
        header.extend(CHAIN_COLUMNS);
    }
    let axes = panel.axes();
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(&header)?;
    let mut out = csv.into_inner().map_err(|error| error.into_error())?;
    let blocks: Vec<(Site, Range<usize>)> = layout
        .sites()
        .iter()
        .flat_map(|site| {
            let latents = layout.range(*site);
            let starts = latents.clone().step_by(BLOCK);
            starts.map(move |start| (*site, start..(start + BLOCK).min(latents.end)))
        })
        .collect();
    // Formatting numbers takes most of the time: one block per thread is formatted at once.
    for blocks in blocks.chunks(threads.max(1)) {
        let texts = run_parts(blocks.iter().map(|(site, latents)| {
            let columns = &columns;
            move || in_words(axes, *site, layout.start(*site), latents.clone(), columns)
        }));
        for text in texts {
            out.write_all(&text?)?;
        }
    }
    out.flush()
}

/// The lines of some latents of a site.
fn in_words(
    axes: Axes<'_>,
    site: Site,
    first_of_site: usize,
    latents: Range<usize>,
    columns: &[&[f64]],
) -> io::Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::with_capacity(128 * latents.len()));
    let mut text = String::new();
    for latent in latents {
        text.clear();
        write!(text, "{}", axes.key(site, latent - first_of_site)).expect("a string takes all");
        csv.write_field(site.name())?;
        csv.write_field(&text)?;
        for column in columns {
            text.clear();
            write!(text, "{:?}", column[latent]).expect("a string takes all");
            csv.write_field(&text)?;
        }
        csv.write_record(None::<&[u8]>)?;
    }
    csv.into_inner().map_err(|error| error.into_error())
}
