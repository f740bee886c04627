//! Tests of the files of a fit, of tables and of pictures.
//!
//! Text for people is compared with `snapshots`. After an intended change, `INSTA_UPDATE=always cargo test`
//! updates them.

mod baseline;
mod fit_output;
mod pictures;
mod scaling;
mod scaling_timings;
mod synthetic;
mod tables;
mod words;
