//! The pictures, each as SVG and as PNG.
//!
//! Colours are those of Okabe and Ito, distinguishable with every common kind of colour vision; what is
//! published is grey, what is measured here is coloured; legends are outside the data.

pub mod agreement;
pub mod calibration;
mod canvas;
pub mod categories;
pub mod coverage;
pub mod elasticities;
mod frame;
pub mod hours;
pub mod loss;
mod palette;
pub mod posterior_times;
pub mod quality_against_time;
pub mod rates;
mod scale;
pub mod scaling;
mod series;
pub mod speedups;

pub use canvas::{Picture, PlotError};

use crate::records::case_record::{CaseRecord, IterationUnit, of_most_threads};
use infermark_fit_files::file_name::in_file_name;
use std::path::{Path, PathBuf};

/// Draws every picture that `records` have figures for into `folder`; returns the files.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_all(folder: &Path, records: &[CaseRecord]) -> Result<Vec<PathBuf>, PlotError> {
    let mut files = Vec::new();
    files.extend(hours::draw(&folder.join("hours_for_1m_iterations"), records)?);
    files.extend(rates::draw(&folder.join("iterations_per_second"), records)?);
    files.extend(posterior_times::draw(&folder.join("time_to_posterior"), records)?);
    files.extend(speedups::draw(&folder.join("speedups"), records)?);
    let mut sizes: Vec<usize> = records.iter().map(|r| r.panel.products).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for products in sizes {
        let of_size: Vec<&CaseRecord> = records.iter().filter(|r| r.panel.products == products).collect();
        let stem = folder.join(format!("loss_against_time_{products}"));
        files.extend(loss::draw_records(&stem, &of_size)?);
        let stem = folder.join(format!("coverage_{products}"));
        files.extend(coverage::draw_records(&stem, &of_size)?);
        let stem = folder.join(format!("beside_nuts_{products}"));
        files.extend(agreement::draw_records(&stem, &of_size)?);
        // Fits differ by their threads in no posterior, runs that are timed do.
        let fits = of_most_threads(of_size.iter().copied());
        for record in of_size {
            if record.unit == IterationUnit::Fits && !fits.iter().any(|r| r.sequence == record.sequence) {
                continue;
            }
            if let Some(quality) = &record.truth_quality {
                let stem = folder.join(format!(
                    "elasticities_{}_{products}_{:03}",
                    in_file_name(&record.backend),
                    record.sequence
                ));
                files.extend(elasticities::draw_record(&stem, record, quality)?);
            }
        }
    }
    Ok(files)
}
