//! Tests of the files of a fit, of tables and of pictures.

mod fit_output;
mod pictures;
mod synthetic;
mod tables;
