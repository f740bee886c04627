//! Runs benchmarks, keeps their results, and draws tables and plots; writes the folder of a fit.
//!
//! A benchmark ([`benchmark`]) holds every backend against the reference ([`parity`]), times all that passed side by side
//! ([`timed_run`], [`timed_fits`], [`limits`], [`quiet`]), takes their quality ([`quality`], [`coverage`], [`agreement`],
//! [`published_nuts`]), and writes a folder
//! ([`results_folder`]) of cases ([`case_record`]). From the cases alone come the flat table ([`results_csv`]), the table to
//! read ([`table`]), the speedups ([`speedup`], [`time_to_posterior`]) and the pictures ([`plots`]); [`report`] draws them again.
//! The figures that others published are in [`published`].
//!
//! A fit ([`fit_output`]) leaves [`posterior_csv`], [`trace_csv`], [`draws_parquet`] and [`fit_record`], and ends with its figures in a
//! few lines ([`fit_summary`]) and what its reader must know ([`fit_notes`]). All files are
//! written whole or not at all ([`infermark_atomic_file`]), and say what they were made on ([`system`],
//! [`panel_description`]). Fits of one panel are read back ([`fit_folder`]) and compared ([`comparison`]).

pub mod agreement;
pub mod benchmark;
pub mod calibration_output;
pub mod case_record;
pub mod comparison;
pub mod coverage;
mod digest_writer;
pub mod draws_parquet;
mod file_name;
pub mod fit_dispersion;
pub mod fit_folder;
pub mod fit_notes;
pub mod fit_output;
pub mod fit_record;
pub mod fit_summary;
pub mod given;
pub mod json_file;
pub mod limits;
pub mod number_format;
pub mod observer;
pub mod panel_description;
pub mod parity;
pub mod plots;
pub mod posterior_csv;
pub mod published;
pub mod published_nuts;
pub mod quality;
pub mod quiet;
pub mod report;
pub mod results_csv;
pub mod results_folder;
pub mod speedup;
pub mod spread;
pub mod system;
pub mod table;
pub mod time_to_posterior;
pub mod timed_fits;
pub mod timed_run;
pub mod trace_csv;
