//! Runs benchmarks, keeps their results, and draws tables and plots.
//!
//! | module | holds |
//! |---|---|
//! | [`atomic_file`] | files that are either whole or not there |
//! | [`system`] | what the machine and the program say of themselves |
//! | [`panel_description`] | what a result says of its data, with the SHA-256 of the columns |
//! | [`fit_output`] | the folder of a fit |
//! | [`posterior_csv`], [`trace_csv`], [`draws_parquet`], [`fit_record`] | its files |

pub mod atomic_file;
pub mod draws_parquet;
pub mod fit_output;
pub mod fit_record;
pub mod panel_description;
pub mod posterior_csv;
pub mod system;
pub mod trace_csv;
