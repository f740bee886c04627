//! Runs benchmarks: parity, measurement and quality of every backend on one panel after another.
//!
//! A benchmark ([`benchmark`]) compares every backend with the reference ([`parity`]), times all that passed
//! in turns ([`timed_run`], [`timed_fits`], [`limits`], [`quiet`]), measures their quality, and writes a
//! folder of cases (`infermark-report`). [`scaling`] measures SVI on one rank and on several. [`observer`] watches both; [`fit_dispersion`] is what a fit adds to
//! its own figures.

pub mod benchmark;
pub mod fit_dispersion;
pub mod limits;
pub mod observer;
pub mod parity;
pub mod quiet;
pub mod scaling;
pub mod timed_fits;
pub mod timed_run;
