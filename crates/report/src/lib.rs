//! Records of measurements, and all that is derived from them: tables, speedups and pictures.
//!
//! A benchmark leaves a folder ([`records::results_folder`]) of cases ([`records::case_record`]). From the
//! cases alone come the flat table ([`results_csv`]), the table to read ([`table`]), the speedups
//! ([`statistics`]) and the pictures ([`plots`]); [`redraw`] draws them again, [`baseline`] compares them
//! with an earlier run's. The figures that others published are in [`published`]. [`quality`] compares a
//! posterior with the truth and with a reference.
//!
//! How SVI scales over ranks and devices is in [`scaling`], with its flat table in [`scaling_csv`].
//!
//! Fits of one panel are compared in [`comparison`]; a fit ends with its figures in a few lines ([`fit_summary`]) and what its
//! reader must know ([`fit_notes`]). [`calibration_output`] writes the folder of a calibration.

pub mod baseline;
pub mod calibration_output;
pub mod comparison;
pub mod fit_notes;
pub mod fit_summary;
pub mod number_format;
pub mod plots;
pub mod published;
pub mod quality;
pub mod records;
pub mod redraw;
pub mod results_csv;
pub mod scaling;
pub mod scaling_csv;
pub mod spread;
pub mod statistics;
pub mod table;
