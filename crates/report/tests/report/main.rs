//! Tests of the files of a fit, of tables and of pictures.
//!
//! What is read by people is held against `snapshots`. Where it changes on purpose, `INSTA_UPDATE=always cargo test` writes them again.

mod baseline;
mod fit_output;
mod pictures;
mod synthetic;
mod tables;
mod words;
