//! Tests of the files of a fit, of tables and of pictures.

mod baseline;
mod fit_output;
mod pictures;
mod synthetic;
mod tables;
